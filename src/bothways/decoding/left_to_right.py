"""Writing token after token, many texts at once, with a key-value cache or, for reference, without.

A decoding row is flat like every other row: each text is a document of it. The first call reads all prompts, ragged
as they are; every later one adds one token to each text that is still open. Texts may end and others begin meanwhile.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from bothways.batch import Example
from bothways.decoding.prefixes import Prefixes
from bothways.decoding.reading import Reader, dtype_of, extended
from bothways.decoding.rules import Rule, rules_of
from bothways.decoding.sampling import BLOCKED, GenerateConfig, draw, filtered
from bothways.model import LanguageModel

__all__ = ["NewToken", "Writer", "dtype_of"]


class NewToken(NamedTuple):
    """One more token of text number `row`, and its natural log probability under the network."""

    row: int
    token: int
    logprob: float


class Writer:
    """Texts being written together. `step` adds a token to each open text, `close` ends one, `join` begins more.

    Args:
        network: in evaluation mode.
        examples: what each text begins from, as an objective's `continuation` or `infilling` gives it; all alike in
            visibility, at least one token each. The same object twice is read once.
        config: how tokens are chosen.
        blocked: (V,), or (B, V) for each text, bool on the network's device: tokens that are never written.
        most: the largest number of tokens to write, which the noise is drawn for.
        seen: the tokens each text's repetition penalty counts from the start; those of its Example when none.
        seeds: of each text's noise; `config.seed` plus its number when none.
        never: ids that have no probability (`Objective.never`).
        rules: further ones, which know the texts by their numbers.
        prefixes: what earlier calls have read.
    """

    slack = 0
    """Tokens that a step may read and give back."""

    def __init__(self, network: LanguageModel, examples: Sequence[Example], config: GenerateConfig, blocked: Tensor,
                 most: int, seen: Sequence[Sequence[int]] | None = None, seeds: Sequence[int] | None = None,
                 never: Sequence[int] = (), rules: Sequence[Rule] = (), prefixes: Prefixes | None = None) -> None:
        self.network, self.config, self.blocked = network, config, blocked
        self.device = blocked.device
        self.most = most
        self.open: list[int] = []
        self.evaluations = 0
        self.reader = Reader(network, config.cached, config.cache_numbers, self.slack, prefixes)
        self.rules = [*rules_of(config, [example.inputs.tolist() for example in examples],
                                [example.inputs.tolist() for example in examples] if seen is None else seen,
                                blocked.shape[-1], self.device), *rules]
        self._seeds = [config.seed + row for row in range(len(examples))] if seeds is None else list(seeds)
        self._never = torch.tensor(never, dtype=torch.long, device=self.device)
        self._waiting: list[tuple[int, Example]] = []
        self._last: dict[int, int] = {}
        self._noise: dict[int, list[float]] = {}
        self._written: dict[int, list[int]] = {}
        self._examples: dict[int, Example] = {}
        self._stay: list[int] = []
        for row, example in enumerate(examples):
            self._begin(row, example)

    @property
    def cache_bytes(self) -> int:
        """What the cache takes, which never shrinks; 0 without one."""
        return 0 if self.reader.cache is None else self.reader.cache.bytes

    def join(self, example: Example, seed: int, seen: Sequence[int] | None = None) -> int:
        """One more text, which begins with the next step while the others go on; its number.

        Args:
            seed: of its noise.
            seen: the tokens its repetition penalty counts from the start; those of the Example when none.
        """
        read = example.inputs.tolist()
        for rule in self.rules:
            rule.join(read, read if seen is None else seen)
        row = len(self._seeds)
        self._seeds.append(seed)
        if self.blocked.dim() == 2:
            self.blocked = torch.cat((self.blocked, self.blocked[-1:]))
        self._begin(row, example)
        return row

    @torch.inference_mode()
    def step(self) -> list[NewToken]:
        """One more token for every open text, in the order of `open`."""
        # 1. states of the last token of each open text
        states = self._advance()
        logits = self._logits(states)
        # 2. choose
        tokens = self._choose(self._allowed(logits, self.open), self.open)
        logprobs = logits.gather(-1, tokens.unsqueeze(-1)).squeeze(-1) - logits.logsumexp(-1)
        # 3. remember
        return [self._wrote(*new) for new in zip(self.open, tokens.tolist(), logprobs.tolist(), strict=True)]

    def close(self, row: int) -> None:
        """End text number `row`; the others go on without it."""
        self.open.remove(row)
        example = self._examples.pop(row)
        if self.reader.prefixes is not None and self.reader.cache is not None and row in self._stay:
            read = extended(example, self._written[row][:-1])
            self.reader.prefixes.add(self.network, [read], self.reader.cache.copy([self._stay.index(row)]))

    def _begin(self, row: int, example: Example) -> None:
        self._waiting.append((row, example))
        self._written[row], self._examples[row] = [], example
        self.open.append(row)
        if self.config.temperature > 0:
            # drawn at once, so that a text is the same whoever is written beside it
            generator = torch.Generator().manual_seed(self._seeds[row])
            self._noise[row] = torch.rand(self.most, generator=generator, dtype=torch.float64).tolist()

    def _advance(self) -> Tensor:
        """Read what was written last, and what is new: states (open texts, D) of the last places."""
        self.evaluations += 1
        self._leave()
        parts = []
        if self._stay:
            parts.append(self.reader.read([[self._last[row]] for row in self._stay]))
        waiting = [(row, example) for row, example in self._waiting if row in self.open]
        self._waiting = []
        if waiting:
            states, ends = self.reader.join([example for _, example in waiting], self.most + self.slack)
            self._stay += [row for row, _ in waiting]
            parts.append(states[torch.tensor(ends, device=self.device)])
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _logits(self, states: Tensor) -> Tensor:
        """Scores (n, V) under the network, in float32."""
        logits = self.network.logits(states).float()
        return logits.index_fill(-1, self._never, BLOCKED) if len(self._never) else logits

    def _leave(self) -> None:
        """Drop what was kept of texts that have ended."""
        places = [place for place, row in enumerate(self._stay) if row in self.open]
        if len(places) < len(self._stay):
            self.reader.keep(places)
            self._stay = [self._stay[place] for place in places]

    def _allowed(self, logits: Tensor, rows: Sequence[int]) -> Tensor:
        """Scores (n, V) of the next token of these texts, by all who have a say in it."""
        places = None if self.blocked.dim() == 1 else torch.tensor(rows, device=self.device)
        allowed = logits.masked_fill(self.blocked if places is None else self.blocked[places], BLOCKED)
        for rule in self.rules:
            allowed = rule.apply(allowed, rows)
        return filtered(allowed, self.config)

    def _choose(self, scores: Tensor, rows: Sequence[int]) -> Tensor:
        if not self._noise:
            return scores.argmax(-1)
        uniform = [self._noise[row][len(self._written[row])] for row in rows]
        return draw(scores, torch.tensor(uniform, dtype=torch.float64))

    def _wrote(self, row: int, token: int, logprob: float) -> NewToken:
        for rule in self.rules:
            rule.wrote(row, token)
        self._last[row] = token
        self._written[row].append(token)
        return NewToken(row, token, logprob)
