"""The text part of Llama 4 (model card of April 2025) as `transformers.Llama4ForCausalLM`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from bothways.errors import BothwaysError
from bothways.families.base import Change, Names, Table, demand, turned
from bothways.families.llama import Llama, shortest
from bothways.families.mixtral import FEED_FORWARD, mixed
from bothways.model.config import Experts, ModelConfig, Temperature

LETTERS = {"chunked_attention": "C", "full_attention": "G"}
"""Published kinds of layers and the letters of our `reach`."""
_LAYER = "model.layers.{i}."
_MOE = f"{_LAYER}feed_forward."


def _experts(rows: Tensor, config: ModelConfig) -> Tensor:
    """Our rows of all experts by expert: (E, rows of one, columns)."""
    return rows.unflatten(0, ((config.feed_forward.experts or Experts()).count, -1))


def _swapped(rows: Tensor) -> Tensor:
    """Gate and up of each expert (E, 2 I, D) in the other order."""
    return torch.cat(rows.chunk(2, dim=1)[::-1], dim=1)


_UP_GATE = Change(lambda theirs, config: _swapped(theirs.transpose(1, 2)).flatten(0, 1),
                  lambda ours, config: _swapped(_experts(ours, config)).transpose(1, 2).contiguous())
"""All experts in one tensor (E, inputs, outputs), the gate first."""
_DOWN = Change(lambda theirs, config: theirs.transpose(1, 2).flatten(0, 1),
               lambda ours, config: _experts(ours, config).transpose(1, 2).contiguous())


class Llama4(Llama):
    """Layers in chunks with rotary places, others that see all and know none, experts weighted where they enter.

    Its queries and keys are normed without a weight behind the turn, which changes no length: before it is the same.
    """

    model_type: ClassVar[str] = "llama4_text"
    architecture: ClassVar[str] = "Llama4ForCausalLM"
    base: ClassVar[float] = 500000.0
    biases: ClassVar[Mapping[str, tuple[str, ...]]] = {"attention_bias": ("queries", "attention")}
    names: ClassVar[Table] = {
        **{ours: theirs for ours, theirs in Llama.names.items() if not ours.endswith((".query_norm", ".key_norm"))},
        "tower.blocks.{i}.attention.qkv": Names(tuple(f"{_LAYER}self_attn.{part}_proj" for part in "qkv"),
                                                (turned(True), turned(True), None)),
        f"{FEED_FORWARD}up_gate": (f"{_MOE}up_proj", f"{_MOE}gate_proj"), f"{FEED_FORWARD}down": f"{_MOE}down_proj",
        f"{FEED_FORWARD}router": f"{_MOE}router",
        f"{FEED_FORWARD}expert_up_gate": Names((f"{_MOE}experts.gate_up_proj",), (_UP_GATE,)),
        f"{FEED_FORWARD}expert_down": Names((f"{_MOE}experts.down_proj",), (_DOWN,)),
        f"{FEED_FORWARD}shared.up_gate": (f"{_MOE}shared_expert.up_proj", f"{_MOE}shared_expert.gate_proj"),
        f"{FEED_FORWARD}shared.down": f"{_MOE}shared_expert.down_proj",
    }

    def to_config(self, config: ModelConfig) -> dict[str, Any]:
        experts, temperature = config.feed_forward.experts or Experts(), config.position.temperature
        layers, words = range(config.shape.layers), {letter: word for word, letter in LETTERS.items()}
        grown = {} if temperature is None else {"attn_scale": temperature.rise, "floor_scale": temperature.step}
        return {
            **super().to_config(config), "intermediate_size": experts.inner or config.inner,
            "intermediate_size_mlp": config.inner, "num_local_experts": experts.count,
            "num_experts_per_tok": experts.active, "router_aux_loss_coef": experts.balance,
            "output_router_logits": False, "interleave_moe_layer_step": 1,
            "moe_layers": [i for i in layers if config.experts_of(i) is not None],
            "no_rope_layers": [int(config.turns(i)) for i in layers], "use_qk_norm": bool(config.norm.query_key),
            "layer_types": [words.get(config.reach[i % len(config.reach)], config.reach) for i in layers],
            "attention_chunk_size": config.chunk, "attn_temperature_tuning": temperature is not None, **grown,
        }

    def from_config(self, stored: Mapping[str, Any], where: str) -> ModelConfig:
        # 1. which layers turn, and which have experts
        demand(stored, ("num_hidden_layers", "intermediate_size", "intermediate_size_mlp"), where)
        layers = int(stored["num_hidden_layers"])
        turns = self._turns(stored, layers, where)
        step = int(stored.get("interleave_moe_layer_step") or 1)
        mixing = stored.get("moe_layers")
        mixing = range(step - 1, layers, step) if mixing is None else mixing
        # 2. the block; the width of a dense layer is not that of an expert
        plain = super().from_config({"head_dim": 128, "rms_norm_eps": 1e-5, **stored, "no_rope_layers": turns,
                                     "intermediate_size": stored["intermediate_size_mlp"]}, where)
        unturned, normed = 0 in turns, bool(stored.get("use_qk_norm", True)) and 1 in turns
        if normed and plain.position.scaling is not None and plain.position.scaling.magnitude != 1:
            raise BothwaysError(f"{where} sets use_qk_norm and scales rotary positions in length, which the norm "
                                "behind them takes back: only kinds of scaling that keep lengths are read here")
        temperature = Temperature(float(stored.get("attn_scale", 0.1)), int(stored.get("floor_scale", 8192)))
        config = replace(
            plain, chunk=int(stored.get("attention_chunk_size", 8192) or plain.chunk),
            position=replace(plain.position, where=shortest("".join("RN"[not one] for one in turns)),
                             temperature=temperature if unturned and stored.get("attn_temperature_tuning", True)
                             else None),
            norm=replace(plain.norm, query_key="turned" if normed and unturned else normed,
                         query_key_weight=not normed))
        # 3. its experts
        letters = "".join("E" if i in mixing else "D" for i in range(layers))
        return mixed(config, Experts(
            int(stored.get("num_local_experts", 16)), int(stored.get("num_experts_per_tok", 1)),
            int(stored["intermediate_size"]), 1, shortest(letters), "sigmoid", normalised=False, weighs="inputs",
            balance=float(stored.get("router_aux_loss_coef", 0.001))))

    def reach_of(self, stored: Mapping[str, Any], layers: int, where: str) -> tuple[str, int]:
        """Layers that turn see a chunk, the others all, where the file does not say which do."""
        kinds = stored.get("layer_types") or ["chunked_attention" if one else "full_attention"
                                              for one in stored["no_rope_layers"]]
        if len(kinds) != layers or (unknown := [kind for kind in kinds if kind not in LETTERS]):
            found = f"{len(kinds)} layer_types" if len(kinds) != layers else f"the layer type '{unknown[0]}'"
            raise BothwaysError(f"{where} has {found}, but each of {layers} layers is one of {', '.join(LETTERS)}")
        reach = shortest("".join(LETTERS[kind] for kind in kinds))
        if "C" in reach and not stored.get("attention_chunk_size", 8192):
            raise BothwaysError(f"{where} has layers of the type chunked_attention, but no attention_chunk_size")
        return reach, super().reach_of(stored, layers, where)[1]

    @staticmethod
    def _turns(stored: Mapping[str, Any], layers: int, where: str) -> list[int]:
        """1 for each layer with rotary positions: the published `no_rope_layers` says where they are."""
        interval = int(stored.get("no_rope_layer_interval") or 4)
        turns = stored.get("no_rope_layers") or [int((i + 1) % interval != 0) for i in range(layers)]
        if len(turns) < layers or set(turns) - {0, 1}:
            raise BothwaysError(f"{where} has the no_rope_layers {turns}, but a 1 (rotary) or 0 for each of {layers} "
                                "layers is read here")
        return [int(one) for one in turns[:layers]]
