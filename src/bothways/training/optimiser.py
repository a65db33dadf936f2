"""What moves the masters: Muon for the matrices of the blocks, fused AdamW for the rest (or for all)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import cast

import torch
from torch import Tensor, nn

from bothways.model.config import ModelConfig
from bothways.model.experts import MixedFeedForward
from bothways.training.config import TrainConfig
from bothways.training.masters import Masters, fit
from bothways.training.muon import Muon


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
        rest = [name for name in self.masters.tensors if name not in muon]
        self.adamw = AdamW({name: self.masters.tensors[name] for name in rest}, config.betas,
                           {name: config.weight_decay if name in matrices else 0.0 for name in rest})

    def step(self, factor: float) -> float:
        """One update from the gathered gradients, at the schedule's `factor`; returns the norm before clipping.

        A norm that is not finite changes nothing: the caller says so and stops.
        """
        gradients, norm = self.masters.take(self.config.clip)
        if not math.isfinite(norm):
            return norm
        if self.muon is not None:
            self.muon.step(gradients, self.config.matrix_rate * factor)
        self.adamw.step(gradients, self.config.other_rate * factor)
        self.masters.publish()
        return norm

    def state(self) -> dict[str, Tensor]:
        """Every tensor the next step depends on beside the masters, by name."""
        return {**({} if self.muon is None else self.muon.state()), **self.adamw.state()}

    def load(self, tensors: Mapping[str, Tensor], origin: str) -> None:
        """Take over a stored state. Raises: BothwaysError naming a tensor that is missing or of another shape."""
        state = self.state()
        fit(state, tensors, origin)
        for name, tensor in state.items():
            tensor.copy_(tensors[name])


class AdamW:
    """AdamW (arXiv 1711.05101) through torch's fused kernel, four times faster than a loop on the CPU.

    `torch.optim.AdamW` computes the same; making one loads torch's compiler, which takes seconds that small runs lack.

    Args:
        masters: name -> float32 tensor.
        betas: decay of the first and second moments.
        decay: name -> decoupled weight decay.
    """

    def __init__(self, masters: Mapping[str, Tensor], betas: tuple[float, float], decay: Mapping[str, float]) -> None:
        self.masters, self.betas, self.decay = dict(masters), betas, dict(decay)
        self.first = {name: torch.zeros_like(master) for name, master in masters.items()}
        self.second = {name: torch.zeros_like(master) for name, master in masters.items()}
        self.steps = {name: torch.zeros((), device=master.device) for name, master in masters.items()}

    @torch.no_grad()
    def step(self, gradients: Mapping[str, Tensor], rate: float) -> None:
        """Move the masters that have a gradient."""
        for decay in sorted(set(self.decay.values())):
            names = [name for name in self.masters if self.decay[name] == decay and name in gradients]
            if not names:
                continue
            steps = [self.steps[name] for name in names]
            torch._foreach_add_(steps, 1.0)
            torch._fused_adamw_([self.masters[name] for name in names], [gradients[name] for name in names],
                                [self.first[name] for name in names], [self.second[name] for name in names], [], steps,
                                lr=rate, beta1=self.betas[0], beta2=self.betas[1], weight_decay=decay, eps=1e-8,
                                amsgrad=False, maximize=False)

    def state(self) -> dict[str, Tensor]:
        """Both moments and the number of steps, by the tensor they belong to."""
        kinds = {"first": self.first, "second": self.second, "steps": self.steps}
        return {f"adamw/{name}/{kind}": tensors[name] for kind, tensors in kinds.items() for name in tensors}


def _block_matrices(network: nn.Module) -> frozenset[str]:
    """The names of the weights of linear maps inside the blocks: not embeddings, head or position tables."""
    return frozenset(f"{name}.weight" for name, module in network.named_modules()
                     if isinstance(module, nn.Linear) and ".blocks." in f".{name}"
                     ) | frozenset(name for name, _ in network.named_parameters() if ".expert_" in name)


def _pieces(network: nn.Module) -> dict[str, tuple[int, ...]]:
    """The rows of each map inside a fused projection, by the weight's name; a narrow companion's are its own."""
    found: dict[str, tuple[int, ...]] = {}
    for name, module in network.named_modules():
        owner, _, part = name.rpartition(".")
        if isinstance(module, MixedFeedForward):
            up_gate, down, count = module.expert_up_gate, module.expert_down, module.experts.count
            found[f"{name}.expert_up_gate"] = (len(up_gate) // (2 * count),) * (2 * count)
            found[f"{name}.expert_down"] = (len(down) // count,) * count
        if not isinstance(module, nn.Linear) or part not in ("qkv", "kv", "up_gate"):
            continue
        if part == "up_gate":
            found[f"{name}.weight"] = (module.out_features // 2,) * 2
            continue
        config = cast(ModelConfig, network.get_submodule(owner).config)
        queries, keys = config.shape.heads * config.head_size, config.key_heads * config.head_size
        found[f"{name}.weight"] = _checked((queries, keys, keys) if part == "qkv" else (keys, keys), module)
    return found


def _checked(rows: Iterable[int], module: nn.Linear) -> tuple[int, ...]:
    """The pieces, or the whole matrix where a network fuses otherwise."""
    rows = tuple(rows)
    return rows if sum(rows) == module.out_features else (module.out_features,)
