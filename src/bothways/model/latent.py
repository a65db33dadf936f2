"""A bottleneck between two towers: all that one tells the other is one vector of a few numbers for each document."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from bothways.batch import Companion
from bothways.errors import BothwaysError
from bothways.model.config import ModelConfig
from bothways.model.product import Linear
from bothways.objectives.lots import normals
from bothways.visibility import Fields


class Latent(nn.Module):
    """Mean state of a source -> mean and log variance of `size` numbers -> one vector that the other tower looks at.

    A variational autoencoder's q(z | x) and z (arXiv 1511.06349, section 3), pooled from a Transformer as in Optimus
    (arXiv 2004.04092, section 3), where z stands in every layer as the one key to look at ("memory"). A `plain` one is
    an autoencoder's: no variance, no noise.
    """

    def __init__(self, companion: Companion, config: ModelConfig, plain: bool = False) -> None:
        super().__init__()
        if companion.size < 1:
            raise BothwaysError(f"the latent '{companion.name}' has {companion.size} numbers, but needs at least 1")
        width = config.shape.width
        self.mean = Linear(width, companion.size)
        self.log_variance = None if plain else Linear(width, companion.size)
        self.opening = Linear(companion.size, width)

    def forward(self, states: Tensor, fields: Fields) -> tuple[Tensor, dict[str, Tensor]]:
        """What a source (M, D) tells: memory (B, D), one row a document, and the numbers behind it.

        Args:
            fields: of the source, on the CPU. With `lot`, the noise z = mean + deviation * noise is made of the lot of
                each document's first token; without, z is the mean.
        Returns:
            memory, and "mean", "log_variance" (zeros in a plain one) and "latent", each (B, size).
        """
        # 1. the mean state of each document
        documents = fields["document"]
        count = int(documents.max()) + 1 if len(documents) else 0
        own = documents.to(states.device)
        sizes = torch.bincount(documents, minlength=count).to(states.device, states.dtype).clamp(min=1)
        pooled = states.new_zeros(count, states.shape[-1]).index_add(0, own, states) / sizes[:, None]
        # 2. its distribution, and a draw
        mean = self.mean(pooled)
        spread = torch.zeros_like(mean) if self.log_variance is None else self.log_variance(pooled)
        latent = mean
        if "lot" in fields and self.log_variance is not None:
            lots = torch.zeros(count, dtype=torch.long).scatter_(0, documents.flip(0), fields["lot"].flip(0))
            latent = mean + torch.exp(spread / 2) * normals(lots, mean.shape[-1]).to(mean.device, mean.dtype)
        return self.opened(latent), {"mean": mean, "log_variance": spread, "latent": latent}

    def opened(self, latent: Tensor) -> Tensor:
        """What the other tower looks at: (B, size) to (B, D)."""
        return cast(Tensor, self.opening(latent))


def facts(count: int) -> dict[str, Tensor]:
    """The fields of `count` memories, one a document: (count,) int64 each."""
    nothing = torch.zeros(count, dtype=torch.long)
    return {"index": nothing, "position": nothing, "document": torch.arange(count)}
