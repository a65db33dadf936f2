"""Fill in the middle: a text is cut in three and its middle moved to the end (Bavarian et al. 2022, 2207.14255)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from bothways.batch import Example, Key, Vocabulary, Window
from bothways.errors import BothwaysError
from bothways.objectives.base import Mode, Objective, Profile, ask, example
from bothways.objectives.next_token import with_begin
from bothways.objectives.noise import BRONZE, spread
from bothways.objectives.options import choice, is_number, need_tokens
from bothways.visibility import causal

MODE = Mode("causal", causal, predicts="next", likelihood="exact")
ORDER = 23
"""Salt of the sequence that says which windows are cut, and in which order they are written."""


@dataclass(frozen=True)
class FillInTheMiddle(Objective):
    """-log p of all tokens of `<pre> prefix <suf> suffix <mid> middle <eos>`, or of the text as it is.

    The sentinels <extra_0>, <extra_1> and <extra_2> are <pre>, <suf> and <mid>.

    Options:
        rate: share of the windows that are cut (the paper's 0.5 to 0.9 cost the other ones nothing, section 4).
        spm: share of those that are written suffix first: `<pre> <suf> suffix <mid> prefix middle <eos>` (the paper's
            second variant of SPM); the others prefix first (PSM).
        cuts: what the two cuts are uniform over: "bytes" of the text, moved back to where a token begins, or "tokens".
            No token is ever split.
    """

    vocabulary: Vocabulary
    rate: float = 0.5
    spm: float = 0.5
    cuts: Literal["bytes", "tokens"] = "bytes"
    name = "fim"
    summary = "predict each token from those before it; half of the texts have their middle moved to the end"
    source = "Bavarian et al. 2022, sections 3 and 4.2; arXiv 2207.14255"
    decoding = "infill"
    tokens = ("<bos>", "<eos>", "<extra_0>", "<extra_1>", "<extra_2>")

    def __post_init__(self) -> None:
        need_tokens(self.name, self.vocabulary, self.tokens)
        for option in ("rate", "spm"):
            value = getattr(self, option)
            if not is_number(value) or not 0 <= value <= 1:
                raise BothwaysError(f"objective '{self.name}': {option} is {value!r}, but must be a number from 0 to "
                                    "1, such as 0.5")
        choice(self.name, "cuts", self.cuts, ("bytes", "tokens"))

    @property
    def modes(self) -> tuple[Mode, ...]:
        return (MODE,)

    @property
    def profile(self) -> Profile:
        return Profile(causal)

    def form(self, key: Key) -> Literal["text", "psm", "spm"]:
        """How this window is written in this epoch; shares are exact over an epoch."""
        lot = spread(key, BRONZE, ORDER)
        if lot >= self.rate:
            return "text"
        return "spm" if lot < self.rate * self.spm else "psm"

    def corrupt(self, window: Window, key: Key) -> Example:
        ids, form = window.ids, self.form(key)
        if form != "text":
            # 1. <bos> stays in front, and the end of the middle takes the place of the text's own <eos>
            first = int(ids[0] == self.vocabulary.bos)
            last = len(ids) - int(len(ids) > first and ids[-1] == self.vocabulary.eos)
            body = ids[first:last]
            # 2. three parts, any of which may be empty
            left, right = self.split(body, key.rng())
            pre, suf, mid = self.vocabulary.sentinels[:3]
            parts = ([[pre], body[:left], [suf], body[right:], [mid], body[left:right]] if form == "psm" else
                     [[pre, suf], body[right:], [mid], body[:left], body[left:right]])
            ids = np.concatenate([ids[:first], *parts, [self.vocabulary.eos]]).astype(np.int64)
        return example(ids, causal, [ask(np.arange(len(ids) - 1), ids[1:])], raw=len(window.ids))

    def split(self, ids: np.ndarray, rng: np.random.Generator) -> tuple[int, int]:
        """Where the middle begins and ends: two places out of 0..L, uniform and independent, in order."""
        if self.cuts == "tokens":
            one, other = rng.integers(0, len(ids) + 1, size=2)
        else:
            begins = np.concatenate(([0], np.cumsum(self.vocabulary.n_bytes[ids])))
            drawn = rng.integers(0, begins[-1] + 1, size=2)
            # tokens without bytes begin where the next one does: a cut goes before them
            one, other = np.searchsorted(begins, begins[np.searchsorted(begins, drawn, side="right") - 1])
        return int(min(one, other)), int(max(one, other))

    def blank(self, ids: np.ndarray, hidden: np.ndarray, mode: Mode | None = None) -> Example:
        """The text as it is, left to right."""
        places = np.flatnonzero(hidden[1:])
        return example(ids, causal, [ask(places, ids[places + 1])])

    def continuation(self, ids: np.ndarray, mode: Mode | None = None) -> Example:
        return example(with_begin(ids, self.vocabulary), causal)

    def infilling(self, ids: np.ndarray, mode: Mode | None = None) -> Example:
        """The text before and behind the one blank, in the order of PSM, ready for the middle."""
        text = with_begin(ids, self.vocabulary)
        blank = np.flatnonzero(text == self.vocabulary.mask)
        if len(blank) != 1:
            raise BothwaysError(f"a model trained by '{self.name}' fills one <mask> of any length, and this text has "
                                f"{len(blank)}: leave one, or use ul2 or glm for several")
        pre, suf, mid = self.vocabulary.sentinels[:3]
        behind = text[blank[0] + 1:]
        behind = behind[:-1] if len(behind) and behind[-1] == self.vocabulary.eos else behind
        return example(np.concatenate((text[:1], [pre], text[1:blank[0]], [suf], behind, [mid])), causal)

    def read_infilling(self, ids: np.ndarray, written: Sequence[int]) -> list[int]:
        """The middle is what was written up to its `<eos>`."""
        middle = [int(token) for token in written]
        middle = middle[:middle.index(self.vocabulary.eos)] if self.vocabulary.eos in middle else middle
        place = int(np.flatnonzero(np.asarray(ids) == self.vocabulary.mask)[0])
        return [*map(int, ids[:place]), *middle, *map(int, ids[place + 1:])]

    def written_fills(self, ids: np.ndarray, fills: Sequence[Sequence[int]]) -> list[int]:
        return [*map(int, fills[0]), self.vocabulary.eos]
