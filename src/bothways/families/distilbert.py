"""DistilBERT (arXiv 1910.01108) as `transformers.DistilBertForMaskedLM`: BERT's blocks under other names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from bothways.batch import Companion
from bothways.families.base import Table
from bothways.families.bert import Bert
from bothways.model.config import ModelConfig

EPSILON = 1e-12
"""Of every norm; no config says it."""
ENTRIES = {"dim": "hidden_size", "hidden_dim": "intermediate_size", "n_layers": "num_hidden_layers",
           "n_heads": "num_attention_heads", "activation": "hidden_act", "dropout": "hidden_dropout_prob",
           "attention_dropout": "attention_probs_dropout_prob"}
"""Its entries of config.json, and BERT's."""


class DistilBert(Bert):
    """BERT without token types and pooler, half as deep (arXiv 1910.01108)."""

    model_type: ClassVar[str] = "distilbert"
    architecture: ClassVar[str] = "DistilBertForMaskedLM"
    body: ClassVar[str] = "distilbert."
    head: ClassVar[str] = "vocab_projector.weight"
    classes: ClassVar[Mapping[tuple[bool, str], tuple[str, str]]] = {
        (True, ""): ("DistilBertForMaskedLM", "AutoModelForMaskedLM"), (False, ""): ("DistilBertModel", "AutoModel")}
    typed: ClassVar[bool] = False
    beside: ClassVar[Mapping[Companion, str]] = {}
    names: ClassVar[Table] = {
        "embedding": "distilbert.embeddings.word_embeddings",
        "tower.position": "distilbert.embeddings.position_embeddings",
        "tower.embedding_norm": "distilbert.embeddings.LayerNorm",
        "tower.blocks.{i}.attention.qkv": tuple(f"distilbert.transformer.layer.{{i}}.attention.{part}_lin"
                                                for part in "qkv"),
        "tower.blocks.{i}.attention.out": "distilbert.transformer.layer.{i}.attention.out_lin",
        "tower.blocks.{i}.attention_norm": "distilbert.transformer.layer.{i}.sa_layer_norm",
        "tower.blocks.{i}.feed_forward.up": "distilbert.transformer.layer.{i}.ffn.lin1",
        "tower.blocks.{i}.feed_forward.down": "distilbert.transformer.layer.{i}.ffn.lin2",
        "tower.blocks.{i}.feed_forward_norm": "distilbert.transformer.layer.{i}.output_layer_norm",
        "head_transform.dense": "vocab_transform", "head_transform.norm": "vocab_layer_norm",
        "head": "vocab_projector", "head_bias": "vocab_projector.bias"}

    def to_config(self, config: ModelConfig) -> dict[str, Any]:
        bert = super().to_config(config)
        kept = {name: bert[name] for name in ("vocab_size", "max_position_embeddings", "tie_word_embeddings")}
        return {**kept, **{name: bert[other] for name, other in ENTRIES.items()}}

    def from_config(self, stored: Mapping[str, Any], where: str) -> ModelConfig:
        bert = {other: stored[name] for name, other in ENTRIES.items() if name in stored}
        return super().from_config({**stored, **bert, "layer_norm_eps": EPSILON}, where)
