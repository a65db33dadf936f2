"""Calibration, selective prediction, damage, few labels: numbers by hand, statistics where there is a law."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree

import numpy as np
import pytest

from bothways.errors import BothwaysError
from bothways.evaluation import calibration, few_labels, robustness
from bothways.evaluation.score import Score
from bothways.pictures.panels import Line, Panel, matrix, panels, reliability_picture


def test_ece_by_hand_in_both_kinds_of_bins():
    sure, right = np.array([0.95, 0.85, 0.75, 0.65]), np.array([1.0, 1.0, 0.0, 1.0])
    # two bins of equal width: all lie in (0.5, 1]
    assert calibration.ece(sure, right, 2, "width") == pytest.approx(abs(0.75 - 0.8))
    # two of equal mass: (0.65, 0.75: 0.5 right) and (0.85, 0.95: all right)
    assert calibration.ece(sure, right, 2, "mass") == pytest.approx((0.2 + 0.1) / 2)
    assert [one.count for one in calibration.reliability(np.array([0.0, 0.5, 1.0]), right[:3], 2, "width")] == [2, 1]


def test_who_says_true_probabilities_is_calibrated_and_who_exaggerates_is_not():
    rng = np.random.default_rng(0)
    shares = rng.dirichlet([1.0, 1.0, 1.0], 6000)
    labels = (shares.cumsum(1) < rng.random((6000, 1))).sum(1)
    honest = {score.name + score.estimator: score for score in calibration.calibration(shares, labels, resamples=50)}
    bold = shares ** 4 / (shares ** 4).sum(1, keepdims=True)
    loud = {score.name + score.estimator: score for score in calibration.calibration(bold, labels, resamples=50)}
    for name in ("ECE15 bins of equally many items", "ECE15 bins of equal width"):
        assert honest[name].value < 0.03 < 0.1 < loud[name].value
        low, high = loud[name].interval()
        assert low < loud[name].value < high
    assert honest["accuracyof the likeliest class"].value == loud["accuracyof the likeliest class"].value
    assert calibration.temperature(np.log(bold), labels) == pytest.approx(4.0, rel=0.15)


def test_risk_and_coverage_by_hand_and_ties_do_not_hang_on_order():
    sure, right = np.array([0.9, 0.8, 0.7, 0.6]), np.array([1.0, 0.0, 1.0, 0.0])
    assert calibration.risks(sure, right) == pytest.approx([0, 1 / 2, 1 / 3, 1 / 2])
    for order in ([0, 1, 2, 3], [3, 2, 1, 0], [1, 0, 3, 2]):
        assert calibration.risks(np.full(4, 0.5), right[order]) == pytest.approx([0.5] * 4)
    scores = {score.name: score for score in calibration.calibration(
        np.stack([sure, 1 - sure], 1), np.array([0, 1, 0, 1]), resamples=5)}
    assert scores["AURC"].value == pytest.approx((0 + 1 / 2 + 1 / 3 + 1 / 2) / 4)
    assert scores["accuracy at half coverage"].value == pytest.approx(0.5)
    assert scores["Brier score"].value == pytest.approx(2 * (0.01 + 0.64 + 0.09 + 0.36) / 4)
    assert calibration.risk_coverage(sure, right)[-1] == (1.0, 0.5)


@pytest.mark.parametrize(("shares", "labels", "message"), [
    ([[0.5, 0.6]], [0], "row 0 .* adds up to 1.1"), ([[0.5, 0.5]], [2], "a class is 2"),
    ([[0.5, 0.5]], [0, 1], "do not fit")])
def test_what_is_no_probability_is_refused(shares, labels, message):
    with pytest.raises(BothwaysError, match=message):
        calibration.calibration(np.array(shares), np.array(labels))


def test_damage_is_a_function_of_its_seed_and_about_as_much_as_was_asked():
    text = "the quick brown fox jumps over the lazy dog " * 40
    for damage in robustness.DAMAGE.values():
        assert damage(text, 0.2, 3) == damage(text, 0.2, 3)
        assert damage(text, 0.0, 3) == text
    assert robustness.typos(text, 0.2, 3) != robustness.typos(text, 0.2, 4)
    words = text.split(" ")
    hit = sum(one != other for one, other in zip(words, robustness.case(text, 0.3, 1).split(" ")))
    assert hit / len(words) == pytest.approx(0.3, abs=0.05)
    assert len(robustness.cut(text, 0.25).split(" ")) == round(len(words) * 0.75) and robustness.cut("a", 0.9) == "a"
    assert re.sub(r"[a-z]", "", robustness.typos(text, 0.5, 0)) == re.sub(r"[a-z]", "", text)


def test_robustness_is_paired_text_by_text():
    texts = ["good film", "bad film", "good", "bad"]

    def predict(some):
        good = np.array([float("good" in text) for text in some])
        return np.stack([1 - good, good], 1)

    scores = robustness.robustness(predict, texts, np.array([1, 0, 1, 0]), rates=(1.0,))
    found = {score.name: score for score in scores}
    assert found["accuracy"].value == 1.0 and found["accuracy under case"].value == 0.5
    assert found["accuracy lost to case"].items == [1.0, 0.0, 1.0, 0.0]
    assert found["accuracy under cut"].value == 1.0


def test_draws_are_nested_and_balanced():
    rows = [(f"text {number}", str(number % 3)) for number in range(60)]
    small, large = few_labels.draw(rows, 4, 1), few_labels.draw(rows, 10, 1)
    assert set(small) < set(large) and len(small) == 12 and len(large) == 30
    assert few_labels.draw(rows, 4, 2) != small


def curves(values):
    return [Score("x", "all", str(size), float(np.mean(items)), len(items), items=list(items),
                  details={"labels": float(size)}) for size, items in values.items()]


def test_the_crossing_lies_where_the_gap_is_nought_on_a_logarithmic_scale():
    generative = curves({8: [0.7, 0.7], 32: [0.75, 0.75], 128: [0.8, 0.8]})
    discriminative = curves({8: [0.6, 0.6], 32: [0.7, 0.7], 128: [0.85, 0.85]})
    found = few_labels.crossing(generative, discriminative)
    assert found.labels == pytest.approx(math.sqrt(32 * 128)) and found.seen == 1.0
    assert (found.low, found.high) == pytest.approx((64, 64)) and "cross at 64" in found.sentence
    never = few_labels.crossing(discriminative[:2], generative[:2])
    assert math.isnan(never.labels) and "no crossing seen: the discriminative" in never.sentence
    with pytest.raises(BothwaysError, match="same sizes"):
        few_labels.crossing(generative, discriminative[:2])


def test_naive_bayes_leads_with_few_labels_and_not_with_many():
    """The curve itself, with both classifiers on one source: words drawn by class, some of them shared."""
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.naive_bayes import MultinomialNB
    from sklearn.pipeline import make_pipeline

    rng = np.random.default_rng(0)
    words = [f"w{number}" for number in range(60)]
    shares = rng.dirichlet(np.ones(60), 2)
    rows = [(" ".join(rng.choice(words, 12, p=shares[label])), str(label)) for label in rng.integers(0, 2, 700)]

    def fit(model):
        def fitted(train, seed):
            pipeline = make_pipeline(CountVectorizer(), model())
            pipeline.fit([text for text, _ in train], [label for _, label in train])
            return pipeline.predict
        return fitted

    one = few_labels.curve("bayes", fit(MultinomialNB), rows[:500], rows[500:], (2, 64), (0, 1, 2))
    other = few_labels.curve("logistic", fit(LogisticRegression), rows[:500], rows[500:], (2, 64), (0, 1, 2))
    assert one[0].value > other[0].value - 0.02 and one[1].value > 0.9
    assert all(score.n == 3 for score in one + other)


def test_pictures_are_well_formed():
    for drawn in (reliability_picture({"a < b": [(0.5, 0.4), (0.9, 0.8)]}),
                  matrix(["x", "y"], [[1, 0.2], [0.2, 1]], "t"),
                  panels([Panel("one", [Line("l", [(0, 1.0), (1, math.nan), (2, 3.0)]),
                                        Line("m", [(0, 1), (1, 2)], [(0, 2), (1, 3)], dashed=True)], "x")] * 4)):
        xml.etree.ElementTree.fromstring(drawn)
        assert "nan" not in drawn


def test_axes_say_round_numbers_within_their_range():
    from bothways.pictures.panels import round_values

    assert round_values(0, 1) == [0, 0.2, 0.4, 0.6, 0.8, 1.0] and round_values(0.413, 0.779) == [0.5, 0.6, 0.7]
    rng = np.random.default_rng(0)
    for power in rng.integers(-6, 5, 300):
        low, span = rng.uniform(-10, 10) * 10.0 ** power, rng.uniform(0.01, 10) * 10.0 ** power
        found = round_values(low, low + span)
        assert 2 <= len(found) <= 6 and low - 1e-9 * span <= found[0] < found[-1] <= low + span * (1 + 1e-9)
