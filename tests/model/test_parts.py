"""Parts with a backward of their own have the derivative of what they compute."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from bothways.errors import BothwaysError
from bothways.model import FeedForward, ModelConfig, Norm, Shape
from bothways.model.allocator import keep_memory
from bothways.model.feed_forward import ACTIVATIONS, gelu_tanh, make_feed_forward
from bothways.model.norm import RMSNorm, make_norm
from bothways.model.position import SinusoidalPositions


@pytest.mark.parametrize("shape", [(7, 12), (5, 3, 12), (0, 12)], ids=str)
def test_rms_norm_is_the_librarys_with_its_gradients(shape):
    torch.manual_seed(0)
    norm = RMSNorm(12, 1e-3).double()
    torch.nn.init.normal_(norm.weight)
    states, upstream = torch.randn(shape, dtype=torch.float64), torch.randn(shape, dtype=torch.float64)
    results = []
    for compute in (norm, lambda x: F.rms_norm(x, (12,), norm.weight, 1e-3)):
        leaf = states.clone().requires_grad_()
        norm.weight.grad = None
        read = compute(leaf)
        read.backward(upstream)
        results.append((read, leaf.grad, norm.weight.grad))
    for ours, theirs in zip(*results):
        torch.testing.assert_close(ours, theirs)


def test_a_norm_without_a_weight_has_none_and_divides_alone():
    config = ModelConfig(norm=Norm(weight=False, epsilon=1e-3))
    norm, states = make_norm(config, 12), torch.randn(5, 12, dtype=torch.float64)
    assert not list(norm.parameters())
    torch.testing.assert_close(norm(states), states / (states.square().mean(-1, keepdim=True) + 1e-3).sqrt())
    layer = make_norm(ModelConfig(norm=Norm("layer", weight=False, epsilon=1e-3)), 12)
    assert not list(layer.parameters())
    with pytest.raises(BothwaysError, match=r"norm\.weight is false, but norm\.centred"):
        ModelConfig(norm=Norm(weight=False, centred=True))
    with pytest.raises(BothwaysError, match=r"norm\.weight is false, but norm\.bias"):
        ModelConfig(norm=Norm("layer", weight=False), bias=True)


def test_a_squared_relu_by_hand():
    assert ACTIVATIONS["relu_squared"](torch.tensor([-2.0, 0.0, 0.5, 3.0])).tolist() == [0.0, 0.0, 0.25, 9.0]


def test_rms_norm_in_low_precision_stays_near():
    torch.manual_seed(0)
    norm, states = RMSNorm(256, 1e-6), 30 * torch.randn(64, 256)
    exact = norm(states)
    low = norm.to(torch.bfloat16)(states.bfloat16())
    assert low.dtype == torch.bfloat16
    torch.testing.assert_close(low.float(), exact, atol=0.02, rtol=0.02)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("bias", [False, True])
def test_a_gated_feed_forward_has_the_gradients_of_its_formula(activation, bias):
    torch.manual_seed(0)
    config = ModelConfig(Shape(width=8, heads=2, inner=6), feed_forward=FeedForward("gated", activation), bias=bias)
    layer = make_feed_forward(config).double()
    states, upstream = torch.randn(5, 8, dtype=torch.float64), torch.randn(5, 8, dtype=torch.float64)

    def formula(x):
        up, gate = F.linear(x, layer.up_gate.weight, layer.up_gate.bias).chunk(2, dim=-1)
        return layer.down(up * ACTIVATIONS[activation](gate))
    results = []
    for compute in (layer, formula):
        layer.zero_grad()
        leaf = states.clone().requires_grad_()
        compute(leaf).backward(upstream)
        results.append((leaf.grad, *(weight.grad for weight in layer.parameters())))
    for ours, theirs in zip(*results):
        torch.testing.assert_close(ours, theirs)


def test_gelu_by_tanh_is_the_librarys_with_its_gradient():
    torch.manual_seed(0)
    inputs = torch.randn(300, 500, dtype=torch.float64) * 3
    inputs[:, :4] = torch.tensor([-1e3, 0.0, 1e3, 40.0])
    results = []
    for compute in (gelu_tanh, lambda x: F.gelu(x, approximate="tanh")):
        leaf = inputs.clone().requires_grad_()
        bent = compute(leaf)
        bent.backward(inputs.cos())
        results.append((bent, leaf.grad))
    for ours, theirs in zip(*results):
        torch.testing.assert_close(ours, theirs)
    assert not gelu_tanh(inputs).requires_grad
    low = gelu_tanh(inputs.bfloat16()[:, ::2])
    torch.testing.assert_close(low.double(), results[0][0].detach()[:, ::2], atol=0.02, rtol=0.02)


def test_the_norm_is_the_one_the_config_chooses():
    layer = make_norm(ModelConfig(norm=Norm("layer", epsilon=1e-3), bias=True), 8)
    assert isinstance(layer, torch.nn.LayerNorm) and layer.bias is not None and layer.eps == 1e-3
    assert make_norm(ModelConfig(norm=Norm("layer")), 8).bias is None
    assert isinstance(make_norm(ModelConfig(), 8), RMSNorm)


def test_sinusoids_are_sine_and_cosine_of_the_place():
    waves = SinusoidalPositions(4, 100.0)(torch.tensor([0, 3]))
    expected = torch.tensor([[0.0, 1.0, 0.0, 1.0],
                             [*(f(torch.tensor(3.0)).item() for f in (torch.sin, torch.cos)),
                              *(f(torch.tensor(0.3)).item() for f in (torch.sin, torch.cos))]])
    torch.testing.assert_close(waves, expected)


def test_asking_to_keep_memory_says_whether_it_worked():
    assert keep_memory() in (True, False)
