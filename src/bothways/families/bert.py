"""BERT (arXiv 1810.04805) as `transformers.BertForPreTraining` and its parts, and the config that its kin share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from bothways.batch import Companion
from bothways.errors import BothwaysError, nearest
from bothways.families.base import Table, demand
from bothways.families.encoder import POOLED, SEGMENT, Encoder
from bothways.families.llama import ACTIVATIONS, READ
from bothways.model.config import Activation, FeedForward, Head, ModelConfig, Norm, Position, Shape

NEXT_SENTENCE = Companion("next-sentence", "classes", 2)


def trunk(prefix: str) -> dict[str, Any]:
    """The names of a body of BERT's blocks, each of which begins with `prefix`."""
    own, layer = f"{prefix}embeddings.", f"{prefix}encoder.layer.{{i}}."
    return {
        "embedding": f"{own}word_embeddings", "tower.position": f"{own}position_embeddings",
        f"companions.{SEGMENT}": f"{own}token_type_embeddings", "tower.embedding_norm": f"{own}LayerNorm",
        "tower.blocks.{i}.attention.qkv": tuple(f"{layer}attention.self.{part}" for part in ("query", "key", "value")),
        "tower.blocks.{i}.attention.out": f"{layer}attention.output.dense",
        "tower.blocks.{i}.attention_norm": f"{layer}attention.output.LayerNorm",
        "tower.blocks.{i}.feed_forward.up": f"{layer}intermediate.dense",
        "tower.blocks.{i}.feed_forward.down": f"{layer}output.dense",
        "tower.blocks.{i}.feed_forward_norm": f"{layer}output.LayerNorm",
    }


class Bert(Encoder):
    """Learned places and token types, layer norms after each part, a head with a transform (arXiv 1810.04805)."""

    model_type: ClassVar[str] = "bert"
    architecture: ClassVar[str] = "BertForMaskedLM"
    body: ClassVar[str] = "bert."
    head: ClassVar[str] = "cls.predictions.decoder.weight"
    classes: ClassVar[Mapping[tuple[bool, str], tuple[str, str]]] = {
        (True, "next-sentence"): ("BertForPreTraining", "AutoModelForPreTraining"),
        (True, ""): ("BertForMaskedLM", "AutoModelForMaskedLM"),
        (False, "next-sentence"): ("BertForNextSentencePrediction", "AutoModelForNextSentencePrediction"),
        (False, ""): ("BertModel", "AutoModel")}
    beside: ClassVar[Mapping[Companion, str]] = {NEXT_SENTENCE: "companions.next-sentence.classes",
                                                 POOLED: "companions.pooled.dense"}
    names: ClassVar[Table] = {
        **trunk("bert."),
        "companions.pooled.dense": "bert.pooler.dense", "companions.next-sentence.dense": "bert.pooler.dense",
        "companions.next-sentence.classes": "cls.seq_relationship",
        "head_transform.dense": "cls.predictions.transform.dense",
        "head_transform.norm": "cls.predictions.transform.LayerNorm",
        "head": "cls.predictions.decoder", "head_bias": "cls.predictions.bias"}
    head_activation: ClassVar[Activation | None] = None
    """The activation of the head's transform, where it is not that of the blocks."""
    typed: ClassVar[bool] = True
    """Whether it looks up the type of every token."""

    def to_config(self, config: ModelConfig) -> dict[str, Any]:
        shape, activation = config.shape, config.feed_forward.activation
        types = next((one.size for one in config.companions if one.name == SEGMENT), 0)
        return {
            "vocab_size": shape.vocabulary, "hidden_size": shape.width, "num_hidden_layers": shape.layers,
            "num_attention_heads": shape.heads, "intermediate_size": config.inner,
            "hidden_act": ACTIVATIONS.get(activation, activation), "hidden_dropout_prob": config.dropout,
            "attention_probs_dropout_prob": config.dropout, "max_position_embeddings": self.places(config),
            "type_vocab_size": types, "layer_norm_eps": config.norm.epsilon, "tie_word_embeddings": config.tied,
        }

    def from_config(self, stored: Mapping[str, Any], where: str) -> ModelConfig:
        # 1. what we cannot follow is refused by name
        demand(stored, ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"),
               where)
        for name in ("is_decoder", "add_cross_attention"):
            if stored.get(name):
                raise BothwaysError(f"{where} sets {name}, but {self.architecture} is read as an encoder here")
        if (kind := stored.get("position_embedding_type", "absolute")) != "absolute":
            raise BothwaysError(f"{where} has position_embedding_type '{kind}', but only 'absolute' is read here")
        activation = str(stored.get("hidden_act", "gelu"))
        if activation not in READ:
            raise BothwaysError(f"{where} has the unknown hidden_act '{activation}' {nearest(activation, READ)}")
        # 2. sizes and choices
        types = int(stored.get("type_vocab_size", 2)) if self.typed else 0
        if self.typed and types < 1:
            raise BothwaysError(f"{where} has type_vocab_size {types}, but {self.architecture} looks up the type of "
                                "every token")
        return ModelConfig(
            self.shape(stored), self.position(stored),
            Norm("layer", "after", float(stored.get("layer_norm_eps", 1e-12))),
            FeedForward("plain", READ[activation]),  # type: ignore[arg-type]
            head=Head(transform=True, bias=True, activation=self.head_activation),
            bias=True, tied=bool(stored.get("tie_word_embeddings", True)),
            dropout=float(stored.get("hidden_dropout_prob", 0.1)),
            companions=(Companion(SEGMENT, "embedding", types),) if types else ())

    def shape(self, stored: Mapping[str, Any]) -> Shape:
        """The sizes that a published config names."""
        return Shape(int(stored["vocab_size"]), int(stored["hidden_size"]), int(stored["num_hidden_layers"]), 0,
                     int(stored["num_attention_heads"]), inner=int(stored["intermediate_size"]))

    def position(self, stored: Mapping[str, Any]) -> Position:
        """How a published config says places are known."""
        return Position("learned", length=int(stored.get("max_position_embeddings", 512)))

    def places(self, config: ModelConfig) -> int:
        """Rows of the table of places."""
        return config.position.length
