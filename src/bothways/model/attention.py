"""Attention over planned rows: one entry, the kernel chosen per call, and the dense reference all are tested against."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from bothways.model.position import RelativeBias
from bothways.model.render import Call, Plan, Side


class Scoring(NamedTuple):
    """How a score is made of a query and a key: cap(scale * q . k + bias), and what falls out of the weights.

    scale: factor of the product.
    bias: the tower's term by relative place, or none.
    soft_cap: scores become cap * tanh(scores / cap) when set (Gemma 2, arXiv 2408.00118).
    dropout: share of the attention weights dropped (0 outside training).
    """

    scale: float
    bias: RelativeBias | None = None
    soft_cap: float | None = None
    dropout: float = 0.0


def attend(queries: Tensor, keys: Tensor, values: Tensor, plan: Plan, scoring: Scoring) -> Tensor:
    """What each query reads: values averaged by its scores over the keys it may see.

    Args:
        queries: (N, H, D) rows.
        keys, values: (M, K, D) rows, or (B, K, L, D) laid out by document in a cache; H / K query heads share one.
        plan: who may see whom, rendered for exactly these rows.
        scoring: scale, score terms, dropout.
    Returns:
        (N, H, D); zeros for a query that sees nothing.
    """
    slots = lay(queries, plan.queries), lay(keys, plan.keys), lay(values, plan.keys)
    read = torch.zeros_like(slots[0]) if not plan.whole else None
    parts = []
    for call in plan.calls:
        query, key, value = cut(call, *slots)
        bias = None if scoring.bias is None else scoring.bias(call.query_places, call.key_places)
        part = dense(query, key, value, call.seen(query.device), scoring.scale, bias, scoring.soft_cap,
                     scoring.dropout).transpose(1, 2).flatten(0, 1)
        parts.append(part)
        if read is not None:
            read = read.index_copy(0, torch.arange(call.first_query, call.first_query + len(part),
                                                   device=part.device), part)
    read = read if read is not None else torch.cat(parts)
    return read if plan.queries.back is None else read.index_select(0, plan.queries.back)


def lay(rows: Tensor, side: Side) -> Tensor:
    """Rows into slots (a cache lays its own)."""
    return rows if side.take is None or rows.dim() == 4 else rows.index_select(0, side.take)


def cut(call: Call, queries: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The slots of one call as (batch, heads, length, D) views."""
    def part(slots: Tensor, first: int, length: int) -> Tensor:
        if slots.dim() == 4:
            return slots[:, :, first:first + length]
        return slots[first:first + call.batch * length].unflatten(0, (call.batch, length)).transpose(1, 2)
    return (part(queries, call.first_query, call.queries), part(keys, call.first_key, call.keys),
            part(values, call.first_key, call.keys))


def dense(queries: Tensor, keys: Tensor, values: Tensor, seen: Tensor | None, scale: float, bias: Tensor | None = None,
          soft_cap: float | None = None, dropout: float = 0.0) -> Tensor:
    """The reference: every score is written out. Statistics of the softmax are in float32 at least.

    Args:
        queries: (B, H, Lq, D).
        keys, values: (B, K, Lk, D).
        seen: (B or 1, Lq or 1, Lk) bool, or none if everything is seen.
        bias: (B or 1, H, Lq, Lk) added to the scores.
    Returns:
        (B, H, Lq, D), zeros for queries that see nothing.
    """
    shared = queries.shape[1] // keys.shape[1]
    keys, values = keys.repeat_interleave(shared, dim=1), values.repeat_interleave(shared, dim=1)
    scores = scale * (queries @ keys.transpose(-2, -1))
    scores = scores if bias is None else scores + bias
    scores = scores if soft_cap is None else soft_cap * torch.tanh(scores / soft_cap)
    if seen is not None:
        scores = scores.masked_fill(~seen.unsqueeze(1), float("-inf"))
    statistics = torch.promote_types(scores.dtype, torch.float32)
    weights = scores.softmax(dim=-1, dtype=statistics).to(values.dtype)
    if seen is not None:
        # a row of -inf alone has no softmax: it reads nothing
        weights = weights.masked_fill(~seen.any(dim=-1)[:, None, :, None], 0.0)
    return F.dropout(weights, dropout) @ values
