"""The table of docs/decoding.md: one sentence completed, filled and rewritten by every model of a study.

    bothways compare --recipe recipes/studies/objectives.yaml --out study
    python docs/decoding_table.py study

Every model decodes greedily, by what its own objective asks for; some a second way. What was written is bold, and
beside it stands the number of network evaluations it took. Completed: the first half of the sentence is given. Filled:
one word is missing. Rewritten: every third word is missing, or where a model fills one blank only, the middle of the
sentence.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

import bothways
from bothways.decoding import GenerateConfig, Written
from bothways.decoding.common import FILLING
from bothways.errors import BothwaysError
from bothways.pictures.steps import frames

SENTENCES = {"known": "the old farmers near the trees call the quiet horses today .",
             "text": "The cell membrane controls which molecules enter and leave the cell, and at what rate."}
SECOND = {"masked": {"decoding": "gibbs"}, "diffusion": {"steps": 2}, "permuted": {"order": "left_to_right"}}
"""A second way for some objectives: options by the objective's name."""


def models(folder: Path, source: str) -> Iterator[tuple[str, bothways.Model]]:
    """The trained models of a study's first seed, by contender."""
    for place in sorted((folder / "runs" / source).glob("*-seed0/training/model")):
        run = json.loads((place.parents[1] / "run.json").read_text())
        yield str(run.get("contender", place.parents[1].name)), bothways.from_pretrained(place)


def shown(model: bothways.Model, written: Written, prompt: str = "") -> str:
    """The text, with what was written in bold, and how many evaluations that took."""
    decode = functools.partial(model.tokenizer.decode, skip_reserved=True)
    *_, last = written.canvases()
    touched = {place for step in written.steps for place in step.places}
    hidden = [-1 if place in touched else token for place, token in enumerate(last)]
    # the tokens behind an end were dropped
    length = len(written.ids)
    before = model.tokenizer.encode(prompt)
    *_, frame = frames([hidden[:length], last[:length]], decode, model.vocabulary.mask, before,
                       written.decoding not in FILLING)
    text, end, runs = "", 0, merged(frame.text, frame.new)
    for start, stop in runs:
        words = frame.text[start:stop].strip()
        lead = frame.text[start:stop][:len(frame.text[start:stop]) - len(frame.text[start:stop].lstrip())]
        text, end = text + frame.text[end:start] + lead + (f"**{words}**" if words else ""), stop
    text = re.sub(r"\s+", " ", text + frame.text[end:]).replace("|", "\\|")
    return f"{text} | {written.network_evaluations}"


def merged(text: str, runs: tuple[tuple[int, int], ...]) -> list[tuple[int, int]]:
    """Runs of characters that touch, or have only a space between them, as one."""
    joined: list[tuple[int, int]] = []
    for start, stop in runs:
        if joined and not text[joined[-1][1]:start].strip():
            joined[-1] = joined[-1][0], stop
        else:
            joined.append((start, stop))
    return joined


def tried(work: Callable[[], str]) -> str:
    """What a model makes of a task, or that it cannot."""
    try:
        return work()
    except BothwaysError:
        return "– | –"


def row(model: bothways.Model, sentence: str, options: dict[str, object]) -> str:
    """One model's three answers, in a second way where there are options; a way that has nothing to add is left out."""
    words = sentence.split(" ")
    half = " ".join(words[:len(words) // 2])
    one = " ".join("<mask>" if i == len(words) // 2 else word for i, word in enumerate(words))
    several = " ".join("<mask>" if i % 3 == 2 and i < len(words) - 1 else word for i, word in enumerate(words))
    middle = " ".join([*words[:len(words) // 3], "<mask>", *words[-len(words) // 3:]])
    writing = next((mode for mode in model.objective.modes if mode.likelihood == "exact"
                    and model.objective.decoding_of(mode) == "left_to_right"), model.objective.modes[0])
    if model.objective.name == "permuted":
        writing = model.objective.modes[0]

    def complete() -> str:
        config = GenerateConfig(max_new_tokens=len(words) - len(words) // 2 + 2, **options)  # type: ignore[arg-type]
        return shown(model, model.write([half], config, writing.name)[0], half)

    def fill(text: str) -> str:
        blanks = text.count("<mask>")
        fitting = {**options, **({"steps": min(int(options["steps"]), blanks)} if "steps" in options  # type: ignore[call-overload]
                                 else {})}
        config = GenerateConfig(max_new_tokens=12, **fitting)  # type: ignore[arg-type]
        return shown(model, model.write_in([text], config)[0])

    def rewrite() -> str:
        try:
            return fill(several)
        except BothwaysError:
            return fill(middle)

    return " | ".join(tried(work) for work in (complete, lambda: fill(one), rewrite))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="of a study")
    parser.add_argument("--also", type=Path, nargs="+", default=[], help="folders of further models or runs")
    parser.add_argument("--source", default="", help="known or text; the one that has models when left out")
    parser.add_argument("--sentence", default="")
    arguments = parser.parse_args()
    source = arguments.source or next((name for name in ("text", "known")
                                       if any(models(arguments.folder, name))), "text")
    sentence = arguments.sentence or SENTENCES.get(source, SENTENCES["text"])
    print(f"“{sentence}”\n")
    print("| model | completed | evaluations | filled | evaluations | rewritten | evaluations |")
    print("|" + " --- |" * 7)
    further = ((place.name, bothways.from_pretrained(place)) for place in arguments.also)
    for name, model in itertools.chain(models(arguments.folder, source), further):
        with torch.inference_mode():
            print(f"| `{name}` | {row(model, sentence, {})} |")
            if model.objective.name in SECOND:
                options = SECOND[model.objective.name]
                how = ", ".join(f"{option} {value}" for option, value in options.items())
                print(f"| `{name}`, {how} | {row(model, sentence, options)} |")


if __name__ == "__main__":
    main()
