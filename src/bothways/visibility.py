"""Who may see whom.

A `Visibility` is a small, static, hashable sentence about two tokens: may the *query* look at the *key*?
It holds no tensor. What it needs to know of the tokens are named integer fields (`index`, `document`,
`prefix`, ...), which travel in the Example, and which a cache stores for its keys. `allows` is the one
definition of truth; every rendering a kernel uses (a causal flag, one call per document, a dense grid, a
block mask) is tested against it.

    >>> prefix & same_document
    (causal or into the prefix) and inside one document

`True` always means *may see*.
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

Fields = Mapping[str, Tensor]
"""Per-token integer facts, each (..., L): index, position, document, prefix, rank, valid, ..."""


class Visibility(ABC):
    """May a query token look at a key token? Combine values with `&` and `|`."""

    needs: frozenset[str] = frozenset()
    """The fields that queries and keys must carry."""

    @abstractmethod
    def allows(self, queries: Fields, keys: Fields) -> Tensor:
        """The truth, as a grid.

        Args:
            queries: fields of the tokens that look, each (..., Lq) int.
            keys: fields of the tokens that are looked at, each (..., Lk) int.
        Returns:
            (..., Lq, Lk) bool, `True` where the query may see the key.
        Raises:
            KeyError: a field in `needs` is missing.
        """

    def __and__(self, other: Visibility) -> Visibility:
        return _combine(AllOf, self, other)

    def __or__(self, other: Visibility) -> Visibility:
        return _combine(AnyOf, self, other)

    def conjuncts(self) -> frozenset[Visibility]:
        """The parts that must all hold; empty for `bidirectional`."""
        return frozenset({self})


def _pair(name: str, queries: Fields, keys: Fields) -> tuple[Tensor, Tensor]:
    """One field of both sides, shaped to broadcast into a grid: (..., Lq, 1) and (..., 1, Lk)."""
    return queries[name].unsqueeze(-1), keys[name].unsqueeze(-2)


@dataclass(frozen=True, repr=False)
class Bidirectional(Visibility):
    """Every token sees every token."""

    needs = frozenset({"index"})

    def allows(self, queries: Fields, keys: Fields) -> Tensor:
        query, key = _pair("index", queries, keys)
        return torch.ones(torch.broadcast_shapes(query.shape, key.shape), dtype=torch.bool, device=key.device)

    def conjuncts(self) -> frozenset[Visibility]:
        return frozenset()

    def __repr__(self) -> str:
        return "bidirectional"


@dataclass(frozen=True, repr=False)
class Causal(Visibility):
    """A token sees itself and what stands before it."""
    needs = frozenset({"index"})

    def allows(self, queries: Fields, keys: Fields) -> Tensor:
        query, key = _pair("index", queries, keys)
        return key <= query

    def __repr__(self) -> str:
        return "causal"


@dataclass(frozen=True, repr=False)
class IntoPrefix(Visibility):
    """Every token sees the tokens whose `prefix` field is 1."""

    needs = frozenset({"prefix"})

    def allows(self, queries: Fields, keys: Fields) -> Tensor:
        query, key = _pair("prefix", queries, keys)
        return (key == 1).expand(torch.broadcast_shapes(query.shape, key.shape))

    def __repr__(self) -> str:
        return "into the prefix"


@dataclass(frozen=True, repr=False)
class Window(Visibility):
    """A token sees at most `left` tokens before it and `right` tokens after it; `None` is no limit."""

    left: int | None = None
    right: int | None = None
    needs = frozenset({"index"})

    def __post_init__(self) -> None:
        if any(reach is not None and reach < 0 for reach in (self.left, self.right)):
            raise ValueError(f"a window reaches 0 or more tokens to a side, not {self.left} and {self.right}")

    def allows(self, queries: Fields, keys: Fields) -> Tensor:
        query, key = _pair("index", queries, keys)
        distance = query - key
        seen = torch.ones_like(distance, dtype=torch.bool)
        if self.left is not None:
            seen &= distance <= self.left
        if self.right is not None:
            seen &= distance >= -self.right
        return seen

    def __repr__(self) -> str:
        if self.left == self.right and self.left is not None:
            return f"within {self.left} tokens"
        sides = [f"{reach} tokens to the {side}" for side, reach in (("left", self.left), ("right", self.right))
                 if reach is not None]
        return "within " + " and ".join(sides) if sides else "within any distance"


@dataclass(frozen=True, repr=False)
class SameDocument(Visibility):
    """A token sees the tokens that share its `document` field."""

    needs = frozenset({"document"})

    def allows(self, queries: Fields, keys: Fields) -> Tensor:
        query, key = _pair("document", queries, keys)
        return query == key

    def __repr__(self) -> str:
        return "inside one document"


@dataclass(frozen=True, repr=False)
class Order(Visibility):
    """Permuted order by the `rank` field (XLNet, arXiv 1906.08237, eq. 4).

    The content stream sees ranks up to its own; the query stream (`strict`) only lower ones, so a query
    knows its place but not the content that stands there.
    """

    strict: bool = False
    needs = frozenset({"rank"})

    def allows(self, queries: Fields, keys: Fields) -> Tensor:
        query, key = _pair("rank", queries, keys)
        return key < query if self.strict else key <= query

    def __repr__(self) -> str:
        return "strictly earlier in the permuted order" if self.strict else "in permuted order"


@dataclass(frozen=True, repr=False)
class IntoPart(Visibility):
    """Only tokens whose `part` field is this one are seen: streams laid beside each other in one row."""

    part: int = 0
    needs = frozenset({"part"})

    def allows(self, queries: Fields, keys: Fields) -> Tensor:
        query, key = _pair("part", queries, keys)
        return (key == self.part).expand(torch.broadcast_shapes(query.shape, key.shape))

    def __repr__(self) -> str:
        return f"into part {self.part}"


@dataclass(frozen=True, repr=False)
class FromPart(Visibility):
    """Only tokens whose `part` field is this one look."""

    part: int = 0
    needs = frozenset({"part"})

    def allows(self, queries: Fields, keys: Fields) -> Tensor:
        query, key = _pair("part", queries, keys)
        return (query == self.part).expand(torch.broadcast_shapes(query.shape, key.shape))

    def __repr__(self) -> str:
        return f"from part {self.part}"


@dataclass(frozen=True, repr=False)
class Valid(Visibility):
    """Only keys whose `valid` field is 1 are seen (0 marks padding)."""

    needs = frozenset({"valid"})

    def allows(self, queries: Fields, keys: Fields) -> Tensor:
        query, key = _pair("valid", queries, keys)
        return (key == 1).expand(torch.broadcast_shapes(query.shape, key.shape))

    def __repr__(self) -> str:
        return "not into padding"


@dataclass(frozen=True, repr=False)
class _ByBlock(Visibility):
    """Blocks are the `block` field, or runs of `size` indexes (chunks)."""

    size: int | None = None

    def __post_init__(self) -> None:
        need_size("a block", self.size)

    @property
    def needs(self) -> frozenset[str]:  # type: ignore[override]
        return frozenset({"block" if self.size is None else "index"})

    def _blocks(self, queries: Fields, keys: Fields) -> tuple[Tensor, Tensor]:
        return block_of(queries, self.size).unsqueeze(-1), block_of(keys, self.size).unsqueeze(-2)


class SameBlock(_ByBlock):
    """A token sees the tokens of its own block. With a size and beside `causal`: a chunked layer of Llama 4."""

    def allows(self, queries: Fields, keys: Fields) -> Tensor:
        query, key = self._blocks(queries, keys)
        return query == key

    def __repr__(self) -> str:
        return "inside one block" if self.size is None else f"inside one chunk of {self.size} tokens"


class BlockCausal(_ByBlock):
    """A token sees its own block and earlier ones (BD3-LM, arXiv 2503.09573, section 3.1)."""

    def allows(self, queries: Fields, keys: Fields) -> Tensor:
        query, key = self._blocks(queries, keys)
        return key <= query

    def __repr__(self) -> str:
        return "causal by blocks" if self.size is None else f"causal by blocks of {self.size} tokens"


def block_of(fields: Fields, size: int | None) -> Tensor:
    """The block each token is in, (..., L) int: its `block` field, or which run of `size` indexes it is in."""
    return fields["block"] if size is None else fields["index"] // size


def need_size(what: str, size: object, given: bool = False) -> None:
    """Refuse a size that is no whole number of at least 1, or, where it must be `given`, none."""
    if given and size is None:
        raise ValueError(f"{what} needs a size, such as 4")
    if size is not None and (type(size) is not int or size < 1):
        raise ValueError(f"{what} is a whole number of at least 1, not {size!r}")


@dataclass(frozen=True, repr=False)
class AllOf(Visibility):
    """Every part must allow it. Two values with the same parts are equal, in whatever order they were written."""

    parts: frozenset[Visibility]

    @property
    def needs(self) -> frozenset[str]:  # type: ignore[override]
        return frozenset().union(*(part.needs for part in self.parts))

    def allows(self, queries: Fields, keys: Fields) -> Tensor:
        return functools.reduce(torch.logical_and, (part.allows(queries, keys) for part in _sorted(self.parts)))

    def conjuncts(self) -> frozenset[Visibility]:
        return self.parts

    def __repr__(self) -> str:
        return " and ".join(f"({part!r})" if isinstance(part, AnyOf) else repr(part) for part in _sorted(self.parts))


@dataclass(frozen=True, repr=False)
class AnyOf(Visibility):
    """One part is enough to allow it."""

    parts: frozenset[Visibility]

    @property
    def needs(self) -> frozenset[str]:  # type: ignore[override]
        return frozenset().union(*(part.needs for part in self.parts))

    def allows(self, queries: Fields, keys: Fields) -> Tensor:
        return functools.reduce(torch.logical_or, (part.allows(queries, keys) for part in _sorted(self.parts)))

    def __repr__(self) -> str:
        return " or ".join(f"({part!r})" if isinstance(part, AllOf) else repr(part) for part in _sorted(self.parts))


_READING_ORDER: tuple[type[Visibility], ...] = (Bidirectional, Causal, Order, BlockCausal, AnyOf, AllOf, IntoPrefix,
                                                Window, SameBlock, FromPart, IntoPart, SameDocument, Valid)


def _sorted(parts: frozenset[Visibility]) -> list[Visibility]:
    """Parts in the order a sentence reads best; the direction comes first."""
    def place(part: Visibility) -> tuple[int, str]:
        known = type(part) in _READING_ORDER
        return (_READING_ORDER.index(type(part)) if known else len(_READING_ORDER), repr(part))
    return sorted(parts, key=place)


def _flat(kind: type[AllOf] | type[AnyOf], value: Visibility) -> Iterator[Visibility]:
    if isinstance(value, kind):
        yield from value.parts
    else:
        yield value


def _combine(kind: type[AllOf] | type[AnyOf], one: Visibility, other: Visibility) -> Visibility:
    """Flatten, drop duplicates, and let `bidirectional` vanish from an `and` and swallow an `or`."""
    parts = frozenset((*_flat(kind, one), *_flat(kind, other)))
    if kind is AnyOf and bidirectional in parts:
        return bidirectional
    parts -= {bidirectional}
    if not parts:
        return bidirectional
    return next(iter(parts)) if len(parts) == 1 else kind(parts)


def window(left: int | None = None, right: int | None = None) -> Visibility:
    """At most `left` tokens back and `right` tokens ahead; `None` is no limit (Longformer, Mistral)."""
    return bidirectional if left is None and right is None else Window(left, right)


def order(stream: str = "content") -> Visibility:
    """Permuted order for the `content` or the `query` stream of XLNet, over the `rank` field."""
    if stream not in ("content", "query"):
        raise ValueError(f"a permuted order has the streams 'content' and 'query', not '{stream}'")
    return Order(strict=stream == "query")


def chunked(size: int) -> Visibility:
    """Only inside one chunk of `size` indexes; `causal & chunked(8192)` is a chunked layer of Llama 4."""
    need_size("a chunk", size, given=True)
    return SameBlock(size)


def block_causal(size: int) -> Visibility:
    """Its own block of `size` indexes and earlier ones; over the `block` field it is the value `by_blocks`."""
    need_size("a block", size, given=True)
    return BlockCausal(size)


def into_part(part: int = 0) -> Visibility:
    """Only the tokens of this `part` are seen."""
    return IntoPart(part)


def from_part(part: int = 0) -> Visibility:
    """Only the tokens of this `part` look."""
    return FromPart(part)


bidirectional: Visibility = Bidirectional()
causal: Visibility = Causal()
prefix: Visibility = AnyOf(frozenset({IntoPrefix(), Causal()}))
same_document: Visibility = SameDocument()
same_block: Visibility = SameBlock()
by_blocks: Visibility = BlockCausal()
valid: Visibility = Valid()
two_streams: Visibility = IntoPart(0) & (Order(strict=True) | (FromPart(0) & Order()))
"""XLNet's (arXiv 1906.08237, eq. 4): contents are part 0 and see ranks up to their own; queries are another part, see
only lower ranks, and nobody sees them."""

NAMED: dict[str, Visibility] = {
    "bidirectional": bidirectional, "causal": causal, "prefix": prefix, "same_document": same_document,
    "two-streams": two_streams, "valid": valid, "order": Order(), "order-query": Order(strict=True),
    "same-block": same_block, "block-causal": by_blocks,
}
"""What a name on the command line or in a folder can stand for; `window(l, r)` and other sizes are parsed apart."""


def make_fields(length: int, **facts: Tensor) -> dict[str, Tensor]:
    """The fields of one document of `length` tokens, with any others given: (L,) int64 each."""
    place = torch.arange(length)
    return {"index": place, "position": place, "document": torch.zeros(length, dtype=torch.long), **facts}


def grid(visibility: Visibility, fields: Fields) -> Tensor:
    """What a picture shows: (L, L) bool of tokens looking at themselves and each other."""
    return visibility.allows(fields, fields)


def density(visibility: Visibility, length: int, **facts: Tensor) -> float:
    """The share of query-key pairs that are allowed in one document of `length` tokens: 1.0 is bidirectional."""
    return float(grid(visibility, make_fields(length, **facts)).float().mean())
