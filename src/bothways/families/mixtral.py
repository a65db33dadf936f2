"""Mixtral (arXiv 2401.04088) as `transformers.MixtralForCausalLM`: Mistral with a mixture of experts in every layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

from bothways.families.base import Names, Table
from bothways.families.mistral import Mistral
from bothways.model.config import Experts, ModelConfig

FEED_FORWARD = "tower.blocks.{i}.feed_forward."


class Mixtral(Mistral):
    """Two of eight experts for each token, weighted by a softmax over the two."""

    model_type: ClassVar[str] = "mixtral"
    architecture: ClassVar[str] = "MixtralForCausalLM"
    base: ClassVar[float] = 1e6

    def table(self, config: ModelConfig) -> Table:
        moe = "model.layers.{i}.block_sparse_moe."
        names = {name: theirs for name, theirs in self.names.items() if not name.startswith(FEED_FORWARD)}
        return {**names, f"{FEED_FORWARD}router": f"{moe}gate",
                **expert_names(config, f"{moe}experts.{{j}}.", up="w3", gate="w1", down="w2")}

    def to_config(self, config: ModelConfig) -> dict[str, Any]:
        experts = config.feed_forward.experts or Experts()
        return {**super().to_config(config), "intermediate_size": experts.inner or config.inner,
                "num_local_experts": experts.count, "num_experts_per_tok": experts.active,
                "router_aux_loss_coef": experts.balance, "output_router_logits": False}

    def from_config(self, stored: Mapping[str, Any], where: str) -> ModelConfig:
        experts = Experts(int(stored.get("num_local_experts", 8)), int(stored.get("num_experts_per_tok", 2)),
                          balance=float(stored.get("router_aux_loss_coef", 0.001)))
        return mixed(super().from_config({"sliding_window": None, **stored}, where), experts)


def mixed(config: ModelConfig, experts: Experts) -> ModelConfig:
    """The same network with experts."""
    return replace(config, feed_forward=replace(config.feed_forward, experts=experts))


def expert_names(config: ModelConfig, theirs: str, up: str, gate: str, down: str) -> dict[str, Names]:
    """The names of experts that a file holds one by one, `{j}` standing for their number."""
    count = (config.feed_forward.experts or Experts()).count
    ups = tuple(f"{theirs.replace('{j}', str(j))}{part}.weight" for j in range(count) for part in (up, gate))
    downs = tuple(f"{theirs.replace('{j}', str(j))}{down}.weight" for j in range(count))
    return {f"{FEED_FORWARD}expert_up_gate": Names(ups), f"{FEED_FORWARD}expert_down": Names(downs)}
