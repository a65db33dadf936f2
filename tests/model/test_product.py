"""Products by either library are the same; which one is asked depends on processor, size and number format alone."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from bothways.batch import Example
from bothways.model import LanguageModel, ModelConfig, Shape, product
from bothways.visibility import causal

SHAPES = [((300, 256), 512), ((300, 512), 256), ((4, 75, 256), 512), ((8, 512), 512), ((1, 1024), 2048)]


@pytest.fixture(autouse=True)
def other_maker(monkeypatch):
    """A processor that MKL does not know, whatever this one is."""
    monkeypatch.setattr(product, "preferred", lambda: hasattr(torch.ops.mkldnn, "_linear_pointwise"))


@pytest.fixture
def asked(monkeypatch):
    """The shapes of inputs that oneDNN is asked to multiply."""
    found, wide = [], product.wide
    monkeypatch.setattr(product, "wide", lambda inputs, *rest: found.append(tuple(inputs.shape)) or wide(inputs, *rest))
    return found


def near(one, other):
    assert (one - other).abs().max() <= 1e-5 * other.abs().max()
    assert one.stride() == other.stride()


@pytest.mark.parametrize(("shape", "outputs"), SHAPES, ids=str)
@pytest.mark.parametrize("biased", [False, True])
def test_products_and_their_gradients_are_the_frameworks(shape, outputs, biased, asked):
    layer = product.Linear(shape[-1], outputs, bias=biased)
    inputs = torch.randn(shape, requires_grad=True)
    leaves = [inputs, *layer.parameters()]
    ours, theirs = layer(inputs), F.linear(inputs, layer.weight, layer.bias)
    assert asked == [shape]
    near(ours, theirs)
    grad = torch.randn_like(ours)
    for one, other in zip(torch.autograd.grad(ours, leaves, grad), torch.autograd.grad(theirs, leaves, grad),
                          strict=True):
        near(one, other)
    with torch.no_grad():
        near(layer(inputs), theirs)


def test_only_the_gradients_that_are_wanted_are_made(asked):
    inputs, weight = torch.randn(300, 256), torch.randn(512, 256, requires_grad=True)
    product.product(inputs, weight).sum().backward()
    assert weight.grad is not None and len(asked) == 2
    frozen = weight.detach()
    moving = inputs.clone().requires_grad_()
    product.product(moving, frozen).sum().backward()
    near(moving.grad, torch.ones(300, 512) @ frozen)
    assert len(asked) == 4


def test_rows_of_a_slice_and_of_a_transposed_tensor(asked):
    wide, weight = torch.randn(300, 700), torch.randn(256, 512)
    near(product.product(wide[:, 100:356], weight.t()), wide[:, 100:356] @ weight)
    near(product.product(wide.t()[:256].t(), weight.t()), wide[:, :256] @ weight)
    assert len(asked) == 2


@pytest.mark.filterwarnings("ignore:TF32")
def test_small_products_other_formats_and_traces_stay_with_the_framework(asked):
    weight, many = torch.randn(512, 256), torch.randn(300, 256)
    assert torch.equal(product.product(many[:4], weight), F.linear(many[:4], weight))
    assert torch.equal(product.product(many[:33], weight), F.linear(many[:33], weight))
    for dtype in (torch.float64, torch.bfloat16):
        product.product(many.to(dtype), weight.to(dtype))
    assert product.product(many[:0], weight).shape == (0, 512)
    with torch.autocast("cpu", torch.bfloat16):
        assert product.product(many, weight).dtype == torch.bfloat16
    with torch.backends.mkldnn.flags(enabled=False):
        product.product(many, weight)
    layer = product.Linear(256, 512)
    program = torch.export.export(layer, (many,))
    assert "mkldnn" not in str(program.graph)
    assert not asked


@pytest.mark.parametrize(("maker", "capability", "wanted"), [
    ("AuthenticAMD", "AVX512", True), ("GenuineIntel", "AVX512", False), ("", "AVX512", False),
    ("AuthenticAMD", "AVX2", False)])
def test_the_processor_decides(monkeypatch, maker, capability, wanted):
    monkeypatch.undo()
    monkeypatch.setattr(product, "_maker", lambda: maker)
    monkeypatch.setattr(product.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    there = torch.backends.mkl.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    product.preferred.cache_clear()
    assert product.preferred() == (wanted and there)
    product.preferred.cache_clear()


def test_a_network_says_the_same_either_way(asked, monkeypatch):
    network = LanguageModel(ModelConfig(Shape(640, 256, 2, heads=4)))
    example = Example(torch.randint(44, 640, (100,)), causal)

    def run():
        network.zero_grad()
        logits = network.logits(network(example).states)
        logits.square().mean().backward()
        return [logits.detach(), *(one.grad for one in network.parameters())]
    ours, calls = run(), len(asked)
    monkeypatch.setattr(product, "preferred", lambda: False)
    theirs = run()
    assert calls == len(asked) and calls >= 3 * 2 * 3
    for one, other in zip(ours, theirs, strict=True):
        assert (one - other).abs().max() <= 1e-4 * other.abs().max()
