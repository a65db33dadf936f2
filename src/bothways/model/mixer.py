"""What mixes tokens: attention among themselves and across to another tower."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bothways.model.attention import Kept, Scoring, attend
from bothways.model.config import ModelConfig
from bothways.model.explicit import Turn
from bothways.model.feed_forward import split
from bothways.model.norm import make_norm
from bothways.model.position import RelativeBias, rotate
from bothways.model.render import Plan
from bothways.model.stores import Store


class Places(NamedTuple):
    """What a tower knows of places in one call, shared by its layers."""

    turn: Turn | None = None
    bias: RelativeBias | None = None


class SelfAttention(nn.Module):
    """Tokens look at tokens of their own row. `qkv` makes all queries, then keys, then values."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config, self.heads = config, config.shape.heads
        self.sizes = [self.heads * config.head_size, *[config.key_heads * config.head_size] * 2]
        self.qkv: nn.Linear | None = nn.Linear(config.shape.width, sum(self.sizes), bias=config.biased("queries"))
        self.out = nn.Linear(self.sizes[0], config.shape.width, bias=config.biased("attention"))
        if config.norm.query_key:
            self.query_norm, self.key_norm = make_norm(config, config.head_size), make_norm(config, config.head_size)

    def forward(self, states: Tensor, plan: Plan, places: Places, store: Store | None = None,
                rows: Tensor | None = None) -> Tensor:
        """(N, D) to (N, D); with a store, tokens also look at those of earlier calls; with `rows`, only they look."""
        kind = scoring(self.config, places.bias, self.training)
        if rows is not None:
            return self.out(self._look_for(states, plan, kind, places, rows).flatten(-2))
        # 1. queries, keys and values by head: (N, H + 2 K, head size)
        fused = (torch.cat((self.q(states), self.k(states), self.v(states)), dim=-1) if self.qkv is None
                 else self.qkv(states)).unflatten(-1, (-1, self.config.head_size))
        if self.config.norm.query_key:
            queries, keys, values = fused.split([self.heads, *[self.config.key_heads] * 2], dim=1)
            fused = torch.cat((self.query_norm(queries), self.key_norm(keys), values), dim=1)
        # 2. look
        if store is None:
            read = attend(fused, None, plan, kind, places.turn)
        else:
            read = self._look_back(fused, plan, kind, places, store)
        return self.out(read.flatten(-2))

    def _look_for(self, states: Tensor, plan: Plan, kind: Scoring, places: Places, rows: Tensor) -> Tensor:
        """What these rows read (R, H, head size) of all rows."""
        chosen, size = states.index_select(0, rows), self.config.head_size
        if self.qkv is None:
            queries, keys, values = self.q(chosen), self.k(states), self.v(states)
        else:
            weights = self.qkv.weight.split([self.sizes[0], 2 * self.sizes[1]])
            biases = (None, None) if self.qkv.bias is None else self.qkv.bias.split([self.sizes[0], 2 * self.sizes[1]])
            queries = F.linear(chosen, weights[0], biases[0])
            keys, values = F.linear(states, weights[1], biases[1]).chunk(2, dim=-1)
        queries, keys, values = (part.unflatten(-1, (-1, size)) for part in (queries, keys, values))
        if self.config.norm.query_key:
            queries, keys = self.query_norm(queries), self.key_norm(keys)
        if places.turn is not None:
            cosine, sine = places.turn
            queries = rotate(queries, (cosine.index_select(0, rows), sine.index_select(0, rows)))
            keys = rotate(keys, places.turn)
        return attend(queries, torch.cat((keys, values), dim=1), plan, kind)

    def _look_back(self, fused: Tensor, plan: Plan, kind: Scoring, places: Places, store: Store) -> Tensor:
        """Keep the new keys and values, turned already, then look at all that is kept."""
        turned, values = fused.split([self.heads + self.config.key_heads, self.config.key_heads], dim=1)
        turned = turned if places.turn is None else rotate(turned, places.turn)
        queries, keys = turned.split([self.heads, self.config.key_heads], dim=1)
        kept = store.extend(keys, values)
        return attend(fused, None, plan, kind, places.turn) if store.first else attend(queries, kept, plan, kind)

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
        self.q = nn.Linear(config.shape.width, size, bias=config.biased("queries"))
        self.kv: nn.Linear | None = nn.Linear(config.shape.width, 2 * shared, bias=config.biased("queries"))
        self.out = nn.Linear(size, config.shape.width, bias=config.biased("attention"))
        if config.norm.query_key:
            self.query_norm, self.key_norm = make_norm(config, config.head_size), make_norm(config, config.head_size)

    def told(self, source: Tensor) -> Tensor:
        """States (M, D) of the other tower as keys, then values: (M, 2 K, head size)."""
        fused = torch.cat((self.k(source), self.v(source)), dim=-1) if self.kv is None else self.kv(source)
        fused = fused.unflatten(-1, (-1, self.config.head_size))
        if not self.config.norm.query_key:
            return fused
        keys, values = fused.chunk(2, dim=1)
        return torch.cat((self.key_norm(keys), values), dim=1)

    def forward(self, states: Tensor, told: Tensor | Kept, plan: Plan) -> Tensor:
        """(N, D) to (N, D), reading what `told` made of the other tower's states, or what a cache kept of it."""
        queries = self.q(states).unflatten(-1, (-1, self.config.head_size))
        queries = self.query_norm(queries) if self.config.norm.query_key else queries
        read = attend(queries, told, plan, scoring(self.config, None, self.training))
        return self.out(read.flatten(-2))

    def split_projections(self) -> None:
        """Put `k` and `v` in place of `kv`."""
        if self.kv is not None:
            self.k, self.v = split(self.kv, [self.kv.out_features // 2] * 2)
            self.kv = None


def scoring(config: ModelConfig, bias: RelativeBias | None, training: bool) -> Scoring:
    """How this network makes scores."""
    scale = config.head_size ** -0.5 if config.scale is None else config.scale
    return Scoring(config.shape.heads, scale, bias, config.soft_cap, config.dropout if training else 0.0)
