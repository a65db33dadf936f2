"""What objectives over questions and answers share: where answers stand among the marks (see `text.turns`)."""

from __future__ import annotations

import numpy as np

from bothways.batch import Vocabulary
from bothways.errors import BothwaysError
from bothways.objectives.base import Objective
from bothways.objectives.next_token import with_begin

MARKS: tuple[str, ...] = ("<bos>", "<eos>", "<sep>")
THOUGHT = ("<think>", "</think>")


class Answering(Objective):
    """An objective that learns to answer: it reads turns that nobody cut, and what it writes answers a prompt."""

    decoding = "left_to_right"
    tokens = MARKS
    reads_turns = True

    @property
    def thought(self) -> tuple[int, int] | None:
        found = [self.vocabulary.ids.get(name) for name in THOUGHT]
        return None if found[0] is None or found[1] is None else (found[0], found[1])

    @property
    def replies(self) -> bool:
        return True


def answered(ids: np.ndarray, vocabulary: Vocabulary) -> np.ndarray:
    """The tokens of answers, their closing `<eos>` included: (L,) bool.

    An answer is what stands between a mark and the `<eos>` that closes it; what `<sep>` closes, or nothing, is none.
    """
    marks = np.flatnonzero((ids == vocabulary.sep) | (ids == vocabulary.eos))
    closed_by = np.searchsorted(marks, np.arange(len(ids)))
    closes_answer = np.append(ids[marks] == vocabulary.eos, False)
    return np.asarray(closes_answer[closed_by] & (ids != vocabulary.bos))


def thinking(ids: np.ndarray, vocabulary: Vocabulary) -> np.ndarray:
    """The tokens of thoughts, `<think>` and `</think>` included: (L,) bool."""
    opened, closed = (ids == vocabulary.ids[name] for name in THOUGHT)
    return np.asarray((np.cumsum(opened) > np.cumsum(closed)) | closed)


def asked(ids: np.ndarray, vocabulary: Vocabulary) -> np.ndarray:
    """A question as the network reads it: `<bos> ... <sep>`, whatever of the two is missing; (L,) int64.

    A prompt that ends inside an answer, with `<think>` or in an open thought, stays as it is.
    """
    ids = with_begin(ids, vocabulary)
    inside = "<think>" in vocabulary.ids and bool(thinking(ids, vocabulary)[-1]) and int(ids[-1]) != vocabulary.ids[
        "</think>"]
    return ids if ids[-1] == vocabulary.sep or inside else np.concatenate((ids, [vocabulary.sep]))


def need_marks(objective: str, ids: np.ndarray, vocabulary: Vocabulary) -> None:
    """Refuse a window in which nothing is asked."""
    if not (ids == vocabulary.sep).any():
        raise BothwaysError(f"objective '{objective}' learns answers, but found a text without a question (no <sep> in "
                            "it): read records with questions and answers by text.cut: turns")
