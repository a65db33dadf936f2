"""ModernBERT (arXiv 2412.13663) as `transformers.ModernBertForMaskedLM`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from bothways.errors import BothwaysError, nearest
from bothways.families.base import Change, Names, Table, demand
from bothways.families.encoder import Encoder
from bothways.families.llama import ACTIVATIONS, READ
from bothways.model.config import FeedForward, Head, ModelConfig, Norm, Position, Shape

_KINDS = {"G": "full_attention", "L": "sliding_attention"}
_BASES = {"full_attention": ("global_rope_theta", 160_000.0), "sliding_attention": ("local_rope_theta", 10_000.0)}
"""Where older configs say the base of each kind of layer, and what it is where none does."""


def _swapped(rows: Any, config: ModelConfig) -> Any:
    return rows.roll(len(rows) // 2, 0)


SWAPPED = Change(_swapped, _swapped)
"""What is activated comes first, what it multiplies second."""


class ModernBert(Encoder):
    """Pre-norm blocks with a gated gelu, wide and narrow layers with rotary bases of their own (arXiv 2412.13663)."""

    model_type: ClassVar[str] = "modernbert"
    architecture: ClassVar[str] = "ModernBertForMaskedLM"
    body: ClassVar[str] = "model."
    head: ClassVar[str] = "decoder.weight"
    classes: ClassVar[Mapping[tuple[bool, str], tuple[str, str]]] = {
        (True, ""): ("ModernBertForMaskedLM", "AutoModelForMaskedLM"), (False, ""): ("ModernBertModel", "AutoModel")}
    names: ClassVar[Table] = {
        "embedding": "model.embeddings.tok_embeddings", "tower.embedding_norm": "model.embeddings.norm",
        "tower.blocks.{i}.attention_norm": "model.layers.{i}.attn_norm",
        "tower.blocks.{i}.attention.qkv": "model.layers.{i}.attn.Wqkv",
        "tower.blocks.{i}.attention.out": "model.layers.{i}.attn.Wo",
        "tower.blocks.{i}.feed_forward_norm": "model.layers.{i}.mlp_norm",
        "tower.blocks.{i}.feed_forward.up_gate": Names(("model.layers.{i}.mlp.Wi",), (SWAPPED,)),
        "tower.blocks.{i}.feed_forward.down": "model.layers.{i}.mlp.Wo",
        "tower.norm": "model.final_norm",
        "head_transform.dense": "head.dense", "head_transform.norm": "head.norm",
        "head": "decoder", "head_bias": "decoder.bias"}

    def to_config(self, config: ModelConfig) -> dict[str, Any]:
        shape, position = config.shape, config.position
        layers = [_KINDS.get(config.reach[i % len(config.reach)], "chunked_attention") for i in range(shape.layers)]
        bases = {"full_attention": position.base,
                 "sliding_attention": position.base if position.local_base is None else position.local_base}
        rotary = {kind: {"rope_type": "default", "rope_theta": float(base)} for kind, base in bases.items()}
        return {
            "vocab_size": shape.vocabulary, "hidden_size": shape.width, "intermediate_size": config.inner,
            "num_hidden_layers": shape.layers, "num_attention_heads": shape.heads,
            "hidden_activation": ACTIVATIONS.get(config.feed_forward.activation, config.feed_forward.activation),
            "classifier_activation": ACTIVATIONS.get(config.head_activation, config.head_activation),
            "max_position_embeddings": position.length, "layer_types": layers, "local_attention": 2 * config.local,
            "rope_parameters": rotary, "norm_eps": config.norm.epsilon, "norm_bias": config.norm_bias,
            "attention_bias": config.biased("queries"), "mlp_bias": config.biased("feed_forward"),
            "classifier_bias": config.head_dense_bias, "decoder_bias": config.head.bias or not config.head.scores,
            "tie_word_embeddings": config.tied, "embedding_dropout": config.dropout,
            "attention_dropout": config.dropout, "mlp_dropout": config.dropout,
        }

    def from_config(self, stored: Mapping[str, Any], where: str) -> ModelConfig:
        # 1. what we cannot follow is refused by name
        demand(stored, ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"),
               where)
        for name in ("hidden_activation", "classifier_activation"):
            if (activation := str(stored.get(name, "gelu"))) not in READ:
                raise BothwaysError(f"{where} has the unknown {name} '{activation}' {nearest(activation, READ)}")
        count, every = int(stored["num_hidden_layers"]), int(stored.get("global_attn_every_n_layers", 3))
        kinds = stored.get("layer_types") or [_KINDS["L" if i % every else "G"] for i in range(count)]
        letters = {kind: letter for letter, kind in _KINDS.items()}
        if len(kinds) != count or set(kinds) - letters.keys():
            raise BothwaysError(f"{where} names the layer_types {', '.join(map(str, kinds))}, but {count} of "
                                f"{' and '.join(letters)} are read here")
        bases = {kind: _base(stored, kind, where) for kind in _BASES}
        # 2. sizes and choices
        biased = {"attention_bias": ("queries", "attention"), "mlp_bias": ("feed_forward",)}
        parts = tuple(part for name, those in biased.items() if stored.get(name) for part in those)
        shape = Shape(int(stored["vocab_size"]), int(stored["hidden_size"]), count, 0,
                      int(stored["num_attention_heads"]), inner=int(stored["intermediate_size"]))
        return ModelConfig(
            shape, Position("rotary", bases["full_attention"], int(stored.get("max_position_embeddings", 8192)),
                            local_base=bases["sliding_attention"]),
            Norm("layer", "before", float(stored.get("norm_eps", 1e-5)), bias=bool(stored.get("norm_bias", False)),
                 embedding=True, first=False),
            FeedForward("gated", READ[str(stored.get("hidden_activation", "gelu"))]),  # type: ignore[arg-type]
            reach="".join(letters[kind] for kind in kinds), local=int(stored.get("local_attention", 128)) // 2,
            head=Head(transform=True, bias=bool(stored.get("decoder_bias", True)),
                      activation=READ[str(stored.get("classifier_activation", "gelu"))],  # type: ignore[arg-type]
                      dense_bias=bool(stored.get("classifier_bias", False))),
            bias=parts, tied=bool(stored.get("tie_word_embeddings", True)),
            dropout=float(stored.get("mlp_dropout", 0.0)))


def _base(stored: Mapping[str, Any], kind: str, where: str) -> float:
    """The rotary base of that kind of layer."""
    old, usual = _BASES[kind]
    rotary = (stored.get("rope_parameters") or {}).get(kind) or {}
    if (form := rotary.get("rope_type", "default")) != "default" or stored.get("rope_scaling"):
        raise BothwaysError(f"{where} turns positions by rope_type '{form}' or a rope_scaling, but only 'default' is "
                            "read here")
    return float(rotary.get("rope_theta", stored.get(old, usual)))
