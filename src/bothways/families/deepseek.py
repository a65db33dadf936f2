"""DeepSeek-V2 (arXiv 2405.04434), V3 and R1 (arXiv 2412.19437, 2501.12948) as `transformers` has them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from bothways.errors import BothwaysError
from bothways.families.base import Change, Names, Table, demand
from bothways.families.llama import Llama, shortest
from bothways.families.mixtral import FEED_FORWARD, expert_names, mixed
from bothways.families.rotary import spread_of, written_position
from bothways.model.config import Experts, LatentHeads, ModelConfig


def _tail(whole: bool) -> Change:
    """Turned pairs that lie side by side at the end of each head (or of the one latent): ours are halves apart."""
    def order(config: ModelConfig) -> Tensor:
        latent = config.latent or LatentHeads()
        size = latent.keys + latent.rotary if whole else config.head_size
        pairs = torch.arange(size - latent.rotary, size).view(-1, 2).T.flatten()
        return torch.cat((torch.arange(size - latent.rotary), pairs))

    def moved(rows: Tensor, places: Tensor) -> Tensor:
        return rows.unflatten(0, (-1, len(places)))[:, places].flatten(0, 1)

    return Change(lambda theirs, config: moved(theirs, order(config)),
                  lambda ours, config: moved(ours, order(config).argsort()))


class DeepSeekV3(Llama):
    """Latent attention; experts by a sigmoid, in groups, with corrected choices and shared ones beside (V3, R1)."""

    model_type: ClassVar[str] = "deepseek_v3"
    architecture: ClassVar[str] = "DeepseekV3ForCausalLM"
    biases: ClassVar[Mapping[str, tuple[str, ...]]] = {"attention_bias": ("queries", "attention")}
    scoring: ClassVar[str] = "sigmoid"
    """How its router scores."""

    def table(self, config: ModelConfig) -> Table:
        block, theirs = "tower.blocks.{i}.attention.", "model.layers.{i}.self_attn."
        narrow = config.latent is not None and config.latent.queries is not None
        moe = "model.layers.{i}.mlp."
        return {
            **self.names,
            f"{block}q_latent": f"{theirs}q_a_proj", f"{block}q_norm": f"{theirs}q_a_layernorm",
            f"{block}q": Names((f"{theirs}{'q_b_proj' if narrow else 'q_proj'}",), (_tail(False),)),
            f"{block}kv_latent": Names((f"{theirs}kv_a_proj_with_mqa",), (_tail(True),)),
            f"{block}kv_norm": f"{theirs}kv_a_layernorm", f"{block}kv_open": f"{theirs}kv_b_proj",
            f"{FEED_FORWARD}router": f"{moe}gate",
            f"{FEED_FORWARD}router.correction": f"{moe}gate.e_score_correction_bias",
            f"{FEED_FORWARD}shared.up_gate": (f"{moe}shared_experts.up_proj", f"{moe}shared_experts.gate_proj"),
            f"{FEED_FORWARD}shared.down": f"{moe}shared_experts.down_proj",
            **expert_names(config, f"{moe}experts.{{j}}.", "up_proj", "gate_proj", "down_proj"),
        }

    def to_config(self, config: ModelConfig) -> dict[str, Any]:
        latent, experts = config.latent or LatentHeads(), config.feed_forward.experts or Experts()
        spread = 1.0 if config.scale is None else config.scale * math.sqrt(config.head_size)
        letters = [config.experts_of(i) is None for i in range(config.shape.layers)]
        return {
            **super().to_config(config), **written_position(config.position, spread),
            "head_dim": latent.rotary, "q_lora_rank": latent.queries, "kv_lora_rank": latent.keys,
            "qk_rope_head_dim": latent.rotary, "qk_nope_head_dim": config.head_size - latent.rotary,
            "v_head_dim": latent.values or config.head_size, "n_routed_experts": experts.count,
            "num_experts_per_tok": experts.active, "moe_intermediate_size": experts.inner or config.inner,
            "n_shared_experts": experts.shared, "routed_scaling_factor": experts.scale,
            "norm_topk_prob": experts.normalised, "n_group": experts.groups, "topk_group": experts.open_groups,
            "first_k_dense_replace": letters.index(False) if False in letters else len(letters), "moe_layer_freq": 1,
            **self.choosing(experts),
        }

    def choosing(self, experts: Experts) -> dict[str, Any]:
        """The entries about the choice of experts."""
        return {"rope_interleave": True, "scoring_func": "sigmoid", "topk_method": "noaux_tc",
                "num_nextn_predict_layers": 0}

    def from_config(self, stored: Mapping[str, Any], where: str) -> ModelConfig:
        # 1. what we cannot follow is refused by name
        demand(stored, ("kv_lora_rank", "qk_rope_head_dim", "qk_nope_head_dim", "v_head_dim", "n_routed_experts",
                        "num_experts_per_tok", "moe_intermediate_size", "num_hidden_layers"), where)
        for name, only in (("rope_interleave", True), ("moe_layer_freq", 1), ("scoring_func", self.scoring)):
            if stored.get(name, only) != only:
                raise BothwaysError(f"{where} sets {name} to {stored[name]}, but {self.architecture} is read with "
                                    f"{only} only")
        if stored.get("head_dim") not in (None, stored["qk_rope_head_dim"]):
            raise BothwaysError(f"{where} has head_dim {stored['head_dim']}, but it is the part that turns here, "
                                f"qk_rope_head_dim {stored['qk_rope_head_dim']}")
        # 2. the block, with heads of both parts
        rotary, layers = int(stored["qk_rope_head_dim"]), int(stored["num_hidden_layers"])
        size = int(stored["qk_nope_head_dim"]) + rotary
        config = super().from_config({**stored, "head_dim": rotary, "num_key_value_heads": None}, where)
        narrow = stored.get("q_lora_rank")
        latent = LatentHeads(int(stored["kv_lora_rank"]), None if narrow is None else int(narrow), rotary,
                             int(stored["v_head_dim"]))
        spread = spread_of(stored)
        # 3. its experts
        dense = min(int(stored.get("first_k_dense_replace") or 0), layers)
        config = replace(config, shape=replace(config.shape, head_size=size), latent=latent,
                         scale=None if spread == 1 else size ** -0.5 * spread)
        return mixed(config, replace(self.experts(stored, where), where=shortest("D" * dense + "E" * (layers - dense)),
                                     shared=int(stored.get("n_shared_experts") or 0)))

    def experts(self, stored: Mapping[str, Any], where: str) -> Experts:
        """The experts and the choice among them."""
        return Experts(int(stored["n_routed_experts"]), int(stored["num_experts_per_tok"]),
                       int(stored["moe_intermediate_size"]), score="sigmoid", group_by=2, correction=True,
                       normalised=bool(stored.get("norm_topk_prob", True)), groups=int(stored.get("n_group") or 1),
                       open_groups=int(stored.get("topk_group") or 1),
                       scale=float(stored.get("routed_scaling_factor", 2.5)))

    def repeats(self, name: str, config: ModelConfig) -> bool:
        """Also the layers behind the last, which guess further tokens ahead and take no part in a score."""
        layer = re.match(r"(?:model\.)?layers\.(\d+)\.", name)
        return super().repeats(name, config) or (layer is not None and int(layer[1]) >= config.shape.layers)


class DeepSeekV2(DeepSeekV3):
    """Latent attention; experts by a softmax, the best of all or of the best groups, with shared ones beside."""

    model_type: ClassVar[str] = "deepseek_v2"
    architecture: ClassVar[str] = "DeepseekV2ForCausalLM"
    scoring: ClassVar[str] = "softmax"

    def choosing(self, experts: Experts) -> dict[str, Any]:
        return {"topk_method": "greedy" if experts.groups == 1 else "group_limited_greedy", "scoring_func": "softmax"}

    def experts(self, stored: Mapping[str, Any], where: str) -> Experts:
        if stored.get("norm_topk_prob"):
            raise BothwaysError(f"{where} sets norm_topk_prob, with which {self.architecture} is not read here")
        method = stored.get("topk_method", "greedy")
        if method not in ("greedy", "group_limited_greedy"):
            raise BothwaysError(f"{where} has the topk_method '{method}', but greedy and group_limited_greedy are read "
                                "here")
        grouped = method != "greedy"
        return Experts(int(stored["n_routed_experts"]), int(stored["num_experts_per_tok"]),
                       int(stored["moe_intermediate_size"]), normalised=False,
                       groups=int(stored["n_group"]) if grouped else 1,
                       open_groups=int(stored["topk_group"]) if grouped else 1,
                       scale=float(stored.get("routed_scaling_factor", 1.0)))
