"""Examples of a task from files: the good rows, and one sentence about the bad ones with their lines.

A task says which columns it reads (`Role`) and makes a row of their values; whatever is wrong with one row is said by
raising `BadRow`. Nothing is lost because of its neighbours.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np

from bothways.errors import BothwaysError, nearest
from bothways.text.records import pick, records

T = TypeVar("T")
SHOWN = 5
"""Bad rows that are named one by one."""


class BadRow(Exception):
    """What is wrong with one row, as a phrase: "the text is empty"."""


@dataclass(frozen=True)
class Role:
    """What a column is read for.

    usual: names looked for, in this order, where none is named.
    answer: whether it holds what is to be predicted, and may be missing where one predicts.
    optional: whether it may be missing always; its value is then none.
    """

    name: str
    usual: tuple[str, ...]
    answer: bool = False
    optional: bool = False


@dataclass(frozen=True)
class Rows(Generic[T]):
    """Rows of one file.

    items: the good ones, in order. lines: where each stands. bad: (line, what is wrong) of the others.
    columns: role -> column. digest: SHA-256 of the file; empty for rows out of memory.
    """

    path: str
    items: tuple[T, ...]
    lines: tuple[int, ...]
    bad: tuple[tuple[int, str], ...] = ()
    columns: Mapping[str, str] | None = None
    digest: str = ""

    @classmethod
    def of(cls, items: Sequence[T], name: str = "rows given") -> Rows[T]:
        """Rows that are in memory already."""
        return cls(name, tuple(items), tuple(range(1, len(items) + 1)))

    def __len__(self) -> int:
        return len(self.items)

    def take(self, places: Sequence[int] | np.ndarray) -> Rows[T]:
        """The good rows at `places`, in that order."""
        return replace(self, items=tuple(self.items[i] for i in places), lines=tuple(self.lines[i] for i in places))

    def complaint(self) -> str | None:
        """One sentence about the bad rows, with their lines; none where all are good."""
        return None if not self.bad else (
            f"{self.path}: {len(self.bad)} of {len(self.bad) + len(self)} rows are left out: {listed(self.bad)}")

    def about(self) -> dict[str, Any]:
        """What a model card says of this data."""
        return {"file": self.path, "rows": len(self), "rows left out": len(self.bad), "sha256": self.digest}


def listed(bad: Sequence[tuple[int, str]]) -> str:
    """The first of the bad rows one by one, the others counted."""
    parts = [f"line {line} ({why})" for line, why in bad[:SHOWN]]
    return ", ".join(parts) + (f" and {len(bad) - SHOWN} more" if len(bad) > SHOWN else "")


def read(path: str | Path, roles: Sequence[Role], make: Callable[[Mapping[str, Any]], T], *, answers: bool = True,
         columns: Mapping[str, str] | None = None) -> Rows[T]:
    """The rows of a CSV, TSV or JSON-lines file (also `.gz`).

    Args:
        roles: the columns the task reads.
        make: the values of one record by role (none for a column that may be missing) to a row; raises `BadRow`.
        answers: whether columns that hold answers must be there.
        columns: role -> column, for those whose names are not the usual ones.
    Raises:
        BothwaysError: a missing or unreadable file, a column that is not there (the sentence lists those there are),
            an unknown role, or not one good row.
    """
    path, wanted = Path(path), dict(columns or {})
    known = [role.name for role in roles]
    for name in wanted:
        if name not in known:
            raise BothwaysError(f"columns: this task reads no '{name}' {nearest(name, known)}")
    items: list[T] = []
    places: list[int] = []
    bad: list[tuple[int, str]] = []
    first: dict[str, str] | None = None
    problem: BothwaysError | None = None
    for line, record in records(path):
        if isinstance(record, str):
            bad.append((line, record))
            continue
        # 1. which column plays which role: as in the first row, or as a row of another form says itself
        found = first
        if found is None or _lacking(record, roles, found, answers):
            try:
                found = _columns(record, roles, wanted, answers, str(path))
            except BothwaysError as error:
                problem = problem or error
                bad.append((line, f"no field '{_lacking(record, roles, first or {}, answers)}'"))
                continue
        first = first or found
        # 2. the row; an answer that nobody asks for spoils none
        values = {role.name: record.get(found[role.name]) for role in roles
                  if role.name in found and (answers or not role.answer)}
        try:
            if unsaid := [role.name for role in roles if role.answer and values.get(role.name, "") is None]:
                raise BadRow(f"no {unsaid[0]}")
            items.append(make({**dict.fromkeys(known), **values}))
            places.append(line)
        except BadRow as reason:
            bad.append((line, str(reason)))
    if not items and problem is not None:
        raise problem
    if not items:
        raise BothwaysError(f"{path} has no row that can be used: {listed(bad) or 'it has column names alone'}")
    return Rows(str(path), tuple(items), tuple(places), tuple(bad), first, digest(path))


def overlap(train: Rows[T], test: Rows[T], key: Callable[[T], str]) -> tuple[tuple[int, int], ...]:
    """(place in test, place in train) of the test rows whose key, case and spaces aside, is also one of `train`."""
    first: dict[str, int] = {}
    for place, row in enumerate(train.items):
        first.setdefault(_normal(key(row)), place)
    return tuple((place, first[_normal(key(row))]) for place, row in enumerate(test.items)
                 if _normal(key(row)) in first)


def overlap_report(train: Rows[T], test: Rows[T], key: Callable[[T], str]) -> str | None:
    """One sentence about test rows that stand in the training data too; none where there are none."""
    twice = overlap(train, test, key)
    if not twice:
        return None
    shown = ", ".join(f"line {test.lines[i]} (line {train.lines[j]} there)" for i, j in twice[:SHOWN])
    more = f" and {len(twice) - SHOWN} more" if len(twice) > SHOWN else ""
    return f"{test.path}: {len(twice)} of {len(test)} rows stand in {train.path} too: {shown}{more}"


def strange_report(train: Rows[T], other: Rows[T], group: Callable[[T], str]) -> str | None:
    """One sentence about rows of a group that no training row is of, such as an unseen label; none if there are none.

    Of several groups, parted by bars, one that is unseen is enough.
    """
    known = {name for row in train.items for name in group(row).split("|")}
    strange = [place for place, row in enumerate(other.items) if not known.issuperset(group(row).split("|"))]
    if not strange:
        return None
    shown = ", ".join(f"line {other.lines[i]} ('{group(other.items[i])}')" for i in strange[:SHOWN])
    more = f" and {len(strange) - SHOWN} more" if len(strange) > SHOWN else ""
    return (f"{other.path}: {len(strange)} of {len(other)} rows are of a kind that {train.path} has none of: "
            f"{shown}{more}")


def kept_back(rows: Rows[T], share: float, seed: int, key: Callable[[T], str],
              group: Callable[[T], str] | None = None) -> tuple[Rows[T], Rows[T]]:
    """(rest, part): `share` of the rows, of each group where one is named; rows of equal key go together.

    Args:
        group: what should be on both sides, such as the label: a group of two keys or more leaves one behind at least.
    """
    rng = np.random.default_rng((seed, 7))
    by_key: dict[str, list[int]] = {}
    for place, row in enumerate(rows.items):
        by_key.setdefault(_normal(key(row)), []).append(place)
    groups: dict[str, list[list[int]]] = {}
    for places in by_key.values():
        groups.setdefault("" if group is None else group(rows.items[places[0]]), []).append(places)
    part: list[int] = []
    for name in sorted(groups):
        members = groups[name]
        wanted = min(len(members) - 1, max(1, round(share * len(members))))
        part += [place for i in rng.permutation(len(members))[:wanted] for place in members[i]]
    rest = sorted(set(range(len(rows))) - set(part))
    return rows.take(rest), rows.take(sorted(part))


def digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


# ---------------------------------------------------------------------------- values that many tasks read alike

def text(value: Any, name: str = "text") -> str:
    """A text that is not empty. Raises: BadRow."""
    if value is None:
        raise BadRow(f"no {name}")
    if not isinstance(value, str):
        raise BadRow(f"the {name} is {type(value).__name__}, and text is wanted")
    if not value.strip():
        raise BadRow(f"the {name} is empty")
    return value


def label(value: Any, name: str = "label") -> str:
    """A class as text: numbers, yes and no and words alike. Raises: BadRow."""
    if value is None or (isinstance(value, str) and not value.strip()) or value != value:
        raise BadRow(f"no {name}")
    if not isinstance(value, (str, int, float)):
        raise BadRow(f"the {name} is {type(value).__name__}, and one word or number is wanted")
    return str(int(value) if isinstance(value, float) and value.is_integer() else value).strip()


def labels(value: Any, name: str = "labels", separator: str = "|") -> tuple[str, ...]:
    """Any number of classes: a list, or text with `|` between them. Raises: BadRow."""
    if value is None:
        raise BadRow(f"no {name}")
    if isinstance(value, str):
        value = [part for part in value.split(separator) if part.strip()] or [value]
    parts = value if isinstance(value, (list, tuple)) else [value]
    return tuple(sorted({label(part, name) for part in parts}))


def _columns(record: Mapping[str, object], roles: Sequence[Role], wanted: Mapping[str, str], answers: bool,
             where: str) -> dict[str, str]:
    """Role -> column; a role that may be missing is left out where it is. No column plays two roles."""
    found = {role.name: pick(record, wanted[role.name], (), where, "column") for role in roles if role.name in wanted}
    for role in roles:
        if role.name in found:
            continue
        left = [name for name in record if name not in found.values()]
        if any(name.lower().strip() in role.usual for name in left):
            found[role.name] = pick(left, None, role.usual, where, "column")
        elif _needed(roles, role.name, answers):
            raise BothwaysError(f"{where}: none of the usual columns for the {role.name} ({', '.join(role.usual)}) is "
                                f"there, so name it (--columns {role.name}=...); there are: {', '.join(record)}")
    return found


def _lacking(record: Mapping[str, object], roles: Sequence[Role], found: Mapping[str, str], answers: bool
             ) -> str | None:
    """A column that a record lacks to be read as `found` says: one that is needed, or all of them; none otherwise."""
    needed = [found.get(role.name, role.usual[0]) for role in roles if _needed(roles, role.name, answers)]
    there = any(column in record for column in found.values())
    return next((column for column in (*needed, *([] if there else [*found.values(), roles[0].usual[0]]))
                 if column not in record), None)


def _needed(roles: Sequence[Role], name: str, answers: bool) -> bool:
    role = next(role for role in roles if role.name == name)
    return not role.optional and (answers or not role.answer)


def _normal(key: str) -> str:
    return " ".join(key.casefold().split())
