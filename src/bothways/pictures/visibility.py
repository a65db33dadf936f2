"""Who may look at whom, as a picture: what there is to draw, before anyone draws it.

A `Picture` is made from the very Example that runs, or from a visibility and fields. `console.draw` and `svg.draw`
turn it into text and SVG. With two towers the source stands above the target, and the target's rows look at two
sets of columns: across at the source, and at themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
import torch

from bothways.batch import MOST_SENTINELS, Example
from bothways.objectives.base import Objective
from bothways.visibility import (
    AllOf,
    AnyOf,
    Fields,
    FromPart,
    IntoPart,
    IntoPrefix,
    Order,
    SameBlock,
    Valid,
    Visibility,
    Window,
    bidirectional,
    grid,
    make_fields,
)

Pieces = Callable[[Iterable[int]], Sequence[str]]
"""Token ids to printable strings: `Tokenizer.pieces`."""
STANDS_FOR_SOMETHING = frozenset({"<mask>", *(f"<extra_{i}>" for i in range(MOST_SENTINELS))})


class Asked(NamedTuple):
    """What the state of one row must predict."""

    token: str
    weight: float = 1.0


@dataclass(frozen=True)
class Side:
    """A row of tokens: they look (as rows) and are looked at (as columns).

    `hidden` are the places where something stands in for text, `asked` what the state at a place must predict.
    """

    name: str
    labels: tuple[str, ...]
    documents: tuple[int, ...]
    hidden: frozenset[int] = frozenset()
    asked: Mapping[int, tuple[Asked, ...]] = field(default_factory=dict)

    def boundaries(self) -> list[int]:
        """Places where another document begins."""
        return [i for i in range(1, len(self.documents)) if self.documents[i] != self.documents[i - 1]]


@dataclass(frozen=True)
class Picture:
    """Sides, and for each pair (row side, column side) that may look at all a (rows, columns) bool grid."""

    title: str
    sides: tuple[Side, ...]
    seen: Mapping[tuple[int, int], np.ndarray]
    sentences: tuple[str, ...]
    """One sentence a grid, in plain words."""

    @property
    def widest(self) -> int:
        """Columns of all sides together."""
        return sum(len(side.labels) for side in self.sides)


def of_visibility(visibility: Visibility, fields: Fields, labels: Sequence[str] | None = None) -> Picture:
    """The picture of a visibility over the given fields, each (L,) int."""
    length = len(fields["index"])
    names = tuple(map(label, labels)) if labels is not None else tuple(str(i) for i in range(length))
    documents = tuple(fields["document"].tolist()) if "document" in visibility.needs else (0,) * length
    return Picture(repr(visibility), (Side("token", names, documents),), {(0, 0): grid(visibility, fields).numpy()},
                   (sentence(visibility),))


def of_example(example: Example, pieces: Pieces, title: str | None = None,
               objective: Objective | None = None) -> Picture:
    """The picture of an Example as the network will be given it, with what is asked of each row.

    With the objective it is known whether a state speaks of its own place, and so whether what stands there, be it
    a random token or the right one, stands in for the answer.
    """
    classes = () if objective is None else tuple(one.name for one in objective.companions if one.kind == "classes")
    own = _side("target" if example.source is not None else "token", example, pieces, classes)
    here = {mode.head for mode in (() if objective is None else objective.modes)
            if mode.predicts == "here" and mode.visibility in (example.visibility, bidirectional)}
    own = replace(own, hidden=own.hidden.union(*(ask.where.tolist() for ask in example.asks if ask.head in here)))
    seen = {(0, 0): grid(example.visibility, example.fields).numpy()}
    if example.source is None or example.cross is None:
        return Picture(title or repr(example.visibility), (own,), seen, (sentence(example.visibility),))
    source = example.source
    grids = {(0, 0): grid(source.visibility, source.fields).numpy(), (1, 1): seen[0, 0],
             (1, 0): example.cross.allows(example.fields, source.fields).numpy()}
    sentences = (f"source: {sentence(source.visibility)}", f"target: {sentence(example.visibility)}",
                 f"target at source: {sentence(example.cross)}")
    words = f"source {source.visibility!r}; target {example.visibility!r}; across {example.cross!r}"
    return Picture(title or words, (_side("source", source, pieces), own), grids, sentences)


def sentence(visibility: Visibility) -> str:
    """The visibility in plain words, as something a token does."""
    parts = sorted(visibility.conjuncts(), key=lambda part: (isinstance(part, Valid), not isinstance(part, Window),
                                                             repr(part)))
    sees = [part for part in parts if _restricts(part) is None]
    only = [words for part in parts if (words := _restricts(part)) is not None]
    if len(sees) > 1 and IntoPrefix() in sees:
        sees.remove(IntoPrefix())
        only.append("but only in the prefix")
    what = ", and only then, ".join(map(_sees, sees)) or "every token"
    return f"a token sees {what}" + "".join(f", {words}" for words in only)


def _restricts(part: Visibility) -> str | None:
    """The words of a part that only narrows what is seen; none for one that says what."""
    if isinstance(part, Window):
        return f"but only {part!r}"
    if isinstance(part, IntoPart):
        return f"but only tokens of part {part.part}"
    if isinstance(part, FromPart):
        return f"if it is of part {part.part}"
    if isinstance(part, SameBlock):
        return "but only inside its own " + ("block" if part.size is None else f"chunk of {part.size} tokens")
    return {"SameDocument": "but only inside its own document", "Valid": "never padding"}.get(type(part).__name__)


def _sees(part: Visibility) -> str:
    """The words of a part that says what is seen."""
    if isinstance(part, AnyOf):
        return ", or ".join(sorted((_sees(one) for one in part.parts), key=len, reverse=True))
    if isinstance(part, AllOf):
        return sentence(part).removeprefix("a token sees ")
    return {"Causal": "itself and what stands before it", "IntoPrefix": "the prefix",
            "SameDocument": "its own document", "Valid": "what is no padding",
            "BlockCausal": "its own block and those before it", "SameBlock": "its own block",
            "Global": "what is global, and everything if it is itself"}.get(type(part).__name__) or (
        ("what comes before it in a shuffled order" if part.strict else "itself and what comes before it in a "
         "shuffled order") if isinstance(part, Order) else f"what is {part!r}")


def demo_fields(length: int) -> dict[str, torch.Tensor]:
    """Fields that make any visibility worth drawing, each (length,) int64.

    The first third is the prefix, the last third part 1, the text is two documents in blocks of four tokens, the order
    is a fixed shuffle, the first token is global, and the last two are padding.
    """
    place = torch.arange(length)
    rank = torch.from_numpy(np.random.default_rng(4).permutation(length))
    return make_fields(length, prefix=(place < max(1, length // 3)).long(), rank=rank,
                       part=(place >= length - length // 3).long(), block=place // 4,
                       **{"global": (place == 0).long()},
                       document=(place >= (length + 1) // 2).long(), valid=(place < max(1, length - 2)).long())


def label(piece: str) -> str:
    """A token's string without the spaces around it; a token of spaces shows one."""
    return piece.strip() or "␣"


def _side(name: str, example: Example, pieces: Pieces, classes: Sequence[str] = ()) -> Side:
    """Labels, document numbers and Asks of one tower's tokens; heads for classes are asked for numbers, by name."""
    labels = tuple(map(label, pieces(example.inputs.tolist())))
    asked: dict[int, tuple[Asked, ...]] = {}
    for ask in example.asks:
        weights = [1.0] * len(ask.targets) if ask.weights is None else ask.weights.tolist()
        targets = ask.targets.tolist()
        tokens = [f"{ask.head}={target}" for target in targets] if ask.head in classes else map(label, pieces(targets))
        for place, token, weight in zip(ask.where.tolist(), tokens, weights, strict=True):
            asked[place] = (*asked.get(place, ()), Asked(token, weight))
    hidden = frozenset(i for i, text in enumerate(labels) if text in STANDS_FOR_SOMETHING)
    return Side(name, labels, tuple(example.fields["document"].tolist()), hidden, asked)
