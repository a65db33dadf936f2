"""Span corruption: spans become sentinels, the decoder writes them out (T5, arXiv 1910.10683, section 3.1.4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bothways.batch import Example, Key, Vocabulary, Window
from bothways.errors import BothwaysError
from bothways.objectives.base import Mode, Objective, Profile
from bothways.objectives.next_token import with_begin
from bothways.objectives.noise import composition, inside, runs
from bothways.objectives.options import at_least, flag, need_tokens, share
from bothways.objectives.two_towers import MODE, begun, behind_sentinels, closed, into_blanks, sentinels, spelled_out
from bothways.visibility import causal


@dataclass(frozen=True)
class SpanCorruption(Objective):
    """Sum of -log p(y_k | y_<k, source) over y = sentinel_0 span_0 sentinel_1 span_1 ... <eos>.

    Options:
        rate: share of the tokens in spans.
        mean_span: mean length of a span.
        roll: move the spans round by a random offset (the released code's `random_roll`). Without it, as in the
            paper, a text always ends in a span, and a short one with a single span hides only its end.
    """

    vocabulary: Vocabulary
    rate: float = 0.15
    mean_span: float = 3.0
    roll: bool = False
    name = "span-corruption"
    summary = "replace spans by sentinels; the decoder writes the spans"
    source = "Raffel et al. 2020 (T5), section 3.1.4 and its released code; arXiv 1910.10683"
    stack = "two towers"
    decoding = "infill"
    tokens = ("<bos>", "<eos>", "<extra_0>")

    def __post_init__(self) -> None:
        need_tokens(self.name, self.vocabulary, self.tokens)
        share(self.name, "rate", self.rate)
        at_least(self.name, "mean_span", self.mean_span, 1)
        flag(self.name, "roll", self.roll)

    @property
    def modes(self) -> tuple[Mode, ...]:
        return (MODE,)

    @property
    def profile(self) -> Profile:
        written = self.rate * (1 + 1 / self.mean_span)
        return Profile(causal, inputs=written, asked=written, source_inputs=1 - self.rate + self.rate / self.mean_span)

    def corrupt(self, window: Window, key: Key) -> Example:
        # 1. a document's own <eos> closes the source, and is not hidden
        ids = window.ids[:-1] if window.ids[-1] == self.vocabulary.eos else window.ids
        # 2. spans, and the two texts
        starts, lengths = self._rolled(ids, key.rng()) if self.roll else self.spans(len(ids), key.rng())
        marks = self._sentinels(len(starts), f"a window of {len(window.ids)} tokens")
        return spelled_out(ids, starts, lengths, marks, self.vocabulary, len(window.ids))

    def spans(self, length: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Starts and lengths (S,) of the spans in a text of `length` tokens, as the released code draws them.

        The hidden and the kept tokens are each cut into as many parts, uniformly over all compositions, and the
        parts alternate, beginning with a kept one: the first token is never hidden, the last always.
        """
        if length < 2:
            raise BothwaysError(f"span-corruption hides one token and keeps one, so it needs a text of at least 2 "
                                f"tokens, not {length}: use longer texts")
        noise = min(max(round(length * self.rate), 1), length - 1)
        kept = length - noise
        spans = min(max(1, round(noise / self.mean_span)), kept)
        lengths = composition(noise, spans, rng)
        keeps = composition(kept, spans, rng)
        return np.cumsum(keeps) + np.cumsum(lengths) - lengths, lengths

    def _rolled(self, ids: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Spans moved round over all tokens but `<bos>`; one that is cut by the end becomes two."""
        first = int(ids[0] == self.vocabulary.bos)
        starts, lengths = self.spans(len(ids) - first, rng)
        self._sentinels(len(starts) + 1, f"a window of {len(ids)} tokens, with one span cut by its end,")
        hidden = np.zeros(len(ids) - first, dtype=bool)
        hidden[(inside(starts, lengths) + rng.integers(len(hidden))) % len(hidden)] = True
        starts, ends = runs(hidden)
        return starts + first, ends - starts

    def blank(self, ids: np.ndarray, hidden: np.ndarray, mode: Mode | None = None) -> Example:
        starts, ends = runs(hidden)
        marks = self._sentinels(len(starts), "the question")
        return spelled_out(ids, starts, ends - starts, marks, self.vocabulary, len(ids), contents_only=True)

    def continuation(self, ids: np.ndarray, mode: Mode | None = None) -> Example:
        """The prompt closed by the first sentinel; what it stands for is what comes next."""
        first, eos = self.vocabulary.sentinels[0], self.vocabulary.eos
        return begun(np.concatenate((with_begin(ids, self.vocabulary), [first, eos])), [self.vocabulary.bos, first])

    @property
    def stops(self) -> frozenset[int]:
        return frozenset({self.vocabulary.eos, *self.vocabulary.sentinels[1:2]})

    def infilling(self, ids: np.ndarray, mode: Mode | None = None) -> Example:
        source = closed(with_begin(ids, self.vocabulary), self.vocabulary)
        blanks = np.flatnonzero(source == self.vocabulary.mask)
        source[blanks] = self._sentinels(len(blanks), "the text")
        return begun(source, [self.vocabulary.bos])

    def read_infilling(self, ids: np.ndarray, written: Sequence[int]) -> list[int]:
        """Each blank takes what was written after its sentinel; one that was not written stays empty."""
        return into_blanks(ids, written, self.vocabulary)

    def written_fills(self, ids: np.ndarray, fills: Sequence[Sequence[int]]) -> list[int]:
        return behind_sentinels(fills, self.vocabulary)

    def _sentinels(self, spans: int, what: str) -> np.ndarray:
        return sentinels(spans, self.vocabulary, self.name, what,
                         f"use shorter windows, a lower rate (now {self.rate:g}) or a longer mean_span (now "
                         f"{self.mean_span:g})")
