"""Gemma 2 (arXiv 2408.00118) and the text part of Gemma 3 (arXiv 2503.19786), as `Gemma...ForCausalLM`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

from bothways.errors import BothwaysError
from bothways.families.base import Table
from bothways.families.llama import Llama, windowed
from bothways.model.config import Head, ModelConfig

LETTERS = {"sliding_attention": "L", "full_attention": "G"}
"""Published kinds of layers and the letters of our `reach`."""
_LAYER = "model.layers.{i}."


class Gemma2(Llama):
    """LLaMA's block normed on both sides, half of the layers narrow, scores and logits capped (arXiv 2408.00118)."""

    model_type: ClassVar[str] = "gemma2"
    architecture: ClassVar[str] = "Gemma2ForCausalLM"
    biases: ClassVar[Mapping[str, tuple[str, ...]]] = {"attention_bias": ("queries", "attention")}
    names: ClassVar[Table] = {
        **Llama.names,
        "tower.blocks.{i}.attention_norm_out": f"{_LAYER}post_attention_layernorm",
        "tower.blocks.{i}.feed_forward_norm": f"{_LAYER}pre_feedforward_layernorm",
        "tower.blocks.{i}.feed_forward_norm_out": f"{_LAYER}post_feedforward_layernorm",
    }
    pattern: ClassVar[int] = 2
    """Every so many layers one sees all, where the file does not say which."""
    caps: ClassVar[tuple[float | None, float | None]] = (50.0, 30.0)
    """Soft caps of scores and logits in a file that says nothing of them."""

    def to_config(self, config: ModelConfig) -> dict[str, Any]:
        said, words = super().to_config(config), {letter: word for word, letter in LETTERS.items()}
        scale = config.head_size ** -0.5 if config.scale is None else config.scale
        return {
            **said, "hidden_activation": said["hidden_act"], "query_pre_attn_scalar": round(scale ** -2),
            "sliding_window": config.local + 1,  # theirs counts the token itself
            "layer_types": [words.get(config.reach[i % len(config.reach)], config.reach)
                            for i in range(config.shape.layers)],
            "attn_logit_softcapping": config.soft_cap, "final_logit_softcapping": config.head.soft_cap,
        }

    def from_config(self, stored: Mapping[str, Any], where: str) -> ModelConfig:
        if stored.get("use_bidirectional_attention"):
            raise BothwaysError(f"{where} sets use_bidirectional_attention, but {self.architecture} looks left here")
        plain = super().from_config(self._as_llama(stored), where)
        heads, scores = self.caps
        return replace(
            plain, norm=replace(plain.norm, place="both", centred=True),
            scale=float(stored.get("query_pre_attn_scalar", 256)) ** -0.5, embedding_scale=plain.shape.width ** 0.5,
            soft_cap=stored.get("attn_logit_softcapping", heads),
            head=Head(soft_cap=stored.get("final_logit_softcapping", scores)))

    def reach_of(self, stored: Mapping[str, Any], layers: int, where: str) -> tuple[str, int]:
        pattern = int(stored.get("sliding_window_pattern") or self.pattern)
        kinds = stored.get("layer_types") or [
            "full_attention" if (i + 1) % pattern == 0 else "sliding_attention" for i in range(layers)]
        if len(kinds) != layers or (unknown := [kind for kind in kinds if kind not in LETTERS]):
            found = f"{len(kinds)} layer_types" if len(kinds) != layers else f"the layer type '{unknown[0]}'"
            raise BothwaysError(f"{where} has {found}, but each of {layers} layers is one of {', '.join(LETTERS)}")
        return windowed(stored, "".join(LETTERS[kind] for kind in kinds), where)

    def _as_llama(self, stored: Mapping[str, Any]) -> dict[str, Any]:
        """The entries as a LLaMA's file has them, with what Gemma means by a silent one."""
        return {"head_dim": 256, "num_key_value_heads": 4, "tie_word_embeddings": True,
                "sliding_window": 4096, **stored,
                "hidden_act": stored.get("hidden_activation") or "gelu_pytorch_tanh"}


class Gemma3(Gemma2):
    """Gemma 2 with normed queries and keys and another rotary base in narrow layers, five to one (arXiv 2503.19786)."""

    model_type: ClassVar[str] = "gemma3_text"
    architecture: ClassVar[str] = "Gemma3ForCausalLM"
    query_key: ClassVar[bool] = True
    pattern: ClassVar[int] = 6
    caps: ClassVar[tuple[float | None, float | None]] = (None, None)

    def to_config(self, config: ModelConfig) -> dict[str, Any]:
        said = super().to_config(config)
        local = config.position.base if config.position.local_base is None else config.position.local_base
        return {
            **{name: value for name, value in said.items() if name not in ("rope_theta", "rope_scaling")},
            "rope_parameters": {"full_attention": said["rope_parameters"],
                                "sliding_attention": {"rope_type": "default", "rope_theta": float(local)}},
        }

    def from_config(self, stored: Mapping[str, Any], where: str) -> ModelConfig:
        if stored.get("attn_logit_softcapping") is not None:
            raise BothwaysError(f"{where} sets attn_logit_softcapping, which {self.architecture} passes over: its "
                                "queries and keys are normed instead (arXiv 2503.19786, section 2)")
        plain = super().from_config(stored, where)
        said = (stored.get("rope_parameters") or {}).get("sliding_attention") or {}
        if said.get("rope_type", "default") != "default":
            raise BothwaysError(f"{where} scales the positions of narrow layers by rope_type '{said['rope_type']}', "
                                "but only those of full ones can be here")
        local = float(said.get("rope_theta", stored.get("rope_local_base_freq", 10_000.0)))
        return replace(plain, position=replace(plain.position, local_base=local))

    def _as_llama(self, stored: Mapping[str, Any]) -> dict[str, Any]:
        said = (stored.get("rope_parameters") or {}).get("full_attention") or {}
        return {"rope_theta": 1_000_000.0, **super()._as_llama(stored), "rope_parameters": said or None}
