"""What flows through the house: a Window of text, the Example an objective makes of it, and the packer.

Nothing is ever padded. Examples keep whatever length corruption gave them; `pack` lays whole Examples end to
end into one flat row, each in a `document` of its own, so that `visibility & same_document` keeps them apart.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from bothways.visibility import Visibility, make_fields, same_document

IntArray = np.ndarray
SENTINELS, MOST_SENTINELS = 32, 256
"""How many sentinels a tokenizer carries at least, and how many one that is trained for long windows carries."""
RESERVED_TOKENS: tuple[str, ...] = (
    "<pad>", "<bos>", "<eos>", "<unk>", "<cls>", "<sep>", "<mask>", "<R>", "<S>", "<X>", "<think>", "</think>",
    *(f"<extra_{i}>" for i in range(SENTINELS)),
)
"""Every tokenizer carries these first, in this order, so any text can be trained with any objective."""


def reserved_tokens(sentinels: int = SENTINELS) -> tuple[str, ...]:
    """The reserved tokens of a tokenizer with so many sentinels: all that every one carries, then the further ones."""
    return RESERVED_TOKENS + tuple(f"<extra_{i}>" for i in range(SENTINELS, sentinels))


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """All that an objective may know of a tokenizer.

    `special`, `starts_word` and `ends_sentence` are (V,) bool tables over token ids, `n_bytes` is (V,) int: the
    UTF-8 bytes a token stands for (0 for reserved tokens). `capital` is (V,) bool, the tokens that begin a word with a
    capital letter; empty where nobody knows.
    """

    size: int
    ids: Mapping[str, int]
    special: np.ndarray
    starts_word: np.ndarray
    ends_sentence: np.ndarray
    n_bytes: np.ndarray
    capital: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))

    @property
    def pad(self) -> int:
        """The id of `<pad>`."""
        return self.ids["<pad>"]

    @property
    def bos(self) -> int:
        """The id of `<bos>`, which begins a document."""
        return self.ids["<bos>"]

    @property
    def eos(self) -> int:
        """The id of `<eos>`, which ends a document."""
        return self.ids["<eos>"]

    @property
    def cls(self) -> int:
        """The id of `<cls>`."""
        return self.ids["<cls>"]

    @property
    def sep(self) -> int:
        """The id of `<sep>`."""
        return self.ids["<sep>"]

    @property
    def mask(self) -> int:
        """The id of `<mask>`, which stands for a hidden token."""
        return self.ids["<mask>"]

    @functools.cached_property
    def sentinels(self) -> tuple[int, ...]:
        """The ids of `<extra_0>`, `<extra_1>`, ... in that order, up to the first that is missing."""
        names = (f"<extra_{i}>" for i in itertools.count())
        return tuple(self.ids[name] for name in itertools.takewhile(self.ids.__contains__, names))

    @classmethod
    def plain(cls, size: int, sentinels: int = SENTINELS) -> Vocabulary:
        """A vocabulary without text: the reserved tokens, and one-byte words for the rest of `size`."""
        ids = {name: i for i, name in enumerate(reserved_tokens(sentinels))}
        special = np.arange(size) < len(ids)
        return cls(size, ids, special, ~special, np.zeros(size, bool), np.where(special, 0, 1))


class Key(NamedTuple):
    """What noise is a function of, and nothing else: replayable, resumable, the same on one process and on many.

    `progress` (0 at the first step, 1 at the last) moves schedules such as a falling rate; it seeds nothing.
    """

    seed: int
    epoch: int
    index: int  # type: ignore[assignment]  # a tuple's method, not missed here
    progress: float = 0.0

    def rng(self, *salt: int) -> np.random.Generator:
        """The generator of this window in this epoch; `salt` gives independent ones for independent choices."""
        return np.random.default_rng((self.seed, self.epoch, self.index, *salt))


class Window(NamedTuple):
    """A slice of one document: `ids` (L,) int64, cut `start` tokens into document `document`.

    A document's ids are `<bos> ... <eos>`, so a window begins with `<bos>` exactly where its document begins.
    `index` is the window's number in its corpus: the index of its Key. `whole` says that it was cut at the ends of
    sentences, `other` is a window of another document, for objectives that ask for one (`training.data.corrupted`).
    `language` names what its document is written in, such as "text" or "python"; empty where nobody knows.
    """

    ids: IntArray
    document: int = 0
    start: int = 0
    index: int = 0  # type: ignore[assignment]
    language: str = ""
    whole: bool = False
    other: Window | None = None


@dataclass(frozen=True)
class Companion:
    """A part that an objective needs beside the trunk; `model` builds it, and it is trained, saved and counted with it.

    kind: what `model.companions` builds, such as "classes" (scores of `size` classes from a state).
    name: how the objective asks for it: the head of an Ask, or a key of `network.companions`.
    size: classes, or numbers of a latent vector; what it means belongs to the kind.
    share: of the trunk's width, for a kind that is a network of its own.
    """

    name: str
    kind: str
    size: int = 0
    share: float = 1.0


@dataclass(frozen=True)
class Ask:
    """What is asked of the network: the `targets` at the places `where`.

    where: (T,) int64, places in the Example's inputs whose states a head reads.
    targets: (T,) int64 token ids (or classes, for another head).
    weights: (T,) float32 or none for all ones.
    count: the denominator the paper uses (T for masked positions, all real tokens for a diffusion bound).
    part, coefficient: the name and weight of the loss part this belongs to; packing adds Asks of one part.
    """

    where: Tensor
    targets: Tensor
    weights: Tensor | None = None
    count: float = 0.0
    head: str = "tokens"
    part: str = "loss"
    coefficient: float = 1.0


@dataclass(frozen=True)
class Example:
    """What the network reads and what it is asked; one document, or many packed into a flat row of N tokens.

    `fields` stay on the CPU, where attention is planned; `raw` is the number of raw text tokens it was made from.
    With two towers `source` is the encoder's side, its documents numbered as ours, and `cross` says who of us may
    look across at whom.
    """

    inputs: Tensor
    visibility: Visibility
    fields: dict[str, Tensor] = field(default_factory=dict)
    asks: tuple[Ask, ...] = ()
    source: Example | None = None
    cross: Visibility | None = None
    raw: int = 0

    def __post_init__(self) -> None:
        if "index" not in self.fields:
            object.__setattr__(self, "fields", {**make_fields(len(self.inputs)), **self.fields})

    def __len__(self) -> int:
        return len(self.inputs)

    def to(self, device: torch.device | str) -> Example:
        """The same Example with inputs and asks on `device`; fields stay where attention is planned."""
        asks = tuple(replace(ask, where=ask.where.to(device), targets=ask.targets.to(device),
                             weights=None if ask.weights is None else ask.weights.to(device)) for ask in self.asks)
        return replace(self, inputs=self.inputs.to(device), asks=asks,
                       source=None if self.source is None else self.source.to(device))


def pack(examples: Iterable[Example]) -> list[Example]:
    """Lay Examples end to end: one flat row for each distinct visibility, sources beside their targets.

    Every Example becomes a document of its own (or several, if it had several), and the row's visibility is the
    Examples' own `& same_document`. Asks of the same head and part are joined and their counts added.
    """
    alike: dict[object, list[Example]] = {}
    for example in examples:
        alike.setdefault(kind(example), []).append(example)
    return [_join(group) for group in alike.values()]


def kind(example: Example) -> object:
    """What Examples must share to lie in one row: who sees whom, and the facts that are known of their tokens."""
    source = example.source
    return (example.visibility, example.cross, None if source is None else source.visibility,
            frozenset(example.fields))


def groups(sizes: Iterable[int], budget: int) -> Iterator[list[int]]:
    """Numbers of things in order, as many together as fit into the budget; one that is larger is alone."""
    group: list[int] = []
    filled = 0
    for i, size in enumerate(sizes):
        if group and filled + size > budget:
            yield group
            group, filled = [], 0
        group.append(i)
        filled += size
    if group:
        yield group


def _join(group: Sequence[Example]) -> Example:
    """One row from Examples of one kind."""
    offsets = np.cumsum([0, *(len(example) for example in group)])
    documents = [int(example.fields["document"].max()) + 1 if len(example) else 1 for example in group]
    firsts = np.cumsum([0, *documents])

    def fields_of(parts: Sequence[Example]) -> dict[str, Tensor]:
        joined = {name: torch.cat([part.fields[name] for part in parts]) for name in parts[0].fields}
        joined["document"] = torch.cat([part.fields["document"] + int(first)
                                        for part, first in zip(parts, firsts, strict=False)])
        return joined

    # 1. the source row, whose documents carry the same numbers as ours
    source = None
    if group[0].source is not None:
        sources = [example.source for example in group if example.source is not None]
        source = Example(torch.cat([s.inputs for s in sources]), sources[0].visibility & same_document,
                         fields_of(sources))
    # 2. the row itself, and the asks moved to where their Examples now lie
    cross = group[0].cross
    return Example(torch.cat([example.inputs for example in group]), group[0].visibility & same_document,
                   fields_of(group), _join_asks(group, offsets), source,
                   None if cross is None else cross & same_document, sum(example.raw for example in group))


def _join_asks(group: Sequence[Example], offsets: np.ndarray) -> tuple[Ask, ...]:
    """Asks of the same (head, part, coefficient) become one; a missing weight is 1 beside present ones."""
    asks: dict[tuple[str, str, float], list[tuple[int, Ask]]] = {}
    for example, offset in zip(group, offsets, strict=False):
        for ask in example.asks:
            asks.setdefault((ask.head, ask.part, ask.coefficient), []).append((int(offset), ask))
    joined = []
    for (head, part, coefficient), members in asks.items():
        weighted = any(ask.weights is not None for _, ask in members)
        weights = torch.cat([torch.ones(len(ask.targets)) if ask.weights is None else ask.weights
                             for _, ask in members]) if weighted else None
        joined.append(Ask(torch.cat([ask.where + offset for offset, ask in members]),
                          torch.cat([ask.targets for _, ask in members]), weights,
                          sum(ask.count for _, ask in members), head, part, coefficient))
    return tuple(joined)
