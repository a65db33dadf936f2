"""nanochat (github.com/karpathy/nanochat, 2025) as `transformers.NanoChatForCausalLM`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

from bothways.errors import BothwaysError
from bothways.families.base import Change, Names, Table
from bothways.families.llama import Llama
from bothways.model.config import FeedForward, Head, ModelConfig, Norm

_LAYER = "model.layers.{i}."
_HALVES = Change(lambda theirs, config: theirs.unflatten(0, (-1, config.head_size)).roll(config.head_size // 2, 1)
                 .flatten(0, 1),
                 lambda ours, config: ours.unflatten(0, (-1, config.head_size)).roll(-(config.head_size // 2), 1)
                 .flatten(0, 1))
"""Pairs turned the other way round: a pair (a, b) turned by -x is the pair (b, a) turned by x."""


class NanoChat(Llama):
    """Squared ReLU, norms without weights, queries and keys normed, the embedding too, and capped logits (2025).

    Its queries and keys are normed behind the rotation. A norm without weights does not see a rotation, so it is the
    same before.
    """

    model_type: ClassVar[str] = "nanochat"
    architecture: ClassVar[str] = "NanoChatForCausalLM"
    biases: ClassVar[Mapping[str, tuple[str, ...]]] = {"attention_bias": ("queries", "attention")}
    names: ClassVar[Table] = {
        "embedding": "model.embed_tokens", "head": "lm_head",
        "tower.blocks.{i}.attention.qkv": Names(tuple(f"{_LAYER}self_attn.{part}_proj" for part in "qkv"),
                                                (_HALVES, _HALVES, None)),
        "tower.blocks.{i}.attention.out": f"{_LAYER}self_attn.o_proj",
        "tower.blocks.{i}.feed_forward.up": f"{_LAYER}mlp.fc1",
        "tower.blocks.{i}.feed_forward.down": f"{_LAYER}mlp.fc2",
    }

    def to_config(self, config: ModelConfig) -> dict[str, Any]:
        said = super().to_config(config)
        return {**{name: value for name, value in said.items() if name not in ("head_dim", "mlp_bias")},
                "hidden_act": "relu2", "final_logit_softcapping": config.head.soft_cap}

    def from_config(self, stored: Mapping[str, Any], where: str) -> ModelConfig:
        if (named := stored.get("hidden_act", "relu2")) != "relu2":
            raise BothwaysError(f"{where} has hidden_act '{named}', but {self.architecture} is read with 'relu2' only")
        plain = super().from_config({**stored, "hidden_act": "relu"}, where)
        return replace(
            plain, norm=Norm("rms", "before", plain.norm.epsilon, query_key=True, embedding=True, weight=False),
            feed_forward=FeedForward("plain", "relu_squared"),
            head=Head(soft_cap=stored.get("final_logit_softcapping", 15.0)))
