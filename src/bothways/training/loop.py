"""One step after another: batch, forward, backward, update. Nothing here reads a clock to decide anything."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from bothways.batch import Example
from bothways.objectives.base import Objective, Part
from bothways.training.balance import Balance
from bothways.training.config import TrainConfig
from bothways.training.data import Batch, Place
from bothways.training.loss import NotFinite, Sums
from bothways.training.masters import Average
from bothways.training.optimiser import Optimiser
from bothways.training.precision import Found
from bothways.training.schedule import factor


@dataclass
class Totals:
    """Where a run stands, and what it has spent so far. `seconds` counts steps only, not what is measured between."""

    step: int = 0
    place: Place = field(default_factory=Place)
    tokens: int = 0
    seconds: float = 0.0
    loss: float = float("nan")


class Loop:
    """A network in training: the weights, what moves them, and how far it is.

    Args:
        network: on its device, in the number format it computes with.
        steps: of the whole run; the schedule hangs on it.
    """

    def __init__(self, config: TrainConfig, objective: Objective, network: Any, precision: Found, steps: int) -> None:
        self.config, self.objective, self.network, self.steps = config, objective, network, steps
        self.device = precision.device
        self.optimiser = Optimiser(network, config, _products(precision))
        self.average = Average(config, self.optimiser.masters, steps)
        self.balance = Balance(network)
        self.totals = Totals()

    def step(self, batch: Batch) -> dict[str, Any]:
        """Train on one batch; returns loss, parts, learning_rate and gradient_norm.

        Raises:
            BothwaysError: the loss or the gradient is not finite; the weights are as they were before the step.
        """
        # 1. dropout depends on seed and step alone, so a resumed run draws what an unbroken one would
        torch.manual_seed(self.config.seed * 1_000_003 + batch.step)
        self.network.train()
        # 2. every row's share of the loss, divided by the counts of the whole step
        sums = Sums(batch.counts)
        for row in batch.rows:
            share = sums.add(self._parts(row.to(self.device)), rows=len(batch.rows))
            if share is not None:
                share.backward()  # type: ignore[no-untyped-call]
                self.optimiser.masters.gather()
        loss = sums.total()
        if not math.isfinite(loss):
            raise _not_finite("loss", loss, batch)
        # 3. the update
        rate = factor(self.config.schedule, batch.step, self.steps)
        norm = self.optimiser.step(rate)
        if not math.isfinite(norm):
            raise _not_finite("gradient", norm, batch)
        self.average.update(batch.step)
        self.balance.move()
        # 4. where we stand
        self.totals.step, self.totals.place = batch.step, batch.after
        self.totals.tokens += batch.tokens
        self.totals.loss = loss
        base = self.config.matrix_rate if self.config.optimizer == "muon" else self.config.other_rate
        return {"loss": loss, "parts": sums.means(), "learning_rate": base * rate, "gradient_norm": norm}

    def _parts(self, row: Example) -> Sequence[Part]:
        return self.objective.parts(self.network, row, self.config.z_loss)


def _not_finite(what: str, value: float, batch: Batch) -> NotFinite:
    epoch = batch.windows[0][0]
    named = ", ".join(str(index) for _, index in batch.windows[:8]) + (", ..." if len(batch.windows) > 8 else "")
    return NotFinite(f"the {what} is {value} at step {batch.step} (epoch {epoch}, windows {named}): "
                     "lower matrix_rate and other_rate, or set precision to float32", exit_code=1)


def _products(precision: Found) -> torch.dtype:
    """What Muon multiplies in: bfloat16 where the device is fast with it, whatever the weights are kept in."""
    from bothways.training.precision import find

    return find("auto", str(precision.device)).dtype
