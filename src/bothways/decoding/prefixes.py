"""What earlier calls have read, kept for the next: a beginning that prompts share is read once.

Exact where a token sees nothing behind it, so only visibilities with `causal` in them take part: what was computed of a
beginning is then the same whatever follows.
"""

from __future__ import annotations

import weakref
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from bothways.batch import Example, pack
from bothways.model import Cache, LanguageModel
from bothways.visibility import Causal

if TYPE_CHECKING:
    from bothways.decoding.reading import Reader


@dataclass(frozen=True)
class _Entry:
    """One text's tokens and fields, and its cache."""

    kind: object
    tokens: tuple[int, ...]
    fields: dict[str, Tensor]
    cache: Cache


class Prefixes:
    """Caches of texts that were read, the least recently used dropped first.

    Args:
        most: bytes of keys and values that are kept.
    """

    def __init__(self, most: int = 1 << 28) -> None:
        self.most = most
        self.read = 0
        """Tokens that were not read again, over all calls."""
        self._entries: OrderedDict[tuple[object, tuple[int, ...]], _Entry] = OrderedDict()
        self._network: weakref.ref[LanguageModel] | None = None
        self._weights = -1

    @property
    def bytes(self) -> int:
        """Memory of what is kept."""
        return sum(entry.cache.bytes for entry in self._entries.values())

    def find(self, reader: Reader, examples: Sequence[Example]) -> tuple[Cache, Tensor, list[int]] | None:
        """The examples read with the help of what is kept: cache, states (N, D) of what had to be read, and where in
        them each text ends; none if nothing fits."""
        self._same_weights(reader.network)
        best = [self._best(example, reader) for example in examples]
        if not any(best):
            return None
        joined: Cache | None = None
        states, ends = [], []
        for example, found in zip(examples, best, strict=True):
            if found is None:
                cache, rest = reader.new_cache(1, len(example)), example
            else:
                entry, length = found
                cache, rest = entry.cache.copy([0]), _behind(example, length)
                cache.shorten([length])
                self.read += length
                self._entries.move_to_end((entry.kind, entry.tokens))
            (row,) = pack([rest])
            states.append(reader.network(row.to(reader.device), cache=cache).states)
            ends.append(sum(map(len, states)) - 1)
            if joined is None:
                joined = cache
            else:
                joined.join(cache)
        assert joined is not None
        return joined, torch.cat(states), ends

    def add(self, network: LanguageModel, examples: Sequence[Example], cache: Cache) -> None:
        """Keep what was read of these, document by document of the cache."""
        self._same_weights(network)
        for number, example in enumerate(examples):
            kind, tokens = _kind(example), tuple(example.inputs.tolist())
            if Causal() not in example.visibility.conjuncts() or (kind, tokens) in self._entries:
                continue
            self._entries[kind, tokens] = _Entry(kind, tokens, example.fields, cache.copy([number]))
        while self._entries and self.bytes > self.most:
            self._entries.popitem(last=False)

    def _best(self, example: Example, reader: Reader) -> tuple[_Entry, int] | None:
        """The entry that shares the longest beginning, and how long it is; the last token is always read."""
        best, kind, tokens = None, _kind(example), example.inputs
        for entry in self._entries.values():
            if entry.kind != kind or entry.cache.numbers != reader.numbers or entry.cache.slack != reader.slack:
                continue
            length = min(len(entry.tokens), len(tokens) - 1)
            same = tokens[:length] == torch.tensor(entry.tokens[:length], dtype=torch.long)
            for name, values in example.fields.items():
                same &= values[:length] == entry.fields[name][:length]
            length = length if bool(same.all()) else int(same.long().argmin())
            narrow = any(store.ring is not None and len(entry.tokens) > store.ring for store in entry.cache.stores)
            if narrow and len(entry.tokens) - length > (entry.cache.slack or 0):
                continue
            if length < len(entry.tokens) and not all(store.takes_back for store in entry.cache.stores):
                continue
            if (length or example.source is not None) and (best is None or length > best[1]):
                best = entry, length
        return best

    def _same_weights(self, network: LanguageModel) -> None:
        """Forget everything when it was read by another network, or by this one before its weights changed."""
        weights = sum(parameter._version for parameter in network.parameters())
        if self._network is None or self._network() is not network or weights != self._weights:
            self._entries.clear()
        self._network, self._weights = weakref.ref(network), weights


def _kind(example: Example) -> object:
    """What two texts must share beside their beginning: the visibility, the fields' names, and all of a source."""
    source = None if example.source is None else (example.source.visibility, tuple(example.source.inputs.tolist()))
    return example.visibility, example.cross, source, frozenset(example.fields)


def _behind(example: Example, length: int) -> Example:
    """What is left to be read; a source has been."""
    return replace(example, inputs=example.inputs[length:], source=None,
                   fields={name: values[length:] for name, values in example.fields.items()})
