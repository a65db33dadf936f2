"""Span corruption: spans become sentinels, the decoder writes them out (T5, arXiv 1910.10683, section 3.1.4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bothways.batch import Example, Key, Vocabulary, Window
from bothways.errors import BothwaysError
from bothways.objectives.base import Mode, Objective, Profile, ask, example
from bothways.objectives.next_token import with_begin
from bothways.objectives.noise import collapse, composition, runs
from bothways.objectives.options import at_least, flag, need_tokens, share
from bothways.visibility import bidirectional, causal

MODE = Mode("encoder-decoder", causal, predicts="next", likelihood="exact")


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
        return self._example(ids, starts, lengths, marks, len(window.ids))

    def spans(self, length: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Starts and lengths (S,) of the spans in a text of `length` tokens, as the released code draws them.

        The hidden and the kept tokens are each cut into as many parts, uniformly over all compositions, and the
        parts alternate, beginning with a kept one: the first token is never hidden, the last always.
        """
        if length < 2:
            raise BothwaysError(f"span-corruption needs a text of at least 2 tokens, not {length}")
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
        hidden = np.zeros(len(ids) - first, dtype=bool)
        hidden[np.arange(lengths.sum()) + np.repeat(starts - np.cumsum(lengths) + lengths, lengths)] = True
        starts, ends = runs(np.roll(hidden, rng.integers(len(hidden))))
        return starts + first, ends - starts

    def blank(self, ids: np.ndarray, hidden: np.ndarray, mode: Mode | None = None) -> Example:
        starts, ends = runs(hidden)
        marks = self._sentinels(len(starts), "the question")
        return self._example(ids, starts, ends - starts, marks, len(ids), contents_only=True)

    def continuation(self, ids: np.ndarray, mode: Mode | None = None) -> Example:
        """The prompt closed by the first sentinel; what it stands for is what comes next."""
        first, eos = self.vocabulary.sentinels[0], self.vocabulary.eos
        source = np.concatenate((with_begin(ids, self.vocabulary), [first, eos]))
        return example(np.array([self.vocabulary.bos, first]), causal, source=example(source, bidirectional),
                       cross=bidirectional)

    @property
    def stops(self) -> frozenset[int]:
        return frozenset({self.vocabulary.eos, *self.vocabulary.sentinels[1:2]})

    def infilling(self, ids: np.ndarray, mode: Mode | None = None) -> Example:
        source = _closed(with_begin(ids, self.vocabulary), self.vocabulary)
        blanks = np.flatnonzero(source == self.vocabulary.mask)
        source[blanks] = self._sentinels(len(blanks), "the text")
        return example(np.array([self.vocabulary.bos]), causal, source=example(source, bidirectional),
                       cross=bidirectional)

    def read_infilling(self, ids: np.ndarray, written: Sequence[int]) -> list[int]:
        """Each blank takes what was written after its sentinel; one that was not written stays empty."""
        sentinels = {token: i for i, token in enumerate(self.vocabulary.sentinels)}
        fills: dict[int, list[int]] = {}
        current: list[int] = []
        for token in written:
            if token == self.vocabulary.eos:
                break
            if token in sentinels:
                current = fills.setdefault(sentinels[token], [])
            else:
                current.append(int(token))
        filled: list[int] = []
        blank = 0
        for token in ids:
            if token == self.vocabulary.mask:
                filled += fills.get(blank, [])
                blank += 1
            else:
                filled.append(int(token))
        return filled

    def _sentinels(self, spans: int, what: str) -> np.ndarray:
        if spans > len(self.vocabulary.sentinels):
            raise BothwaysError(f"span-corruption: {what} has {spans} spans, but the tokenizer has only "
                                f"{len(self.vocabulary.sentinels)} sentinels: use shorter windows, a lower rate "
                                f"(now {self.rate:g}) or a longer mean_span (now {self.mean_span:g})")
        return np.array(self.vocabulary.sentinels[:spans], dtype=np.int64)

    def _example(self, ids: np.ndarray, starts: np.ndarray, lengths: np.ndarray, marks: np.ndarray, raw: int,
                 contents_only: bool = False) -> Example:
        """Source with sentinels; decoder inputs `<bos>` and the target moved by one; every target asked."""
        source = _closed(collapse(ids, starts, lengths, marks), self.vocabulary)
        # 1. the target: each sentinel before its span
        total = int(lengths.sum())
        offsets = np.cumsum(lengths) - lengths
        spanned = ids[np.arange(total) + np.repeat(starts - offsets, lengths)]
        target = np.concatenate((np.insert(spanned, offsets, marks), [self.vocabulary.eos]))
        # 2. what is asked: all of it, or the contents of the spans without the sentinels and the closing
        where = np.arange(len(target))
        if contents_only:
            where = np.delete(where[:-1], offsets + np.arange(len(marks)))
        inputs = np.concatenate(([self.vocabulary.bos], target[:-1]))
        return example(inputs, causal, [ask(where, target[where])], example(source, bidirectional), bidirectional, raw)


def _closed(ids: np.ndarray, vocabulary: Vocabulary) -> np.ndarray:
    """A copy that ends in `<eos>`."""
    return ids.copy() if len(ids) and ids[-1] == vocabulary.eos else np.concatenate((ids, [vocabulary.eos]))
