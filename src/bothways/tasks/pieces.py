"""Texts in pieces: which token stands for which characters and words, and long texts cut into windows that overlap."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bothways.errors import BothwaysError

if TYPE_CHECKING:
    from bothways.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class Pieces:
    """The tokens of a text, none added: ids (L,), and the characters [start, end) of each: starts and ends (L,)."""

    ids: np.ndarray
    starts: np.ndarray
    ends: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)

    def over(self, start: int, end: int) -> tuple[int, int] | None:
        """[first, last) of the tokens that overlap the characters [start, end); none where no token does."""
        found = np.flatnonzero((self.starts < end) & (self.ends > start))
        return (int(found[0]), int(found[-1]) + 1) if len(found) else None


def pieces(tokenizer: Tokenizer, text: str) -> Pieces:
    """A text in tokens; names of reserved tokens in it are plain text."""
    offsets = np.array(tokenizer.offsets(text, reserved=False), dtype=np.int64).reshape(-1, 2)
    return Pieces(np.array(tokenizer.encode(text, reserved=False), dtype=np.int64), offsets[:, 0], offsets[:, 1])


def joined(words: Iterable[str]) -> tuple[str, list[tuple[int, int]]]:
    """Words with a space between them, and the characters [start, end) of each."""
    places, at = [], 0
    parts = list(words)
    for word in parts:
        places.append((at, at + len(word)))
        at += len(word) + 1
    return " ".join(parts), places


@dataclass(frozen=True)
class Window:
    """Tokens [start, end) of a text that are read together; [first, last) are those it answers for."""

    start: int
    end: int
    first: int
    last: int


def windows(length: int, room: int, overlap: int) -> list[Window]:
    """A text of `length` tokens in windows of at most `room`, neighbours sharing `overlap` tokens.

    Every token is answered for once, by the window in which it stands further from an edge: an overlap is divided in
    the middle. A text without a token is one empty window.

    Raises:
        BothwaysError: no room, or an overlap that leaves a window nothing of its own.
    """
    if room < 1 or not 0 <= overlap < room:
        raise BothwaysError(f"windows of {room} tokens cannot overlap by {overlap}: raise longest, or lower overlap")
    starts = [0]
    while starts[-1] + room < length:
        starts.append(starts[-1] + room - overlap)
    cuts = [0, *(start + overlap // 2 for start in starts[1:]), length]
    return [Window(start, min(start + room, length), first, last)
            for start, (first, last) in zip(starts, itertools.pairwise(cuts), strict=True)]


def check_room(length: int, places: int, beside: int) -> int:
    """How many tokens of a text fit beside `beside` others into the shorter of two lengths. Raises: BothwaysError."""
    room = min(length, places) - beside
    if room < 1:
        raise BothwaysError(f"longest is {length}, which leaves no token for the text: raise it (this network has "
                            f"places for {places})")
    return room


def chosen(states_per_text: Sequence[int], places: Sequence[np.ndarray]) -> np.ndarray:
    """Places of texts as places of the row they are packed in, end to end, given the length of each."""
    firsts = np.cumsum([0, *states_per_text])
    parts = [first + np.asarray(some, dtype=np.int64) for first, some in zip(firsts, places)]
    return np.concatenate([np.zeros(0, np.int64), *parts])
