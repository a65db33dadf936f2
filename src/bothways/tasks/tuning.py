"""The one fine-tuning loop: AdamW, warm-up and linear decay over a fixed number of steps, on packed batches."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from bothways.errors import BothwaysError


@dataclass(frozen=True)
class TuneConfig:
    """How a pretrained network is fine-tuned; the same for every paradigm, as a fair comparison needs.

    Many short steps with a warm-up and a decay to zero are what keeps fine-tuning on little data stable
    (Mosbach et al. 2021, arXiv 2006.04884). A head that starts from zero learns at its own, larger rate.

    steps: updates; see `epochs`.
    batch: texts in one update.
    longest: tokens of a text that are read.
    """

    steps: int = 200
    batch: int = 32
    learning_rate: float = 5e-4
    head_rate: float = 5e-3
    weight_decay: float = 0.01
    warm_up: float = 0.1
    clip: float = 1.0
    longest: int = 256
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "longest"):
            if getattr(self, name) < 1:
                raise BothwaysError(f"fine-tuning option '{name}' is {getattr(self, name)}, but must be at least 1")

    @staticmethod
    def epochs(epochs: float, texts: int, batch: int = 32, at_most: int | None = None) -> int:
        """The steps that so many passes over `texts` texts take."""
        steps = max(1, math.ceil(epochs * texts / batch))
        return steps if at_most is None else min(steps, at_most)


def tune(trunk: nn.Module, head: nn.Module | None, n: int, loss_of: Callable[[list[int], int], Tensor],
         config: TuneConfig, watch: Callable[[int, float], None] | None = None) -> list[float]:
    """Move the weights of `trunk` and `head` to lower `loss_of`.

    Args:
        n: training texts.
        loss_of: (places of the batch's texts, step) -> scalar loss.
        watch: called with step and loss after each update.
    Returns:
        the loss of every step.
    Raises:
        BothwaysError: a loss that is not finite, naming the step.
    """
    rng = np.random.default_rng(config.seed)
    optimiser = torch.optim.AdamW(list(_groups(trunk, config.learning_rate, config.weight_decay))
                                  + list(_groups(head, config.head_rate, config.weight_decay)),
                                  betas=(0.9, 0.98), fused=True)
    rates = [group["lr"] for group in optimiser.param_groups]
    weights = [weight for group in optimiser.param_groups for weight in group["params"]]
    losses: list[float] = []
    trunk.train()
    order = batches(n, config.batch, rng)
    for step in range(config.steps):
        # 1. the rate of this step
        share = schedule(step, config.steps, config.warm_up)
        for group, rate in zip(optimiser.param_groups, rates):
            group["lr"] = rate * share
        # 2. one update
        optimiser.zero_grad(set_to_none=True)
        loss = loss_of(next(order), step)
        if not torch.isfinite(loss):
            raise BothwaysError(f"the loss of fine-tuning is not finite at step {step}: "
                                f"lower learning_rate (now {config.learning_rate:g})", exit_code=1)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, config.clip)
        optimiser.step()
        losses.append(float(loss.detach()))
        if watch is not None:
            watch(step, losses[-1])
    trunk.eval()
    return losses


def schedule(step: int, steps: int, warm_up: float) -> float:
    """The share of the peak rate: linear up over `warm_up` of the steps, linear down to nearly zero after."""
    rising = max(1, round(steps * warm_up))
    return (step + 1) / rising if step < rising else (steps - step) / max(1, steps - rising + 1)


def batches(n: int, size: int, rng: np.random.Generator) -> Iterator[list[int]]:
    """Places of 0..n-1 in random order, `size` at a time, again and again; every pass uses every place once."""
    waiting: list[int] = []
    while True:
        while len(waiting) < min(size, n):
            waiting += rng.permutation(n).tolist()
        yield waiting[:size]
        waiting = waiting[size:]


def _groups(module: nn.Module | None, rate: float, decay: float) -> Sequence[dict[str, object]]:
    """Matrices decay; norms and biases do not."""
    weights = [] if module is None else [weight for weight in module.parameters() if weight.requires_grad]
    groups = [([weight for weight in weights if weight.dim() > 1], decay),
              ([weight for weight in weights if weight.dim() <= 1], 0.0)]
    return [{"params": members, "lr": rate, "weight_decay": amount} for members, amount in groups if members]
