"""Weights of few bits: the error that rounding gives and no more, everywhere a linear layer is, and what is refused."""

from __future__ import annotations

import pytest
import torch

from bothways.batch import Example
from bothways.errors import BothwaysError
from bothways.model import FeedForward, LanguageModel, ModelConfig, Shape
from bothways.model.compact import BITS, GROUP, Compact, Int4, Int8, bits_of, compact, fits, read_as
from bothways.model.companions import Companion
from bothways.model.config import Mixer, Position
from bothways.model.fitted import fitted
from bothways.visibility import bidirectional, causal

ROWS = (1, 3, 40)


def states(rows: int, width: int = 64) -> torch.Tensor:
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(rows))


def layer(outputs: int = 48, width: int = 64) -> torch.nn.Linear:
    torch.manual_seed(1)
    return torch.nn.Linear(width, outputs)


@pytest.mark.parametrize("bits", BITS)
def test_each_weight_is_off_by_half_a_step(bits: str) -> None:
    whole = layer()
    made = (Int8 if bits == "int8" else Int4)(whole.weight, whole.bias)
    error = (made.weight - whole.weight).abs()
    if bits == "int8":
        steps = (whole.weight.abs().amax(1, keepdim=True) / 127).expand_as(error)
    else:
        groups = whole.weight.unflatten(1, (-1, GROUP))
        steps = ((groups.amax(-1) - groups.amin(-1)) / 15).repeat_interleave(GROUP, dim=1)
    # offsets and sums of int4 are rounded to bfloat16
    slack = 0 if bits == "int8" else whole.weight.abs().max() * 2 ** -7
    assert bool((error <= 0.501 * steps + slack).all())
    assert error.max() > 0.3 * steps.min()


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("bits", BITS)
def test_a_layer_multiplies_by_its_weights(bits: str, rows: int) -> None:
    whole, inputs = layer(), states(rows)
    made = (Int8 if bits == "int8" else Int4)(whole.weight, whole.bias)
    right = inputs @ made.weight.T + whole.bias
    got = made(inputs)
    assert got.dtype == torch.float32 and got.shape == (rows, 48)
    assert (got - right).norm() < 0.006 * right.norm()  # states and sums rounded to bfloat16
    assert torch.equal(made(inputs[None])[0], got)
    assert made.bfloat16()(inputs.bfloat16()).dtype == torch.bfloat16


def test_int8_keeps_small_outputs_beside_large_ones() -> None:
    weight = torch.eye(16)
    weight[3] *= 1e-4
    torch.testing.assert_close(Int8(weight, None).weight, weight)


def network(stack: str) -> LanguageModel:
    torch.manual_seed(0)
    shape = Shape(96, 64, 2, 2 if stack == "two towers" else 0, 4)
    kind = {"one tower": {}, "two towers": {"tied": False}, "plain": {"feed_forward": FeedForward("plain")},
            "mamba": {"mixer": Mixer("mamba2", head_size=32), "position": Position("none")}}[stack]
    return LanguageModel(ModelConfig(shape, **kind)).eval()  # type: ignore[arg-type]


def example(two: bool, visibility: object = causal) -> Example:
    ids = torch.arange(10, 30)
    if two:
        return Example(ids, causal, source=Example(ids.flip(0), bidirectional), cross=bidirectional)
    return Example(ids, visibility)  # type: ignore[arg-type]


@pytest.mark.parametrize("stack", ["one tower", "two towers", "plain", "mamba"])
@pytest.mark.parametrize("bits,most", [("int8", 0.02), ("int4", 0.25)])
def test_logits_stay_close(stack: str, bits: str, most: float) -> None:
    two = stack == "two towers"
    plain = network(stack)
    with torch.no_grad():
        right = plain.logits(plain(example(two)).states)
        light = compact(network(stack), bits)  # type: ignore[arg-type]
        got = light.logits(light(example(two)).states)
    error = float((got - right).norm() / right.norm())
    assert 1e-4 < error < most
    # every linear layer is one of them, the head too, and the embedding is not
    left = [part for part in light.modules() if isinstance(part, torch.nn.Linear)]
    assert not any(fits(part.weight, bits) for part in left)  # type: ignore[arg-type]
    assert not left or (stack, bits) == ("mamba", "int4")
    assert isinstance(light.head, Compact) and light.embedding.weight.dtype == torch.float32
    assert bits_of(light) == bits and bits in repr(light)


def test_a_cache_gives_the_same_as_none() -> None:
    light = compact(network("one tower"), "int8")
    row = example(False)
    with torch.inference_mode():
        whole = light(row).states
        cache, parts = light.cache(1, 32), []
        for first in range(0, 20, 4):
            fields = cache.fields(4)
            parts.append(light(Example(row.inputs[first:first + 4], causal, fields), cache=cache).states)
    torch.testing.assert_close(torch.cat(parts), whole, atol=0.02, rtol=0.02)


def test_what_compact_networks_refuse() -> None:
    light = compact(network("one tower"), "int8")
    with pytest.raises(BothwaysError, match="cannot be trained"):
        light.train()
    with pytest.raises(BothwaysError, match="cannot be made compact again"):
        compact(light, "int4")
    with pytest.raises(BothwaysError, match="cannot be split for adapters"):
        light.split_projections()
    with pytest.raises(BothwaysError, match="cannot be given further parts"):
        fitted(light, (Companion("order", "classes", 2),))
    with pytest.raises(BothwaysError, match="int8 or int4"):
        compact(network("one tower"), "int2")  # type: ignore[arg-type]
    light.eval()


def test_ways_to_read_weights() -> None:
    assert read_as(None, torch.float16) == (torch.float16, None)
    assert read_as("float32", None) == (torch.float32, None)
    assert read_as("int4", torch.bfloat16) == (torch.bfloat16, "int4")
    with pytest.raises(BothwaysError, match="int8 or int4"):
        read_as("int3", None)
    with pytest.raises(BothwaysError, match="both say"):
        read_as("float32", torch.float32)


def test_a_layer_that_int4_does_not_fit_stays_whole() -> None:
    odd = LanguageModel(ModelConfig(Shape(97, 64, 1, 0, 4))).eval()
    assert compact(odd, "int4").head is None and bits_of(odd) == "int4"
