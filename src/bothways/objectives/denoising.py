"""Denoising: rebuild the whole text from a noised one (BART, arXiv 1910.13461, section 2.2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bothways.batch import Example, Key, Vocabulary, Window
from bothways.objectives.base import Mode, Objective, Profile, ask, example
from bothways.objectives.next_token import with_begin
from bothways.objectives.noise import collapse, place_spans, poisson_lengths, runs, stochastic_round
from bothways.objectives.options import at_least, flag, need_tokens, share
from bothways.visibility import bidirectional, causal

MODE = Mode("encoder-decoder", causal, predicts="next", likelihood="exact")


@dataclass(frozen=True)
class Denoising(Objective):
    """Sum of -log p(x_k | x_<k, noised x) over the whole original text x.

    Options:
        rate: share of the tokens hidden by text infilling.
        mean_span: span lengths are Poisson with this mean; each span is one `<mask>`, and one of length 0 inserts a
            `<mask>` where nothing is missing.
        permute_sentences: put the sentences in random order first.
    """

    vocabulary: Vocabulary
    rate: float = 0.3
    mean_span: float = 3.0
    permute_sentences: bool = True
    name = "denoising"
    summary = "blank out spans and shuffle sentences; the decoder writes the whole text"
    source = "Lewis et al. 2019 (BART), section 2.2; arXiv 1910.13461"
    stack = "two towers"
    decoding = "infill"
    tokens = ("<bos>", "<eos>", "<mask>")

    def __post_init__(self) -> None:
        need_tokens(self.name, self.vocabulary, self.tokens)
        share(self.name, "rate", self.rate)
        at_least(self.name, "mean_span", self.mean_span, 1)
        flag(self.name, "permute_sentences", self.permute_sentences)

    @property
    def modes(self) -> tuple[Mode, ...]:
        return (MODE,)

    @property
    def profile(self) -> Profile:
        return Profile(causal, source_inputs=1 - self.rate + self.rate / self.mean_span)

    def corrupt(self, window: Window, key: Key) -> Example:
        ids, rng = window.ids, key.rng()
        # 1. <bos> and <eos> stay where they are
        first = int(ids[0] == self.vocabulary.bos)
        last = len(ids) - int(ids[-1] == self.vocabulary.eos)
        body = ids[first:last]
        # 2. sentences in random order, then spans behind masks
        if self.permute_sentences:
            body = self.shuffled(body, rng)
        body = self.infilled(body, rng)
        return self._example(np.concatenate((ids[:first], body, ids[last:])), ids, np.ones(len(ids), bool))

    def shuffled(self, ids: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """The sentences of a text in random order; what follows the last sentence end counts as a sentence."""
        ends = np.flatnonzero(self.vocabulary.ends_sentence[ids[:-1]]) + 1
        if not len(ends):
            return ids
        sentences = np.split(ids, ends)
        return np.concatenate([sentences[i] for i in rng.permutation(len(sentences))])

    def infilled(self, ids: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Text infilling: spans that do not touch, each behind one `<mask>`."""
        noise = stochastic_round(len(ids) * self.rate, rng)
        if not noise:
            return ids
        lengths = poisson_lengths(noise, self.mean_span, rng)
        starts, lengths = place_spans(len(ids) - noise, lengths, rng)
        return collapse(ids, starts, lengths, np.full(len(starts), self.vocabulary.mask))

    def blank(self, ids: np.ndarray, hidden: np.ndarray, mode: Mode | None = None) -> Example:
        starts, ends = runs(hidden)
        source = collapse(ids, starts, ends - starts, np.full(len(starts), self.vocabulary.mask))
        return self._example(source, ids, hidden)

    def continuation(self, ids: np.ndarray, mode: Mode | None = None) -> Example:
        """The prompt and a `<mask>` for what follows; the decoder has written the prompt already."""
        prompt = with_begin(ids, self.vocabulary)
        source = np.concatenate((prompt, [self.vocabulary.mask]))
        return example(prompt, causal, source=example(source, bidirectional), cross=bidirectional)

    def infilling(self, ids: np.ndarray, mode: Mode | None = None) -> Example:
        source = with_begin(ids, self.vocabulary)
        if source[-1] != self.vocabulary.eos:
            source = np.concatenate((source, [self.vocabulary.eos]))
        return example(np.array([self.vocabulary.bos]), causal, source=example(source, bidirectional),
                       cross=bidirectional)

    def read_infilling(self, ids: np.ndarray, written: Sequence[int]) -> list[int]:
        """The decoder wrote the whole text, so it is the answer, up to its `<eos>`."""
        tokens = [int(token) for token in written]
        return tokens[:tokens.index(self.vocabulary.eos)] if self.vocabulary.eos in tokens else tokens

    def _example(self, source: np.ndarray, target: np.ndarray, asked: np.ndarray) -> Example:
        """Decoder inputs are the target moved by one behind `<bos>`; a `<bos>` of its own serves as that one."""
        raw = len(target)
        if target[0] == self.vocabulary.bos:
            target, asked = target[1:], asked[1:]
        inputs = np.concatenate(([self.vocabulary.bos], target[:-1]))
        where = np.flatnonzero(asked)
        return example(inputs, causal, [ask(where, target[where])], example(source, bidirectional), bidirectional, raw)
