"""The corruption rate and the prediction rate of masked training, apart (arXiv 2202.08005)."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from tests.objectives.test_corruption import PLAIN, WORDY, text

from bothways.batch import Key
from bothways.errors import BothwaysError
from bothways.objectives import make

WINDOWS = [text(130, i) for i in range(1200)]
ORDINARY = 128 * len(WINDOWS)


@pytest.mark.parametrize("asked", [0.5, 0.125])
@pytest.mark.parametrize("spec", ["masked(rate=0.4, replace=all, asked={})", "masked-next(rate=0.4, asked={})",
                                  "masked(rate=0.4, replace=all, whole_words=True, asked={})"])
def test_the_text_is_damaged_at_one_rate_and_asked_about_at_another(spec, asked):
    objective, hidden, answered = make(spec.format(asked), WORDY), 0, 0
    for window in WINDOWS:
        one = objective.corrupt(window, Key(1, 0, window.index))
        gone = np.flatnonzero(one.inputs.numpy() == WORDY.mask)
        spoken_of = one.asks[0].where.numpy() + (objective.modes[0].predicts == "next")
        assert set(spoken_of.tolist()) <= set(gone.tolist()) and (np.diff(spoken_of) > 0).all()
        assert one.asks[0].targets.tolist() == window.ids[spoken_of].tolist()
        assert one.asks[0].count == len(spoken_of) >= 1
        hidden, answered = hidden + len(gone), answered + len(spoken_of)
    assert hidden / ORDINARY == pytest.approx(0.4, abs=0.003)
    assert answered / ORDINARY == pytest.approx(0.4 * asked, abs=0.002)
    assert objective.profile.asked == pytest.approx(0.4 * asked)


def test_what_stands_at_a_place_does_not_say_whether_it_is_asked():
    """80/10/10 holds among the asked and among the others alike, and every hidden place is asked as often as any."""
    objective = make("masked(rate=0.5, asked=0.5)", PLAIN)
    whole = make("masked(rate=0.5)", PLAIN)
    table, by_place = np.zeros((2, 3)), np.zeros(130)
    for window in WINDOWS:
        key = Key(1, 0, window.index)
        one, every = objective.corrupt(window, key), whole.corrupt(window, key)
        assert one.inputs.tolist() == every.inputs.tolist()  # the option moves nothing but the questions
        hidden, asked = every.asks[0].where.numpy(), one.asks[0].where.numpy()
        now = one.inputs.numpy()[hidden]
        kind = np.where(now == PLAIN.mask, 0, np.where(now == window.ids[hidden], 2, 1))
        np.add.at(table, (np.isin(hidden, asked).astype(int), kind), 1)
        by_place[asked] += 1
    assert table[1] / table[1].sum() == pytest.approx([0.8, 0.1, 0.1], abs=0.01)
    assert stats.chi2_contingency(table).pvalue > 1e-3
    assert by_place[0] == by_place[-1] == 0
    assert np.abs(by_place[1:-1] / len(WINDOWS) - 0.25).max() < 0.06


def test_at_least_one_is_asked_and_a_text_of_reserved_tokens_asks_nothing():
    objective = make("masked(rate=0.1, asked=0.01)", PLAIN)
    assert all(len(objective.corrupt(text(8, i), Key(0, 0, i)).asks[0].where) == 1 for i in range(50))
    assert len(objective.corrupt(text(2), Key(0, 0, 0)).asks[0].where) == 0


@pytest.mark.parametrize("name", ["masked", "masked-next"])
@pytest.mark.parametrize("asked", [0, 1.5, -0.5, "half", True])
def test_wrong_shares_are_refused(name, asked):
    with pytest.raises(BothwaysError, match=r"asked is .* but must be a number between 0 and 1"):
        make({"name": name, "asked": asked}, PLAIN)


def test_the_two_share_their_options():
    names = [make(name, PLAIN).option_names() for name in ("masked-next", "masked")]
    assert names[0][:3] == ("rate", "whole_words", "asked") and names[1] == (*names[0], "replace")
