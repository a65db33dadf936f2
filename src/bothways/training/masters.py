"""Float32 masters of the weights, and their mean along the way.

The network may compute in bfloat16; what moves it never does. Gradients are upcast as they arrive, masters are
moved, and the weights are set to the rounded masters. With float32 weights the masters are the weights themselves.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from bothways.errors import BothwaysError
from bothways.training.config import TrainConfig


class Masters:
    """A float32 copy of every parameter, by name, with float32 gradients beside it."""

    def __init__(self, network: nn.Module) -> None:
        self.parameters = dict(network.named_parameters())
        self.tensors = {name: parameter.detach() if parameter.dtype == torch.float32 else parameter.detach().float()
                        for name, parameter in self.parameters.items()}
        self._rounded = [name for name, parameter in self.parameters.items() if parameter.dtype != torch.float32]
        self._gradients: dict[str, Tensor] = {}

    def gather(self) -> None:
        """Add the gradients of one backward pass; call it after each, so that none is summed in bfloat16."""
        sums: list[Tensor] = []
        news: list[Tensor] = []
        for name, parameter in self.parameters.items():
            if parameter.grad is None:
                continue
            gradient = parameter.grad if parameter.grad.dtype == torch.float32 else parameter.grad.float()
            parameter.grad = None
            if name in self._gradients:
                sums.append(self._gradients[name])
                news.append(gradient)
            else:
                self._gradients[name] = gradient
        if sums:
            torch._foreach_add_(sums, news)

    def take(self, clip: float) -> tuple[dict[str, Tensor], float]:
        """The gathered gradients, scaled so that their joint norm is at most `clip` (0: not), and that norm before."""
        gradients, self._gradients = self._gradients, {}
        values = list(gradients.values())
        if not values:
            return gradients, 0.0
        norm = float(torch.linalg.vector_norm(torch.stack(torch._foreach_norm(values))))
        if clip and norm > clip:
            torch._foreach_mul_(values, clip / (norm + 1e-6))
        return gradients, norm

    def publish(self) -> None:
        """Set the weights to their rounded masters."""
        if self._rounded:
            with torch.no_grad():
                torch._foreach_copy_([self.parameters[name] for name in self._rounded],
                                     [self.tensors[name] for name in self._rounded])

    def load(self, tensors: Mapping[str, Tensor], origin: str) -> None:
        """Take over stored masters. Raises: BothwaysError naming what is missing, unknown or of another shape."""
        fit(self.tensors, tensors, origin)
        with torch.no_grad():
            for name, master in self.tensors.items():
                master.copy_(tensors[name])
        self.publish()


class Average:
    """A running mean of the masters: `ema` forgets, `last` is the plain mean over the end of the run."""

    def __init__(self, config: TrainConfig, masters: Masters, steps: int) -> None:
        self.kind, self.decay = config.averaging.kind, config.averaging.decay
        self.masters = masters
        self.first = steps - max(1, round(config.averaging.share * steps)) + 1 if self.kind == "last" else 1
        self.tensors: dict[str, Tensor] = {}

    def load(self, tensors: Mapping[str, Tensor], origin: str) -> None:
        """Take over a stored mean; nothing stored is none yet. Raises: BothwaysError when it does not fit."""
        if tensors:
            fit(self.masters.tensors, tensors, origin)
            # in the masters' order, which is not the file's
            self.tensors = {name: tensors[name].to(master.device) for name, master in self.masters.tensors.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """After step `step` (from 1). Early on, `ema` forgets faster, so that it is not stuck near the start."""
        if self.kind == "none" or step < self.first:
            return
        if not self.tensors:
            self.tensors = {name: tensor.clone() for name, tensor in self.masters.tensors.items()}
            return
        seen = step - self.first
        weight = 1 / (seen + 1) if self.kind == "last" else 1 - min(self.decay, (1 + seen) / (10 + seen))
        torch._foreach_lerp_(list(self.tensors.values()), list(self.masters.tensors.values()), weight)


def fit(expected: Mapping[str, Tensor], given: Mapping[str, Tensor], origin: str) -> None:
    """Every expected tensor is there in its shape, and no other.

    Raises:
        BothwaysError: names the file, the tensor, and both shapes where they differ.
    """
    missing, unknown = sorted(expected.keys() - given.keys()), sorted(given.keys() - expected.keys())
    if missing:
        raise BothwaysError(f"{origin} lacks the tensor '{missing[0]}'{_others(missing)}: "
                            "it belongs to another network")
    if unknown:
        raise BothwaysError(f"{origin} has the unknown tensor '{unknown[0]}'{_others(unknown)}: "
                            "it belongs to another network")
    for name, tensor in expected.items():
        if given[name].shape != tensor.shape:
            raise BothwaysError(f"{origin}: '{name}' has the shape {tuple(given[name].shape)}, but this run's network "
                                f"needs {tuple(tensor.shape)}")


def _others(names: list[str]) -> str:
    return f" and {len(names) - 1} more" if len(names) > 1 else ""
