"""Sentence pairs: masked tokens, and a question about two segments (BERT, arXiv 1810.04805; ALBERT, 1909.11942)."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from bothways.batch import Companion, Example, Key, Vocabulary, Window
from bothways.errors import BothwaysError
from bothways.objectives.base import Mode, Objective, Profile, ask, example
from bothways.objectives.masked import MODE, read_shares, select
from bothways.objectives.noise import replaced
from bothways.objectives.options import choice, flag, need_ordinary, need_tokens, share
from bothways.visibility import bidirectional

QUESTIONS = ("next-sentence", "sentence-order")
PAIR = 43
"""Salt of what is drawn to make a pair: the place of the cut, the other text, and whether anything is wrong."""


class Pair(NamedTuple):
    """Two segments, (A,) and (B,) int64, and whether they are a wrong pair: not neighbours, or in the wrong order."""

    first: np.ndarray
    second: np.ndarray
    wrong: bool


@dataclass(frozen=True)
class SentencePairs(Objective):
    """Mean of -log p(x_k | corrupted pair) over the hidden places k, and of -log p(right or wrong | pair).

    A window is cut in two at the end of a sentence, each such end as likely as any other, and read as `<cls> A <sep> B
    <sep>`; the field `segment` is 0 up to the first `<sep>` and 1 behind it, and has an embedding of its own. The state
    of `<cls>` is asked whether the pair is right (class 0) or wrong (class 1), each half of the time.

    Options:
        asks: "next-sentence" (BERT, section 3.1): a wrong pair has a B from another document. "sentence-order"
            (ALBERT, section 3.1): a wrong pair is the right one with A and B swapped.
        rate, replace, whole_words: as in `masked`; both segments are masked, never `<cls>` and `<sep>`.
    """

    vocabulary: Vocabulary
    asks: Literal["next-sentence", "sentence-order"] = "next-sentence"
    rate: float = 0.15
    replace: str = "80-10-10"
    whole_words: bool = False
    name = "sentence-pairs"
    summary = "hide some tokens of two segments; predict them, and whether the segments belong together"
    source = "Devlin et al. 2018 (BERT), section 3.1, arXiv 1810.04805; Lan et al. 2019 (ALBERT), arXiv 1909.11942"
    decoding = "mask_predict"
    tokens = ("<bos>", "<eos>", "<cls>", "<sep>", "<mask>")

    def __post_init__(self) -> None:
        need_tokens(self.name, self.vocabulary, self.tokens)
        need_ordinary(self.name, self.vocabulary)
        choice(self.name, "asks", self.asks, QUESTIONS)
        share(self.name, "rate", self.rate)
        flag(self.name, "whole_words", self.whole_words)
        read_shares(self.name, self.replace)
        if not self.vocabulary.ends_sentence.any():
            raise BothwaysError(f"objective '{self.name}' cuts texts at the ends of sentences, and this tokenizer has "
                                "no token that ends one (. ! or ?): choose 'masked'")

    @property
    def modes(self) -> tuple[Mode, ...]:
        return (MODE,)

    @property
    def profile(self) -> Profile:
        return Profile(bidirectional, asked=self.rate)

    @property
    def companions(self) -> tuple[Companion, ...]:
        return Companion("segment", "embedding", 2), Companion(self.asks, "classes", 2)

    @property
    def reads_another(self) -> bool:
        return self.asks == "next-sentence"

    @property
    def needs_sentences(self) -> bool:
        return True

    def corrupt(self, window: Window, key: Key) -> Example:
        vocabulary, rng = self.vocabulary, key.rng()
        pair = self.pair(window, key.rng(PAIR))
        # 1. <cls> A <sep> B <sep>; a text too short to be cut has no B and no question
        behind = np.concatenate((pair.second, [vocabulary.sep])) if len(pair.second) else pair.second
        ids = np.concatenate(([vocabulary.cls], pair.first, [vocabulary.sep], behind))
        # 2. hidden tokens
        places = select(ids, vocabulary, self.rate, self.whole_words, rng)
        shares = read_shares(self.name, self.replace)
        corrupted = replaced(ids, places, shares, vocabulary.mask, self._ordinary, rng)
        # 3. what is asked
        asked = [ask(places, ids[places], part="masked")]
        if len(pair.second):
            asked.append(ask(np.zeros(1), np.array([pair.wrong]), part=self.asks, head=self.asks))
        return example(corrupted, bidirectional, asked, raw=len(window.ids),
                       segment=np.arange(len(ids)) > len(pair.first) + 1)

    def blank(self, ids: np.ndarray, hidden: np.ndarray, mode: Mode | None = None) -> Example:
        """One segment, `<cls> text <sep>`. The text's own `<bos>` and `<eos>`, which training never shows, are left
        out unless they are hidden."""
        vocabulary = self.vocabulary
        kept = ~np.isin(ids, (vocabulary.bos, vocabulary.eos)) | hidden
        shown = np.where(hidden, vocabulary.mask, ids)[kept]
        inputs = np.concatenate(([vocabulary.cls], shown, [vocabulary.sep]))
        return example(inputs, bidirectional, [ask(np.flatnonzero(hidden[kept]) + 1, ids[hidden])],
                       segment=np.zeros(len(inputs)))

    def pair(self, window: Window, rng: np.random.Generator) -> Pair:
        """A window cut in two, and made wrong half of the time.

        Neither length nor ending tells which: both orders have the same tokens; and a wrong B is cut to the length
        of the right one, or the right one to its, whichever of the two is shown.

        Raises:
            BothwaysError: next-sentence without a window of another document.
        """
        wrong = bool(rng.random() < 0.5)
        if self.asks == "sentence-order":
            # half a sentence at either end would tell which segment stood there
            body = self._body(window, whole=True)
            first, second = self._cut(body, rng) if len(self._begins(body)) else self._cut(self._body(window), rng)
            return Pair(second, first, wrong) if wrong and len(second) else Pair(first, second, wrong)
        if window.other is None:
            raise BothwaysError("objective 'sentence-pairs': next-sentence takes a wrong sentence from another "
                                "document, but the window came without one: read it through training.data.corrupted, "
                                "or ask for sentence-order")
        body, other = self._body(window), self._body(window.other)
        begins = self._begins(other)
        # both at ends of sentences or both at words: a B that begins in the middle of a sentence would be the wrong one
        by_words = not len(begins) or not len(self._begins(body))
        first, second = self._cut(body, rng, by_words)
        if by_words:
            begins = np.concatenate(([0], self._words(other)))
        roomy = begins[begins <= len(other) - len(second)]
        begin = int(rng.choice(roomy)) if len(roomy) else int(begins[0])
        length = min(len(second), len(other) - begin)
        return Pair(first, other[begin:begin + length] if wrong else second[:length], wrong)

    def _body(self, window: Window, whole: bool = False) -> np.ndarray:
        """A window's ids without `<bos>` and `<eos>`; with `whole`, without half sentences at either end."""
        ids = window.ids
        begins, ends = bool(ids[0] == self.vocabulary.bos), bool(ids[-1] == self.vocabulary.eos)
        body = ids[~np.isin(ids, (self.vocabulary.bos, self.vocabulary.eos))]
        if not whole or window.whole:
            return body
        cuts = np.flatnonzero(self.vocabulary.ends_sentence[body]) + 1
        if not len(cuts):
            return body
        return body[0 if begins else int(cuts[0]):len(body) if ends else int(cuts[-1])]

    def _begins(self, body: np.ndarray) -> np.ndarray:
        """Where sentences begin, but for the first: (S,) int64."""
        return np.flatnonzero(self.vocabulary.ends_sentence[body[:-1]]) + 1

    def _words(self, body: np.ndarray) -> np.ndarray:
        """Where words begin, but for the first: (W,) int64; every place, where no word does."""
        words = np.flatnonzero(self.vocabulary.starts_word[body])
        words = words[words > 0]
        return words if len(words) else np.arange(1, len(body))

    def _cut(self, body: np.ndarray, rng: np.random.Generator, by_words: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """Two segments; a single sentence is cut at the word nearest its middle, and fewer than 2 tokens not at all."""
        begins = self._begins(body)
        if by_words or not len(begins):
            words = self._words(body)
            if not len(words):
                return body, body[:0]
            cut = int(words[np.argmin(np.abs(words - len(body) / 2))])
        else:
            cut = int(rng.choice(begins))
        return body[:cut], body[cut:]

    @functools.cached_property
    def _ordinary(self) -> np.ndarray:
        """The ids a random replacement is drawn from."""
        return np.flatnonzero(~self.vocabulary.special)
