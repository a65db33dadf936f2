"""Score how alike two texts are with a model that `bothways tune --task similarity` made.

    bothways similarity my-encoder "a dog runs" "an animal is running"

Prints a line of JSON. Many pairs come from a file, and a bad row costs its own line alone:

    bothways similarity my-encoder --data pairs.jsonl --out scores.csv
"""

from __future__ import annotations

from dataclasses import dataclass

from bothways.cli.answers import Asked, run_task


@dataclass(frozen=True)
class Options(Asked):
    """Which model answers what, and where the answers go."""


def run(options: Options) -> int:
    """Load, answer, write."""
    from bothways.errors import BothwaysError

    if options.data is None and len(options.text) != 2:
        raise BothwaysError(f"two texts are compared, and {len(options.text)} were given: give two, or a file of pairs "
                            "with --data")
    return run_task("similarity", options, items=[options.text] if options.text else [])
