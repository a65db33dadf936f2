"""Masked diffusion: hide any share of the tokens, weigh by its inverse (MDLM 2406.07524, LLaDA 2502.09992)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bothways.batch import Example, Key, Vocabulary, Window
from bothways.errors import BothwaysError
from bothways.objectives.base import Mode, Objective, Profile, ask, example
from bothways.objectives.noise import GOLDEN, spread
from bothways.objectives.options import choice, flag, need_ordinary, need_tokens, share
from bothways.objectives.schedules import SCHEDULES
from bothways.visibility import bidirectional

MODE = Mode("bidirectional", bidirectional, predicts="here", likelihood="bound")
TIME, LENGTH = 11, 12
"""Salts of the sequence of times, and of the lengths of windows that are cut."""


@dataclass(frozen=True)
class Diffusion(Objective):
    """-log p(x) <= E over t in (0, 1] of w(t) * sum over hidden k of -log p(x_k | x_t)  (MDLM; LLaDA, eq. 4).

    Every token but `<bos>` is hidden independently with probability 1 - alpha(t), so the count is the number of those,
    not of the hidden ones: the loss is a bound in nats per token. Times are spread evenly over the windows of an epoch
    (MDLM's low-discrepancy sampler), and moved into [smallest_time, 1] to bound the weight.
    A window in which nothing was hidden asks nothing and contributes its count.

    Options:
        smallest_time: no time is earlier.
        schedule: alpha(t), linear, cosine or polynomial; w(t) = -alpha'(t) / (1 - alpha(t)) follows, 1/t when linear.
        subs: MDLM's parametrisation (section 3.2): `<mask>` has no probability, in the loss, in scores and in
            decoding. Its other half, that what is not hidden stays, holds in any case: only hidden tokens are asked
            for. LLaDA leaves `<mask>` in the softmax.
        cut: share of the windows cut to a random length (LLaDA, section 2.2: 0.01), so that short texts are known too.
    """

    vocabulary: Vocabulary
    smallest_time: float = 0.001
    schedule: str = "linear"
    subs: bool = False
    cut: float = 0.0
    name = "diffusion"
    summary = "hide a random share of all tokens, see both sides, predict the hidden ones, weigh by 1/share"
    source = "Sahoo et al. 2024 (MDLM), arXiv 2406.07524; Nie et al. 2025 (LLaDA), eq. 3, arXiv 2502.09992"
    decoding = "diffusion"
    tokens = ("<bos>", "<eos>", "<mask>")

    def __post_init__(self) -> None:
        need_tokens(self.name, self.vocabulary, self.tokens)
        need_ordinary(self.name, self.vocabulary)
        share(self.name, "smallest_time", self.smallest_time)
        choice(self.name, "schedule", self.schedule, tuple(SCHEDULES))
        flag(self.name, "subs", self.subs)
        if self.cut != 0:
            share(self.name, "cut", self.cut)

    @property
    def never(self) -> tuple[int, ...]:
        return (self.vocabulary.mask,) if self.subs else ()

    @property
    def modes(self) -> tuple[Mode, ...]:
        return (MODE,)

    @property
    def profile(self) -> Profile:
        return Profile(bidirectional, asked=SCHEDULES[self.schedule].mean(self.smallest_time))

    def time(self, key: Key) -> float:
        """The time of this window in this epoch, in [smallest_time, 1]; a linear schedule hides that share."""
        return self.smallest_time + (1 - self.smallest_time) * spread(key, GOLDEN, TIME)

    def corrupt(self, window: Window, key: Key) -> Example:
        return self.noised(self._cut(window.ids, key), self.time(key), key.rng())

    def noised(self, ids: np.ndarray, time: float, rng: np.random.Generator) -> Example:
        """The Example of this text at this time; an estimator of the bound may choose times itself."""
        if not 0 < time <= 1:
            raise BothwaysError(f"a diffusion time lies above 0 and up to 1, not at {time}")
        able = ids != self.vocabulary.bos
        schedule = SCHEDULES[self.schedule]
        places = np.flatnonzero(able & (rng.random(len(ids)) < schedule.hidden(time)))
        corrupted = ids.copy()
        corrupted[places] = self.vocabulary.mask
        weights = np.full(len(places), schedule.weight(time, self.smallest_time), dtype=np.float32)
        return example(corrupted, bidirectional, [ask(places, ids[places], weights, count=float(able.sum()))])

    def blank(self, ids: np.ndarray, hidden: np.ndarray, mode: Mode | None = None) -> Example:
        return example(np.where(hidden, self.vocabulary.mask, ids), bidirectional,
                       [ask(np.flatnonzero(hidden), ids[hidden])])

    def _cut(self, ids: np.ndarray, key: Key) -> np.ndarray:
        """The window, or its beginning where this one is to be short."""
        if not self.cut:
            return ids
        rng, shortest = key.rng(LENGTH), 1 + int(ids[0] == self.vocabulary.bos)
        short = rng.random() < self.cut and len(ids) > shortest
        return ids[:rng.integers(shortest, len(ids) + 1)] if short else ids
