"""LLaMA, Qwen3 and EuroBERT against the published classes, in all that must agree."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.families.reference import check, ids_of, shaken

transformers = pytest.importorskip("transformers")
ROTARY = {"rope_type": "default", "rope_theta": 500.0}
PLAIN = {"vocab_size": 101, "hidden_size": 32, "intermediate_size": 44, "num_hidden_layers": 2,
         "num_attention_heads": 4, "max_position_embeddings": 64, "bos_token_id": 1, "eos_token_id": 2,
         "pad_token_id": 0}
CASES = {
    "llama, grouped": ("Llama", {"num_key_value_heads": 2, "rope_parameters": ROTARY}),
    "llama, tied, biased": ("Llama", {"tie_word_embeddings": True, "attention_bias": True, "mlp_bias": True}),
    "llama, biased attention, odd heads": ("Llama", {"head_dim": 10, "num_key_value_heads": 1, "hidden_act": "gelu",
                                                     "attention_bias": True}),
    "qwen3": ("Qwen3", {"head_dim": 16, "num_key_value_heads": 2}),
    "qwen3, biased, tied": ("Qwen3", {"head_dim": 6, "num_key_value_heads": 4, "attention_bias": True,
                                       "tie_word_embeddings": True}),
    "eurobert": ("EuroBert", {"mask_token_id": 5}),
    "eurobert, tied, biased attention": ("EuroBert", {"mask_token_id": 5, "attention_bias": True, "head_dim": 6,
                                                      "tie_word_embeddings": True, "num_key_value_heads": 1}),
}


@pytest.mark.parametrize("name", CASES)
def test_theirs_is_ours(name: str, tmp_path: Path) -> None:
    stem, options = CASES[name]
    kind = "MaskedLM" if stem == "EuroBert" else "CausalLM"
    config = getattr(transformers, f"{stem}Config")(**{**PLAIN, **options})
    check(shaken(getattr(transformers, f"{stem}For{kind}")(config)), tmp_path)


@pytest.mark.parametrize("options", [{"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}, {"d_kv": 8},
                                     {"feed_forward_proj": "gated-silu", "relative_attention_num_buckets": 8}])
def test_t5_theirs_is_ours(options: dict[str, object], tmp_path: Path) -> None:
    config = transformers.T5Config(**{"vocab_size": 103, "d_model": 32, "d_kv": 6, "d_ff": 44, "num_layers": 2,
                                      "num_decoder_layers": 1, "num_heads": 4, "decoder_start_token_id": 0,
                                      "bos_token_id": 1, "eos_token_id": 2, **options})
    check(shaken(transformers.T5ForConditionalGeneration(config)), tmp_path, source=ids_of(103, length=21, seed=5))
