"""What `generate` and `fill` share: `--order`, and `--show-steps`, which plays how a text came to be."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bothways.api import Model
    from bothways.decoding import Written


def read_order(order: str | None) -> str | tuple[int, ...] | None:
    """A name, or "2,0,1" as numbers."""
    if order is None or not order.replace(",", "").replace(" ", "").isdecimal():
        return order
    return tuple(int(number) for number in order.split(",") if number.strip())


def show(model: Model, written: Written, before: Sequence[int] = ()) -> None:
    """Play the steps of one text, then say what it cost."""
    from rich.console import Console

    from bothways.decoding.common import FILLING
    from bothways.pictures.steps import frames, play

    console = Console(highlight=False)
    decode = functools.partial(model.tokenizer.decode, skip_reserved=False)
    play(list(frames(written.canvases(), decode, model.vocabulary.mask, before, written.decoding not in FILLING)),
         console)
    kept = f", {written.cache_bytes / 2 ** 20:.2f} MiB kept" if written.cache_bytes else ""
    console.print(f"      {written.decoding.replace('_', ' ')}: {len(written.steps)} steps, "
                  f"{written.network_evaluations} network evaluations, {written.seconds:.2f} s{kept}",
                  style="bright_black")
