"""Keys and values of tokens already read, so that writing one more token costs one token.

A cache is exact only where no earlier token may see a later one; anything else is refused. Besides keys and values it
keeps the *fields* of its tokens, so that a visibility means the same with a cache as without.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from bothways.batch import Example
from bothways.errors import BothwaysError
from bothways.model.attention import Kept
from bothways.model.config import ModelConfig
from bothways.model.render import Call, Plan, Planner, Side, simplify
from bothways.visibility import Fields, SameBlock, SameDocument, Visibility, Window


class Store:
    """Keys and values of one layer: two buffers (K, B, capacity, head size), written in place, without gradients.

    `where` is set for each call: the places of its tokens in every document, or their documents and places.
    `first` says that nothing was kept before, so the new tokens need only look at themselves.
    """

    def __init__(self, shape: tuple[int, int, int, int], dtype: torch.dtype, device: torch.device) -> None:
        self.keys = torch.zeros(shape, dtype=dtype, device=device)
        self.values = torch.zeros(shape, dtype=dtype, device=device)
        self.where: tuple[Tensor, Tensor] | slice = slice(0, 0)
        self.first = True

    def extend(self, keys: Tensor, values: Tensor) -> None:
        """Keep the rows (N, K, head size) of new tokens."""
        for buffer, rows in ((self.keys, keys.detach()), (self.values, values.detach())):
            if isinstance(self.where, slice):
                buffer[:, :, self.where] = rows.unflatten(0, (buffer.shape[1], -1)).permute(2, 0, 1, 3)
            else:
                buffer[:, self.where[0], self.where[1]] = rows.to(buffer.dtype).transpose(0, 1)

    def grow(self, capacity: int) -> None:
        """Make room for `capacity` tokens in each document."""
        more = capacity - self.keys.shape[2]
        self.keys = torch.nn.functional.pad(self.keys, (0, 0, 0, more))
        self.values = torch.nn.functional.pad(self.values, (0, 0, 0, more))

    def keep(self, rows: Tensor) -> None:
        """Only these documents, in this order."""
        self.keys, self.values = self.keys[:, rows], self.values[:, rows]


class Cache:
    """What B documents have read so far, numbered 0 to B-1 in the `document` field of every call.

    Each call brings any number of new tokens for each document (a ragged prefill, then mostly one), with fields that
    go on where the last call ended; `fields(counts)` makes the usual ones. With two towers the source is read at
    the first call and may be left out later.
    """

    def __init__(self, config: ModelConfig, sequences: int, capacity: int, dtype: torch.dtype = torch.float32,
                 device: torch.device | str = "cpu") -> None:
        self.config, self.capacity = config, max(capacity, 1)
        self.device = torch.device(device)
        self.lengths = torch.zeros(sequences, dtype=torch.long)
        shape = config.key_heads, sequences, self.capacity, config.head_size
        self.stores = [Store(shape, dtype, self.device) for _ in range(config.shape.layers)]
        self.facts: dict[str, Tensor] = {}
        self.cross: list[Kept] = []
        self.source_facts: dict[str, Tensor] = {}
        self.source_lengths = torch.zeros(sequences, dtype=torch.long)

    @property
    def sequences(self) -> int:
        """How many documents it holds."""
        return len(self.lengths)

    @property
    def bytes(self) -> int:
        """What the kept keys and values take."""
        kept = [kept for store in self.stores for kept in (store.keys, store.values)]
        return sum(one.nbytes for one in (*kept, *(part for pair in self.cross for part in pair)))

    def fields(self, counts: Sequence[int] | int) -> dict[str, Tensor]:
        """The usual fields of `counts` new tokens for each document: index, position and document, (N,) int64 each."""
        counts = [counts] * self.sequences if isinstance(counts, int) else counts
        index = torch.cat([torch.arange(count) + length for count, length in zip(counts, self.lengths, strict=True)])
        return {"index": index, "position": index,
                "document": torch.arange(self.sequences).repeat_interleave(torch.tensor(counts))}

    def begin(self, example: Example) -> Planner | CachedPlanner:
        """Make room for the example's tokens and keep their fields; returns the planner of this call.

        Raises:
            BothwaysError: an earlier token could see one of the new ones, or the documents do not fit the cache.
        """
        fields, parts = example.fields, example.visibility.conjuncts()
        rows, counts = _rows(fields["document"], self.sequences)
        if self.sequences > 1 and SameDocument() not in parts:
            raise BothwaysError("a cache keeps its documents apart: add `& same_document` to the visibility "
                                f"'{example.visibility!r}'")
        self._refuse_looking_ahead(example.visibility, fields, rows)
        # 1. room
        after = self.lengths + counts
        longest = int(after.max())
        if longest > self.capacity:
            self._grow(max(longest, 2 * self.capacity))
        # 2. fields of the new tokens, and where their keys go
        first = int(self.lengths.max()) == 0
        start = int(self.lengths[0])
        regular = bool((self.lengths == start).all() and (counts == counts[0]).all()
                       and torch.equal(rows.flatten(), torch.arange(rows.numel())))
        where: slice | tuple[Tensor, Tensor] = slice(start, longest)
        document = fields["document"]
        place = torch.arange(rows.shape[1]).expand_as(rows)[rows >= 0][torch.argsort(rows[rows >= 0])]
        slots = self.lengths[document] + place
        for name, fact in fields.items():
            if name not in self.facts:
                self.facts[name] = torch.zeros(self.sequences, self.capacity, dtype=torch.long)
            self.facts[name][document, slots] = fact
        if not regular:
            where = document.to(self.device), slots.to(self.device)
        for store in self.stores:
            store.where, store.first = where, first
        self._after = after
        if first:
            return Planner(fields, None, self.device)
        kept = {name: fact[:, :longest] for name, fact in self.facts.items()}
        return CachedPlanner(fields, rows, kept, after, self.device)

    def finish(self) -> None:
        """The call is done: its tokens count as read."""
        self.lengths = self._after

    def read_source(self, source: Example, told: Sequence[Tensor]) -> None:
        """Keep each layer's keys and values (M, 2 K, head size) of the other tower's states, laid out by document."""
        rows, self.source_lengths = _rows(source.fields["document"], self.sequences)
        inside = rows.clamp(min=0)
        self.source_facts = {name: fact[inside] for name, fact in source.fields.items()}
        on_device = inside.to(self.device)
        self.cross = [Kept(*(part.contiguous() for part in rows[on_device].permute(2, 0, 1, 3).chunk(2)))
                      for rows in told]

    def cross_planner(self, example: Example) -> CachedPlanner:
        """The planner of looks across at the kept source."""
        rows, _ = _rows(example.fields["document"], self.sequences)
        return CachedPlanner(example.fields, rows, self.source_facts, self.source_lengths, self.device)

    def keep(self, rows: Sequence[int] | Tensor) -> None:
        """Only these documents go on, in this order (repeats allowed, as beams need); they are numbered anew."""
        chosen = torch.as_tensor(rows, dtype=torch.long)
        self.lengths, self.source_lengths = self.lengths[chosen], self.source_lengths[chosen]
        self.facts = {name: fact[chosen] for name, fact in self.facts.items()}
        self.source_facts = {name: fact[chosen] for name, fact in self.source_facts.items()}
        chosen = chosen.to(self.device)
        for store in self.stores:
            store.keep(chosen)
        self.cross = [Kept(keys[:, chosen], values[:, chosen]) for keys, values in self.cross]

    def _grow(self, capacity: int) -> None:
        for store in self.stores:
            store.grow(capacity)
        self.facts = {name: torch.nn.functional.pad(fact, (0, capacity - self.capacity))
                      for name, fact in self.facts.items()}
        self.capacity = capacity

    def _refuse_looking_ahead(self, visibility: Visibility, fields: Fields, rows: Tensor) -> None:
        """A kept state would change if it could see what comes now."""
        longest = int(self.lengths.max()) if self.sequences else 0
        if not longest or not rows.numel():
            return
        missing = visibility.needs - self.facts.keys()
        if missing:
            raise BothwaysError(f"the cached tokens came without the field '{min(missing)}', which the visibility "
                                f"'{visibility!r}' needs: give it from the first call on")
        earlier = {name: fact[:, :longest] for name, fact in self.facts.items()}
        now = {name: fact[rows.clamp(min=0)] for name, fact in fields.items()}
        real = (torch.arange(longest) < self.lengths[:, None])[:, :, None] & (rows >= 0)[:, None, :]
        if bool((visibility.allows(earlier, now) & real).any()):
            raise BothwaysError(f"a cache needs a visibility in which no token sees a later one, but '{visibility!r}' "
                                "lets cached tokens see new ones: read the whole text again at each step instead")


def _rows(document: Tensor, sequences: int) -> tuple[Tensor, Tensor]:
    """Rows of each document, (B, most) int64 with -1 behind the shorter ones, and their counts (B,)."""
    if len(document) and int(document.max()) >= sequences:
        raise BothwaysError(f"the cache holds {sequences} documents, but the example numbers one {int(document.max())}")
    counts = torch.bincount(document, minlength=sequences)
    rows = torch.full((sequences, int(counts.max()) if len(counts) else 0), -1)
    by_document = torch.argsort(document, stable=True)
    ordered = document[by_document]
    rows[ordered, torch.arange(len(document)) - (counts.cumsum(0) - counts)[ordered]] = by_document
    return rows, counts


class CachedPlanner:
    """Renders visibilities between new tokens and kept ones laid out by document."""

    def __init__(self, queries: Fields, rows: Tensor, keys: Fields, lengths: Tensor, device: torch.device) -> None:
        """`rows` (B, n) says which query row is in which slot (-1: none); `keys` are (B, L), `lengths` (B,) real."""
        self.rows, self.keys, self.lengths, self.device = rows, keys, lengths, device
        self.inside = {name: fact[rows.clamp(min=0)] for name, fact in queries.items()} if rows.numel() else {}
        slots = rows.flatten()
        self.side = Side()
        if not torch.equal(slots, torch.arange(len(slots))):
            real = slots >= 0
            back = torch.empty(int(real.sum()), dtype=torch.long)
            back[slots[real]] = real.nonzero().flatten()
            self.side = Side(slots.clamp(min=0).to(device), back.to(device), (~real).nonzero().flatten().to(device))
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
        longest = int(self.lengths.max())
        if not longest or not self.rows.numel():
            return None
        left: Visibility | bool = True
        for part in visibility.conjuncts() - {SameDocument()}:
            left = part if left is True else left & part  # type: ignore[operator]
        # 1. a window or a chunk needs no keys from before it, where indexes are places
        start = 0
        if not isinstance(left, bool):
            earliest = int(self.inside["index"].min())
            starts = [earliest - part.left for part in left.conjuncts()
                      if isinstance(part, Window) and part.left is not None]
            starts += [earliest // part.size * part.size for part in left.conjuncts()
                       if isinstance(part, SameBlock) and part.size is not None]
            if starts and torch.equal(self.keys["index"], torch.arange(longest).expand_as(self.keys["index"])):
                start = max(0, *starts)
        keys = {name: fact[:, start:longest] for name, fact in self.keys.items()}
        # 2. what is left to check, and a grid where something is
        even = bool((self.lengths == longest).all()) and bool((self.rows >= 0).all())
        left = simplify(left, self.inside, keys) if even and not isinstance(left, bool) else left
        if left is False:
            return None
        grid, blind = None, False
        if not (left is True and bool((self.lengths == longest).all())):
            grid = (torch.arange(start, longest) < self.lengths[:, None]).unsqueeze(-2)
            if left is not True:
                # spare queries see everything, so that their softmax is a number: what they read is thrown away
                grid = left.allows(self.inside, keys) & grid | (self.rows < 0).unsqueeze(-1)
            blind = not bool(grid.any(dim=-1).all())
        return Call(len(self.rows), self.rows.shape[1], longest - start, 0, start, False,
                    None if grid is None else grid.to(self.device), blind, self.inside["position"], keys["position"])
