"""Products of states with weights, by whichever library is the faster on this processor.

PyTorch's float32 products on x86 are MKL's, which takes its widest instructions on processors of its own maker only.
On another one with AVX-512, oneDNN (which the framework carries for convolutions and bfloat16) does the same sums in
half the time. It makes a kernel for every new shape (about a millisecond), so small products stay where they are.
A few rows go through a kernel of our own where somebody has built it (`native`).
"""

from __future__ import annotations

import functools
import platform
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from bothways.model import native

FEW = 32
"""Up to so many rows a shape is sure to come again (tokens of one step of decoding)."""
WORTH, WORTH_MANY = 1 << 20, 1 << 23
"""Multiplications from which a product is worth a kernel of its own: of few rows, and of many, whose number varies."""


class Linear(nn.Linear):
    """The framework's linear layer, with `product` in it."""

    def forward(self, inputs: Tensor) -> Tensor:
        """(..., I) to (..., O)."""
        return product(inputs, self.weight, self.bias)


def product(inputs: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """inputs weight' + bias: (..., I) with (O, I) to (..., O), as `torch.nn.functional.linear`."""
    if native.suits(inputs, weight, bias) and (own := native.kernel()) is not None:
        return own.product(inputs, weight, bias)
    if not _suits(inputs, weight):
        return F.linear(inputs, weight, bias)
    learns = inputs.requires_grad or weight.requires_grad or (bias is not None and bias.requires_grad)
    if learns and torch.is_grad_enabled():
        made: Tensor = _Product.apply(inputs, weight, bias)
        return made
    return wide(inputs, weight, bias)


def _suits(inputs: Tensor, weight: Tensor) -> bool:
    """Whether oneDNN is the faster here."""
    # a trace is to hold the framework's own product, and no choice by sizes that may be others later
    if torch.compiler.is_compiling() or torch.jit.is_tracing():
        return False
    if inputs.dtype != torch.float32 or weight.dtype != torch.float32 or inputs.device.type != "cpu":
        return False
    outputs, width = weight.shape
    rows = inputs.numel() // max(width, 1)
    if rows * outputs * width < (WORTH if rows <= FEW else WORTH_MANY) or not preferred():
        return False
    # automatic casts are made inside the framework's own
    return bool(torch.backends.mkldnn.enabled) and not torch.is_autocast_enabled("cpu")


@functools.cache
def preferred() -> bool:
    """Whether this processor has AVX-512 that MKL leaves unused, and this PyTorch a way to oneDNN."""
    if platform.machine() not in ("x86_64", "AMD64") or torch.backends.cpu.get_cpu_capability() != "AVX512":
        return False
    known = torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()
    return known and hasattr(torch.ops.mkldnn, "_linear_pointwise") and _maker() not in ("", "GenuineIntel")


def _maker() -> str:
    """Who made the processor, as it says itself; empty where that is not to be found out."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("vendor_id")), "")


def wide(inputs: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """The product by oneDNN; nothing of it is recorded for gradients."""
    made: Tensor = torch.ops.mkldnn._linear_pointwise(inputs, weight, bias, "none", [], "")
    return made


class _Product(torch.autograd.Function):
    """dX = G W, dW = G' X, db = the sum of G over its rows: the same library has both products."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """inputs weight' + bias."""
        ctx.save_for_backward(inputs, weight)
        return wide(inputs, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Gradients of all three, as far as they are wanted."""
        inputs, weight = ctx.saved_tensors
        wants_inputs, wants_weight, wants_bias = ctx.needs_input_grad
        rows, flat = grad.reshape(-1, grad.shape[-1]), inputs.reshape(-1, inputs.shape[-1])
        inputs_grad = wide(grad, weight.t()) if wants_inputs else None
        weight_grad = None
        if wants_weight:
            # a product with many more rows than columns is the slower of two that are alike
            long = len(weight) > weight.shape[1]
            weight_grad = wide(flat.t(), rows.t()).t().contiguous() if long else wide(rows.t(), flat.t())
        return inputs_grad, weight_grad, rows.sum(dim=0) if wants_bias else None
