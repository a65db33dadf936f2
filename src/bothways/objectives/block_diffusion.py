"""Block diffusion: blocks from left to right, masked diffusion inside each (BD3-LM, arXiv 2503.09573, section 3)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bothways.batch import Ask, Example, Key, Vocabulary, Window
from bothways.errors import BothwaysError
from bothways.objectives.base import Mode, Objective, Profile, ask, example
from bothways.objectives.diffusion import TIME
from bothways.objectives.noise import GOLDEN, spread
from bothways.objectives.options import at_least, choice, flag, need_ordinary, need_tokens, share
from bothways.objectives.schedules import SCHEDULES
from bothways.visibility import IntoPrefix, by_blocks, same_block

VISIBILITY = same_block | (by_blocks & IntoPrefix())
"""A noised token sees its own noised block and the clean blocks before it; a clean one the clean blocks up to its own.

Clean tokens are the prefix. Block b has the number 2 b in the noised text and 2 b + 1 in the clean one.
"""


@dataclass(frozen=True)
class BlockDiffusion(Objective):
    """-log p(x) <= sum over blocks b of E over t of w(t) * sum over hidden k in b of -log p(x_k | b at t, blocks < b).

    The noised text and the clean one lie in one row, each token at its own place, so that one pass asks every block
    given the clean ones before it. Clean tokens of the last block, which nobody looks at, are left out. Every block has
    a time of its own; those of one window are spread evenly, and so is the first over the windows of an epoch. The
    count is the number of tokens but `<bos>`: the loss is a bound in nats per token.

    Options:
        block: tokens in a block. With 1, everything is hidden (t is 1) and the bound is exact: every token is asked for
            at a `<mask>` that sees what stands before it. As long as the window, it is diffusion.
        smallest_time, schedule, subs: as for diffusion.
    """

    vocabulary: Vocabulary
    block: int = 16
    smallest_time: float = 0.001
    schedule: str = "linear"
    subs: bool = False
    name = "block-diffusion"
    summary = "write block after block; inside a block hide a random share, see both sides and all earlier blocks"
    source = "Arriola et al. 2025 (BD3-LM), section 3; arXiv 2503.09573"
    decoding = "block_diffusion"
    tokens = ("<bos>", "<eos>", "<mask>")

    def __post_init__(self) -> None:
        need_tokens(self.name, self.vocabulary, self.tokens)
        need_ordinary(self.name, self.vocabulary)
        at_least(self.name, "block", self.block, 1)
        if type(self.block) is not int:
            raise BothwaysError(f"objective '{self.name}': block is {self.block!r}, but must be a whole number")
        share(self.name, "smallest_time", self.smallest_time)
        choice(self.name, "schedule", self.schedule, tuple(SCHEDULES))
        flag(self.name, "subs", self.subs)

    @property
    def never(self) -> tuple[int, ...]:
        return (self.vocabulary.mask,) if self.subs else ()

    @property
    def modes(self) -> tuple[Mode, ...]:
        return (Mode("block-causal", VISIBILITY, "here", "exact" if self.block == 1 else "bound"),)

    @property
    def profile(self) -> Profile:
        asked = 1.0 if self.block == 1 else SCHEDULES[self.schedule].mean(self.smallest_time)
        return Profile(VISIBILITY, inputs=2.0, asked=asked)

    def times(self, key: Key, blocks: int) -> np.ndarray:
        """The time of each block of this window in this epoch, in [smallest_time, 1]: (blocks,) float64."""
        if self.block == 1:
            return np.ones(blocks)
        even = (spread(key, GOLDEN, TIME) + np.arange(blocks) / blocks) % 1.0
        return self.smallest_time + (1 - self.smallest_time) * even

    def corrupt(self, window: Window, key: Key) -> Example:
        ids = window.ids
        # 1. what is hidden, block by block
        times = self.times(key, -(-len(ids) // self.block))
        schedule = SCHEDULES[self.schedule]
        shares = np.array([schedule.hidden(time) for time in times])
        weights = np.array([1.0 if self.block == 1 else schedule.weight(time, self.smallest_time) for time in times])
        if self.block == 1:
            shares = np.ones(len(times))
        able = ids != self.vocabulary.bos
        of = np.arange(len(ids)) // self.block
        hidden = able & (key.rng().random(len(ids)) < shares[of])
        # 2. the two texts in one row
        places = np.flatnonzero(hidden)
        return self._laid(ids, hidden, ask(places, ids[places], weights[of[places]], count=float(able.sum())))

    def blank(self, ids: np.ndarray, hidden: np.ndarray, mode: Mode | None = None) -> Example:
        """Hidden tokens of earlier blocks are seen by later ones, as in the chain rule; those of its own are not."""
        return self._laid(ids, hidden, ask(np.flatnonzero(hidden), ids[hidden]))

    def _laid(self, ids: np.ndarray, hidden: np.ndarray, asked: Ask) -> Example:
        """The noised text, then the clean one up to the last block; both at the places of the text."""
        length = len(ids)
        clean = (length - 1) // self.block * self.block
        place = np.concatenate((np.arange(length), np.arange(clean)))
        is_clean = np.arange(len(place)) >= length
        inputs = np.concatenate((np.where(hidden, self.vocabulary.mask, ids), ids[:clean]))
        return example(inputs, VISIBILITY, [asked], raw=length, index=place, position=place, prefix=is_clean,
                       block=2 * (place // self.block) + is_clean)
