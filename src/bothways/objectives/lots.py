"""Random numbers that travel with the tokens: what is drawn only when a network has spoken can be drawn again.

An objective gives tokens a field of integers (its lots) drawn from the window's Key. Whoever needs noise later, inside
a loss or a network, makes it of these alone: the same in any batch, on one process or on many, and after a resume.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from bothways.batch import Key

SALT = 17
"""Salt of the lots among the other noise of a window."""
BITS = 52
"""Bits of a lot: as many as a uniform float64 has room for."""
_STEP, _FIRST, _SECOND = -7046029254386353131, -4658895280553007687, -7723592293110705685
"""The constants of splitmix64 (Steele, Lea and Flood 2014), as signed numbers."""


def lots_of(key: Key, count: int) -> np.ndarray:
    """`count` whole numbers, uniform below 2^52: (count,) int64."""
    return key.rng(SALT).integers(1 << BITS, size=count, dtype=np.int64)


def uniform(lots: Tensor) -> Tensor:
    """One number in (0, 1) from each lot, float64 of the same shape."""
    return (lots.double() + 0.5) / (1 << BITS)


def uniforms(lots: Tensor, size: int) -> Tensor:
    """`size` independent numbers in (0, 1) from each lot: (T,) int64 to (T, size) float64 (splitmix64 by counter)."""
    mixed = lots[:, None] + torch.arange(1, size + 1, device=lots.device) * _STEP
    mixed = (mixed ^ _shifted(mixed, 30)) * _FIRST
    mixed = (mixed ^ _shifted(mixed, 27)) * _SECOND
    return uniform(_shifted(mixed ^ _shifted(mixed, 31), 64 - BITS))


def normals(lots: Tensor, size: int) -> Tensor:
    """`size` independent standard normal numbers from each lot: (T, size) float64."""
    return torch.erfinv(2 * uniforms(lots, size) - 1) * math.sqrt(2)


def gumbels(lots: Tensor, size: int) -> Tensor:
    """`size` independent standard Gumbel numbers from each lot: (T, size) float64."""
    return -torch.log(-torch.log(uniforms(lots, size)))


def drawn(logits: Tensor, lots: Tensor) -> Tensor:
    """A token from each distribution, by its inverse distribution function at the lot: (T, V) and (T,) to (T,) int64.

    One number a token is enough, and equal distributions and lots give equal tokens.
    """
    cumulative = torch.softmax(logits.double(), dim=-1).cumsum(-1)
    point = uniform(lots)[:, None] * cumulative[:, -1:]
    return torch.searchsorted(cumulative, point, right=True).squeeze(-1).clamp(max=logits.shape[-1] - 1)


def _shifted(numbers: Tensor, by: int) -> Tensor:
    """Shifted to the right without the sign."""
    return (numbers >> by) & ((1 << (64 - by)) - 1)
