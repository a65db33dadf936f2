"""Dropout with cheap bits: what falls out, how often, and what the rest is multiplied with."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from bothways.model import explicit
from bothways.model.dropout import FEW, dropout, growth, kept
from bothways.model.render import render
from bothways.visibility import bidirectional, make_fields, same_document


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_numbers_fall_out_at_the_rate_and_the_rest_is_scaled(dtype: torch.dtype, rate: float) -> None:
    torch.manual_seed(0)
    states = torch.ones(700, 1000, dtype=dtype)
    thinned = dropout(states, rate)
    grown = float(torch.tensor(growth(rate), dtype=torch.float64).to(dtype))
    assert thinned.dtype == dtype and set(thinned.unique().tolist()) == {0.0, grown}
    assert growth(rate) == pytest.approx(1 / (1 - rate), rel=2e-4)
    # five standard deviations of 700,000 draws
    gone = (thinned == 0).double()
    assert gone.mean().item() == pytest.approx(rate, abs=5 * (rate * (1 - rate) / 7e5) ** 0.5)
    # every place alike, also the four that come out of one draw; neighbours independent
    by_place = gone.reshape(-1, 4).mean(0)
    assert (by_place - rate).abs().max().item() < 5 * (rate * (1 - rate) * 4 / 7e5) ** 0.5
    both = (gone[:, 1:] * gone[:, :-1]).mean().item()
    assert both == pytest.approx(rate * rate, abs=5 * (rate * rate * (1 - rate * rate) / 7e5) ** 0.5)


def test_the_seed_repeats_it_and_calls_differ() -> None:
    states = torch.ones(3, FEW)
    torch.manual_seed(3)
    first, second = dropout(states, 0.1), dropout(states, 0.1)
    torch.manual_seed(3)
    assert torch.equal(first, dropout(states, 0.1)) and not torch.equal(first, second)


@pytest.mark.parametrize("size", [(5,), (FEW + 3,), (0,), (3, 1, FEW)])
def test_any_shape_and_nothing_outside_training(size: tuple[int, ...]) -> None:
    states = torch.randn(size)
    assert dropout(states, 0.3).shape == states.shape and kept(states, 0.3).shape == states.shape
    assert dropout(states, 0.3, training=False) is states and dropout(states, 0.0) is states


def test_the_gradient_goes_where_the_number_went() -> None:
    states = torch.randn(4, FEW, requires_grad=True)
    thinned = dropout(states, 0.25)
    thinned.sum().backward()
    assert states.grad is not None
    assert torch.allclose(thinned, states * states.grad)
    assert torch.allclose(states.grad, torch.where(states.grad == 0, 0.0, growth(0.25)))


def test_attention_with_dropout_equals_its_definition_and_so_do_its_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    """The own backward of attention, against automatic gradients of the same function with the same chosen weights."""
    torch.manual_seed(0)
    length, heads, size = 10, 2, 4
    fields = {**make_fields(length), "document": torch.zeros(length, dtype=torch.long)}
    plan = render(bidirectional & same_document, fields, None, torch.device("cpu"))
    chosen = (torch.rand(heads, length, length) > 0.3).double()
    monkeypatch.setattr(explicit, "kept", lambda like, rate: chosen.to(like.dtype))
    fused = torch.randn(length, 3 * heads, size, dtype=torch.float64, requires_grad=True)
    queries, keys, values = (part.transpose(0, 1) for part in fused.chunk(3, dim=1))
    weights = F.softmax(0.5 * queries @ keys.transpose(1, 2), -1) * chosen * growth(0.3)
    wanted = (weights @ values).transpose(0, 1)
    grad = torch.randn(length, heads, size, dtype=torch.float64)
    by_hand, = torch.autograd.grad(wanted, fused, grad)
    read = explicit.look(fused, None, heads, plan, 0.5, dropout=0.3)
    ours, = torch.autograd.grad(read, fused, grad)
    assert torch.allclose(read, wanted) and torch.allclose(ours, by_hand)
