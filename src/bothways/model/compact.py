"""Weights in fewer bits, for a network that only reads and writes: int8 for each output, or int4 in groups.

A token that is written reads every weight once, so its time is that of reading them: a quarter of the bytes is up to a
quarter of the time. Numbers that go through the network stay what they were; those that meet such weights are rounded
to bfloat16 first. What this costs a model in quality `benchmarks/weight_quality.py` measures.

The linear layers of the towers and the head are made compact; embeddings are looked up in full, experts and what
attention over latents takes apart stay as they are.
"""

from __future__ import annotations

import platform
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bothways.errors import BothwaysError
from bothways.model import native

if TYPE_CHECKING:
    from bothways.model.language_model import LanguageModel

Bits = Literal["int8", "int4"]
BITS: tuple[Bits, ...] = ("int8", "int4")
GROUP = 32
"""Weights of one output that share a scale and an offset in int4."""
FEW = 32
"""Up to so many rows meet 8-bit weights as they are; for more these are made whole first, once a call."""


class Compact(nn.Module, ABC):
    """A linear layer whose weights have few bits; it answers as `nn.Linear` does, and cannot be trained."""

    bits: Bits

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.out_features, self.in_features = weight.shape
        self.register_buffer("bias", bias if bias is None else bias.detach())
        self.bias: Tensor | None

    @property
    @abstractmethod
    def weight(self) -> Tensor:
        """(O, I) the weights that are meant, made anew each time."""

    def train(self, mode: bool = True) -> Compact:
        """Refused but for evaluation."""
        if mode:
            raise BothwaysError(f"{self.bits} weights are for reading and writing and cannot be trained: load the "
                                "model without them (leave `weights` out)")
        super().train(mode)
        return self

    def extra_repr(self) -> str:
        """Shapes and bits, for `print(network)`."""
        return f"{self.in_features}, {self.out_features}, {self.bits}, bias={self.bias is not None}"


class Int8(Compact):
    """w = scale * n, n from -127 to 127, one scale for each output: its largest weight / 127."""

    bits = "int8"

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__(weight, bias)
        weight = weight.detach().float()
        scale = weight.abs().amax(dim=1).clamp(min=1e-12) / 127
        self.numbers: Tensor
        self.scale: Tensor
        self.ones: Tensor
        self.register_buffer("numbers", (weight / scale[:, None]).round_().to(torch.int8))
        self.register_buffer("scale", scale)
        self.register_buffer("ones", torch.ones_like(scale, dtype=torch.bfloat16))

    def _apply(self, *arguments: Any, **options: Any) -> Int8:
        """Whatever number format the network moves to, the kernels know these."""
        super()._apply(*arguments, **options)
        self.scale, self.ones = self.scale.float(), self.ones.bfloat16()
        return self

    @property
    def weight(self) -> Tensor:
        """(O, I) float32."""
        return self.numbers * self.scale[:, None]

    def forward(self, inputs: Tensor) -> Tensor:
        """(..., I) to (..., O)."""
        if native.suits(inputs, self.numbers, self.bias) and (own := native.kernel()) is not None:
            return own.product(inputs, self.numbers, self.bias, self.scale)
        rows = inputs.reshape(-1, self.in_features)
        if len(rows) > FEW or inputs.device.type != "cpu":
            return F.linear(inputs, self.weight.to(inputs.dtype), self.bias)
        made = torch._weight_int8pack_mm(rows.bfloat16(), self.numbers, self.ones).float() * self.scale
        made = made if self.bias is None else made + self.bias
        return made.to(inputs.dtype).view(*inputs.shape[:-1], -1)


class Int4(Compact):
    """w = scale * (n - 8) + offset, n from 0 to 15, for each 32 weights of an output; scale and offset in bfloat16."""

    bits = "int4"

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__(weight, bias)
        groups = weight.detach().float().unflatten(1, (-1, GROUP))
        low, high = groups.amin(dim=-1), groups.amax(dim=-1)
        # rounded first, so that the numbers are the nearest to what will be read
        scale = ((high - low) / 15).clamp(min=1e-8).bfloat16()
        offset = (low + 8 * scale.float()).bfloat16()
        numbers = ((groups - offset.float()[..., None]) / scale.float()[..., None] + 8).round_().clamp_(0, 15)
        self.packed: Tensor
        self.scales: Tensor
        self.register_buffer("packed", torch.ops.aten._convert_weight_to_int4pack_for_cpu(
            numbers.flatten(1).to(torch.int32), 1))
        self.register_buffer("scales", torch.stack((scale, offset), dim=-1).transpose(0, 1).contiguous())

    def _apply(self, *arguments: Any, **options: Any) -> Int4:
        """Whatever number format the network moves to, the kernel knows this one."""
        super()._apply(*arguments, **options)
        self.scales = self.scales.bfloat16()
        return self

    @property
    def weight(self) -> Tensor:
        """(O, I) float32: what an identity becomes."""
        return self._product(torch.eye(self.in_features, dtype=torch.bfloat16)).T.float()

    def forward(self, inputs: Tensor) -> Tensor:
        """(..., I) to (..., O)."""
        made = self._product(inputs.reshape(-1, self.in_features).bfloat16()).to(inputs.dtype)
        made = made if self.bias is None else made + self.bias
        return made.view(*inputs.shape[:-1], -1)

    def _product(self, rows: Tensor) -> Tensor:
        made: Tensor = torch.ops.aten._weight_int4pack_mm_for_cpu(rows, self.packed, GROUP, self.scales)
        return made


def fits(weight: Tensor, bits: Bits) -> bool:
    """Whether a layer of this shape can have so few bits; another stays as it is."""
    return bits == "int8" or (len(weight) % 16 == 0 and weight.shape[1] % GROUP == 0)


@torch.no_grad()
def compact(network: LanguageModel, bits: Bits) -> LanguageModel:
    """The same network with compact linear layers, changed in place; a tied head becomes a layer of its own.

    Raises:
        BothwaysError: unknown bits, a network elsewhere than on the CPU, or a PyTorch that has no kernels for them.
    """
    if bits not in BITS:
        raise BothwaysError(f"weights is '{bits}', but fewer bits are {' or '.join(BITS)}")
    if network.embedding.weight.device.type != "cpu":
        raise BothwaysError(f"{bits} weights are read by kernels of the CPU: leave `device` or `weights` out")
    needed = "_weight_int8pack_mm" if bits == "int8" else "_weight_int4pack_mm_for_cpu"
    if not hasattr(torch.ops.aten, needed):
        raise BothwaysError(f"PyTorch {torch.__version__} has no products with {bits} weights here: choose others")
    made = Int8 if bits == "int8" else Int4
    whole(network, "made compact again")
    # 1. the towers, and what stands before the head
    for name, parent in list(network.named_modules()):
        if name.startswith("companions"):
            continue
        for child, layer in list(parent.named_children()):
            if isinstance(layer, nn.Linear) and child != "kv_open" and fits(layer.weight, bits):
                setattr(parent, child, made(layer.weight, layer.bias))
    # 2. a head that the embedding was
    if network.head is None and network.config.head.scores and fits(network.embedding.weight, bits):
        network.head = made(network.embedding.weight, None)
    return network.requires_grad_(False).eval()


def read_as(weights: str | None, dtype: torch.dtype | None) -> tuple[torch.dtype | None, Bits | None]:
    """The number format and the bits that a way to load weights stands for: float32, bfloat16, int8 or int4.

    Raises:
        BothwaysError: another way; a number format beside one; bfloat16 where the processor computes it slowly.
    """
    if weights is None or weights in BITS:
        return dtype, next((bits for bits in BITS if bits == weights), None)
    if weights not in ("float32", "bfloat16"):
        raise BothwaysError(f"weights is '{weights}', but is float32, bfloat16, {' or '.join(BITS)}")
    if dtype is not None:
        raise BothwaysError(f"weights '{weights}' and dtype {dtype} both say the number format: give one of them")
    questions = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    known = platform.machine() not in ("x86_64", "AMD64") or any(getattr(torch.cpu, one, bool)() for one in questions)
    if weights == "bfloat16" and not known:
        raise BothwaysError("this processor has no instructions for bfloat16, so that it would be slower: leave "
                            "`weights` out (dtype=torch.bfloat16 insists)")
    return getattr(torch, weights), None


def bits_of(network: nn.Module) -> Bits | None:
    """Of how many bits its linear layers are; none where they are whole."""
    return next((part.bits for part in network.modules() if isinstance(part, Compact)), None)


def whole(network: nn.Module, what: str) -> None:
    """Refuse a compact network where its weights themselves are needed.

    Args:
        what: what cannot be done with it, to follow "cannot be".
    Raises:
        BothwaysError: it is compact.
    """
    bits = bits_of(network)
    if bits is not None:
        raise BothwaysError(f"this network has {bits} weights, which only approximate its own, and cannot be {what}: "
                            "load the model without them (leave `weights` out)")
