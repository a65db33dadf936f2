"""Adversarial: the trunk writes, and learns from a critic that tells its texts from real ones (a text GAN).

Goodfellow et al. 2014, arXiv 1406.2661; drawn with a gradient as by Kusner and Hernandez-Lobato 2016, arXiv 1611.04051.
Kept for study: Caccia et al. 2020 (arXiv 1811.02549) found plain likelihood to be better in quality and variety.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional as F

from bothways.batch import Companion, Example, Key, Vocabulary, Window
from bothways.objectives.base import Mode, Network, Objective, Part, Profile, ask
from bothways.objectives.loss import cross_entropy
from bothways.objectives.lots import gumbels, lots_of
from bothways.objectives.next_token import MODE, NextToken
from bothways.objectives.options import at_least, need_tokens, share
from bothways.visibility import causal, same_document

CRITIC, GENERATOR = "critic", "generator"


@dataclass(frozen=True)
class Adversarial(Objective):
    """likelihood * next-token loss + critic's loss + weight * E over written texts of -log(critic's "real").

    After the first token of a window the trunk writes as many tokens as the critic reads of the real window. Written
    tokens are drawn with Gumbel noise that the places carry (so a step can be repeated); the gradient goes through the
    softmax of the same noisy logits (straight-through Gumbel-softmax, arXiv 1611.01144), from the critic's reading of
    each token to the state that chose it, not through the choice of later tokens. The critic's part sees texts without
    a gradient, the trunk's part sees the critic's weights as constants.

    Options:
        begin: share of training with likelihood alone, before the critic comes in: the usual remedy (SeqGAN, arXiv
            1609.05473, section 3), without which nothing readable is ever written.
        likelihood: weight of the next-token loss once it has; 0 leaves it to be measured only.
        weight: of the trunk's part of the game.
        stretch: share of a window that the critic reads.
        critic: its share of the trunk's heads and width.
        temperature: of the softmax that gradients go through; what is drawn does not depend on it.
    """

    vocabulary: Vocabulary
    begin: float = 0.5
    likelihood: float = 1.0
    weight: float = 0.1
    stretch: float = 0.25
    critic: float = 0.5
    temperature: float = 1.0
    name = "adversarial"
    summary = "write texts that a critic cannot tell from real ones, while the critic learns to"
    source = "Kusner and Hernandez-Lobato 2016, arXiv 1611.04051; Goodfellow et al. 2014, arXiv 1406.2661"
    decoding = "left_to_right"

    def __post_init__(self) -> None:
        need_tokens(self.name, self.vocabulary, self.tokens)
        for option in ("begin", "stretch", "critic"):
            value = getattr(self, option)
            if value != 1 and not (option == "begin" and value == 0 and not isinstance(value, bool)):
                share(self.name, option, value)
        at_least(self.name, "likelihood", self.likelihood, 0)
        at_least(self.name, "weight", self.weight, 0)
        at_least(self.name, "temperature", self.temperature, 0.01)

    @property
    def modes(self) -> tuple[Mode, ...]:
        return (MODE,)

    @property
    def companions(self) -> tuple[Companion, ...]:
        return (Companion(CRITIC, "critic", share=self.critic),)

    @property
    def profile(self) -> Profile:
        """Averages over training: a written stretch costs the trunk a pass, and a third of one to write it."""
        read = self.stretch * (1 - self.begin)
        (critic,) = self.companions
        more = read * 4 / 3
        return Profile(causal, inputs=1 + more, asked=1 + more,
                       companions=((critic, read, 0.0), (critic, read, 0.0), (critic, read, read)))

    def corrupt(self, window: Window, key: Key) -> Example:
        """The real text; `judged` marks the tokens that the critic reads, and `lot` what the trunk will write there."""
        example = self._left_to_right.corrupt(window, key)
        playing = key.progress >= self.begin and len(example) > 1
        length = min(len(example) - 1, int(np.ceil(self.stretch * len(example)))) if playing else 0
        (own,) = example.asks
        asks = [replace(own, part="likelihood", coefficient=self.likelihood if key.progress >= self.begin else 1.0)]
        if playing:
            # the two sides of the game, which ask nothing of a state: two texts judged, one written
            nothing = np.zeros(0)
            asks += [ask(nothing, nothing, count=2, part=CRITIC, head=CRITIC),
                     ask(nothing, nothing, count=1, part=GENERATOR, head=CRITIC, coefficient=self.weight)]
        places = np.arange(len(example))
        fields = {"judged": torch.from_numpy(((places > 0) & (places <= length)).astype(np.int64)),
                  "lot": torch.from_numpy(lots_of(key, len(example)))}
        return replace(example, asks=tuple(asks), fields={**example.fields, **fields})

    def parts(self, network: Network, example: Example, z_loss: float = 0.0) -> list[Part]:
        # 1. the real text, left to right
        told = replace(example, asks=tuple(one for one in example.asks if one.head == "tokens"))
        states = network(told, only_asked=True).states
        parts = cross_entropy(functools.partial(self.logits, network), states, told, z_loss)
        game = {one.part: one for one in example.asks if one.head == CRITIC}
        if not game:
            return parts
        # 2. what the trunk writes in its place, once as tokens and once with a gradient
        judged, critic = example.fields["judged"] == 1, network.companions[CRITIC]
        fields = _numbered({name: fact[judged] for name, fact in example.fields.items()})
        written = self.write(network, example)
        relaxed = self._relaxed(network, example, written, fields)
        # 3. the critic learns to tell them apart; the trunk learns from a critic that holds still
        real = critic(example.inputs[judged.to(example.inputs.device)], fields)
        wrong = F.softplus(-real.float()).sum() + F.softplus(critic(written, fields).float()).sum()
        still = {name: weight.detach() for name, weight in critic.named_parameters()}
        fooled = F.softplus(-functional_call(critic, still, (relaxed, fields)).float()).sum()
        for part, total in ((CRITIC, wrong), (GENERATOR, fooled)):
            parts.append(Part(part, total, game[part].count, game[part].coefficient))
        return parts

    @torch.no_grad()
    def write(self, network: Network, example: Example) -> Tensor:
        """What the trunk writes at the judged places, each document after its own first token: (J,) ids."""
        trunk: Any = network
        training = trunk.training
        trunk.eval()
        # 1. a row for each document, a column for each place
        judged = example.fields["judged"] == 1
        documents, places = example.fields["document"][judged], example.fields["index"][judged]
        names, rows = torch.unique(documents, return_inverse=True)
        lots = torch.zeros(len(names), int(places.max()), dtype=torch.long)
        lots[rows, places - 1] = example.fields["lot"][judged]
        # 2. token after token
        firsts = torch.searchsorted(example.fields["document"], names)
        tokens = example.inputs[firsts.to(example.inputs.device)]
        cache = trunk.cache(len(names), lots.shape[1])
        columns = []
        for place in range(lots.shape[1]):
            here = torch.full((len(names),), place)
            fields = {"index": here, "position": here, "document": torch.arange(len(names))}
            logits = trunk.logits(trunk(Example(tokens, causal & same_document, fields), cache=cache).states)
            noise = gumbels(lots[:, place].to(logits.device), logits.shape[-1])
            tokens = (logits.double() + noise).argmax(-1)
            columns.append(tokens)
        trunk.train(training)
        return torch.stack(columns, dim=1)[rows.to(tokens.device), (places - 1).to(tokens.device)]

    def _relaxed(self, network: Network, example: Example, written: Tensor, fields: Mapping[str, Tensor]) -> Tensor:
        """The written tokens one-hot, (J, V), with the gradient of the softmax that they were drawn from."""
        soft = torch.softmax(self.noisy(network, example, written, fields) / self.temperature, dim=-1)
        return F.one_hot(written, soft.shape[-1]).to(soft.dtype) + soft - soft.detach()

    def noisy(self, network: Network, example: Example, written: Tensor, fields: Mapping[str, Tensor]) -> Tensor:
        """Logits and noise, (J, V), whose largest sum chose each written token; from one pass over all of them."""
        device = written.device
        # 1. each place is chosen by the state before it: the text moved by one behind each document's first token
        own = fields["document"]
        begins = torch.ones_like(own, dtype=torch.bool)
        begins[1:] = own[1:] != own[:-1]
        before = example.inputs[(torch.nonzero(example.fields["judged"] == 1).squeeze(-1) - 1).to(device)]
        inputs = torch.where(begins.to(device), before, written.roll(1))
        facts = {**fields, "index": fields["index"] - 1, "position": fields["position"] - 1}
        states = network(Example(inputs, causal & same_document, facts)).states
        # 2. the noise it was drawn with
        logits = network.logits(states)
        return logits + gumbels(fields["lot"].to(device), logits.shape[-1]).to(logits.dtype)

    def blank(self, ids: np.ndarray, hidden: np.ndarray, mode: Mode | None = None) -> Example:
        return self._left_to_right.blank(ids, hidden, mode)

    def continuation(self, ids: np.ndarray, mode: Mode | None = None) -> Example:
        return self._left_to_right.continuation(ids, mode)

    @functools.cached_property
    def _left_to_right(self) -> NextToken:
        return NextToken(self.vocabulary)


def _numbered(fields: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same fields with documents numbered 0 to B - 1."""
    return {**fields, "document": torch.unique(fields["document"], return_inverse=True)[1]}
