"""Qwen3 (arXiv 2505.09388) as `transformers.Qwen3ForCausalLM`: the LLaMA block with query-key norm."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from bothways.families.qwen2 import Windows


class Qwen3(Windows):
    """Queries and keys are normed per head; only its attention can have biases."""

    model_type: ClassVar[str] = "qwen3"
    architecture: ClassVar[str] = "Qwen3ForCausalLM"
    query_key: ClassVar[bool] = True
    biases: ClassVar[Mapping[str, tuple[str, ...]]] = {"attention_bias": ("queries", "attention")}
