"""The random pieces that corruptions are made of: numpy in, numpy out, vectorised, nothing about objectives."""

from __future__ import annotations

import functools

import numpy as np

from bothways.batch import Key

GOLDEN = (5 ** 0.5 - 1) / 2
"""Step of the low-discrepancy sequence for diffusion times."""
SILVER = 2 ** 0.5 - 1
"""Step of the one that picks a mixture's member. 1, GOLDEN and SILVER are independent over the rationals, so the
two sequences together are spread evenly over the square: a member drawn by one sees every value of the other."""
BRONZE = (13 ** 0.5 - 3) / 2
"""Step of the one by which an objective picks among its own kinds of noise (a denoiser, a level, an order of parts); it
is independent of the other two as well, so a mixture's members see all kinds."""


@functools.lru_cache(maxsize=1024)
def _offset(seed: int, epoch: int, salt: int) -> float:
    return float(np.random.default_rng((seed, epoch, salt)).random())


def spread(key: Key, step: float, salt: int) -> float:
    """A number in [0, 1) that is spread evenly over the windows of an epoch (Kronecker's sequence).

    Any run of windows covers the interval with gaps of order 1/n instead of 1/sqrt(n); the offset is random per
    (seed, epoch), so each number alone is uniform.
    """
    return (_offset(key.seed, key.epoch, salt) + key.index * step) % 1.0


def stochastic_round(value: float, rng: np.random.Generator) -> int:
    """A whole number whose mean is `value`."""
    return int(np.floor(value + rng.random()))


def composition(total: int, parts: int, rng: np.random.Generator) -> np.ndarray:
    """`total` cut into `parts` lengths of at least 1, uniformly over all ways to do so: (parts,) int64.

    T5 shuffles `parts - 1` flags over the `total - 1` gaps between items (arXiv 1910.10683, released code).
    """
    cuts = np.sort(rng.permutation(total - 1)[:parts - 1]) + 1
    return np.diff(np.concatenate(([0], cuts, [total])))


def poisson_lengths(total: int, mean: float, rng: np.random.Generator) -> np.ndarray:
    """Span lengths from Poisson(mean), zeros included, until they add up to `total`; the last one is cut to fit."""
    lengths = rng.poisson(mean, size=max(8, int(2 * total / mean) + 8))
    while lengths.sum() < total:
        lengths = np.concatenate((lengths, rng.poisson(mean, size=len(lengths))))
    ends = np.cumsum(lengths)
    spans = int(np.searchsorted(ends, total)) + 1
    lengths = lengths[:spans].astype(np.int64)
    lengths[-1] -= int(ends[spans - 1]) - total
    return lengths


def geometric_lengths(total: int, ends: float, longest: int, rng: np.random.Generator) -> np.ndarray:
    """Span lengths that add up to `total` on average, geometric(`ends`) up to `longest`, scaled to add up to 1.

    SpanBERT's law (arXiv 1907.10529, section 3.1: 0.2 and 10 give 3.8 on average). No length is cut: the last one is
    taken by lot, unless it fits. With a `total` of at least `longest` there is at least one.
    """
    law = ends * (1 - ends) ** np.arange(longest)
    below = np.cumsum(law / law.sum())
    below[-1] = 1.0
    lengths = np.searchsorted(below, rng.random(total + 1), side="right") + 1
    sums = np.cumsum(lengths)
    full = int(np.searchsorted(sums, total, side="right"))
    short = total - (int(sums[full - 1]) if full else 0)
    return lengths[:full + int(rng.random() < short / lengths[full])].astype(np.int64)


def spans_in_context(total: int, longest: int, context: float,
                     rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Short spans one after the other, each at a random place among `context` times as many tokens that are no span.

    A length n from 1 to `longest` comes with a chance in proportion to 1/n (XLNet's released code: 5 and 6).

    Returns:
        starts and lengths (S,) int64, in rising order; what would reach beyond `total` is left out, and what follows.
    """
    law = 1 / np.arange(1, longest + 1)
    lengths = 1 + rng.choice(longest, size=int(total / (1 + context)) + 1, p=law / law.sum())
    around = np.floor(context * lengths).astype(np.int64)
    begins = np.cumsum(around + lengths) - around - lengths
    starts = begins + np.floor(rng.random(len(around)) * around).astype(np.int64)
    fits = int(np.searchsorted(starts + lengths, total, side="right"))
    return starts[:fits], lengths[:fits]


def place_spans(kept: int, lengths: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Put spans between `kept` tokens, each in a gap of its own, so that no two of them touch.

    Returns:
        starts (S,) int64 in rising order, places in the text of kept and hidden tokens together, and the lengths
        in that order. Spans beyond the `kept + 1` gaps are dropped.
    """
    lengths = lengths[:kept + 1]
    gaps = np.sort(rng.permutation(kept + 1)[:len(lengths)])
    return gaps + np.concatenate(([0], np.cumsum(lengths)[:-1])).astype(np.int64), lengths


def runs(hidden: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Starts and ends (exclusive) of the contiguous runs of True: two (R,) int64 arrays."""
    edges = np.diff(np.concatenate(([0], hidden.astype(np.int8), [0])))
    return np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)


def inside(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """The places in these spans, span after span: (sum of lengths,) int64."""
    offsets = np.cumsum(lengths) - lengths
    return np.arange(int(lengths.sum())) + np.repeat(starts - offsets, lengths)


def inserted(ids: np.ndarray, places: np.ndarray, marks: np.ndarray) -> np.ndarray:
    """The text with a mark before the token at each place, in rising order: (L + S,) int64."""
    at = places + np.arange(len(places))
    own = np.ones(len(ids) + len(marks), dtype=bool)
    own[at] = False
    text = np.empty(len(own), dtype=np.int64)
    text[at], text[own] = marks, ids
    return text


def collapse(ids: np.ndarray, starts: np.ndarray, lengths: np.ndarray, marks: np.ndarray) -> np.ndarray:
    """The text with each span replaced by its mark; a span of length 0 inserts one: (L',) int64.

    Args:
        starts, lengths: (S,) of spans in rising order, none of which lies in another.
    """
    kept = np.ones(len(ids), dtype=bool)
    kept[inside(starts, lengths)] = False
    return inserted(ids[kept], starts - np.cumsum(lengths) + lengths, marks)


def some(places: np.ndarray, rate: float, rng: np.random.Generator) -> np.ndarray:
    """A share of the places, each as likely as any other, in rising order; its mean size is `rate`: (T,) int64."""
    return np.sort(rng.permutation(places)[:stochastic_round(len(places) * rate, rng)])


def infilled(ids: np.ndarray, rate: float, mean_span: float, mark: int, rng: np.random.Generator) -> np.ndarray:
    """Text infilling: spans with Poisson lengths that do not touch, each behind one `mark` (BART, section 2.2)."""
    hidden = stochastic_round(len(ids) * rate, rng)
    if not hidden:
        return ids
    lengths = poisson_lengths(hidden, mean_span, rng)
    starts, lengths = place_spans(len(ids) - hidden, lengths, rng)
    return collapse(ids, starts, lengths, np.full(len(starts), mark))


def permuted_sentences(ids: np.ndarray, ends: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The sentences of a text in random order: (L,) int64.

    Args:
        ends: (V,) bool, the ids that end a sentence. What follows the last of them counts as a sentence, and a text
            of one sentence stays as it is.
    """
    cuts = np.flatnonzero(ends[ids[:-1]]) + 1
    if not len(cuts):
        return ids
    sentences = np.split(ids, cuts)
    return np.concatenate([sentences[i] for i in rng.permutation(len(sentences))])


def rotated(ids: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The text moved round so that it begins with one of its tokens, each as likely as any other: (L,) int64."""
    return np.roll(ids, -int(rng.integers(len(ids)))) if len(ids) else ids


def replaced(ids: np.ndarray, places: np.ndarray, shares: tuple[float, float, float], mark: int, others: np.ndarray,
             rng: np.random.Generator, groups: np.ndarray | None = None) -> np.ndarray:
    """The text with `mark`, a random one of `others`, or the token itself at each place, by these shares: (L,).

    Args:
        groups: (T,) int64 from 0, places of one group being treated alike; each for itself when none.
    """
    corrupted = ids.copy()
    marked, random, _ = shares
    if marked == 1:
        corrupted[places] = mark
        return corrupted
    lot = rng.random(len(places)) if groups is None else rng.random(int(groups.max(initial=-1)) + 1)[groups]
    corrupted[places[lot < marked]] = mark
    drawn = places[(lot >= marked) & (lot < marked + random)]
    corrupted[drawn] = others[rng.integers(len(others), size=len(drawn))]
    return corrupted
