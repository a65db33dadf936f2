"""Command R as `transformers.CohereForCausalLM`: the published class that has PaLM's block (arXiv 2204.02311)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

from bothways.errors import BothwaysError
from bothways.families.base import Names, Table, turned
from bothways.families.llama import Llama
from bothways.model.config import Head, ModelConfig, Norm


class Cohere(Llama):
    """Parallel blocks with one layer norm without bias, and a gated feed-forward: PaLM's design (arXiv 2204.02311)."""

    model_type: ClassVar[str] = "cohere"
    architecture: ClassVar[str] = "CohereForCausalLM"
    biases: ClassVar[Mapping[str, tuple[str, ...]]] = {"attention_bias": ("queries", "attention")}
    names: ClassVar[Table] = {
        **{ours: theirs for ours, theirs in Llama.names.items()
           if not ours.endswith((".query_norm", ".key_norm", ".feed_forward_norm"))},
        "tower.blocks.{i}.attention.qkv": Names(tuple(f"model.layers.{{i}}.self_attn.{part}_proj" for part in "qkv"),
                                                (turned(True), turned(True), None)),
    }

    def to_config(self, config: ModelConfig) -> dict[str, Any]:
        scale = 1.0 if config.head.scale is None else config.head.scale
        return {**super().to_config(config), "layer_norm_eps": config.norm.epsilon, "logit_scale": scale,
                "use_qk_norm": False}

    def from_config(self, stored: Mapping[str, Any], where: str) -> ModelConfig:
        if stored.get("use_qk_norm"):
            raise BothwaysError(f"{where} sets use_qk_norm, whose norms differ from head to head: not read here")
        plain = super().from_config({"tie_word_embeddings": True, **stored}, where)
        scale = stored.get("logit_scale", 0.0625)
        return replace(
            plain, parallel=True, head=Head(scale=None if scale in (None, 1.0) else float(scale)),
            norm=Norm("layer", "before", float(stored.get("layer_norm_eps", 1e-5)), bias=False))
