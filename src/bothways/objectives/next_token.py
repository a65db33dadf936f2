"""Next token: every token is asked for from those before it (GPT; Bengio et al. 2003, eq. 1)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bothways.batch import Example, Key, Vocabulary, Window
from bothways.objectives.base import Mode, Objective, Profile, ask, example
from bothways.objectives.options import need_tokens
from bothways.visibility import causal

MODE = Mode("causal", causal, predicts="next", likelihood="exact")


@dataclass(frozen=True)
class NextToken(Objective):
    """-log p(x) = sum over k of -log p(x_k | x_<k): exact, one pass.

    A document's first token follows its `<bos>` and is asked for; the first token of a window that was cut out
    of the middle follows nothing and is not.
    """

    vocabulary: Vocabulary
    name = "next-token"
    summary = "predict each token from those before it"
    source = "Radford et al. 2018 (GPT), eq. 1"
    decoding = "left_to_right"

    def __post_init__(self) -> None:
        need_tokens(self.name, self.vocabulary, self.tokens)

    @property
    def modes(self) -> tuple[Mode, ...]:
        return (MODE,)

    @property
    def profile(self) -> Profile:
        return Profile(causal)

    def corrupt(self, window: Window, key: Key) -> Example:
        ids = window.ids
        return example(ids, causal, [ask(np.arange(len(ids) - 1), ids[1:])])

    def blank(self, ids: np.ndarray, hidden: np.ndarray, mode: Mode | None = None) -> Example:
        places = np.flatnonzero(hidden[1:])
        return example(ids, causal, [ask(places, ids[places + 1])])

    def continuation(self, ids: np.ndarray, mode: Mode | None = None) -> Example:
        return example(with_begin(ids, self.vocabulary), causal)


def with_begin(ids: np.ndarray, vocabulary: Vocabulary) -> np.ndarray:
    """The ids with a `<bos>` before them, unless one stands there already: (L,) or (L + 1,) int64."""
    ids = np.asarray(ids, dtype=np.int64)
    if len(ids) and ids[0] == vocabulary.bos:
        return ids
    return np.concatenate(([vocabulary.bos], ids))
