"""What the commands that ask a tuned task share: texts of the call or rows of a file in, lines of answers out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

if TYPE_CHECKING:
    from bothways.tasks.base import Task
    from bothways.tasks.rows import Rows


@dataclass(frozen=True)
class Asked:
    """Which model answers what, and where the answers go."""

    folder: tyro.conf.Positional[Path]
    """The folder of a tuned task."""
    text: tyro.conf.Positional[tuple[str, ...]] = ()
    """The texts; - reads standard input, every line a text."""
    data: Path | None = None
    """A file of rows instead: .csv, .tsv or .jsonl, also .gz."""
    columns: tuple[str, ...] = ()
    """Columns with other names than the usual: role=column."""
    out: Path | None = None
    """Write the answers here, .csv or .jsonl; printed as JSON lines when none."""
    device: str | None = None
    """cpu, cuda, cuda:1."""


def run_task(kind: str, options: Asked, changed: Callable[[Task], Task] | None = None,
             items: Sequence[Any] | None = None) -> int:
    """Load the task, ask it, write its answers; the exit code is 1 where rows had to be left out.

    Args:
        changed: the task as this call wants it, from the one that was loaded.
        items: what the call asks, where that is more than its texts.
    """
    import json
    import sys

    from bothways.cli.tune import named_columns
    from bothways.errors import BothwaysError
    from bothways.tasks.folder import load
    from bothways.tasks.predicting import answered, check_name, rows_to_ask, write

    # 1. check the call before anything is loaded
    if options.out is not None:
        check_name(options.out)
    texts = list(options.text) if items is None else list(items)
    if bool(texts) == (options.data is not None):
        raise BothwaysError("give texts in the call or with --data, not both" if texts else
                            "give texts in the call, or a file of rows with --data")
    # 2. load and ask
    task = load(options.folder, kind, options.device)
    task = task if changed is None else changed(task)
    if options.data is not None:
        rows = rows_to_ask(task, options.data, named_columns(options.columns))
    else:
        texts = sys.stdin.read().splitlines() if texts == ["-"] else texts
        rows = _of_call(task, texts)
    records = answered(task, rows)
    # 3. write what was answered
    if options.out is None:
        for record in records:
            print(json.dumps(record, ensure_ascii=False))
    else:
        write(options.out, records)
        print(f"{len(rows)} answers written to {options.out}")
    if sentence := rows.complaint():
        print(sentence, file=sys.stderr)
        return 1
    return 0


def _of_call(task: Task, texts: Sequence[Any]) -> Rows[Any]:
    """Rows of the texts of a call; one that cannot be read costs its own answer alone, unless it is the only one."""
    from bothways.errors import BothwaysError
    from bothways.tasks.rows import Rows

    good: dict[int, Any] = {}
    bad: list[tuple[int, str]] = []
    for number, text in enumerate(texts, start=1):
        try:
            good[number] = task.asked(text)
        except BothwaysError as problem:
            bad.append((number, str(problem)))
    if not good and bad:
        raise BothwaysError(bad[0][1])
    return Rows("the call", tuple(good.values()), tuple(good), tuple(bad))
