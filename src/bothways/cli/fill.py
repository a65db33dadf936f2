"""Fill the blanks in a text: one token for each <mask>, or a span of any length with two towers.

    bothways fill run/model "The cat sat on the <mask>."

A text of - is read from standard input, every line a text of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro


@dataclass(frozen=True)
class Options:
    """Which model fills what, and how."""

    folder: tyro.conf.Positional[Path]
    """The model folder, or a run's folder."""
    text: tyro.conf.Positional[str]
    """The text with <mask> wherever something is missing; - reads standard input."""
    max_new_tokens: int = 64
    """With two towers, how many tokens longer than the text the answer may be."""
    temperature: float = 0.0
    """0 takes the likeliest token each time; 1 draws from the model's own distribution."""
    top_k: int | None = None
    """Draw from the k likeliest tokens only."""
    top_p: float | None = None
    """Draw from the likeliest tokens that together reach this probability."""
    seed: int = 0
    """Another seed draws other tokens."""
    visibility: str | None = None
    """The name of a trained mode; the one that fills when none."""
    steps: int | None = None
    """Passes over the text; 10 for masked models and one for each blank for diffusion when none."""
    order: Literal["confidence", "random"] = "confidence"
    """Which predictions are kept first."""
    device: str | None = None
    """cpu, cuda, cuda:1."""


def run(options: Options) -> int:
    """Load, fill, print."""
    import sys

    import bothways

    texts = sys.stdin.read().splitlines() if options.text == "-" else [options.text]
    model = bothways.from_pretrained(options.folder, device=options.device)
    for text in model.fill(texts, options.max_new_tokens, visibility=options.visibility, seed=options.seed,
                           temperature=options.temperature, top_k=options.top_k, top_p=options.top_p,
                           steps=options.steps, order=options.order):
        print(text)
    return 0
