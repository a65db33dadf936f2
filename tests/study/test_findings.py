"""A finding agrees, disagrees, or cannot be said; never more than the numbers carry."""

from __future__ import annotations

import pytest

from bothways.study import findings, results
from bothways.study.findings import FINDINGS


def verdicts(folder, source="known"):
    return {one.finding.key: one for one in findings.evaluate(results.load(folder), source)}


def test_the_expected_signs_agree(synthetic, tmp_path):
    synthetic.study(tmp_path)
    found = verdicts(tmp_path)
    assert {key: one.verdict for key, one in found.items()} == {
        "F1": "agrees", "F2": found["F2"].verdict, "F3(i)": "agrees", "F6": "agrees", "F10": "agrees"}
    assert len(found["F3(i)"].tested) == 2


@pytest.mark.parametrize(("key", "change"), [
    ("F1", {("tag", "masked"): 0.3}),
    ("F6", {("suffix-truth", "diffusion"): 0.001, ("suffix-truth", "causal"): 0.2}),
    ("F10", {("pairs-across", "masked"): 0.99, ("pairs-across", "causal"): 0.7}),
])
def test_the_other_sign_disagrees(synthetic, tmp_path, key, change):
    synthetic.study(tmp_path, changes=change)
    assert verdicts(tmp_path)[key].verdict == "disagrees"


def test_noise_as_large_as_the_difference_cannot_be_said(synthetic, tmp_path):
    synthetic.study(tmp_path, spread=0.5)
    assert verdicts(tmp_path)["F6"].verdict == "cannot be said"


def test_one_seed_gives_no_verdict_and_still_numbers(synthetic, tmp_path):
    synthetic.study(tmp_path, seeds=1)
    found = verdicts(tmp_path)
    assert {one.verdict for one in found.values()} == {"cannot be said"}
    assert "one seed" in found["F6"].reason
    assert found["F6"].tested[0].difference.mean == pytest.approx(0.06, abs=0.02)


def test_what_was_not_measured_cannot_be_said(synthetic, tmp_path):
    plan = synthetic.study(tmp_path)
    for job in plan.jobs():
        if job.contender == "diffusion":
            (tmp_path / "runs" / job.name / "result.json").unlink()
    assert verdicts(tmp_path)["F6"].reason == "not measured on this source"


def test_early_is_read_from_the_curves(synthetic, tmp_path):
    synthetic.study(tmp_path)
    (tested,) = verdicts(tmp_path)["F2"].tested
    # at an eighth of the run: 0.5 - 0.3 * 7/8 causal, 0.55 - 0.45 * 7/8 masked
    assert tested.left == pytest.approx(0.2375, abs=0.01)
    assert tested.right == pytest.approx(0.15625, abs=0.01)
    assert tested.verdict == "agrees"


def test_every_finding_says_what_it_expects():
    for finding in FINDINGS:
        assert finding.claim
        assert finding.published
        assert finding.expected
        assert finding.contrasts
