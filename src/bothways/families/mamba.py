"""Mamba (arXiv 2312.00752) as `transformers.MambaForCausalLM`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from bothways.errors import BothwaysError
from bothways.families.base import Direction, Family, Table, demand
from bothways.families.llama import parts_of
from bothways.model.config import FeedForward, Mixer, ModelConfig, Norm, Position, Shape

_BLOCK = "backbone.layers.{i}."


class Mamba(Family):
    """Selective state spaces: a recurrence instead of attention, no feed-forward and no positions."""

    model_type: ClassVar[str] = "mamba"
    architecture: ClassVar[str] = "MambaForCausalLM"
    auto: ClassVar[str] = "AutoModelForCausalLM"
    direction: ClassVar[Direction] = "causal"
    objective: ClassVar[str] = "next-token"
    prefix: ClassVar[str] = "backbone."
    names: ClassVar[Table] = {
        "embedding": "backbone.embeddings",
        "tower.blocks.{i}.mixer_norm": f"{_BLOCK}norm",
        "tower.blocks.{i}.mixer.entry": f"{_BLOCK}mixer.in_proj",
        "tower.blocks.{i}.mixer.convolution": f"{_BLOCK}mixer.conv1d",
        "tower.blocks.{i}.mixer.select": f"{_BLOCK}mixer.x_proj",
        "tower.blocks.{i}.mixer.step": f"{_BLOCK}mixer.dt_proj",
        "tower.blocks.{i}.mixer.log_decay": f"{_BLOCK}mixer.A_log",
        "tower.blocks.{i}.mixer.skip": f"{_BLOCK}mixer.D",
        "tower.blocks.{i}.mixer.out": f"{_BLOCK}mixer.out_proj",
        "tower.norm": "backbone.norm_f",
        "head": "lm_head",
    }

    def to_config(self, config: ModelConfig) -> dict[str, Any]:
        shape, mixer = config.shape, config.mixer
        return {
            "vocab_size": shape.vocabulary, "hidden_size": shape.width, "num_hidden_layers": shape.layers,
            "state_size": mixer.state, "conv_kernel": mixer.convolution, "use_conv_bias": mixer.convolution_bias,
            "use_bias": config.biased("queries"), "expand": config.mixed // shape.width,
            "intermediate_size": config.mixed, "time_step_rank": mixer.rank or -(-shape.width // 16),
            "layer_norm_epsilon": config.norm.epsilon, "hidden_act": "silu", "residual_in_fp32": False,
            "tie_word_embeddings": config.tied,
        }

    def from_config(self, stored: Mapping[str, Any], where: str) -> ModelConfig:
        demand(stored, ("vocab_size", "hidden_size", "num_hidden_layers"), where)
        width = int(stored["hidden_size"])
        rank = stored.get("time_step_rank", "auto")
        mixer = Mixer("mamba", int(stored.get("state_size", 16)), int(stored.get("conv_kernel", 4)),
                      bool(stored.get("use_conv_bias", True)), width * int(stored.get("expand", 2)),
                      None if rank == "auto" else int(rank))
        return recurrent(stored, mixer, width, bool(stored.get("tie_word_embeddings", True)), where)


def recurrent(stored: Mapping[str, Any], mixer: Mixer, width: int, tied: bool, where: str) -> ModelConfig:
    """What the two Mambas say alike about the rest of the network."""
    if stored.get("hidden_act", "silu") not in ("silu", "swish"):
        raise BothwaysError(f"{where} has hidden_act '{stored['hidden_act']}', but a Mamba is read with 'silu' here")
    return ModelConfig(
        Shape(int(stored["vocab_size"]), width, int(stored["num_hidden_layers"]), heads=1), Position("none"),
        Norm("rms", epsilon=float(stored.get("layer_norm_epsilon", 1e-5))), FeedForward("none"), mixer=mixer, tied=tied,
        bias=parts_of({"queries", "attention"} if stored.get("use_bias", False) else set()))
