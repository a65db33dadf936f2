"""Experts kept equally busy without a loss: what routers chose in a step sways what they choose in the next."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from bothways.model.experts import rebalance


class Balance:
    """Hears the calls of a network in training, and moves its routers' corrections behind each step.

    DeepSeek-V3 (arXiv 2412.19437, section 2.1.2; arXiv 2408.15664, algorithm 1). Without experts that have a
    `correction` it does nothing. The tower that predicts is heard, not the one that reads a source.
    """

    def __init__(self, network: Any) -> None:
        self.network, self._choices = network, list[Tensor]()
        config = getattr(network, "config", None)
        experts = None if config is None else config.feed_forward.experts
        if experts is not None and experts.correction:
            network.register_forward_hook(self._hear)

    def move(self) -> None:
        """Behind a step: all that was chosen since the last one counts."""
        if self._choices:
            rebalance(self.network.tower.routers(), sum(self._choices[1:], self._choices[0]))
            self._choices.clear()

    def _hear(self, network: Any, given: Any, output: Any) -> None:
        chosen = output.extras.get("router_choices")
        if network.training and chosen is not None:
            self._choices.append(chosen)
