"""LLaMA (arXiv 2302.13971) as `transformers.LlamaForCausalLM`, and the block it shares with EuroBERT and Qwen3."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from bothways.errors import BothwaysError, nearest
from bothways.families.base import Direction, Family, Table, demand
from bothways.families.rotary import read_position, written_position
from bothways.model.config import BIASED, FeedForward, ModelConfig, Norm, Shape

ACTIVATIONS = {"silu": "silu", "gelu": "gelu", "gelu_tanh": "gelu_pytorch_tanh", "relu": "relu",
               "relu_squared": "relu2", "quick_gelu": "quick_gelu", "tanh": "tanh"}
"""Our name of an activation and the published one."""
READ = {**{theirs: ours for ours, theirs in ACTIVATIONS.items()}, "swish": "silu", "gelu_new": "gelu_tanh",
        "gelu_fast": "gelu_tanh"}
"""Published names of activations, and ours."""
LOCAL = 128
"""What a config without narrow layers says of them."""


class Llama(Family):
    """Pre-norm RMS blocks with rotary positions, grouped-query heads and a gated feed-forward."""

    model_type: ClassVar[str] = "llama"
    architecture: ClassVar[str] = "LlamaForCausalLM"
    auto: ClassVar[str] = "AutoModelForCausalLM"
    direction: ClassVar[Direction] = "causal"
    objective: ClassVar[str] = "next-token"
    prefix: ClassVar[str] = "model."
    query_key: ClassVar[bool] = False
    base: ClassVar[float] = 10000.0
    """Of rotary positions, where a config says none."""
    biases: ClassVar[Mapping[str, tuple[str, ...]]] = {"attention_bias": ("queries", "attention"),
                                                       "mlp_bias": ("feed_forward",)}
    """The published entries about biases, and which of ours each stands for."""
    names: ClassVar[Table] = {
        "embedding": "model.embed_tokens",
        "tower.blocks.{i}.attention_norm": "model.layers.{i}.input_layernorm",
        "tower.blocks.{i}.attention.qkv": tuple(f"model.layers.{{i}}.self_attn.{part}_proj" for part in "qkv"),
        "tower.blocks.{i}.attention.query_norm": "model.layers.{i}.self_attn.q_norm",
        "tower.blocks.{i}.attention.key_norm": "model.layers.{i}.self_attn.k_norm",
        "tower.blocks.{i}.attention.out": "model.layers.{i}.self_attn.o_proj",
        "tower.blocks.{i}.feed_forward_norm": "model.layers.{i}.post_attention_layernorm",
        "tower.blocks.{i}.feed_forward.up_gate": ("model.layers.{i}.mlp.up_proj", "model.layers.{i}.mlp.gate_proj"),
        "tower.blocks.{i}.feed_forward.down": "model.layers.{i}.mlp.down_proj",
        "tower.norm": "model.norm",
        "head": "lm_head",
    }
    ignorable: ClassVar[tuple[str, ...]] = (r".*\.rotary_emb\.inv_freq",)
    """Older files carry each layer's rotary frequencies, which the config says too."""

    def to_config(self, config: ModelConfig) -> dict[str, Any]:
        shape = config.shape
        biases = {name: any(map(config.biased, parts)) for name, parts in self.biases.items()}
        return {
            "vocab_size": shape.vocabulary, "hidden_size": shape.width, "intermediate_size": config.inner,
            "num_hidden_layers": shape.layers, "num_attention_heads": shape.heads,
            "num_key_value_heads": config.key_heads, "head_dim": config.head_size,
            "hidden_act": ACTIVATIONS.get(config.feed_forward.activation, config.feed_forward.activation),
            "rms_norm_eps": config.norm.epsilon, **written_position(config.position),
            "tie_word_embeddings": config.tied, "attention_bias": False, "mlp_bias": False, **biases,
            "attention_dropout": 0.0,
        }

    def from_config(self, stored: Mapping[str, Any], where: str) -> ModelConfig:
        # 1. what we cannot follow is refused by name
        demand(stored, ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"),
               where)
        position = read_position(stored, where, self.base)
        if position.share != 1:
            raise BothwaysError(f"{where} sets partial_rotary_factor {position.share}, but {self.architecture} turns "
                                "the whole head")
        for name in ("attention_bias", "mlp_bias"):
            if stored.get(name) and name not in self.biases:
                raise BothwaysError(f"{where} sets {name}, with which {self.architecture} is not read here")
        activation = str(stored.get("hidden_act", "silu"))
        if activation not in READ:
            raise BothwaysError(f"{where} has the unknown hidden_act '{activation}' {nearest(activation, READ)}")
        # 2. sizes
        width, heads = int(stored["hidden_size"]), int(stored["num_attention_heads"])
        if width % heads and stored.get("head_dim") is None:
            raise BothwaysError(f"{where} has hidden_size {width}, which does not divide into {heads} heads")
        layers = int(stored["num_hidden_layers"])
        shape = Shape(int(stored["vocab_size"]), width, layers, 0, heads,
                      _unless(stored.get("num_key_value_heads"), heads),
                      _unless(stored.get("head_dim"), width / heads), int(stored["intermediate_size"]))
        reach, local = self.reach_of(stored, layers, where)
        return ModelConfig(
            shape, position, Norm("rms", "before", float(stored.get("rms_norm_eps", 1e-6)), self.query_key),
            FeedForward("gated", READ[activation]), reach, local,  # type: ignore[arg-type]
            bias=parts_of(self.biased(stored)), tied=bool(stored.get("tie_word_embeddings", False)))

    def biased(self, stored: Mapping[str, Any]) -> set[str]:
        """Which parts have a bias, of `model.config.BIASED`."""
        return {part for name, parts in self.biases.items() if stored.get(name) for part in parts}

    def reach_of(self, stored: Mapping[str, Any], layers: int, where: str) -> tuple[str, int]:
        """The network's `reach`, and how far its L layers see to each side."""
        if stored.get("use_sliding_window"):
            raise BothwaysError(f"{where} sets use_sliding_window, which {self.architecture} does not have here")
        return "G", LOCAL


def windowed(stored: Mapping[str, Any], letters: str, where: str) -> tuple[str, int]:
    """The shortest `reach` for these letters of layers, and `local` from the published "sliding_window".

    A published window counts the token itself, ours only those before it.
    """
    reach = shortest(letters)
    if "L" not in reach:
        return reach, LOCAL
    size = int(stored.get("sliding_window") or 0)
    if size < 2:
        raise BothwaysError(f"{where} has the sliding_window {size}, but a window of at least 2 tokens is read here")
    return reach, size - 1


def shortest(letters: str) -> str:
    """The shortest string that gives these letters when it is tiled."""
    count = len(letters)
    return next(letters[:n] for n in range(1, count + 1) if (letters[:n] * count)[:count] == letters)


def parts_of(biased: set[str]) -> bool | tuple[str, ...]:
    """A config's `bias` for the parts that have one."""
    return len(biased) == len(BIASED) if len(biased) in (0, len(BIASED)) else tuple(
        part for part in BIASED if part in biased)


def _unless(value: Any, usual: float) -> int | None:
    """None where a config says what would follow anyway."""
    return None if value is None or int(value) == usual else int(value)
