"""Spans: stretches of whole words are hidden, and each of their tokens is asked for where it stands and once more from
the two tokens around its span (SpanBERT, arXiv 1907.10529)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from bothways.batch import Ask, Companion, Example, Key, Vocabulary, Window
from bothways.objectives.base import Mode, Network, Objective, Output, Part, Profile, ask, example
from bothways.objectives.loss import cross_entropy, token_losses
from bothways.objectives.masked import read_shares
from bothways.objectives.noise import geometric_lengths, inside, place_spans, replaced, stochastic_round
from bothways.objectives.options import at_least, need_ordinary, need_tokens, share, whole
from bothways.visibility import bidirectional

MODE = Mode("bidirectional", bidirectional, predicts="here", likelihood="pseudo")
LEFT, RIGHT = "boundary", "boundary/right"
"""The heads of the two Asks at the tokens before and after a span; the first is the companion's name and its part."""
PLACES = 20
"""Places inside a span that have a vector of their own; later tokens share the last (the released code asks for 20)."""


@dataclass(frozen=True)
class Spans(Objective):
    """Masked loss of the hidden tokens + weight * loss of the same tokens from their span's boundary (eq. 1 to 3).

    Spans are drawn until a share `rate` of the words is hidden. Their lengths in words are geometric(0.2) cut off at 10
    and scaled to add up to 1, so 3.8 on average (section 3.1); in a text so short that fewer words are to be hidden, no
    span is longer than that. Spans do not touch, and a token stands before and after each. What replaces a span
    replaces all its tokens.

    Options:
        rate: share of the words hidden.
        ends: probability that a span ends after each of its words.
        longest: words of the longest span.
        replace: what stands in a span, as percentages `<mask>`-random-unchanged, or "all" for `<mask>` in every one.
        boundary: weight of the boundary's part; 0 leaves it out, and its network.
    """

    vocabulary: Vocabulary
    rate: float = 0.15
    ends: float = 0.2
    longest: int = 10
    replace: str = "80-10-10"
    boundary: float = 1.0
    name = "spans"
    summary = "hide spans of whole words; predict each token where it stands, and again from the tokens around its span"
    source = "Joshi et al. 2019 (SpanBERT), section 3; arXiv 1907.10529"
    decoding = "mask_predict"
    tokens = ("<bos>", "<eos>", "<mask>")

    def __post_init__(self) -> None:
        need_tokens(self.name, self.vocabulary, self.tokens)
        need_ordinary(self.name, self.vocabulary)
        share(self.name, "rate", self.rate)
        share(self.name, "ends", self.ends)
        whole(self.name, "longest", self.longest, 1)
        at_least(self.name, "boundary", self.boundary, 0)
        read_shares(self.name, self.replace)

    @property
    def modes(self) -> tuple[Mode, ...]:
        return (MODE,)

    @property
    def companions(self) -> tuple[Companion, ...]:
        return (Companion(LEFT, "boundary", PLACES),) if self.boundary else ()

    @property
    def profile(self) -> Profile:
        """With a boundary, twice as many logits are computed as tokens are hidden."""
        asked = self.rate * (2 if self.boundary else 1)
        return Profile(bidirectional, asked=asked, companions=tuple((one, 0.0, self.rate) for one in self.companions))

    def corrupt(self, window: Window, key: Key) -> Example:
        ids, rng = window.ids, key.rng()
        starts, lengths = self.spans(ids, rng)
        # 1. each span is replaced as one
        number = np.repeat(np.arange(len(starts)), lengths)
        places = inside(starts, lengths)
        ordinary = np.flatnonzero(~self.vocabulary.special)
        shares = read_shares(self.name, self.replace)
        corrupted = replaced(ids, places, shares, self.vocabulary.mask, ordinary, rng, number)
        # 2. each token is asked for where it stands; its boundary is two Asks, whose targets are in the same order
        asks = [ask(places, ids[places], part="masked")]
        if self.boundary:
            asks += [ask((starts - 1)[number], ids[places], part=LEFT, head=LEFT, coefficient=self.boundary),
                     ask((starts + lengths)[number], ids[places], count=0, part=RIGHT, head=RIGHT,
                         coefficient=self.boundary)]
        return example(corrupted, bidirectional, asks)

    def spans(self, ids: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Starts and lengths of the hidden spans in tokens: two (S,) int64 arrays, in rising order."""
        # 1. words that may be hidden: not the first and last token, so that every span has both its neighbours
        able = ~self.vocabulary.special[ids]
        able[:1] = able[-1:] = False
        candidates = np.flatnonzero(able)
        if not len(candidates):
            return candidates, candidates
        inside = np.arange(candidates[0], candidates[-1] + 1)
        begins = self.vocabulary.starts_word[ids[inside]] | (np.diff(able[inside], prepend=~able[inside[:1]]) != 0)
        begins |= ~able[inside]
        edges = np.append(inside[begins], inside[-1] + 1)
        words = len(edges) - 1
        # 2. lengths in words, and gaps for them
        wanted = max(1, stochastic_round(self.rate * words, rng))
        lengths = geometric_lengths(wanted, self.ends, min(self.longest, wanted), rng)
        lengths = lengths[np.cumsum(lengths + 1) <= words + 1]
        starts, lengths = place_spans(words - int(lengths.sum()), lengths, rng)
        # 3. in tokens, without those that would hide a reserved one
        ends = edges[starts + lengths]
        starts = edges[starts]
        barred = np.concatenate(([0], np.cumsum(~able)))
        free = barred[ends] == barred[starts]
        return starts[free], (ends - starts)[free]

    def loss(self, network: Network, output: Output, example: Example, z_loss: float = 0.0) -> list[Part]:
        by_head: Mapping[str, Ask] = {one.head: one for one in example.asks}
        own = replace(example, asks=tuple(one for one in example.asks if one.head == "tokens"))
        parts = cross_entropy(network.logits, output.states, own, z_loss)
        if LEFT not in by_head:
            return parts
        # the states around each span and the place in it, read off where the three Asks point
        left, right, inside = by_head[LEFT], by_head[RIGHT], by_head["tokens"]
        around = [output.states.index_select(0, one.where) for one in (left, right)]
        states = network.companions[LEFT](*around, inside.where - left.where - 1)
        nll, z = token_losses(network.logits(states), left.targets, None, z_loss > 0)
        parts.append(Part(left.part, nll, left.count, left.coefficient))
        if z_loss > 0:
            parts.append(Part(f"{left.part}/z", z, float(len(left.targets)), z_loss * left.coefficient))
        return parts

    def blank(self, ids: np.ndarray, hidden: np.ndarray, mode: Mode | None = None) -> Example:
        """As a masked model is asked: every token where it stands."""
        return example(np.where(hidden, self.vocabulary.mask, ids), bidirectional,
                       [ask(np.flatnonzero(hidden), ids[hidden])])
