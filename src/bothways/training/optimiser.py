"""Float32 masters of the weights, and what moves them: Muon for matrices, fused AdamW for the rest.

The network may compute in bfloat16; the optimiser never does. Gradients are upcast as they arrive, masters are
moved, and the weights are set to the rounded masters. With float32 weights the masters are the weights themselves.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bothways.errors import BothwaysError
from bothways.training.config import TrainConfig

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""The quintic's coefficients (Jordan et al., "Muon: an optimizer for hidden layers", 2024)."""


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


class Optimiser:
    """The masters and everything that moves them, as one thing with a named state.

    Args:
        network: its parameters' dtype decides whether masters are copies.
        config: `optimizer`, rates, decay, momentum, betas, clip.
        compute: number format of Muon's products (bfloat16 where the processor has it).
    """

    def __init__(self, network: nn.Module, config: TrainConfig, compute: torch.dtype = torch.float32) -> None:
        self.config = config
        self.masters = Masters(network)
        matrices = _block_matrices(network)
        muon = matrices if config.optimizer == "muon" else frozenset()
        self.muon = Muon({name: self.masters.tensors[name] for name in self.masters.tensors if name in muon},
                         _pieces(network), momentum=config.momentum, weight_decay=config.weight_decay,
                         compute=compute) if muon else None
        self._names = [name for name in self.masters.tensors if name not in muon]
        decayed = [name for name in self._names if name in matrices]
        plain = [name for name in self._names if name not in matrices]
        groups = [{"params": [self.masters.tensors[name] for name in names], "weight_decay": decay}
                  for names, decay in ((decayed, config.weight_decay), (plain, 0.0)) if names]
        self._names = decayed + plain
        self.adamw = torch.optim.AdamW(groups, lr=config.other_rate, betas=config.betas, eps=1e-8, fused=True)

    def step(self, factor: float) -> float:
        """One update from the gathered gradients, at the schedule's `factor`; returns the norm before clipping.

        A norm that is not finite changes nothing: the caller says so and stops.
        """
        gradients, norm = self.masters.take(self.config.clip)
        if not math.isfinite(norm):
            return norm
        if self.muon is not None:
            self.muon.step(gradients, self.config.matrix_rate * factor)
        for name in self._names:
            self.masters.tensors[name].grad = gradients.get(name)
        for group in self.adamw.param_groups:
            group["lr"] = self.config.other_rate * factor
        self.adamw.step()
        self.adamw.zero_grad(set_to_none=True)
        self.masters.publish()
        return norm

    def state(self) -> dict[str, Tensor]:
        """Every tensor the next step depends on beside the masters, by name."""
        tensors = {} if self.muon is None else self.muon.state()
        for name in self._names:
            for key, value in self.adamw.state.get(self.masters.tensors[name], {}).items():
                tensors[f"adamw/{name}/{key}"] = value
        return tensors

    def load(self, tensors: Mapping[str, Tensor], origin: str) -> None:
        """Take over a stored state. Raises: BothwaysError naming a tensor that is missing or of another shape."""
        muon = {} if self.muon is None else self.muon.state()
        fit(muon, {name: tensor for name, tensor in tensors.items() if name.startswith("muon/")}, origin)
        for name, tensor in muon.items():
            tensor.copy_(tensors[name])
        for name in self._names:
            master = self.masters.tensors[name]
            stored = {key: tensors[f"adamw/{name}/{key}"] for key in ("step", "exp_avg", "exp_avg_sq")
                      if f"adamw/{name}/{key}" in tensors}
            if stored:
                fit({"exp_avg": master, "exp_avg_sq": master, "step": torch.tensor(0.0)}, stored, f"{origin}: {name}")
                self.adamw.state[master] = {key: value.to(master.device) for key, value in stored.items()}


class Average:
    """A running mean of the masters: `ema` forgets, `last` is the plain mean over the end of the run."""

    def __init__(self, config: TrainConfig, masters: Masters, steps: int) -> None:
        self.kind, self.decay = config.averaging.kind, config.averaging.decay
        self.masters = masters
        self.first = steps - max(1, round(config.averaging.share * steps)) + 1 if self.kind == "last" else 1
        self.tensors: dict[str, Tensor] = {}

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


def _block_matrices(network: nn.Module) -> frozenset[str]:
    """The names of the weights of linear maps inside the blocks: not embeddings, head or position tables."""
    return frozenset(f"{name}.weight" for name, module in network.named_modules()
                     if isinstance(module, nn.Linear) and ".blocks." in f".{name}")


def _pieces(network: nn.Module) -> dict[str, tuple[int, ...]]:
    """The rows of each map inside a fused projection, by the weight's name."""
    config = getattr(network, "config", None)
    if config is None:
        return {}
    queries, keys = config.shape.heads * config.head_size, config.key_heads * config.head_size
    known = {"attention.qkv": (queries, keys, keys), "cross.kv": (keys, keys),
             "feed_forward.up_gate": (config.inner, config.inner)}
    return {f"{name}.weight": _checked(rows, module) for name, module in network.named_modules()
            for ending, rows in known.items() if name.endswith(ending) and isinstance(module, nn.Linear)}


def _checked(rows: Iterable[int], module: nn.Linear) -> tuple[int, ...]:
    """The pieces, or the whole matrix where a network fuses otherwise."""
    rows = tuple(rows)
    return rows if sum(rows) == module.out_features else (module.out_features,)
