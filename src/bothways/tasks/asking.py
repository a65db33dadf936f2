"""Learning and scoring by likelihood: questions in the format of each paradigm, and the loss of their answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from bothways.batch import Example
from bothways.evaluation.answers import answers
from bothways.evaluation.likelihood import bound, exact
from bothways.evaluation.questions import Way, ways
from bothways.evaluation.rows import packed
from bothways.evaluation.trees import answers_together

if TYPE_CHECKING:
    from bothways.families.trained import Trained

Asked = tuple[np.ndarray, np.ndarray]
"""(ids (L,), hidden (L,) bool): a text, and which of its tokens are asked for."""


def scoring_way(trained: Trained) -> Way:
    """The way in which a model says how likely hidden tokens are: exact where it can, else by a bound."""
    found = ways(trained, off_mode=False)
    return next((way for way in found if way.kind == "exact"), found[0])


def questions(way: Way, asked: Sequence[Asked], step: int, seed: int, numbers: Sequence[int]) -> list[Example]:
    """Examples to learn from: all hidden tokens by the chain rule, or a random part of them, weighed by the bound."""
    posed = [way.pose(*one) if way.kind == "exact" else
             hidden_part(way, *one, np.random.default_rng((seed, step, number)))
             for one, number in zip(asked, numbers, strict=True)]
    return [replace(one, asks=tuple(replace(ask, part="loss", coefficient=1.0) for ask in one.asks)) for one in posed]


def loss(trained: Trained, examples: Sequence[Example]) -> Tensor:
    """The mean NLL of what is asked of Examples, in one pass: scalar."""
    row = packed(examples, range(len(examples)), trained.device)
    ask = row.asks[0]
    states = trained.network(row, only_asked=True).states[ask.where]
    logits = trained.objective.logits(trained.network, states, ask.head).float()
    losses = torch.nn.functional.cross_entropy(logits, ask.targets, reduction="none")
    return (losses if ask.weights is None else losses * ask.weights).sum() / ask.count


def nats(trained: Trained, way: Way, asked: Sequence[Asked], samples: int, seed: int, tokens: int,
         numbers: Sequence[int] | None = None, shared: bool = True) -> np.ndarray:
    """-log p of the hidden tokens, or its bound: (n,).

    Args:
        numbers: of the questions, the places in `asked` when none; the draws of a bound are the same for one number.
        shared: whether what questions have in common is read once; else each is read by itself, for reference.
    """
    answer = answers_together if shared else answers
    return exact(trained, way, asked, tokens, answer) if way.kind == "exact" else \
        bound(trained, way, asked, samples, seed, tokens, answer=answer, numbers=numbers)


def hidden_part(way: Way, ids: np.ndarray, hidden: np.ndarray, rng: np.random.Generator) -> Example:
    """A diffusion question with k of the L hidden places hidden, weighed by L / k; its count is L."""
    places = np.flatnonzero(hidden)
    k = int(rng.integers(1, len(places) + 1))
    chosen = np.zeros_like(hidden)
    chosen[rng.choice(places, k, replace=False)] = True
    example = way.pose(ids, chosen)
    asks = tuple(replace(ask, weights=torch.full((len(ask.targets),), len(places) / k), count=float(len(places)))
                 for ask in example.asks)
    return replace(example, asks=asks)
