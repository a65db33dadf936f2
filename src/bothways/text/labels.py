"""Texts with a class each, and texts with a class for each of their words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bothways.errors import BothwaysError
from bothways.text.corpora import TEXT_FIELDS
from bothways.text.records import pick, sound_records, text_of

LABEL_FIELDS = ("label", "category", "class", "target", "intent", "topic", "tag", "queue", "sentiment")
"""The columns looked for, in this order, when none is named."""


@dataclass(frozen=True)
class Labelled:
    """Texts, the class of each (numbers into `names`), and the classes' names in alphabetical order."""

    texts: tuple[str, ...]
    labels: tuple[int, ...]
    names: tuple[str, ...]

    @classmethod
    def of(cls, texts: list[str], labels: list[str], names: tuple[str, ...] | None = None) -> Labelled:
        """From names of classes; `names` fixes their numbers, when two sets must share them."""
        names = tuple(sorted(set(labels))) if names is None else names
        number = {name: i for i, name in enumerate(names)}
        return cls(tuple(texts), tuple(number[label] for label in labels), names)

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, places: np.ndarray) -> Labelled:
        """The rows at `places` (n,) int, with the same classes."""
        return Labelled(tuple(self.texts[i] for i in places), tuple(self.labels[i] for i in places), self.names)

    def split(self, share: float, seed: int) -> tuple[Labelled, Labelled]:
        """(rest, part): each class gives `share` of its rows, and at least one where it has two, to the part.

        Rows of equal text go together, so that no text is on both sides.
        """
        rng = np.random.default_rng(seed)
        groups: dict[str, list[int]] = {}
        for row, text in enumerate(self.texts):
            groups.setdefault(" ".join(text.split()), []).append(row)
        by_class: dict[int, list[list[int]]] = {}
        for rows in groups.values():
            by_class.setdefault(self.labels[rows[0]], []).append(rows)
        part: set[int] = set()
        for label in sorted(by_class):
            members = by_class[label]
            wanted = min(len(members) - 1, max(1, round(share * len(members))))
            part.update(row for i in rng.permutation(len(members))[:wanted] for row in members[i])
        places = np.arange(len(self))
        chosen = np.isin(places, sorted(part))
        return self.take(places[~chosen]), self.take(places[chosen])


class Tagged(NamedTuple):
    """A text whose words carry tags: spans are (start, end, tag), characters `[start, end)`, in order."""

    text: str
    spans: tuple[tuple[int, int, str], ...]


def read_labelled(path: str | Path, text: str | None = None, label: str | None = None) -> Labelled:
    """Labelled texts from CSV, TSV or JSON lines (also `.gz`).

    Args:
        text, label: the columns; when none, the first of the usual names that is there.
    Raises:
        BothwaysError: missing or damaged file, unknown column (the sentence lists those there are), a row without
            text or label, or fewer than two classes.
    """
    path = Path(path)
    texts: list[str] = []
    labels: list[str] = []
    columns: tuple[str, str] | None = None
    for line, record in sound_records(path):
        columns = columns or _columns(record, text, label, path)
        texts.append(text_of(record, columns[0], f"{path}:{line}"))
        labels.append(_label(record, columns[1], f"{path}:{line}"))
    if len(set(labels)) < 2:
        raise BothwaysError(f"'{path}' holds {len(texts)} rows of {len(set(labels))} classes, and at least two classes "
                            "are wanted")
    return Labelled.of(texts, labels)


def _columns(record: Mapping[str, object], text: str | None, label: str | None, path: Path) -> tuple[str, str]:
    found = pick(record, label, LABEL_FIELDS, str(path), "column")
    others = [name for name in record if name != found] if text is None else list(record)
    return pick(others, text, TEXT_FIELDS, str(path), "column"), found


def _label(record: Mapping[str, object], column: str, where: str) -> str:
    """A class as text: numbers and words alike."""
    value = record.get(column)
    if value is None or isinstance(value, (list, dict)) or not str(value).strip():
        raise BothwaysError(f"{where}: no label in column '{column}'")
    return str(value).strip()
