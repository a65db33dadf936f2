"""The first GLM (arXiv 2103.10360), GLM-10B among its sizes, in the folder layout of its authors' own code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from bothways.batch import Companion
from bothways.errors import BothwaysError
from bothways.families.base import Direction, Family, Table, demand
from bothways.model.config import FeedForward, ModelConfig, Norm, Position, Shape

_LAYER = "glm.transformer.layers.{i}."
_WANTED = {"relative_encoding": False, "spell_length": None, "rotary_type": "none", "use_rmsnorm": False,
           "use_swiglu": False, "num_experts": 1, "unidirectional": False, "norm_head": False}
"""Entries that are read with this value only, or left out: the later ones are of other networks by the same names."""
_WRITTEN = {"checkpoint_activations": False, "checkpoint_num_layers": 1, "parallel_output": True,
            "relative_encoding": False, "output_predict": True, "spell_length": None, "spell_func": "lstm",
            "attention_scale": 1.0, "initializer_range": 0.02, "pool_token": "cls", "max_memory_length": 0}
"""Entries of every such file that say nothing of the network; the scale is taken back inside its softmax."""
SPAN = "span"
"""The companion that embeds a token's number in its span, the second of its two places."""


class Glm2D(Family):
    """GPT's blocks called as a prefix model: two places for each token, blanks written behind the text (2103.10360).

    `transformers` gives its model_type to a later network: such a folder brings its own code.
    """

    model_type: ClassVar[str] = "glm-2d"
    stored_type: ClassVar[str] = "glm"
    architecture: ClassVar[str] = "GLMForConditionalGeneration"
    auto: ClassVar[str] = "AutoModelForSeq2SeqLM"
    direction: ClassVar[Direction] = "prefix"
    objective: ClassVar[str] = "glm"
    own_code: ClassVar[bool] = True
    prefix: ClassVar[str] = "glm."
    names: ClassVar[Table] = {
        "embedding": "glm.word_embeddings", "tower.position": "glm.transformer.position_embeddings",
        f"companions.{SPAN}": "glm.transformer.block_position_embeddings",
        "tower.blocks.{i}.attention_norm": f"{_LAYER}input_layernorm",
        "tower.blocks.{i}.attention.qkv": f"{_LAYER}attention.query_key_value",
        "tower.blocks.{i}.attention.out": f"{_LAYER}attention.dense",
        "tower.blocks.{i}.feed_forward_norm": f"{_LAYER}post_attention_layernorm",
        "tower.blocks.{i}.feed_forward.up": f"{_LAYER}mlp.dense_h_to_4h",
        "tower.blocks.{i}.feed_forward.down": f"{_LAYER}mlp.dense_4h_to_h",
        "tower.norm": "glm.transformer.final_layernorm",
    }

    def reads(self, stored: Mapping[str, Any]) -> bool:
        """Its files name a `max_sequence_length`, those of the later GLM `max_position_embeddings`."""
        return super().reads(stored) and "max_sequence_length" in stored

    def to_config(self, config: ModelConfig) -> dict[str, Any]:
        shape, two = config.shape, any(one.name == SPAN for one in config.companions)
        return {
            "vocab_size": shape.vocabulary, "hidden_size": shape.width, "num_layers": shape.layers,
            "num_attention_heads": shape.heads, "max_sequence_length": config.position.length - two,
            "block_position_encoding": two, **dict.fromkeys(
                ("embedding_dropout_prob", "attention_dropout_prob", "output_dropout_prob"), config.dropout),
            **_WRITTEN}

    def from_config(self, stored: Mapping[str, Any], where: str) -> ModelConfig:
        demand(stored, ("vocab_size", "hidden_size", "num_layers", "num_attention_heads", "max_sequence_length"), where)
        for name, wanted in _WANTED.items():
            if stored.get(name, wanted) != wanted:
                raise BothwaysError(f"{where} sets {name} to {stored[name]!r}, but {self.architecture} is read with "
                                    f"{wanted!r} only")
        # both tables have a row more than there are places
        two = bool(stored.get("block_position_encoding", True))
        rows = int(stored["max_sequence_length"]) + two
        return ModelConfig(
            Shape(int(stored["vocab_size"]), int(stored["hidden_size"]), int(stored["num_layers"]), 0,
                  int(stored["num_attention_heads"])),
            Position("learned", length=rows), Norm("layer", "before", 1e-5), FeedForward("plain", "gelu"), bias=True,
            dropout=float(stored.get("output_dropout_prob", 0.1)),
            companions=(Companion(SPAN, "embedding", rows),) if two else ())

    def objectives_of(self, config: ModelConfig) -> Sequence[Mapping[str, object]]:
        """Blank infilling with as many places in a span as there are rows for."""
        rows = next((one.size for one in config.companions if one.name == SPAN), 0)
        return ({"name": self.objective, **({"longest": rows - 1} if rows else {"places": "one"})},)
