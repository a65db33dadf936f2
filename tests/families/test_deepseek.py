"""DeepSeek-V2 and V3 (R1) against `transformers`: latent attention, groups of experts, yarn's spread of scores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.families import reference

from bothways import families
from bothways.errors import BothwaysError

transformers = pytest.importorskip("transformers")
YARN = {"rope_type": "yarn", "rope_theta": 100.0, "factor": 4.0, "original_max_position_embeddings": 16,
        "mscale": 0.7, "mscale_all_dim": 1.1}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "v2, greedy": ("DeepseekV2", {}),
    "v2, groups, yarn": ("DeepseekV2", {"topk_method": "group_limited_greedy", "n_group": 2, "topk_group": 1,
                                        "routed_scaling_factor": 1.5, "rope_parameters": YARN}),
    "v2, queries of states, values wider than keys": ("DeepseekV2", {"q_lora_rank": None, "v_head_dim": 13,
                                                                     "first_k_dense_replace": 0}),
    "v3": ("DeepseekV3", {"n_group": 2, "topk_group": 1, "qk_nope_head_dim": 7}),
    "v3, yarn, one group, tied, biases": ("DeepseekV3", {
        "n_group": 1, "topk_group": 1, "rope_parameters": {**YARN, "mscale": 1.0, "mscale_all_dim": 1.0},
        "tie_word_embeddings": True, "attention_bias": True, "first_k_dense_replace": 2}),
    "v3, queries of states": ("DeepseekV3", {"q_lora_rank": None, "norm_topk_prob": False, "n_group": 3,
                                             "topk_group": 2, "n_routed_experts": 6}),
}
SIZES = {"vocab_size": 101, "hidden_size": 32, "intermediate_size": 44, "num_hidden_layers": 3,
         "num_attention_heads": 4, "max_position_embeddings": 64, "bos_token_id": 1, "eos_token_id": 2,
         "q_lora_rank": 12, "kv_lora_rank": 8, "qk_rope_head_dim": 4, "qk_nope_head_dim": 8, "v_head_dim": 6,
         "n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 12, "first_k_dense_replace": 1,
         "num_key_value_heads": 4}


@pytest.mark.parametrize("name", CASES)
def test_theirs_is_ours(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transformers.PreTrainedModel, "get_correct_experts_implementation", lambda *_: "eager")
    family, options = CASES[name]
    torch.manual_seed(0)
    theirs = getattr(transformers, f"{family}ForCausalLM")(
        getattr(transformers, f"{family}Config")(**{**SIZES, **options}))
    with torch.no_grad():
        for key, buffer in theirs.named_buffers():
            if key.endswith("e_score_correction_bias"):
                buffer.normal_(0, 0.2)
    reference.check(reference.shaken(theirs), tmp_path, tolerance=reference.SCANS)


@pytest.mark.parametrize(("name", "family", "options"), [
    ("rope_interleave", "deepseek_v3", {"rope_interleave": False}), ("norm_topk_prob", "deepseek_v2",
                                                                    {"norm_topk_prob": True}),
    ("moe_layer_freq", "deepseek_v2", {"moe_layer_freq": 2}), ("topk_method", "deepseek_v2", {"topk_method": "other"}),
])
def test_what_is_not_read_is_named(name: str, family: str, options: dict[str, Any]) -> None:
    with pytest.raises(BothwaysError, match=name):
        families.KNOWN[family].from_config({**SIZES, **options}, "config.json")


def test_layers_that_guess_ahead_are_passed_over() -> None:
    family = families.KNOWN["deepseek_v3"]
    config = family.from_config(SIZES, "config.json")
    assert family.repeats("model.layers.3.embed_tokens.weight", config)
    assert not family.repeats("model.layers.2.odd.weight", config)
