"""The n-gram control: interpolated modified Kneser-Ney (Chen & Goodman 1999, section 3), in sorted arrays.

An m-gram is one integer (its tokens as digits), so counting is sorting, and looking up is a binary search. Five
million tokens take seconds. What a network has to beat before it may be said to have learned anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from bothways.errors import BothwaysError


@dataclass(frozen=True, eq=False)
class Order:
    """The m-grams of one length, sorted.

    grams (G,): the m-gram; shares (G,): max(count - discount, 0) / count of its context.
    contexts (C,): each context; backs (C,): the mass its discounts left for the shorter context.
    """

    grams: np.ndarray
    shares: np.ndarray
    contexts: np.ndarray
    backs: np.ndarray


@dataclass(frozen=True, eq=False)
class NGram:
    """p(token | the `order` - 1 tokens before it), over a vocabulary of `size` ids.

    Texts begin after `order` - 1 start symbols (id `size`), so the first tokens have contexts too.
    """

    size: int
    order: int
    orders: tuple[Order, ...]

    @classmethod
    def train(cls, texts: Iterable[np.ndarray], size: int, order: int = 4) -> NGram:
        """Count the m-grams of `texts` (each (L,) ids below `size`); no m-gram crosses from one text to the next.

        A vocabulary so large that m-grams do not fit 63 bits gets a lower order (`.order` says which).

        Raises:
            BothwaysError: no tokens at all.
        """
        while order > 1 and (size + 1) ** order >= 2 ** 63:
            order -= 1
        base = size + 1
        # 1. one stream, each text behind its start symbols
        start = np.full(order - 1, size, dtype=np.int64)
        stream = np.concatenate([part for text in texts for part in (start, np.asarray(text, dtype=np.int64))] or
                                [start])
        predicted = np.flatnonzero(stream != size)
        if not len(predicted):
            raise BothwaysError("an n-gram model needs some text to count, and there is none")
        # 2. m-grams of full length, then the distinct continuations of each shorter one
        grams = sum((stream[predicted - back] * base ** back for back in range(order)),
                    np.zeros(len(predicted), dtype=np.int64))
        keys, counts = np.unique(grams, return_counts=True)
        tables = [_discounted(keys, counts, base)]
        for length in range(order - 1, 0, -1):
            # each distinct (length + 1)-gram is one way in which its last `length` tokens are preceded
            keys, counts = np.unique(keys % base ** length, return_counts=True)
            tables.append(_discounted(keys, counts, base))
        return cls(size, order, tuple(reversed(tables)))

    @property
    def name(self) -> str:
        """What tables and reports call it."""
        return f"{self.order}-gram, Kneser-Ney"

    def log_probs(self, ids: np.ndarray) -> np.ndarray:
        """log p of each token of a text given those before it: (L,) float64."""
        base = self.size + 1
        ids = np.asarray(ids, dtype=np.int64)
        stream = np.concatenate([np.full(self.order - 1, self.size, dtype=np.int64), ids])
        places = np.arange(len(ids)) + self.order - 1
        gram = np.zeros(len(ids), dtype=np.int64)
        probability = np.full(len(ids), 1.0 / self.size)
        for back, table in enumerate(self.orders):
            gram = gram + stream[places - back] * base ** back
            share, left = _look_up(table, gram, gram // base)
            probability = share + left * probability
        return np.log(probability)

    def distribution(self, context: Sequence[int] | np.ndarray) -> np.ndarray:
        """p(. | context): (size,) float64; only the last `order` - 1 tokens of `context` matter."""
        base = self.size + 1
        known = np.concatenate([np.full(self.order - 1, self.size, dtype=np.int64),
                                np.asarray(context, dtype=np.int64)])
        probability = np.full(self.size, 1.0 / self.size)
        for back, table in enumerate(self.orders):
            context_key = sum(int(known[-1 - place]) * base ** place for place in range(back))
            place = np.searchsorted(table.contexts, context_key)
            if place == len(table.contexts) or table.contexts[place] != context_key:
                continue
            first, last = np.searchsorted(table.grams, [context_key * base, (context_key + 1) * base])
            probability = table.backs[place] * probability
            probability[table.grams[first:last] % base] += table.shares[first:last]
        return probability


def _discounted(grams: np.ndarray, counts: np.ndarray, base: int) -> Order:
    """Sorted m-grams and their counts, with three discounts estimated from the counts of counts."""
    # 1. D1, D2, D3+ as Chen & Goodman estimate them, kept inside [0, count]
    n = [int((counts == k).sum()) for k in range(1, 5)]
    unit = n[0] / (n[0] + 2 * n[1]) if n[0] and n[1] else 0.5
    discounts = np.array([0.0, *(min(max(k - (k + 1) * unit * n[k] / n[k - 1], 0.05), k - 0.05) if n[k - 1] and n[k]
                                 else 0.5 * k ** 0.5 for k in (1, 2, 3))])
    discount = discounts[np.minimum(counts, 3)]
    # 2. contexts are runs of m-grams that share all but the last token
    contexts = grams // base
    firsts = np.flatnonzero(np.concatenate([[True], contexts[1:] != contexts[:-1]]))
    totals = np.add.reduceat(counts, firsts).astype(np.float64)
    lengths = np.diff(np.concatenate([firsts, [len(grams)]]))
    shares = (counts - discount) / np.repeat(totals, lengths)
    return Order(grams, shares, contexts[firsts], np.add.reduceat(discount, firsts) / totals)


def _look_up(table: Order, grams: np.ndarray, contexts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Shares of `grams` (0 if unseen) and the mass left over in `contexts` (1 if unseen)."""
    place = np.minimum(np.searchsorted(table.grams, grams), len(table.grams) - 1)
    shares = np.where(table.grams[place] == grams, table.shares[place], 0.0)
    place = np.minimum(np.searchsorted(table.contexts, contexts), len(table.contexts) - 1)
    return shares, np.where(table.contexts[place] == contexts, table.backs[place], 1.0)
