"""Variational: a text is read into one vector of a few numbers, and written again from that vector alone.

Bowman et al. 2016, arXiv 1511.06349, with Transformers as in Optimus (Li et al. 2020, arXiv 2004.04092).
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from bothways.batch import Companion, Example, Key, Vocabulary, Window
from bothways.errors import BothwaysError
from bothways.objectives.base import Mode, Network, Objective, Output, Part, Profile, ask
from bothways.objectives.loss import cross_entropy
from bothways.objectives.lots import lots_of
from bothways.objectives.next_token import with_begin
from bothways.objectives.options import at_least, need_tokens, whole
from bothways.objectives.two_towers import begun, taught
from bothways.visibility import causal

MODE = Mode("from the latent", causal, predicts="next", likelihood="exact")
LATENT, KL = "latent", "kl"
ANNEAL, FREE_BITS = 0.5, 0.0


@dataclass(frozen=True)
class Variational(Objective):
    """-log p(x) <= -E over z ~ q(z|x) of log p(x|z) + KL(q(z|x) || p(z)), p(z) standard normal; both over the tokens.

    The encoder reads the text and gives mean and variance of z; the decoder sees z and what it has written, and nothing
    else of the text. z is drawn by the lots that the text carries, so a loss can be repeated.

    Options:
        size: numbers of z.
        kl: weight of the KL part at the end of training; 0 makes a plain autoencoder, without variance and noise.
        anneal: share of training over which that weight rises evenly from 0 (0.5 unless given), or else the decoder
            learns to do without z before z says anything (section 3.1 of the paper).
        free_bits: nats of each number of z that are not pressed down any further (0 unless given; arXiv 1606.04934).
            The loss still counts them, so it stays a bound.
        word_dropout: share of the tokens that the decoder reads as `<unk>`, so that it has to ask z.
    """

    vocabulary: Vocabulary
    size: int = 32
    kl: float = 1.0
    anneal: float | None = None
    free_bits: float | None = None
    word_dropout: float = 0.0
    name = "variational"
    summary = "read a text into one small random vector, and write the text again from that vector alone"
    source = "Bowman et al. 2016, section 3; arXiv 1511.06349"
    stack = "two towers"
    decoding = "left_to_right"
    tokens = ("<bos>", "<eos>", "<unk>")

    def __post_init__(self) -> None:
        need_tokens(self.name, self.vocabulary, self.tokens)
        whole(self.name, "size", self.size, 1)
        at_least(self.name, "kl", self.kl, 0)
        for option, usual in (("anneal", ANNEAL), ("free_bits", FREE_BITS)):
            given = getattr(self, option)
            if self.kl == 0 and given is not None:
                raise BothwaysError(f"objective 'variational': {option} is {given!r}, but kl is 0, which leaves no KL "
                                    f"part to change: leave {option} out or raise kl")
            if self.kl:
                object.__setattr__(self, option, at_least(self.name, option, usual if given is None else given, 0))
        at_least(self.name, "word_dropout", self.word_dropout, 0)
        for option in ("anneal", "word_dropout"):
            if (getattr(self, option) or 0) > 1:
                raise BothwaysError(f"objective 'variational': {option} is {getattr(self, option)!r}, but a share is "
                                    "at most 1")

    @property
    def modes(self) -> tuple[Mode, ...]:
        return (MODE,)

    @property
    def companions(self) -> tuple[Companion, ...]:
        return (Companion(LATENT, "latent" if self.kl else "plain latent", self.size),)

    @property
    def profile(self) -> Profile:
        return Profile(causal, source_inputs=1.0)

    def corrupt(self, window: Window, key: Key) -> Example:
        example = self._read_again(window.ids, window.ids)
        inputs = example.inputs
        # 1. what the decoder reads of what it should have written
        if self.word_dropout:
            dropped = key.rng().random(len(inputs)) < self.word_dropout
            dropped[:1] = False
            inputs = inputs.masked_fill(torch.from_numpy(dropped), self.vocabulary.ids["<unk>"])
        (own,) = example.asks
        own = replace(own, part="reconstruction")
        if not self.kl:
            return replace(example, inputs=inputs, asks=(own,))
        # 2. the KL part, which asks nothing of any state; and one lot for the text, on both sides
        weight = self.kl * (min(1.0, key.progress / self.anneal) if self.anneal else 1.0)
        other = ask(np.zeros(0), np.zeros(0), count=own.count, part=KL, head=LATENT, coefficient=weight)
        lot, source = int(lots_of(key, 1)[0]), example.source
        assert source is not None
        fields = {side: {**one.fields, "lot": torch.full((len(one),), lot)} for side, one in
                  (("target", example), ("source", source))}
        return replace(example, inputs=inputs, fields=fields["target"], asks=(own, other),
                       source=replace(source, fields=fields["source"]))

    def loss(self, network: Network, output: Output, example: Example, z_loss: float = 0.0) -> list[Part]:
        parts = cross_entropy(functools.partial(self.logits, network), output.states, replace(
            example, asks=tuple(one for one in example.asks if one.head != LATENT)), z_loss)
        extras: dict[str, Tensor] = getattr(output, "extras", {})
        for one in example.asks:
            if one.head == LATENT:
                nats = divergence(extras["mean"], extras["log_variance"])
                if self.free_bits:
                    nats = torch.where(nats > self.free_bits, nats, nats.detach())
                parts.append(Part(one.part, nats.sum(), one.count, one.coefficient))
        return parts

    def blank(self, ids: np.ndarray, hidden: np.ndarray, mode: Mode | None = None) -> Example:
        """The encoder reads the tokens that are not hidden, without a trace of the others; z is its mean."""
        example = self._read_again(ids[~hidden] if not hidden.all() else np.array([self.vocabulary.bos]), ids)
        first = len(ids) - int(example.asks[0].count)
        where = np.flatnonzero(hidden[first:])
        return replace(example, asks=(ask(where, ids[first:][where]),))

    def continuation(self, ids: np.ndarray, mode: Mode | None = None) -> Example:
        """Written on from the prompt's own z; the decoder has written the prompt."""
        prompt = with_begin(ids, self.vocabulary)
        return begun(prompt, prompt)

    def infilling(self, ids: np.ndarray, mode: Mode | None = None) -> Example:
        raise BothwaysError("a model trained by 'variational' writes whole texts from its latent and fills no blanks: "
                            "continue a prompt, or `interpolate` between two texts")

    def _read_again(self, source: np.ndarray, target: Sequence[int] | np.ndarray) -> Example:
        """The encoder reads `source`; the decoder is asked for the whole target behind a `<bos>` of its own."""
        target = np.asarray(target, dtype=np.int64)
        target = target[int(len(target) and target[0] == self.vocabulary.bos):]
        return taught(source, target, np.ones(len(target), bool), self.vocabulary.bos, len(source))


def divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(mean, variance) || N(0, 1)) of each number, in nats and float32: same shape as both."""
    mean, log_variance = mean.float(), log_variance.float()
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance)
