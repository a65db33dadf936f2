"""What mixes tokens: attention among themselves and across to another tower."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

from bothways.model.attention import Scoring, attend
from bothways.model.cache import Store
from bothways.model.config import ModelConfig
from bothways.model.feed_forward import split
from bothways.model.norm import make_norm
from bothways.model.position import RelativeBias, rotate
from bothways.model.render import Plan


class Places(NamedTuple):
    """What a tower knows of places in one call, shared by its layers."""

    rotary: tuple[Tensor, Tensor] | None = None
    bias: RelativeBias | None = None


class SelfAttention(nn.Module):
    """Tokens look at tokens of their own row. `qkv` holds all queries, then keys, then values."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.sizes = [config.shape.heads * config.head_size, *[config.key_heads * config.head_size] * 2]
        self.qkv: nn.Linear | None = nn.Linear(config.shape.width, sum(self.sizes), bias=config.bias)
        self.out = nn.Linear(self.sizes[0], config.shape.width, bias=config.bias)
        if config.norm.query_key:
            self.query_norm, self.key_norm = make_norm(config, config.head_size), make_norm(config, config.head_size)

    def forward(self, states: Tensor, plan: Plan, places: Places, store: Store | None = None) -> Tensor:
        """(N, D) to (N, D); with a store, keys and values join those of earlier calls."""
        # 1. queries, keys and values by head
        parts = ([self.q(states), self.k(states), self.v(states)] if self.qkv is None
                 else self.qkv(states).split(self.sizes, dim=-1))
        queries, keys, values = (part.unflatten(-1, (-1, self.config.head_size)) for part in parts)
        if self.config.norm.query_key:
            queries, keys = self.query_norm(queries), self.key_norm(keys)
        # 2. their places
        if places.rotary is not None:
            queries, keys = rotate(queries, places.rotary), rotate(keys, places.rotary)
        # 3. look
        if store is not None:
            keys, values = store.extend(keys, values)
        read = attend(queries, keys, values, plan, scoring(self.config, places.bias, self.training))
        return self.out(read.flatten(-2))

    def split_projections(self) -> None:
        """Put `q`, `k` and `v` in place of `qkv`."""
        if self.qkv is not None:
            self.q, self.k, self.v = split(self.qkv, self.sizes)
            self.qkv = None


class CrossAttention(nn.Module):
    """Tokens look at the states of another tower. `kv` holds all keys, then values."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        size, shared = config.shape.heads * config.head_size, config.key_heads * config.head_size
        self.q = nn.Linear(config.shape.width, size, bias=config.bias)
        self.kv: nn.Linear | None = nn.Linear(config.shape.width, 2 * shared, bias=config.bias)
        self.out = nn.Linear(size, config.shape.width, bias=config.bias)
        if config.norm.query_key:
            self.query_norm, self.key_norm = make_norm(config, config.head_size), make_norm(config, config.head_size)

    def keys_values(self, source: Tensor) -> tuple[Tensor, Tensor]:
        """States (M, D) of the other tower as keys and values (M, K, head size)."""
        keys, values = ((self.k(source), self.v(source)) if self.kv is None else self.kv(source).chunk(2, dim=-1))
        keys, values = (part.unflatten(-1, (-1, self.config.head_size)) for part in (keys, values))
        return self.key_norm(keys) if self.config.norm.query_key else keys, values

    def forward(self, states: Tensor, keys: Tensor, values: Tensor, plan: Plan) -> Tensor:
        """(N, D) to (N, D), reading keys and values from `keys_values`."""
        queries = self.q(states).unflatten(-1, (-1, self.config.head_size))
        queries = self.query_norm(queries) if self.config.norm.query_key else queries
        read = attend(queries, keys, values, plan, scoring(self.config, None, self.training))
        return self.out(read.flatten(-2))

    def split_projections(self) -> None:
        """Put `k` and `v` in place of `kv`."""
        if self.kv is not None:
            self.k, self.v = split(self.kv, [self.kv.out_features // 2] * 2)
            self.kv = None


def scoring(config: ModelConfig, bias: RelativeBias | None, training: bool) -> Scoring:
    """How this network makes scores."""
    scale = config.head_size ** -0.5 if config.scale is None else config.scale
    return Scoring(scale, bias, config.soft_cap, config.dropout if training else 0.0)
