"""GPT-2 as `transformers.GPT2LMHeadModel`, and the first GPT as `transformers.OpenAIGPTLMHeadModel`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from bothways.errors import BothwaysError, nearest
from bothways.families.base import TRANSPOSED, Direction, Family, Names, Table, demand
from bothways.model.config import FeedForward, ModelConfig, Norm, Position, Shape

READ = {"gelu_new": "gelu_tanh", "gelu": "gelu", "relu": "relu", "silu": "silu", "gelu_pytorch_tanh": "gelu_tanh",
        "gelu_fast": "gelu_tanh", "swish": "silu", "relu2": "relu_squared", "quick_gelu": "quick_gelu",
        "tanh": "tanh"}
"""Published names of activations, the usual one of each first, and ours."""


def published_activation(read: Mapping[str, str], ours: str) -> str:
    """The first published name of one of our activations; our own where there is none."""
    return next((theirs for theirs, name in read.items() if name == ours), ours)


def activation_of(read: Mapping[str, str], named: str, entry: str, where: str) -> FeedForward:
    """A plain feed-forward with the activation that a file names.

    Raises:
        BothwaysError: an unknown one.
    """
    if named not in read:
        raise BothwaysError(f"{where} has the unknown {entry} '{named}' {nearest(named, read)}")
    return FeedForward("plain", read[named])  # type: ignore[arg-type]


def _turned_over(ours: str, theirs: str) -> dict[str, str | tuple[str, ...] | Names]:
    """A linear layer whose weight is stored as (inputs, outputs)."""
    return {f"{ours}.weight": Names((f"{theirs}.weight",), (TRANSPOSED,)), f"{ours}.bias": f"{theirs}.bias"}


def _names(tokens: str, places: str) -> dict[str, str | tuple[str, ...] | Names]:
    """What both generations share: the two tables, and a block."""
    ours, theirs = "tower.blocks.{i}.", "transformer.h.{i}."
    return {
        "embedding": f"transformer.{tokens}", "tower.position": f"transformer.{places}", "head": "lm_head",
        f"{ours}attention_norm": f"{theirs}ln_1", f"{ours}feed_forward_norm": f"{theirs}ln_2",
        **_turned_over(f"{ours}attention.qkv", f"{theirs}attn.c_attn"),
        **_turned_over(f"{ours}attention.out", f"{theirs}attn.c_proj"),
        **_turned_over(f"{ours}feed_forward.up", f"{theirs}mlp.c_fc"),
        **_turned_over(f"{ours}feed_forward.down", f"{theirs}mlp.c_proj"),
    }


class Gpt2(Family):
    """Layer norms before each part, learned positions, biases everywhere, a head tied to the embedding (2019)."""

    model_type: ClassVar[str] = "gpt2"
    architecture: ClassVar[str] = "GPT2LMHeadModel"
    auto: ClassVar[str] = "AutoModelForCausalLM"
    direction: ClassVar[Direction] = "causal"
    objective: ClassVar[str] = "next-token"
    prefix: ClassVar[str] = "transformer."
    names: ClassVar[Table] = {**_names("wte", "wpe"), "tower.norm": "transformer.ln_f"}
    ignorable: ClassVar[tuple[str, ...]] = (r"transformer\.h\.\d+\.attn\.(masked_)?bias",)
    """Older files carry the causal triangle of each layer, and the number that hides."""
    norm: ClassVar[Norm] = Norm("layer", "before", 1e-5)
    activation: ClassVar[str] = "activation_function"
    """The entry that names the activation."""
    activations: ClassVar[Mapping[str, str]] = READ
    """Its published values and ours; the first one is meant by a file without the entry."""

    def to_config(self, config: ModelConfig) -> dict[str, Any]:
        shape = config.shape
        return {
            "vocab_size": shape.vocabulary, "n_embd": shape.width, "n_layer": shape.layers, "n_head": shape.heads,
            "n_inner": config.inner, "n_positions": config.position.length, "n_ctx": config.position.length,
            self.activation: published_activation(self.activations, config.feed_forward.activation),
            "layer_norm_epsilon": config.norm.epsilon, "resid_pdrop": config.dropout, "embd_pdrop": config.dropout,
            "attn_pdrop": config.dropout, "scale_attn_weights": config.scale != 1.0,
            "tie_word_embeddings": config.tied,
        }

    def from_config(self, stored: Mapping[str, Any], where: str) -> ModelConfig:
        # 1. what we cannot follow is refused by name
        demand(stored, ("vocab_size", "n_embd", "n_layer", "n_head"), where)
        for name in ("scale_attn_by_inverse_layer_idx", "add_cross_attention"):
            if stored.get(name):
                raise BothwaysError(f"{where} sets {name}, which this network does not have")
        activation = str(stored.get(self.activation) or next(iter(self.activations)))
        # 2. sizes; four times the width inside unless the file says otherwise
        width = int(stored["n_embd"])
        shape = Shape(int(stored["vocab_size"]), width, int(stored["n_layer"]), 0, int(stored["n_head"]),
                      inner=int(stored.get("n_inner") or 4 * width))
        norm = Norm(self.norm.kind, self.norm.place, float(stored.get("layer_norm_epsilon", 1e-5)),
                    embedding=self.norm.embedding)
        return ModelConfig(
            shape, Position("learned", length=int(stored.get("n_positions", 1024))), norm,
            activation_of(self.activations, activation, self.activation, where),
            bias=True, tied=bool(stored.get("tie_word_embeddings", True)),
            scale=None if stored.get("scale_attn_weights", True) else 1.0,
            dropout=float(stored.get("resid_pdrop", 0.1)))


class Gpt(Gpt2):
    """The first GPT: layer norms after each sum, none behind the embedding or at the end (2018)."""

    model_type: ClassVar[str] = "openai-gpt"
    architecture: ClassVar[str] = "OpenAIGPTLMHeadModel"
    names: ClassVar[Table] = _names("tokens_embed", "positions_embed")
    ignorable: ClassVar[tuple[str, ...]] = (r"transformer\.h\.\d+\.attn\.bias", r"transformer\.position_ids")
    norm: ClassVar[Norm] = Norm("layer", "after", 1e-5, embedding=False)
    activation: ClassVar[str] = "afn"
    activations: ClassVar[Mapping[str, str]] = {"gelu": "gelu_tanh", "relu": "relu", "silu": "silu", "swish": "silu"}

    def to_config(self, config: ModelConfig) -> dict[str, Any]:
        said = super().to_config(config)
        return {name: value for name, value in said.items() if name not in ("n_inner", "scale_attn_weights")}

    def from_config(self, stored: Mapping[str, Any], where: str) -> ModelConfig:
        # what GPT-2 may choose, it may not
        return super().from_config({**stored, "n_inner": None, "scale_attn_weights": True}, where)
