"""A convolution beside the first block: what a token's neighbours say (the larger DeBERTa v2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bothways.model.config import ModelConfig
from bothways.model.dropout import dropout
from bothways.model.feed_forward import ACTIVATIONS
from bothways.model.norm import make_norm
from bothways.visibility import Fields, Visibility


class Neighbours(nn.Module):
    """norm(block's states + activation(convolution of the embedding)), channels reading each other in groups.

    `weight` is (width, width / groups, kernel), the middle of the kernel on the token itself. A neighbour is a token of
    the same document whose index differs by so many, and only one that the visibility lets the token see is heard.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width, (kernel, groups) = config.shape.width, (config.convolution.kernel, config.convolution.groups)
        self.kernel, self.groups = kernel, groups
        self.activation = torch.tanh if config.convolution.activation == "tanh" else ACTIVATIONS[
            config.convolution.activation]
        self.weight = nn.Parameter(torch.empty(width, width // groups, kernel))
        self.bias = nn.Parameter(torch.zeros(width))
        self.norm, self.dropout = make_norm(config, width), config.dropout

    def forward(self, embedded: Tensor, states: Tensor, fields: Fields, visibility: Visibility,
                rows: Tensor | None = None) -> Tensor:
        """States (N or R, D) behind the first block, joined by what the embedding (N, D) says of each one's neighbours.

        Args:
            fields: the tokens' facts, on the CPU.
            rows: (R,) whose states these are, if not everybody's.
        """
        # 1. each one's neighbours by row, itself in the middle; a row of zeros where nobody is
        found = self._rows(fields, visibility)
        found = found if rows is None else found[rows.cpu()]
        padded = torch.cat((embedded, embedded.new_zeros(1, embedded.shape[-1])))
        heard = padded[found.to(embedded.device)]
        # 2. every group of channels for itself: (G, R, D / G * kernel)
        heard = heard.unflatten(-1, (self.groups, -1)).permute(2, 0, 3, 1).flatten(2)
        weight = self.weight.unflatten(0, (self.groups, -1)).flatten(2)
        said = torch.bmm(heard, weight.transpose(1, 2)).transpose(0, 1).flatten(1) + self.bias
        said = self.activation(dropout(said, self.dropout, self.training))
        joined: Tensor = self.norm(states + said)
        return joined

    def _rows(self, fields: Fields, visibility: Visibility) -> Tensor:
        """(N, kernel) the row of each neighbour, N where there is none to be heard."""
        document, index = fields["document"], fields["index"]
        count, reach = len(index), self.kernel // 2
        # 1. where the token of a document and an index lies
        width = int(index.max()) + 1 + 2 * reach if count else 1
        place = document * width + index + reach
        rows = torch.full((int(place.max()) + width + 1 if count else 1,), count)
        # of two streams the contents, which come first
        rows.scatter_reduce_(0, place, torch.arange(count), "amin")
        found = rows[place.unsqueeze(-1) + torch.arange(-reach, reach + 1)]
        # 2. only those in sight
        there = found.clamp(max=max(count - 1, 0))
        sees = visibility.allows({name: fact.unsqueeze(-1) for name, fact in fields.items()},
                                 {name: fact[there] for name, fact in fields.items()}).squeeze(-2)
        return found.masked_fill(~sees, count)
