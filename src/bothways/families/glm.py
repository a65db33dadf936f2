"""GLM-4 (arXiv 2406.12793) as `transformers.GlmForCausalLM` (2024) and `transformers.Glm4ForCausalLM` (2025)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import torch

from bothways.families.base import Change, Names, Table, turned
from bothways.families.llama import Llama
from bothways.model.config import ModelConfig

_LAYER = "model.layers.{i}."
GATE_FIRST = Change(lambda theirs, config: torch.cat(theirs.chunk(2)[::-1]),
                    lambda ours, config: torch.cat(ours.chunk(2)[::-1]))
"""A fused gated projection stored with the gate before what it opens for."""


class Glm(Llama):
    """LLaMA's block with half of each head turned, in neighbouring pairs, and biased queries (arXiv 2406.12793)."""

    model_type: ClassVar[str] = "glm"
    architecture: ClassVar[str] = "GlmForCausalLM"
    biases: ClassVar[Mapping[str, tuple[str, ...]]] = {"attention_bias": ("queries",)}
    names: ClassVar[Table] = {
        **{ours: theirs for ours, theirs in Llama.names.items() if not ours.endswith((".query_norm", ".key_norm"))},
        "tower.blocks.{i}.attention.qkv": Names(tuple(f"{_LAYER}self_attn.{part}_proj" for part in "qkv"),
                                                (turned(True), turned(True), None)),
        "tower.blocks.{i}.feed_forward.up_gate": Names((f"{_LAYER}mlp.gate_up_proj",), (GATE_FIRST,)),
    }

    def to_config(self, config: ModelConfig) -> dict[str, Any]:
        said, share = super().to_config(config), config.position.share
        rotary = {**said["rope_parameters"], "partial_rotary_factor": share}
        return {**said, "partial_rotary_factor": share, "rope_parameters": rotary}

    def from_config(self, stored: Mapping[str, Any], where: str) -> ModelConfig:
        rotary = dict(stored.get("rope_parameters") or {})
        share = float(rotary.pop("partial_rotary_factor", stored.get("partial_rotary_factor", 0.5)))
        plain = super().from_config({"attention_bias": True, "head_dim": 128, **stored, "rope_parameters": rotary,
                                     "partial_rotary_factor": 1.0}, where)
        return replace(plain, position=replace(plain.position, share=share))


class Glm4(Glm):
    """GLM with norms on both sides of attention and feed-forward, the design of GLM-4-0414 (arXiv 2406.12793)."""

    model_type: ClassVar[str] = "glm4"
    architecture: ClassVar[str] = "Glm4ForCausalLM"
    names: ClassVar[Table] = {
        **Glm.names,
        "tower.blocks.{i}.attention_norm_out": f"{_LAYER}post_self_attn_layernorm",
        "tower.blocks.{i}.feed_forward_norm_out": f"{_LAYER}post_mlp_layernorm",
    }

    def from_config(self, stored: Mapping[str, Any], where: str) -> ModelConfig:
        plain = super().from_config(stored, where)
        return replace(plain, norm=replace(plain.norm, place="both"))
