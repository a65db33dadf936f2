"""Prefix language model: the beginning is seen from both sides, the rest is written (T5, arXiv 1910.10683, 3.2.1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from bothways.batch import Example, Key, Vocabulary, Window
from bothways.errors import BothwaysError
from bothways.objectives.base import Mode, Objective, Profile, ask, example
from bothways.objectives.next_token import with_begin
from bothways.objectives.noise import GOLDEN, spread
from bothways.objectives.options import is_number, need_tokens
from bothways.visibility import prefix

MODE = Mode("prefix", prefix, predicts="next", likelihood="exact")
SPLIT = 17
"""Salt of the sequence of splits."""


@dataclass(frozen=True)
class Prefix(Objective):
    """Sum over k behind the prefix of -log p(x_k | x_<k), where the tokens of the prefix see each other.

    Options:
        share: how much of a text is prefix: "uniform" puts the split anywhere, evenly spread over the windows of an
            epoch (T5; UniLM, arXiv 1905.03197; arXiv 2204.05832), a number in [0, 1) always there. Rounded to whole
            tokens, and at least one token is left to ask for; an empty prefix is next-token.

    Only what stands behind the prefix is asked for: a token of the prefix has been seen by those that would predict it.
    """

    vocabulary: Vocabulary
    share: float | Literal["uniform"] = "uniform"
    name = "prefix"
    summary = "see a beginning from both sides, predict each token behind it from those before"
    source = "Raffel et al. 2020 (T5), section 3.2.1, arXiv 1910.10683; Dong et al. 2019 (UniLM), arXiv 1905.03197"
    decoding = "left_to_right"

    def __post_init__(self) -> None:
        need_tokens(self.name, self.vocabulary, self.tokens)
        if self.share != "uniform" and not (is_number(self.share) and 0 <= float(self.share) < 1):
            raise BothwaysError(f"objective '{self.name}': share is {self.share!r}, but must be 'uniform' or a number "
                                "of at least 0 and below 1, such as 0.5")

    @property
    def modes(self) -> tuple[Mode, ...]:
        return (MODE,)

    @property
    def profile(self) -> Profile:
        return Profile(prefix, asked=0.5 if isinstance(self.share, str) else 1 - self.share)

    def split(self, length: int, key: Key) -> int:
        """How many of `length` tokens are the prefix of this window in this epoch: 1 to length - 1 if drawn."""
        if not isinstance(self.share, str):
            return min(round(self.share * length), max(length - 1, 0))
        return min(1 + int(spread(key, GOLDEN, SPLIT) * (length - 1)), max(length - 1, 0))

    def corrupt(self, window: Window, key: Key) -> Example:
        ids, split = window.ids, self.split(len(window.ids), key)
        # the token behind the prefix is asked of the prefix's last; nothing stands before a text's first token
        where = np.arange(max(split, 1) - 1, len(ids) - 1)
        return example(ids, prefix, [ask(where, ids[where + 1])], prefix=np.arange(len(ids)) < split)

    def blank(self, ids: np.ndarray, hidden: np.ndarray, mode: Mode | None = None) -> Example:
        """What stands before the first hidden token is the prefix; from there on each sees those before it."""
        split = int(np.argmax(hidden)) if hidden.any() else len(ids)
        places = np.flatnonzero(hidden[1:])
        return example(ids, prefix, [ask(places, ids[places + 1])], prefix=np.arange(len(ids)) < split)

    def continuation(self, ids: np.ndarray, mode: Mode | None = None) -> Example:
        """The prompt is the prefix."""
        prompt = with_begin(ids, self.vocabulary)
        return example(prompt, prefix, prefix=np.ones(len(prompt)))
