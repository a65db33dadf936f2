"""RoBERTa (arXiv 1907.11692) and XLM-RoBERTa (arXiv 1911.02116) as `transformers.RobertaForMaskedLM` and its kin."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from bothways.batch import Companion
from bothways.families.base import Table
from bothways.families.bert import Bert, trunk
from bothways.families.encoder import POOLED
from bothways.model.config import Activation, ModelConfig, Position


class Roberta(Bert):
    """BERT's blocks, places counted behind the row of padding, a head that is always gelu (arXiv 1907.11692)."""

    model_type: ClassVar[str] = "roberta"
    architecture: ClassVar[str] = "RobertaForMaskedLM"
    body: ClassVar[str] = "roberta."
    head: ClassVar[str] = "lm_head.decoder.weight"
    head_activation: ClassVar[Activation | None] = "gelu"
    classes: ClassVar[Mapping[tuple[bool, str], tuple[str, str]]] = {
        (True, ""): ("RobertaForMaskedLM", "AutoModelForMaskedLM"), (False, ""): ("RobertaModel", "AutoModel")}
    beside: ClassVar[Mapping[Companion, str]] = {POOLED: "companions.pooled.dense"}
    names: ClassVar[Table] = {
        **trunk("roberta."), "companions.pooled.dense": "roberta.pooler.dense",
        "head_transform.dense": "lm_head.dense", "head_transform.norm": "lm_head.layer_norm",
        "head": "lm_head.decoder", "head_bias": "lm_head.bias"}

    def to_config(self, config: ModelConfig) -> dict[str, Any]:
        return {**super().to_config(config), "pad_token_id": config.position.offset - 1}

    def position(self, stored: Mapping[str, Any]) -> Position:
        """The first place has the row behind that of the padding token."""
        padding = stored.get("pad_token_id")
        offset = (1 if padding is None else int(padding)) + 1
        return Position("learned", length=int(stored.get("max_position_embeddings", 512)) - offset, offset=offset)

    def places(self, config: ModelConfig) -> int:
        return config.position.length + config.position.offset


class XlmRoberta(Roberta):
    """RoBERTa of a hundred languages: the same names under another model type (arXiv 1911.02116)."""

    model_type: ClassVar[str] = "xlm-roberta"
    architecture: ClassVar[str] = "XLMRobertaForMaskedLM"
    classes: ClassVar[Mapping[tuple[bool, str], tuple[str, str]]] = {
        (True, ""): ("XLMRobertaForMaskedLM", "AutoModelForMaskedLM"), (False, ""): ("XLMRobertaModel", "AutoModel")}
