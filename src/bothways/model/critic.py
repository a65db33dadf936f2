"""A network beside the trunk that tells texts apart: one number for each, above 0 for "real" (arXiv 1406.2661)."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from bothways.batch import Companion
from bothways.model.config import ModelConfig
from bothways.model.generator import narrowed
from bothways.model.product import Linear
from bothways.model.render import Planner
from bothways.model.tower import Tower
from bothways.visibility import Fields, same_document


class Critic(nn.Module):
    """An embedding of its own, as many layers as the trunk at a share of its width, the mean state, one number."""

    def __init__(self, companion: Companion, config: ModelConfig) -> None:
        super().__init__()
        self.config = narrowed(config, companion.share)
        shape = self.config.shape
        self.table = nn.Embedding(shape.vocabulary, shape.width)
        self.tower = Tower(self.config, shape.layers)
        self.verdict = Linear(shape.width, 1)

    def forward(self, tokens: Tensor, fields: Fields) -> Tensor:
        """The logit of "real" for each document, (B,).

        Args:
            tokens: (N,) ids, or (N, V) shares of every token (one-hot, with a gradient).
            fields: index, position and document (0 to B - 1) of the tokens, on the CPU.
        """
        embedded = self.table(tokens) if tokens.dim() == 1 else tokens @ self.table.weight
        states, _ = self.tower(embedded, fields, same_document, Planner(fields, None, embedded.device))
        documents = fields["document"].to(states.device)
        sizes = torch.bincount(documents).to(states.dtype)
        pooled = states.new_zeros(len(sizes), states.shape[-1]).index_add(0, documents, states) / sizes[:, None]
        return cast(Tensor, self.verdict(pooled)).squeeze(-1)
