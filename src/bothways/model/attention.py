"""Attention over planned rows: one entry, the cheapest exact kernel, and the dense reference all are tested against."""

from __future__ import annotations

import functools
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from bothways.model import explicit, flex
from bothways.model.explicit import Turn, back, slots_of
from bothways.model.position import rotate
from bothways.model.render import Call, Plan, Side
from bothways.model.terms import Term
from bothways.visibility import Visibility

SHORT = 1024
"""Rows of fewer keys attend by our own products on the CPU; longer ones would write out too many scores."""

FEW = 16
"""Up to so many queries of a document look at what a cache keeps by our own products."""

Kernel = Literal["dense", "explicit", "fused", "flex"]


class Scoring(NamedTuple):
    """How a score is made of a query and a key: cap(scale * q . k + terms), and what falls out of the weights.

    heads: query heads.
    scale: factor of the product.
    terms: what places (and contents with places) add.
    soft_cap: scores become cap * tanh(scores / cap) when set (Gemma 2, arXiv 2408.00118).
    dropout: share of the attention weights dropped (0 outside training).
    """

    heads: int
    scale: float
    terms: tuple[Term, ...] = ()
    soft_cap: float | None = None
    dropout: float = 0.0


class Kept(NamedTuple):
    """Keys and values a cache keeps, laid out by document and head: (B, K, capacity, D) each."""

    keys: Tensor
    values: Tensor


class Grid(Plan):
    """A plan that writes every score out, for rows of one length each: what an exported graph does.

    Sizes may be symbols there, so nothing is chosen by them.

    Args:
        visibility: who may see whom.
        seen: (B, Lq, Lk) bool, the same of these tokens.
        places: (B, Lq) and (B, Lk), where queries and keys stand.
    """

    def __init__(self, visibility: Visibility, seen: Tensor, places: tuple[Tensor, Tensor]) -> None:
        super().__init__(visibility, Side(), Side(), (), 0, 0)
        self.seen, self.places = seen, places

    def look(self, queries: Tensor, others: Tensor | Kept | None, scoring: Scoring, turn: Turn | None) -> Tensor:
        """As `attend`."""
        batch = self.seen.shape[0]  # len() would make a symbol a number
        keys, values = None, None
        if others is None:
            shared = (queries.shape[1] - scoring.heads) // 2
            queries, keys, values = queries.split([scoring.heads, shared, shared], dim=1)
            if turn is not None:
                queries, keys = rotate(queries, turn), rotate(keys, turn)
        elif not isinstance(others, Kept):
            keys, values = others.chunk(2, dim=1)
        asking = _by_row(queries, batch)
        told = others if isinstance(others, Kept) else Kept(_by_row(keys, batch), _by_row(values, batch))
        call = _Told(*self.places)
        parts = [part for term in scoring.terms if (part := term(asking, told.keys, call)) is not None]  # type: ignore[arg-type]
        bias = functools.reduce(torch.add, parts) if parts else None
        read = dense(asking, told.keys, told.values, self.seen, scoring.scale, bias, scoring.soft_cap)
        return read.transpose(1, 2).flatten(0, 1)


class _Told:
    """What score terms ask of a call, where nothing is known of the places before a graph runs."""

    apart = None
    query_segments = key_segments = None

    def __init__(self, queries: Tensor, keys: Tensor) -> None:
        self.query_places, self.key_places = queries, keys
        self.terms: dict[object, Tensor] = {}


def _by_row(rows: Tensor | None, batch: int) -> Tensor:
    """(B L, H, D) as (B, H, L, D)."""
    assert rows is not None
    return rows.unflatten(0, (batch, -1)).transpose(1, 2)


def attend(queries: Tensor, others: Tensor | Kept | None, plan: Plan, scoring: Scoring, turn: Turn | None = None,
           kernel: Kernel | None = None) -> Tensor:
    """What each query reads: values averaged by its scores over the keys it may see.

    Args:
        queries: (N, H, D) rows; with no `others` (N, H + 2 K, D), the same tokens' keys and values behind the queries.
            Each key head serves H / K query heads.
        others: (M, 2 K, D) rows of other tokens, keys before values; or what a cache kept.
        plan: who may see whom, rendered for exactly these rows.
        scoring: scale, score terms, dropout.
        turn: cosine and sine (N, 1, D / 2) that turn queries and keys of the same tokens.
        kernel: insists on one of them; by default the cheapest that is exact.
    Returns:
        (N, H, D); zeros for a query that sees nothing.
    """
    if isinstance(plan, Grid):
        return plan.look(queries, others, scoring, turn)
    if not plan.calls:
        return torch.zeros_like(queries[:, :scoring.heads])
    kernel = kernel or choose(queries, plan, scoring, isinstance(others, Kept))
    biases = added(queries, others, plan, scoring)
    if kernel == "explicit" and not isinstance(others, Kept):
        return explicit.look(queries, others, scoring.heads, plan, scoring.scale, scoring.dropout, turn, biases)
    # the other kernels take queries, keys and values apart
    if others is None:
        shared = (queries.shape[1] - scoring.heads) // 2
        queries, keys, values = queries.split([scoring.heads, shared, shared], dim=1)
        if turn is not None:
            queries, keys = rotate(queries, turn), rotate(keys, turn)
    elif isinstance(others, Kept):
        keys, values = others
    else:
        keys, values = others.chunk(2, dim=1)
    if kernel == "flex":
        return flex.look(queries, keys, values, plan, scoring.scale)
    asking = slots_of(queries, plan.queries)
    if not isinstance(others, Kept):
        keys, values = slots_of(keys, plan.keys), slots_of(values, plan.keys)
    # every call by itself
    parts = []
    for i, call in enumerate(plan.calls):
        bias = biases[i] if biases else None
        parts.append(_one_call(kernel, call, _cut(asking, call.first_query, call.batch, call.queries),
                               _cut(keys, call.first_key, call.batch, call.keys),
                               _cut(values, call.first_key, call.batch, call.keys), bias, scoring))
    return back(_joined(parts, plan, asking), plan.queries)


def added(queries: Tensor, others: Tensor | Kept | None, plan: Plan, scoring: Scoring) -> tuple[Tensor, ...]:
    """What the terms add to the scores of each call, (B or 1, H, Lq, Lk); nothing at all without terms.

    Arguments as for `attend`. Terms see queries and keys that are not turned: a tower has one or the other.
    """
    if not scoring.terms:
        return ()
    asking = slots_of(queries[:, :scoring.heads], plan.queries)
    if isinstance(others, Kept):
        keys = others.keys
    else:
        told = queries[:, scoring.heads:] if others is None else others
        keys = slots_of(told[:, :told.shape[1] // 2], plan.keys)
    sums = []
    for call in plan.calls:
        sides = (_cut(asking, call.first_query, call.batch, call.queries),
                 _cut(keys, call.first_key, call.batch, call.keys))
        parts = [part for term in scoring.terms if (part := term(*sides, call)) is not None]
        sums.append(functools.reduce(torch.add, parts))
    return tuple(sums)


def choose(queries: Tensor, plan: Plan, scoring: Scoring, cached: bool) -> Kernel:
    """The cheapest exact kernel for these rows on their device."""
    if scoring.soft_cap is not None:
        return "dense"
    if queries.device.type == "cpu":
        longest = max(call.keys for call in plan.calls)
        if cached:
            few = max(call.queries for call in plan.calls) <= FEW and not torch.is_grad_enabled()
            return "explicit" if few else "fused"
        return "explicit" if longest < SHORT else "fused"
    if flex.fits(queries, plan, bool(scoring.terms) or scoring.dropout > 0 or cached):
        return "flex"
    return "fused"


def _cut(slots: Tensor, first: int, batch: int, length: int) -> Tensor:
    """The slots of one call as (B, heads, L, D); a cache's are laid out already."""
    if slots.dim() == 4:
        return slots[:, :, first:first + length]
    return slots[first:first + batch * length].unflatten(0, (batch, length)).transpose(1, 2)


def _one_call(kernel: Kernel, call: Call, queries: Tensor, keys: Tensor, values: Tensor, bias: Tensor | None,
              scoring: Scoring) -> Tensor:
    """(B, H, Lq, D) of one call, by the kernel's name."""
    if kernel == "dense":
        return dense(queries, keys, values, call.seen(queries.device), scoring.scale, bias, scoring.soft_cap,
                     scoring.dropout)
    if kernel == "explicit":
        return few_queries(queries, keys, values, call, scoring.scale, bias)
    return fused(queries, keys, values, call, scoring.scale, bias, scoring.dropout)


def _joined(parts: list[Tensor], plan: Plan, asking: Tensor) -> Tensor:
    """Calls' results (B, H, Lq, D) as slots (M, H, D), zeros where no call is."""
    slots = [part.transpose(1, 2).flatten(0, 1) for part in parts]
    if plan.whole:
        return slots[0] if len(slots) == 1 else torch.cat(slots)
    read, end = [], 0
    for call, part in zip(plan.calls, slots, strict=True):
        read += [part.new_zeros(call.first_query - end, *part.shape[1:]), part]
        end = call.first_query + len(part)
    return torch.cat([*read, asking.new_zeros(plan.query_slots - end, *asking.shape[1:])])


def fused(queries: Tensor, keys: Tensor, values: Tensor, call: Call, scale: float, bias: Tensor | None = None,
          dropout: float = 0.0) -> Tensor:
    """The library's fused attention: nothing of size Lq x Lk is kept. Shapes as in `dense`.

    Its causal flag is used only where the planner says that queries and keys are the same tokens in order.
    """
    allowed = None if call.grid is None else call.grid.unsqueeze(1)
    flag = call.causal and bias is None
    if bias is not None:
        hidden = call.additive(bias.dtype, bias.device)
        allowed = bias if hidden is None else bias + hidden
    read = F.scaled_dot_product_attention(queries, keys, values, allowed, dropout, flag, scale=scale,
                                          enable_gqa=queries.shape[1] != keys.shape[1])
    if call.blind:
        assert call.grid is not None
        read = read.masked_fill(~call.grid.any(dim=-1)[:, None, :, None], 0.0)
    return read


def few_queries(queries: Tensor, keys: Tensor, values: Tensor, call: Call, scale: float, bias: Tensor | None = None
                ) -> Tensor:
    """Batched products for a few queries over many kept keys, which are never copied. Shapes as in `dense`."""
    batch, heads, n_queries, size = queries.shape
    shared = keys.shape[1]
    folded = queries.reshape(batch * shared, heads // shared * n_queries, size)
    scores = torch.bmm(folded * scale, keys.flatten(0, 1).transpose(1, 2))
    grid = scores.view(batch, heads, n_queries, -1)
    if bias is not None:
        grid += bias
    hidden = call.additive(grid.dtype, grid.device)
    if hidden is not None:
        grid += hidden
    weights = torch.softmax(scores, dim=-1)
    if call.blind:
        assert call.grid is not None
        weights.view_as(grid).masked_fill_(~call.grid.any(dim=-1)[:, None, :, None], 0.0)
    return torch.bmm(weights, values.flatten(0, 1)).view(batch, heads, n_queries, size)


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
        # a row of -inf alone has no softmax: it gets any, and reads nothing in the end
        blind = ~seen.any(dim=-1, keepdim=True).unsqueeze(1)
        scores = scores.masked_fill(~(seen.unsqueeze(1) | blind), float("-inf"))
    weights = scores.softmax(dim=-1, dtype=torch.promote_types(scores.dtype, torch.float32)).to(values.dtype)
    if seen is not None:
        weights = weights.masked_fill(blind, 0.0)
    return F.dropout(weights, dropout) @ values
