"""8-bit weights with a scale for each block, as DeepSeek-V3 is published (arXiv 2412.19437, section 3.3.2)."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bothways.errors import BothwaysError
from bothways.families.stored import Stored
from bothways.families.weights import Weights

_SCALE = "_scale_inv"
_EIGHT = (torch.float8_e4m3fn, torch.float8_e5m2)
BLOCK = (128, 128)
"""Rows and columns of a block where the config says nothing."""


def plain(weights: Weights, stored: Mapping[str, Any], where: str) -> Weights:
    """The weights with every 8-bit one multiplied by its scales as it is read; the scales are no entries any more.

    `name_scale_inv` beside an 8-bit `name` (rows, columns) holds a factor for each block, a last one being smaller.

    Raises:
        BothwaysError: a kind of quantisation that is not read here, or scales whose shape does not fit their weight.
    """
    said = stored.get("quantization_config")
    said = said if isinstance(said, Mapping) else {}
    if (kind := said.get("quant_method", "fp8")) != "fp8":
        raise BothwaysError(f"{where} is quantised by '{kind}', which is not read here: ask for the weights as they "
                            "were before, or in fp8 with block scales")
    scaled = [name for name in weights.stored if name.endswith(_SCALE) and name.removesuffix(_SCALE) in weights.stored]
    if not scaled:
        return weights
    rows, columns = (int(size) for size in said.get("weight_block_size") or BLOCK)
    found = {name: entry for name, entry in weights.stored.items() if name not in scaled}
    for name in scaled:
        weight, scale = found[name.removesuffix(_SCALE)], weights.stored[name]
        wanted = tuple(-(-size // block) for size, block in zip(weight.shape, (rows, columns)))
        if len(weight.shape) != 2 or weight.dtype not in _EIGHT or scale.shape != wanted:
            raise BothwaysError(f"{weights.where}: {name} has shape {scale.shape}, but blocks of {rows} x {columns} of "
                                f"an 8-bit weight of shape {weight.shape} need {wanted}")
        found[name.removesuffix(_SCALE)] = replace(
            weight, dtype=torch.bfloat16, decode=functools.partial(_decoded, weight, scale, rows, columns))
    return Weights(found, weights.where)


def _decoded(weight: Stored, scale: Stored, rows: int, columns: int, raw: np.ndarray) -> Tensor:
    """Float32 numbers (rows, columns) of a weight's bytes: each times the factor of its block."""
    eight = torch.from_numpy(raw).view(weight.dtype).view(weight.shape).float()
    spread = scale.read().float().repeat_interleave(rows, 0).repeat_interleave(columns, 1)
    return eight * spread[:weight.shape[0], :weight.shape[1]]
