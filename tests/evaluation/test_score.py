"""Scores, their files and intervals; curves that say something and curves that do not."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bothways.errors import BothwaysError
from bothways.evaluation import score
from bothways.evaluation.extrapolate import budget_to_reach, fit
from bothways.evaluation.score import Score, mean_score


def test_scores_survive_a_file(tmp_path):
    scores = [mean_score("suffix NLL", "causal", "exact", [1.0, 3.0], [1, 3], unit="nats per token",
                         details={"tokens": 4.0}), Score("parameters", "all", "counted", 7.0, 1),
              mean_score("empty", "causal", "exact", [])]
    score.save(scores, tmp_path / "deep" / "scores.json")
    back = score.load(tmp_path / "deep" / "scores.json")
    assert back[:2] == scores[:2] and scores[0].value == 2.5 and math.isnan(back[2].value)
    (tmp_path / "broken.json").write_text('[{"nam": 1}]')
    with pytest.raises(BothwaysError, match="not a stored score"):
        score.load(tmp_path / "broken.json")
    with pytest.raises(BothwaysError, match="cannot be read"):
        score.load(tmp_path / "none.json")


def test_intervals_cover_the_mean_about_as_often_as_they_say():
    rng = np.random.default_rng(0)
    inside = 0
    for _ in range(200):
        low, high = mean_score("x", "y", "z", rng.random(100) < 0.7).interval(resamples=300)
        inside += low <= 0.7 <= high
    assert 175 <= inside <= 200
    assert all(map(math.isnan, mean_score("x", "y", "z", [1.0]).interval()))


def law(x, floor=2.0, scale=30.0, alpha=0.4):
    return floor + scale * np.asarray(x) ** -alpha


def test_a_clean_curve_says_what_budget_it_takes():
    x = np.geomspace(1e3, 1e5, 7)
    target = float(law(4e5))
    needed = budget_to_reach(x, law(x), target)
    assert needed.known and not needed.reached
    assert needed.low <= 4e5 * 1.05 and needed.high >= 4e5 * 0.95 and needed.budget == pytest.approx(4e5, rel=0.1)
    assert fit(x, law(x)) == pytest.approx((2.0, 30.0, 0.4), rel=0.1)


@pytest.mark.parametrize(("losses", "target", "why"), [
    (law(np.geomspace(1e3, 1e5, 7)), 1.5, "floor"),
    ([3.0, 3.1, 3.05, 3.2, 3.1, 3.3, 3.2], 2.0, "does not fall"),
    (law(np.geomspace(1e3, 1e5, 7)) + 0.2 * np.random.default_rng(0).standard_normal(7), 2.05, "cannot be said"),
])
def test_curves_that_say_nothing_are_refused(losses, target, why):
    needed = budget_to_reach(np.geomspace(1e3, 1e5, 7), losses, target)
    assert not needed.known and why in needed.reason and needed.reason.startswith("cannot be said from this curve")


def test_a_target_reached_and_a_curve_too_short():
    assert budget_to_reach([1, 2, 3], [3.0, 2.0, 1.0], 2.0).reached
    assert "fewer than four" in budget_to_reach([1, 2, 3], [3.0, 2.0, 1.0], 0.5).reason


def test_intervals_of_noisy_curves_hold_the_truth_most_of_the_time():
    x, truth = np.geomspace(1e3, 1e6, 9), 2e6
    rng = np.random.default_rng(1)
    needed = [budget_to_reach(x, law(x) + 0.004 * rng.standard_normal(9), float(law(truth)), last=9, resamples=40)
              for _ in range(20)]
    said = [one for one in needed if one.known and not one.reached]
    assert len(said) >= 12
    assert np.mean([one.low <= truth <= one.high for one in said]) > 0.6
    assert all(one.low < one.high for one in said)


def test_an_interval_of_many_items_is_worked_out_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    score = Score("nats", "causal", "exact", 0.5, 50, "nats", False, tuple(rng.random(50)), tuple(rng.random(50)))
    whole = score.interval()
    monkeypatch.setattr("bothways.evaluation.score.COUNTS", 50 * 7)
    assert score.interval() == pytest.approx(whole, abs=1e-12)
