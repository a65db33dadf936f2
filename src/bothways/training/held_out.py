"""Held-out loss: always the same windows with the same noise, so that two points of a curve differ by the weights."""

from __future__ import annotations

import math
from typing import Any

import torch

from bothways.batch import Example, Key, pack
from bothways.objectives.base import Objective
from bothways.training.data import Source, corrupted, counts, grouped
from bothways.training.loss import NotFinite, Sums

SEED = 20_770
"""Of the noise on held-out windows, the same for every run whatever its own seed."""


class HeldOut:
    """The training loss on text that was not trained on.

    Args:
        windows: held-out windows; the first of their order, up to `tokens` raw tokens, are used.
        micro: raw tokens of one forward pass.
    """

    def __init__(self, windows: Source, objective: Objective, *, tokens: int, micro: int | None = None) -> None:
        chosen: list[Example] = []
        self.tokens = 0
        for index in windows.order(SEED, 0) if len(windows) else ():
            window = windows[int(index)]
            if chosen and self.tokens + len(window.ids) > tokens:
                break
            # Noise schedules stand at their end, so that early and late points are asked the same.
            epoch = len(chosen) % objective.cycle
            chosen.append(corrupted(objective, windows, window, Key(SEED, epoch, window.index, 1.0)))
            self.tokens += len(window.ids)
        self.objective = objective
        self.rows = [row for group in grouped(chosen, micro or 2048) for row in pack(group)] if chosen else []
        self.counts = counts(self.rows)

    @torch.no_grad()
    def measure(self, network: Any, device: torch.device) -> dict[str, Any] | None:
        """{"loss": total, "parts": {name: mean}, "tokens": raw tokens}; none without held-out text.

        Raises:
            NotFinite: the loss is not a finite number.
        """
        if not self.rows:
            return None
        training = network.training
        network.eval()
        sums = Sums(self.counts)
        try:
            for row in self.rows:
                row = row.to(device)
                sums.add(self.objective.parts(network, row), rows=len(self.rows))
        finally:
            network.train(training)
        if not math.isfinite(sums.total()):
            raise NotFinite(f"the held-out loss is {sums.total()}", exit_code=1)
        return {"loss": sums.total(), "parts": sums.means(), "tokens": self.tokens}
