"""Speeds are positive numbers with their repeats; no time is asserted."""

from __future__ import annotations

import pytest
from tests.evaluation.small import PARADIGMS, small, texts

from bothways.evaluation import speed


@pytest.mark.parametrize("paradigm", PARADIGMS)
def test_speeds_of_every_paradigm(paradigm):
    trained = small(paradigm)
    windows = [window.ids for window in texts(trained, 4, 16)]
    read = speed.encoding_speed(trained, windows, repeats=2)
    written = speed.writing_speed(trained, windows[:1], new_tokens=3, mode=trained.objective.modes[0].name)
    for score in (read, written):
        assert score.value > 0 and len(score.items) == 2 and score.estimator == "median of 2 repeats"


def test_memory_and_parameters():
    trained = small("causal")
    assert speed.peak_memory().value > 50
    counted = speed.parameters(trained)
    assert counted.value == sum(weight.numel() for weight in trained.network.parameters())
    assert counted.details["non_embedding"] < counted.value
