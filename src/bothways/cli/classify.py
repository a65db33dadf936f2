"""Classify texts with a model that `bothways tune --task classify` made.

    bothways classify my-classifier "where is my card?" "I was charged twice"

Prints a line of JSON a text. Many texts come from a file, and a bad row costs its own line alone:

    bothways classify my-classifier --data questions.csv --out predictions.csv
"""

from __future__ import annotations

from dataclasses import dataclass

from bothways.cli.answers import Asked, run_task


@dataclass(frozen=True)
class Options(Asked):
    """Which model answers what, and where the answers go."""


def run(options: Options) -> int:
    """Load, answer, write."""
    return run_task("classify", options)
