"""Texts as a network has read them: what every decoding from left to right stands on.

A `Reader` holds open texts, numbered 0 to B-1 as they came, with a key-value cache or, for reference, without.
Texts come (`join`), are read on (`read`), leave, repeat and change places (`keep`), and give tokens back (`take_back`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from bothways.batch import Example, pack
from bothways.errors import BothwaysError
from bothways.model import Cache, LanguageModel
from bothways.model.stores import Numbers
from bothways.visibility import Visibility

if TYPE_CHECKING:
    from bothways.decoding.prefixes import Prefixes


class Reader:
    """Open texts and the states of what is read of them.

    Args:
        network: in evaluation mode.
        cached: keep keys and values; without, every call reads all texts again from their beginnings.
        numbers: how a cache keeps them, see `Cache`.
        slack: how many tokens may be taken back at once.
        prefixes: what earlier calls have read, so that a beginning they share is not read again.
    """

    def __init__(self, network: LanguageModel, cached: bool = True, numbers: Numbers = "exact", slack: int = 0,
                 prefixes: Prefixes | None = None) -> None:
        self.network, self.cached, self.numbers, self.slack, self.prefixes = network, cached, numbers, slack, prefixes
        self.device = next(network.parameters()).device
        self.cache: Cache | None = None
        self.texts: list[Example] = []
        """Each text as far as it has been read."""
        self._fields: dict[str, Tensor] = {}
        self._kind: tuple[Visibility, Visibility | None, frozenset[str]] | None = None

    def __len__(self) -> int:
        return len(self.texts)

    def join(self, examples: Sequence[Example], most: int) -> tuple[Tensor, list[int]]:
        """More texts, read from their beginning: all their states (N, D), and where each text ends in them.

        Examples that are the same object are read once.

        Args:
            most: tokens that may be written after them, which there will be room for.
        Raises:
            BothwaysError: texts of different kinds.
        """
        distinct = list({id(example): example for example in examples}.values())
        place = {id(example): number for number, example in enumerate(distinct)}
        rows = pack(distinct)
        kind = rows[0].visibility, rows[0].cross, frozenset(rows[0].fields)
        if len(rows) != 1 or self._kind not in (None, kind):
            raise BothwaysError("texts written together must be of one kind: the same visibility and the same fields")
        self._kind = kind
        repeats = [place[id(example)] for example in examples]
        # 1. read them
        cache: Cache | None
        found = self.prefixes.find(self, distinct) if self.prefixes is not None and self.cached else None
        if found is not None:
            cache, states, ends = found
        else:
            ends = [end - 1 for end in torch.tensor([len(example) for example in distinct]).cumsum(0).tolist()]
            cache = self.new_cache(len(distinct), max(map(len, distinct)) + most) if self.cached else None
            states = self.network(rows[0].to(self.device), cache=cache).states
        # 2. they go on from their last token
        if cache is not None:
            if self.prefixes is not None:
                self.prefixes.add(self.network, distinct, cache)
            if repeats != list(range(len(distinct))):
                cache.keep(repeats)
            if self.cache is None:
                self.cache = cache
            else:
                self.cache.join(cache)
        self.texts += examples
        last = {name: torch.stack([example.fields[name][-1] for example in examples]) for name in examples[0].fields}
        if "prefix" in last:
            last["prefix"].zero_()
        self._fields = {name: torch.cat((self._fields[name], values)) if self._fields else values
                        for name, values in last.items()}
        self._fields["document"] = torch.arange(len(self.texts))
        return states, [ends[number] for number in repeats]

    def read(self, tokens: Sequence[Sequence[int]]) -> Tensor:
        """Read more tokens of each text, perhaps none; their states (N, D), text after text."""
        assert self._kind is not None
        counts = [len(more) for more in tokens]
        if self.cache is None:
            self.texts = [extended(text, more) for text, more in zip(self.texts, tokens, strict=True)]
            ends = torch.tensor([len(text) for text in self.texts]).cumsum(0).tolist()
            states = self.network(pack(self.texts)[0].to(self.device)).states
            return torch.cat([states[end - count:end] for end, count in zip(ends, counts, strict=True)])
        # 1. fields go on by one with each token
        moving = _advancing(self._fields)
        if all(count == 1 for count in counts):
            for name in moving:
                self._fields[name] = self._fields[name] + 1
            fields = dict(self._fields)
        else:
            many = torch.tensor(counts)
            fields = {name: values.repeat_interleave(many) for name, values in self._fields.items()}
            steps = torch.arange(1, sum(counts) + 1) - (many.cumsum(0) - many).repeat_interleave(many)
            for name in moving:
                fields[name] = fields[name] + steps
                self._fields[name] = self._fields[name] + many
        # 2. and the network reads them
        inputs = torch.tensor([token for more in tokens for token in more], dtype=torch.long, device=self.device)
        row = Example(inputs, self._kind[0], fields, cross=self._kind[1])
        return self.network(row, cache=self.cache).states

    def keep(self, texts: Sequence[int]) -> None:
        """Only these texts go on, in this order (repeats allowed); they are numbered anew."""
        if list(texts) == list(range(len(self.texts))):
            return
        self.texts = [self.texts[text] for text in texts]
        chosen = torch.tensor(list(texts), dtype=torch.long)
        self._fields = {name: values[chosen] for name, values in self._fields.items()}
        self._fields["document"] = torch.arange(len(self.texts))
        if self.cache is not None:
            self.cache.keep(chosen)

    def take_back(self, counts: Sequence[int]) -> None:
        """The last tokens of each text were not read after all."""
        if not any(counts):
            return
        back = torch.tensor(list(counts))
        for name in _advancing(self._fields):
            self._fields[name] = self._fields[name] - back
        if self.cache is not None:
            self.cache.shorten(self.cache.lengths - back)
        else:
            self.texts = [_cut(text, len(text) - count) for text, count in zip(self.texts, counts, strict=True)]

    def new_cache(self, texts: int, capacity: int) -> Cache:
        """An empty cache of the kind this reader keeps."""
        return Cache(self.network.config, texts, capacity, dtype_of(self.network), self.device, self.numbers,
                     self.slack)


def dtype_of(network: LanguageModel) -> torch.dtype:
    """The number format of the network's weights, which its cache shares."""
    return next(network.parameters()).dtype


def _advancing(fields: Iterable[str]) -> tuple[str, str]:
    """The fields that move on by one with each token: `index`, and its number in a span or else its position."""
    return "index", "span" if "span" in fields else "position"


def extended(example: Example, written: Sequence[int]) -> Example:
    """The Example with tokens after its last one."""
    if not written:
        return example
    steps = torch.arange(1, len(written) + 1)
    fields = {}
    for name, values in example.fields.items():
        more = values[-1:].expand(len(written))
        if name in _advancing(example.fields):
            more = more + steps
        elif name == "prefix":
            more = torch.zeros_like(more)
        fields[name] = torch.cat((values, more))
    return replace(example, inputs=torch.cat((example.inputs, torch.tensor(list(written)))), fields=fields)


def _cut(example: Example, length: int) -> Example:
    """The Example's first tokens."""
    return replace(example, inputs=example.inputs[:length],
                   fields={name: values[:length] for name, values in example.fields.items()})
