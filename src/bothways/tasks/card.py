"""The model card of a tuned task: what it does, on what it was tuned, how good it is and what it is not good for."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from bothways.tasks.base import Task


def task_card(task: Task, data: Mapping[str, Any]) -> str:
    """README.md of a tuned folder, from what its task.json says, in Markdown."""
    return "\n".join(_lines(task, data)) + "\n"


def _lines(task: Task, data: Mapping[str, Any]) -> Iterator[str]:
    report: Mapping[str, Any] = data["report"]
    # 1. what it is
    yield from ("---", "library_name: bothways", f"tags: [bothways, {task.kind}]", "---", "",
                f"# A model tuned to {task.kind}", "")
    if base := report.get("base"):
        yield f"Tuned from `{base}`."
    settings = {name: value for name, value in data["settings"].items() if not isinstance(value, (dict, list))}
    yield from ("", "| choice | |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in settings.items()))
    # 2. how to use it
    yield from ("", "## Use", "", "```python", "import bothways", "",
                f'model = bothways.pipeline("{task.kind}", "path/to/this/folder")',
                "model([...])", "```", "")
    # 3. how good it is
    if data["scores"]:
        yield from ("## Scores", "", "| score | value | 95% interval | items | how |",
                    "| --- | --- | --- | --- | --- |")
        for score in data["scores"]:
            spread = "" if score["low"] is None else f"{score['low']:.4g} to {score['high']:.4g}"
            value = "" if score["value"] is None else f"{score['value']:.4g}"
            yield f"| {score['name']} | {value} | {spread} | {score['n']} | {score['estimator']} |"
        yield from ("", "The interval is that of the tested items (bootstrap), not of another training run.", "")
        if left_out := report.get("not measured"):
            yield from (f"Of its scores, {left_out}.", "")
    # 4. data, tuning, limits
    yield from ("## Data and tuning", "", "```json", json.dumps(dict(report), indent=2, default=str,
                                                                ensure_ascii=False), "```", "")
    yield from ("## Limits", "", task.limits(),
                "It repeats the errors and biases of its data and of the model it began with; texts of another kind "
                "than those it was tuned on are out of its experience.")
