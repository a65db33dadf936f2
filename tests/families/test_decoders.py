"""Gemma, GLM-4, nanochat, Command R and GPT-J: published folders and ours are one network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.families.reference import check, shaken

import bothways
from bothways import families
from bothways.errors import BothwaysError

transformers = pytest.importorskip("transformers")
PLAIN = {"vocab_size": 101, "hidden_size": 32, "intermediate_size": 44, "num_hidden_layers": 2,
         "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 64,
         "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
ROTARY = {"rope_type": "default", "rope_theta": 500.0}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "gemma2, narrow first": ("Gemma2", {"sliding_window": 5, "query_pre_attn_scalar": 24}),
    "gemma2, wide heads, biased, no caps": ("Gemma2", {
        "head_dim": 14, "num_key_value_heads": 1, "attention_bias": True, "attn_logit_softcapping": None,
        "final_logit_softcapping": None, "layer_types": ["full_attention"] * 2, "rope_parameters": ROTARY}),
    "gemma2, untied, odd vocabulary, low caps": ("Gemma2", {
        "vocab_size": 83, "tie_word_embeddings": False, "attn_logit_softcapping": 2.0, "final_logit_softcapping": 1.5,
        "num_key_value_heads": 4, "sliding_window": 3, "rms_norm_eps": 1e-3, "hidden_activation": "gelu"}),
    "gemma3, seven layers": ("Gemma3", {"num_hidden_layers": 7, "sliding_window": 4, "query_pre_attn_scalar": 8}),
    "gemma3, full layers slowed down": ("Gemma3", {
        "num_hidden_layers": 2, "layer_types": ["sliding_attention", "full_attention"], "sliding_window": 6,
        "rope_parameters": {"full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 500.0},
                            "sliding_attention": ROTARY}}),
    "gemma3, two bases, wide heads": ("Gemma3", {
        "head_dim": 14, "num_key_value_heads": 1, "sliding_window": 3, "num_hidden_layers": 3,
        "layer_types": ["full_attention", "sliding_attention", "sliding_attention"],
        "rope_parameters": {"full_attention": ROTARY, "sliding_attention": {**ROTARY, "rope_theta": 50.0}}}),
    "gemma3, capped, untied, odd vocabulary": ("Gemma3", {
        "vocab_size": 83, "tie_word_embeddings": False, "final_logit_softcapping": 1.5,
        "layer_types": ["full_attention"] * 2, "attention_bias": True, "num_key_value_heads": 4}),
    "glm": ("Glm", {}),
    "glm, no bias, tied, three quarters turned": ("Glm", {
        "attention_bias": False, "tie_word_embeddings": True, "vocab_size": 83,
        "rope_parameters": {**ROTARY, "partial_rotary_factor": 0.75}}),
    "glm, wide heads": ("Glm", {"head_dim": 16, "num_key_value_heads": 1, "hidden_act": "gelu", "rms_norm_eps": 1e-3}),
    "glm4": ("Glm4", {}),
    "glm4, no bias, all turned": ("Glm4", {"attention_bias": False, "vocab_size": 83, "num_key_value_heads": 4,
                                           "rope_parameters": {**ROTARY, "partial_rotary_factor": 1.0}}),
    "glm4, wide heads, tied": ("Glm4", {"head_dim": 12, "num_key_value_heads": 1, "tie_word_embeddings": True}),
    "nanochat": ("NanoChat", {}),
    "nanochat, biased, tied, odd vocabulary": ("NanoChat", {
        "attention_bias": True, "tie_word_embeddings": True, "vocab_size": 83, "num_key_value_heads": 4,
        "rope_parameters": ROTARY}),
    "nanochat, no cap, one key head": ("NanoChat", {"final_logit_softcapping": None, "num_key_value_heads": 1,
                                                    "rms_norm_eps": 1e-3}),
    "cohere": ("Cohere", {}),
    "cohere, biased, untied, unscaled": ("Cohere", {"attention_bias": True, "tie_word_embeddings": False,
                                                    "logit_scale": 1.0, "vocab_size": 83, "rope_parameters": ROTARY}),
    "cohere, one key head, another epsilon": ("Cohere", {"num_key_value_heads": 1, "layer_norm_eps": 1e-3,
                                                         "hidden_act": "gelu"}),
}
GPTJ = {
    "plain": {"rotary_dim": 4},
    "all turned, tied, odd vocabulary": {"rotary_dim": 8, "tie_word_embeddings": True, "vocab_size": 83},
    "narrow inside, relu": {"rotary_dim": 2, "n_inner": 44, "activation_function": "relu", "n_layer": 3,
                            "layer_norm_epsilon": 1e-3},
}


@pytest.mark.parametrize("name", CASES)
def test_theirs_is_ours(name: str, tmp_path: Path) -> None:
    stem, options = CASES[name]
    fixed = {**PLAIN, **options}
    if stem in ("NanoChat", "Cohere"):
        fixed.pop("head_dim")
    config = getattr(transformers, f"{stem}TextConfig" if stem == "Gemma3" else f"{stem}Config")(**fixed)
    check(shaken(getattr(transformers, f"{stem}ForCausalLM")(config)), tmp_path)


@pytest.mark.parametrize("name", GPTJ)
def test_gptj(name: str, tmp_path: Path) -> None:
    sizes = {"vocab_size": 101, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "bos_token_id": 1,
             "eos_token_id": 2}
    check(shaken(transformers.GPTJForCausalLM(transformers.GPTJConfig(**{**sizes, **GPTJ[name]}))), tmp_path)


def test_gemma_rounds_its_scale_as_it_was_trained(tmp_path: Path) -> None:
    config = transformers.Gemma3TextConfig(**{**PLAIN, "hidden_size": 44, "head_dim": 8})
    theirs = shaken(transformers.Gemma3ForCausalLM(config)).to(torch.bfloat16)
    theirs.save_pretrained(tmp_path)
    ours, ids = bothways.from_pretrained(tmp_path), torch.arange(10, 40)
    with torch.no_grad():
        reference = theirs.model.embed_tokens(ids)
    assert ours.trained.dtype == torch.bfloat16
    network = ours.trained.network
    assert torch.equal(network._plain(ids), reference)
    assert not torch.equal(network.embedding(ids) * 44 ** 0.5, reference)


def test_the_first_gemma3_files_are_read() -> None:
    """Gemma 3 1B's own entries, as it was published."""
    config = families.KNOWN["gemma3_text"].from_config({
        "attn_logit_softcapping": None, "final_logit_softcapping": None, "head_dim": 256, "hidden_size": 1152,
        "hidden_activation": "gelu_pytorch_tanh", "intermediate_size": 6912, "max_position_embeddings": 32768,
        "num_attention_heads": 4, "num_hidden_layers": 26, "num_key_value_heads": 1, "query_pre_attn_scalar": 256,
        "rms_norm_eps": 1e-6, "rope_local_base_freq": 10000, "rope_scaling": None, "rope_theta": 1000000,
        "sliding_window": 512, "sliding_window_pattern": 6, "vocab_size": 262144}, "config.json")
    assert config.reach == "LLLLLG" and config.local == 511
    assert (config.position.base, config.position.local_base) == (1e6, 1e4)
    assert config.tied and config.scale == 1 / 16 and config.embedding_scale == 1152 ** 0.5


@pytest.mark.parametrize(("model_type", "entries", "word"), [
    ("gemma2", {"use_bidirectional_attention": True}, "use_bidirectional_attention"),
    ("gemma2", {"layer_types": ["full_attention", "strange"]}, "layer type 'strange'"),
    ("gemma3_text", {"layer_types": ["full_attention"]}, "1 layer_types"),
    ("gemma3_text", {"sliding_window": 1}, "the sliding_window 1"),
    ("gemma3_text", {"attn_logit_softcapping": 50.0}, "attn_logit_softcapping"),
    ("nanochat", {"hidden_act": "relu"}, "hidden_act 'relu'"),
    ("cohere", {"use_qk_norm": True}, "use_qk_norm"),
])
def test_what_is_not_read_is_named(model_type: str, entries: dict[str, object], word: str) -> None:
    with pytest.raises(BothwaysError, match=word):
        families.KNOWN[model_type].from_config({**PLAIN, **entries}, "config.json")


def test_a_rotary_share_that_no_head_has_is_named() -> None:
    stored = {"vocab_size": 101, "n_embd": 32, "n_layer": 2, "n_head": 4}
    for entries, word in (({"rotary_dim": None}, "no rotary_dim"), ({"rotary_dim": 16}, "rotary_dim 16")):
        with pytest.raises(BothwaysError, match=word):
            families.KNOWN["gptj"].from_config({**stored, **entries}, "config.json")
