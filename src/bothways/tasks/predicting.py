"""Asking a tuned task: rows of a file or out of memory, and answers that no bad row can take away."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bothways.aside import replacing
from bothways.errors import BothwaysError
from bothways.tasks.base import Task
from bothways.tasks.folder import load
from bothways.tasks.rows import Rows, read


class Pipeline:
    """A tuned task as a call: `pipeline("classify", folder)("a text")`, or of a list of texts, pairs or mappings."""

    def __init__(self, task: Task) -> None:
        self.task = task

    def __call__(self, items: Any) -> Any:
        """The answer to one item, or a list of them for a list.

        Raises:
            BothwaysError: an item the task cannot read.
        """
        several = isinstance(items, Sequence) and not isinstance(items, (str, tuple))
        found = self.task.predict([self.task.asked(item) for item in (items if several else [items])])
        return found if several else found[0]

    def predict_proba(self, items: Sequence[Any]) -> Any:
        """The probability of every answer to each item: (n, answers)."""
        return self.task.predict_proba([self.task.asked(item) for item in items])


def pipeline(kind: str, folder: str | Path, device: str | None = None) -> Pipeline:
    """The tuned task in a folder, ready to be called.

    Raises:
        BothwaysError: see `folder.load`.
    """
    return Pipeline(load(folder, kind, device))


def rows_to_ask(task: type[Task] | Task, path: str | Path, columns: Mapping[str, str] | None = None) -> Rows[Any]:
    """The rows of a file whose answers are not needed."""
    return read(path, task.roles, task.row, answers=False, columns=columns)


def answered(task: Task, rows: Rows[Any]) -> list[dict[str, Any]]:
    """One record a row of the file, in its order: its line, and the answer or what is wrong with it."""
    found = dict(zip(rows.lines, task.outputs(rows.items), strict=True))
    found.update({line: {"error": why} for line, why in rows.bad})
    return [{"line": line, **found[line]} for line in sorted(found)]


def write(path: str | Path, records: Sequence[Mapping[str, Any]]) -> None:
    """Records as .csv or .jsonl, written aside and then renamed.

    Raises:
        BothwaysError: another kind of file, or a place that cannot be written (exit code 1).
    """
    path = Path(path)
    check_name(path)
    with replacing(path) as aside, aside.open("w", encoding="utf-8", newline="") as stream:
        if path.suffix == ".csv":
            writer = csv.DictWriter(stream, list(_columns(records)), restval="")
            writer.writeheader()
            writer.writerows([{name: value if isinstance(value, (str, int, float)) or value is None else
                               json.dumps(value, ensure_ascii=False) for name, value in record.items()}
                              for record in records])
        else:
            stream.writelines(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


def check_name(path: Path) -> None:
    """Refuse a file whose name does not say how predictions are written. Raises: BothwaysError."""
    if path.suffix not in (".csv", ".jsonl"):
        raise BothwaysError(f"--out {path}: predictions are written as .csv or .jsonl")


def _columns(records: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    seen: dict[str, None] = {}
    for record in records:
        seen.update(dict.fromkeys(record))
    yield from seen
