"""Write on from a prompt, with any trained model; text appears as it is written.

    bothways generate run/model "Once upon a time" --max-new-tokens 40

A prompt of - is read from standard input. Which decoding writes is up to the model's objective: left to right where it
looks left, by filling blanks (--steps, --block) where it looks both ways. A model trained both ways is asked for one:

    bothways generate run/model "Once upon a time" --visibility causal --temperature 0.8 --top-p 0.9

A model trained on questions and answers (instruct, pairs) answers the prompt; what it thinks first can be limited and
left out:

    bothways generate run/model "What is 2 + 2?" --think-tokens 50 --hide-thought

How the text came to be, one line a step:

    bothways generate run/model "Once upon a time" --show-steps
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro


@dataclass(frozen=True)
class Options:
    """Which model writes, after what, and how."""

    folder: tyro.conf.Positional[Path]
    """The model folder, or a run's folder."""
    prompt: tyro.conf.Positional[str] = ""
    """The text to continue; nothing begins a text, - reads standard input."""
    max_new_tokens: int = 64
    """The most tokens to write."""
    temperature: float = 0.0
    """0 takes the likeliest token each time; 1 draws from the model's own distribution."""
    top_k: int | None = None
    """Draw from the k likeliest tokens only."""
    top_p: float | None = None
    """Draw from the likeliest tokens that together reach this probability."""
    min_p: float | None = None
    """Draw from tokens at least this share as likely as the likeliest."""
    repetition_penalty: float = 1.0
    """Above 1 makes tokens that stand in the text already less likely."""
    stop: tuple[str, ...] = ()
    """Strings that end the text."""
    seed: int = 0
    """Another seed draws another text."""
    samples: int = 1
    """How many texts, with seeds one after the other."""
    visibility: str | None = None
    """The name of a trained mode, for a model with several."""
    steps: int | None = None
    """Passes over a block, for models that fill many places at once."""
    block: int | None = None
    """Places filled at once; all of them when none."""
    order: str | None = None
    """Which places such a model writes first: confidence, entropy, margin, random or left_to_right."""
    decoding: Literal["mask_predict", "diffusion", "gibbs"] | None = None
    """Another way to fill than such a model's own."""
    guidance: float = 0.0
    """Above 0 such a model leans harder on the prompt, at two passes a step."""
    prefix_cache: bool = False
    """Let such a model read the text before a block once, which is faster and not exact."""
    show_steps: bool = False
    """Play how the text came to be."""
    think_tokens: int | None = None
    """The most tokens of a thought, for a model that thinks before it answers; 0 lets it answer at once."""
    hide_thought: bool = False
    """Show the answer alone."""
    device: str | None = None
    """cpu, cuda, cuda:1."""
    verbose: bool = False
    """Also print how long it took, to standard error."""


def run(options: Options) -> int:
    """Load, write, print."""
    import sys
    import time

    import bothways
    from bothways.cli.steps import read_order, show
    from bothways.decoding import GenerateConfig
    from bothways.errors import BothwaysError

    if options.samples < 1:
        raise BothwaysError(f"--samples {options.samples}: at least 1 text is written")
    prompt = sys.stdin.read() if options.prompt == "-" else options.prompt
    model = bothways.from_pretrained(options.folder, device=options.device)
    how = {name: getattr(options, name) for name in (
        "temperature", "top_k", "top_p", "min_p", "stop", "repetition_penalty", "decoding", "steps", "block",
        "guidance", "prefix_cache", "think_tokens", "hide_thought")}
    how["order"] = read_order(options.order)
    for number in range(options.samples):
        begun, pieces, how["seed"] = time.perf_counter(), 0, options.seed + number
        if options.samples > 1:
            print(f"--- {number + 1} (seed {how['seed']})")
        if options.show_steps:
            (new,) = model.write([prompt], GenerateConfig(options.max_new_tokens, **how), options.visibility)
            show(model, new, model.tokenizer.encode(prompt))
            continue
        text = model.generate(prompt, options.max_new_tokens, stream=True, visibility=options.visibility, **how)
        print(prompt, end="\n" if model.objective.replies else "", flush=True)
        for piece in text:
            pieces += len(piece)
            print(piece, end="", flush=True)
        print()
        if options.verbose:
            seconds = time.perf_counter() - begun
            print(f"{pieces} characters in {seconds:.2f} s, {pieces / seconds:.0f} a second", file=sys.stderr)
    return 0
