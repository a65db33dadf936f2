"""Who is whose subject and object in sentences of the known source: relations between words, known without a parser."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from bothways.text.known import KnownSource

Span = tuple[int, int]
"""Characters `[start, end)`."""


class Related(NamedTuple):
    """A text and pairs of its words: (span of a verb, span of a noun, relation)."""

    text: str
    pairs: tuple[tuple[Span, Span, str], ...]


def related(source: KnownSource, n: int, rng: np.random.Generator) -> list[Related]:
    """Sentences of the known source with every pair of a verb and a noun: `subject`, `object` or `none`.

    The nearest noun is often neither: a modifier or a relative clause may stand between subject and verb.
    """
    rows = []
    for text, parts in source.parsed(n, rng):
        starts = np.cumsum([0, *(len(word) + 1 for word in text)])
        spans = [(int(start), int(start) + len(word)) for start, word in zip(starts, text)]
        pairs = [(spans[verb], spans[noun], relation(parts[verb], parts[noun]))
                 for verb in _places(parts, ("verb", "be", "rel-verb"))
                 for noun in _places(parts, ("noun", "mod-noun", "rel-noun", "obj-noun"))]
        rows.append(Related(" ".join(text), tuple(pairs)))
    return rows


def relation(verb: str, noun: str) -> str:
    """What a noun is to a verb, from the parts of the sentence they stand for."""
    if noun == "noun":
        return "subject"
    return "object" if (verb, noun) in (("verb", "obj-noun"), ("rel-verb", "rel-noun")) else "none"


def _places(parts: Sequence[str], wanted: tuple[str, ...]) -> list[int]:
    return [place for place, part in enumerate(parts) if part in wanted]
