"""Llama 4's text part against `transformers`: chunks, layers without rotary places, experts weighted as they enter."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.families import reference

import bothways
from bothways import families
from bothways.errors import BothwaysError
from bothways.model.cache import Cache
from bothways.objectives.base import example

transformers = pytest.importorskip("transformers")
SIZES = {"vocab_size": 101, "hidden_size": 32, "intermediate_size": 12, "intermediate_size_mlp": 44,
         "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 10,
         "max_position_embeddings": 64, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
         "num_local_experts": 4, "attention_chunk_size": 5}
LLAMA3 = {"rope_type": "llama3", "rope_theta": 100.0, "factor": 4.0, "original_max_position_embeddings": 16,
          "low_freq_factor": 1.0, "high_freq_factor": 4.0}
CASES: dict[str, dict[str, Any]] = {
    "as published, temperature within reach": {"floor_scale": 4, "attn_scale": 0.3},
    "every second, no norm, tied, biases": {
        "interleave_moe_layer_step": 2, "use_qk_norm": False, "tie_word_embeddings": True, "attention_bias": True,
        "no_rope_layer_interval": 2, "attn_temperature_tuning": False, "num_experts_per_tok": 2},
    "scaled, odd layers, full ones that turn": {
        "num_hidden_layers": 3, "no_rope_layers": [1, 0, 1], "moe_layers": [2], "rope_parameters": LLAMA3,
        "layer_types": ["full_attention", "chunked_attention", "chunked_attention"], "head_dim": 8,
        "num_key_value_heads": 4, "attention_chunk_size": 3, "num_local_experts": 3, "num_experts_per_tok": 3,
        "floor_scale": 6},
    "all turn": {"no_rope_layers": [1] * 4, "num_key_value_heads": 1},
}


def published(options: dict[str, Any]) -> Any:
    torch.manual_seed(0)
    return reference.shaken(transformers.Llama4ForCausalLM(transformers.Llama4TextConfig(**{**SIZES, **options})))


@pytest.mark.parametrize("name", CASES)
def test_theirs_is_ours(name: str, tmp_path: Path) -> None:
    ours = reference.check(published(CASES[name]), tmp_path, tolerance=reference.SCANS)
    assert "C" in ours.config.reach


def test_a_long_text_reaches_over_chunks_only_where_layers_see_all(tmp_path: Path) -> None:
    """Behind 23 chunks: the same logits whole, by a cache, and by one that keeps a chunk alone in its narrow layers."""
    theirs, ids = published({"attention_chunk_size": 3, "floor_scale": 8}), reference.ids_of(101, 2, 60)
    theirs.save_pretrained(tmp_path)
    ours = bothways.from_pretrained(tmp_path)
    network, sees = ours.trained.network, ours.objective.modes[0].visibility
    with torch.no_grad():
        wanted = theirs(input_ids=ids).logits
        reference.same(ours.logits(ids), wanted, reference.SCANS)
        for slack in (None, 0):
            cache = Cache(network.config, 1, 60, torch.float32, torch.device("cpu"), slack=slack)
            for first, last in ((0, 31), (31, 33), *((i, i + 1) for i in range(33, 60))):
                row = example(ids[0, first:last].numpy(), sees)
                states = network(replace(row, fields=cache.fields(last - first)), cache).states
                reference.same(network.logits(states), wanted[0, first:last], reference.SCANS)


@pytest.mark.parametrize(("name", "options"), [
    ("no_rope_layers", {"no_rope_layers": [1, 0]}), ("no_rope_layers", {"no_rope_layers": [2, 0, 1, 1]}),
    ("layer_types", {"layer_types": ["full_attention"]}),
    ("sliding_attention", {"layer_types": ["sliding_attention"] * 4}),
    ("attention_chunk_size", {"attention_chunk_size": None}),
    ("intermediate_size_mlp", {"intermediate_size_mlp": None}),
])
def test_what_is_not_read_is_named(name: str, options: dict[str, Any]) -> None:
    with pytest.raises(BothwaysError, match=name):
        families.KNOWN["llama4_text"].from_config({**SIZES, **options}, "config.json")


SEES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama4": ("Llama4", {"image_size": 28, "vision_output_dim": 16, "projector_input_dim": 16,
                          "projector_output_dim": 16}),
    "gemma3": ("Gemma3", {"image_size": 28})}


@pytest.mark.parametrize("name", SEES)
def test_the_language_model_of_one_that_sees_pictures_is_read(name: str, tmp_path: Path) -> None:
    family, eyes = SEES[name]
    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(
        text_config=SIZES, vision_config={"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
                                          "intermediate_size": 64, "patch_size": 14, **eyes})
    theirs = reference.shaken(getattr(transformers, f"{family}ForConditionalGeneration")(config))
    theirs.save_pretrained(tmp_path / "theirs")
    ours, ids = bothways.from_pretrained(tmp_path / "theirs"), reference.ids_of(101)
    with torch.no_grad():
        reference.same(ours.logits(ids), theirs(input_ids=ids).logits, reference.SCANS)
    ours.save_pretrained(tmp_path / "again")
    loaded, info = getattr(transformers, f"{family}ForCausalLM").from_pretrained(tmp_path / "again",
                                                                                output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    with torch.no_grad():
        reference.same(ours.logits(ids), loaded.eval()(input_ids=ids).logits, reference.SCANS)


def test_one_that_sees_pictures_needs_a_text_config(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "llama4"}')
    with pytest.raises(BothwaysError, match="text_config"):
        bothways.from_pretrained(tmp_path)
