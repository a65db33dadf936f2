"""Fill the blanks in a text: one token for each <mask>, or a span of any length with two towers.

    bothways fill run/model "The cat sat on the <mask>."

A text of - is read from standard input, every line a text of its own. Several words compared in one place:

    bothways fill run/model "The cat sat on the <mask>." --candidates mat dog "kitchen table"

How the text came to be, one line a step:

    bothways fill run/model "The <mask> sat on the <mask>." --show-steps --decoding gibbs --temperature 1
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
    candidates: tuple[str, ...] = ()
    """Score these words in the text's only <mask> instead, the best first."""
    max_new_tokens: int = 64
    """With two towers, how many tokens longer than the text the answer may be."""
    max_blank_tokens: int = 1
    """Where a <mask> stands for one token: try every number of tokens up to this one."""
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
    decoding: Literal["mask_predict", "diffusion", "gibbs"] | None = None
    """Another way to fill than the model's own, where it names hidden tokens."""
    steps: int | None = None
    """Passes over the text; 10 for masked models and one for each blank for diffusion when none."""
    order: str | None = None
    """Which blanks come first: confidence, entropy, margin, random, left_to_right, or numbers such as 2,0,1."""
    guidance: float = 0.0
    """Above 0 leans harder on the given tokens, at two passes a step."""
    show_steps: bool = False
    """Play how each text came to be."""
    device: str | None = None
    """cpu, cuda, cuda:1."""


def run(options: Options) -> int:
    """Load, fill, print."""
    import sys

    import bothways
    from bothways.cli.steps import read_order, show
    from bothways.decoding import GenerateConfig

    texts = sys.stdin.read().splitlines() if options.text == "-" else [options.text]
    model = bothways.from_pretrained(options.folder, device=options.device)
    if options.candidates:
        for text in texts:
            for score in model.score_fills(text, options.candidates, options.visibility):
                share = "" if score.share is None else f"{score.share:.1%}"
                print(f"{score.log_prob:10.3f}  {share:>6}  {score.candidate}")
            print(f"natural logs; {score.estimator}")
        return 0
    config = GenerateConfig(
        options.max_new_tokens, seed=options.seed, temperature=options.temperature, top_k=options.top_k,
        top_p=options.top_p, steps=options.steps, order=read_order(options.order), decoding=options.decoding,
        guidance=options.guidance, max_blank_tokens=options.max_blank_tokens)
    for new in model.write_in(texts, config, options.visibility):
        if options.show_steps:
            show(model, new)
        else:
            print(new.text)
    return 0
