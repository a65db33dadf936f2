"""Parts of a loss, added up over the rows of a step: total = sum of coefficient * sum / count, exactly.

The counts of what is asked are known before the first forward pass, so every row's share can be sent backward at
once with the denominator of the whole step, however unevenly the rows are filled.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from bothways.errors import BothwaysError
from bothways.objectives.base import Part


class NotFinite(BothwaysError):
    """A loss or gradient that is not a finite number; the run adds the last good checkpoint to the sentence."""


class Sums:
    """Running sums of the named parts.

    Args:
        counts: part name -> its denominator over the whole step. A part that is not there (a regulariser that the
            network itself hands out) is the mean over rows of its own sum / count.
    """

    def __init__(self, counts: Mapping[str, float]) -> None:
        self.counts = counts
        self._means: dict[str, Tensor] = {}
        self._coefficients: dict[str, float] = {}

    def add(self, parts: Sequence[Part], rows: int) -> Tensor | None:
        """Count one row of `rows`; returns its share of the total, to be sent backward; none if nothing was asked."""
        shares = []
        for part in parts:
            count = self.counts[part.name] if part.name in self.counts else part.count * rows
            # Nothing was asked: the sum is zero, and stays so.
            mean = part.sum.float() / count if count else part.sum.float() * 0.0
            shares.append(mean * part.coefficient)
            seen = self._means.get(part.name)
            self._means[part.name] = mean.detach() if seen is None else seen + mean.detach()
            self._coefficients[part.name] = part.coefficient
        return torch.stack(shares).sum() if shares else None

    def means(self) -> dict[str, float]:
        """Part name -> sum / count so far."""
        return {name: float(mean) for name, mean in self._means.items()}

    def total(self) -> float:
        """What the optimiser minimises: the means, weighted by their coefficients."""
        return sum(self._coefficients[name] * mean for name, mean in self.means().items())
