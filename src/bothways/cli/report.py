"""Draw the report of a study again from its folder, finished or on the way.

    bothways report study
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro


@dataclass(frozen=True)
class Options:
    """What `report` is told."""

    study: Annotated[Path, tyro.conf.Positional] = Path("study")
    """The study's folder."""


def run(options: Options) -> int:
    """Write report.html, report.md and report.json; returns the exit code."""
    from bothways.study import report

    files = report.write(options.study)
    print("\n".join(report.first_lines(options.study)))
    print("\n".join(str(file) for file in files))
    return 0
