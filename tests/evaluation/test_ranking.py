"""Correlations and rankings, by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bothways.evaluation import ranking


def test_correlations_by_hand_and_as_scipy_counts_them(rng):
    assert ranking.ranks(np.array([3.0, 1.0, 3.0, 2.0])).tolist() == [3.5, 1.0, 3.5, 2.0]
    assert ranking.pearson(np.array([1.0, 2, 3]), np.array([2.0, 4, 6])) == pytest.approx(1)
    assert ranking.spearman(np.array([1.0, 2, 9]), np.array([-1.0, -2, -300])) == pytest.approx(-1)
    assert math.isnan(ranking.pearson(np.ones(3), np.arange(3)))
    stats = pytest.importorskip("scipy.stats")
    one, other = rng.integers(0, 5, 40).astype(float), rng.normal(size=40)
    assert ranking.pearson(one, other) == pytest.approx(stats.pearsonr(one, other)[0])
    assert ranking.spearman(one, other) == pytest.approx(stats.spearmanr(one, other)[0])


def test_rankings_by_hand():
    order, relevant = [4, 2, 0, 1, 3], {0, 3}
    assert ranking.reciprocal_rank(order, relevant) == pytest.approx(1 / 3)
    assert ranking.reciprocal_rank(order, relevant, 2) == 0.0
    assert ranking.recall(order, relevant, 3) == 0.5 and ranking.recall(order, relevant, 5) == 1.0
    best = 1 + 1 / math.log2(3)
    assert ranking.ndcg(order, relevant) == pytest.approx((1 / math.log2(4) + 1 / math.log2(6)) / best)
    assert ranking.ndcg(order, relevant, 1) == 0.0 and ranking.ndcg([0, 3, 1], relevant) == pytest.approx(1)
