"""Counted operations agree with the framework's own counter; descriptions say what is true."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from bothways.batch import Example, pack
from bothways.model import (
    FeedForward,
    LanguageModel,
    ModelConfig,
    Position,
    Shape,
    cost,
    describe,
)
from bothways.objectives.base import Profile
from bothways.visibility import bidirectional, causal, same_document, window

ONE = ModelConfig(Shape(96, 32, 3, heads=4, key_heads=2))
T5 = ModelConfig(Shape(source_layers=6), Position("relative"), feed_forward=FeedForward("gated", "gelu_tanh"),
                 scale=1.0, tied=False)
TWO = ModelConfig(Shape(96, 32, 2, source_layers=3, heads=4), feed_forward=FeedForward("plain"))


def counted(network, example, asked):
    with FlopCounterMode(display=False) as forward:
        loss = network.logits(network(example).states[:asked]).sum()
    with FlopCounterMode(display=False) as backward:
        loss.backward()
    return forward.get_total_flops(), forward.get_total_flops() + backward.get_total_flops()


@pytest.mark.parametrize("visibility", [bidirectional, causal], ids=repr)
def test_one_tower_costs_what_is_counted(visibility):
    texts = [Example(torch.randint(44, 96, (20,)), visibility) for _ in range(3)]
    row, = pack(texts)
    forward, both = counted(LanguageModel(ONE), row, 15)
    profile = Profile(visibility, asked=15 / 60)
    assert cost.flops(ONE, profile, 20, training=False, as_run=True) * 60 == pytest.approx(forward, rel=1e-6)
    assert cost.flops(ONE, profile, 20, as_run=True) * 60 == pytest.approx(both, rel=0.01)


def test_two_towers_cost_what_is_counted():
    texts = [Example(torch.randint(44, 96, (8,)), causal, source=Example(torch.randint(44, 96, (17,)), bidirectional),
                     cross=bidirectional) for _ in range(3)]
    row, = pack(texts)
    forward, both = counted(LanguageModel(TWO), row, 24)
    profile = Profile(causal, inputs=8 / 20, asked=8 / 20, source_inputs=17 / 20)
    assert cost.flops(TWO, profile, 20, training=False, as_run=True) * 60 == pytest.approx(forward, rel=1e-6)
    assert cost.flops(TWO, profile, 20, as_run=True) * 60 == pytest.approx(both, rel=0.01)


def test_a_causal_text_needs_about_half_the_pairs():
    whole, half = (cost.flops(ONE, Profile(v, asked=0.0), 400, training=False) for v in (bidirectional, causal))
    pairs = 4 * 400 * 3 * 4 * 8
    assert whole - half == pytest.approx(pairs * 399 / 800)
    assert cost.flops(ONE, Profile(causal), 400) > cost.flops(ONE, Profile(causal & window(8, 0)), 400)
    assert cost.flops(ONE, Profile(causal), 400, as_run=True) > cost.flops(ONE, Profile(causal), 400)


def test_the_head_costs_where_something_is_asked():
    dear, cheap = (cost.flops(ONE, Profile(bidirectional, asked=asked), 64, training=False) for asked in (1.0, 0.15))
    assert dear - cheap == pytest.approx(2 * 32 * 96 * 0.85)


def test_the_published_rule_of_thumb_holds_where_it_should():
    """Six operations for each weight and token, for a wide network on a short text (Kaplan et al., table 1)."""
    config = ModelConfig(Shape(256, 1024, 2, heads=8), feed_forward=FeedForward("plain"))
    count = cost.parameters(config)
    assert count["non_embedding"] == pytest.approx(12 * 1024**2 * 2, rel=0.001)
    assert cost.flops(config, Profile(causal, asked=0.0), 8) == pytest.approx(6 * count["non_embedding"], rel=0.01)


def test_parameters_are_those_of_the_network():
    for config in (ONE, TWO, ModelConfig(Shape(96, 32, 1), Position("learned", length=10), tied=False)):
        network = LanguageModel(config)
        count = cost.parameters(config)
        assert count == cost.parameters(network)
        assert count["total"] == count["active"] == sum(weight.numel() for weight in network.parameters())
    assert count["total"] - count["non_embedding"] == 2 * 96 * 32 + 10 * 32


def test_a_description_says_the_numbers():
    text = describe(ONE, Profile(causal & same_document), 128)
    count = cost.parameters(ONE)
    assert f"{count['total']:,} in all, {count['non_embedding']:,} without embeddings" in text
    assert f"{cost.flops(ONE, Profile(causal & same_document), 128):,.0f} to train on a raw token" in text
    assert "4 heads of 8 sharing 2 of keys" in text
    assert "3 + 2 layers in two towers" in describe(TWO)
