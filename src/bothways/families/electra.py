"""ELECTRA (arXiv 2003.10555): `transformers.ElectraForPreTraining`, and its generator, `ElectraForMaskedLM`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

from bothways.batch import Companion
from bothways.families.base import Table
from bothways.families.bert import Bert, trunk
from bothways.model.config import Activation, ModelConfig, Shape

REPLACED = Companion("replaced", "verdict", 2)


class Electra(Bert):
    """BERT's blocks behind a narrow embedding; a generator, or a verdict on every token (arXiv 2003.10555)."""

    model_type: ClassVar[str] = "electra"
    architecture: ClassVar[str] = "ElectraForMaskedLM"
    body: ClassVar[str] = "electra."
    head: ClassVar[str] = "generator_lm_head.weight"
    head_activation: ClassVar[Activation | None] = "gelu"
    classes: ClassVar[Mapping[tuple[bool, str], tuple[str, str]]] = {
        (False, "replaced"): ("ElectraForPreTraining", "AutoModelForPreTraining"),
        (True, ""): ("ElectraForMaskedLM", "AutoModelForMaskedLM"), (False, ""): ("ElectraModel", "AutoModel")}
    beside: ClassVar[Mapping[Companion, str]] = {REPLACED: "companions.replaced.score"}
    names: ClassVar[Table] = {
        **trunk("electra."), "tower.entry": "electra.embeddings_project",
        "companions.replaced.dense": "discriminator_predictions.dense",
        "companions.replaced.score": "discriminator_predictions.dense_prediction",
        "head_transform.dense": "generator_predictions.dense", "head_transform.norm": "generator_predictions.LayerNorm",
        "head": "generator_lm_head", "head_bias": "generator_lm_head.bias"}

    def to_config(self, config: ModelConfig) -> dict[str, Any]:
        return {**super().to_config(config), "embedding_size": config.embedding_width}

    def shape(self, stored: Mapping[str, Any]) -> Shape:
        shape, embedding = super().shape(stored), int(stored.get("embedding_size", 128))
        return shape if embedding == shape.width else replace(shape, embedding=embedding)
