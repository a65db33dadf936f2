"""Write a model in another layout or number format, or read one that another library wrote.

    bothways convert run/model exported --dtype bfloat16

The layout "auto" takes the class of transformers that gives the same logits, where there is one; "bothways" keeps our
own names; the model_type of a family (llama, gpt2, t5, ...) asks for that one, and says which choice prevents it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro


@dataclass(frozen=True)
class Options:
    """From where to where, and as what."""

    folder: tyro.conf.Positional[Path]
    """The model folder to read: ours, or a plain one of a known family."""
    out: tyro.conf.Positional[Path]
    """The folder to write."""
    layout: str = "auto"
    """Whose names the weights get: auto, bothways or a family's model_type."""
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    """The number format of the weights; as they are when none."""
    add_tokens: tuple[str, ...] | None = None
    """Tokens to add, such as <tool>; named without any, all reserved ones that are missing (<mask>, sentinels, ...)."""
    force: bool = False
    """Replace the folder if it exists."""


def run(options: Options) -> int:
    """Read, write, say what it became."""
    import json

    import torch

    from bothways.errors import BothwaysError
    from bothways.families.extend import extend_vocabulary
    from bothways.families.folder import load, save

    if options.out.exists() and not options.force:
        raise BothwaysError(f"{options.out} exists already: choose another folder, or replace it with --force")
    dtype = None if options.dtype is None else getattr(torch, options.dtype)
    trained = load(options.folder)
    if options.add_tokens is not None:
        before = trained.config.shape.vocabulary
        trained = extend_vocabulary(trained, options.add_tokens or None)
        print(f"vocabulary    {before:,} rows, now {trained.config.shape.vocabulary:,}")
    save(trained, options.out, options.layout, dtype)
    written = json.loads((options.out / "config.json").read_text(encoding="utf-8"))
    size = (options.out / "model.safetensors").stat().st_size / 2**20
    print(f"{options.out}: {written['architectures'][0]}, {written['dtype']}, {size:.1f} MiB")
    return 0
