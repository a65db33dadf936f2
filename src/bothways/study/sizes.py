"""Which network fits which budget: the recorded choices, in one place.

A network too large for its budget sees too few tokens, one too small stops learning early. The rows below are chosen
by a search (docs/log.md says when, on what, and with which results): change a number here and the log together.

The budget of a row is counted in training FLOPs per run, so that it means the same on every machine. `RATES` are the
learning rates of the single contenders, found with equal effort for each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

CPU_THREAD_FLOPS = 4e10
"""FLOPs a second that one CPU thread sustains in training at these sizes; only sizes and expected times hang on it."""
ACCELERATOR_FLOPS = 3e13
"""The same for one accelerator with networks of this size."""


@dataclass(frozen=True)
class Size:
    """A network and how it is trained. `until` is the largest budget in FLOPs a run that this row is meant for."""

    until: float
    width: int
    layers: int
    heads: int
    vocabulary: int
    window: int
    batch_tokens: int
    matrix_rate: float
    other_rate: float = 3e-3
    optimizer: Literal["muon", "adamw"] = "muon"
    weight_decay: float = 0.1


TEXT: tuple[Size, ...] = (
    # until    width layers heads vocabulary window batch rates
    Size(2.5e12, 128, 4, 2, 1024, 128, 2048, 0.02, 8e-3),   # about a minute of one thread
    Size(8e12, 128, 4, 2, 2048, 128, 2048, 0.02, 8e-3),     # about 3 minutes
    Size(6e13, 192, 4, 3, 2048, 128, 2048, 0.02, 8e-3),     # about 25 minutes
    Size(6e14, 256, 6, 4, 2048, 128, 4096, 0.02, 5e-3),
    Size(1e16, 384, 8, 6, 4096, 256, 8192, 0.01),
    Size(1e18, 512, 12, 8, 8192, 256, 16384, 0.01),
    Size(float("inf"), 768, 12, 12, 16384, 512, 65536, 0.01),
)

KNOWN: tuple[Size, ...] = (
    Size(float("inf"), 64, 3, 4, 128, 64, 2048, 0.02),
)
"""The known source: a grammar of about 64 words needs no more, whatever the budget."""

RATES: dict[str, float] = {}
"""contender -> factor on the row's learning rate, where the search found another one better than 1."""

DECAYS: dict[str, float] = {}
"""contender -> weight decay, where the search found another one better than the row's."""


def choose(kind: Literal["known", "text"], flops: float) -> Size:
    """The row for a budget of `flops` a run."""
    rows = KNOWN if kind == "known" else TEXT
    return next(row for row in rows if flops <= row.until)
