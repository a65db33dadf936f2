from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bothways.training.config import Schedule
from bothways.training.schedule import factor, geometric


def test_warm_up_stay_come_down() -> None:
    schedule = Schedule(warmup=0.1, decay=0.2)
    factors = [factor(schedule, step, 100) for step in range(1, 101)]
    assert factors[:10] == pytest.approx([step / 10 for step in range(1, 11)])
    assert factors[10:80] == [1.0] * 70
    assert factors[80] == 1.0 and factors[90] == pytest.approx(1 - math.sqrt(0.5))
    assert factors[-1] == pytest.approx(1 - math.sqrt(19 / 20))


def test_the_floor_is_kept() -> None:
    assert factor(Schedule(warmup=0, decay=1.0, floor=0.1), 10_000, 10_000) == pytest.approx(0.1, abs=1e-3)


@given(st.integers(1, 300), st.floats(0, 0.5), st.floats(0, 0.5), st.floats(0, 1))
def test_every_step_moves(steps: int, warmup: float, decay: float, floor: float) -> None:
    factors = [factor(Schedule(warmup, decay, floor), step, steps) for step in range(1, steps + 1)]
    assert all(0 < value <= 1 for value in factors)


def test_a_step_outside_the_run_is_refused() -> None:
    for step in (0, 11):
        with pytest.raises(ValueError, match="not one of"):
            factor(Schedule(), step, 10)


@given(st.integers(1, 5000), st.floats(1.05, 4))
def test_a_curve_has_its_ends_and_grows(steps: int, ratio: float) -> None:
    places = geometric(steps, ratio)
    assert places[0] == 1 and places[-1] == steps and places == sorted(set(places))
    assert len(places) <= 3 + math.log(steps) / math.log(ratio)
