"""The network as graphs of tensors: a whole text at once, a source, and one step of writing with what was kept.

Each is a thin module around the network's own parts: the embedding, a tower and the head, called with plans that write
every score out. Names of inputs and outputs stand in `Graph`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from bothways.batch import Example
from bothways.model import LanguageModel
from bothways.model.attention import Grid, Kept
from bothways.model.cache import Cache
from bothways.model.render import Plan, Planner
from bothways.objectives.base import Mode
from bothways.visibility import Fields, Visibility, bidirectional, valid

SEGMENT = "segment"


class Exported(nn.Module, ABC):
    """A module that becomes a graph."""

    @abstractmethod
    def arguments(self, named: Mapping[str, Any]) -> tuple[Any, ...]:
        """What is said of the inputs by name, as `forward` takes it."""


@dataclass(frozen=True)
class Graph:
    """A module to be exported, with an example of its inputs.

    inputs: by name, in the order of the module's arguments laid out flat.
    sizes: for each input, the names of the dimensions that may change: {dimension: name}.
    outputs: names in the order of what the module returns, laid out flat.
    """

    module: Exported
    inputs: dict[str, Tensor]
    sizes: dict[str, dict[int, str]]
    outputs: tuple[str, ...]


class Rows:
    """Plans over rows (B, L) of one length, padded: `planner` and `cache` to a tower.

    queries, keys: fields (B, L) each.
    stores: what each layer keeps; none where nothing is.
    """

    def __init__(self, queries: Fields, keys: Fields, stores: Sequence[Growing] = ()) -> None:
        self.queries, self.keys, self.stores = queries, keys, stores
        self._plans: dict[Visibility, Grid] = {}

    def plan(self, *asked: object) -> Plan:
        """The plan of a visibility, the last argument: a cache is asked by layer too."""
        visibility = cast(Visibility, asked[-1])
        if visibility not in self._plans:
            seen = (visibility & valid).allows(self.queries, self.keys)
            self._plans[visibility] = Grid(visibility, seen, (self.queries["position"], self.keys["position"]))
        return self._plans[visibility]


class Growing:
    """What one layer keeps, as a graph has it: old and new in one tensor, which the caller keeps."""

    first = False

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        self.keys, self.values = keys, values

    def extend(self, keys: Tensor, values: Tensor) -> Kept:
        """New rows (B L, K, D) behind those that are kept (B, K, P, D)."""
        batch = self.keys.shape[0]  # len() would make a symbol a number
        self.keys, self.values = (torch.cat((old, new.unflatten(0, (batch, -1)).transpose(1, 2)), dim=2)
                                  for old, new in ((self.keys, keys), (self.values, values)))
        return Kept(self.keys, self.values)


def fields_of(real: Tensor) -> dict[str, Tensor]:
    """Fields (B, L) of rows of which these are real, 1 or 0: places are counted from the first real token."""
    places = (real.cumsum(dim=-1) - 1).clamp(min=0)
    return {"index": places, "position": places, "valid": real, "document": torch.zeros_like(places)}


class Reads(Exported):
    """A text as a whole: (B, L) ids, which of them are real, and segments where it knows any, to logits and states."""

    def __init__(self, network: LanguageModel, mode: Mode) -> None:
        super().__init__()
        self.network, self.mode = network, mode

    def arguments(self, named: Mapping[str, Any]) -> tuple[Any, ...]:
        """What is said of the inputs by name, as `forward` takes it."""
        return tuple(named.values())

    def forward(self, ids: Tensor, real: Tensor, segments: Tensor | None = None) -> tuple[Tensor, ...]:
        """Logits (B, L, V) and states (B, L, D), or states alone where nothing is scored."""
        fields = fields_of(real)
        if segments is not None:
            fields[SEGMENT] = segments
        states = through(self.network, ids, fields, fields, self.mode.visibility)
        shown = states.unflatten(0, ids.shape)
        if not self.network.config.head.scores and self.mode.head == "tokens":
            return (shown,)
        return self.network.logits(states, self.mode.head).unflatten(0, ids.shape), shown


class Tells(Exported):
    """A source: (B, M) ids and which are real, to what each layer of the other tower looks at: keys, then values."""

    def __init__(self, network: LanguageModel) -> None:
        super().__init__()
        self.network = network

    def arguments(self, named: Mapping[str, Any]) -> tuple[Any, ...]:
        """What is said of the inputs by name, as `forward` takes it."""
        return tuple(named.values())

    def forward(self, ids: Tensor, real: Tensor) -> tuple[Tensor, ...]:
        """(B, K, M, D) each."""
        network, fields = self.network, fields_of(real)
        states = through(network, ids, fields, fields, bidirectional, source=True)
        told: list[Tensor] = []
        for i in range(network.config.shape.layers):
            rows = network.tower.block(i).cross.told(states).unflatten(0, ids.shape)
            told += rows.transpose(1, 2).chunk(2, dim=1)
        return tuple(told)


class Steps(Exported):
    """Some new tokens behind those that were read: logits of the new ones, and all keys and values."""

    def __init__(self, network: LanguageModel, mode: Mode) -> None:
        super().__init__()
        self.network, self.mode = network, mode

    def arguments(self, named: Mapping[str, Any]) -> tuple[Any, ...]:
        """What is said of the inputs by name, as `forward` takes it."""
        past, across = ([one for name, one in named.items() if name.startswith(f"{what}.")]
                        for what in ("past", "across"))
        source = (across, named["source_valid"]) if across else ()
        return named["ids"], named["valid"], past, *source

    def forward(self, ids: Tensor, real: Tensor, past: list[Tensor], across: list[Tensor] | None = None,
                source: Tensor | None = None) -> tuple[Tensor, ...]:
        """(B, L) new ids to logits (B, L, V) and what is kept now.

        Args:
            real: (B, P + L), which of the old and new tokens are real.
            past: keys, then values of each layer, (B, K, P, D); P may be 0.
            across: the same of a source, as `Tells` gives it, with `source` (B, M), which of its tokens are real.
        """
        network, keys = self.network, fields_of(real)
        first = real.shape[1] - ids.shape[1]
        queries = {name: fact[:, first:] for name, fact in keys.items()}
        stores = [Growing(*pair) for pair in pairs(past)]
        crossing: list[tuple[Tensor | Kept, Plan]] | None = None
        if across is not None and source is not None:
            plan = Rows(queries, fields_of(source)).plan(bidirectional)
            crossing = [(Kept(*pair), plan) for pair in pairs(across)]
        states = through(network, ids, queries, keys, self.mode.visibility, stores, crossing)
        kept = [tensor for store in stores for tensor in (store.keys, store.values)]
        return network.logits(states).unflatten(0, ids.shape), *kept


def through(network: LanguageModel, ids: Tensor, queries: Fields, keys: Fields, visibility: Visibility,
            stores: Sequence[Growing] = (), across: list[tuple[Tensor | Kept, Plan]] | None = None,
            source: bool = False) -> Tensor:
    """Padded rows through a tower: the states of all tokens, (B L, D)."""
    tower = network.source_tower if source else network.tower
    assert tower is not None
    flat = {name: fact.flatten() for name, fact in queries.items()}
    embedded = network._embed(Example(ids.flatten(), visibility, flat), network.source_embedding if source else None)
    rows = Rows(queries, keys, stores)
    planner = None if stores else cast(Planner, rows)
    states, _ = tower(embedded, flat, visibility, planner, cast(Cache, rows) if stores else None, across)
    return cast(Tensor, states)


def pairs(tensors: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Keys and values of each layer."""
    return list(zip(tensors[::2], tensors[1::2], strict=True))
