"""What a network answers to the Asks of Examples: the one place where evaluation asks a network.

Examples are packed under a token budget (`rows`), read without gradients in float32 log-probabilities, and the answers
come back Example by Example in the order given, so nothing above this module knows of batches.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from bothways.batch import Example
from bothways.evaluation.rows import TOKENS, in_order, reading, rows

if TYPE_CHECKING:
    from bothways.families.trained import Trained

LOGITS = 1 << 24
"""Logits held at one time: rows of Asks are read in pieces of at most this many numbers."""


@dataclass(frozen=True)
class Answers:
    """What was answered to one Example, in the order of its Ask: log p of the targets, and whether each was top-1."""

    log_probs: np.ndarray
    correct: np.ndarray

    @property
    def nats(self) -> float:
        """-sum of log p."""
        return float(-self.log_probs.sum())


def answers(trained: Trained, examples: Sequence[Example], tokens: int = TOKENS) -> list[Answers]:
    """The log-probability of every target of every Example, and whether it was the likeliest token.

    Args:
        trained: network, objective, tokenizer.
        examples: Examples with one Ask each (as `Objective.blank` makes them).
        tokens: budget of one packed row.
    Returns:
        one Answers for each Example: (T,) float64 natural logs and (T,) bool.
    """
    def reader(logits: Tensor, rows: Tensor, targets: Tensor) -> Tensor:
        log_probs = logits[rows, targets] - logits.logsumexp(-1)[rows]
        return torch.stack([log_probs, (logits.argmax(-1)[rows] == targets).to(log_probs.dtype)], dim=-1)

    return [Answers(both[:, 0].astype(np.float64), both[:, 1] > 0.5)
            for both in _read(trained, examples, tokens, reader, 2)]


def distributions(trained: Trained, examples: Sequence[Example], tokens: int = TOKENS) -> list[np.ndarray]:
    """The whole distribution at every target: for each Example (T, V) float32 log-probabilities."""
    size = trained.network.config.shape.vocabulary
    return _read(trained, examples, tokens, lambda logits, rows, _: logits.log_softmax(-1)[rows], size)


def _read(trained: Trained, examples: Sequence[Example], tokens: int,
          reader: Callable[[Tensor, Tensor, Tensor], Tensor], width: int) -> list[np.ndarray]:
    """Call the network on packed rows; `reader(logits, rows, targets)` comes back Example by Example, (T, width) each.

    A place that is asked for several targets in a row has one row of logits: `rows` (T,) says which.
    """
    network, logits_of = trained.network, functools.partial(trained.objective.logits, trained.network)

    def row_by_row() -> Iterator[tuple[list[int], list[np.ndarray]]]:
        # 1. one Ask each, of one name, so that a packed row has exactly one Ask in the order of its Examples
        for numbers, asked, row in rows(map(_plain, examples), lambda example: example, trained.device, tokens):
            counts = [len(example.asks[0].where) if example.asks else 0 for example in asked]
            answered = np.zeros((0, width), dtype=np.float32)
            if sum(counts):
                ask = row.asks[0]
                with reading(network):
                    # 2. logits piece by piece, in float32 whatever the network computes in
                    states = network(row, only_asked=True).states
                    step = max(1, LOGITS // network.config.shape.vocabulary)
                    pieces = []
                    for where, targets in zip(ask.where.split(step), ask.targets.split(step), strict=True):
                        places, back = where.unique_consecutive(return_inverse=True)
                        pieces.append(reader(logits_of(states[places], ask.head).float(), back, targets).cpu())
                answered = torch.cat(pieces).numpy()
            # 3. cut the row back into its Examples
            yield numbers, np.split(answered, np.cumsum(counts)[:-1])

    return list(in_order(row_by_row()))


def _plain(example: Example) -> Example:
    """An Example whose one Ask can be joined with that of any other."""
    return replace(example, asks=tuple(replace(ask, part="loss", coefficient=1.0, weights=None)
                                       for ask in example.asks[:1]))
