"""Networks without numbers in them, to be filled from files; and what such a network says of its own tensors."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from bothways.errors import BothwaysError
from bothways.model import LanguageModel, ModelConfig

_FIRST_NUMBERS = frozenset({"normal_", "uniform_", "kaiming_uniform_", "xavier_uniform_", "trunc_normal_", "fill_",
                            "zero_", "zeros_", "ones_", "constant_"})
"""What fills a new parameter."""


class _Unfilled(TorchFunctionMode):
    """New parameters are not filled. On the meta device there is nothing to fill, and the library would load its
    compiler for it, which takes seconds."""

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (),
                           kwargs: Mapping[str, Any] | None = None) -> Any:
        if getattr(func, "__name__", "") in _FIRST_NUMBERS:
            return args[0] if args else (kwargs or {})["tensor"]
        return func(*args, **(kwargs or {}))


def build(config: ModelConfig) -> LanguageModel:
    """A network whose parameters have shapes but no memory.

    Raises:
        BothwaysError: sizes beyond what a tensor can have.
    """
    try:
        with torch.device("meta"), _Unfilled():
            return LanguageModel(config)
    except (RuntimeError, OverflowError, MemoryError) as error:
        raise BothwaysError(f"a network of these sizes cannot be built ({error}): lower shape.width, shape.vocabulary "
                            "or whichever of them is a slip") from None


@functools.lru_cache(maxsize=64)
def shapes_of(config: ModelConfig) -> Mapping[str, torch.Size]:
    """The shape of each tensor of a network, by our names."""
    return {name: tensor.shape for name, tensor in build(config).state_dict().items()}
