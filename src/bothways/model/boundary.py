"""A head that knows a token only by its place between two others (SpanBERT, arXiv 1907.10529, section 3.2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bothways.batch import Companion
from bothways.errors import BothwaysError
from bothways.model.config import ModelConfig
from bothways.model.norm import make_norm
from bothways.model.product import Linear


class Boundary(nn.Module):
    """Two layers with gelu and a norm over [state before; state after; vector of the place], equation 2.

    The companion's `size` is the number of places with a vector of their own; later places share the last.
    """

    def __init__(self, companion: Companion, config: ModelConfig) -> None:
        super().__init__()
        if companion.size < 1:
            raise BothwaysError(f"the head '{companion.name}' knows {companion.size} places, but needs at least 1")
        width = config.shape.width
        self.place = nn.Embedding(companion.size, width)
        self.first, self.first_norm = Linear(3 * width, width), make_norm(config, width)
        self.second, self.second_norm = Linear(width, width), make_norm(config, width)

    def forward(self, left: Tensor, right: Tensor, places: Tensor) -> Tensor:
        """States (T, D) before and after the spans, and places (T,) inside them from 0, to (T, D).

        The result is scored by the token embedding, as any state.
        """
        known = self.place(places.clamp(max=self.place.num_embeddings - 1))
        states = self.first_norm(F.gelu(self.first(torch.cat((left, right, known), dim=-1))))
        scored: Tensor = self.second_norm(F.gelu(self.second(states)))
        return scored
