"""Questions that have something in common, asked together: what they share is read once.

Two things can be shared, and both are exact:

- Questions about the same inputs (a masked network asked for several words in one blank) are one pass with several
  targets.
- Questions of a network that looks left share their beginning: a text before all its labels, a label before all its
  texts. They are laid as a tree, depth first, in which a token sees itself and those above it, at the place it has
  in its own text. What stands behind the last token that is asked from is seen by nobody who answers, and is not read.

Two towers share the source as well, which must be the same: the tree is what the decoder reads.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from bothways.batch import Example, kind
from bothways.evaluation.answers import TOKENS, Answers, answers
from bothways.visibility import Fields, IntoPrefix, Visibility, causal, prefix

if TYPE_CHECKING:
    from bothways.families.trained import Trained
    from bothways.model import ModelConfig

LARGEST = 512
"""Tokens of a tree, at most: every token is compared with every other of its tree."""
_PLAIN = frozenset({"index", "position", "document"})


@dataclass(frozen=True, repr=False)
class Ancestors(Visibility):
    """In a tree that is laid out depth first, a token sees itself and those above it.

    `rank` is the place of a token in that order, `last` the rank of the last one below it (its own where none is).
    """

    needs = frozenset({"rank", "last"})

    def allows(self, queries: Fields, keys: Fields) -> Tensor:
        query, key = queries["rank"].unsqueeze(-1), keys["rank"].unsqueeze(-2)
        return (key <= query) & (query <= keys["last"].unsqueeze(-2))

    def __repr__(self) -> str:
        return "up the tree"


class Asked(NamedTuple):
    """One Example that asks what several do, and for each of those the places of its answers among those of all."""

    example: Example
    places: list[np.ndarray]


def answers_together(trained: Trained, examples: Sequence[Example], tokens: int = TOKENS) -> list[Answers]:
    """`answers`, with what Examples share computed once.

    Args:
        examples: with one Ask each; those that could share lie together or not, and come back in this order.
    """
    asked, numbers = [], []
    for group in _groups(trained.config, examples):
        asked.append(tree([one.example for one in group]))
        numbers.append([one.number for one in group])
    found: list[Answers | None] = [None] * len(examples)
    for one, group_numbers, answered in zip(asked, numbers, answers(trained, [one.example for one in asked], tokens),
                                            strict=True):
        for number, places in zip(group_numbers, one.places, strict=True):
            found[number] = Answers(answered.log_probs[places], answered.correct[places])
    return [one for one in found if one is not None]


def tree(examples: Sequence[Example]) -> Asked:
    """Examples as one: a branch leaves where an Example differs from the one before it.

    Args:
        examples: at least one, with one Ask each, of one kind and one source; unless all have the same inputs, they
            look left (or at a prefix that is the same in all) and are numbered from their beginning.
    """
    first = examples[0]
    # 1. the place in the tree of every token of every Example, and the last place below each token of the tree
    inputs, depths = [_ids(first)], [np.arange(len(first))]
    path, size, paths, branches = np.arange(len(first)), len(first), [], False
    last = np.full(sum(map(len, examples)), -1)
    before = _ids(first)
    for example in examples:
        ids = _ids(example)
        common = shared_beginning(before, ids)
        if common < len(ids):
            branches = branches or common < len(before)
            last[path[common:]] = size - 1
            new = np.arange(size, size + len(ids) - common)
            inputs.append(ids[common:])
            depths.append(np.arange(common, len(ids)))
            path, before, size = np.concatenate((path[:common], new)), ids, size + len(new)
        paths.append(path[:len(ids)])
    last = np.where(last[:size] < 0, size - 1, last[:size])
    # 2. what is asked: each target at each place once, in the order of the places
    wanted = [np.stack((path[example.asks[0].where.numpy()], example.asks[0].targets.numpy()), axis=1)
              for path, example in zip(paths, examples, strict=True)]
    unique, back = np.unique(np.concatenate(wanted), axis=0, return_inverse=True)
    where, targets = torch.from_numpy(unique[:, 0].copy()), torch.from_numpy(unique[:, 1].copy())
    ask = replace(first.asks[0], where=where, targets=targets, weights=None, count=float(len(where)))
    places = np.split(back.reshape(-1), np.cumsum([len(one) for one in wanted])[:-1])
    # 3. the Example; one path alone is what it was
    longest = max(examples, key=len)
    if not branches:
        return Asked(replace(longest, asks=(ask,)), places)
    depth = torch.from_numpy(np.concatenate(depths))
    fields = {"index": depth, "position": depth, "document": torch.zeros_like(depth),
              "rank": torch.arange(size), "last": torch.from_numpy(last)}
    sees: Visibility = Ancestors()
    if "prefix" in first.fields:
        fields["prefix"] = (depth < int(first.fields["prefix"].sum())).long()
        sees = sees | IntoPrefix()
    return Asked(replace(first, inputs=torch.from_numpy(np.concatenate(inputs)), visibility=sees, fields=fields,
                         asks=(ask,), raw=size), places)


def shared_beginning(one: np.ndarray, other: np.ndarray) -> int:
    """The number of tokens with which both begin."""
    same = min(len(one), len(other))
    differ = np.flatnonzero(one[:same] != other[:same])
    return int(differ[0]) if len(differ) else same


def looks_left(example: Example, config: ModelConfig) -> bool:
    """Whether what is computed of a token depends on nothing behind it (or on a prefix alone), and on its place in its
    own text, not in the row: then questions that begin alike can be a tree."""
    wanted = {causal: _PLAIN, prefix: _PLAIN | {"prefix"}}.get(example.visibility)
    only_attention = config.mixer.kind == "attention" and not config.convolution.kernel and not config.head.decoder
    if wanted is None or wanted != example.fields.keys() or not only_attention:
        return False
    places = torch.arange(len(example))
    return torch.equal(example.fields["index"], places) and torch.equal(example.fields["position"], places)


class _Question(NamedTuple):
    number: int
    example: Example
    left: bool


def _groups(config: ModelConfig, examples: Sequence[Example]) -> Iterator[list[_Question]]:
    """Examples that are to be one, in the order in which they share the most."""
    # 1. side by side: of one kind and source, then by their tokens
    keyed = []
    kinds: dict[object, int] = {}
    for number, example in enumerate(examples):
        left = looks_left(example, config)
        example = _cut(example) if left else example
        alike = kinds.setdefault((kind(example), example.asks[0].head, left), len(kinds))
        keyed.append(((alike, _key(example, left), _bytes(example.inputs)), _Question(number, example, left)))
    keyed.sort(key=lambda one: one[0])
    # 2. together as long as that saves more than it costs
    group: list[_Question] = []
    size, before = 0, None
    for (*key, _), one in keyed:
        ids = _ids(one.example)
        common = shared_beginning(_ids(group[-1].example), ids) if group and key == before else 0
        if group and key == before and (common == len(ids) == len(group[-1].example) or (
                one.left and _pays(one.example, common, size, config))):
            group.append(one)
            size += len(ids) - common
            continue
        if group:
            yield group
        group, size, before = [one], len(ids), key
    if group:
        yield group


def _pays(example: Example, common: int, size: int, config: ModelConfig) -> bool:
    """Whether a tree of `size` tokens should take an Example in that begins with `common` of them.

    A shared token saves about 12 products of width x width a layer; a new one is compared with all of the tree, in
    both directions and through a softmax. A source that is shared is worth both.
    """
    new = len(example) - common
    if "prefix" in example.fields and common < int(example.fields["prefix"].sum()):
        return False
    if size + new > LARGEST:
        return False
    return example.source is not None or common * config.shape.width > size * new


def _cut(example: Example) -> Example:
    """Without the tokens behind the last that is asked from; a prefix stays whole."""
    where = example.asks[0].where
    length = max(1, int(where.max()) + 1 if len(where) else 1)
    if "prefix" in example.fields:
        length = max(length, int(example.fields["prefix"].sum()))
    if length == len(example):
        return example
    return replace(example, inputs=example.inputs[:length],
                   fields={name: values[:length] for name, values in example.fields.items()})


def _key(example: Example, left: bool) -> bytes:
    """What Examples must share beside their tokens: a source, the length of a prefix, and all that is known of tokens
    that make no tree."""
    found = hashlib.blake2b(digest_size=16)
    if example.source is not None:
        found.update(_bytes(example.source.inputs))
        for name in sorted(example.source.fields):
            found.update(_bytes(example.source.fields[name]))
    if "prefix" in example.fields and left:
        found.update(str(int(example.fields["prefix"].sum())).encode())
    if not left:
        for name in sorted(example.fields):
            found.update(_bytes(example.fields[name]))
    return found.digest()


def _ids(example: Example) -> np.ndarray:
    found: np.ndarray = example.inputs.numpy()
    return found


def _bytes(ids: Tensor) -> bytes:
    """In the order of the tokens: the first decides."""
    return bytes(ids.numpy().astype(">i8").tobytes())
