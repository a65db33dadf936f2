"""The model card: what a stranger who finds the folder must know."""

from __future__ import annotations

import json
from collections.abc import Iterator

from bothways import families
from bothways.families.base import Family
from bothways.families.trained import Trained
from bothways.visibility import bidirectional, causal

_ESTIMATORS = {"exact": "an exact likelihood", "bound": "an upper bound on the negative log likelihood",
               "pseudo": "a pseudo-likelihood, not comparable with a likelihood"}


def model_card(trained: Trained, family: Family | None) -> str:
    """README.md of a model folder, in Markdown."""
    return "\n".join(_lines(trained, family)) + "\n"


def _lines(trained: Trained, family: Family | None) -> Iterator[str]:
    config, objective, shape = trained.config, trained.objective, trained.config.shape
    # 1. what it is
    yield from ("---", "library_name: bothways", "tags: [bothways, " + objective.name + "]", "---", "",
                "# A bothways model", "")
    yield f"Trained by **{objective.name}**: {objective.summary} ({objective.source})."
    layers = f"{shape.layers} layers" if not shape.source_layers else (
        f"{shape.source_layers} layers that read and {shape.layers} that write")
    yield (f"{config.stack.capitalize()}, {layers}, {shape.width} wide, {shape.heads} heads, vocabulary "
           f"{shape.vocabulary}, {trained.parameters:,} parameters, {config.position.kind} positions up to "
           f"{config.position.length} tokens.")
    yield ""
    yield from ("| mode | who sees whom | a state speaks of | likelihood |", "| --- | --- | --- | --- |")
    for mode in objective.modes:
        speaks = "the token here" if mode.predicts == "here" else "the token after it"
        yield f"| {mode.name} | {mode.visibility!r} | {speaks} | {_ESTIMATORS[mode.likelihood]} |"
    # 2. how to use it
    yield from ("", "## Use", "", "```python", "import bothways", "")
    yield from ('model = bothways.from_pretrained("path/to/this/folder")', _call(trained), "```", "")
    yield from _elsewhere(trained, family)
    # 3. what it was trained on, and what it is not good for
    yield from ("", "## Objective", "", "```json", json.dumps(objective.describe(), indent=2, default=str), "```")
    if trained.report:
        yield from ("", "## Data and training", "", "```json",
                    json.dumps(dict(trained.report), indent=2, default=str, ensure_ascii=False), "```")
    yield from ("", "## Limits", "",
                "It knows only what its training text says, repeats that text's errors and biases, and was not tuned "
                "to follow instructions or to refuse. Texts longer than the windows it was trained on are out of its "
                "experience even where its positions allow them.")
    if any(mode.likelihood != "exact" for mode in objective.modes):
        yield "Scores of different estimators (exact, bound, pseudo) must not be compared with each other."


def _call(trained: Trained) -> str:
    if not trained.readable:
        return "model.logits(ids)"
    if len(trained.objective.modes) > 1:
        return f'model.generate("Once", visibility="{trained.objective.modes[0].name}")'
    if trained.objective.decoding == "left_to_right":
        return 'model.generate("Once")'
    return 'model.fill("Once upon a <mask>")'


def _elsewhere(trained: Trained, family: Family | None) -> Iterator[str]:
    """Which class of `transformers` reads the folder, with what difference; or why none does."""
    if family is None:
        reason = families.obstacle(trained.config, trained.objective) or "it was saved with our own names"
        yield f"`transformers` has no class for this network: {reason}. The weights carry bothways names."
        return
    (architecture, loader), modes = family.written(trained.config), trained.objective.modes
    if family.own_code:
        yield (f"`transformers` has no class for this network: config.json and the weights are named as "
               f"`{architecture}` of its authors' own code reads them, which is not in this folder.")
        return
    looks = {"causal": causal, "bidirectional": bidirectional}.get(family.direction, modes[0].visibility)
    same, gives = modes[0].visibility == looks, "logits" if trained.config.head.scores else "states"
    yield (f"In `transformers` it is a `{architecture}`"
           + (f", with the same {gives} in the mode '{modes[0].name}':" if same else ":"))
    yield from ("", "```python", f"from transformers import {loader}", "")
    yield from (f'model = {loader}.from_pretrained("path/to/this/folder")', "```")
    for mode in modes:
        if family.direction == "causal" and mode.visibility != modes[0].visibility:
            yield ""
            if mode.predicts == "next":
                yield (f"In the mode '{mode.name}' it looks both ways, which that class does not; call it through "
                       "bothways. There too the state at place k speaks of place k + 1, one later than in a BERT: "
                       "the answer to a `<mask>` is read one place before it.")
            else:
                yield (f"In the mode '{mode.name}' it looks both ways, which that class does not, and the state at a "
                       "place speaks of that place; call it through bothways.")
    if not same:
        yield ""
        yield (f"That class is {looks!r} and the mode '{modes[0].name}' is {modes[0].visibility!r}, so its "
               "logits there are not those it was trained for."
               + (" The state at place k speaks of place k + 1." if modes[0].predicts == "next" else ""))
