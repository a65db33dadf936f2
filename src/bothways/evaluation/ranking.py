"""How well scores agree with those of people, and how well a ranking puts first what belongs there."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np


def pearson(one: np.ndarray, other: np.ndarray) -> float:
    """The linear correlation of two (n,) series; NaN where one of them never changes."""
    one, other = np.asarray(one, np.float64) - np.mean(one), np.asarray(other, np.float64) - np.mean(other)
    size = float(np.sqrt((one**2).sum() * (other**2).sum()))
    return float((one * other).sum()) / size if size > 0 else float("nan")


def spearman(one: np.ndarray, other: np.ndarray) -> float:
    """The linear correlation of ranks; equal values share their mean rank."""
    return pearson(ranks(one), ranks(other))


def ranks(values: np.ndarray) -> np.ndarray:
    """(n,) the rank of each value from 1 up; equal values get the mean of theirs."""
    _, places, counts = np.unique(np.asarray(values), return_inverse=True, return_counts=True)
    ends = counts.cumsum()
    found: np.ndarray = (ends - (counts - 1) / 2)[places]
    return found


def reciprocal_rank(order: Sequence[int], relevant: Collection[int], k: int = 10) -> float:
    """1 / the rank of the first relevant item among the first `k`; 0 where there is none."""
    return next((1 / rank for rank, item in enumerate(order[:k], start=1) if item in relevant), 0.0)


def recall(order: Sequence[int], relevant: Collection[int], k: int) -> float:
    """The share of the relevant items that are among the first `k`."""
    return sum(item in relevant for item in order[:k]) / len(relevant)


def ndcg(order: Sequence[int], relevant: Collection[int], k: int = 10) -> float:
    """Discounted cumulative gain over that of the best order (Järvelin and Kekäläinen 2002): a relevant item at rank r
    gives 1 / log2(r + 1)."""
    gains = [1 / np.log2(rank + 1) for rank in range(1, k + 1)]
    found = sum(gain for gain, item in zip(gains, order) if item in relevant)
    return float(found / sum(gains[:len(relevant)]))
