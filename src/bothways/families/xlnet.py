"""XLNet (arXiv 1906.08237) as `transformers.XLNetLMHeadModel`: distances and segments in the scores, two streams."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from bothways.batch import Companion
from bothways.errors import BothwaysError, nearest
from bothways.families.base import Change, Direction, Family, Names, Table, demand
from bothways.families.llama import ACTIVATIONS, READ
from bothways.model.config import FeedForward, Head, ModelConfig, Norm, Position, Shape

_PUBLISHED = {**ACTIVATIONS, "gelu_tanh": "gelu_new"}
"""Our name of an activation and the published one."""
QUERIES = Companion("part", "query embedding")
"""What the rows of the second stream begin as."""


def _by_head(ours: Tensor, config: ModelConfig) -> Tensor:
    """(H D, W) of ours as (W, H, D)."""
    return ours.T.unflatten(1, (config.shape.heads, -1)).contiguous()


_IN = Change(lambda theirs, config: theirs.flatten(1).T.contiguous(), _by_head)
"""Projections that are stored as (width, heads, head size)."""
_OUT = Change(lambda theirs, config: theirs.flatten(1).contiguous(),
              lambda ours, config: ours.unflatten(1, (config.shape.heads, -1)).contiguous())
"""What attention writes, stored so too."""
_HEADED = Change(lambda theirs, config: theirs.flatten().contiguous(),
                 lambda ours, config: ours.unflatten(0, (config.shape.heads, -1)).contiguous())
_ALONE = Change(lambda theirs, config: theirs.flatten().contiguous(), lambda ours, config: ours.view(1, 1, -1))


class XLNet(Family):
    """Waves of distances and segments in the scores, two streams, post-norm blocks (arXiv 1906.08237).

    The published stream of queries begins as `mask_emb` and looks at contents alone: the rows of part 1 of a permuted
    Example. The published `perm_mask` is 1 where our visibility of queries forbids; contents see themselves too.
    """

    model_type: ClassVar[str] = "xlnet"
    architecture: ClassVar[str] = "XLNetLMHeadModel"
    auto: ClassVar[str] = "AutoModelForCausalLM"
    direction: ClassVar[Direction] = "bidirectional"
    objective: ClassVar[str] = "permuted"
    head: ClassVar[str] = "lm_loss.weight"
    prefix: ClassVar[str] = "transformer."
    names: ClassVar[Table] = {
        "embedding": "transformer.word_embedding",
        "companions.part.weight": Names(("transformer.mask_emb",), (_ALONE,)),
        "tower.blocks.{i}.attention.qkv.weight": Names(
            tuple(f"transformer.layer.{{i}}.rel_attn.{part}" for part in "qkv"), (_IN, _IN, _IN)),
        "tower.blocks.{i}.attention.query_bias": Names(("transformer.layer.{i}.rel_attn.r_w_bias",), (_HEADED,)),
        "tower.blocks.{i}.attention.placed.key.weight": Names(("transformer.layer.{i}.rel_attn.r",), (_IN,)),
        "tower.blocks.{i}.attention.placed.place_bias": "transformer.layer.{i}.rel_attn.r_r_bias",
        "tower.blocks.{i}.attention.placed.segment_bias": "transformer.layer.{i}.rel_attn.r_s_bias",
        "tower.blocks.{i}.attention.placed.segments": "transformer.layer.{i}.rel_attn.seg_embed",
        "tower.blocks.{i}.attention.out.weight": Names(("transformer.layer.{i}.rel_attn.o",), (_OUT,)),
        "tower.blocks.{i}.attention_norm": "transformer.layer.{i}.rel_attn.layer_norm",
        "tower.blocks.{i}.feed_forward.up": "transformer.layer.{i}.ff.layer_1",
        "tower.blocks.{i}.feed_forward.down": "transformer.layer.{i}.ff.layer_2",
        "tower.blocks.{i}.feed_forward_norm": "transformer.layer.{i}.ff.layer_norm",
        "head": "lm_loss", "head_bias": "lm_loss.bias"}

    def to_config(self, config: ModelConfig) -> dict[str, Any]:
        shape, activation = config.shape, config.feed_forward.activation
        return {
            "vocab_size": shape.vocabulary, "d_model": shape.width, "n_layer": shape.layers, "n_head": shape.heads,
            "d_head": config.head_size, "d_inner": config.inner,
            "ff_activation": _PUBLISHED.get(activation, activation), "layer_norm_eps": config.norm.epsilon,
            "dropout": config.dropout, "clamp_len": config.position.distance or -1, "attn_type": "bi",
            "bi_data": False, "tie_word_embeddings": config.tied,
        }

    def from_config(self, stored: Mapping[str, Any], where: str) -> ModelConfig:
        # 1. what we cannot follow is refused by name
        demand(stored, ("vocab_size", "d_model", "n_layer", "n_head", "d_inner"), where)
        if (kind := stored.get("attn_type", "bi")) != "bi":
            raise BothwaysError(f"{where} has attn_type '{kind}', but only 'bi' (XLNet's) is read here")
        if stored.get("bi_data"):
            raise BothwaysError(f"{where} sets bi_data, with which half of a batch is read backwards: set it to false")
        activation = str(stored.get("ff_activation", "gelu"))
        if activation not in READ:
            raise BothwaysError(f"{where} has the unknown ff_activation '{activation}' {nearest(activation, READ)}")
        # 2. sizes and choices
        width, heads, size = int(stored["d_model"]), int(stored["n_head"]), stored.get("d_head")
        shape = Shape(int(stored["vocab_size"]), width, int(stored["n_layer"]), 0, heads,
                      head_size=None if size is None or int(size) * heads == width else int(size),
                      inner=int(stored["d_inner"]))
        return ModelConfig(
            shape, Position("transformer-xl", distance=max(int(stored.get("clamp_len", -1)), 0), length=1 << 20),
            Norm("layer", "after", float(stored.get("layer_norm_eps", 1e-12)), bias=True, embedding=False),
            FeedForward("plain", READ[activation]),  # type: ignore[arg-type]
            head=Head(bias=True), bias=("queries", "feed_forward"), qkv_bias="q",
            tied=bool(stored.get("tie_word_embeddings", True)), dropout=float(stored.get("dropout", 0.1)),
            companions=(QUERIES,))
