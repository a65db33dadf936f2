"""Talk with a model that answers: one with a chat template, or one tuned to answer (`bothways tune --task instruct`).

    bothways chat models/smollm2

Answers appear as they are written. /new forgets the conversation, /quit (or the end of the input) ends it. With a
question in the call, that one is answered and nothing else:

    bothways chat models/smollm2 "What is the capital of France?"
    bothways chat models/smollm2 "Is it old?" --system "You answer in one sentence." --temperature 0.7
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro

if TYPE_CHECKING:
    from bothways.api import Model
    from bothways.decoding import Prefixes


@dataclass(frozen=True)
class Options:
    """Who answers, and how."""

    folder: tyro.conf.Positional[Path]
    """The model folder, a run's folder, or a GGUF file's."""
    question: tyro.conf.Positional[str] = ""
    """A single question; a conversation when none."""
    system: str | None = None
    """What the model is told before the conversation."""
    max_new_tokens: int = 256
    """The most tokens of an answer."""
    temperature: float = 0.0
    """0 takes the likeliest token each time; 1 draws from the model's own distribution."""
    top_p: float | None = None
    """Draw from the likeliest tokens that together reach this probability."""
    repetition_penalty: float = 1.0
    """Above 1 makes tokens that stand in the text already less likely."""
    seed: int = 0
    """Another seed draws other answers."""
    think_tokens: int | None = None
    """The most tokens of a thought, for a model that thinks before it answers; 0 lets it answer at once."""
    hide_thought: bool = False
    """Show the answer alone."""
    weights: Literal["float32", "bfloat16", "int8", "int4"] | None = None
    """How the weights are read: int8 and int4 are faster on the CPU, and approximate; the file's own when none."""
    device: str | None = None
    """cpu, cuda, cuda:1."""


def run(options: Options) -> int:
    """Load, then answer one question or one after the other."""
    import sys

    import bothways
    from bothways.decoding import Prefixes
    from bothways.errors import BothwaysError

    model = bothways.from_pretrained(options.folder, device=options.device, weights=options.weights)
    told = [] if options.system is None else [{"role": "system", "content": options.system}]
    # 1. a single question
    if options.question:
        answer(model, [*told, {"role": "user", "content": options.question}], options, None)
        return 0
    # 2. a conversation, whose earlier turns are not read again
    turns, prefixes, live = list(told), Prefixes(), sys.stdin.isatty()
    while True:
        try:
            said = input("> " if live else "").strip()
        except EOFError:
            return 0
        if said == "/quit":
            return 0
        if said == "/new":
            turns = list(told)
        elif said:
            asked = {"role": "user", "content": said}
            try:
                text = answer(model, [*turns, asked], options, prefixes)
            except BothwaysError as problem:
                # a question that cannot be answered is not remembered
                print(f"{problem} (/new begins another conversation)", file=sys.stderr)
                if not live:
                    return problem.exit_code
            else:
                turns += [asked, {"role": "assistant", "content": text}]


def answer(model: Model, turns: list[dict[str, str]], options: Options, prefixes: Prefixes | None) -> str:
    """Print the answer as it is written, and return it."""
    found = ""
    for piece in model.chat(turns, options.max_new_tokens, stream=True, prefixes=prefixes,
                            temperature=options.temperature, top_p=options.top_p, seed=options.seed,
                            repetition_penalty=options.repetition_penalty, think_tokens=options.think_tokens,
                            hide_thought=options.hide_thought):
        found += piece
        print(piece, end="", flush=True)
    print()
    return found.strip()
