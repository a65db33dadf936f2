"""Rewrite texts with a model that `bothways tune --task rewrite` made: translate, summarise, simplify, mend code.

    bothways rewrite my-rewriter "A long sentence, which could be two, is hard to read."

Prints a line of JSON a text. Many texts come from a file, and a bad row costs its own line alone:

    bothways rewrite my-rewriter --data sources.csv --out predictions.csv

Searching with several beginnings takes longer and often finds a better text:

    bothways rewrite my-rewriter "A long sentence, which could be two, is hard to read." --beams 4
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bothways.cli.answers import Asked, run_task

if TYPE_CHECKING:
    from bothways.tasks.base import Task


@dataclass(frozen=True)
class Options(Asked):
    """Which model answers what, and where the answers go."""

    beams: int | None = None
    """Search with so many beginnings for the likeliest text; as it was tuned when none."""
    length_penalty: float | None = None
    """With beams, texts are compared by log probability / length ** this."""


def run(options: Options) -> int:
    """Load, answer, write."""
    from dataclasses import replace

    from bothways.tasks import rewrite

    def changed(task: Task) -> Task:
        assert isinstance(task, rewrite.Task)
        given = {name: value for name in ("beams", "length_penalty") if (value := getattr(options, name)) is not None}
        return rewrite.Task(task.trained, replace(task.options, **given), task.form, task.cut)

    return run_task("rewrite", options, changed)
