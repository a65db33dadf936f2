"""Where a network looked while it read a text, and which tokens an answer hangs on: from the calls that really ran."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from bothways.errors import BothwaysError
from bothways.evaluation.features import reading_example, visibility_named
from bothways.evaluation.questions import Way, ways
from bothways.evaluation.rows import reading
from bothways.model import latent_attention, mixer
from bothways.model.attention import Kept, attend

if TYPE_CHECKING:
    from bothways.families.trained import Trained


@dataclass(frozen=True)
class Looks:
    """Attention of one reading: weights (layers, heads, L, L), rows look, each sums to 1 (or 0 where all is hidden).

    seen: (L, L) bool, who may see whom. error: how far the weights times the values are from what the layers read.
    """

    ids: np.ndarray
    weights: np.ndarray
    seen: np.ndarray
    mode: str
    error: float


def looks(trained: Trained, ids: np.ndarray, visibility: str | None = None) -> Looks:
    """The attention of every layer and head while a text (L,) is read; two towers read with their encoder.

    Each layer's own call is run again with values that are unit vectors, so that what it returns are its weights:
    the same kernel, places, terms and visibility, and nothing is computed in another way.

    Raises:
        BothwaysError: a network without attention (a recurrence).
    """
    seen = visibility_named(trained, visibility)
    example = reading_example(np.asarray(ids, dtype=np.int64), seen)
    with reading(trained.network), watching() as calls:
        trained.network.encode(example.to(trained.device))
    if not calls:
        raise BothwaysError("this network mixes tokens by a recurrence and has no attention to draw")
    return Looks(np.asarray(ids), np.stack([weights for weights, _ in calls]),
                 seen.allows(example.fields, example.fields).numpy(), repr(seen), max(error for _, error in calls))


@contextmanager
def watching() -> Iterator[list[tuple[np.ndarray, float]]]:
    """Collect (weights (H, Lq, Lk), error) of every attention call of a block, in the order they run."""
    calls: list[tuple[np.ndarray, float]] = []

    def watched(queries: Tensor, others: Any, plan: Any, scoring: Any, *rest: Any, **named: Any) -> Tensor:
        read = attend(queries, others, plan, scoring, *rest, **named)
        if not isinstance(others, Kept):
            calls.append(_weights(read, queries, others, plan, scoring, rest, named))
        return read

    modules: tuple[Any, ...] = (mixer, latent_attention)
    before = [module.attend for module in modules]
    for module in modules:
        module.attend = watched
    try:
        yield calls
    finally:
        for module, own in zip(modules, before):
            module.attend = own


def _weights(read: Tensor, queries: Tensor, others: Tensor | None, plan: Any, scoring: Any, rest: tuple[Any, ...],
             named: dict[str, Any]) -> tuple[np.ndarray, float]:
    """The weights of one call by unit vectors for values, as many keys at a time as a head is wide."""
    heads, size = scoring.heads, read.shape[-1]
    told = queries[:, heads:] if others is None else others
    shared, keys = told.shape[1] // 2, told.shape[0]
    values = told[:, shared:]
    parts = []
    for start in range(0, keys, size):
        units = values.new_zeros(keys, shared, size)
        places = torch.arange(start, min(start + size, keys))
        units[places, :, places - start] = 1.0
        swapped = torch.cat((told[:, :shared], units), dim=1)
        asked = torch.cat((queries[:, :heads], swapped), dim=1) if others is None else queries
        parts.append(attend(asked, None if others is None else swapped, plan, scoring, *rest,
                            **named)[..., :len(places)])
    weights = torch.cat(parts, dim=-1).transpose(0, 1)
    again = torch.einsum("hqk,khd->qhd", weights, values.repeat_interleave(heads // shared, dim=1))
    return weights.float().cpu().numpy(), float((again - read).abs().max())


@dataclass(frozen=True)
class Attribution:
    """How much each token that was read adds to log p of one target (L,): `missing` is what is left unexplained.

    ids are those the question showed, such as `<mask>` at hidden places.
    """

    ids: np.ndarray
    scores: np.ndarray
    log_prob: float
    missing: float
    mode: str


def attribution(trained: Trained, ids: np.ndarray, place: int, way: Way | None = None,
                steps: int = 64) -> Attribution:
    """Integrated gradients of log p(token at `place`) along the embeddings, by the midpoint rule (Sundararajan et al.
    2017, arXiv 1703.01365, eq. 1).

    Every token starts as the mean of all embeddings: from zeros, a norm would undo most of the way at its first step.

    Args:
        ids: (L,) a text that begins with `<bos>`. place: of the token to explain, hidden as the way asks for it.
        way: of calling the model; the principal one when none. Two towers are explained by what the encoder read.
    Raises:
        BothwaysError: a place that cannot be asked for.
    """
    way = way or ways(trained, off_mode=False)[0]
    hidden = np.arange(len(ids)) == place
    if not 0 < place < len(ids):
        raise BothwaysError(f"place {place} is not one of 1 to {len(ids) - 1}")
    question = way.pose(np.asarray(ids, dtype=np.int64), hidden).to(trained.device)
    ask, network = question.asks[0], trained.network
    shown = question.inputs if question.source is None else question.source.inputs
    target = network.embedding if network.source_embedding is None or question.source is None else \
        network.source_embedding

    with torch.no_grad():
        base = target.weight.mean(0)

    def log_p(scale: float, gradient: bool) -> tuple[Tensor, Tensor | None]:
        held: list[Tensor] = []

        def scaled(_: Any, given: tuple[Tensor, ...], made: Tensor) -> Tensor:
            # the tower that reads the text comes first; the other keeps its embeddings
            if held or len(given[0]) != len(shown):
                return made
            held.append((base + (made.detach() - base) * scale).requires_grad_(gradient))
            return held[0]

        hook = target.register_forward_hook(scaled)
        try:
            states = network(question).states[ask.where]
        finally:
            hook.remove()
        found = trained.objective.logits(network, states, ask.head).float().log_softmax(-1)
        value = found[0, ask.targets[0]]
        return value, torch.autograd.grad(value, held[0])[0] if gradient else None

    was_training = network.training
    network.eval()
    try:
        with torch.enable_grad():
            gradients = [log_p((step + 0.5) / steps, True)[1] for step in range(steps)]
        with torch.no_grad():
            full, nothing = float(log_p(1.0, False)[0]), float(log_p(0.0, False)[0])
            embedded = target(shown) - base
        mean = torch.stack([one for one in gradients if one is not None]).mean(0)
        scores = (mean * embedded).sum(-1).cpu().numpy()
    finally:
        network.train(was_training)
    return Attribution(shown.cpu().numpy(), scores, full, full - nothing - float(scores.sum()), way.name)
