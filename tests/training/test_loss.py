from __future__ import annotations

import pytest
import torch

from bothways.objectives.base import Part
from bothways.training.loss import Sums


def test_rows_add_up_to_the_whole_step_whatever_they_hold() -> None:
    """Two rows, of 1 and 9 targets: the total is the mean over ten, not the mean of two means."""
    weight = torch.ones((), requires_grad=True)
    sums = Sums({"a": 10.0, "b": 4.0})
    for parts in ([Part("a", 3 * weight, 1.0), Part("b", 4 * weight, 4.0, 0.5)], [Part("a", 7 * weight, 9.0)]):
        share = sums.add(parts, rows=2)
        assert share is not None
        share.backward()
    assert sums.means() == {"a": 1.0, "b": 1.0} and sums.total() == 1.5
    assert weight.grad is not None and weight.grad.item() == 1.5


def test_a_part_nobody_asked_for_is_a_mean_over_rows() -> None:
    sums = Sums({})
    sums.add([Part("router", torch.tensor(6.0), 2.0)], rows=2)
    sums.add([Part("router", torch.tensor(10.0), 2.0)], rows=2)
    assert sums.means() == {"router": 4.0}


def test_nothing_asked_is_nothing() -> None:
    sums = Sums({"a": 0.0})
    assert sums.add([], rows=1) is None
    assert sums.add([Part("a", torch.tensor(0.0), 0.0)], rows=1) == pytest.approx(0.0)
    assert sums.total() == 0.0
