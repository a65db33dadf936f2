"""The planner: a visibility and the fields of real tokens become the cheapest exact way to attend.

Nothing here touches states. A `Plan` says how flat rows of tokens are laid out for batched calls, and what each
call may skip: documents attend one by one (so no padding and no grid over the whole row exists), equal lengths
share one call, a causal flag stands for a triangle, and only what is left becomes a dense grid.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from bothways.sparse import Global
from bothways.visibility import (
    AllOf,
    AnyOf,
    Bidirectional,
    BlockCausal,
    Causal,
    Fields,
    FromPart,
    IntoPart,
    IntoPrefix,
    SameBlock,
    SameDocument,
    Valid,
    Visibility,
    Window,
    block_of,
    window,
)

CALL = 40_000
"""What one more batched call costs, in score elements: shorter documents are padded up rather than pay it."""


class Side(NamedTuple):
    """Where the rows of queries (or keys) lie in the slots of the batched calls.

    take: (M,) the row in each slot, or none when slots are the rows themselves.
    back: (N,) the slot of each row.
    spare: (P,) slots that only fill up a call.
    """

    take: Tensor | None = None
    back: Tensor | None = None
    spare: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Call:
    """One batched call: `batch` documents with `queries` query slots and `keys` key slots each.

    first_query, first_key: the slot where the call begins.
    causal: slot k sees slots up to k (queries and keys are then the same tokens).
    grid: (batch or 1, queries or 1, keys) bool, `True` where a query may see a key; none: everything, or `causal`.
    blind: some query of the grid may see nothing.
    query_places, key_places: the `position` field in each slot, (batch or 1, L) on the CPU, for score terms.
    query_segments, key_segments: likewise the `segment` field; none where everything is of one segment.
    """

    batch: int
    queries: int
    keys: int
    first_query: int = 0
    first_key: int = 0
    causal: bool = False
    grid: Tensor | None = None
    blind: bool = False
    query_places: Tensor = field(default_factory=lambda: torch.zeros(1, 1, dtype=torch.long))
    key_places: Tensor = field(default_factory=lambda: torch.zeros(1, 1, dtype=torch.long))
    _rendered: dict[torch.dtype, Tensor] = field(default_factory=dict)
    terms: dict[object, Tensor] = field(default_factory=dict)
    """Score terms that were made for these places, by who made them."""
    query_segments: Tensor | None = None
    key_segments: Tensor | None = None

    def seen(self, device: torch.device) -> Tensor | None:
        """(batch or 1, queries or 1, keys) bool, also where a flag stands for it; none if everything is seen."""
        return _triangle(self.queries, device) if self.causal else self.grid

    @functools.cached_property
    def apart(self) -> int | None:
        """How far the first query lies behind the first key, if places rise by one on both sides; else none."""
        for places in (self.query_places, self.key_places):
            if len(places) > 1 or not bool((places[:, 1:] - places[:, :-1] == 1).all()):
                return None
        return int(self.query_places[0, 0] - self.key_places[0, 0])

    def additive(self, dtype: torch.dtype, device: torch.device) -> Tensor | None:
        """0 where a query may see, -inf elsewhere: (batch or 1, 1, queries or 1, keys); none if everything is seen."""
        if self.causal:
            return _additive_triangle(self.queries, dtype, device)
        if self.grid is not None and dtype not in self._rendered:
            self._rendered[dtype] = _additive(self.grid, dtype)
        return self._rendered.get(dtype)


def _additive(seen: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill_(~seen, float("-inf")).unsqueeze(1)


@functools.lru_cache(maxsize=64)
def _triangle(length: int, device: torch.device) -> Tensor:
    return torch.ones(1, length, length, dtype=torch.bool, device=device).tril()


@functools.lru_cache(maxsize=64)
def _additive_triangle(length: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    return _additive(_triangle(length, device), dtype)


@dataclass(eq=False)
class Plan:
    """How to attend: `calls` over slots. Queries whose slots no call covers see nothing.

    `fields` are those of the rows, and `blocks` what an accelerator's kernel made of them, once it was asked.
    """

    visibility: Visibility
    queries: Side
    keys: Side
    calls: tuple[Call, ...]
    query_slots: int
    key_slots: int
    fields: tuple[Fields, Fields] | None = None
    blocks: object = None

    @property
    def form(self) -> str:
        """The rendering's name, for people: nothing, full, causal or grid."""
        if not self.calls:
            return "nothing"
        if any(call.grid is not None for call in self.calls):
            return "grid"
        return "causal" if any(call.causal for call in self.calls) else "full"

    @functools.cached_property
    def whole(self) -> bool:
        """Whether calls cover every slot of queries, so that results need no zeros beneath them."""
        covered = sum(call.batch * call.queries for call in self.calls)
        return bool(self.calls) and covered == self.query_slots


class Planner:
    """Renders visibilities over the tokens of one batch, each distinct value once."""

    def __init__(self, queries: Fields, keys: Fields | None, device: torch.device) -> None:
        """`keys` none: the tokens look at themselves."""
        self.queries, self.keys, self.device = queries, keys, device
        self._plans: dict[Visibility, Plan] = {}

    def only(self, rows: Tensor) -> Planner:
        """The planner of looks by these rows (R,) alone, at the same keys."""
        chosen = rows.cpu()
        keys = self.queries if self.keys is None else self.keys
        return Planner({name: fact[chosen] for name, fact in self.queries.items()}, keys, self.device)

    def plan(self, visibility: Visibility) -> Plan:
        """The plan of this value over this batch."""
        if visibility not in self._plans:
            self._plans[visibility] = render(visibility, self.queries, self.keys, self.device)
        return self._plans[visibility]


def simplify(visibility: Visibility, queries: Fields, keys: Fields) -> Visibility | bool:
    """What is left to check between these tokens: a smaller value, or True or False if it is decided for all pairs.

    Fields may have any shape; a decision holds for every query with every key.
    """
    match visibility:
        case Bidirectional():
            return True
        case Valid():
            return _all_or_none(keys["valid"] == 1, visibility)
        case IntoPrefix():
            return _all_or_none(keys["prefix"] == 1, visibility)
        case IntoPart(part):
            return _all_or_none(keys["part"] == part, visibility)
        case FromPart(part):
            return _all_or_none(queries["part"] == part, visibility)
        case Causal():
            return True if _empty(queries, keys) or keys["index"].max() <= queries["index"].min() else visibility
        case Window(left, right):
            if _empty(queries, keys):
                return True
            behind = int(queries["index"].max() - keys["index"].min())
            ahead = int(keys["index"].max() - queries["index"].min())
            fits = (left is None or behind <= left) and (right is None or ahead <= right)
            return True if fits else visibility
        case SameBlock(size) | BlockCausal(size):
            if _empty(queries, keys):
                return True
            looking, seen = block_of(queries, size), block_of(keys, size)
            before = bool(seen.max() <= looking.min())
            fits = before and (isinstance(visibility, BlockCausal) or bool(seen.min() >= looking.max()))
            return True if fits else visibility
        case Global():
            looking, seen = visibility.chosen(queries), visibility.chosen(keys)
            if bool(looking.all()) or bool(seen.all()):
                return True
            return visibility if bool(looking.any()) or bool(seen.any()) else False
        case AllOf(parts) | AnyOf(parts):
            decisive = isinstance(visibility, AnyOf)
            rest = [simplify(part, queries, keys) for part in _without_useless_reach(visibility, parts)]
            if decisive in rest:
                return decisive
            open_parts = frozenset(part for part in rest if not isinstance(part, bool))
            if not open_parts:
                return not decisive
            return next(iter(open_parts)) if len(open_parts) == 1 else type(visibility)(open_parts)
    return visibility


def _without_useless_reach(visibility: Visibility, parts: frozenset[Visibility]) -> frozenset[Visibility]:
    """Beside `causal`, how far a window reaches to the right decides nothing."""
    if not isinstance(visibility, AllOf) or Causal() not in parts:
        return parts
    return frozenset(window(part.left) if isinstance(part, Window) else part for part in parts)


def _empty(queries: Fields, keys: Fields) -> bool:
    return queries["index"].numel() == 0 or keys["index"].numel() == 0


def _all_or_none(seen: Tensor, visibility: Visibility) -> Visibility | bool:
    return True if bool(seen.all()) else visibility if bool(seen.any()) else False


class Span(NamedTuple):
    """A document's tokens in a flat row: `length` rows from `first`."""

    first: int
    length: int


def _paired(parts: frozenset[Visibility], queries: Fields, keys: Fields,
            themselves: bool) -> tuple[list[tuple[Span, Span]], frozenset[Visibility]]:
    """Groups of queries with the only keys they may see, and the parts of the visibility this leaves to check.

    Tokens of one document look at each other only, or those of one block of it; where a group lies scattered, a
    coarser one is taken, down to the whole row with itself.
    """
    dividing = [part for part in parts if isinstance(part, SameDocument | SameBlock)]
    documents = [part for part in dividing if isinstance(part, SameDocument)]
    for chosen in (dividing, documents):
        spans = _spans(queries, chosen) if chosen else None
        key_spans = spans if themselves or spans is None else _spans(keys, chosen)
        if spans is not None and key_spans is not None:
            return ([(span, key_spans[group]) for group, span in spans.items() if group in key_spans],
                    parts - frozenset(chosen))
        if dividing == documents:
            break
    rows = len(queries["index"]), len(keys["index"])
    return [(Span(0, rows[0]), Span(0, rows[1]))] if all(rows) else [], parts


def _spans(fields: Fields, dividing: Sequence[SameDocument | SameBlock]) -> dict[object, Span] | None:
    """Where each group of tokens that `dividing` keeps apart lies, by its name, or none if one is scattered."""
    facts = [block_of(fields, part.size) if isinstance(part, SameBlock) else fields["document"] for part in dividing]
    if len(facts) == 1:
        groups, lengths = torch.unique_consecutive(facts[0], return_counts=True)
        names = groups.tolist()
    else:
        groups, lengths = torch.unique_consecutive(torch.stack(facts), return_counts=True, dim=1)
        names = list(zip(*groups.tolist(), strict=True))
    spans: dict[object, Span] = {}
    first = 0
    for name, length in zip(names, lengths.tolist(), strict=True):
        spans[name] = Span(first, length)
        first += length
    return spans if len(spans) == len(lengths) else None


def render(visibility: Visibility, queries: Fields, keys: Fields | None, device: torch.device) -> Plan:
    """The cheapest exact plan for flat rows of tokens.

    Args:
        visibility: who may see whom, the layer's reach included.
        queries: CPU fields (N,) of the tokens that look.
        keys: CPU fields (M,) of those looked at; none for the same tokens.
        device: where index tensors and grids go.
    """
    themselves = keys is None
    keys = queries if keys is None else keys
    n_queries, n_keys = len(queries["index"]), len(keys["index"])
    # 1. pair each document's (or block's) queries with its keys if none sees across, else the whole row with itself
    pairs, parts = _paired(visibility.conjuncts(), queries, keys, themselves)
    left: Visibility | bool = AllOf(parts) if parts else True
    # 2. documents of like lengths share a call; rows without a partner come behind
    buckets = _buckets(pairs)
    query_slots, key_slots = _slots(buckets, 0, n_queries), _slots(buckets, 1, n_keys)
    # 3. what is left to check within each call
    rising = themselves and _rising(queries, pairs)
    calls, first_query, first_key = [], 0, 0
    for bucket in buckets:
        size = len(bucket), max(query.length for query, _ in bucket), max(key.length for _, key in bucket)
        call = _call(size, (first_query, first_key), (query_slots, key_slots), (queries, keys), left, rising, device)
        calls += [call] if call is not None else []
        first_query, first_key = first_query + size[0] * size[1], first_key + size[0] * size[2]
    return Plan(visibility, _side(query_slots, n_queries, device), _side(key_slots, n_keys, device), tuple(calls),
                len(query_slots), len(key_slots), (queries, keys))


def _rising(fields: Fields, pairs: Sequence[tuple[Span, Span]]) -> bool:
    """Whether indexes rise by place in every span, so that a triangle over slots is the causal grid."""
    rises = fields["index"][1:] > fields["index"][:-1]
    rises[[query.first - 1 for query, _ in pairs if query.first > 0]] = True
    return bool(rises.all())


def _buckets(pairs: Sequence[tuple[Span, Span]]) -> list[list[tuple[Span, Span]]]:
    """Pairs that share a call: equal lengths, or lengths near enough that filling up is cheaper than a call more."""
    if len({(query.length, key.length) for query, key in pairs}) == 1:
        return [list(pairs)]
    buckets: list[list[tuple[Span, Span]]] = []
    queries = keys = real = 0
    for pair in sorted(pairs, key=lambda pair: (-pair[1].length, -pair[0].length)):
        query, key = pair[0].length, pair[1].length
        real += query * key
        queries = max(queries, query)
        if not buckets or (len(buckets[-1]) + 1) * queries * keys - real > CALL:
            buckets.append([])
            queries, keys, real = query, key, query * key
        buckets[-1].append(pair)
    return buckets


def _slots(buckets: Sequence[Sequence[tuple[Span, Span]]], side: int, rows: int) -> Tensor:
    """The row in each slot, -1 in spare ones; rows that no pair has come last: (M,) int64."""
    slots = []
    for bucket in buckets:
        firsts, lengths = torch.tensor([pair[side] for pair in bucket]).unsqueeze(-1).unbind(1)
        place = torch.arange(int(lengths.max()))[None]
        slots.append(torch.where(place < lengths, firsts + place, -1).flatten())
    found = torch.cat(slots) if slots else torch.empty(0, dtype=torch.long)
    alone = torch.ones(rows, dtype=torch.bool)
    alone[found[found >= 0]] = False
    return torch.cat((found, alone.nonzero().flatten()))


def _side(slots: Tensor, rows: int, device: torch.device) -> Side:
    """Index tensors for one side, none where slots are the rows in order."""
    if len(slots) == rows and torch.equal(slots, torch.arange(rows)):
        return Side()
    spare = slots < 0
    back = torch.empty(rows, dtype=torch.long)
    back[slots[~spare]] = (~spare).nonzero().flatten()
    return Side(slots.clamp(min=0).to(device), back.to(device), spare.nonzero().flatten().to(device))


def _call(size: tuple[int, int, int], first: tuple[int, int], slots: tuple[Tensor, Tensor],
          fields: tuple[Fields, Fields], left: Visibility | bool, rising: bool, device: torch.device) -> Call | None:
    """One bucket as a call, its grid drawn if one is needed; none if nobody in it sees anything."""
    batch = size[0]
    rows = [side[begin:begin + batch * width].view(batch, width)
            for side, begin, width in zip(slots, first, size[1:], strict=True)]
    real = [row >= 0 for row in rows]
    # 1. spare slots borrow the facts of the longest document: they decide nothing
    inside = [{name: fact[torch.where(is_real, row, row[is_real.sum(-1).argmax()])] for name, fact in facts.items()}
              for row, is_real, facts in zip(rows, real, fields, strict=True)]
    left = left if isinstance(left, bool) else simplify(left, *inside)
    if left is False:
        return None
    # 2. spare keys lie behind the real ones, so a triangle hides them; everything else needs a grid
    flag = left == Causal() and rising
    grid, blind = None, False
    if not flag and not (left is True and bool(real[1].all())):
        grid = real[1].unsqueeze(-2)
        if left is not True:
            # spare queries see everything, so that their softmax is a number: what they read is thrown away
            grid = left.allows(*inside) & grid | ~real[0].unsqueeze(-1)
        blind = not bool(grid.any(dim=-1).all())
        grid = grid[:1] if bool((grid == grid[:1]).all()) else grid
    segments = segments_of(*inside)
    places = [_shared(facts.get("position", facts["index"])) for facts in inside]
    return Call(*size, *first, flag, None if grid is None else grid.to(device), blind, places[0], places[1],
                query_segments=segments[0], key_segments=segments[1])


def segments_of(queries: Fields, keys: Fields) -> tuple[Tensor, Tensor] | tuple[None, None]:
    """The `segment` fields of both sides, or none where they are left out or all the same."""
    if "segment" not in queries or "segment" not in keys or not keys["segment"].numel():
        return None, None
    first = keys["segment"].flatten()[0]
    if bool((keys["segment"] == first).all()) and bool((queries["segment"] == first).all()):
        return None, None
    return queries["segment"], keys["segment"]


def _shared(places: Tensor) -> Tensor:
    """(batch, L) places, or (1, L) if all documents agree."""
    return places[:1] if bool((places == places[:1]).all()) else places
