"""LLaDA (arXiv 2502.09992): a LLaMA that looks both ways, under the names of its own folder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from bothways.errors import BothwaysError, nearest
from bothways.families.base import Direction, Family, Table, demand
from bothways.families.llama import ACTIVATIONS, READ
from bothways.model.config import FeedForward, Head, ModelConfig, Norm, Position, Shape

_LAYER = "model.transformer.blocks.{i}."
_WANTED = {"block_type": "llama", "layer_norm_type": "rms", "layer_norm_with_affine": True, "rope": True,
           "alibi": False, "attention_layer_norm": False, "bias_for_layer_norm": False,
           "multi_query_attention": False, "include_bias": False}
"""Entries that are read with this value only, or with none."""


class Llada(Family):
    """LLaMA's blocks called bidirectionally and trained by masked diffusion (arXiv 2502.09992, section 2.1).

    `transformers` has no class for it: such a folder brings its own code.
    """

    model_type: ClassVar[str] = "llada"
    architecture: ClassVar[str] = "LLaDAModelLM"
    auto: ClassVar[str] = "AutoModel"
    direction: ClassVar[Direction] = "bidirectional"
    objective: ClassVar[str] = "diffusion"
    own_code: ClassVar[bool] = True
    head: ClassVar[str] = "model.transformer.ff_out.weight"
    names: ClassVar[Table] = {
        "embedding": "model.transformer.wte", "tower.norm": "model.transformer.ln_f",
        "head": "model.transformer.ff_out",
        "tower.blocks.{i}.attention_norm": f"{_LAYER}attn_norm",
        "tower.blocks.{i}.attention.qkv": tuple(f"{_LAYER}{part}_proj" for part in "qkv"),
        "tower.blocks.{i}.attention.out": f"{_LAYER}attn_out",
        "tower.blocks.{i}.feed_forward_norm": f"{_LAYER}ff_norm",
        "tower.blocks.{i}.feed_forward.up_gate": (f"{_LAYER}up_proj", f"{_LAYER}ff_proj"),
        "tower.blocks.{i}.feed_forward.down": f"{_LAYER}ff_out",
    }

    def to_config(self, config: ModelConfig) -> dict[str, Any]:
        shape = config.shape
        return {
            "vocab_size": shape.vocabulary, "embedding_size": shape.vocabulary, "d_model": shape.width,
            "n_layers": shape.layers, "n_heads": shape.heads, "n_kv_heads": config.key_heads,
            "mlp_hidden_size": config.inner, "max_sequence_length": config.position.length,
            "rope_theta": float(config.position.base), "rms_norm_eps": config.norm.epsilon,
            "activation_type": ACTIVATIONS.get(config.feed_forward.activation, config.feed_forward.activation),
            "weight_tying": config.tied, "include_qkv_bias": config.biased("queries"),
            "scale_logits": config.head.scale is not None, "input_emb_norm": config.embedding_scale is not None,
            **_WANTED,
        }

    def from_config(self, stored: Mapping[str, Any], where: str) -> ModelConfig:
        demand(stored, ("vocab_size", "d_model", "n_layers", "n_heads", "mlp_hidden_size"), where)
        for name, wanted in _WANTED.items():
            if (found := stored.get(name)) is not None and found != wanted:
                raise BothwaysError(f"{where} sets {name} to {found!r}, but is read with {wanted!r} only")
        activation = str(stored.get("activation_type", "silu"))
        if activation not in READ:
            raise BothwaysError(f"{where} has the unknown activation_type '{activation}' {nearest(activation, READ)}")
        width, heads = int(stored["d_model"]), int(stored["n_heads"])
        keys = int(stored.get("n_kv_heads") or heads)
        # the table may be longer than the vocabulary
        shape = Shape(int(stored.get("embedding_size") or stored["vocab_size"]), width, int(stored["n_layers"]), 0,
                      heads, None if keys == heads else keys, inner=int(stored["mlp_hidden_size"]))
        return ModelConfig(
            shape, Position("rotary", float(stored.get("rope_theta", 10000.0)),
                            int(stored.get("max_sequence_length", 1024))),
            Norm("rms", "before", float(stored.get("rms_norm_eps", 1e-5))),
            FeedForward("gated", READ[activation]),  # type: ignore[arg-type]
            head=Head(scale=width ** -0.5 if stored.get("scale_logits") else None),
            bias=("queries",) if stored.get("include_qkv_bias") else False,
            tied=bool(stored.get("weight_tying", True)),
            embedding_scale=width ** 0.5 if stored.get("input_emb_norm") else None)
