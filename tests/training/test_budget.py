from __future__ import annotations

import pytest

from bothways.errors import BothwaysError
from bothways.training.budget import Budget, Cost, count, duration, steps_of


@pytest.mark.parametrize(
    ("text", "amount", "unit"),
    [
        ("10min", 600, "seconds"),
        ("4h", 14400, "seconds"),
        ("30s", 30, "seconds"),
        ("1.5 min", 90, "seconds"),
        ("5m", 300, "seconds"),
        ("2M tokens", 2e6, "tokens"),
        ("2 M tokens", 2e6, "tokens"),
        ("3B tokens", 3e9, "tokens"),
        ("500 steps", 500, "steps"),
        ("2k steps", 2000, "steps"),
        ("1e14 flops", 1e14, "flops"),
        ("1.5e14flops", 1.5e14, "flops"),
        ("20 TFLOPs", 2e13, "flops"),
        ("1 step", 1, "steps"),
        ("1_000 steps", 1000, "steps"),
    ],
)
def test_amounts_as_people_write_them(text: str, amount: float, unit: str) -> None:
    assert Budget.parse(text) == Budget(amount, unit)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "text", ["", "10", "2M", "min", "ten minutes", "-5 min", "0s", "5 parsecs", "10 Mmin", "0.2 steps", "1e400 flops"]
)
def test_what_cannot_be_read_is_named(text: str) -> None:
    with pytest.raises(BothwaysError, match="budget"):
        Budget.parse(text)


@pytest.mark.parametrize("text", ["90s", "2.5M tokens", "1e14 flops", "7 steps", "0.25 s"])
def test_a_printed_budget_reads_back(text: str) -> None:
    assert Budget.parse(str(Budget.parse(text))) == Budget.parse(text)


def test_every_currency_becomes_steps() -> None:
    known = {"tokens_per_step": 1000.0, "flops_per_token": 1e6}
    assert steps_of(Budget(7, "steps"), **known) == 7
    assert steps_of(Budget(50_000, "tokens"), **known) == 50
    assert steps_of(Budget(2e10, "flops"), **known) == 20
    assert steps_of(Budget(10, "seconds"), **known, seconds_per_step=0.1) == 100
    assert steps_of(Budget(1, "tokens"), **known) == 1, "a run has at least one step"


def test_numbers_as_people_say_them() -> None:
    assert count(1234567) == "1.23M" and count(999) == "999" and count(3.2e14) == "320T"
    assert duration(4.25) == "4.2 s" and duration(125) == "2 min 05 s" and duration(7260) == "2 h 01 min"
    assert str(Cost(10, 20480, 1e9, 3.0)) == "10 steps = 20.5k tokens = 1GFLOPs = 3.0 s"
