"""LLaMA 2 and 3, Mistral, Qwen2 and Qwen3 with their rotary scalings, windows and biases, against `transformers`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.families import reference

from bothways import families
from bothways.errors import BothwaysError
from bothways.families.rotary import read_position, written_position
from bothways.families.settings import differences
from bothways.model import ModelConfig, Norm, Position, Scaling, Shape
from bothways.model.position import frequencies

transformers = pytest.importorskip("transformers")
LLAMA3 = {"rope_type": "llama3", "rope_theta": 5000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 32}
YARN = {"rope_type": "yarn", "rope_theta": 100.0, "factor": 4.0, "original_max_position_embeddings": 16}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama 2, grouped heads": ("Llama", {"num_key_value_heads": 2, "rms_norm_eps": 1e-5}),
    "llama 3": ("Llama", {"num_key_value_heads": 2, "rope_parameters": LLAMA3, "tie_word_embeddings": True}),
    "llama 3, odd heads, biases": ("Llama", {
        "head_dim": 22, "num_key_value_heads": 1, "rope_parameters": {**LLAMA3, "factor": 3.0, "high_freq_factor": 2.5},
        "attention_bias": True, "mlp_bias": True}),
    "llama, linear": ("Llama", {"rope_parameters": {"rope_type": "linear", "rope_theta": 300.0, "factor": 2.5}}),
    "llama, yarn": ("Llama", {"head_dim": 16, "rope_parameters": YARN}),
    "llama, yarn with everything said": ("Llama", {"head_dim": 20, "rope_parameters": {
        **YARN, "attention_factor": 1.3, "beta_fast": 8.0, "beta_slow": 0.5, "truncate": False}}),
    "mistral": ("Mistral", {"sliding_window": 5, "num_key_value_heads": 2}),
    "mistral, wide heads, no window": ("Mistral", {"sliding_window": None, "num_key_value_heads": 1, "head_dim": 14}),
    "mistral, yarn and window": ("Mistral", {"sliding_window": 9, "num_key_value_heads": 4, "rope_parameters": YARN,
                                             "tie_word_embeddings": True}),
    "qwen2": ("Qwen2", {"num_key_value_heads": 2}),
    "qwen2, upper layers narrow": ("Qwen2", {"num_key_value_heads": 4, "use_sliding_window": True, "sliding_window": 4,
                                             "max_window_layers": 1, "tie_word_embeddings": True}),
    "qwen2, layers by name, yarn": ("Qwen2", {
        "num_key_value_heads": 1, "use_sliding_window": True, "sliding_window": 6, "rope_parameters": YARN,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"]}),
    "qwen3, yarn": ("Qwen3", {"head_dim": 12, "num_key_value_heads": 2, "rope_parameters": YARN}),
    "qwen3, windows, biases": ("Qwen3", {"head_dim": 16, "num_key_value_heads": 2, "attention_bias": True,
                                         "use_sliding_window": True, "sliding_window": 3, "max_window_layers": 2}),
}


@pytest.mark.parametrize("name", CASES)
def test_theirs_is_ours(name: str, tmp_path: Path) -> None:
    family, options = CASES[name]
    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(
        vocab_size=101, hidden_size=32, intermediate_size=44, num_hidden_layers=3, num_attention_heads=4,
        max_position_embeddings=64, bos_token_id=1, eos_token_id=2, **options)
    theirs = getattr(transformers, f"{family}ForCausalLM")(config)
    reference.check(reference.shaken(theirs), tmp_path)


def test_llama_3_slows_what_turns_slowly() -> None:
    """By the model card: nothing to short waves, all of the factor to long ones, a blend between."""
    plain, scaled = frequencies(64, 1e4), frequencies(64, 1e4, Scaling("llama3", 8.0, 8192, 1.0, 4.0))
    for one, other in zip(plain.tolist(), scaled.tolist(), strict=True):
        wave = 2 * math.pi / one
        if wave < 8192 / 4:
            assert other == one
        elif wave > 8192:
            assert other == pytest.approx(one / 8)
        else:
            smooth = (8192 / wave - 1) / 3
            assert other == pytest.approx((1 - smooth) * one / 8 + smooth * one)


def test_yarn_by_hand() -> None:
    """Base 4, 8 numbers, 32 tokens: pair k turns 32 / (2 pi 2^k) times, so 2 turns lie at k = 1.35 and 1 at 2.35."""
    found = frequencies(8, 4.0 ** 2, Scaling("yarn", 10.0, 32, 1.0, 2.0))
    # whole pairs: from 1 to 3; pair 2 is half slowed
    assert found.tolist() == pytest.approx([1.0, 0.5, 0.25 * (0.5 + 0.05), 0.0125])
    exact = frequencies(8, 4.0 ** 2, Scaling("yarn", 10.0, 32, 1.0, 2.0, whole=False))
    slowed = 2 - math.log2(32 / (4 * math.pi))
    assert exact[2].item() == pytest.approx(0.25 * (1 - slowed + slowed / 10))


@pytest.mark.parametrize("scaling", [None, Scaling("linear", 3.0), Scaling("llama3", 8.0, 100, 1.0, 3.0),
                                     Scaling("yarn", 4.0, 50, 1.0, 32.0, 1.25, False)], ids=str)
def test_a_scaling_survives_the_way_there_and_back(scaling: Scaling | None) -> None:
    position = Position(base=300.0, length=77, scaling=scaling)
    assert read_position(written_position(position), "config.json") == position


def test_what_is_not_read_is_named() -> None:
    with pytest.raises(BothwaysError, match=r"rope_type 'longrope'.*default, linear, llama3, yarn are read"):
        read_position({"rope_parameters": {"rope_type": "longrope"}}, "config.json")
    with pytest.raises(BothwaysError, match=r"config.json in its rope_parameters lacks low_freq_factor"):
        read_position({"rope_scaling": {"type": "llama3", "factor": 2.0, "high_freq_factor": 4.0}}, "config.json")
    with pytest.raises(BothwaysError, match=r"layer_types names 'odd_attention'"):
        families.KNOWN["qwen2"].from_config({**SIZES, "layer_types": ["odd_attention"] * 2}, "config.json")
    with pytest.raises(BothwaysError, match=r"sliding_window 1, but a window of at least 2"):
        families.KNOWN["mistral"].from_config({**SIZES, "sliding_window": 1}, "config.json")
    with pytest.raises(BothwaysError, match=r"position.scaling slows rotary angles, but position.kind is 'learned'"):
        ModelConfig(position=Position("learned", scaling=Scaling(factor=2.0)))
    with pytest.raises(BothwaysError, match=r"position.scaling.slow 3.0 must be above 0 and below"):
        ModelConfig(position=Position(scaling=Scaling("yarn", 2.0, slow=3.0, fast=2.0)))


SIZES = {"vocab_size": 50, "hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 4}
SHAPE = Shape(50, 32, 2, 0, 4)


@pytest.mark.parametrize(("config", "family"), [
    (ModelConfig(SHAPE, Position(scaling=Scaling("llama3", 8.0))), "llama"),
    (ModelConfig(SHAPE, Position(scaling=Scaling("yarn", 8.0, fast=32.0))), "llama"),
    (ModelConfig(SHAPE, reach="L", local=7), "mistral"),
    (ModelConfig(SHAPE, bias=("queries",)), "qwen2"),
    (ModelConfig(SHAPE, bias=("queries",), reach="GL", local=7), "qwen2"),
    (ModelConfig(SHAPE, norm=Norm(query_key=True), reach="LG", local=7), "qwen3"),
])
def test_each_fits_its_own(config: ModelConfig, family: str) -> None:
    fits = [name for name, one in families.KNOWN.items() if one.direction == "causal" and one.obstacle(config) is None]
    assert fits[0] == family


def test_a_scaling_counts_as_a_choice() -> None:
    llama = families.KNOWN["llama"]
    scaled, other = (ModelConfig(SHAPE, Position(scaling=Scaling("yarn", factor, fast=9.0))) for factor in (2.0, 3.0))
    assert llama.obstacle(scaled) is None
    assert list(differences(scaled, other)) and list(differences(scaled, ModelConfig(SHAPE)))
    assert not list(differences(ModelConfig(SHAPE, Position(scaling=Scaling(factor=1.0))), ModelConfig(SHAPE)))
