"""Minimal pairs: two texts that differ in one thing, of which a model should find the good one more likely."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bothways.errors import BothwaysError, nearest
from bothways.text.records import json_records, text_of

_WORD = re.compile(r"\S+")


class Pair(NamedTuple):
    """A good text, a bad one, and what kind of difference it is."""

    good: str
    bad: str
    kind: str
    group: str = ""
    """The phenomenon that the kind belongs to, where it is told."""


def read_pairs(path: str | Path) -> list[Pair]:
    """Pairs from JSON lines in the format of BLiMP (arXiv 1912.00582): `sentence_good`, `sentence_bad`, `UID`, and the
    phenomenon in `linguistics_term`.

    `good`, `bad`, `kind` and `group` are taken as well.

    Raises:
        BothwaysError: missing or damaged file, or a line without both texts (naming the line).
    """
    path, pairs = Path(path), []
    for line, record in json_records(path):
        fields = []
        for names in (("sentence_good", "good"), ("sentence_bad", "bad"), ("UID", "uid", "kind"),
                      ("linguistics_term", "group")):
            found = next((name for name in names if name in record), None)
            if found is None and names[-1] not in ("kind", "group"):
                raise BothwaysError(f"{path}:{line}: no field '{names[0]}' {nearest(names[0], record)}")
            fields.append(text_of(record, found, f"{path}:{line}") if found
                          else "pair" if names[-1] == "kind" else "")
        pairs.append(Pair(*fields))
    if not pairs:
        raise BothwaysError(f"'{path}' holds no pairs")
    return pairs


def swapped(texts: Iterable[str], rng: np.random.Generator) -> list[Pair]:
    """Pairs made of any texts: in each bad one, two neighbouring words have changed places.

    Spaces stay where they are, so both sides have the same characters. A text without two different neighbouring
    words gives no pair.
    """
    pairs = []
    for text in texts:
        words = [match.span() for match in _WORD.finditer(text)]
        places = [i for i in range(len(words) - 1)
                  if text[slice(*words[i])].casefold() != text[slice(*words[i + 1])].casefold()]
        if places:
            i = places[int(rng.integers(len(places)))]
            (a, b), (c, d) = words[i], words[i + 1]
            pairs.append(Pair(text, text[:a] + text[c:d] + text[b:c] + text[a:b] + text[d:], "swapped words"))
    return pairs
