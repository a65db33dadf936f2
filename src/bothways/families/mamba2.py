"""Mamba-2 (arXiv 2405.21060) as `transformers.Mamba2ForCausalLM`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from bothways.errors import BothwaysError
from bothways.families.base import Table, demand
from bothways.families.mamba import _BLOCK, Mamba, recurrent
from bothways.model.config import Mixer, ModelConfig


class Mamba2(Mamba):
    """State spaces with one decay a head, worked out as products of matrices inside chunks."""

    model_type: ClassVar[str] = "mamba2"
    architecture: ClassVar[str] = "Mamba2ForCausalLM"
    names: ClassVar[Table] = {
        **{ours: theirs for ours, theirs in Mamba.names.items() if not ours.endswith((".select", ".step"))},
        "tower.blocks.{i}.mixer.step_bias": f"{_BLOCK}mixer.dt_bias",
        "tower.blocks.{i}.mixer.gate_norm": f"{_BLOCK}mixer.norm",
    }

    def to_config(self, config: ModelConfig) -> dict[str, Any]:
        published = super().to_config(config)
        for name in ("time_step_rank", "intermediate_size"):
            del published[name]
        return {**published, "head_dim": config.mixer.head_size, "n_groups": config.mixer.groups,
                "num_heads": config.mixed // config.mixer.head_size}

    def from_config(self, stored: Mapping[str, Any], where: str) -> ModelConfig:
        demand(stored, ("vocab_size", "hidden_size", "num_hidden_layers"), where)
        limit = stored.get("time_step_limit") or (0.0, float("inf"))
        # JSON has no infinity, so it may stand as {"__float__": "Infinity"}
        if [float(one["__float__"] if isinstance(one, dict) else one) for one in limit] != [0.0, float("inf")]:
            raise BothwaysError(f"{where} bounds steps by time_step_limit {limit}, which this network does not")
        width = int(stored["hidden_size"])
        mixer = Mixer("mamba2", int(stored.get("state_size", 128)), int(stored.get("conv_kernel", 4)),
                      bool(stored.get("use_conv_bias", True)), width * int(stored.get("expand", 2)), None,
                      int(stored.get("head_dim", 64)), int(stored.get("n_groups", 8)))
        return recurrent(stored, mixer, width, bool(stored.get("tie_word_embeddings", False)), where)
