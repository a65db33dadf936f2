"""A network beside the trunk that names tokens itself (ELECTRA, arXiv 2003.10555), and how they share an embedding."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bothways.batch import Companion, Example
from bothways.model.config import ModelConfig
from bothways.model.norm import make_norm
from bothways.model.product import Linear, product
from bothways.model.render import Planner
from bothways.model.tower import Tower


class Generator(nn.Module):
    """As many layers as the trunk and a share of its heads and width; it reads, and its states name tokens.

    With the trunk's embedding (section 3.2, "weight sharing") tokens are projected to the narrow width, and states back
    to the wide one, where gelu and a norm follow and the embedding scores them. A `table` of its own is narrow.
    """

    def __init__(self, companion: Companion, config: ModelConfig, own: bool = False) -> None:
        super().__init__()
        small = narrowed(config, companion.share)
        wide, narrow = config.embedding_width, small.shape.width
        self.config = small
        self.table = nn.Embedding(config.shape.vocabulary, narrow) if own else None
        self.entry = None if own else Linear(wide, narrow)
        self.tower = Tower(small, small.shape.layers)
        self.exit = Linear(narrow, narrow if own else wide)
        self.exit_norm = make_norm(config, narrow if own else wide)

    def forward(self, example: Example, embed: Callable[[Tensor], Tensor], rows: Tensor | None = None) -> Tensor:
        """States (N, E) of every input, E the width of the table that scores them.

        Args:
            embed: the trunk's embedding, (N,) ids to (N, D).
            rows: (R,) answer for these alone; the others are zeros.
        """
        entered = self.table(example.inputs) if self.table is not None else self._enter(embed(example.inputs))
        planner = Planner(example.fields, None, example.inputs.device)
        states, _ = self.tower(entered, example.fields, example.visibility, planner, None, None, rows)
        states = self.exit_norm(F.gelu(self.exit(states)))
        if rows is not None:
            states = states.new_zeros(len(example), states.shape[-1]).index_copy(0, rows, states)
        return states

    def logits(self, states: Tensor, embedding: Tensor) -> Tensor:
        """(T, E) to (T, V), by the own table or the trunk's `embedding` (V, D)."""
        return product(states, embedding if self.table is None else self.table.weight)

    def products(self) -> tuple[int, int]:
        """Weights that a token read and a state asked for are multiplied with, the blocks apart."""
        entry = 0 if self.entry is None else self.entry.weight.numel()
        return entry, self.exit.weight.numel() + self.config.shape.vocabulary * self.exit.out_features

    def _enter(self, embedded: Tensor) -> Tensor:
        assert self.entry is not None
        entered: Tensor = self.entry(embedded)
        return entered


class Delta(nn.Embedding):
    """What the trunk adds to an embedding that belongs to its generator: gradient-disentangled sharing (DeBERTa-V3).

    The trunk reads stop-gradient(E) + delta, delta zero at first (arXiv 2111.09543, section 3.3): its own loss moves
    delta alone.
    """

    def __init__(self, companion: Companion, config: ModelConfig) -> None:
        super().__init__(config.shape.vocabulary, config.embedding_width)

    def forward(self, inputs: Tensor, table: Tensor | None = None) -> Tensor:
        """(N,) ids and the shared table (V, D) to (N, D)."""
        moved = super().forward(inputs)
        return moved if table is None else F.embedding(inputs, table.detach()) + moved

    @torch.no_grad()
    def initialise(self) -> None:
        """Zero: the two read alike at first."""
        self.weight.zero_()


def narrowed(config: ModelConfig, share: float) -> ModelConfig:
    """The same config with a share of its heads (at least one), and as much narrower; nothing beside it."""
    shape = config.shape
    heads = max(1, round(shape.heads * share))
    keys = None
    if shape.key_heads is not None:
        most = max(1, round(shape.key_heads * share))
        keys = next(count for count in range(most, 0, -1) if heads % count == 0)
    inner = None if shape.inner is None else max(1, round(shape.inner * heads / shape.heads))
    feed_forward = config.feed_forward
    if feed_forward.experts is not None and feed_forward.experts.inner is not None:
        share_inner = max(1, round(feed_forward.experts.inner * heads / shape.heads))
        feed_forward = replace(feed_forward, experts=replace(feed_forward.experts, inner=share_inner))
    width = shape.width if heads == shape.heads else heads * config.head_size
    return replace(config, companions=(), feed_forward=feed_forward, shape=replace(
        shape, width=width, heads=heads, key_heads=keys, inner=inner, source_layers=0, embedding=None))
