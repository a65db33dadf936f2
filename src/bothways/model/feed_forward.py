"""The feed-forward of a block: gated or plain."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import Tensor, nn
from torch.nn import functional as F

from bothways.model.config import ModelConfig

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": F.silu, "gelu": F.gelu, "gelu_tanh": partial(F.gelu, approximate="tanh"), "relu": F.relu}


class GatedFeedForward(nn.Module):
    """down(up(x) * activation(gate(x))) (arXiv 2002.05202); the first half of `up_gate` is up, the second gate."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.up_gate: nn.Linear | None = nn.Linear(config.shape.width, 2 * config.inner, bias=config.bias)
        self.down = nn.Linear(config.inner, config.shape.width, bias=config.bias)
        self.activation = config.feed_forward.activation

    def forward(self, states: Tensor) -> Tensor:
        """(N, D) to (N, D)."""
        if self.up_gate is None:
            up, gate = self.up(states), self.gate(states)
        else:
            up, gate = self.up_gate(states).chunk(2, dim=-1)
        return self.down(up * ACTIVATIONS[self.activation](gate))

    def split_projections(self) -> None:
        """Put `up` and `gate` in place of `up_gate`."""
        if self.up_gate is not None:
            self.up, self.gate = split(self.up_gate, [self.down.in_features] * 2)
            self.up_gate = None


class PlainFeedForward(nn.Module):
    """down(activation(up(x)))."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.up = nn.Linear(config.shape.width, config.inner, bias=config.bias)
        self.down = nn.Linear(config.inner, config.shape.width, bias=config.bias)
        self.activation = ACTIVATIONS[config.feed_forward.activation]

    def forward(self, states: Tensor) -> Tensor:
        """(N, D) to (N, D)."""
        return self.down(self.activation(self.up(states)))

    def split_projections(self) -> None:
        """Nothing is fused here."""


def make_feed_forward(config: ModelConfig) -> GatedFeedForward | PlainFeedForward:
    """The feed-forward the config chooses."""
    return GatedFeedForward(config) if config.feed_forward.kind == "gated" else PlainFeedForward(config)


def split(fused: nn.Linear, sizes: list[int]) -> list[nn.Linear]:
    """One projection as several with the same weights: outputs of the given sizes, in order."""
    parts = []
    for rows in zip(fused.weight.split(sizes), fused.bias.split(sizes) if fused.bias is not None else [None] * len(sizes)):
        part = nn.Linear(fused.in_features, len(rows[0]), bias=rows[1] is not None, device="meta")
        part.weight = nn.Parameter(rows[0].detach().clone(), requires_grad=fused.weight.requires_grad)
        if rows[1] is not None:
            part.bias = nn.Parameter(rows[1].detach().clone(), requires_grad=fused.weight.requires_grad)
        parts.append(part)
    return parts
