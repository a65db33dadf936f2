"""Masked next token: a hidden token is asked for one place earlier (GPT-BERT, arXiv 2410.24159, section 2)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bothways.batch import Example, Key, Window
from bothways.objectives.base import Mode, ask, example
from bothways.objectives.masked import Selecting
from bothways.visibility import bidirectional

MODE = Mode("bidirectional", bidirectional, predicts="next", likelihood="pseudo")


@dataclass(frozen=True)
class MaskedNext(Selecting):
    """As masked, but the state at place k - 1 predicts the hidden token k.

    So a network speaks of the next token whether it is called with causal or bidirectional visibility, and one
    head serves both: mixed with next-token this is the hybrid. Hidden tokens are always `<mask>`.
    """

    name = "masked-next"
    summary = "hide some tokens, see both sides, predict each hidden one from the place before it"
    source = "Charpentier and Samuel 2024 (GPT-BERT), section 2; arXiv 2410.24159"

    @property
    def modes(self) -> tuple[Mode, ...]:
        return (MODE,)

    def corrupt(self, window: Window, key: Key) -> Example:
        # nothing stands before place 0 to predict it from, so it stays
        key = self.noise(key)
        places, asked = self.selected(window, key, key.rng(), first=1)
        corrupted = window.ids.copy()
        corrupted[places] = self.vocabulary.mask
        return example(corrupted, bidirectional, [ask(asked - 1, window.ids[asked])])

    def blank(self, ids: np.ndarray, hidden: np.ndarray, mode: Mode | None = None) -> Example:
        places = np.flatnonzero(hidden[1:]) + 1
        return example(np.where(hidden, self.vocabulary.mask, ids), bidirectional, [ask(places - 1, ids[places])])
