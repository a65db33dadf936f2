"""GPT-Neo, the published weights of GPT-3's design (arXiv 2005.14165), as `transformers.GPTNeoForCausalLM`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from bothways.errors import BothwaysError
from bothways.families.base import Direction, Family, Table, demand
from bothways.families.gpt2 import READ, activation_of, published_activation
from bothways.model.config import ModelConfig, Norm, Position, Shape

_LETTERS = {"global": "G", "local": "L"}


class GptNeo(Family):
    """GPT-3 (arXiv 2005.14165): GPT-2's block with global and local layers in turn; here unscaled scores as well."""

    model_type: ClassVar[str] = "gpt_neo"
    architecture: ClassVar[str] = "GPTNeoForCausalLM"
    auto: ClassVar[str] = "AutoModelForCausalLM"
    direction: ClassVar[Direction] = "causal"
    objective: ClassVar[str] = "next-token"
    prefix: ClassVar[str] = "transformer."
    names: ClassVar[Table] = {
        "embedding": "transformer.wte", "tower.position": "transformer.wpe", "tower.norm": "transformer.ln_f",
        "head": "lm_head",
        "tower.blocks.{i}.attention_norm": "transformer.h.{i}.ln_1",
        "tower.blocks.{i}.attention.qkv": tuple(f"transformer.h.{{i}}.attn.attention.{part}_proj" for part in "qkv"),
        "tower.blocks.{i}.attention.out": "transformer.h.{i}.attn.attention.out_proj",
        "tower.blocks.{i}.feed_forward_norm": "transformer.h.{i}.ln_2",
        "tower.blocks.{i}.feed_forward.up": "transformer.h.{i}.mlp.c_fc",
        "tower.blocks.{i}.feed_forward.down": "transformer.h.{i}.mlp.c_proj",
    }
    ignorable: ClassVar[tuple[str, ...]] = (r"transformer\.h\.\d+\.attn\.attention\.(masked_)?bias",)
    """Older files carry what each layer may see, and the number that hides."""

    def to_config(self, config: ModelConfig) -> dict[str, Any]:
        shape, words = config.shape, {letter: word for word, letter in _LETTERS.items()}
        kinds = [words.get(config.reach[i % len(config.reach)], config.reach) for i in range(shape.layers)]
        return {
            "vocab_size": shape.vocabulary, "hidden_size": shape.width, "num_layers": shape.layers,
            "num_heads": shape.heads, "intermediate_size": config.inner,
            "max_position_embeddings": config.position.length, "attention_layers": kinds,
            "attention_types": [[kinds, 1]],
            # theirs counts the token itself
            "window_size": config.local + 1,
            "activation_function": published_activation(READ, config.feed_forward.activation),
            "layer_norm_epsilon": config.norm.epsilon, "resid_dropout": config.dropout,
            "embed_dropout": config.dropout, "attention_dropout": config.dropout, "tie_word_embeddings": config.tied,
        }

    def from_config(self, stored: Mapping[str, Any], where: str) -> ModelConfig:
        demand(stored, ("vocab_size", "hidden_size", "num_layers", "num_heads"), where)
        width, layers = int(stored["hidden_size"]), int(stored["num_layers"])
        # 1. who sees how far
        runs = stored.get("attention_types") or [[["global", "local"], layers // 2]]
        kinds = [str(kind) for pattern, times in runs for kind in list(pattern) * int(times)]
        if unknown := [kind for kind in kinds if kind not in _LETTERS]:
            raise BothwaysError(f"{where} has a layer of the kind '{unknown[0]}' in attention_types; known are "
                                f"{' and '.join(_LETTERS)}")
        if len(kinds) != layers:
            raise BothwaysError(f"{where} has attention_types for {len(kinds)} layers, but num_layers is {layers}")
        window = int(stored.get("window_size", 256))
        if window < 2 and "local" in kinds:
            raise BothwaysError(f"{where} has window_size {window}, but a local layer sees at least one token back: 2")
        # 2. sizes
        shape = Shape(int(stored["vocab_size"]), width, layers, 0, int(stored["num_heads"]),
                      inner=int(stored.get("intermediate_size") or 4 * width))
        activation = str(stored.get("activation_function", "gelu_new"))
        return ModelConfig(
            shape, Position("learned", length=int(stored.get("max_position_embeddings", 2048))),
            Norm("layer", "before", float(stored.get("layer_norm_epsilon", 1e-5))),
            activation_of(READ, activation, "activation_function", where),
            reach="".join(_LETTERS[kind] for kind in kinds), local=max(window - 1, 1),
            bias=("attention", "feed_forward"), tied=bool(stored.get("tie_word_embeddings", True)), scale=1.0,
            dropout=float(stored.get("resid_dropout", 0.0)))
