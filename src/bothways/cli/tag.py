"""Find names and the like in texts with a model that `bothways tune --task tag` made.

    bothways tag my-tagger "Angela Merkel spoke in Paris ."

Prints a line of JSON a text: its entities with type, place (characters) and the probability of their least certain
tag. Many texts come from a file, and a bad row costs its own line alone:

    bothways tag my-tagger --data texts.jsonl --out entities.jsonl
"""

from __future__ import annotations

from dataclasses import dataclass

from bothways.cli.answers import Asked, run_task


@dataclass(frozen=True)
class Options(Asked):
    """Which model answers what, and where the answers go."""


def run(options: Options) -> int:
    """Load, answer, write."""
    return run_task("tag", options)
