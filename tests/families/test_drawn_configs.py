"""Configs drawn at random: each is read with the logits of the published class, and written back, or refused.

A draw changes one to four entries of a tiny config. What `transformers` itself cannot build or run says nothing.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.draws import many
from tests.families import reference

import bothways
from bothways.errors import BothwaysError
from bothways.families import KNOWN
from bothways.families.careful import read_config

transformers = pytest.importorskip("transformers")

ENDS = {"bos_token_id": 1, "eos_token_id": 2}
WORDS = {"vocab_size": 103}
PLAIN = {**WORDS, **ENDS, "pad_token_id": 0, "hidden_size": 32, "intermediate_size": 44, "num_hidden_layers": 3,
         "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64}
EMBEDS = {**WORDS, "n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 64}
BIASED = {**PLAIN, "pad_token_id": 1, "bos_token_id": 0}
LATENT = {**PLAIN, "num_key_value_heads": 4, "head_dim": 4, "kv_lora_rank": 12, "q_lora_rank": 10,
          "qk_nope_head_dim": 8, "qk_rope_head_dim": 4, "v_head_dim": 6, "n_routed_experts": 4,
          "num_experts_per_tok": 2, "moe_intermediate_size": 20, "n_group": 2, "topk_group": 1,
          "first_k_dense_replace": 1}
APART = {**PLAIN, "relative_attention": True, "pos_att_type": ["c2p", "p2c"]}
TOWERS = {**WORDS, "d_model": 32, "encoder_ffn_dim": 44, "decoder_ffn_dim": 44, "encoder_layers": 2,
          "decoder_layers": 2, "encoder_attention_heads": 4, "decoder_attention_heads": 4,
          "max_position_embeddings": 64}
CLASSES: dict[str, dict[str, Any]] = {
    "LlamaForCausalLM": PLAIN, "MistralForCausalLM": PLAIN, "Qwen2ForCausalLM": PLAIN, "Qwen3ForCausalLM": PLAIN,
    "MixtralForCausalLM": {**PLAIN, "num_local_experts": 4},
    "Qwen3MoeForCausalLM": {**PLAIN, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 20},
    "DeepseekV2ForCausalLM": LATENT, "DeepseekV3ForCausalLM": LATENT,
    "GPT2LMHeadModel": {**EMBEDS, **ENDS}, "OpenAIGPTLMHeadModel": EMBEDS,
    "GPTJForCausalLM": {**EMBEDS, **ENDS, "rotary_dim": 4},
    "GPTNeoForCausalLM": {**WORDS, **ENDS, "hidden_size": 32, "num_layers": 2, "num_heads": 4, "window_size": 5,
                          "attention_types": [[["global", "local"], 1]], "max_position_embeddings": 64},
    "Gemma2ForCausalLM": {**PLAIN, "head_dim": 8, "sliding_window": 5},
    "Gemma3ForCausalLM": {**PLAIN, "head_dim": 8, "sliding_window": 5},
    "GlmForCausalLM": {**PLAIN, "head_dim": 8}, "Glm4ForCausalLM": {**PLAIN, "head_dim": 8},
    "CohereForCausalLM": PLAIN, "NanoChatForCausalLM": PLAIN,
    "MambaForCausalLM": {**WORDS, **ENDS, "pad_token_id": 0, "hidden_size": 32, "num_hidden_layers": 3,
                         "state_size": 4},
    "Mamba2ForCausalLM": {**WORDS, **ENDS, "pad_token_id": 0, "hidden_size": 32, "num_hidden_layers": 3,
                          "state_size": 4, "num_heads": 8, "head_dim": 8, "n_groups": 2, "chunk_size": 8},
    "BertForMaskedLM": PLAIN, "RobertaForMaskedLM": BIASED, "XLMRobertaForMaskedLM": BIASED,
    "DistilBertForMaskedLM": {**WORDS, "dim": 32, "hidden_dim": 44, "n_layers": 3, "n_heads": 4,
                              "max_position_embeddings": 64},
    "AlbertForMaskedLM": {**PLAIN, "embedding_size": 12}, "ElectraForMaskedLM": {**PLAIN, "embedding_size": 12},
    "ModernBertForMaskedLM": {**PLAIN, "local_attention": 6}, "EuroBertForMaskedLM": PLAIN,
    "DebertaForMaskedLM": {**APART, "max_relative_positions": 16},
    "DebertaV2ForMaskedLM": {**APART, "position_buckets": 8, "max_relative_positions": 32, "share_att_key": True,
                             "norm_rel_ebd": "layer_norm"},
    "T5ForConditionalGeneration": {**WORDS, "d_model": 32, "d_kv": 8, "d_ff": 44, "num_layers": 2, "num_heads": 4,
                                   "decoder_start_token_id": 0},
    "BartForConditionalGeneration": TOWERS, "PLBartForConditionalGeneration": TOWERS,
    "XLNetLMHeadModel": {**WORDS, "d_model": 32, "n_layer": 3, "n_head": 4, "d_inner": 44},
}
SILENT = {"architectures", "model_type", "transformers_version", "problem_type", "id2label", "label2id", "vocab_size",
          "return_dict", "output_hidden_states", "output_attentions", "output_router_logits", "use_cache", "dtype",
          "torchscript", "is_encoder_decoder", "is_decoder", "add_cross_attention", "tie_encoder_decoder",
          "gradient_checkpointing", "use_mambapy", "use_mem_eff_path", "use_bfloat16", "bi_data",
          "router_jitter_noise", "training", "ep_size"}
"""Entries that say nothing of the function, or make another class of it."""
ACTIVATIONS = ("gelu", "relu", "silu", "gelu_new", "gelu_pytorch_tanh", "relu2", "quick_gelu", "tanh", "gelu_fast")
UNSAID = {"head_dim", "num_key_value_heads", "sliding_window", "final_logit_softcapping", "attn_logit_softcapping",
          "n_inner", "q_lora_rank", "embedding_size", "decoder_hidden_size", "num_decoder_layers"}
"""Entries that are null unless something is said."""
PLACES = 16
"""No draw has fewer places than the texts that are compared."""
TURNED: tuple[dict[str, Any], ...] = (
    {"rope_type": "default", "rope_theta": 77.0}, {"rope_type": "linear", "rope_theta": 500.0, "factor": 2.0},
    {"rope_type": "dynamic", "rope_theta": 500.0, "factor": 2.0},
    {"rope_type": "yarn", "rope_theta": 500.0, "factor": 4.0, "original_max_position_embeddings": 16},
    {"rope_type": "llama3", "rope_theta": 500.0, "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
     "original_max_position_embeddings": 32},
    {"rope_type": "longrope", "rope_theta": 500.0, "factor": 2.0, "short_factor": [1.0] * 4,
     "long_factor": [1.0, 2.0, 2.0, 3.0], "original_max_position_embeddings": 16})
EXPERTS = 1e-4
"""For scans and experts, whose sums come in another order."""


def drawn(rng: random.Random, known: dict[str, Any]) -> dict[str, Any]:
    """One to four entries with other values."""
    names = [name for name in known if name not in SILENT and not name.startswith("_")]
    return {name: value for name in rng.sample(names, min(len(names), rng.choice([1, 2, 2, 3, 4])))
            if (value := another(rng, name, known[name])) != known[name]}


def another(rng: random.Random, name: str, value: Any) -> Any:
    """Another value of an entry's kind, or the same where none is known."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, str) and value in (*ACTIVATIONS, "swish"):
        return rng.choice(ACTIVATIONS)
    if isinstance(value, float) and "drop" not in name:
        return value * rng.choice([0.5, 2, 3]) if value else rng.choice([0.1, 1.5, 30.0])
    if isinstance(value, int) and "token_id" not in name:
        size = rng.choice([1, 2, 3, 4, 5, 6, 8, 12, 16, 24, value * 2, max(1, value // 2)])
        return max(size, PLACES) if name in ("max_position_embeddings", "n_positions") else size
    if value is None and name in UNSAID:
        return rng.choice([1, 2, 4, 5, 8, 12])
    if name == "rope_parameters" and isinstance(value, dict) and "rope_type" in value:
        return rng.choice([*TURNED, {**value, "partial_rotary_factor": 0.5}])
    return value


def published(architecture: str, given: dict[str, Any], seed: int) -> tuple[Any, torch.Tensor, torch.Tensor | None]:
    """The class with moved weights, ids and, for two towers, ids of a source."""
    config = getattr(transformers, architecture).config_class(**given)
    torch.manual_seed(seed)
    theirs = reference.shaken(getattr(transformers, architecture)(config), seed)
    ids = torch.randint(10, min(config.vocab_size, 103), (2, 13))
    return theirs, ids, torch.randint(10, 100, (2, 9)) if config.is_encoder_decoder else None


def judged(architecture: str, seed: int, folder: Path) -> str | None:
    """What is wrong with one draw; none where it agrees, is refused, or `transformers` cannot run it."""
    rng = random.Random(f"{architecture}{seed}")
    cls, base = getattr(transformers, architecture), CLASSES[architecture]
    changed = drawn(rng, cls.config_class(**base).to_dict())
    # 1. theirs
    try:
        theirs, ids, source = published(architecture, {**base, **changed}, seed)
        with torch.no_grad():
            wanted = reference._scores(reference.call(theirs, ids, source))
        theirs.save_pretrained(folder / "theirs")
    except Exception:  # whatever its code raises where entries contradict each other
        return None
    if not torch.isfinite(wanted).all():
        return None
    # 2. ours
    try:
        ours = bothways.from_pretrained(folder / "theirs")
    except BothwaysError:
        return None
    tolerance = EXPERTS if any(part in architecture for part in ("Mamba", "Mixtral", "Moe", "Deepseek")) else 2e-5
    with torch.no_grad():
        away = far(ours.logits(ids, source=source), wanted)
        if not away <= tolerance:
            return f"{architecture} {seed} {changed}: logits differ by {away:.1e}"
        # 3. back
        ours.save_pretrained(folder / "ours", layout=ours.trained.layout)
        again = reference._scores(reference.call(cls.from_pretrained(folder / "ours").eval(), ids, source))
    away = far(again, wanted)
    # what is stored as a logarithm comes back with its last digits rounded
    return None if away <= tolerance / 10 else (
        f"{architecture} {seed} {changed}: written back, logits differ by {away:.1e}")


def far(one: torch.Tensor, other: torch.Tensor) -> float:
    """The largest difference, as a share of the largest number."""
    return float((one - other).abs().max() / other.abs().max())


@pytest.mark.parametrize("architecture", CLASSES)
def test_a_drawn_config_agrees_or_is_refused(architecture: str, tmp_path: Path) -> None:
    assert judged(architecture, 0, tmp_path) is None


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("architecture", CLASSES)
def test_many_drawn_configs_agree_or_are_refused(architecture: str, tmp_path: Path) -> None:
    found = [judged(architecture, seed, tmp_path / str(seed)) for seed in many()]
    assert [one for one in found if one] == []


@pytest.mark.parametrize("architecture", CLASSES)
def test_whole_numbers_are_whole(architecture: str) -> None:
    stored = getattr(transformers, architecture).config_class(**CLASSES[architecture]).to_dict()
    family = next(one for one in KNOWN.values() if one.reads(stored))
    plain, refused = family.from_config(stored, "config.json"), []
    for name, value in stored.items():
        if isinstance(value, int) and not isinstance(value, bool):
            try:
                half = read_config(family, {**stored, name: value + 0.5}, "config.json")
            except BothwaysError as error:
                refused.append(name if f"{name} {value + 0.5}" in str(error) else "")
                continue
            # the one that may be a fraction, or one of which nothing is read whatever its number
            assert name == "query_pre_attn_scalar" or (half == plain and {
                family.from_config({**stored, name: value + more}, "config.json") for more in (1, 2, 7)} == {plain})
    assert "" not in refused
    assert refused
