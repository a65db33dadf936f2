"""Masked next token: a hidden token is asked for one place earlier (GPT-BERT, arXiv 2410.24159, section 2)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bothways.batch import Example, Key, Vocabulary, Window
from bothways.objectives.base import Mode, Objective, Profile, ask, example
from bothways.objectives.masked import Rate, mean_rate, rate_at, read_rate, select
from bothways.objectives.options import flag, need_ordinary, need_tokens
from bothways.visibility import bidirectional

MODE = Mode("bidirectional", bidirectional, predicts="next", likelihood="pseudo")


@dataclass(frozen=True)
class MaskedNext(Objective):
    """As masked, but the state at place k - 1 predicts the hidden token k.

    So a network speaks of the next token whether it is called with causal or bidirectional visibility, and one
    head serves both: mixed with next-token this is the hybrid. Hidden tokens are always `<mask>`.
    """

    vocabulary: Vocabulary
    rate: Rate = 0.15
    whole_words: bool = False
    name = "masked-next"
    summary = "hide some tokens, see both sides, predict each hidden one from the place before it"
    source = "Charpentier and Samuel 2024 (GPT-BERT), section 2; arXiv 2410.24159"
    decoding = "mask_predict"
    tokens = ("<bos>", "<eos>", "<mask>")

    def __post_init__(self) -> None:
        need_tokens(self.name, self.vocabulary, self.tokens)
        need_ordinary(self.name, self.vocabulary)
        object.__setattr__(self, "rate", read_rate(self.name, self.rate))
        flag(self.name, "whole_words", self.whole_words)

    @property
    def modes(self) -> tuple[Mode, ...]:
        return (MODE,)

    @property
    def profile(self) -> Profile:
        return Profile(bidirectional, asked=mean_rate(self.rate))

    def corrupt(self, window: Window, key: Key) -> Example:
        ids = window.ids
        # nothing stands before place 0 to predict it from, so it stays
        places = select(ids, self.vocabulary, rate_at(self.rate, key.progress), self.whole_words, key.rng(), first=1)
        corrupted = ids.copy()
        corrupted[places] = self.vocabulary.mask
        return example(corrupted, bidirectional, [ask(places - 1, ids[places])])

    def blank(self, ids: np.ndarray, hidden: np.ndarray, mode: Mode | None = None) -> Example:
        places = np.flatnonzero(hidden[1:]) + 1
        return example(np.where(hidden, self.vocabulary.mask, ids), bidirectional, [ask(places - 1, ids[places])])
