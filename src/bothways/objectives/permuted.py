"""Permuted: tokens are predicted in a random order of the places they keep (XLNet, arXiv 1906.08237, section 2)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from bothways.batch import Example, Key, Vocabulary, Window
from bothways.objectives.base import Mode, Objective, Profile, ask, example
from bothways.objectives.noise import inside, spans_in_context, stochastic_round
from bothways.objectives.options import at_least, flag, need_tokens, whole
from bothways.visibility import two_streams

ANY_ORDER = Mode("any-order", two_streams, predicts="here", likelihood="pseudo")
LEFT_TO_RIGHT = Mode("left-to-right", two_streams, predicts="here", likelihood="exact")


@dataclass(frozen=True)
class Permuted(Objective):
    """E over orders z of the sum over t > c of -log p(x_z(t) | x_z(<t))  (eq. 3 and 5).

    Two streams lie in one row. A content row (part 0) holds a token and sees contents of its own rank in the order or
    a lower one. A query row (part 1) holds `<mask>` at the place it asks for and sees contents of lower rank only: it
    knows where, not what. Nobody sees a query. Query rows exist only where something is asked. Positions are those of
    the text.

    Options:
        k: one token in `k` is asked for, the last ones of the order (the paper's partial prediction, K = 6); 1 asks
            for all of them.
        longest: the longest run of tokens that is asked for together: 1 takes every token for itself, 5 is the paper's
            (section 3.1). Lengths n come with chances in proportion to 1/n, each run among `k` * n tokens that are not
            asked for; what is missing from one token in `k` is made up by single ones, as in the released code.
        ordered_context: tokens that are not asked for also see only those before them in the order, as eq. 4 says;
            without it they see each other, as in the released code.

    <bos> is never asked for.
    """

    vocabulary: Vocabulary
    k: float = 6.0
    longest: int = 1
    ordered_context: bool = False
    name = "permuted"
    summary = "predict tokens in a random order, each from those before it in that order, where they stand"
    source = "Yang et al. 2019 (XLNet), sections 2.2 and 2.3; arXiv 1906.08237"
    decoding = "diffusion"
    tokens = ("<bos>", "<eos>", "<mask>")

    def __post_init__(self) -> None:
        need_tokens(self.name, self.vocabulary, self.tokens)
        at_least(self.name, "k", self.k, 1)
        whole(self.name, "longest", self.longest, 1)
        flag(self.name, "ordered_context", self.ordered_context)

    @property
    def modes(self) -> tuple[Mode, ...]:
        return ANY_ORDER, LEFT_TO_RIGHT

    @property
    def profile(self) -> Profile:
        return Profile(two_streams, inputs=1 + 1 / self.k, asked=1 / self.k)

    def decoding_of(self, mode: Mode | None = None) -> str:
        """Any order fills places one after another; what is written left to right is only scored so."""
        return "left_to_right" if mode is not None and mode.likelihood == "exact" else self.decoding

    def corrupt(self, window: Window, key: Key) -> Example:
        ids, rng = window.ids, key.rng()
        able = np.flatnonzero(ids != self.vocabulary.bos)
        order = rng.permutation(able)
        last = len(order) - min(len(order), max(1, stochastic_round(len(order) / self.k, rng)))
        asked = order[last:]
        if self.longest > 1:
            # 1. runs, and what is missing from those that stood last already
            starts, lengths = spans_in_context(len(able), self.longest, self.k, rng)
            runs = able[inside(starts, lengths)[:len(order) - last]]
            asked = np.concatenate((runs, order[~np.isin(order, runs)][last:]))
            # 2. all of them move to the end, and keep their order there
            later = np.isin(order, asked)
            order = np.concatenate((order[~later], order[later]))
        return self.in_order(ids, order, np.sort(asked))

    def in_order(self, ids: np.ndarray, order: np.ndarray, asked: np.ndarray) -> Example:
        """The Example of one order.

        Args:
            ids: (L,) int64.
            order: places, the first predicted first; places that it leaves out have rank 0 and see only each other.
            asked: (T,) places with a query row, in rising order: the last ones of `order`, or fewer.
        """
        ranks = np.zeros(len(ids), dtype=np.int64)
        ranks[order] = np.arange(1, len(order) + 1)
        if not self.ordered_context and len(asked):
            # what comes before everything asked for is one context
            ranks = np.maximum(ranks - (ranks[asked].min() - 1), 0)
        return self._streams(ids, ranks, asked)

    def blank(self, ids: np.ndarray, hidden: np.ndarray, mode: Mode | None = None) -> Example:
        """In any order: the hidden tokens come last, and each query sees all that is not hidden and nothing hidden.
        From left to right: the text before the first hidden token is one context, and each query sees all tokens
        before its place.
        """
        asked = np.flatnonzero(hidden)
        places = np.arange(len(ids))
        if mode is not None and mode.likelihood == "exact":
            first = int(asked[0]) if len(asked) else len(ids)
            return self._streams(ids, places if self.ordered_context else np.maximum(places - first + 1, 0), asked)
        # hidden contents share the last rank, and queries of that rank do not see them
        ranks = np.where(hidden, len(ids), places if self.ordered_context else 0)
        question = self._streams(np.where(hidden, self.vocabulary.mask, ids), ranks, asked)
        return replace(question, asks=(ask(len(ids) + np.arange(len(asked)), ids[asked]),))

    def _streams(self, ids: np.ndarray, ranks: np.ndarray, asked: np.ndarray) -> Example:
        """Contents, then a query for each place asked for, at that place."""
        place = np.concatenate((np.arange(len(ids)), asked))
        inputs = np.concatenate((ids, np.full(len(asked), self.vocabulary.mask)))
        where = len(ids) + np.arange(len(asked))
        return example(inputs, two_streams, [ask(where, ids[asked])], raw=len(ids), index=place, position=place,
                       rank=ranks[place], part=np.arange(len(inputs)) >= len(ids))
