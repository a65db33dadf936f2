"""What mixes tokens: attention among themselves and across to another tower."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from bothways.model.attention import Kept, Scoring, attend
from bothways.model.config import ModelConfig
from bothways.model.dropout import dropout
from bothways.model.explicit import Turn
from bothways.model.feed_forward import split
from bothways.model.norm import query_key_norms
from bothways.model.position import RelativeBias, rotate
from bothways.model.product import Linear, product
from bothways.model.render import Plan
from bothways.model.stores import Store
from bothways.model.terms import ByDistance, DistanceProjections, Distances, SegmentsAndWaves, Term


class Places(NamedTuple):
    """What a tower knows of places in one call, shared by its layers: at most one of these.

    `growth` (N, 1, 1) is what queries are multiplied with where nothing turns.
    """

    turn: Turn | None = None
    bias: RelativeBias | None = None
    distances: Distances | None = None
    growth: Tensor | None = None


class SelfAttention(nn.Module):
    """Tokens look at tokens of their own row. `qkv` makes all queries, then keys, then values.

    Where only some of them have a bias it is `query_bias` or `value_bias`, else that of `qkv`. `placed` is what the
    layer makes of distances that its contents meet.
    """

    def __init__(self, config: ModelConfig, layer: int = 0) -> None:
        super().__init__()
        self.config, self.heads = config, config.shape.heads
        self.sizes = [self.heads * config.head_size, *[config.key_heads * config.head_size] * 2]
        apart = config.biased("queries") and config.qkv_bias != "qkv"
        self.qkv: Linear | None = Linear(config.shape.width, sum(self.sizes),
                                               bias=config.biased("queries") and not apart)
        self.query_bias = nn.Parameter(torch.zeros(self.sizes[0])) if apart else None
        self.value_bias = nn.Parameter(torch.zeros(self.sizes[2])) if apart and "v" in config.qkv_bias else None
        self.placed: nn.Module | None = None
        if config.position.kind == "disentangled" and not config.position.shared:
            self.placed = DistanceProjections(config)
        elif config.position.kind == "transformer-xl":
            self.placed = SegmentsAndWaves(config)
        self.out = Linear(self.sizes[0], config.shape.width, bias=config.biased("attention"))
        self.normed = config.norms_queries(layer)
        if self.normed:
            self.query_norm, self.key_norm = query_key_norms(config)

    def forward(self, states: Tensor, plan: Plan, places: Places, store: Store | None = None,
                rows: Tensor | None = None, asking: Tensor | None = None) -> Tensor:
        """(N, D) to (N, D); with a store, tokens also look at those of earlier calls.

        With `rows` only they look, (R, D), and with `asking` other states do in their stead.
        """
        kind = scoring(self.config, self._terms(places), self.training)
        if rows is not None and asking is None:
            asking = states.index_select(0, rows)
        if asking is not None:
            return self.out(self._look_for(asking, states, plan, kind, places, rows).flatten(-2))
        # 1. queries, keys and values by head: (N, H + 2 K, head size)
        fused = self._projected(states)
        if self.normed:
            queries, keys, values = fused.split([self.heads, *[self.config.key_heads] * 2], dim=1)
            fused = torch.cat((self.query_norm(queries), self.key_norm(keys), values), dim=1)
        if places.growth is not None:
            fused = torch.cat((fused[:, :self.heads] * places.growth, fused[:, self.heads:]), dim=1)
        # 2. look
        if store is None:
            read = attend(fused, None, plan, kind, places.turn)
        else:
            read = self._look_back(fused, plan, kind, places, store)
        return self.out(read.flatten(-2))

    def _projected(self, states: Tensor, first: int = 0, last: int = 3) -> Tensor:
        """Those of queries, keys and values from number `first` to before `last`, by head: (N, heads, head size)."""
        if self.qkv is None:
            made = torch.cat([part(states) for part in (self.q, self.k, self.v)[first:last]], dim=-1)
            bias = None if self.query_bias is None else self._bias(first, last)
            made = made if bias is None else made + bias
        elif last - first == 3 and self.query_bias is None:
            made = self.qkv(states)
        else:
            rows = slice(sum(self.sizes[:first]), sum(self.sizes[:last]))
            made = product(states, self.qkv.weight[rows], self._bias(first, last))
        return made.unflatten(-1, (-1, self.config.head_size))

    def _bias(self, first: int, last: int) -> Tensor | None:
        """The bias of these projections, with zeros where one has none; none where all have none."""
        if self.query_bias is not None:
            ends = self.query_bias, None, self.value_bias
            return torch.cat([self.query_bias.new_zeros(size) if end is None else end
                              for end, size in zip(ends[first:last], self.sizes[first:last], strict=True)])
        if self.qkv is None or self.qkv.bias is None:
            return None
        return self.qkv.bias[sum(self.sizes[:first]):sum(self.sizes[:last])]

    def _terms(self, places: Places) -> tuple[Term, ...]:
        """What places, and contents with places, add to this layer's scores."""
        if places.distances is None:
            return () if places.bias is None else (places.bias,)
        config, (vectors, row) = self.config, places.distances
        vectors = dropout(vectors, config.dropout, self.training)
        if isinstance(self.placed, SegmentsAndWaves):
            return self.placed(Distances(vectors, row), config.score_scale, self._query_bias())  # type: ignore[no-any-return]
        # distances as keys and queries, scaled once here rather than with every score
        keys, queries = self._shared(vectors) if self.placed is None else self.placed(vectors)
        keys, queries = (None if part is None else (part * config.score_scale).unflatten(-1, (-1, config.head_size))
                         for part in (keys, queries))
        keys = keys if keys is None else keys.repeat_interleave(self.heads // keys.shape[1], dim=1)
        return (ByDistance(row, keys, queries),)

    def _shared(self, vectors: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Vectors (T, W) through the projections of contents: keys (T, K D) and queries (T, H D), as terms ask."""
        terms = self.config.position.terms
        keys = self._projected(vectors, 1, 2).flatten(-2) if "c2p" in terms else None
        return keys, self._projected(vectors, 0, 1).flatten(-2) if "p2c" in terms else None

    def _query_bias(self) -> Tensor | None:
        """The bias that queries have in them: (H D)."""
        return self.q.bias if self.qkv is None and self.query_bias is None else self._bias(0, 1)

    def _look_for(self, asking: Tensor, states: Tensor, plan: Plan, kind: Scoring, places: Places,
                  rows: Tensor | None) -> Tensor:
        """What asking states (R, D), those of `rows` or of all, read of all rows: (R, H, head size)."""
        queries, (keys, values) = self._projected(asking, 0, 1), self._projected(states, 1, 3).chunk(2, dim=1)
        if self.normed:
            queries, keys = self.query_norm(queries), self.key_norm(keys)
        if places.growth is not None:
            queries = queries * (places.growth if rows is None else places.growth.index_select(0, rows))
        if places.turn is not None:
            cosine, sine = places.turn
            turn = places.turn if rows is None else (cosine.index_select(0, rows), sine.index_select(0, rows))
            queries = rotate(queries, turn)
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
        self.q = Linear(config.shape.width, size, bias=config.biased("queries"))
        self.kv: Linear | None = Linear(config.shape.width, 2 * shared, bias=config.biased("queries"))
        self.out = Linear(size, config.shape.width, bias=config.biased("attention"))
        if config.norm.query_key:
            self.query_norm, self.key_norm = query_key_norms(config)

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
        read = attend(queries, told, plan, scoring(self.config, (), self.training))
        return self.out(read.flatten(-2))

    def split_projections(self) -> None:
        """Put `k` and `v` in place of `kv`."""
        if self.kv is not None:
            self.k, self.v = split(self.kv, [self.kv.out_features // 2] * 2)
            self.kv = None


def scoring(config: ModelConfig, terms: tuple[Term, ...], training: bool) -> Scoring:
    """How this network makes scores."""
    return Scoring(config.shape.heads, config.score_scale, terms, config.soft_cap, config.dropout if training else 0.0)
