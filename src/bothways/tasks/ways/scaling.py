"""How sure logits are: one factor for all, under which known labels are likeliest (arXiv 1706.04599, section 4.2).

The likeliest label stays what it was; only its probability changes. The factor is chosen on texts that were not learned
from, among powers of the square root of two.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

SCALES = tuple(2.0 ** (power / 2) for power in range(-8, 13))
ENOUGH = 50
"""Texts below which a factor would be a guess."""


def nats_by_scale(logits: Tensor, table: Tensor, several: bool) -> np.ndarray:
    """The NLL of the labels under each of `SCALES`: (scales,) float64.

    Labels are smoothed as Platt does: of n texts that are all told right none is surer than (n + 1) / (n + 2).

    Args:
        logits: (n, labels). table: (n, labels) float, 1 where a text has the label.
        several: whether each label is judged by itself.
    """
    doubt = 1 / (len(table) + 2)
    logits, table = logits.double(), (1 - doubt) * table.double() + doubt * (0.5 if several else 1 / table.shape[1])
    return np.array([float(F.binary_cross_entropy_with_logits(scale * logits, table, reduction="sum") if several else
                           F.cross_entropy(scale * logits, table, reduction="sum")) for scale in SCALES])


def best_scale(nats: np.ndarray) -> float:
    """The factor of the fewest nats; 1 where nothing was measured."""
    return SCALES[int(nats.argmin())] if nats.any() else 1.0


def logits_of(logs: np.ndarray, several: bool) -> Tensor:
    """Logits that give these log-probabilities."""
    found = torch.from_numpy(np.asarray(logs, np.float64))
    return torch.logit(found.exp().clamp(1e-12, 1 - 1e-12)) if several else found
