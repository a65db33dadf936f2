"""Autoregressive blank infilling: spans are written behind the text they were cut from (GLM, arXiv 2103.10360)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from bothways.batch import Ask, Companion, Example, Key, Vocabulary, Window
from bothways.errors import BothwaysError
from bothways.objectives.base import Mode, Objective, Profile, ask, example
from bothways.objectives.next_token import with_begin
from bothways.objectives.noise import BRONZE, collapse, place_spans, poisson_lengths, runs, spread, stochastic_round
from bothways.objectives.options import at_least, choice, need_tokens, share
from bothways.visibility import prefix

MODE = Mode("prefix", prefix, predicts="next", likelihood="exact")
LEVELS = ("token", "sentence", "document")
LEVEL = 29
"""Salt of the sequence that picks levels."""


@dataclass(frozen=True)
class GLM(Objective):
    """Sum over spans s in random order of -log p(s, end | part A, earlier spans)  (section 2.1, eq. 1 and 2).

    Part A is the text with one `<mask>` for each span and sees itself both ways. Part B is the spans in random order,
    each begun by <sep> and ended by <eos>, or by <sop> and <eop> where the tokenizer has those (the published GLM's);
    it sees part A and what stands before it, earlier spans included.
    <bos> and <eos> of the text are never hidden.

    Options:
        levels: what is hidden; a window goes to one of those named, in equal shares over an epoch. "token": spans of
            lengths Poisson(`mean_span`), without zeros, up to `rate` of the tokens. "sentence": whole sentences up to
            `rate`. "document": one span of 50% to 100% of the text.
        rate, mean_span: of the two.
        places: "two": a token of part B has the place of its `<mask>` in part A, and in the field `span` its number
            in the span from 1 (0 in part A), which the network learns a vector for. "one": places go on from the
            `<mask>`'s, and nothing is added to the network. Either way no place tells how long a span is.
        longest: with two places, how many numbers in a span the network learns, its beginning included.
    """

    vocabulary: Vocabulary
    levels: tuple[str, ...] = ("token", "document")
    rate: float = 0.15
    mean_span: float = 3.0
    places: Literal["two", "one"] = "two"
    longest: int = 1024
    name = "glm"
    summary = "replace spans by one <mask> each; write them in random order behind the text"
    source = "Du et al. 2021 (GLM), section 2; arXiv 2103.10360"
    decoding = "infill"
    tokens = ("<bos>", "<eos>", "<mask>", "<sep>")

    def __post_init__(self) -> None:
        need_tokens(self.name, self.vocabulary, [token for token in self.tokens if token != "<sep>" or not self._own])
        levels = (self.levels,) if isinstance(self.levels, str) else tuple(self.levels)
        if not levels or len(set(levels)) < len(levels):
            raise BothwaysError(f"objective '{self.name}': levels is {self.levels!r}, but must name each level once: "
                                f"{', '.join(LEVELS)}")
        object.__setattr__(self, "levels", tuple(choice(self.name, "levels", level, LEVELS) for level in levels))
        share(self.name, "rate", self.rate)
        at_least(self.name, "mean_span", self.mean_span, 1)
        if self.needs_sentences and not self.vocabulary.ends_sentence.any():
            raise BothwaysError(f"objective '{self.name}': the level 'sentence' hides whole sentences, and this "
                                "tokenizer has no token that ends one (. ! or ?): leave it out of levels")
        choice(self.name, "places", self.places, ("two", "one"))
        if isinstance(self.longest, bool) or not isinstance(self.longest, int) or self.longest < 2:
            raise BothwaysError(f"objective '{self.name}': longest is {self.longest!r}, but must be a whole number of "
                                "at least 2")

    @property
    def _own(self) -> bool:
        """Whether spans have a beginning and an end of their own."""
        return "<sop>" in self.vocabulary.ids and "<eop>" in self.vocabulary.ids

    @property
    def begin(self) -> int:
        """The id that begins a span."""
        return self.vocabulary.ids["<sop>"] if self._own else self.vocabulary.sep

    @property
    def answer_end(self) -> int:
        return self.vocabulary.ids["<eop>"] if self._own else self.vocabulary.eos

    @property
    def stops(self) -> frozenset[int]:
        return frozenset({self.answer_end})

    @property
    def modes(self) -> tuple[Mode, ...]:
        return (MODE,)

    @property
    def companions(self) -> tuple[Companion, ...]:
        """The vectors of the second place, added to the tokens'; part A has the first of them."""
        return (Companion("span", "embedding", self.longest + 1),) if self.places == "two" else ()

    @property
    def profile(self) -> Profile:
        # a level's hidden share, and its spans for each token; a sentence is taken to have 20
        mean = self.mean_span / (1 - np.exp(-self.mean_span))
        known = {"token": (self.rate, self.rate / mean), "sentence": (self.rate, self.rate / 20), "document": (0.75, 0)}
        hidden, spans = np.mean([known[level] for level in self.levels], axis=0)
        return Profile(prefix, inputs=float(1 + 2 * spans), asked=float(hidden + spans))

    @property
    def needs_sentences(self) -> bool:
        return "sentence" in self.levels

    def level(self, key: Key) -> str:
        """The level of this window in this epoch."""
        return self.levels[int(spread(key, BRONZE, LEVEL) * len(self.levels))]

    def corrupt(self, window: Window, key: Key) -> Example:
        ids, rng = window.ids, key.rng()
        first = int(ids[0] == self.vocabulary.bos)
        last = len(ids) - int(len(ids) > first and ids[-1] == self.vocabulary.eos)
        if last <= first:
            raise BothwaysError(f"{self.name} needs a text of at least 1 token besides <bos> and <eos>")
        starts, lengths = self.spans(ids[first:last], self.level(key), rng)
        return self.laid_out(ids, starts + first, lengths, rng.permutation(len(starts)))

    def spans(self, ids: np.ndarray, level: str, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Starts and lengths (S,) of the hidden spans of a text, in order of place; at least one token is hidden."""
        length = len(ids)
        if level == "document":
            size = max(1, round(length * (0.5 + 0.5 * rng.random())))
            return np.array([rng.integers(0, length - size + 1)]), np.array([size])
        if level == "sentence":
            starts = np.concatenate(([0], np.flatnonzero(self.vocabulary.ends_sentence[ids[:-1]]) + 1))
            lengths = np.diff(np.append(starts, length))
            # sentences in random order until the share is reached, the last of them included
            order = rng.permutation(len(starts))
            chosen = np.sort(order[:int(np.searchsorted(np.cumsum(lengths[order]), self.rate * length)) + 1])
            return starts[chosen], lengths[chosen]
        hidden = max(1, stochastic_round(length * self.rate, rng))
        lengths = poisson_lengths(hidden, self.mean_span, rng)
        return place_spans(length - hidden, lengths[lengths > 0], rng)

    def blank(self, ids: np.ndarray, hidden: np.ndarray, mode: Mode | None = None) -> Example:
        """Each run of hidden tokens is a span, written from left to right; their ends are not asked for.

        A hidden `<eos>` at the end of the text is the end of the last span, which may hold no other token.
        """
        ended = len(ids) > 0 and bool(hidden[-1]) and int(ids[-1]) == self.vocabulary.eos
        starts, ends = runs(hidden[:-1] if ended else hidden)
        if ended and (not len(ends) or ends[-1] < len(ids) - 1):
            starts, ends = np.append(starts, len(ids) - 1), np.append(ends, len(ids) - 1)
        return self.laid_out(ids, starts, ends - starts, np.arange(len(starts)), "last" if ended else "none")

    def continuation(self, ids: np.ndarray, mode: Mode | None = None) -> Example:
        """The prompt, a `<mask>` for the rest of the text, and the text's end."""
        prompt = with_begin(ids, self.vocabulary)
        return self._begun(np.concatenate((prompt, [self.vocabulary.mask, self.vocabulary.eos])), len(prompt))

    def infilling(self, ids: np.ndarray, mode: Mode | None = None) -> Example:
        """The first blank is written; the others stay in part A, and are written in their turn."""
        text = with_begin(ids, self.vocabulary)
        if text[-1] != self.vocabulary.eos:
            text = np.append(text, self.vocabulary.eos)
        return self._begun(text, int(np.flatnonzero(text == self.vocabulary.mask)[0]))

    def read_infilling(self, ids: np.ndarray, written: Sequence[int]) -> list[int]:
        """The text with its first blank filled."""
        span = [int(token) for token in written]
        span = span[:span.index(self.answer_end)] if self.answer_end in span else span
        place = int(np.flatnonzero(np.asarray(ids) == self.vocabulary.mask)[0])
        return [*map(int, ids[:place]), *span, *map(int, ids[place + 1:])]

    def written_fills(self, ids: np.ndarray, fills: Sequence[Sequence[int]]) -> list[int]:
        return [*map(int, fills[0]), self.answer_end]

    def _begun(self, text: np.ndarray, place: int) -> Example:
        """Part A, and the beginning of the span whose `<mask>` stands at `place`."""
        inputs = np.append(text, self.begin)
        numbers = np.append(np.zeros(len(text), np.int64), 1)
        return self._placed(inputs, np.append(np.arange(len(text)), place), numbers, (), len(text))

    def laid_out(self, ids: np.ndarray, starts: np.ndarray, lengths: np.ndarray, order: np.ndarray,
                 ends: Literal["all", "last", "none"] = "all") -> Example:
        """Part A, then the spans in this order; of their ends, those are asked for that `ends` says."""
        part_a = collapse(ids, starts, lengths, np.full(len(starts), self.vocabulary.mask))
        # 1. a span's <mask> stands in part A as far before its own place as the spans before it shrank
        masks = (starts - (np.cumsum(lengths - 1) - (lengths - 1)))[order]
        starts, lengths = starts[order], lengths[order]
        # 2. part B: of the span i there are <sep> and lengths[i] tokens, asked for the tokens and the end
        sizes = lengths + 1
        begins = np.cumsum(sizes) - sizes
        numbers = np.arange(sizes.sum()) - np.repeat(begins, sizes)
        closed = np.append(ids, self.answer_end)
        places = np.repeat(starts, sizes) + numbers
        inputs = np.where(numbers == 0, self.begin, closed[np.maximum(places - 1, 0)])
        is_end = numbers == np.repeat(lengths, sizes)
        targets = np.where(is_end, self.answer_end, closed[places])
        # 3. what is asked
        wanted = np.full(len(targets), ends == "all") | ~is_end
        wanted[-1:] |= ends == "last"
        where = np.flatnonzero(wanted)
        asks = [ask(len(part_a) + where, targets[where])]
        return self._placed(np.concatenate((part_a, inputs)),
                            np.concatenate((np.arange(len(part_a)), np.repeat(masks, sizes))),
                            np.concatenate((np.zeros(len(part_a), np.int64), numbers + 1)), asks, len(ids))

    def _placed(self, inputs: np.ndarray, places: np.ndarray, numbers: np.ndarray, asks: Sequence[Ask],
                raw: int) -> Example:
        """The Example with its places, one number or two for each token."""
        if self.places == "two" and numbers.max(initial=0) > self.longest:
            raise BothwaysError(f"objective '{self.name}': a span of {numbers.max() - 1} tokens has more places than "
                                f"longest {self.longest}: raise it before training, or use shorter texts")
        one = places + np.maximum(numbers - 1, 0)
        facts = {"position": places, "span": numbers} if self.places == "two" else {"position": one}
        return example(inputs, prefix, asks, raw=raw, prefix=numbers == 0, **facts)
