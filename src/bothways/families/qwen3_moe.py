"""Qwen3's mixtures of experts (arXiv 2505.09388) as `transformers.Qwen3MoeForCausalLM`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from bothways.families.base import Table, demand
from bothways.families.llama import shortest, windowed
from bothways.families.mixtral import FEED_FORWARD, expert_names, mixed
from bothways.families.qwen3 import Qwen3
from bothways.model.config import Experts, ModelConfig


class Qwen3Moe(Qwen3):
    """Qwen3 with many narrow experts in all layers, or in all but some."""

    model_type: ClassVar[str] = "qwen3_moe"
    architecture: ClassVar[str] = "Qwen3MoeForCausalLM"

    def table(self, config: ModelConfig) -> Table:
        return {**self.names, f"{FEED_FORWARD}router": "model.layers.{i}.mlp.gate",
                **expert_names(config, "model.layers.{i}.mlp.experts.{j}.", "up_proj", "gate_proj", "down_proj")}

    def to_config(self, config: ModelConfig) -> dict[str, Any]:
        experts, said = config.feed_forward.experts or Experts(), super().to_config(config)
        said.pop("layer_types")
        narrow = set(config.reach) == {"L"}
        return {**said, "use_sliding_window": narrow, "sliding_window": config.local + 1 if narrow else None,
                "num_experts": experts.count, "num_experts_per_tok": experts.active,
                "moe_intermediate_size": experts.inner or config.inner, "norm_topk_prob": experts.normalised,
                "decoder_sparse_step": 1, "router_aux_loss_coef": experts.balance, "output_router_logits": False,
                "mlp_only_layers": [i for i in range(config.shape.layers) if config.experts_of(i) is None]}

    def from_config(self, stored: Mapping[str, Any], where: str) -> ModelConfig:
        demand(stored, ("moe_intermediate_size", "num_experts_per_tok"), where)
        step, dense = int(stored.get("decoder_sparse_step", 1)), stored.get("mlp_only_layers") or []
        letters = "".join("D" if i in dense or (i + 1) % step else "E" for i in range(int(stored["num_hidden_layers"])))
        experts = Experts(int(stored.get("num_experts") or stored.get("num_local_experts") or 128),
                          int(stored["num_experts_per_tok"]), int(stored["moe_intermediate_size"]),
                          where=shortest(letters), normalised=bool(stored.get("norm_topk_prob", False)),
                          balance=float(stored.get("router_aux_loss_coef", 0.001)))
        return mixed(super().from_config(stored, where), experts)

    def reach_of(self, stored: Mapping[str, Any], layers: int, where: str) -> tuple[str, int]:
        """The window is that of all layers, or of none."""
        narrow = stored.get("use_sliding_window") and stored.get("sliding_window") is not None
        return windowed(stored, "L" if narrow else "G", where)
