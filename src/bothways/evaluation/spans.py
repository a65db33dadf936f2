"""Entities in tags, and their F1 as conlleval and seqeval count it: an entity is right when type and both ends are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

OPENS, GOES_ON, CLOSES = "BSU", "IM", "EL"
"""First letters of tags: of BIO, BIOES (S alone, E last) and BILOU (U alone, L last)."""


class Entity(NamedTuple):
    """Words [start, end) that are one entity of a type."""

    start: int
    end: int
    type: str


def split_tag(tag: str) -> tuple[str, str]:
    """(letter, type) of a tag of an entity, "B-person" -> ("B", "person"); ("", tag) of any other."""
    letter, dash, name = tag.partition("-")
    if dash and len(letter) == 1 and letter in OPENS + GOES_ON + CLOSES and name:
        return letter, name
    return "", tag


def entities(tags: Sequence[str]) -> list[Entity]:
    """The entities of a text in BIO, IOB1, BIOES or BILOU.

    As conlleval reads them: a tag that goes on where nothing of its type is open begins an entity.
    """
    found: list[Entity] = []
    start, kind = 0, ""
    for place, tag in enumerate([*tags, "O"]):
        letter, name = split_tag(tag)
        name = name if letter else ""
        if kind and (name != kind or letter in OPENS):
            found.append(Entity(start, place, kind))
            kind = ""
        if name and not kind:
            start, kind = place, name
        if kind and letter in (*CLOSES, "S", "U"):
            found.append(Entity(start, place + 1, kind))
            kind = ""
    return found


def as_bio(tags: Sequence[str]) -> tuple[str, ...]:
    """The same entities in BIO."""
    found = ["O"] * len(tags)
    for entity in entities(tags):
        found[entity.start] = f"B-{entity.type}"
        for place in range(entity.start + 1, entity.end):
            found[place] = f"I-{entity.type}"
    return tuple(found)


def bio_faults(tags: Sequence[str]) -> list[int]:
    """Places whose tag goes on with an entity that nothing opened."""
    return [place for place, (before, tag) in enumerate(zip(["O", *tags], tags))
            if tag.startswith("I-") and before[2:] != tag[2:]]


def counts(truth: Sequence[Sequence[str]], guessed: Sequence[Sequence[str]]) -> dict[str, np.ndarray]:
    """For each type (texts, 3) int64: entities that are right, that are there, that were said."""
    tables: dict[str, np.ndarray] = {}
    for text, (one, other) in enumerate(zip(truth, guessed, strict=True)):
        there, said = set(entities(one)), set(entities(other))
        for column, some in enumerate((there & said, there, said)):
            for name, number in Counter(entity.type for entity in some).items():
                tables.setdefault(name, np.zeros((len(truth), 3), np.int64))[text, column] = number
    return dict(sorted(tables.items()))


def f1(right: float, there: float, said: float) -> float:
    """2 right / (there + said): the harmonic mean of precision and recall; 0 where there is nothing."""
    return 2 * right / (there + said) if there + said else 0.0


def span_f1(truth: Sequence[Sequence[str]], guessed: Sequence[Sequence[str]]) -> float:
    """Micro F1 over all entities of all texts."""
    tables = counts(truth, guessed)
    return f1(*np.sum([table.sum(0) for table in tables.values()], axis=0)) if tables else 0.0
