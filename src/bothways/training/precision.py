"""Which number format and device a run computes with: found at run time and reported, never assumed."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from bothways.errors import BothwaysError


@dataclass(frozen=True)
class Found:
    """Where and in what a run computes, and why, for the console and environment.json."""

    device: torch.device
    dtype: torch.dtype
    reason: str

    def __str__(self) -> str:
        return f"{str(self.dtype).removeprefix('torch.')} on {self.device} ({self.reason})"


def find(precision: str = "auto", device: str = "auto") -> Found:
    """The device and number format for these wishes.

    Raises:
        BothwaysError: a device that torch does not know or this machine does not have.
    """
    place = _device(device)
    if precision != "auto":
        return Found(place, {"float32": torch.float32, "bfloat16": torch.bfloat16}[precision], "as asked")
    fast, reason = _bfloat16(place)
    return Found(place, torch.bfloat16 if fast else torch.float32, reason)


def _device(device: str) -> torch.device:
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        place = torch.device(device)
    except RuntimeError as error:
        raise BothwaysError(f"device '{device}' is none that torch knows: write 'auto', 'cpu' or 'cuda'") from error
    if place.type == "cuda" and not torch.cuda.is_available():
        raise BothwaysError(f"device is '{device}', but torch finds no accelerator here: write 'cpu' or 'auto'")
    return place


def _bfloat16(place: torch.device) -> tuple[bool, str]:
    """Whether the device multiplies bfloat16 in hardware, and how we know."""
    if place.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
        return fast, f"the accelerator has {'' if fast else 'no '}bfloat16"
    if place.type == "cpu":
        # The questions are private names in torch: where one is missing, the answer is taken to be no.
        for name, question in (("amx_bf16", "_is_amx_tile_supported"), ("avx512_bf16", "_is_avx512_bf16_supported")):
            ask = getattr(torch.cpu, question, None)
            if ask is not None and ask():
                return True, f"the processor has {name}"
        return False, "the processor has no bfloat16"
    return False, "bfloat16 is not looked for on this device"
