"""Layer norm and RMS norm, by the config's choice."""

from __future__ import annotations

from torch import Tensor, nn

from bothways.model.config import ModelConfig


class RMSNorm(nn.RMSNorm):
    """x / sqrt(mean(x^2) + epsilon) * weight (arXiv 1910.07467)."""

    def __init__(self, width: int, epsilon: float) -> None:
        super().__init__(width, eps=epsilon)

    def forward(self, states: Tensor) -> Tensor:
        """(..., D) to (..., D)."""
        return super().forward(states)


def make_norm(config: ModelConfig, width: int) -> nn.Module:
    """The norm the config chooses, over vectors of `width` numbers."""
    if config.norm.kind == "layer":
        return nn.LayerNorm(width, eps=config.norm.epsilon, bias=config.bias)
    return RMSNorm(width, config.norm.epsilon)
