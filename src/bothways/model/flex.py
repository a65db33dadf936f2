"""FlexAttention on accelerators: one kernel over a packed row that skips the blocks nobody may see."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from bothways.model.render import Plan
from bothways.visibility import Fields, Visibility


def fits(queries: Tensor, plan: Plan, more_than_scores: bool) -> bool:
    """Whether a block mask serves better than calls: on an accelerator, for ragged or gridded rows, plain scores."""
    ragged = len(plan.calls) > 1 or plan.form == "grid"
    return (queries.device.type == "cuda" and ragged and not more_than_scores and plan.fields is not None
            and queries.dtype in (torch.float16, torch.bfloat16, torch.float32))


def looks(visibility: Visibility, queries: Fields, keys: Fields) -> Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]:
    """The visibility as FlexAttention asks it: (batch, head, query row, key row) to a bool, by the rows' fields."""
    def may_see(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        looking = {name: queries[name][query].unsqueeze(-1) for name in visibility.needs}
        seen = {name: keys[name][key].unsqueeze(-1) for name in visibility.needs}
        return visibility.allows(looking, seen).squeeze(-1).squeeze(-1)
    return may_see


def block_mask(plan: Plan, device: torch.device) -> Any:
    """The plan's visibility as a block mask over its flat rows."""
    from torch.nn.attention.flex_attention import create_block_mask

    assert plan.fields is not None
    queries, keys = ({name: side[name].to(device) for name in plan.visibility.needs} for side in plan.fields)
    asking, told = (len(side["index"]) for side in plan.fields)
    return create_block_mask(looks(plan.visibility, queries, keys), None, None, asking, told, device=str(device))


def look(queries: Tensor, keys: Tensor, values: Tensor, plan: Plan, scale: float) -> Tensor:
    """(N, H, D) queries over (M, K, D) keys and values to (N, H, D); a plan's block mask is made once."""
    if plan.blocks is None:
        plan.blocks = block_mask(plan, queries.device)
    heads = [rows.transpose(0, 1).unsqueeze(0) for rows in (queries, keys, values)]
    read = _kernel(queries.device.type)(*heads, block_mask=plan.blocks, scale=scale,
                                        enable_gqa=queries.shape[1] != keys.shape[1])
    return read.squeeze(0).transpose(0, 1)


@functools.cache
def _kernel(device: str) -> Callable[..., Any]:
    from torch.nn.attention.flex_attention import flex_attention

    kernel: Callable[..., Any] = flex_attention
    return torch.compile(kernel, dynamic=True) if device == "cuda" else kernel
