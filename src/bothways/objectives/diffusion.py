"""Masked diffusion: hide each token with probability t, weigh by 1/t (MDLM 2406.07524, LLaDA 2502.09992)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bothways.batch import Example, Key, Vocabulary, Window
from bothways.errors import BothwaysError
from bothways.objectives.base import Mode, Objective, Profile, ask, example
from bothways.objectives.noise import GOLDEN, spread
from bothways.objectives.options import need_ordinary, need_tokens, share
from bothways.visibility import bidirectional

MODE = Mode("bidirectional", bidirectional, predicts="here", likelihood="bound")
TIME = 11
"""Salt of the sequence of times."""


@dataclass(frozen=True)
class Diffusion(Objective):
    """-log p(x) <= E over t in (0, 1] of (1/t) * sum over hidden k of -log p(x_k | x_t)  (LLaDA, eq. 3 and 4).

    Every token but `<bos>` is hidden independently with probability t, so the count is the number of those, not of
    the hidden ones: the loss is a bound in nats per token. Times are spread evenly over the windows of an epoch
    (MDLM's low-discrepancy sampler), and moved into [smallest_time, 1] to bound the weight.
    A window in which nothing was hidden asks nothing and contributes its count.
    """

    vocabulary: Vocabulary
    smallest_time: float = 0.001
    name = "diffusion"
    summary = "hide a random share of all tokens, see both sides, predict the hidden ones, weigh by 1/share"
    source = "Sahoo et al. 2024 (MDLM), arXiv 2406.07524; Nie et al. 2025 (LLaDA), eq. 3, arXiv 2502.09992"
    decoding = "diffusion"
    tokens = ("<bos>", "<eos>", "<mask>")

    def __post_init__(self) -> None:
        need_tokens(self.name, self.vocabulary, self.tokens)
        need_ordinary(self.name, self.vocabulary)
        share(self.name, "smallest_time", self.smallest_time)

    @property
    def modes(self) -> tuple[Mode, ...]:
        return (MODE,)

    @property
    def profile(self) -> Profile:
        return Profile(bidirectional, asked=(1 + self.smallest_time) / 2)

    def time(self, key: Key) -> float:
        """The share of tokens hidden in this window of this epoch, in [smallest_time, 1]."""
        return self.smallest_time + (1 - self.smallest_time) * spread(key, GOLDEN, TIME)

    def corrupt(self, window: Window, key: Key) -> Example:
        return self.noised(window.ids, self.time(key), key.rng())

    def noised(self, ids: np.ndarray, time: float, rng: np.random.Generator) -> Example:
        """The Example of this text at this time; an estimator of the bound may choose times itself."""
        if not 0 < time <= 1:
            raise BothwaysError(f"a diffusion time lies above 0 and up to 1, not at {time}")
        able = ids != self.vocabulary.bos
        places = np.flatnonzero(able & (rng.random(len(ids)) < time))
        corrupted = ids.copy()
        corrupted[places] = self.vocabulary.mask
        weights = np.full(len(places), 1 / time, dtype=np.float32)
        return example(corrupted, bidirectional, [ask(places, ids[places], weights, count=float(able.sum()))])

    def blank(self, ids: np.ndarray, hidden: np.ndarray, mode: Mode | None = None) -> Example:
        return example(np.where(hidden, self.vocabulary.mask, ids), bidirectional,
                       [ask(np.flatnonzero(hidden), ids[hidden])])
