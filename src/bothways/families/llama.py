"""LLaMA (arXiv 2302.13971) as `transformers.LlamaForCausalLM`, and the block it shares with EuroBERT and Qwen3."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from bothways.errors import BothwaysError, nearest
from bothways.families.base import Direction, Family, Link, demand, in_the_way
from bothways.model.config import FeedForward, ModelConfig, Norm, Position, Shape

ACTIVATIONS = {"silu": "silu", "gelu": "gelu", "gelu_tanh": "gelu_pytorch_tanh", "relu": "relu"}
"""Our name of an activation and the published one."""
_READ = {**{theirs: ours for ours, theirs in ACTIVATIONS.items()}, "swish": "silu", "gelu_new": "gelu_tanh"}


class Llama(Family):
    """Pre-norm RMS blocks with rotary positions, grouped-query heads and a gated feed-forward."""

    model_type: ClassVar[str] = "llama"
    architecture: ClassVar[str] = "LlamaForCausalLM"
    direction: ClassVar[Direction] = "causal"
    objective: ClassVar[str] = "next-token"
    query_key: ClassVar[bool] = False
    biases: ClassVar[tuple[str, ...]] = ("attention_bias", "mlp_bias")
    """The entries that our one `bias` stands for; all must agree."""

    def obstacle(self, config: ModelConfig) -> str | None:
        shape, norm = config.shape, config.norm
        return in_the_way(
            (bool(config.companions), "this class has no weights for "
             + " and ".join(one.name for one in config.companions) + ", which the objective trains beside the trunk"),
            (config.stack == "two towers", f"shape.source_layers {shape.source_layers} makes two towers"),
            (config.position.kind != "rotary", f"position.kind is '{config.position.kind}', not 'rotary'"),
            (norm.kind != "rms", f"norm.kind is '{norm.kind}', not 'rms'"),
            (norm.place != "before", f"norm.place is '{norm.place}', not 'before'"),
            (norm.query_key != self.query_key, f"norm.query_key is {str(norm.query_key).lower()}"),
            (config.feed_forward.kind != "gated", f"feed_forward.kind is '{config.feed_forward.kind}', not 'gated'"),
            (config.narrow, f"reach is '{config.reach}', and its narrow layers are not in this class"),
            (config.bias and not self.biases, "bias is true, and the head of this class would have one too"),
            (config.scale is not None, f"scale is {config.scale}, not one over the root of the head size"),
            (config.embedding_scale is not None, f"embedding_scale is {config.embedding_scale}"),
            (config.soft_cap is not None, f"soft_cap is {config.soft_cap}"),
            (bool(shape.width % shape.heads), f"shape.width {shape.width} does not divide into {shape.heads} heads"),
        )

    def to_config(self, config: ModelConfig) -> dict[str, Any]:
        shape, rotary = config.shape, {"rope_type": "default", "rope_theta": float(config.position.base)}
        return {
            "vocab_size": shape.vocabulary, "hidden_size": shape.width, "intermediate_size": config.inner,
            "num_hidden_layers": shape.layers, "num_attention_heads": shape.heads,
            "num_key_value_heads": config.key_heads, "head_dim": config.head_size,
            "hidden_act": ACTIVATIONS[config.feed_forward.activation],
            "max_position_embeddings": config.position.length, "rms_norm_eps": config.norm.epsilon,
            "rope_theta": rotary["rope_theta"], "rope_parameters": rotary, "rope_scaling": None,
            "tie_word_embeddings": config.tied, "attention_bias": config.bias, "mlp_bias": config.bias,
            "attention_dropout": 0.0,
        }

    def from_config(self, stored: Mapping[str, Any], where: str) -> ModelConfig:
        # 1. what we cannot follow is refused by name
        demand(stored, ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"),
               where)
        rotary = {**(stored.get("rope_scaling") or {}), **(stored.get("rope_parameters") or {})}
        kind = rotary.get("rope_type", rotary.get("type", "default"))
        if kind != "default" or stored.get("partial_rotary_factor", 1.0) != 1.0:
            raise BothwaysError(f"{where} turns positions by rope_type '{kind}', but only 'default' over the whole "
                                "head is read here")
        if stored.get("use_sliding_window"):
            raise BothwaysError(f"{where} sets use_sliding_window, which this network does not have in that form")
        biases = {name: bool(stored.get(name, False)) for name in ("attention_bias", "mlp_bias")}
        if any(biases.values()) and (not self.biases or len({biases[name] for name in self.biases}) > 1):
            raise BothwaysError(f"{where} sets {' and '.join(f'{n} {v}' for n, v in biases.items())}, "
                                "but this network has a bias everywhere or nowhere")
        activation = stored.get("hidden_act", "silu")
        if activation not in _READ:
            raise BothwaysError(f"{where} has the unknown hidden_act '{activation}' {nearest(activation, _READ)}")
        # 2. the rest by name
        heads = int(stored["num_attention_heads"])
        keys = stored.get("num_key_value_heads") or heads
        head_size = stored.get("head_dim") or int(stored["hidden_size"]) // heads
        plain = head_size * heads == int(stored["hidden_size"])
        shape = Shape(int(stored["vocab_size"]), int(stored["hidden_size"]), int(stored["num_hidden_layers"]), 0, heads,
                      None if keys == heads else int(keys), None if plain else int(head_size),
                      int(stored["intermediate_size"]))
        base = rotary.get("rope_theta", stored.get("rope_theta", 10000.0))
        return ModelConfig(
            shape, Position("rotary", float(base), int(stored.get("max_position_embeddings", 2048))),
            Norm("rms", "before", float(stored.get("rms_norm_eps", 1e-6)), self.query_key),
            FeedForward("gated", _READ[activation]),  # type: ignore[arg-type]
            bias=any(biases.values()), tied=bool(stored.get("tie_word_embeddings", False)))

    def links(self, config: ModelConfig) -> Iterator[Link]:
        queries, keys, inner = config.shape.heads * config.head_size, config.key_heads * config.head_size, config.inner
        yield Link("embedding.weight", ("model.embed_tokens.weight",))
        for i in range(config.shape.layers):
            ours, theirs = f"tower.blocks.{i}.", f"model.layers.{i}."
            yield Link(f"{ours}attention_norm.weight", (f"{theirs}input_layernorm.weight",))
            yield Link(f"{ours}feed_forward_norm.weight", (f"{theirs}post_attention_layernorm.weight",))
            for kind in ("weight", "bias") if config.bias else ("weight",):
                attention, feed = f"{theirs}self_attn.{{}}_proj.{kind}", f"{theirs}mlp.{{}}_proj.{kind}"
                yield Link(f"{ours}attention.qkv.{kind}", tuple(map(attention.format, "qkv")), (queries, keys, keys))
                yield Link(f"{ours}attention.out.{kind}", (attention.format("o"),))
                yield Link(f"{ours}feed_forward.up_gate.{kind}", tuple(map(feed.format, ("up", "gate"))), (inner,) * 2)
                yield Link(f"{ours}feed_forward.down.{kind}", (feed.format("down"),))
            if self.query_key:
                yield Link(f"{ours}attention.query_norm.weight", (f"{theirs}self_attn.q_norm.weight",))
                yield Link(f"{ours}attention.key_norm.weight", (f"{theirs}self_attn.k_norm.weight",))
        yield Link("tower.norm.weight", ("model.norm.weight",))
        if not config.tied:
            yield Link("head.weight", ("lm_head.weight",))

    def gather(self, published: Mapping[str, Tensor], stored: Mapping[str, Any], config: ModelConfig,
               shapes: Mapping[str, torch.Size], where: str) -> dict[str, Tensor]:
        """As every family; a head that repeats the embedding is passed over where they are tied."""
        weights = dict(published)
        if config.tied and "lm_head.weight" in weights:
            weights.pop("lm_head.weight")
        return super().gather(weights, stored, config, shapes, where)

    def repeats(self, name: str) -> bool:
        """Older files carry each layer's rotary frequencies, which the config says too."""
        return name.endswith(".rotary_emb.inv_freq")
