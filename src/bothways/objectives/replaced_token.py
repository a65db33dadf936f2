"""Replaced token: a small masked model fills some places, and the trunk says of every token whether it was replaced.

Clark et al. 2020 (ELECTRA), arXiv 2003.10555; one way to share embeddings is of He et al. 2021 (DeBERTa-V3), arXiv
2111.09543.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from bothways.batch import Ask, Companion, Example, Key, Vocabulary, Window
from bothways.errors import BothwaysError
from bothways.objectives.base import Mode, Network, Objective, Output, Part, Profile, ask, example
from bothways.objectives.loss import cross_entropy
from bothways.objectives.lots import drawn, lots_of
from bothways.objectives.masked import select
from bothways.objectives.options import at_least, choice, need_ordinary, need_tokens, share
from bothways.visibility import bidirectional

GENERATOR, VERDICT = "generator", "replaced"
"""The companions: who fills the hidden places, and the head that says original (0) or replaced (1)."""
MODE = Mode("generator", bidirectional, predicts="here", likelihood="pseudo", head=GENERATOR)


@dataclass(frozen=True)
class ReplacedToken(Objective):
    """Loss = generator's masked loss over the hidden places + weight * trunk's verdict over all tokens (eq. 1 and 2).

    The generator's tokens are drawn from its distribution, not its likeliest ones, and no gradient flows through the
    draw; one that happens to be right counts as original. What is drawn follows from the weights and from the lots
    that the tokens carry, so it is the same alone and packed, on one process and on many.

    Options:
        rate: share of the ordinary tokens the generator fills.
        generator: its share of the trunk's heads and width, at most 1 (section 3.2: a quarter to a half works best); it
            has as many layers as the trunk.
        sharing: of the token embedding. "all" is one table moved by both losses; "none" gives the generator a narrow
            one of its own; "gradient-disentangled" is one table that the generator's loss alone moves, and to which
            the trunk adds what it learns (DeBERTa-V3, section 3.3).
        weight: of the trunk's part.
    """

    vocabulary: Vocabulary
    rate: float = 0.15
    generator: float = 0.25
    sharing: Literal["all", "none", "gradient-disentangled"] = "all"
    weight: float = 50.0
    name = "replaced-token"
    summary = "a small masked model replaces some tokens; say of every token whether it was replaced"
    source = "Clark et al. 2020 (ELECTRA), section 2; arXiv 2003.10555"
    decoding = "mask_predict"
    tokens = ("<bos>", "<eos>", "<mask>")

    def __post_init__(self) -> None:
        need_tokens(self.name, self.vocabulary, self.tokens)
        need_ordinary(self.name, self.vocabulary)
        share(self.name, "rate", self.rate)
        choice(self.name, "sharing", self.sharing, ("all", "none", "gradient-disentangled"))
        at_least(self.name, "weight", self.weight, 0)
        if self.generator != 1:
            share(self.name, "generator", self.generator)

    @property
    def modes(self) -> tuple[Mode, ...]:
        """The generator's: the trunk names no token, so whoever asks for one is answered by the generator."""
        return (MODE,)

    @property
    def companions(self) -> tuple[Companion, ...]:
        kind = "separate generator" if self.sharing == "none" else "generator"
        delta = (Companion("delta", "delta"),) if self.sharing == "gradient-disentangled" else ()
        return (Companion(GENERATOR, kind, share=self.generator), Companion(VERDICT, "classes", 2), *delta)

    @property
    def profile(self) -> Profile:
        filler, verdict, *_ = self.companions
        return Profile(bidirectional, asked=0.0, companions=((filler, 1.0, self.rate), (verdict, 0.0, 1.0)))

    def corrupt(self, window: Window, key: Key) -> Example:
        """The generator's side, with `<mask>` at hidden places; every token counts as original until they are drawn."""
        ids = window.ids
        places = select(ids, self.vocabulary, self.rate, False, key.rng())
        hidden = ids.copy()
        hidden[places] = self.vocabulary.mask
        asks = [ask(places, ids[places], part=GENERATOR, head=GENERATOR),
                ask(np.arange(len(ids)), np.zeros(len(ids)), part=VERDICT, head=VERDICT, coefficient=self.weight)]
        return example(hidden, bidirectional, asks, lot=lots_of(key, len(ids)))

    def parts(self, network: Network, example: Example, z_loss: float = 0.0) -> list[Part]:
        # 1. the generator fills the hidden places
        filling = replace(example, asks=tuple(one for one in example.asks if one.head == GENERATOR))
        states = network(filling, only_asked=True).states
        parts = cross_entropy(network.logits, states, filling, z_loss)
        # 2. the trunk judges what came out
        judged = self.replaced(network, states, example)
        return parts + cross_entropy(network.logits, network(judged, only_asked=True).states, judged)

    def loss(self, network: Network, output: Output, example: Example, z_loss: float = 0.0) -> list[Part]:
        raise BothwaysError("objective 'replaced-token' runs its generator before the trunk: call `parts`, which runs "
                            "both")

    @torch.no_grad()
    def replaced(self, network: Network, states: Tensor, example: Example) -> Example:
        """What the trunk reads: hidden places hold tokens drawn by their lots, and the targets say which are wrong.

        Args:
            states: (N, E) of the generator over this example.
        """
        inputs = example.inputs
        labels = torch.zeros(len(example), dtype=torch.long, device=inputs.device)
        for one in example.asks:
            if one.head == GENERATOR and len(one.where):
                lots = example.fields["lot"][one.where.cpu()].to(inputs.device)
                tokens = drawn(network.logits(states.index_select(0, one.where), GENERATOR), lots)
                inputs = inputs.index_copy(0, one.where, tokens)
                labels = labels.index_copy(0, one.where, (tokens != one.targets).long())
        asks = tuple(self._judging(one, labels) for one in example.asks if one.head == VERDICT)
        return replace(example, inputs=inputs, asks=asks)

    def blank(self, ids: np.ndarray, hidden: np.ndarray, mode: Mode | None = None) -> Example:
        """As a masked model is asked; the generator answers."""
        return example(np.where(hidden, self.vocabulary.mask, ids), bidirectional,
                       [ask(np.flatnonzero(hidden), ids[hidden], head=GENERATOR)])

    @staticmethod
    def _judging(one: Ask, labels: Tensor) -> Ask:
        return replace(one, targets=labels.index_select(0, one.where))
