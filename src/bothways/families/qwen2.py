"""Qwen2 and Qwen2.5 (arXiv 2407.10671, 2412.15115) as `transformers.Qwen2ForCausalLM`: LLaMA blocks, biased queries."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from bothways.errors import BothwaysError
from bothways.families.llama import Llama, windowed
from bothways.model.config import ModelConfig

LAYERS = {"full_attention": "G", "sliding_attention": "L"}
"""Published kinds of layers, and our letters for their reach."""


class Windows(Llama):
    """LLaMA blocks of which some look back through a window: those that `layer_types` says, or the upper ones."""

    def to_config(self, config: ModelConfig) -> dict[str, Any]:
        letters = [config.reach[i % len(config.reach)] for i in range(config.shape.layers)]
        kinds = {letter: kind for kind, letter in LAYERS.items()}
        said: dict[str, Any] = {"layer_types": [kinds.get(letter, letter) for letter in letters],
                                "use_sliding_window": "L" in letters, "sliding_window": None}
        if "L" in letters:
            said |= {"sliding_window": config.local + 1, "max_window_layers": letters.index("L")}
        return {**super().to_config(config), **said}

    def reach_of(self, stored: Mapping[str, Any], layers: int, where: str) -> tuple[str, int]:
        kinds = stored.get("layer_types")
        if kinds is None:
            full = int(stored.get("max_window_layers", 28)) if stored.get("use_sliding_window") else layers
            kinds = ["full_attention"] * min(full, layers) + ["sliding_attention"] * (layers - full)
        if len(kinds) != layers or (unknown := set(kinds) - set(LAYERS)):
            wrong = f"names '{min(unknown)}'" if len(kinds) == layers else f"speaks of {len(kinds)} of {layers} layers"
            raise BothwaysError(f"{where}: layer_types {wrong}, but {' and '.join(LAYERS)} are read here")
        return windowed(stored, "".join(LAYERS[kind] for kind in kinds), where)


class Qwen2(Windows):
    """The LLaMA block in which queries, keys and values have biases and nothing else has."""

    model_type: ClassVar[str] = "qwen2"
    architecture: ClassVar[str] = "Qwen2ForCausalLM"
    biases: ClassVar[Mapping[str, tuple[str, ...]]] = {}

    def biased(self, stored: Mapping[str, Any]) -> set[str]:
        return {"queries"}
