"""ALBERT (arXiv 1909.11942) as `transformers.AlbertForPreTraining` and its parts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

from bothways.batch import Companion
from bothways.errors import BothwaysError
from bothways.families.base import Names, Table
from bothways.families.bert import Bert
from bothways.families.encoder import POOLED, SEGMENT
from bothways.model.config import ModelConfig, Shape

SENTENCE_ORDER = Companion("sentence-order", "classes", 2)
_LAYER = "albert.encoder.albert_layer_groups.{i}.albert_layers.0."


class Albert(Bert):
    """A narrow embedding, layers that share their weights in groups, a question of order (arXiv 1909.11942)."""

    model_type: ClassVar[str] = "albert"
    architecture: ClassVar[str] = "AlbertForMaskedLM"
    body: ClassVar[str] = "albert."
    head: ClassVar[str] = "predictions.decoder.weight"
    classes: ClassVar[Mapping[tuple[bool, str], tuple[str, str]]] = {
        (True, "sentence-order"): ("AlbertForPreTraining", "AutoModelForPreTraining"),
        (True, ""): ("AlbertForMaskedLM", "AutoModelForMaskedLM"), (False, ""): ("AlbertModel", "AutoModel")}
    beside: ClassVar[Mapping[Companion, str]] = {SENTENCE_ORDER: "companions.sentence-order.classes",
                                                 POOLED: "companions.pooled.dense"}
    names: ClassVar[Table] = {
        "embedding": "albert.embeddings.word_embeddings", "tower.position": "albert.embeddings.position_embeddings",
        f"companions.{SEGMENT}": "albert.embeddings.token_type_embeddings",
        "tower.embedding_norm": "albert.embeddings.LayerNorm",
        "tower.entry": "albert.encoder.embedding_hidden_mapping_in",
        "tower.blocks.{i}.attention.qkv": tuple(f"{_LAYER}attention.{part}" for part in ("query", "key", "value")),
        "tower.blocks.{i}.attention.out": f"{_LAYER}attention.dense",
        "tower.blocks.{i}.attention_norm": f"{_LAYER}attention.LayerNorm",
        "tower.blocks.{i}.feed_forward.up": f"{_LAYER}ffn", "tower.blocks.{i}.feed_forward.down": f"{_LAYER}ffn_output",
        "tower.blocks.{i}.feed_forward_norm": f"{_LAYER}full_layer_layer_norm",
        "companions.pooled.dense": "albert.pooler", "companions.sentence-order.dense": "albert.pooler",
        "companions.sentence-order.classes": "sop_classifier.classifier",
        "head_transform.dense": "predictions.dense", "head_transform.norm": "predictions.LayerNorm",
        "head": "predictions.decoder", "head_bias": "predictions.bias"}

    def to_config(self, config: ModelConfig) -> dict[str, Any]:
        run = config.shape.run
        return {**super().to_config(config), "embedding_size": config.embedding_width,
                "num_hidden_layers": config.shape.layers // run, "num_hidden_groups": config.distinct // run,
                "inner_group_num": run}

    def from_config(self, stored: Mapping[str, Any], where: str) -> ModelConfig:
        config = super().from_config({"hidden_act": "gelu_new", **stored}, where)
        layers, groups = int(stored["num_hidden_layers"]), int(stored.get("num_hidden_groups", 1))
        if [int(i / (layers / groups)) for i in range(layers)] != [i * groups // layers for i in range(layers)]:
            raise BothwaysError(f"{where} divides {layers} layers into {groups} groups, where its class rounds "
                                "otherwise than this network: choose num_hidden_groups that divides num_hidden_layers")
        if config.embedding_width == config.shape.width:
            raise BothwaysError(f"{where} has an embedding_size that is its hidden_size, and maps one to the other "
                                "all the same, which this network does not")
        return replace(config, dropout=float(stored.get("hidden_dropout_prob", 0.0)))

    def shape(self, stored: Mapping[str, Any]) -> Shape:
        shape, run = super().shape(stored), int(stored.get("inner_group_num", 1))
        return replace(shape, embedding=int(stored.get("embedding_size", 128)), layers=shape.layers * run,
                       distinct=int(stored.get("num_hidden_groups", 1)) * run, run=run)

    def named(self, ours: str, config: ModelConfig) -> Names | None:
        """As every encoder; a block is a layer of its group."""
        found, run = super().named(ours, config), config.shape.run
        return found if found is None else replace(found, theirs=tuple(
            re.sub(r"groups\.(\d+)\.albert_layers\.0", lambda group: "groups.{}.albert_layers.{}".format(
                *divmod(int(group[1]), run)), name) for name in found.theirs))
