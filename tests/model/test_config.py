"""A contradiction is refused when the config is built, in a sentence that names both choices."""

from __future__ import annotations

import pytest

from bothways.errors import BothwaysError
from bothways.model import FeedForward, ModelConfig, Norm, Position, Shape
from bothways.model.describe import describe
from bothways.visibility import bidirectional, chunked, window


@pytest.mark.parametrize(("build", "names"), [
    (lambda: ModelConfig(Shape(width=250, heads=4)), ("width 250", "heads 4", "head_size")),
    (lambda: ModelConfig(Shape(heads=4, key_heads=3)), ("heads 4", "key_heads 3")),
    (lambda: ModelConfig(Shape(heads=4, key_heads=-1)), ("key_heads is -1",)),
    (lambda: ModelConfig(Shape(width=36, heads=4)), ("rotary", "odd head size of 9")),
    (lambda: ModelConfig(Shape(width=35, heads=5), Position("sinusoidal")), ("sinusoidal", "width 35")),
    (lambda: ModelConfig(position=Position("relative"), soft_cap=30.0), ("relative", "soft_cap")),
    (lambda: ModelConfig(position=Position("relative", buckets=6)), ("buckets is 6",)),
    (lambda: ModelConfig(position=Position("relative", distance=16)), ("distance 16", "buckets 32")),
    (lambda: ModelConfig(position=Position("learned", length=0)), ("length is 0",)),
    (lambda: ModelConfig(reach="GXL"), ("reach is 'GXL'", "G (global), L (local) and C (chunk)")),
    (lambda: ModelConfig(reach=""), ("reach is ''",)),
    (lambda: ModelConfig(reach="L", local=0), ("local is 0",)),
    (lambda: ModelConfig(reach="CG", chunk=0), ("chunk is 0",)),
    (lambda: ModelConfig(Shape(layers=3), reach="CCCG"), ("reach 'CCCG'", "layers is 3")),
    (lambda: ModelConfig(dropout=1.0), ("dropout is 1.0",)),
    (lambda: ModelConfig(soft_cap=0.0), ("soft_cap is 0.0",)),
    (lambda: ModelConfig(norm=Norm(epsilon=0.0)), ("epsilon is 0.0",)),
    (lambda: ModelConfig(Shape(layers=0)), ("layers is 0",)),
    (lambda: ModelConfig(Shape(source_layers=-1)), ("source_layers is -1",)),
])
def test_contradictions_are_refused_by_name(build, names):
    with pytest.raises(BothwaysError) as error:
        build()
    for name in names:
        assert name in str(error.value)
    assert "\n" not in str(error.value)


def test_several_contradictions_are_named_at_once():
    with pytest.raises(BothwaysError, match=r"reach is 'Q'.*dropout is 2"):
        ModelConfig(reach="Q", dropout=2)


def test_sizes_that_follow_from_others():
    config = ModelConfig(Shape(width=256, heads=4, key_heads=2))
    assert (config.head_size, config.key_heads, config.inner, config.stack) == (64, 2, 704, "one tower")
    assert ModelConfig(feed_forward=FeedForward("plain")).inner == 1024
    assert ModelConfig(Shape(source_layers=2)).stack == "two towers"


def test_reach_is_tiled_over_the_layers():
    config = ModelConfig(reach="LLG", local=5)
    near = window(5, 5)
    assert [config.reach_of(i) for i in range(5)] == [near, near, bidirectional, near, near]


@pytest.mark.parametrize(("reach", "layers"), [
    ("GL", [bidirectional, window(2, 2), bidirectional, window(2, 2), bidirectional]),  # GPT-3, arXiv 2005.14165
    ("CCCG", [chunked(4), chunked(4), chunked(4), bidirectional, chunked(4)]),  # Llama 4
])
def test_the_patterns_of_papers_are_one_string(reach, layers):
    config = ModelConfig(reach=reach, local=2, chunk=4)
    assert [config.reach_of(i) for i in range(5)] == layers and config.narrow
    assert "reach CCCG (C: chunks of 4 tokens)" in describe(config) or reach == "GL"


def test_configs_are_values():
    assert ModelConfig() == ModelConfig() and hash(ModelConfig()) == hash(ModelConfig())
    assert ModelConfig(reach="L") != ModelConfig()
