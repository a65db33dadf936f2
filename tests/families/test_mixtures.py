"""Mixtral and Qwen3's mixtures of experts against `transformers`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.families import reference

transformers = pytest.importorskip("transformers")
YARN = {"rope_type": "yarn", "rope_theta": 100.0, "factor": 4.0, "original_max_position_embeddings": 16}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "mixtral": ("Mixtral", {"num_local_experts": 4, "num_key_value_heads": 2}),
    "mixtral, two of five, window": ("Mixtral", {"num_local_experts": 5, "head_dim": 14, "num_key_value_heads": 1,
                                                 "sliding_window": 6}),
    "mixtral, all of three, tied": ("Mixtral", {
        "num_local_experts": 3, "num_experts_per_tok": 3, "head_dim": 8, "rope_parameters": YARN,
        "num_key_value_heads": 4, "tie_word_embeddings": True}),
    "qwen3": ("Qwen3Moe", {"num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 12, "head_dim": 12}),
    "qwen3, normalised, some dense, biases": ("Qwen3Moe", {
        "num_experts": 4, "num_experts_per_tok": 3, "moe_intermediate_size": 20, "norm_topk_prob": True,
        "mlp_only_layers": [1], "attention_bias": True, "num_key_value_heads": 2}),
    "qwen3, every second, window": ("Qwen3Moe", {
        "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 9, "decoder_sparse_step": 2,
        "use_sliding_window": True, "sliding_window": 5, "tie_word_embeddings": True}),
}


@pytest.mark.parametrize("name", CASES)
def test_theirs_is_ours(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # the grouped kernel wants widths that fill whole registers
    monkeypatch.setattr(transformers.PreTrainedModel, "get_correct_experts_implementation", lambda *_: "eager")
    family, options = CASES[name]
    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(
        vocab_size=101, hidden_size=32, intermediate_size=44, num_hidden_layers=3, num_attention_heads=4,
        max_position_embeddings=64, bos_token_id=1, eos_token_id=2, **options)
    theirs = getattr(transformers, f"{family}ForCausalLM")(config)
    reference.check(reference.shaken(theirs), tmp_path, tolerance=reference.SCANS)
