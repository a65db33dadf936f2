"""How a token knows its place: turned queries and keys, tables added to the embedding, or a term in the scores."""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor, nn

from bothways.errors import BothwaysError
from bothways.model.config import ModelConfig, Scaling, Temperature
from bothways.model.render import Call


def frequencies(size: int, base: float, scaling: Scaling | None = None) -> Tensor:
    """How far each pair of numbers turns from one token to the next, (size / 2,) float64.

    Pair k turns by base^(-2 k / size) (RoFormer, arXiv 2104.09864, eq. 15), then slowed down as `Scaling` says.
    """
    pairs = base ** (-torch.arange(0, size, 2, dtype=torch.float64) / size)
    if scaling is None:
        return pairs
    # how much of each pair stays as it is: 1 for the fast ones, 0 for the slow ones
    stays = torch.zeros_like(pairs)
    if scaling.kind == "llama3":
        turns = scaling.length * pairs / (2 * math.pi)
        stays = ((turns - scaling.slow) / (scaling.fast - scaling.slow)).clamp(0, 1)
    elif scaling.kind == "yarn":
        first, last = (size * math.log(scaling.length / (2 * math.pi * turns)) / (2 * math.log(base))
                       for turns in (scaling.fast, scaling.slow))
        if scaling.whole:
            first, last = math.floor(first), math.ceil(last)
        first, last = max(first, 0), min(last, size - 1)
        last = last if last != first else first + 1e-3
        stays = 1 - ((torch.arange(size // 2, dtype=torch.float64) - first) / (last - first)).clamp(0, 1)
    return pairs * (stays + (1 - stays) / scaling.factor)


@functools.lru_cache(maxsize=16)
def _angles(length: int, size: int, base: float, turned: int, scaling: Scaling | None = None
            ) -> tuple[Tensor, Tensor]:
    """Cosine and sine of place times frequency: two (length, size / 2) float32 on the CPU.

    Pairs behind the first `turned` / 2 have frequency 0: they stay as they are.
    """
    angles = torch.zeros(length, size // 2, dtype=torch.float64)
    angles[:, :turned // 2] = torch.arange(length, dtype=torch.float64)[:, None] * frequencies(turned, base, scaling)
    cosine, sine = angles.cos(), angles.sin()
    if scaling is not None:
        cosine[:, :turned // 2] *= scaling.magnitude
        sine *= scaling.magnitude
    return cosine.float(), sine.float()


def _angles_at(positions: Tensor, size: int, base: float, turned: int, scaling: Scaling | None = None
               ) -> tuple[Tensor, Tensor]:
    """Cosine and sine at these places, (N, size / 2) each: out of a table, or in an exported graph as they come."""
    if torch.compiler.is_exporting():
        angles = positions.double().unsqueeze(-1) * frequencies(turned, base, scaling)
        magnitude = 1.0 if scaling is None else scaling.magnitude
        still = angles.new_zeros(positions.shape[0], size // 2 - turned // 2)
        return (torch.cat((angles.cos() * magnitude, still + 1), dim=-1).float(),
                torch.cat((angles.sin() * magnitude, still), dim=-1).float())
    longest = int(positions.max()) + 1 if len(positions) else 1
    cosine, sine = _angles(1 << (longest - 1).bit_length(), size, base, turned, scaling)
    return cosine[positions], sine[positions]


def rotary_table(positions: Tensor, size: int, base: float, like: Tensor, share: float = 1.0,
                 scaling: Scaling | None = None) -> tuple[Tensor, Tensor]:
    """What `rotate` needs for tokens at any places.

    Args:
        positions: (N,) int64 on the CPU.
        size: the width of one head.
        base: the slowest wavelength is about 2 pi base.
        like: gives the dtype and the device.
        share: of the pairs of a head that are turned at all, the first ones.
        scaling: how the angles are slowed down.
    Returns:
        cosine and sine, each (N, 1, size / 2).
    """
    cosine, sine = _angles_at(positions, size, base, round(size * share), scaling)
    return cosine.unsqueeze(1).to(like.device, like.dtype), sine.unsqueeze(1).to(like.device, like.dtype)


def rotate(heads: Tensor, table: tuple[Tensor, Tensor]) -> Tensor:
    """Turn each pair (k, k + size / 2) of a head by its token's angle (RoFormer, arXiv 2104.09864; Llama's layout).

    Args:
        heads: (N, H, D) queries or keys.
        table: cosine and sine from `rotary_table`.
    """
    cosine, sine = table
    first, second = heads.chunk(2, dim=-1)
    return torch.cat((first * cosine - second * sine, second * cosine + first * sine), dim=-1)


def query_growth(positions: Tensor, temperature: Temperature | None, like: Tensor) -> Tensor | None:
    """What queries of layers without places are multiplied with, (N, 1, 1); nothing without a temperature.

    Args:
        positions: (N,) int64 on the CPU.
        like: gives the dtype and the device.
    """
    if temperature is None:
        return None
    steps = torch.div(positions + 1, temperature.step, rounding_mode="floor")
    return (1 + temperature.rise * torch.log1p(steps.double())).to(like.device, like.dtype).view(-1, 1, 1)


class LearnedPositions(nn.Module):
    """One trained vector for each place (BERT, GPT-2), behind `offset` rows that no place has (RoBERTa, BART)."""

    def __init__(self, length: int, width: int, offset: int = 0) -> None:
        super().__init__()
        self.offset, self.weight = offset, nn.Parameter(torch.empty(length + offset, width))

    def forward(self, positions: Tensor) -> Tensor:
        """(N,) places to (N, D) vectors."""
        if not torch.compiler.is_exporting():
            longest, most = int(positions.max()) + 1 if len(positions) else 0, len(self.weight) - self.offset
            if longest > most:
                raise BothwaysError(f"a text of {longest} tokens is longer than the {most} places this network has "
                                    "learned: shorten it, or raise position.length before training")
        return nn.functional.embedding((positions + self.offset).to(self.weight.device), self.weight)


class SinusoidalPositions(nn.Module):
    """Fixed waves: sine on even, cosine on odd numbers (arXiv 1706.03762, section 3.5)."""

    def __init__(self, width: int, base: float) -> None:
        super().__init__()
        self.width, self.base = width, base

    def forward(self, positions: Tensor) -> Tensor:
        """(N,) places to (N, D) float32 vectors on the CPU."""
        cosine, sine = _angles_at(positions, self.width, self.base, self.width)
        return torch.stack((sine, cosine), dim=-1).flatten(-2)


class RelativeBias(nn.Module):
    """A trained number for each head and bucket of distance, added to the scores (T5, arXiv 1910.10683, section 2.1).

    Near distances have a bucket each, far ones share buckets that widen logarithmically up to `distance`. A tower
    that looks both ways spends half of the buckets on each side; one that only looks back spends all on the left.
    """

    def __init__(self, config: ModelConfig, both_sides: bool) -> None:
        super().__init__()
        self.buckets, self.distance, self.both_sides = config.position.buckets, config.position.distance, both_sides
        self.weight = nn.Parameter(torch.empty(self.buckets, config.shape.heads))

    def bucket(self, relative: Tensor) -> Tensor:
        """The bucket of each relative place (key minus query), int64 of any shape."""
        buckets, first = self.buckets, torch.zeros_like(relative)
        if self.both_sides:
            buckets //= 2
            first = (relative > 0).long() * buckets
            distance = relative.abs()
        else:
            distance = (-relative).clamp(min=0)
        near = buckets // 2
        far = near + (torch.log(distance.clamp(min=1).float() / near) / math.log(self.distance / near)
                      * (buckets - near)).long()
        return first + torch.where(distance < near, distance, far.clamp(max=buckets - 1))

    def forward(self, queries: Tensor, keys: Tensor, call: Call) -> Tensor:
        """A term of the score (`terms.Term`) that reads places alone: (B or 1, H, Lq, Lk).

        While nothing is learned, all layers of a step share it.
        """
        if torch.is_grad_enabled():
            return self._made(call)
        if self not in call.terms:
            call.terms[self] = self._made(call)
        return call.terms[self]

    def _made(self, call: Call) -> Tensor:
        apart = call.key_places.unsqueeze(-2) - call.query_places.unsqueeze(-1)
        buckets = self.bucket(apart).to(self.weight.device)
        return nn.functional.embedding(buckets, self.weight).permute(0, 3, 1, 2)
