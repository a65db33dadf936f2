"""T5 and T5 v1.1 (arXiv 1910.10683) as `transformers.T5ForConditionalGeneration`: two towers, relative positions."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any, ClassVar

from bothways.errors import BothwaysError, nearest
from bothways.families.base import Direction, Family, Table, demand
from bothways.families.gpt2 import READ
from bothways.model.config import FeedForward, Head, ModelConfig, Norm, Position, Shape

_FEED_FORWARDS: dict[tuple[str, str], str] = {("gated", "gelu_tanh"): "gated-gelu", ("gated", "silu"): "gated-silu",
                                              ("gated", "relu"): "gated-relu", ("plain", "relu"): "relu",
                                              ("plain", "silu"): "silu", ("plain", "gelu"): "gelu",
                                              ("plain", "gelu_tanh"): "gelu_new"}
"""Our feed-forward and its published name; "gated-gelu" means the tanh form there."""


def _tower(ours: str, theirs: str, crosses: bool) -> dict[str, str | tuple[str, ...]]:
    """The names of one tower; the third sub-layer of a block is the feed-forward where it crosses, else the second."""
    block, layer = f"{ours}.blocks.{{i}}.", f"{theirs}.block.{{i}}.layer."
    own, cross, last = f"{layer}0.SelfAttention.", f"{layer}1.EncDecAttention.", f"{layer}{2 if crosses else 1}."
    across: dict[str, str | tuple[str, ...]] = {
        f"{block}cross_norm": f"{layer}1.layer_norm", f"{block}cross.q": f"{cross}q",
        f"{block}cross.kv": (f"{cross}k", f"{cross}v"), f"{block}cross.out": f"{cross}o"}
    return {
        f"{ours}.relative": f"{theirs}.block.0.layer.0.SelfAttention.relative_attention_bias",
        f"{block}attention_norm": f"{layer}0.layer_norm",
        f"{block}attention.qkv": tuple(own + name for name in "qkv"),
        f"{block}attention.out": f"{own}o",
        **(across if crosses else {}),
        f"{block}feed_forward_norm": f"{last}layer_norm",
        f"{block}feed_forward.up_gate": (f"{last}DenseReluDense.wi_1", f"{last}DenseReluDense.wi_0"),
        f"{block}feed_forward.up": f"{last}DenseReluDense.wi",
        f"{block}feed_forward.down": f"{last}DenseReluDense.wo",
        f"{ours}.norm": f"{theirs}.final_layer_norm",
    }


class T5(Family):
    """Encoder and decoder with a relative bias shared by the layers of a tower, RMS norms and unscaled scores.

    A file whose `scale_decoder_outputs`, or in older ones `tie_word_embeddings`, is false is of v1.1: the head reads
    the states as they are. The first T5 scales them by one over the root of the width.
    """

    model_type: ClassVar[str] = "t5"
    architecture: ClassVar[str] = "T5ForConditionalGeneration"
    auto: ClassVar[str] = "AutoModelForSeq2SeqLM"
    direction: ClassVar[Direction] = "two towers"
    objective: ClassVar[str] = "span-corruption"
    names: ClassVar[Table] = {"embedding": "shared", **_tower("source_tower", "encoder", crosses=False),
                              **_tower("tower", "decoder", crosses=True), "head": "lm_head"}
    ignorable: ClassVar[tuple[str, ...]] = (
        r"(en|de)coder\.embed_tokens\.weight",
        r"decoder\.block\.0\.layer\.1\.EncDecAttention\.relative_attention_bias\.weight")
    """Each tower's embedding is the shared one; old files hold a bias of looking across, which was never used."""

    def to_config(self, config: ModelConfig) -> dict[str, Any]:
        shape = config.shape
        return {
            "vocab_size": shape.vocabulary, "d_model": shape.width, "d_kv": config.head_size, "d_ff": config.inner,
            "num_layers": shape.source_layers, "num_decoder_layers": shape.layers, "num_heads": shape.heads,
            "relative_attention_num_buckets": config.position.buckets,
            "relative_attention_max_distance": config.position.distance,
            "n_positions": config.position.length, "dropout_rate": config.dropout,
            "layer_norm_epsilon": config.norm.epsilon,
            "feed_forward_proj": _FEED_FORWARDS.get((config.feed_forward.kind, config.feed_forward.activation)),
            "is_encoder_decoder": True,
            # both say whether states go to the head scaled; whether it is tied shows in the weights
            "tie_word_embeddings": config.head.scale is not None,
            "scale_decoder_outputs": config.head.scale is not None,
        }

    def returned(self, config: ModelConfig) -> ModelConfig:
        """As every family; whether the head is tied shows in the weights alone."""
        return replace(super().returned(config), tied=config.tied)

    def from_config(self, stored: Mapping[str, Any], where: str) -> ModelConfig:
        demand(stored, ("vocab_size", "d_model", "d_kv", "d_ff", "num_layers", "num_heads"), where)
        if int(stored["num_layers"]) < 1:
            raise BothwaysError(f"{where} has num_layers {stored['num_layers']}, but it needs two towers")
        published = str(stored.get("feed_forward_proj", "relu"))
        kinds = {name: kind for kind, name in _FEED_FORWARDS.items()}
        if published not in kinds:
            raise BothwaysError(f"{where} has the unknown feed_forward_proj '{published}' {nearest(published, kinds)}")
        kind, activation = kinds[published]
        # what follows from that entry may be said again, and then it must agree
        for name, follows in (("is_gated_act", kind == "gated"), ("dense_act_fn", activation)):
            said = stored.get(name)
            if said is not None and (READ.get(said) if isinstance(said, str) else said) != follows:
                raise BothwaysError(f"{where} sets {name} to {said}, which contradicts feed_forward_proj '{published}'")
        width, heads, head_size = int(stored["d_model"]), int(stored["num_heads"]), int(stored["d_kv"])
        shape = Shape(int(stored["vocab_size"]), width, int(stored.get("num_decoder_layers") or stored["num_layers"]),
                      int(stored["num_layers"]), heads, None, None if head_size * heads == width else head_size,
                      int(stored["d_ff"]))
        position = Position("relative", length=int(stored.get("n_positions") or 512),
                            buckets=int(stored.get("relative_attention_num_buckets", 32)),
                            distance=int(stored.get("relative_attention_max_distance", 128)))
        scaled = stored.get("scale_decoder_outputs", stored.get("tie_word_embeddings") is not False)
        return ModelConfig(shape, position, Norm("rms", "before", float(stored.get("layer_norm_epsilon", 1e-6))),
                           FeedForward(kind, activation), tied=False, scale=1.0,  # type: ignore[arg-type]
                           head=Head(scale=width**-0.5 if scaled else None),
                           dropout=float(stored.get("dropout_rate", 0.1)))

    def settled(self, config: ModelConfig, names: Collection[str]) -> ModelConfig:
        """The head is a table of its own where the file has one."""
        return replace(config, tied=self.head not in names)


class T5Encoder(T5):
    """The tower of T5 that reads, alone: states for whoever asks for them, as text encoders of other models have it."""

    model_type: ClassVar[str] = "t5-encoder"
    stored_type: ClassVar[str] = "t5"
    architecture: ClassVar[str] = "T5EncoderModel"
    auto: ClassVar[str] = "AutoModelForTextEncoding"
    direction: ClassVar[Direction] = "bidirectional"
    objective: ClassVar[str] = "masked"
    names: ClassVar[Table] = {"embedding": "shared", **_tower("tower", "encoder", crosses=False)}

    def reads(self, stored: Mapping[str, Any]) -> bool:
        """Its files have the config of both towers, and say in `architectures` that they hold one."""
        return super().reads(stored) and stored.get("architectures") == [self.architecture]

    def to_config(self, config: ModelConfig) -> dict[str, Any]:
        layers = config.shape.layers
        return {**super().to_config(config), "num_layers": layers, "num_decoder_layers": layers,
                "is_encoder_decoder": False}

    def from_config(self, stored: Mapping[str, Any], where: str) -> ModelConfig:
        both = super().from_config({**stored, "num_decoder_layers": None}, where)
        return replace(both, shape=replace(both.shape, source_layers=0), head=Head(scores=False), tied=True)

    def settled(self, config: ModelConfig, names: Collection[str]) -> ModelConfig:
        """It has no head."""
        return config
