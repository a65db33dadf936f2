"""T5Gemma (arXiv 2504.06225) as `transformers.T5GemmaForConditionalGeneration`: two towers of Gemma 2's blocks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

from bothways.errors import BothwaysError
from bothways.families import settings
from bothways.families.base import Direction, Table, demand
from bothways.families.gemma import Gemma2
from bothways.families.llama import shortest
from bothways.model.config import ModelConfig


def _tower(ours: str, theirs: str, crosses: bool) -> dict[str, str | tuple[str, ...]]:
    """The names of one tower."""
    block, layer = f"{ours}.blocks.{{i}}.", f"{theirs}.layers.{{i}}."
    across: dict[str, str | tuple[str, ...]] = {
        f"{block}cross_norm": f"{layer}pre_cross_attn_layernorm",
        f"{block}cross_norm_out": f"{layer}post_cross_attn_layernorm",
        f"{block}cross.q": f"{layer}cross_attn.q_proj",
        f"{block}cross.kv": (f"{layer}cross_attn.k_proj", f"{layer}cross_attn.v_proj"),
        f"{block}cross.out": f"{layer}cross_attn.o_proj"}
    return {
        f"{block}attention_norm": f"{layer}pre_self_attn_layernorm",
        f"{block}attention_norm_out": f"{layer}post_self_attn_layernorm",
        f"{block}attention.qkv": tuple(f"{layer}self_attn.{part}_proj" for part in "qkv"),
        f"{block}attention.out": f"{layer}self_attn.o_proj",
        **(across if crosses else {}),
        f"{block}feed_forward_norm": f"{layer}pre_feedforward_layernorm",
        f"{block}feed_forward_norm_out": f"{layer}post_feedforward_layernorm",
        f"{block}feed_forward.up_gate": (f"{layer}mlp.up_proj", f"{layer}mlp.gate_proj"),
        f"{block}feed_forward.down": f"{layer}mlp.down_proj",
        f"{ours}.norm": f"{theirs}.norm",
    }


class T5Gemma(Gemma2):
    """An encoder and a decoder of Gemma 2's blocks, each with an embedding of its own (arXiv 2504.06225).

    Both towers have the same sizes here, their depth apart. A published window counts the token itself in the decoder,
    and only those beside it in the encoder.
    """

    model_type: ClassVar[str] = "t5gemma"
    architecture: ClassVar[str] = "T5GemmaForConditionalGeneration"
    auto: ClassVar[str] = "AutoModelForSeq2SeqLM"
    direction: ClassVar[Direction] = "two towers"
    objective: ClassVar[str] = "span-corruption"
    head: ClassVar[str] = "lm_head.out_proj.weight"
    names: ClassVar[Table] = {
        "embedding": "model.decoder.embed_tokens", "source_embedding": "model.encoder.embed_tokens",
        "head": "lm_head.out_proj", **_tower("source_tower", "model.encoder", crosses=False),
        **_tower("tower", "model.decoder", crosses=True)}

    def to_config(self, config: ModelConfig) -> dict[str, Any]:
        deep = replace(config, shape=replace(config.shape, layers=max(config.shape.source_layers, 1)))
        window = {"sliding_window": config.of_source.local}
        return {
            "encoder": {**super().to_config(deep), **window, "model_type": "t5_gemma_module"},
            "decoder": {**super().to_config(config), "model_type": "t5_gemma_module"},
            "vocab_size": config.shape.vocabulary, "is_encoder_decoder": True, "tie_word_embeddings": config.tied,
            "dropout_rate": config.dropout,
        }

    def from_config(self, stored: Mapping[str, Any], where: str) -> ModelConfig:
        demand(stored, ("encoder", "decoder"), where)
        tied = {"tie_word_embeddings": bool(stored.get("tie_word_embeddings", True))}
        source, own = (super(T5Gemma, self).from_config({**stored[part], **tied}, f"{where}, {part}")
                       for part in ("encoder", "decoder"))
        # 1. one config for both: what a tower alone may choose is set aside, and the rest must agree
        layers = max(source.shape.layers, own.shape.layers)
        letters = max((_letters(source), _letters(own)), key=len)
        if not letters.startswith(_letters(source)) or not letters.startswith(_letters(own)):
            raise BothwaysError(f"{where} has other layer_types in its encoder than in its decoder: they share "
                                "them here")
        alike = [replace(one, reach=shortest(letters), local=own.local, head=own.head,
                         shape=replace(one.shape, layers=layers)) for one in (source, own)]
        if found := list(settings.differences(*alike)):
            raise BothwaysError(f"{where} has two towers that differ: in the encoder {'; '.join(found)} (decoder)")
        # 2. two towers
        shape = replace(own.shape, layers=own.shape.layers, source_layers=source.shape.layers)
        return replace(own, shape=shape, reach=shortest(letters), source_local=source.local + 1,
                       shared_embedding=False, dropout=float(stored.get("dropout_rate", 0.0)))


def _letters(config: ModelConfig) -> str:
    """The reach of each layer."""
    return (config.reach * config.shape.layers)[:config.shape.layers]
