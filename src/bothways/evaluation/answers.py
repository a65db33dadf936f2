"""What a network answers to the Asks of Examples: the one place where evaluation calls a network.

Examples are packed under a token budget (never padded), read without gradients in float32 log-probabilities, and
the answers come back Example by Example in the order given, so nothing above this module knows of batches.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from bothways.batch import Example, pack

if TYPE_CHECKING:
    from bothways.families.trained import Trained

TOKENS = 4096
"""Tokens (of both towers) in one packed row."""
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
    def reader(logits: Tensor, targets: Tensor) -> Tensor:
        chosen = logits.gather(-1, targets[:, None])[:, 0]
        log_probs = chosen - logits.logsumexp(-1)
        return torch.stack([log_probs, (logits.argmax(-1) == targets).to(log_probs.dtype)], dim=-1)

    return [Answers(both[:, 0].astype(np.float64), both[:, 1] > 0.5)
            for both in _read(trained, examples, tokens, reader, 2)]


def distributions(trained: Trained, examples: Sequence[Example], tokens: int = TOKENS) -> list[np.ndarray]:
    """The whole distribution at every target: for each Example (T, V) float32 log-probabilities."""
    size = trained.network.config.shape.vocabulary
    return _read(trained, examples, tokens, lambda logits, _: logits.log_softmax(-1), size)


@contextmanager
def reading(network: torch.nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; the training flag is put back afterwards."""
    was_training = network.training
    network.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        network.train(was_training)


def batches(examples: Sequence[Example], tokens: int) -> Iterator[list[int]]:
    """Places of Examples that fit one packed row: of one kind, in order, at most `tokens` tokens (or one Example)."""
    kinds: dict[tuple[object, ...], list[int]] = {}
    for place, example in enumerate(examples):
        source = example.source
        kind = (example.visibility, example.cross, None if source is None else source.visibility,
                frozenset(example.fields))
        kinds.setdefault(kind, []).append(place)
    for places in kinds.values():
        row: list[int] = []
        filled = 0
        for place in places:
            size = len(examples[place]) + (len(source) if (source := examples[place].source) is not None else 0)
            if row and filled + size > tokens:
                yield row
                row, filled = [], 0
            row.append(place)
            filled += size
        if row:
            yield row


def packed(examples: Sequence[Example], places: Sequence[int], device: torch.device) -> Example:
    """The Examples at `places` (all of one kind) as one row on `device`."""
    (row,) = pack([examples[place] for place in places])
    return row.to(device)


def _read(trained: Trained, examples: Sequence[Example], tokens: int,
          reader: Callable[[Tensor, Tensor], Tensor], width: int) -> list[np.ndarray]:
    """Call the network on packed rows and give `reader(logits, targets)` back Example by Example, (T, width) each."""
    network, logits_of = trained.network, functools.partial(trained.objective.logits, trained.network)
    device = next(network.parameters()).device
    results: list[np.ndarray] = [np.zeros((0, width), dtype=np.float32)] * len(examples)
    # 1. one Ask each, of one name, so that a packed row has exactly one Ask in the order of its Examples
    asked = [example if _plain(example) else replace(example, asks=tuple(
        replace(ask, part="loss", coefficient=1.0, weights=None) for ask in example.asks[:1])) for example in examples]
    with reading(network):
        for places in batches(asked, tokens):
            # 2. the states of one row
            row = packed(asked, places, device)
            if not row.asks or len(row.asks[0].where) == 0:
                continue
            ask = row.asks[0]
            states = network(row).states[ask.where]
            # 3. logits piece by piece, in float32 whatever the network computes in
            step = max(1, LOGITS // network.config.shape.vocabulary)
            pieces = [reader(logits_of(states[start:start + step], ask.head).float(),
                             ask.targets[start:start + step]).cpu() for start in range(0, len(ask.where), step)]
            answered = torch.cat(pieces).numpy()
            # 4. cut the row back into its Examples
            counts = [len(asked[place].asks[0].where) if asked[place].asks else 0 for place in places]
            for place, part in zip(places, np.split(answered, np.cumsum(counts)[:-1])):
                results[place] = part
    return results


def _plain(example: Example) -> bool:
    """Whether an Example's Asks can be joined with others as they are."""
    return len(example.asks) == 1 and example.asks[0].part == "loss" and example.asks[0].coefficient == 1.0 \
        and example.asks[0].weights is None
