"""Attention written out as batched products with their own backward, for short rows on the CPU.

The library's fused attention is several times slower there (its backward most of all): scores of short rows fit the
cache, so there is nothing to save by never writing them. One autograd node covers a whole layer: turning by
place, laying rows out by head, every call of the plan, and the way back into one gradient for the fused projection.

Layouts: K key heads, G query heads to each, B documents, L tokens, D numbers a head. Queries are (K, B, G, Lq, D), keys
and values (K, B, Lk, D): the group folds into the query rows, so grouped-query attention costs no copy of keys.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from bothways.model.dropout import growth, kept
from bothways.model.render import Call, Plan, Side

Turn = tuple[Tensor, Tensor]
"""Cosine and sine, (N, 1, D / 2) each: the angle of each row's token."""


class Weights(NamedTuple):
    """What one call keeps for its backward: the softmax, and which of its numbers dropout kept (1 or 0), or none."""

    softmax: Tensor
    kept: Tensor | None


def look(queries: Tensor, pairs: Tensor | None, heads: int, plan: Plan, scale: float, dropout: float = 0.0,
         turn: Turn | None = None, biases: tuple[Tensor, ...] = ()) -> Tensor:
    """Attention over planned rows.

    Args:
        queries: (N, H, D), or (N, H + 2 K, D) holding the keys and values of the same tokens behind the queries.
        pairs: (M, 2 K, D) keys, then values, of other tokens; none for the same.
        heads: H.
        turn: turns queries and keys by their place first (same tokens only).
        biases: one (B or 1, H, Lq, Lk) for each call of the plan, added to its scores.
    Returns:
        (N, H, D), zeros for a query that sees nothing.
    """
    read: Tensor = _Look.apply(queries, pairs, heads, plan, scale, dropout, turn, *biases)
    return read


class _Look(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, queries: Tensor, pairs: Tensor | None, heads: int, plan: Plan, scale: float, dropout: float,
                turn: Turn | None, *biases: Tensor) -> Tensor:
        """What every call reads, laid back into the row: (N, heads, width) as `plan.queries` orders it."""
        asking, told = slots_of(queries, plan.queries), None if pairs is None else slots_of(pairs, plan.keys)
        turning = None if turn is None else (slots_of(turn[0], plan.queries), slots_of(turn[1], plan.queries))
        shared = (queries.shape[1] - heads if told is None else told.shape[1]) // 2
        size = len(asking), heads, queries.shape[-1]
        read = queries.new_empty(size) if plan.whole else queries.new_zeros(size)
        saved: list[Tensor | None] = []
        for i, call in enumerate(plan.calls):
            q, k, v = laid_out(asking, told, heads, shared, call, turning)
            out, weights = forward(q, k, v, call, scale, dropout, biases[i] if biases else None)
            cells(read, call.first_query, call.batch, shared, call.queries).copy_(out.permute(1, 3, 0, 2, 4))
            saved += [q, k, v, *weights]
        ctx.save_for_backward(*saved, *(turning or ()))
        ctx.plan, ctx.heads, ctx.shared, ctx.turned = plan, heads, shared, turning is not None
        ctx.scale, ctx.dropout = scale, dropout
        ctx.shapes = queries.shape, None if pairs is None else pairs.shape
        ctx.biases = [tuple(bias.shape) for bias in biases]
        return back(read, plan.queries)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of queries, pairs and biases, call by call, from the weights that were kept."""
        plan, heads, shared = ctx.plan, ctx.heads, ctx.shared
        saved = ctx.saved_tensors
        turning = saved[-2:] if ctx.turned else None
        asked, told_shape = ctx.shapes
        grad = slots_of(grad, plan.queries, spare=0.0)
        # 1. gradients of the slots: each call fills its own
        asking = _canvas(grad, plan, plan.query_slots, asked)
        told = asking[:, heads:] if told_shape is None else _canvas(grad, plan, plan.key_slots, told_shape)
        bias_grads: list[Tensor | None] = []
        for i, call in enumerate(plan.calls):
            q, k, v, softmax, thinned = saved[5 * i:5 * i + 5]
            out = torch.empty_like(q)
            out.permute(1, 3, 0, 2, 4).copy_(cells(grad, call.first_query, call.batch, shared, call.queries))
            dq, dk, dv, ds = backward(q, k, v, Weights(softmax, thinned), out, ctx.scale, ctx.dropout)
            angle = None if turning is None else (_angle(turning[0], call), _angle(turning[1], call))
            for target, part, turned in ((told[:, :shared], dk, angle), (told[:, shared:], dv, None)):
                _write(cells(target, call.first_key, call.batch, shared, call.keys),
                       part.permute(1, 2, 0, 3).unsqueeze(3), turned)
            _write(cells(asking[:, :heads], call.first_query, call.batch, shared, call.queries),
                   dq.permute(1, 3, 0, 2, 4), angle)
            if ctx.biases:
                bias_grads.append(_bias_grad(ds, call, ctx.biases[i]) if ctx.needs_input_grad[7 + i] else None)
        # 2. slots back to rows
        told_grad = None if told_shape is None else back(told, plan.keys)
        return back(asking, plan.queries), told_grad, None, None, None, None, None, *bias_grads


def forward(q: Tensor, k: Tensor, v: Tensor, call: Call, scale: float, dropout: float, bias: Tensor | None
            ) -> tuple[Tensor, Weights]:
    """One call: softmax(scale q k' + bias + visibility) v, in the layouts of this module."""
    keys, batch, group, n_queries, size = q.shape
    n_keys = k.shape[2]
    # 1. scores
    folded = q.flatten(2, 3).flatten(0, 1)
    scores = q.new_empty(keys * batch, group * n_queries, n_keys)
    torch.baddbmm(scores, folded, k.flatten(0, 1).transpose(1, 2), beta=0, alpha=scale, out=scores)
    grid = scores.view(keys, batch, group, n_queries, n_keys)
    if bias is not None:
        grid += bias.unflatten(1, (keys, group)).transpose(0, 1)
    hidden = call.additive(q.dtype, q.device)
    if hidden is not None:
        grid += hidden
    # 2. weights; a query that sees nothing has no softmax and reads zeros
    softmax = torch.softmax(scores, dim=-1)
    if call.blind:
        assert call.grid is not None
        softmax.view_as(grid).masked_fill_(~call.grid.any(dim=-1)[:, None, :, None], 0.0)
    chosen = kept(softmax, dropout) if dropout > 0 else None
    # 3. values
    read = torch.empty_like(folded)
    torch.baddbmm(read, softmax if chosen is None else softmax * chosen, v.flatten(0, 1), beta=0,
                  alpha=growth(dropout), out=read)
    return read.view(keys, batch, group, n_queries, size), Weights(softmax, chosen)


def backward(q: Tensor, k: Tensor, v: Tensor, weights: Weights, grad: Tensor, scale: float, dropout: float
             ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of queries, keys, values and scores (before the scale) of one call."""
    softmax, chosen = weights
    folded, grad_folded = q.flatten(2, 3).flatten(0, 1), grad.flatten(2, 3).flatten(0, 1)
    keys, values = k.flatten(0, 1), v.flatten(0, 1)
    # 1. values, and the weights they were averaged with
    dv, dp = torch.empty_like(values), torch.empty_like(softmax)
    used, alpha = softmax if chosen is None else softmax * chosen, growth(dropout)
    torch.baddbmm(dv, used.transpose(1, 2), grad_folded, beta=0, alpha=alpha, out=dv)
    torch.baddbmm(dp, grad_folded, values.transpose(1, 2), beta=0, alpha=alpha, out=dp)
    dp = dp if chosen is None else dp.mul_(chosen)
    # 2. through the softmax, then to both sides of the product
    ds = torch._softmax_backward_data(dp, softmax, -1, softmax.dtype)
    dq, dk = torch.empty_like(folded), torch.empty_like(keys)
    torch.baddbmm(dq, ds, keys, beta=0, alpha=scale, out=dq)
    torch.baddbmm(dk, ds.transpose(1, 2), folded, beta=0, alpha=scale, out=dk)
    return dq.view_as(q), dk.view_as(k), dv.view_as(v), ds


def laid_out(asking: Tensor, told: Tensor | None, heads: int, shared: int, call: Call, turning: Turn | None
             ) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values of one call from slots, turned by place, by head."""
    told = asking[:, heads:] if told is None else told
    angle = None if turning is None else (_angle(turning[0], call), _angle(turning[1], call))
    group = heads // shared
    size = asking.shape[-1]
    q = asking.new_empty(shared, call.batch, group, call.queries, size)
    k, v = asking.new_empty(2, shared, call.batch, call.keys, size).unbind(0)
    _write(q.permute(1, 3, 0, 2, 4), cells(asking[:, :heads], call.first_query, call.batch, shared, call.queries),
           angle, back=False)
    for target, part, turned in ((k, told[:, :shared], angle), (v, told[:, shared:], None)):
        _write(target.permute(1, 2, 0, 3).unsqueeze(3), cells(part, call.first_key, call.batch, shared, call.keys),
               turned, back=False)
    return q, k, v


def cells(slots: Tensor, first: int, batch: int, shared: int, length: int) -> Tensor:
    """The slots (M, heads, D) of one call as a view (B, L, K, G, D)."""
    return slots[first:first + batch * length].unflatten(1, (shared, -1)).unflatten(0, (batch, length))


def _write(target: Tensor, source: Tensor, angle: Turn | None, back: bool = True) -> None:
    """Copy (B, L, K, G, D), turned by its angle, or turned back."""
    if angle is None:
        target.copy_(source)
        return
    cosine, sine = angle
    sign = -1 if back else 1
    (first, second), (one, two) = source.chunk(2, dim=-1), target.chunk(2, dim=-1)
    torch.mul(first, cosine, out=one).addcmul_(second, sine, value=-sign)
    torch.mul(second, cosine, out=two).addcmul_(first, sine, value=sign)


def _angle(table: Tensor, call: Call) -> Tensor:
    """The slots (M, 1, D / 2) of one call as (B, L, 1, 1, D / 2)."""
    return cells(table, call.first_query, call.batch, 1, call.queries)


def _bias_grad(ds: Tensor, call: Call, shape: tuple[int, ...]) -> Tensor:
    """Scores' gradient (K B, G Lq, Lk) as that of a bias (B or 1, H, Lq, Lk)."""
    batch, heads, n_queries, n_keys = shape
    shared = len(ds) // call.batch
    grid = ds.view(shared, call.batch, heads // shared, n_queries, n_keys).transpose(0, 1).flatten(1, 2)
    return grid if batch == call.batch else grid.sum(dim=0, keepdim=True)


def slots_of(rows: Tensor, side: Side, spare: float | None = None) -> Tensor:
    """Rows into slots; spare slots hold any row unless told what."""
    if side.take is None:
        return rows
    slots = rows.index_select(0, side.take)
    return slots if spare is None or side.spare is None else slots.index_fill_(0, side.spare, spare)


def back(slots: Tensor, side: Side) -> Tensor:
    """Slots into rows."""
    return slots if side.back is None else slots.index_select(0, side.back)


def _canvas(like: Tensor, plan: Plan, slots: int, shape: torch.Size) -> Tensor:
    """Room for gradients of slots: zeros where calls may leave some untouched."""
    size = slots, *shape[1:]
    covered = sum(call.batch * call.keys for call in plan.calls)
    return like.new_empty(size) if plan.whole and covered == plan.key_slots else like.new_zeros(size)
