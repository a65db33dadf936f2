"""Muon: momentum whose matrices are made orthogonal (Jordan et al., "Muon: an optimizer for hidden layers", 2024)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""The quintic's coefficients."""


@dataclass
class _Stack:
    """Matrices of one shape, orthogonalised together: far fewer and larger products than one by one.

    `places` says which rows of which master each layer of `momentum` (G, rows, columns) belongs to.
    """

    places: list[tuple[str, int, int]]
    momentum: Tensor


class Muon:
    """Momentum, orthogonalised by five Newton-Schulz steps (Jordan et al., 2024).

    The same update as `torch.optim.Muon` with its default settings, but on all matrices of one shape at once and,
    where the processor has no bfloat16, in float32. Fused projections (queries, keys and values; gate and up) are
    orthogonalised piece by piece, since each piece is a map of its own.

    Args:
        masters: name -> (rows, columns) float32.
        pieces: name -> the rows of each piece; one piece when the name is not in it.
        compute: number format of the Newton-Schulz products.
    """

    def __init__(self, masters: Mapping[str, Tensor], pieces: Mapping[str, tuple[int, ...]], *, momentum: float,
                 weight_decay: float, compute: torch.dtype) -> None:
        self.masters, self.momentum, self.weight_decay, self.compute = dict(masters), momentum, weight_decay, compute
        places: dict[tuple[int, int], list[tuple[str, int, int]]] = {}
        for name, master in masters.items():
            first = 0
            for rows in pieces.get(name, (len(master),)):
                places.setdefault((rows, master.shape[1]), []).append((name, first, first + rows))
                first += rows
        self.stacks = [_Stack(members, torch.zeros(len(members), *shape, device=masters[members[0][0]].device))
                       for shape, members in places.items()]

    @torch.no_grad()
    def step(self, gradients: Mapping[str, Tensor], rate: float) -> None:
        """Move the masters; a matrix without a gradient counts as one with a zero gradient."""
        for stack in self.stacks:
            gradient = torch.stack([gradients[name][first:last] if name in gradients
                                    else torch.zeros_like(stack.momentum[0]) for name, first, last in stack.places])
            stack.momentum.lerp_(gradient, 1 - self.momentum)
            update = orthogonal(gradient.lerp_(stack.momentum, self.momentum), self.compute).float()
            rows, columns = update.shape[-2:]
            masters = [self.masters[name][first:last] for name, first, last in stack.places]
            torch._foreach_mul_(masters, 1 - rate * self.weight_decay)
            torch._foreach_add_(masters, list(update.unbind()), alpha=-rate * math.sqrt(max(1.0, rows / columns)))

    def state(self) -> dict[str, Tensor]:
        """The momentum, by the piece it belongs to."""
        return {f"muon/{name}/{first}-{last}": stack.momentum[i]
                for stack in self.stacks for i, (name, first, last) in enumerate(stack.places)}


def orthogonal(matrices: Tensor, compute: torch.dtype, steps: int = 5) -> Tensor:
    """The nearest matrices with singular values near 1, roughly: (G, rows, columns) in `compute`."""
    a, b, c = NEWTON_SCHULZ
    tall = matrices.shape[-2] > matrices.shape[-1]
    # Norms as `torch.optim.Muon` takes them: in the number format of the products.
    x = matrices.to(compute)
    x = x.mT if tall else x
    x = x / torch.linalg.vector_norm(x, dim=(-2, -1), keepdim=True).clamp(min=1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x
