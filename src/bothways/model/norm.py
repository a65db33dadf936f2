"""Layer norm and RMS norm, by the config's choice."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from bothways.model.config import ModelConfig


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + epsilon) * weight (arXiv 1910.07467), or times 1 + weight where it is `centred`.

    Without a weight (`weighted` false) times nothing.

    On the CPU with its own backward: the library's is put together from many small steps there.
    """

    def __init__(self, width: int, epsilon: float, centred: bool = False, weighted: bool = True) -> None:
        super().__init__()
        self.width, self.epsilon, self.centred = width, epsilon, centred
        self.weight = nn.Parameter(torch.ones(width)) if weighted else None

    def forward(self, states: Tensor) -> Tensor:
        """(..., D) to (..., D)."""
        if self.weight is None:
            return F.rms_norm(states, (self.width,), None, self.epsilon)
        weight = 1 + self.weight if self.centred else self.weight
        written_out = states.device.type == "cpu" and states.dtype == self.weight.dtype
        if written_out and not torch.compiler.is_exporting():
            normed: Tensor = _RMSNorm.apply(states, weight, self.epsilon)
            return normed
        return F.rms_norm(states, weight.shape, weight, self.epsilon)

    def extra_repr(self) -> str:
        return f"{self.width}, epsilon={self.epsilon}"


class _RMSNorm(torch.autograd.Function):
    """With r = 1 / rms(x): y = x r w, dx = r (g w) - x r^3 mean(g w x), dw = sum over rows of g x r.

    Lengths are summed in float32 at least.
    """

    @staticmethod
    def forward(ctx: Any, states: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        """y, of the shape and type of the states."""
        exact = torch.promote_types(states.dtype, torch.float32)
        length = torch.linalg.vector_norm(states, dim=-1, keepdim=True, dtype=exact)
        inverse = length.square_().div_(states.shape[-1]).add_(epsilon).rsqrt_()
        ctx.save_for_backward(states, weight, inverse)
        return (states * inverse.to(states.dtype)).mul_(weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        """dx and dw."""
        states, weight, inverse = ctx.saved_tensors
        width = states.shape[-1]
        scale = inverse.to(states.dtype)
        product = (grad * states).view(-1, width)
        weight_grad = (scale.view(1, -1) @ product).view(width)
        shared = (product @ weight).view(inverse.shape).to(inverse.dtype) * inverse.pow(3) / -width
        return torch.addcmul((grad * weight).mul_(scale), states, shared.to(states.dtype)), weight_grad, None


def make_norm(config: ModelConfig, width: int, weighted: bool = True) -> nn.Module:
    """The norm the config chooses, over vectors of `width` numbers; without a weight where it is not `weighted`."""
    weighted = weighted and config.norm.weight
    if config.norm.kind == "layer":
        return nn.LayerNorm(width, config.norm.epsilon, weighted, config.norm_bias)
    return RMSNorm(width, config.norm.epsilon, config.norm.centred, weighted)


def query_key_norms(config: ModelConfig) -> tuple[nn.Module, nn.Module]:
    """The norms of queries and of keys, over one head."""
    one, other = (make_norm(config, config.head_size, config.norm.query_key_weight) for _ in range(2))
    return one, other
