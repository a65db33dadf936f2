"""Terms of a score that read contents: queries and keys multiplied with vectors that stand for distances or segments.

A vector for a distance is met once by every query (or key) of a document, for all distances together; what a pair
needs is then picked from these products (DeBERTa, arXiv 2006.03654, section 3.2). Where places follow one another
the picking is a view: nothing is gathered.
"""

from __future__ import annotations

import functools
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from bothways.model.config import ModelConfig
from bothways.model.norm import make_norm
from bothways.model.product import Linear
from bothways.model.render import Call


class Term(Protocol):
    """A contribution to the scores, added to the scaled product of query and key before the softmax."""

    def __call__(self, queries: Tensor, keys: Tensor, call: Call) -> Tensor | None:
        """What one call adds.

        Args:
            queries: (B, H, Lq, D), as the product sees them.
            keys: (B, K, Lk, D), new or kept by a cache.
            call: places and segments of both.
        Returns:
            (B or 1, H, Lq, Lk) with gradients, or none where it adds nothing.
        """
        ...


class Distances(NamedTuple):
    """A vector for each distance, the place of a query minus that of a key.

    vectors: (T, W).
    row: (2 m + 1,) int64, the vector of each of the distances -m to m.
    """

    vectors: Tensor
    row: Tensor


class ByDistance(NamedTuple):
    """Contents meet distances: query . keys[distance] + key . queries[distance] (c2p and p2c of DeBERTa, eq. 4).

    row: the vector of each of the distances -m to m, (2 m + 1,).
    keys: (T, H, D) what queries meet, scaled as the score is; or none.
    queries: (T, H, D) what keys meet, scaled too; or none.
    shift: (H, D) added to the queries first, or none.
    """

    row: Tensor
    keys: Tensor | None
    queries: Tensor | None = None
    shift: Tensor | None = None

    def __call__(self, queries: Tensor, keys: Tensor, call: Call) -> Tensor:
        """As `Term`."""
        queries = queries if self.shift is None else queries + self.shift.unsqueeze(1)
        keys = keys.repeat_interleave(queries.shape[1] // keys.shape[1], dim=1) if self.queries is not None else keys
        apart = call.apart
        if apart is None:
            products = self._picked(queries, keys, call)
        elif self._shared(queries.shape[2] + keys.shape[2] - 1):
            products = self._spread(queries, keys, apart)
        else:
            products = self._skewed(queries, keys, apart)
        return (products[0] if len(products) == 1 else products[0] + products[1]).transpose(0, 1)

    def _shared(self, span: int) -> bool:
        """Whether so many distances share their vectors two and two at least, and nothing is learned from them."""
        vectors = self.keys if self.keys is not None else self.queries
        return vectors is not None and 2 * len(vectors) <= span and not torch.is_grad_enabled()

    def _spread(self, queries: Tensor, keys: Tensor, apart: int) -> list[Tensor]:
        """As `_skewed`, from products with each vector once: a pair's place in them is the same in all heads and texts.
        """
        asked, told, far = queries.shape[2], keys.shape[2], len(self.row) // 2
        size, products = (queries.shape[1], queries.shape[0]), []
        if self.keys is not None:
            # query i meets key j at row[far + apart + i - j]: from one query to the next all rows move on by one
            rows = self.row[far + apart - told + 1:far + apart + asked].flip(0).unfold(0, told, 1).flip(0)
            products.append(met(queries, self.keys).gather(-1, rows.expand(*size, -1, -1)))
        if self.queries is not None:
            rows = self.row[far + apart - told + 1:far + apart + asked].unfold(0, asked, 1).flip(0)
            products.append(met(keys, self.queries).gather(-1, rows.expand(*size, -1, -1)).transpose(-2, -1))
        return products

    def _skewed(self, queries: Tensor, keys: Tensor, apart: int) -> list[Tensor]:
        """Both products (H, B, Lq, Lk) where places rise by one: the first query is `apart` behind the first key."""
        asked, told = queries.shape[2], keys.shape[2]
        span, far = torch.arange(asked + told - 1, device=self.row.device), len(self.row) // 2
        products = []
        if self.keys is not None:
            vectors = self.keys.index_select(0, self.row[apart + asked - 1 + far - span])
            products.append(skewed(met(queries, vectors), told))
        if self.queries is not None:
            vectors = self.queries.index_select(0, self.row[apart - told + 1 + far + span])
            products.append(skewed(met(keys, vectors), asked).transpose(-2, -1))
        return products

    def _picked(self, queries: Tensor, keys: Tensor, call: Call) -> list[Tensor]:
        """Both products (H, B, Lq, Lk) at any places."""
        apart = call.query_places.unsqueeze(-1) - call.key_places.unsqueeze(-2) + len(self.row) // 2
        # what lies in a slot that no document uses any more may be farther than anything there is
        rows = self.row[apart.clamp(0, len(self.row) - 1).to(self.row.device)]
        size = queries.shape[1], queries.shape[0]
        products = []
        if self.keys is not None:
            products.append(met(queries, self.keys).gather(-1, rows.expand(*size, -1, -1)))
        if self.queries is not None:
            turned = rows.transpose(-2, -1).expand(*size, -1, -1)
            products.append(met(keys, self.queries).gather(-1, turned).transpose(-2, -1))
        return products


class BySegment(NamedTuple):
    """Queries meet a vector where a key is of another segment (XLNet, arXiv 1906.08237, section 2.5).

    XLNet also adds (query + shift) . same to keys of the own segment; what all keys of a query share drops out of the
    softmax, so `other` is the difference of both vectors.

    other: (H, D), scaled as the score is.
    shift: (H, D) added to the queries first.
    """

    other: Tensor
    shift: Tensor

    def __call__(self, queries: Tensor, keys: Tensor, call: Call) -> Tensor | None:
        """As `Term`."""
        if call.query_segments is None or call.key_segments is None:
            return None
        apart = (call.query_segments.unsqueeze(-1) != call.key_segments.unsqueeze(-2)).to(queries.device)
        met = ((queries + self.shift.unsqueeze(1)) * self.other.unsqueeze(1)).sum(dim=-1, keepdim=True)
        return met * apart.unsqueeze(1)


def met(contents: Tensor, vectors: Tensor) -> Tensor:
    """Contents (B, H, L, D) times vectors (T, H, D): (H, B, L, T)."""
    rows = contents.transpose(0, 1).flatten(1, 2)
    return torch.bmm(rows, vectors.permute(1, 2, 0)).unflatten(1, (contents.shape[0], contents.shape[2]))


def skewed(grid: Tensor, width: int) -> Tensor:
    """The entries (i, j) = grid[i, j - i + R - 1] of a grid (..., R, R + width - 1), as a view (..., R, width)."""
    rows, columns = grid.shape[-2:]
    if rows == 1:
        return grid
    inside = grid.flatten(-2)[..., rows - 1:rows * columns - 1]
    return inside.unflatten(-1, (rows, columns - 1))[..., :width]


class DistanceTable(nn.Module):
    """A trained vector for each distance or bucket of distances, shared by the layers of a tower (DeBERTa, 3.1).

    Distances end at `distance`. With buckets, half of `buckets` near distances have one each, and farther ones share
    them in steps that widen logarithmically up to `distance` (DeBERTaV3, arXiv 2111.09543, in its released form).
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        position = config.position
        self.buckets, self.distance = position.buckets, position.distance
        self.span = self.buckets or self.distance
        self.weight = nn.Parameter(torch.empty(2 * self.span, config.shape.width))
        self.norm = make_norm(config, config.shape.width) if position.normed else None

    def bucket(self, distance: Tensor) -> Tensor:
        """The row of each distance, int64 of any shape."""
        if self.buckets:
            near, size = self.buckets // 2, distance.abs()
            # in float32, as the weights were trained: a boundary lies where that arithmetic puts it
            steps = torch.log(size.clamp(min=near) / near) / torch.log(torch.tensor((self.distance - 1) / near))
            far = near + torch.ceil(steps * (near - 1)).long()
            distance = torch.where(size <= near, distance, far * distance.sign())
        return (distance + self.span).clamp(0, 2 * self.span - 1)

    def forward(self, farthest: int) -> Distances:
        """The vectors that distances from -farthest to farthest need, no others (but all in an exported graph)."""
        row = self.bucket(torch.arange(-farthest, farthest + 1))
        if torch.compiler.is_exporting():
            return Distances(self.weight if self.norm is None else self.norm(self.weight), row)
        first, last = int(row[0]), int(row[-1])
        vectors = self.weight[first:last + 1]
        return Distances(vectors if self.norm is None else self.norm(vectors), (row - first).to(vectors.device))


class DistanceWaves(nn.Module):
    """A fixed vector for each distance: its sines, then its cosines (Transformer-XL, arXiv 1901.02860, section 3.3).

    Distances end at the config's `distance`; 0 is no end.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.width, self.base, self.distance = config.shape.width, config.position.base, config.position.distance

    def forward(self, farthest: int, like: Tensor) -> Distances:
        """The vectors of distances from -farthest to farthest, in the number format and on the device of `like`."""
        end = min(farthest, self.distance) if self.distance else farthest
        row = torch.arange(-farthest, farthest + 1).clamp(-end, end) + end
        return Distances(_waves(end, self.width, self.base).to(like.device, like.dtype), row.to(like.device))


@functools.lru_cache(maxsize=16)
def _waves(end: int, width: int, base: float) -> Tensor:
    """Sines, then cosines, of each distance from -end to end: (2 end + 1, width) float32 on the CPU."""
    frequencies = base ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)
    angles = torch.arange(-end, end + 1, dtype=torch.float64).unsqueeze(-1) * frequencies
    return torch.cat((angles.sin(), angles.cos()), dim=-1).float()


class DistanceProjections(nn.Module):
    """What one layer makes of the vectors of distances: keys for its queries and queries for its keys (DeBERTa, eq. 3).

    `key` and `query` are there as the config's terms ask, with a bias where those of contents have one.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        size, shared = config.shape.heads * config.head_size, config.key_heads * config.head_size
        width, terms = config.shape.width, config.position.terms
        self.key = Linear(width, shared, bias=config.biased_in("k")) if "c2p" in terms else None
        self.query = Linear(width, size, bias=config.biased_in("q")) if "p2c" in terms else None

    def forward(self, vectors: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Vectors (T, W) to keys (T, K D) and queries (T, H D)."""
        return (None if self.key is None else self.key(vectors), None if self.query is None else self.query(vectors))


class SegmentsAndWaves(nn.Module):
    """XLNet's own part of a score: queries meet distances, and segments other than theirs (sections 2.4 and 2.5).

    `place_bias` and `segment_bias` are what queries have there in the place of their own bias (r_r and r_s).
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        heads, size = config.shape.heads, config.head_size
        self.key = Linear(config.shape.width, heads * size, bias=False)
        self.place_bias, self.segment_bias = (nn.Parameter(torch.empty(heads, size)) for _ in range(2))
        self.segments = nn.Parameter(torch.empty(2, heads, size))

    def forward(self, distances: Distances, scale: float, bias: Tensor | None) -> tuple[Term, ...]:
        """The terms of a layer whose queries have this bias (H D) in them already."""
        own = 0.0 if bias is None else bias.view_as(self.place_bias)
        keys = self.key(distances.vectors * scale).unflatten(-1, self.place_bias.shape)
        same, other = self.segments.unbind(0)
        return (ByDistance(distances.row, keys, shift=self.place_bias - own),
                BySegment(scale * (other - same), self.segment_bias - own))
