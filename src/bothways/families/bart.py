"""BART (arXiv 1910.13461) and PLBART (arXiv 2103.06333) as the `...ForConditionalGeneration` of `transformers`."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any, ClassVar

from bothways.errors import BothwaysError
from bothways.families.base import Change, Direction, Family, Names, Table, demand
from bothways.families.gpt2 import READ as _READ
from bothways.families.gpt2 import activation_of, published_activation
from bothways.model.config import Head, ModelConfig, Norm, Position, Shape

READ = {"gelu": "gelu", **_READ}
"""Published names of activations, and ours; a file without one means gelu."""
_ONE_ROW = Change(lambda theirs, config: theirs.flatten(), lambda ours, config: ours.unsqueeze(0))
"""A number for each token, stored as one row of a matrix."""
OFFSET = 2
"""Rows of the table of places before that of the first one."""


def _tower(ours: str, theirs: str, crosses: bool) -> dict[str, str | tuple[str, ...]]:
    """The names of one tower."""
    block, layer = f"{ours}.blocks.{{i}}.", f"{theirs}.layers.{{i}}."
    across: dict[str, str | tuple[str, ...]] = {
        f"{block}cross_norm": f"{layer}encoder_attn_layer_norm",
        f"{block}cross.q": f"{layer}encoder_attn.q_proj",
        f"{block}cross.kv": (f"{layer}encoder_attn.k_proj", f"{layer}encoder_attn.v_proj"),
        f"{block}cross.out": f"{layer}encoder_attn.out_proj"}
    return {
        f"{ours}.position": f"{theirs}.embed_positions", f"{ours}.embedding_norm": f"{theirs}.layernorm_embedding",
        f"{block}attention_norm": f"{layer}self_attn_layer_norm",
        f"{block}attention.qkv": tuple(f"{layer}self_attn.{part}_proj" for part in "qkv"),
        f"{block}attention.out": f"{layer}self_attn.out_proj",
        **(across if crosses else {}),
        f"{block}feed_forward_norm": f"{layer}final_layer_norm",
        f"{block}feed_forward.up": f"{layer}fc1", f"{block}feed_forward.down": f"{layer}fc2",
    }


class Bart(Family):
    """Two towers, layer norms after each sum and behind the embedding, learned positions (arXiv 1910.13461)."""

    model_type: ClassVar[str] = "bart"
    architecture: ClassVar[str] = "BartForConditionalGeneration"
    auto: ClassVar[str] = "AutoModelForSeq2SeqLM"
    direction: ClassVar[Direction] = "two towers"
    objective: ClassVar[str] = "denoising"
    prefix: ClassVar[str] = "model."
    names: ClassVar[Table] = {
        "embedding": "model.shared", **_tower("source_tower", "model.encoder", crosses=False),
        **_tower("tower", "model.decoder", crosses=True), "head": "lm_head",
        "head_bias": Names(("final_logits_bias",), (_ONE_ROW,)),
    }
    ignorable: ClassVar[tuple[str, ...]] = (r"model\.(en|de)coder\.embed_tokens\.weight",
                                            r"model\.(en|de)coder\.version")
    """Each tower's embedding is the shared one."""
    special: ClassVar[Mapping[str, int]] = {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2,
                                            "decoder_start_token_id": 2}
    scales: ClassVar[bool] = False
    """Whether a file that does not say multiplies the embedding by the root of the width."""

    def to_config(self, config: ModelConfig) -> dict[str, Any]:
        shape = config.shape
        sizes = {f"{tower}_{name}": size for tower in ("encoder", "decoder")
                 for name, size in (("ffn_dim", config.inner), ("attention_heads", shape.heads))}
        return {
            "vocab_size": shape.vocabulary, "d_model": shape.width, "encoder_layers": shape.source_layers,
            "decoder_layers": shape.layers, **sizes, "max_position_embeddings": config.position.length,
            "activation_function": published_activation(READ, config.feed_forward.activation),
            "dropout": config.dropout, "scale_embedding": config.embedding_scale is not None,
            "is_encoder_decoder": True, "tie_word_embeddings": config.tied,
        }

    def returned(self, config: ModelConfig) -> ModelConfig:
        """As every family; whether tokens have a number added to their scores shows in the weights alone."""
        read = super().returned(config)
        return replace(read, head=replace(read.head, bias=config.head.bias))

    def settled(self, config: ModelConfig, names: Collection[str]) -> ModelConfig:
        return config if "final_logits_bias" in names else replace(config, head=Head())

    def from_config(self, stored: Mapping[str, Any], where: str) -> ModelConfig:
        # 1. what we cannot follow is refused by name
        demand(stored, ("vocab_size", "d_model", "encoder_layers", "decoder_layers", "encoder_attention_heads",
                        "encoder_ffn_dim"), where)
        for name in ("attention_heads", "ffn_dim"):
            one = int(stored[f"encoder_{name}"])
            if (other := int(stored.get(f"decoder_{name}") or one)) != one:
                raise BothwaysError(f"{where} has encoder_{name} {one} and decoder_{name} {other}, but both towers "
                                    "have the same sizes here")
        if not stored.get("tie_word_embeddings", True):
            raise BothwaysError(f"{where} sets tie_word_embeddings to false, so that each tower has an embedding of "
                                "its own, but both towers and the head share one here")
        for name in ("normalize_before", "add_final_layer_norm", "static_position_embeddings"):
            if stored.get(name):
                raise BothwaysError(f"{where} sets {name}, with which {self.architecture} is not read here")
        if int(stored["encoder_layers"]) < 1:
            raise BothwaysError(f"{where} has encoder_layers {stored['encoder_layers']}, but it needs two towers")
        # 2. sizes
        width = int(stored["d_model"])
        shape = Shape(int(stored["vocab_size"]), width, int(stored["decoder_layers"]), int(stored["encoder_layers"]),
                      int(stored["encoder_attention_heads"]), inner=int(stored["encoder_ffn_dim"]))
        activation = str(stored.get("activation_function") or next(iter(READ)))
        return ModelConfig(
            shape, Position("learned", length=int(stored.get("max_position_embeddings", 1024)), offset=OFFSET),
            Norm("layer", "after", 1e-5, embedding=True),
            activation_of(READ, activation, "activation_function", where), head=Head(bias=True), bias=True,
            embedding_scale=width**0.5 if stored.get("scale_embedding", self.scales) else None,
            dropout=float(stored.get("dropout", 0.1)))


class PlBart(Bart):
    """BART's blocks, pretrained on programs, with embeddings times the root of the width (arXiv 2103.06333)."""

    model_type: ClassVar[str] = "plbart"
    architecture: ClassVar[str] = "PLBartForConditionalGeneration"
    special: ClassVar[Mapping[str, int]] = {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2}
    scales: ClassVar[bool] = True
