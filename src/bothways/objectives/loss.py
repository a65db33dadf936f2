"""Cross-entropy of what was asked, and nothing else: logits exist only for the places an Ask names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from bothways.batch import Example


class Part(NamedTuple):
    """A named part of a loss: total = sum over parts of coefficient * sum / count.

    `sum` is a tensor with a gradient; `count` is added over micro-batches before anything is divided.
    """

    name: str
    sum: Tensor
    count: float  # type: ignore[assignment]  # tuples have a method of that name
    coefficient: float = 1.0


LogitsOf = Callable[[Tensor, str], Tensor]
"""(states (T, D), head name) -> logits (T, V)."""
CHUNK = 1 << 18
"""Logits turned to float32 at a time (1 MB, to stay in a processor's cache): the whole grid never exists in float32."""
ON_ACCELERATOR = 256
"""As many times more at a time on an accelerator, where a call costs more than the memory."""


def cross_entropy(logits_of: LogitsOf, states: Tensor, example: Example, z_loss: float = 0.0) -> list[Part]:
    """One Part for each Ask: sum of weight * -log p(target), in float32, over the count the Ask carries.

    Args:
        logits_of: the network's heads.
        states: (N, D), one for each input of the Example.
        z_loss: when above 0, also parts `<part>/z` with the sum of log(Z)^2 and this coefficient, which keep the
            logits from drifting (PaLM, arXiv 2204.02311, section 5).
    """
    parts = []
    for ask in example.asks:
        chosen = states.index_select(0, ask.where)
        nll, z = token_losses(logits_of(chosen, ask.head), ask.targets, ask.weights, z_loss > 0)
        parts.append(Part(ask.part, nll, ask.count, ask.coefficient))
        if z_loss > 0:
            parts.append(Part(f"{ask.part}/z", z, float(len(ask.targets)), z_loss * ask.coefficient))
    return parts


def token_losses(logits: Tensor, targets: Tensor, weights: Tensor | None = None,
                 with_z: bool = False) -> tuple[Tensor, Tensor]:
    """Sum of weight * -log softmax(logits)[target], and sum of log(Z)^2: two float32 scalars with gradients.

    Args:
        logits: (T, V), any float type; targets (T,) int64; weights (T,) or none for all ones.
    """
    if weights is None:
        weights = torch.ones((), dtype=torch.float32, device=logits.device).expand(len(targets))
    nll, z = _TokenLosses.apply(logits, targets, weights, with_z)
    return nll, z


class _TokenLosses(torch.autograd.Function):
    """Keeps the probabilities in the logits' own type instead of the logits and their float32 softmax.

    With p = softmax(logits): d nll = w (p - onehot), d z = 2 log(Z) p.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor, weights: Tensor, with_z: bool) -> tuple[Tensor, Tensor]:
        """The weighted sum of -log p(target), and the sum of log(Z)^2 or 0."""
        exact = torch.promote_types(logits.dtype, torch.float32)
        wanted = ctx.needs_input_grad[0]
        probabilities = torch.empty_like(logits) if wanted else None
        picked = logits.gather(1, targets[:, None]).squeeze(1).to(exact)
        at_target = torch.empty_like(picked)
        chunk_size = CHUNK if logits.device.type == "cpu" else ON_ACCELERATOR * CHUNK
        step = max(1, chunk_size // max(1, logits.shape[-1]))
        for first in range(0, len(logits), step):
            rows = slice(first, first + step)
            chunk = torch.softmax(logits[rows], dim=-1, dtype=exact)
            at_target[rows] = chunk.gather(1, targets[rows, None]).squeeze(1)
            if probabilities is not None:
                probabilities[rows] = chunk
        log_z = picked - at_target.log()
        # a target so unlikely that its probability is no normal number
        unlikely = at_target < torch.finfo(exact).tiny
        if bool(unlikely.any()):
            log_z[unlikely] = torch.logsumexp(logits[unlikely].to(exact), dim=-1)
        ctx.save_for_backward(probabilities, targets, weights, log_z)
        ctx.with_z = with_z
        nll = ((log_z - picked) * weights).sum()
        return nll, log_z.square().sum() if with_z else torch.zeros_like(nll)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        """The gradient of the logits, from the kept probabilities."""
        grad_nll, grad_z = grads
        probabilities, targets, weights, log_z = ctx.saved_tensors
        per_target = (grad_nll * weights).to(log_z.dtype)
        scale = per_target + 2 * grad_z * log_z if ctx.with_z else per_target
        gradient = probabilities * scale[:, None].to(probabilities.dtype)
        gradient[torch.arange(len(targets), device=targets.device), targets] -= per_target.to(gradient.dtype)
        return gradient, None, None, None
