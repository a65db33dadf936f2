"""Words and their tags as files hold them: lists, texts with spaces between words, spans of characters."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from bothways.tasks.rows import BadRow

WORD = re.compile(r"[@#]?\w+(?:['’.\-_/]\w+)*|[^\w\s]")
"""What a text without given words is cut into: words with what joins their parts, and single marks."""


def listed(value: Any, name: str) -> list[str]:
    """A list of words, or text with spaces between them. Raises: BadRow."""
    if isinstance(value, str):
        value = value.split()
    if not isinstance(value, (list, tuple)) or not all(isinstance(one, str) and one.strip() for one in value):
        raise BadRow(f"the {name} are no list of words")
    if not value:
        raise BadRow(f"no {name}")
    return list(value)


def cut(text: str) -> list[tuple[int, int]]:
    """The beginning and end of every word of a text."""
    return [found.span() for found in WORD.finditer(text)]


def from_spans(text: str, words: Sequence[tuple[int, int]], marked: Any) -> list[str]:
    """Spans of characters, {start, end, label} or [start, end, label], as BIO on words.

    Raises:
        BadRow: spans that overlap, or whose ends lie within a word.
    """
    if not isinstance(marked, (list, tuple)):
        raise BadRow("the spans are no list of {start, end, label}")
    tags = ["O"] * len(words)
    firsts, lasts = {start: place for place, (start, _) in enumerate(words)}, {
        end: place for place, (_, end) in enumerate(words)}
    for one in marked:
        if isinstance(one, Mapping):
            one = (one.get("start"), one.get("end"), one.get("label", one.get("type")))
        if not (isinstance(one, (list, tuple)) and len(one) == 3 and isinstance(one[0], int)
                and isinstance(one[1], int) and isinstance(one[2], str)):
            raise BadRow(f"the span {one!r} is not {{start, end, label}}")
        start, end, kind = one
        if start not in firsts or end not in lasts or end <= start:
            raise BadRow(f"the span {start} to {end} ('{text[start:end][:30]}') does not begin and end with a word")
        covered = range(firsts[start], lasts[end] + 1)
        if any(tags[place] != "O" for place in covered):
            raise BadRow(f"the span {start} to {end} ('{text[start:end][:30]}') overlaps another")
        for place in covered:
            tags[place] = f"{'B' if place == firsts[start] else 'I'}-{kind}"
    return tags
