"""Intervals, corrections and crossings against scipy and numbers worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from bothways.study.statistics import crossings, holm, over_items, over_seeds, paired, paired_items


def test_interval_over_seeds_is_students():
    values = [1.0, 2.0, 4.0]
    low, high = stats.t.interval(0.95, 2, loc=np.mean(values), scale=stats.sem(values))
    interval = over_seeds(values)
    assert (interval.mean, interval.low, interval.high) == pytest.approx((7 / 3, low, high))


def test_one_seed_has_no_interval():
    interval = over_seeds([1.0])
    assert interval.mean == 1.0
    assert not interval.known


def test_interval_over_items_covers_as_often_as_it_says():
    covered = 0
    for seed in range(200):
        sample = np.random.default_rng(seed).random(60)
        interval = over_items(sample, seed=seed)
        covered += interval.low <= 0.5 <= interval.high
    assert 180 <= covered <= 199


def test_paired_is_scipys_paired_test():
    one, other = [1.0, 2.0, 3.5], [0.7, 1.9, 3.0]
    difference = paired(one, other)
    reference = stats.ttest_rel(one, other)
    interval = reference.confidence_interval(0.95)
    assert difference.p == pytest.approx(reference.pvalue)
    assert (difference.low, difference.high) == pytest.approx((interval.low, interval.high))
    assert difference.effect == pytest.approx(0.3 / 0.2)


def test_pairing_sees_what_means_hide():
    # seeds far apart, differences all alike
    one, other = [1.0, 5.0, 9.0], [0.9, 4.89, 8.91]
    assert paired(one, other).sign == 1
    assert stats.ttest_ind(one, other).pvalue > 0.9


def test_equal_differences_are_sure_and_equal_runs_are_not():
    assert paired([1.0, 2.0], [0.5, 1.5]).p == 0.0
    same = paired([1.0, 2.0], [1.0, 2.0])
    assert same.p == 1.0
    assert same.sign == 0


def test_seeds_that_agree_by_chance_on_a_short_test_are_not_sure():
    # one text of 24 makes the difference, with either seed
    one = [[1.0] * 13 + [0.0] * 11] * 2
    other = [[1.0] * 12 + [0.0] * 12] * 2
    values = [13 / 24] * 2, [12 / 24] * 2
    assert paired(*values).p == 0.0
    assert paired(*values, one, other).p > 0.3


def test_with_items_a_wrong_claim_is_as_rare_as_it_says():
    # two equal contenders, three seeds, 60 items of which some are hard for both
    wrong = 0
    for seed in range(300):
        rng = np.random.default_rng(seed)
        hard = rng.random(60)
        one, other = [[(rng.random(60) < hard).astype(float) for _ in range(3)] for _ in range(2)]
        wrong += paired([x.mean() for x in one], [x.mean() for x in other], one, other).p < 0.05
    assert wrong <= 300 * 0.05 + 12


def test_item_noise_by_hand():
    # differences 1 and 3 over seeds, items of which (seed mean) are 1 and 3 as well: both variances 2, both halves 1
    difference = paired([1.0, 3.0], [0.0, 0.0], [[0.0, 2.0], [2.0, 4.0]], [[0.0, 0.0], [0.0, 0.0]])
    assert difference.p == pytest.approx(2 * stats.t.sf(2 / math.sqrt(2), 4 / (1 + 1)))


def test_paired_refuses_other_lengths():
    with pytest.raises(ValueError, match="as many values"):
        paired([1.0, 2.0], [1.0])


def test_paired_items_finds_a_shift_and_only_a_shift():
    rng = np.random.default_rng(0)
    noise = rng.standard_normal(300)
    shifted = paired_items(noise + 0.2 + 0.5 * rng.standard_normal(300), noise)
    assert shifted.sign == 1
    assert shifted.p < 0.01
    assert paired_items(noise + 0.5 * rng.standard_normal(300), noise).p > 0.05


def test_holm_by_hand():
    # sorted 0.01, 0.02, 0.03: times 3, 2, 1, never falling
    assert holm([0.03, 0.01, 0.02]) == pytest.approx([0.04, 0.03, 0.04])
    assert holm([0.6, 0.7]) == [1.0, 1.0]


def test_holm_leaves_out_what_was_not_compared():
    adjusted = holm([math.nan, 0.01, 0.04])
    assert math.isnan(adjusted[0])
    assert adjusted[1:] == pytest.approx([0.02, 0.04])


def test_crossing_where_lines_in_log_x_meet():
    # one falls from 3 to 1 and the other from 2 to 1.5 over two decades: equal at x = 10 ** (2 / 1.5)
    one, other = [(1.0, 3.0), (100.0, 1.0)], [(1.0, 2.0), (100.0, 1.5)]
    (crossing,) = crossings([one], [other], ("one", "other"))
    assert crossing.at == pytest.approx(10 ** (2 / 1.5))
    assert (crossing.before, crossing.after) == ("other", "one")
    assert (crossing.seeds, crossing.of) == (1, 1)


def test_crossing_direction_turns_with_the_better_direction():
    one, other = [(1.0, 3.0), (100.0, 1.0)], [(1.0, 2.0), (100.0, 1.5)]
    (crossing,) = crossings([one], [other], ("one", "other"), higher_is_better=True)
    assert (crossing.before, crossing.after) == ("one", "other")


def test_no_crossing_without_a_change_of_places():
    assert crossings([[(1.0, 2.0), (10.0, 1.0)]], [[(1.0, 3.0), (10.0, 1.5)]], ("a", "b")) == []
    assert crossings([[(1.0, 2.0)]], [[(1.0, 3.0)]], ("a", "b")) == []
    # touching is not crossing
    assert crossings([[(1.0, 2.0), (10.0, 1.0)]], [[(1.0, 3.0), (10.0, 1.0)]], ("a", "b")) == []


def test_crossings_are_looked_for_only_where_both_were_measured():
    one, other = [(1.0, 3.0), (10.0, 2.0)], [(20.0, 1.0), (40.0, 0.5)]
    assert crossings([one], [other], ("a", "b")) == []
