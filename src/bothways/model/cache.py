"""What documents have read so far, so that writing one more token costs one token.

A cache is exact only where no earlier token may see a later one; anything else is refused. Besides keys and values it
keeps the *fields* of its tokens, so that a visibility means the same with a cache as without. What a call costs on the
host does not grow with the place: where indexes rise one by one, nothing that was kept is looked through.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from bothways.batch import Example
from bothways.errors import BothwaysError
from bothways.model.attention import Kept
from bothways.model.config import ModelConfig
from bothways.model.looking_back import CachedPlanner
from bothways.model.mamba import MIXERS
from bothways.model.render import Plan, Planner
from bothways.model.stores import Numbers, Step, Store
from bothways.visibility import Causal, Fields, SameDocument, Visibility, prefix


class Cache:
    """What B documents have read so far, numbered 0 to B-1 in the `document` field of every call.

    Each call brings any number of new tokens for each document (a ragged prefill, then mostly one), with fields that
    go on where the last call ended; `fields(counts)` makes the usual ones. With two towers the source is read at
    the first call and may be left out later. Documents may leave and repeat (`keep`; those of one source share what
    they look across at), come (`join`) and take tokens back (`shorten`).

    Args:
        capacity: tokens of a document there is room for; it grows when more come.
        numbers: how keys and values are kept: "exact", or "int8" (an approximation in a quarter of the memory).
        slack: layers that look back a little keep a ring of their last tokens, from which `shorten` may take back so
            many; none keeps all tokens in all layers.
    """

    def __init__(self, config: ModelConfig, sequences: int, capacity: int, dtype: torch.dtype = torch.float32,
                 device: torch.device | str = "cpu", numbers: Numbers = "exact", slack: int | None = None) -> None:
        """Raises: BothwaysError where a part of the network looks at more than a cache keeps."""
        for name, there in (("convolution.kernel", config.convolution.kernel), ("head.decoder", config.head.decoder)):
            if there:
                raise BothwaysError(f"a cache keeps keys and values, but {name} {there} also needs earlier states: "
                                    "read the whole text again at each step (cached=False)")
        self.config, self.capacity, self.numbers, self.slack = config, max(capacity, 1), numbers, slack
        self.dtype, self.device = dtype, torch.device(device)
        self.lengths = torch.zeros(sequences, dtype=torch.long)
        self.stores: list[Store] = [
            MIXERS[config.mixer.kind].store(config, sequences, dtype, self.device) if config.mixer.kind in MIXERS else
            Store(sequences, config.kept[0], self.capacity, config.kept[1], dtype, self.device,
                  _ring(config, layer, slack), numbers, config.latent is not None)
            for layer in range(config.shape.layers)]
        self.facts: dict[str, Tensor] = {}
        self.cross: list[Kept] = []
        self.source_facts: dict[str, Tensor] = {}
        self.source_lengths = torch.zeros(sequences, dtype=torch.long)
        self.source_of = torch.arange(sequences)
        """(B,) the source that each document looks across at."""
        self._in_order = True
        """Whether every token's index is its place in its document."""
        self._last = torch.full((sequences,), -1)
        """(B,) the largest index so far."""
        self._real: tuple[Tensor, Tensor] | None = None
        self._cross_plans: dict[tuple[object, ...], Plan] = {}

    @property
    def sequences(self) -> int:
        """How many documents it holds."""
        return len(self.lengths)

    @property
    def bytes(self) -> int:
        """Memory of all keys and values, those of a source included."""
        own = [tensor for store in self.stores for buffer in store.kept for tensor in buffer.tensors]
        return sum(tensor.numel() * tensor.element_size()
                   for tensor in (*own, *(part for kept in self.cross for part in kept)))

    def fields(self, counts: Sequence[int] | int) -> dict[str, Tensor]:
        """The usual fields of `counts` new tokens for each document: index, position and document, (N,) int64 each."""
        counts = [counts] * self.sequences if isinstance(counts, int) else counts
        index = torch.cat([torch.arange(count) + length for count, length in zip(counts, self.lengths, strict=True)])
        return {"index": index, "position": index,
                "document": torch.arange(self.sequences).repeat_interleave(torch.tensor(counts))}

    def begin(self, example: Example) -> None:
        """Make room for the example's tokens, keep their fields, and get ready to plan this call.

        Raises:
            BothwaysError: an earlier token could see one of the new ones, or the documents do not fit the cache.
        """
        fields, document = example.fields, example.fields["document"]
        # 1. which row comes to which document; mostly one to each
        single = len(document) == self.sequences and torch.equal(document, torch.arange(self.sequences))
        rows, counts = (torch.arange(self.sequences).unsqueeze(1), torch.ones_like(self.lengths)) if single else \
            _rows(document, self.sequences)
        if self.sequences > 1 and SameDocument() not in example.visibility.conjuncts():
            raise BothwaysError("a cache keeps its documents apart: add `& same_document` to the visibility "
                                f"'{example.visibility!r}'")
        self._refuse_looking_ahead(example.visibility, fields, rows)
        # 2. room
        before, after = self.lengths, self.lengths + counts
        longest, first = int(after.max()) if len(after) else 0, not bool(before.any())
        if longest > self.capacity:
            self._resize(self._documents, max(longest, 2 * self.capacity))
        # 3. their fields
        slots = before if single else before[document] + _places(rows)
        self._note(fields, document, slots)
        # 4. where their keys go
        even = bool((after == longest).all()) and bool((counts == counts[0]).all()) if len(after) else True
        regular = even and (single or torch.equal(rows.flatten(), torch.arange(rows.numel())))
        steps: dict[int | None, Step] = {}
        for store in self.stores:
            if store.ring not in steps:
                steps[store.ring] = self._step(store.ring, first, single, regular, rows, document, slots, after)
            store.step = steps[store.ring]
        # 5. who can be looked at
        self._planner = Planner(fields, None, self.device) if first else None
        self._planners: dict[int | None, CachedPlanner] = {}
        self._call = fields, rows, single, even, longest
        self._before, self._after = before, after

    def plan(self, layer: int, visibility: Visibility) -> Plan:
        """The plan of a layer in the call that has begun; the visibility has the layer's reach in it."""
        if self._planner is not None:
            return self._planner.plan(visibility)
        ring = self.stores[layer].ring
        if ring not in self._planners:
            fields, rows, single, even, longest = self._call
            if ring is None:
                hidden = None
                real = None
                if not even:
                    real, hidden = self._real_slots(single, longest)
                kept = {name: fact[:self.sequences, :longest] for name, fact in self.facts.items()}
                self._planners[ring] = CachedPlanner(fields, rows, kept, real, self.device, self._in_order, single,
                                                     hidden)
            else:
                kept, real = self._in_ring(ring, fields, rows, single)
                self._planners[ring] = CachedPlanner(fields, rows, kept, real, self.device, newest=single)
        return self._planners[ring].plan(visibility)

    def finish(self) -> None:
        """The call is done: its tokens count as read."""
        self.lengths = self._after

    def read_source(self, source: Example, told: Sequence[Tensor]) -> None:
        """Keep each layer's keys and values (M, 2 K, head size) of the other tower's states, laid out by document."""
        rows, self.source_lengths = _rows(source.fields["document"], self.sequences)
        inside = rows.clamp(min=0)
        self.source_of = torch.arange(self.sequences)
        self.source_facts = {name: fact[inside] for name, fact in source.fields.items()}
        on_device = inside.to(self.device)
        self.cross = [Kept(*(part.contiguous() for part in rows[on_device].transpose(1, 2).chunk(2, dim=1)))
                      for rows in told]
        self._cross_plans.clear()

    def plan_across(self, example: Example, cross: Visibility) -> Plan:
        """The plan of looks across at the kept sources; the documents of one source look together."""
        document = self.source_of[example.fields["document"]]
        plain = cross.conjuncts() <= {SameDocument()}
        key = (cross, tuple(document.tolist()))
        if plain and key in self._cross_plans:
            return self._cross_plans[key]
        rows, _ = _rows(document, len(self.source_lengths))
        longest = next(iter(self.source_facts.values())).shape[-1] if self.source_facts else 0
        real = torch.arange(longest) < self.source_lengths[:, None]
        plan = CachedPlanner(example.fields, rows, self.source_facts, None if bool(real.all()) else real,
                             self.device).plan(cross)
        if plain:
            self._cross_plans = {key: plan}
        return plan

    def keep(self, rows: Sequence[int] | Tensor) -> None:
        """Only these documents go on, in this order (repeats allowed, as beams need); they are numbered anew."""
        chosen = torch.as_tensor(rows, dtype=torch.long)
        moved = (chosen != torch.arange(len(chosen))).nonzero().flatten()
        used = int(self.lengths[chosen].max()) if len(chosen) else 0
        if len(chosen) > self._documents:
            self._resize(len(chosen), self.capacity)
        # 1. keys, values and facts of those that change places
        if len(moved):
            sources, to = chosen[moved].to(self.device), moved.to(self.device)
            for store in self.stores:
                store.move(store, sources, to, used)
            for fact in self.facts.values():
                fact[moved, :used] = fact[chosen[moved], :used]
        # 2. what is known of them
        if not torch.equal(self.lengths[chosen], self.lengths[:len(chosen)]) or len(chosen) > self.sequences:
            self._real = None
        self.lengths, self._last = self.lengths[chosen], self._last[chosen]
        self.source_of = self.source_of[chosen]
        self._drop_sources()

    def join(self, other: Cache) -> None:
        """The documents of another cache come behind ours; it must be of the same network and hold the same fields.

        Raises:
            BothwaysError: they do not fit together.
        """
        if (other.facts.keys() != self.facts.keys() or other.numbers != self.numbers or other.slack != self.slack
                or bool(other.cross) != bool(self.cross)):
            raise BothwaysError("caches are joined when both have read tokens with the same fields and keep them alike")
        count, used = self.sequences, int(other.lengths.max())
        total = count + other.sequences
        if total > self._documents or used > self.capacity:
            self._resize(max(total, min(2 * self._documents, 2 * total)) if total > self._documents
                         else self._documents, max(used, self.capacity))
        chosen = torch.arange(other.sequences)
        for own, theirs in zip(self.stores, other.stores, strict=True):
            own.move(theirs, chosen.to(self.device), (chosen + count).to(self.device), used)
        for name, fact in self.facts.items():
            fact[count:total, :used] = other.facts[name][:other.sequences, :used]
        self.source_of = torch.cat((self.source_of, other.source_of + len(self.source_lengths)))
        if self.cross:
            self._join_sources(other)
        self.lengths = torch.cat((self.lengths, other.lengths))
        self._last = torch.cat((self._last, other._last))
        self._in_order &= other._in_order
        self._real = None
        self._drop_sources()

    def copy(self, rows: Sequence[int]) -> Cache:
        """A cache of its own that holds these documents, with no more room than they need."""
        chosen = torch.as_tensor(rows, dtype=torch.long)
        used = max(1, int(self.lengths[chosen].max()))
        made = Cache(self.config, len(chosen), used, self.dtype, self.device, self.numbers, self.slack)
        to = torch.arange(len(chosen), device=self.device)
        for own, theirs in zip(made.stores, self.stores, strict=True):
            own.move(theirs, chosen.to(self.device), to, used)
        made.facts = {name: fact[chosen, :used] for name, fact in self.facts.items()}
        made.lengths, made._last, made._in_order = self.lengths[chosen], self._last[chosen], self._in_order
        made.source_of, made.source_lengths = self.source_of[chosen], self.source_lengths
        made.source_facts, made.cross = self.source_facts, list(self.cross)
        made._drop_sources()
        return made

    def shorten(self, lengths: Sequence[int] | Tensor) -> None:
        """Take tokens back: each document keeps its first `lengths`.

        Raises:
            BothwaysError: a layer keeps a state instead of tokens, or no longer has those that would be the last.
        """
        new = torch.as_tensor(lengths, dtype=torch.long)
        if bool((new < self.lengths).any()) and not all(store.takes_back for store in self.stores):
            raise BothwaysError("a recurrent layer keeps a state instead of its tokens, so none can be taken back")
        for ring in {store.ring for store in self.stores} - {None}:
            assert ring is not None
            lost = (self.lengths - new > (self.slack or 0)) & (self.lengths > ring)
            if bool(lost.any()):
                raise BothwaysError(f"a layer of this network keeps its last tokens only, so at most {self.slack} can "
                                    "be taken back: make the cache with more `slack`, or with none")
        if not torch.equal(new, self.lengths):
            self._real = None
        self.lengths = torch.minimum(new, self.lengths)
        some = self.lengths > 0
        if "index" in self.facts:
            reached = self.facts["index"][torch.arange(self.sequences), (self.lengths - 1).clamp(min=0)]
            self._last = torch.where(some, reached, -1)

    # --- what one call needs ---

    def _step(self, ring: int | None, first: bool, single: bool, regular: bool, rows: Tensor, document: Tensor,
              slots: Tensor, after: Tensor) -> Step:
        """Where the new rows go in layers of this kind."""
        batch, count = rows.shape
        longest = int(after.max()) if len(after) else 0
        laid_out, chosen, used = None, None, longest
        if ring is None:
            if regular:
                return Step(first, batch, count, used, slice(longest - count, longest))
        else:
            used = min(longest, ring)
            if not first and not single:
                # what lies in the ring before this call is looked at beside the new tokens
                used = min(int(self.lengths.max()), ring)
                laid_out = rows.clamp(min=0).to(self.device)
            if regular and count == 1:
                place = (longest - 1) % ring
                return Step(first, batch, count, used, slice(place, place + 1), None, laid_out)
            last = slots >= after[document] - ring
            if not bool(last.all()):
                chosen = last.nonzero().flatten()
                document, slots = document[chosen], slots[chosen]
                chosen = chosen.to(self.device)
            slots = slots % ring
        return Step(first, batch, count, used, (document.to(self.device), slots.to(self.device)), chosen, laid_out)

    def _note(self, fields: Fields, document: Tensor, slots: Tensor) -> None:
        """Keep the fields of new tokens."""
        index = fields["index"]
        for name, fact in fields.items():
            if name not in self.facts:
                self.facts[name] = torch.zeros(self._documents, self.capacity, dtype=torch.long)
            self.facts[name][document, slots] = fact
        self._in_order = self._in_order and torch.equal(index, slots)
        self._last = self._last.scatter_reduce(0, document, index, "amax")

    def _real_slots(self, single: bool, longest: int) -> tuple[Tensor, Tensor | None]:
        """(B, longest) bool, the slots that hold a token, and the same as 0 and -inf for scores (B, 1, 1, longest).

        Both are kept between calls, and one token more for each document is one entry more.
        """
        if self._real is None or self._real[0].shape[1] < longest or not single:
            real = torch.arange(self.capacity) < self._after[:, None]
            hidden = torch.zeros(real.shape, dtype=self.dtype).masked_fill_(~real, float("-inf"))
            self._real = real.to(self.device), hidden.to(self.device)[:, None, None]
        else:
            places = torch.arange(self.sequences), self._before
            self._real[0][places] = True
            self._real[1][places[0], 0, 0, places[1]] = 0.0
        count = self.sequences
        return self._real[0][:count, :longest], self._real[1][:count, ..., :longest]

    def _in_ring(self, ring: int, fields: Fields, rows: Tensor, single: bool
                 ) -> tuple[dict[str, Tensor], Tensor | None]:
        """Fields of a ring's slots, and which are real; behind them the new tokens where they lie beside."""
        lengths = self._after if single else self._before
        used = min(int(lengths.max()), ring)
        newest = lengths[:, None] - 1
        places = newest - (newest - torch.arange(used)) % ring
        real = places >= 0
        kept = {name: fact[:self.sequences].gather(1, places.clamp(min=0)) for name, fact in self.facts.items()}
        if not single:
            kept = {name: torch.cat((fact, fields[name][rows.clamp(min=0)]), dim=1) for name, fact in kept.items()}
            real = torch.cat((real, rows >= 0), dim=1)
        return kept, None if bool(real.all()) else real

    def _refuse_looking_ahead(self, visibility: Visibility, fields: Fields, rows: Tensor) -> None:
        """A kept state would change if it could see what comes now."""
        longest = int(self.lengths.max()) if self.sequences else 0
        if not longest or not rows.numel():
            return
        missing = visibility.needs - self.facts.keys()
        if missing:
            raise BothwaysError(f"the cached tokens came without the field '{min(missing)}', which the visibility "
                                f"'{visibility!r}' needs: give it from the first call on")
        rising = bool((fields["index"] > self._last[fields["document"]]).all())
        if not rising and any(store.ring is not None for store in self.stores):
            raise BothwaysError("layers that keep only their last tokens need indexes that rise from call to call")
        parts = visibility.conjuncts()
        if rising and (Causal() in parts or (prefix in parts and not bool(fields["prefix"].any()))):
            return
        earlier = {name: fact[:self.sequences, :longest] for name, fact in self.facts.items()}
        now = {name: fact[rows.clamp(min=0)] for name, fact in fields.items()}
        real = (torch.arange(longest) < self.lengths[:, None])[:, :, None] & (rows >= 0)[:, None, :]
        if bool((visibility.allows(earlier, now) & real).any()):
            raise BothwaysError(f"a cache needs a visibility in which no token sees a later one, but '{visibility!r}' "
                                "lets cached tokens see new ones: read the whole text again at each step instead")

    # --- room ---

    @property
    def _documents(self) -> int:
        """How many documents there is room for."""
        return self.stores[0].kept[0].size[0] if self.stores else self.sequences

    def _resize(self, documents: int, capacity: int) -> None:
        for store in self.stores:
            store.resize(documents, capacity)
        self.facts = {name: torch.nn.functional.pad(fact, (0, capacity - fact.shape[1], 0, documents - len(fact)))
                      for name, fact in self.facts.items()}
        self.capacity = capacity
        self._real = None

    def _drop_sources(self) -> None:
        """Forget the sources that nobody looks at any more."""
        if not self.cross:
            self.source_of, self.source_lengths = torch.arange(self.sequences), torch.zeros_like(self.lengths)
            return
        count = len(self.source_lengths)
        used = torch.unique(self.source_of)
        if len(used) == count:
            return
        self.source_of = torch.searchsorted(used, self.source_of)
        self.source_lengths = self.source_lengths[used]
        self.source_facts = {name: fact[used] for name, fact in self.source_facts.items()}
        chosen = used.to(self.device)
        self.cross = [Kept(keys.index_select(0, chosen), values.index_select(0, chosen)) for keys, values in self.cross]
        self._cross_plans.clear()

    def _join_sources(self, other: Cache) -> None:
        """Another cache's sources behind ours, all filled up to the longest."""
        longest = max(self.cross[0].keys.shape[2], other.cross[0].keys.shape[2])

        def filled(part: Tensor) -> Tensor:
            return torch.nn.functional.pad(part, (0, 0, 0, longest - part.shape[2]))
        self.cross = [Kept(*(torch.cat((filled(one), filled(two))) for one, two in zip(own, theirs, strict=True)))
                      for own, theirs in zip(self.cross, other.cross, strict=True)]
        self.source_facts = {
            name: torch.cat([torch.nn.functional.pad(fact, (0, longest - fact.shape[1]))
                             for fact in (own, other.source_facts[name])]) for name, own in self.source_facts.items()}
        self.source_lengths = torch.cat((self.source_lengths, other.source_lengths))
        self._cross_plans.clear()


def _ring(config: ModelConfig, layer: int, slack: int | None) -> int | None:
    """How many last tokens a layer needs to keep, besides those that may be taken back; none for all."""
    letter = config.reach[layer % len(config.reach)]
    if slack is None:
        return None
    return {"G": None, "L": config.local + 1 + slack, "C": config.chunk + slack}[letter]


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


def _places(rows: Tensor) -> Tensor:
    """The place of each row among the new ones of its document, (N,)."""
    real = rows >= 0
    return torch.arange(rows.shape[1]).expand_as(rows)[real][torch.argsort(rows[real])]
