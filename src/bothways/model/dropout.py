"""Dropout (Srivastava et al. 2014) whose random bits are cheap on the CPU.

The library draws a number for each state one after the other, which takes longer there than the softmax it thins out.
Here four 16-bit numbers come out of one draw of a faster generator (SFC64), and one comparison keeps or drops. Its
seed is drawn from PyTorch's own generator, so `torch.manual_seed` and a restored random state repeat everything.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

LEVELS = 1 << 16
"""A rate is rounded to a multiple of one over this; what is kept is scaled by the rounded one, so its mean is exact."""
FEW = 1 << 12
"""Fewer numbers than this are drawn by the library: a generator has to be seeded first."""


def dropout(states: Tensor, rate: float, training: bool = True) -> Tensor:
    """Each number is 0 with chance `rate`, else divided by 1 - rate; outside training the states as they are."""
    if not training or rate == 0:
        return states
    if states.device.type != "cpu" or torch.compiler.is_compiling():
        return F.dropout(states, rate)
    return states * kept(states, rate).mul_(growth(rate))


def kept(like: Tensor, rate: float) -> Tensor:
    """1 for what is kept and 0 for what is dropped, in shape, number format and device of `like` (contiguous)."""
    if like.device.type != "cpu" or like.numel() < FEW:
        return torch.empty_like(like).bernoulli_(1 / growth(rate))
    seed = int(torch.empty((), dtype=torch.int64).random_())
    draws = np.random.SFC64(seed).random_raw(-(-like.numel() // 4)).view(np.uint16)[:like.numel()]
    # as numbers of one byte: these are converted several times as fast as truth values
    return torch.from_numpy(draws >= _level(rate)).view(torch.uint8).to(like.dtype).view(like.shape)


def growth(rate: float) -> float:
    """What is kept is multiplied with this, so that the mean stays."""
    return 1 / (1 - _level(rate) / LEVELS)


def _level(rate: float) -> int:
    return min(round(rate * LEVELS), LEVELS - 1)
