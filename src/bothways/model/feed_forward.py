"""The feed-forward of a block: gated or plain."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from bothways.model.config import ModelConfig
from bothways.model.product import Linear

CHUNK = 1 << 17
"""Numbers worked on at a time where many small steps follow each other: they stay in the cache."""


def gelu_tanh(inputs: Tensor) -> Tensor:
    """GELU by its tanh approximation (arXiv 1606.08415, section 2), as GPT-2 and T5 v1.1 have it.

    The library's CPU kernel evaluates tanh twice, forward and backward; ours evaluates one sigmoid for both. A few
    tokens that nobody learns from are done before ours has begun.
    """
    if (inputs.device.type != "cpu" or torch.compiler.is_exporting()
            or (inputs.numel() < CHUNK and not _learns(inputs))):
        return F.gelu(inputs, approximate="tanh")
    bent: Tensor = _GeluTanh.apply(inputs)
    return bent


class _GeluTanh(torch.autograd.Function):
    """x s with s = sigmoid(x (a + b x^2)), a = 2 sqrt(2 / pi), b = 0.044715 a; the slope is kept instead of x."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor) -> Tensor:
        """The activation; where a gradient is wanted, its slope is kept."""
        a = 2 * math.sqrt(2 / math.pi)
        b = 0.044715 * a
        inputs = inputs.contiguous()
        bent, slope = torch.empty_like(inputs), torch.empty_like(inputs) if ctx.needs_input_grad[0] else None
        flat, bent_flat = inputs.view(-1), bent.view(-1)
        for first in range(0, len(flat), CHUNK):
            part = slice(first, first + CHUNK)
            x = flat[part].to(torch.promote_types(inputs.dtype, torch.float32))
            square = x * x
            s = square.mul(b).add_(a).mul_(x).sigmoid_()
            bent_flat[part] = x * s
            if slope is not None:
                # s + x (a + 3 b x^2) s (1 - s)
                inner = square.mul_(3 * b).add_(a).mul_(x)
                slope.view(-1)[part] = torch.addcmul(s, inner, torch.addcmul(s, s, s, value=-1))
        if slope is not None:
            ctx.save_for_backward(slope)
        return bent

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        """The gradient times the slope."""
        slope, = ctx.saved_tensors
        return grad * slope


def _learns(inputs: Tensor) -> bool:
    return torch.is_grad_enabled() and inputs.requires_grad


def relu_squared(inputs: Tensor) -> Tensor:
    """max(x, 0)^2 (Primer, arXiv 2109.08668, section 4)."""
    return F.relu(inputs).square()


def quick_gelu(inputs: Tensor) -> Tensor:
    """x sigmoid(1.702 x), GELU by a sigmoid (arXiv 1606.08415, section 2)."""
    return inputs * torch.sigmoid(1.702 * inputs)


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": F.silu, "gelu": F.gelu, "gelu_tanh": gelu_tanh, "relu": F.relu, "relu_squared": relu_squared,
    "quick_gelu": quick_gelu, "tanh": torch.tanh}


class GatedFeedForward(nn.Module):
    """down(up(x) * activation(gate(x))) (arXiv 2002.05202); the first half of `up_gate` is up, the second gate."""

    def __init__(self, config: ModelConfig, inner: int | None = None) -> None:
        """`inner` is the config's when none."""
        super().__init__()
        biased, inner = config.biased("feed_forward"), inner or config.inner
        self.up_gate: Linear | None = Linear(config.shape.width, 2 * inner, bias=biased)
        self.down = Linear(inner, config.shape.width, bias=biased)
        self.activation = config.feed_forward.activation

    def forward(self, states: Tensor) -> Tensor:
        """(N, D) to (N, D)."""
        if self.up_gate is None:
            return self.down(self.up(states) * ACTIVATIONS[self.activation](self.gate(states)))
        return self.down(gated(self.up_gate(states), self.activation))

    def split_projections(self) -> None:
        """Put `up` and `gate` in place of `up_gate`."""
        if self.up_gate is not None:
            self.up, self.gate = split(self.up_gate, [self.down.in_features] * 2)
            self.up_gate = None


def gated(fused: Tensor, activation: str) -> Tensor:
    """up * activation(gate), where `fused` (..., 2 I) holds up before gate."""
    if torch.compiler.is_exporting() or not _learns(fused):
        up, gate = fused.chunk(2, dim=-1)
        return up * ACTIVATIONS[activation](gate)
    opened: Tensor = _Gated.apply(fused, activation)
    return opened


class _Gated(torch.autograd.Function):
    """up * activation(gate) of the two halves of one tensor, with one gradient for both instead of a concatenation."""

    @staticmethod
    def forward(ctx: Any, fused: Tensor, activation: str) -> Tensor:
        """up * activation(gate): half as wide as what comes in."""
        up, gate = fused.chunk(2, dim=-1)
        opened = ACTIVATIONS[activation](gate)
        ctx.save_for_backward(fused, opened)
        ctx.activation = activation
        return up * opened

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        """Both halves' gradients in one tensor."""
        fused, opened = ctx.saved_tensors
        up, gate = fused.chunk(2, dim=-1)
        both = torch.empty_like(fused)
        up_grad, gate_grad = both.chunk(2, dim=-1)
        torch.mul(grad, opened, out=up_grad)
        _SLOPES[ctx.activation](grad * up, gate, gate_grad)
        return both, None


_SLOPES: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "silu": lambda grad, x, out: torch.ops.aten.silu_backward(grad, x, grad_input=out),
    "gelu": lambda grad, x, out: torch.ops.aten.gelu_backward(grad, x, grad_input=out),
    "gelu_tanh": lambda grad, x, out: torch.ops.aten.gelu_backward(grad, x, approximate="tanh", grad_input=out),
    "relu": lambda grad, x, out: torch.ops.aten.threshold_backward(grad, x, 0, grad_input=out),
    "relu_squared": lambda grad, x, out: torch.mul(grad, F.relu(x).mul_(2), out=out),
    # x s(1.702 x) is silu(1.702 x) / 1.702, whose slope is that of silu at 1.702 x
    "quick_gelu": lambda grad, x, out: torch.ops.aten.silu_backward(grad, 1.702 * x, grad_input=out),
    "tanh": lambda grad, x, out: torch.ops.aten.tanh_backward(grad, torch.tanh(x), grad_input=out),
}
"""Each activation's gradient, written in place: (gradient behind it, its input, where to)."""


class PlainFeedForward(nn.Module):
    """down(activation(up(x)))."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        biased = config.biased("feed_forward")
        self.up = Linear(config.shape.width, config.inner, bias=biased)
        self.down = Linear(config.inner, config.shape.width, bias=biased)
        self.activation = ACTIVATIONS[config.feed_forward.activation]

    def forward(self, states: Tensor) -> Tensor:
        """(N, D) to (N, D)."""
        return self.down(self.activation(self.up(states)))


def make_feed_forward(config: ModelConfig) -> GatedFeedForward | PlainFeedForward:
    """The feed-forward the config chooses."""
    return GatedFeedForward(config) if config.feed_forward.kind == "gated" else PlainFeedForward(config)


def split(fused: Linear, sizes: list[int]) -> list[Linear]:
    """One projection as several with the same weights: outputs of the given sizes, in order."""
    parts = []
    biases = [None] * len(sizes) if fused.bias is None else fused.bias.split(sizes)
    for weight, bias in zip(fused.weight.split(sizes), biases, strict=True):
        part = Linear(fused.in_features, len(weight), bias=bias is not None, device="meta")
        part.weight = nn.Parameter(weight.detach().clone(), requires_grad=weight.requires_grad)
        if bias is not None:
            part.bias = nn.Parameter(bias.detach().clone(), requires_grad=bias.requires_grad)
        parts.append(part)
    return parts
