"""Mistral (arXiv 2310.06825) as `transformers.MistralForCausalLM`: LLaMA blocks that look back through a window."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from bothways.families.llama import Llama, windowed
from bothways.model.config import ModelConfig


class Mistral(Llama):
    """The LLaMA block without biases; all layers see a window of tokens, or none does."""

    model_type: ClassVar[str] = "mistral"
    architecture: ClassVar[str] = "MistralForCausalLM"
    biases: ClassVar[Mapping[str, tuple[str, ...]]] = {}

    def to_config(self, config: ModelConfig) -> dict[str, Any]:
        return {**super().to_config(config), "sliding_window": config.local + 1 if set(config.reach) == {"L"} else None}

    def reach_of(self, stored: Mapping[str, Any], layers: int, where: str) -> tuple[str, int]:
        """Every layer has the window where the config has one; an absent entry is that of the first Mistral."""
        stored = {"sliding_window": 4096, **stored}
        return windowed(stored, "G" if stored["sliding_window"] is None else "L", where)
