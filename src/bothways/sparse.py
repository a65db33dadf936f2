"""Sparse patterns over places: global tokens, strides and random links, to be joined with a window.

    >>> window(2, 2) | global_tokens(0)
    within 2 tokens or from and to the global token at 0

Longformer is `window | global`, BigBird `window | global | random`, and the Sparse Transformer
`causal & (window | strided)`.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from torch import Tensor

from bothways.visibility import Fields, Visibility, need_size


@dataclass(frozen=True, repr=False)
class Global(Visibility):
    """A global token sees all and is seen by all (Longformer, arXiv 2004.05150, section 3.1).

    Global are the tokens whose `global` field is 1, or those at the indexes `places`.
    """

    places: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        places = self.places
        if places is not None and not (places and all(type(place) is int and place >= 0 for place in places)):
            raise ValueError("global tokens are named by their indexes, as in global(0, 5)")

    @property
    def needs(self) -> frozenset[str]:  # type: ignore[override]
        return frozenset({"global" if self.places is None else "index"})

    def chosen(self, fields: Fields) -> Tensor:
        """Which tokens are global: (..., L) bool."""
        if self.places is None:
            return fields["global"] == 1
        return functools.reduce(torch.logical_or, (fields["index"] == place for place in self.places))

    def allows(self, queries: Fields, keys: Fields) -> Tensor:
        return self.chosen(queries).unsqueeze(-1) | self.chosen(keys).unsqueeze(-2)

    def __repr__(self) -> str:
        which = "tokens" if self.places is None else "token" + "s" * (len(self.places) > 1) + " at " + ", ".join(
            map(str, self.places))
        return f"from and to the global {which}"


@dataclass(frozen=True, repr=False)
class Strided(Visibility):
    """A token sees those a multiple of `step` indexes away, itself included (arXiv 1904.10509, section 4)."""

    step: int
    needs = frozenset({"index"})

    def __post_init__(self) -> None:
        need_size("a stride", self.step)

    def allows(self, queries: Fields, keys: Fields) -> Tensor:
        query, key = queries["index"].unsqueeze(-1), keys["index"].unsqueeze(-2)
        return (query - key) % self.step == 0

    def __repr__(self) -> str:
        return f"at multiples of {self.step} tokens"


@dataclass(frozen=True, repr=False)
class Random(Visibility):
    """Random links that never change (the random blocks of BigBird, arXiv 2007.14062, section 2, as single tokens).

    The token at index i > 0 is linked to up to `links` earlier ones, at `hash(i, j, seed) mod i` for j < links (fewer
    where two fall together), and both ends see each other. So whether two tokens are linked depends on their two
    indexes and the seed alone, never on how long the text is, and a text read further keeps its links.
    """

    links: int
    seed: int = 0
    needs = frozenset({"index"})

    def __post_init__(self) -> None:
        need_size("a number of links", self.links)
        if type(self.seed) is not int or self.seed < 0:
            raise ValueError(f"a seed is a whole number of at least 0, not {self.seed!r}")

    def allows(self, queries: Fields, keys: Fields) -> Tensor:
        query, key = queries["index"].unsqueeze(-1), keys["index"].unsqueeze(-2)
        seen = torch.zeros(torch.broadcast_shapes(query.shape, key.shape), dtype=torch.bool, device=key.device)
        for link in range(self.links):
            seen = seen | (self._partner(query, link) == key) | (self._partner(key, link) == query)
        return seen

    def _partner(self, index: Tensor, link: int) -> Tensor:
        """The earlier token that link number `link` of each token leads to, -1 for the first token, which has none."""
        mixed = index * 0x5851F42D4C957F2D + (link * 0x14057B7EF767814F + self.seed * 0x2545F4914F6CDD1D) % 2**63
        for factor in (0x6C62272E07BB0142, 0x27D4EB2F165667C5):  # multiply and fold, as splitmix64 does
            mixed = (mixed ^ (mixed >> 29)) * factor
        return torch.where(index > 0, ((mixed ^ (mixed >> 32)) & 0x7FFFFFFF) % index.clamp(min=1), -1)

    def __repr__(self) -> str:
        return f"along {self.links} random link{'s' * (self.links > 1)} a token (seed {self.seed})"


def global_tokens(*places: int) -> Visibility:
    """The tokens at these indexes see all and are seen by all; without places, those whose field `global` is 1."""
    return Global(places or None)


def strided(step: int) -> Visibility:
    """The tokens a multiple of `step` indexes away; beside a causal window the Sparse Transformer."""
    return Strided(step)


def random_links(links: int, seed: int = 0) -> Visibility:
    """`links` random earlier tokens for each, seen from both ends; another `seed` draws others."""
    return Random(links, seed)
