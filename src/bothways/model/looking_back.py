"""Renders visibilities between the tokens of one call and those that a cache keeps, laid out by document."""

from __future__ import annotations

import torch
from torch import Tensor

from bothways.errors import BothwaysError
from bothways.model.render import Call, Plan, Side, segments_of, simplify
from bothways.visibility import AllOf, Causal, Fields, SameBlock, SameDocument, Visibility, Window


class CachedPlanner:
    """Plans of one call.

    Args:
        queries: fields (N,) of the new tokens.
        rows: (B, n) which query row is in which slot, -1 for none.
        keys: fields (B, L) of all that is looked at.
        real: (B, L) bool, the slots that hold a token; none if all do.
        device: where grids go.
        in_order: indexes are slots: key k of every document has index k.
        newest: every document brings one token, which lies behind all its others.
        hidden: (B, 1, 1, L) 0 at real slots and -inf elsewhere, where somebody has it ready.
    """

    def __init__(self, queries: Fields, rows: Tensor, keys: Fields, real: Tensor | None, device: torch.device,
                 in_order: bool = False, newest: bool = False, hidden: Tensor | None = None) -> None:
        self.rows, self.keys, self.real, self.device = rows, keys, real, device
        self.in_order, self.newest, self.hidden = in_order, newest, hidden
        if newest:
            # a token a document, in order: rows are slots
            self.inside = {name: fact.unsqueeze(1) for name, fact in queries.items()}
            self.side, self.full = Side(), True
        else:
            self.inside = {name: fact[rows.clamp(min=0)] for name, fact in queries.items()} if rows.numel() else {}
            self.side, self.full = _side(rows, device), bool((rows >= 0).all())
        self._plans: dict[Visibility, Plan] = {}

    def only(self, rows: Tensor) -> CachedPlanner:
        """A step answers for all its tokens."""
        raise BothwaysError("with a cache the network answers for every new token: leave `only_asked` out")

    def plan(self, visibility: Visibility) -> Plan:
        """The plan of this value for this call."""
        if visibility not in self._plans:
            call = self._call(visibility)
            self._plans[visibility] = Plan(visibility, self.side, Side(), () if call is None else (call,),
                                           self.rows.numel(), 0)
        return self._plans[visibility]

    def _call(self, visibility: Visibility) -> Call | None:
        longest = next(iter(self.keys.values())).shape[-1] if self.keys else 0
        if not longest or not self.rows.numel():
            return None
        parts = visibility.conjuncts() - {SameDocument()}
        even = self.real is None and self.full
        # 1. where indexes are places, the newest token has nothing ahead, and nobody needs keys from before a window
        start = 0
        if self.in_order and parts:
            if self.newest:
                parts -= {Causal()}
            reaches = [part for part in parts if (isinstance(part, Window) and part.left is not None)
                       or (isinstance(part, SameBlock) and part.size is not None)]
            if reaches:
                earliest = int(self.inside["index"].min())
                start = max(0, *(_from(part, earliest) for part in reaches))
                if self.newest and even:
                    parts -= frozenset(reaches)
        left: Visibility | bool = AllOf(parts) if parts else True
        keys = {name: fact[:, start:] for name, fact in self.keys.items()} if start else self.keys
        # 2. what is left to check, and a grid where something is
        if even and not isinstance(left, bool):
            left = simplify(left, self.inside, keys)
        if left is False:
            return None
        grid, blind, rendered = None, False, {}
        if left is not True or self.real is not None:
            shown = None if self.real is None else self.real[:, start:].unsqueeze(-2)
            if left is not True:
                # spare queries see everything, so that their softmax is a number: what they read is thrown away
                seen = left.allows(self.inside, keys)
                grid = (seen if shown is None else seen & shown) | (self.rows < 0).unsqueeze(-1)
            else:
                grid = shown
                if self.hidden is not None:
                    rendered = {self.hidden.dtype: self.hidden[..., start:]}
            assert grid is not None
            blind = not (self.newest and left is True) and not bool(grid.any(dim=-1).all())
            grid = grid.to(self.device)
        segments = segments_of(self.inside, keys)
        return Call(len(self.rows), self.rows.shape[1], longest - start, 0, start, False, grid, blind,
                    self.inside["position"], keys["position"], rendered, query_segments=segments[0],
                    key_segments=segments[1])


def _from(part: Visibility, earliest: int) -> int:
    """The first index that a token at `earliest` may see."""
    if isinstance(part, Window):
        return earliest - (part.left or 0)
    assert isinstance(part, SameBlock) and part.size is not None
    return earliest // part.size * part.size


def _side(rows: Tensor, device: torch.device) -> Side:
    """Where the rows lie in the slots; nothing to say if slots are rows."""
    slots = rows.flatten()
    if torch.equal(slots, torch.arange(len(slots))):
        return Side()
    real = slots >= 0
    back = torch.empty(int(real.sum()), dtype=torch.long)
    back[slots[real]] = real.nonzero().flatten()
    return Side(slots.clamp(min=0).to(device), back.to(device), (~real).nonzero().flatten().to(device))
