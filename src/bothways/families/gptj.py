"""GPT-J (2021) as `transformers.GPTJForCausalLM`: the first published parallel blocks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

from bothways.errors import BothwaysError
from bothways.families.base import Names, Table, demand, turned
from bothways.families.gpt2 import Gpt2
from bothways.model.config import Head, ModelConfig, Position

_LAYER = "transformer.h.{i}."


class GptJ(Gpt2):
    """GPT-2's parts in parallel blocks, with the front of each head turned and a biased output (2021)."""

    model_type: ClassVar[str] = "gptj"
    architecture: ClassVar[str] = "GPTJForCausalLM"
    names: ClassVar[Table] = {
        "embedding": "transformer.wte", "tower.norm": "transformer.ln_f",
        "head": "lm_head", "head_bias": "lm_head.bias",
        "tower.blocks.{i}.attention_norm": f"{_LAYER}ln_1",
        "tower.blocks.{i}.attention.qkv": Names(tuple(f"{_LAYER}attn.{part}_proj" for part in "qkv"),
                                                (turned(True), turned(True), None)),
        "tower.blocks.{i}.attention.out": f"{_LAYER}attn.out_proj",
        "tower.blocks.{i}.feed_forward.up": f"{_LAYER}mlp.fc_in",
        "tower.blocks.{i}.feed_forward.down": f"{_LAYER}mlp.fc_out",
    }
    ignorable: ClassVar[tuple[str, ...]] = (*Gpt2.ignorable, r"transformer\.h\.\d+\.attn\.embed_positions")

    def to_config(self, config: ModelConfig) -> dict[str, Any]:
        said = super().to_config(config)
        return {**{name: value for name, value in said.items() if name != "scale_attn_weights"},
                "rotary_dim": round(config.head_size * config.position.share)}

    def from_config(self, stored: Mapping[str, Any], where: str) -> ModelConfig:
        demand(stored, ("n_embd", "n_head"), where)
        if stored.get("rotary_dim", 64) is None:
            raise BothwaysError(f"{where} has no rotary_dim, so that a head's angles depend on the whole width: not "
                                "read here")
        plain = super().from_config({"tie_word_embeddings": False, "resid_pdrop": 0.0, **stored,
                                     "scale_attn_weights": True}, where)
        share = int(stored.get("rotary_dim", 64)) / plain.head_size
        if share > 1:
            raise BothwaysError(f"{where} has rotary_dim {stored['rotary_dim']}, but a head has {plain.head_size} "
                                "numbers")
        return replace(plain, position=Position("rotary", length=plain.position.length, share=share), parallel=True,
                       bias=("feed_forward",), head=Head(bias=True))
