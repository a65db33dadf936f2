"""Writing token after token, many texts at once, with a key-value cache or, for reference, without.

A decoding row is flat like every other row: each text is a document of it. The first call reads all prompts, ragged
as they are; every later one adds one token to each text that is still open.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from bothways.batch import Example, pack
from bothways.decoding.sampling import BLOCKED, GenerateConfig, draw, filtered
from bothways.errors import BothwaysError
from bothways.model import Cache, LanguageModel


class NewToken(NamedTuple):
    """One more token of text number `row`, and its natural log probability under the network."""

    row: int
    token: int
    logprob: float


class Writer:
    """Texts being written together. `step` adds a token to each open text, `close` ends one.

    Args:
        network: in evaluation mode.
        examples: what each text begins from, as an objective's `continuation` or `infilling` gives it; all alike in
            visibility, at least one token each.
        config: how tokens are chosen.
        blocked: (V,), or (B, V) for each text, bool on the network's device: tokens that are never written.
        most: the largest number of tokens to write, which the noise is drawn for.
        seen: the tokens each text's repetition penalty counts from the start; those of its Example when none.
        seeds: of each text's noise; `config.seed` plus its number when none.
        never: ids that have no probability (`Objective.never`).
    """

    def __init__(self, network: LanguageModel, examples: Sequence[Example], config: GenerateConfig, blocked: Tensor,
                 most: int, seen: Sequence[Sequence[int]] | None = None,
                 seeds: Sequence[int] | None = None, never: Sequence[int] = ()) -> None:
        rows = pack(examples)
        if len(rows) != 1:
            raise BothwaysError("texts written together must be of one kind: the same visibility and the same fields")
        self.network, self.config, self.blocked = network, config, blocked
        self.device = blocked.device
        self.cache_bytes = 0
        self._never = torch.tensor(never, dtype=torch.long, device=self.device)
        self.open = list(range(len(examples)))
        self.evaluations = 0
        self._row = rows[0]
        self._written: list[list[int]] = [[] for _ in examples]
        self._examples = list(examples)
        # 1. what the next token's fields are: index and place move on, the rest stays as at the last token
        ends = torch.tensor([len(example) for example in examples]).cumsum(0) - 1
        self._ends = ends
        self._fields = {name: values[ends].clone() for name, values in self._row.fields.items()}
        self._fields["document"] = torch.arange(len(examples))
        if "prefix" in self._fields:
            self._fields["prefix"].zero_()
        # 2. noise, drawn at once so that a text is the same whoever is written beside it
        self._noise = None
        if config.temperature > 0:
            generators = [torch.Generator().manual_seed(config.seed + row if seeds is None else seeds[row])
                          for row in self.open]
            self._noise = torch.stack([torch.rand(most, generator=g, dtype=torch.float64) for g in generators])
        self._seen = None
        if config.repetition_penalty != 1:
            self._seen = torch.zeros(len(examples), blocked.shape[-1], dtype=torch.bool, device=self.device)
            for row, example in enumerate(examples):
                before = torch.tensor(list(seen[row]), dtype=torch.long) if seen is not None else example.inputs
                self._seen[row, before.to(self.device)] = True
        # 3. the cache has room for everything that can come
        self._cache = None
        if config.cached:
            longest = max(len(example) for example in examples)
            self._cache = Cache(network.config, len(examples), longest + most, dtype_of(network), self.device)
        self._keep: list[int] | None = None
        self._last: list[int] = []

    @torch.inference_mode()
    def step(self) -> list[NewToken]:
        """One more token for every open text, in the order of `open`."""
        rows, count = list(self.open), len(self._written[self.open[0]])
        # 1. states of the last token of each open text
        states = self._read_cached() if self._cache is not None else self._read_all()
        self.evaluations += 1
        logits = self.network.logits(states).float()
        if len(self._never):
            logits = logits.index_fill(-1, self._never, BLOCKED)
        # 2. choose
        places = torch.tensor(rows, device=self.device)
        allowed = logits.masked_fill(self.blocked if self.blocked.dim() == 1 else self.blocked[places], BLOCKED)
        allowed = filtered(allowed, self.config, None if self._seen is None else self._seen[places])
        tokens = allowed.argmax(-1) if self._noise is None else draw(allowed, self._noise[rows, count])
        if self._seen is not None:
            self._seen[places, tokens] = True
        logprobs = logits.gather(-1, tokens.unsqueeze(-1)).squeeze(-1) - logits.logsumexp(-1)
        # 3. remember
        self._last = tokens.tolist()
        for row, token in zip(rows, self._last, strict=True):
            self._written[row].append(token)
        return [NewToken(*new) for new in zip(rows, self._last, logprobs.tolist(), strict=True)]

    def close(self, row: int) -> None:
        """End text number `row`; the others go on without it."""
        place = self.open.index(row)
        self.open.pop(place)
        self._last.pop(place)
        self._keep = [k for i, k in enumerate(self._keep if self._keep is not None else range(len(self.open) + 1))
                      if i != place]

    def _read_cached(self) -> Tensor:
        """Read the prompts, or only the newest tokens: states (open texts, D) of the last places."""
        cache = self._cache
        if not self._last:
            row = self._row.to(self.device)
            states = self.network(row, cache=cache).states[self._ends.to(self.device)]
            self.cache_bytes = cache.bytes  # type: ignore[union-attr]
            return states
        if self._keep is not None:
            cache.keep(self._keep)  # type: ignore[union-attr]
            self._fields = {name: values[self._keep] for name, values in self._fields.items()}
            self._fields["document"] = torch.arange(len(self._keep))
            self._keep = None
        for name in _advancing(self._fields):
            self._fields[name] = self._fields[name] + 1
        inputs = torch.tensor(self._last, device=self.device)
        row = Example(inputs, self._row.visibility, dict(self._fields), cross=self._row.cross)
        return self.network(row, cache=cache).states

    def _read_all(self) -> Tensor:
        """The reference: every open text from its beginning."""
        self._keep = None
        row = pack([_extended(self._examples[i], self._written[i]) for i in self.open])[0]
        ends = torch.tensor([len(self._examples[i]) + len(self._written[i]) for i in self.open]).cumsum(0) - 1
        return self.network(row.to(self.device)).states[ends.to(self.device)]


def dtype_of(network: LanguageModel) -> torch.dtype:
    """The number format of the network's weights, which its cache shares."""
    return next(network.parameters()).dtype


def _advancing(fields: Iterable[str]) -> tuple[str, str]:
    """The fields that move on by one with each token: `index`, and its number in a span or else its position."""
    return "index", "span" if "span" in fields else "position"


def _extended(example: Example, written: Sequence[int]) -> Example:
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
