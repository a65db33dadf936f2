"""Pairs: write the target of a source (sequence to sequence; Sutskever et al. 2014, arXiv 1409.3215)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from bothways.batch import Example, Key, Vocabulary, Window
from bothways.errors import BothwaysError
from bothways.objectives.answers import Answering, asked, need_marks
from bothways.objectives.base import Mode, Profile, ask, example
from bothways.objectives.next_token import with_begin
from bothways.objectives.options import need_tokens
from bothways.objectives.prefix import MODE as PREFIX
from bothways.objectives.two_towers import MODE as TWO_TOWERS
from bothways.objectives.two_towers import begun, closed, taught
from bothways.visibility import causal, prefix


@dataclass(frozen=True)
class Pairs(Answering):
    """Sum of -log p(y_k | y_<k, x) over the target y of a source x, `<eos>` included; nothing is asked of the source.

    A window is `<bos> x <sep> y <eos>`, cut by nobody (`text.cut: turns`); in a longer conversation y is the last
    answer and x everything before it.

    Options:
        towers: 2, where the encoder reads `<bos> x <eos>` and the decoder writes `y <eos>`; or 1, where `<bos> x <sep>`
            is a prefix that sees itself both ways (T5's prefix decoder, arXiv 1910.10683, section 3.2.1).
    """

    vocabulary: Vocabulary
    towers: Literal[1, 2] = 2
    name = "pairs"
    summary = "read a source from both sides, write its target"
    source = "Sutskever et al. 2014, arXiv 1409.3215; with a prefix: Raffel et al. 2020 (T5), section 3.2.1"
    stack = "two towers"

    def __post_init__(self) -> None:
        need_tokens(self.name, self.vocabulary, self.tokens)
        if self.towers not in (1, 2) or isinstance(self.towers, bool):
            raise BothwaysError(f"objective '{self.name}': towers is {self.towers!r}, but must be 1 (a prefix) or 2 "
                                "(an encoder)")
        object.__setattr__(self, "stack", "one tower" if self.towers == 1 else "two towers")

    @property
    def modes(self) -> tuple[Mode, ...]:
        return (PREFIX if self.towers == 1 else TWO_TOWERS,)

    @property
    def profile(self) -> Profile:
        """For a target as long as its source: what pairs are is known only when they are read."""
        return Profile(prefix, asked=0.5) if self.towers == 1 else Profile(causal, 0.5, 0.5, 0.5)

    def corrupt(self, window: Window, key: Key) -> Example:
        ids = window.ids
        need_marks(self.name, ids, self.vocabulary)
        split = int(np.flatnonzero(ids == self.vocabulary.sep)[-1]) + 1
        return self._example(ids, split, np.arange(len(ids)) >= split)

    def blank(self, ids: np.ndarray, hidden: np.ndarray, mode: Mode | None = None) -> Example:
        """What stands before the first hidden token is source, up to the last `<sep>` if there is one; from there on
        each token sees those before it."""
        split = int(np.argmax(hidden)) if hidden.any() else len(ids)
        marks = np.flatnonzero(ids[:split] == self.vocabulary.sep)
        split = int(marks[-1]) + 1 if len(marks) else split
        hidden = hidden & (np.arange(len(ids)) > 0)
        return self._example(ids, max(split, int(ids[0] == self.vocabulary.bos)), hidden)

    def continuation(self, ids: np.ndarray, mode: Mode | None = None) -> Example:
        """The prompt is the source."""
        if self.towers == 1:
            prompt = asked(ids, self.vocabulary)
            return example(prompt, prefix, prefix=np.ones(len(prompt)))
        source = with_begin(ids, self.vocabulary)
        source = source[:-1] if source[-1] == self.vocabulary.sep else source
        return begun(closed(source, self.vocabulary), [self.vocabulary.bos])

    def _example(self, ids: np.ndarray, split: int, wanted: np.ndarray) -> Example:
        """The tokens before `split` are source; of those from there on, the `wanted` ones are asked for."""
        if self.towers == 1:
            places = np.flatnonzero(wanted[1:])
            return example(ids, prefix, [ask(places, ids[places + 1])], prefix=np.arange(len(ids)) < split)
        source = ids[:split]
        source = source[:-1] if len(source) and source[-1] == self.vocabulary.sep else source
        return taught(closed(with_begin(source, self.vocabulary), self.vocabulary), ids[split:], wanted[split:],
                      self.vocabulary.bos, len(ids))
