"""EuroBERT (arXiv 2503.05500) as `transformers.EuroBertForMaskedLM`: the LLaMA block, looking both ways."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from bothways.families.base import Direction
from bothways.families.llama import Llama


class EuroBert(Llama):
    """An encoder of LLaMA blocks. Its `mlp_bias` would give the head a bias too, so it is not read."""

    model_type: ClassVar[str] = "eurobert"
    architecture: ClassVar[str] = "EuroBertForMaskedLM"
    direction: ClassVar[Direction] = "bidirectional"
    objective: ClassVar[str] = "masked"
    auto: ClassVar[str] = "AutoModelForMaskedLM"
    biases: ClassVar[Mapping[str, tuple[str, ...]]] = {"attention_bias": ("queries", "attention")}
