"""T5 and T5 v1.1 (arXiv 1910.10683) as `transformers.T5ForConditionalGeneration`: two towers, relative positions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from bothways.errors import BothwaysError, nearest
from bothways.families.base import Direction, Family, Link, demand, in_the_way
from bothways.model.config import FeedForward, ModelConfig, Norm, Position, Shape

_FEED_FORWARDS: dict[tuple[str, str], str] = {("gated", "gelu_tanh"): "gated-gelu", ("gated", "silu"): "gated-silu",
                                              ("gated", "relu"): "gated-relu", ("plain", "relu"): "relu",
                                              ("plain", "silu"): "silu", ("plain", "gelu"): "gelu",
                                              ("plain", "gelu_tanh"): "gelu_new"}
"""Our feed-forward and its published name; "gated-gelu" means the tanh form there."""


class T5(Family):
    """Encoder and decoder with a relative bias shared by the layers of a tower, RMS norms and unscaled scores.

    A file whose `scale_decoder_outputs`, or in older ones `tie_word_embeddings`, is false is of v1.1: the head reads
    the states as they are. The first T5 scales them by one over the root of the width, which we read as a head of its
    own that holds scaled embeddings.
    """

    model_type: ClassVar[str] = "t5"
    architecture: ClassVar[str] = "T5ForConditionalGeneration"
    direction: ClassVar[Direction] = "two towers"
    objective: ClassVar[str] = "span-corruption"

    def obstacle(self, config: ModelConfig) -> str | None:
        feed = (config.feed_forward.kind, config.feed_forward.activation)
        return in_the_way(
            (bool(config.companions), "this class has no weights for "
             + " and ".join(one.name for one in config.companions) + ", which the objective trains beside the trunk"),
            (config.stack == "one tower", "shape.source_layers is 0, which makes one tower"),
            (config.position.kind != "relative", f"position.kind is '{config.position.kind}', not 'relative'"),
            (config.norm.kind != "rms", f"norm.kind is '{config.norm.kind}', not 'rms'"),
            (config.norm.place != "before", f"norm.place is '{config.norm.place}', not 'before'"),
            (config.norm.query_key, "norm.query_key is true"),
            (feed not in _FEED_FORWARDS, f"feed_forward is {feed[0]} with '{feed[1]}'"),
            (config.key_heads != config.shape.heads, f"shape.key_heads is {config.key_heads}, not shape.heads"),
            (config.narrow, f"reach is '{config.reach}', and its narrow layers are not in this class"),
            (config.bias, "bias is true"),
            (config.scale != 1.0, "scale is not 1"),
            (config.embedding_scale is not None, f"embedding_scale is {config.embedding_scale}"),
            (config.soft_cap is not None, f"soft_cap is {config.soft_cap}"),
        )

    def to_config(self, config: ModelConfig) -> dict[str, Any]:
        shape = config.shape
        return {
            "vocab_size": shape.vocabulary, "d_model": shape.width, "d_kv": config.head_size, "d_ff": config.inner,
            "num_layers": shape.source_layers, "num_decoder_layers": shape.layers, "num_heads": shape.heads,
            "relative_attention_num_buckets": config.position.buckets,
            "relative_attention_max_distance": config.position.distance,
            "n_positions": config.position.length, "dropout_rate": config.dropout,
            "layer_norm_epsilon": config.norm.epsilon,
            "feed_forward_proj": _FEED_FORWARDS[config.feed_forward.kind, config.feed_forward.activation],
            "is_encoder_decoder": True,
            # both say that states go to the head unscaled (v1.1); whether it is tied shows in the weights
            "tie_word_embeddings": False, "scale_decoder_outputs": False,
        }

    def from_config(self, stored: Mapping[str, Any], where: str) -> ModelConfig:
        demand(stored, ("vocab_size", "d_model", "d_kv", "d_ff", "num_layers", "num_heads"), where)
        published = stored.get("feed_forward_proj", "relu")
        kinds = {name: kind for kind, name in _FEED_FORWARDS.items()}
        if published not in kinds:
            raise BothwaysError(f"{where} has the unknown feed_forward_proj '{published}' {nearest(published, kinds)}")
        width, heads, head_size = int(stored["d_model"]), int(stored["num_heads"]), int(stored["d_kv"])
        shape = Shape(int(stored["vocab_size"]), width, int(stored.get("num_decoder_layers") or stored["num_layers"]),
                      int(stored["num_layers"]), heads, None, None if head_size * heads == width else head_size,
                      int(stored["d_ff"]))
        position = Position("relative", length=int(stored.get("n_positions") or 512),
                            buckets=int(stored.get("relative_attention_num_buckets", 32)),
                            distance=int(stored.get("relative_attention_max_distance", 128)))
        kind, activation = kinds[published]
        return ModelConfig(shape, position, Norm("rms", "before", float(stored.get("layer_norm_epsilon", 1e-6))),
                           FeedForward(kind, activation), tied=False, scale=1.0,  # type: ignore[arg-type]
                           dropout=float(stored.get("dropout_rate", 0.1)))

    def links(self, config: ModelConfig) -> Iterator[Link]:
        yield Link("embedding.weight", ("shared.weight",))
        yield from _tower(config, "source_tower", "encoder", config.shape.source_layers, crosses=False)
        yield from _tower(config, "tower", "decoder", config.shape.layers, crosses=True)
        if not config.tied:
            yield Link("head.weight", ("lm_head.weight",))

    def gather(self, published: Mapping[str, Tensor], stored: Mapping[str, Any], config: ModelConfig,
               shapes: Mapping[str, torch.Size], where: str) -> dict[str, Tensor]:
        """As every family; a head that the file leaves out is the embedding, scaled unless the file is of v1.1."""
        weights = dict(published)
        if not config.tied and "shared.weight" in weights:
            scaled = stored.get("scale_decoder_outputs", stored.get("tie_word_embeddings") is not False)
            head = weights.get("lm_head.weight", weights["shared.weight"])
            weights["lm_head.weight"] = head * config.shape.width**-0.5 if scaled else head.clone()
        elif config.tied:
            weights.pop("lm_head.weight", None)
        return super().gather(weights, stored, config, shapes, where)

    def repeats(self, name: str) -> bool:
        """Each tower's embedding is the shared one."""
        return name in ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")


def _tower(config: ModelConfig, ours: str, theirs: str, layers: int, crosses: bool) -> Iterator[Link]:
    """The links of one tower; the third sub-layer of a block is the feed-forward where it crosses, else the second."""
    heads, inner = config.shape.heads * config.head_size, config.inner
    yield Link(f"{ours}.relative.weight", (f"{theirs}.block.0.layer.0.SelfAttention.relative_attention_bias.weight",))
    for i in range(layers):
        block, layer = f"{ours}.blocks.{i}.", f"{theirs}.block.{i}.layer."
        yield Link(f"{block}attention_norm.weight", (f"{layer}0.layer_norm.weight",))
        own = f"{layer}0.SelfAttention."
        yield Link(f"{block}attention.qkv.weight", tuple(f"{own}{name}.weight" for name in "qkv"), (heads,) * 3)
        yield Link(f"{block}attention.out.weight", (f"{own}o.weight",))
        if crosses:
            cross = f"{layer}1.EncDecAttention."
            yield Link(f"{block}cross_norm.weight", (f"{layer}1.layer_norm.weight",))
            yield Link(f"{block}cross.q.weight", (f"{cross}q.weight",))
            yield Link(f"{block}cross.kv.weight", (f"{cross}k.weight", f"{cross}v.weight"), (heads, heads))
            yield Link(f"{block}cross.out.weight", (f"{cross}o.weight",))
        last = f"{layer}{2 if crosses else 1}."
        feed = f"{last}DenseReluDense."
        yield Link(f"{block}feed_forward_norm.weight", (f"{last}layer_norm.weight",))
        if config.feed_forward.kind == "gated":
            yield Link(f"{block}feed_forward.up_gate.weight", (f"{feed}wi_1.weight", f"{feed}wi_0.weight"),
                       (inner, inner))
        else:
            yield Link(f"{block}feed_forward.up.weight", (f"{feed}wi.weight",))
        yield Link(f"{block}feed_forward.down.weight", (f"{feed}wo.weight",))
    yield Link(f"{ours}.norm.weight", (f"{theirs}.final_layer_norm.weight",))
