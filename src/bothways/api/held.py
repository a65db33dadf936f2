"""What the calls of a model share: the trained network they hold, and ids and visibilities as users give them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from bothways.batch import Vocabulary
from bothways.errors import BothwaysError
from bothways.families.trained import Trained
from bothways.model import ModelConfig
from bothways.objectives.base import Objective
from bothways.text.tokenizer import Tokenizer
from bothways.visibility import Visibility

Ids = Tensor | np.ndarray | Sequence[int] | Sequence[Sequence[int]]
"""Token ids: (L,) of one text or (B, L) of several."""
Texts = str | Sequence[str]


class Held:
    """A trained network with its tokenizer and its objective."""

    def __init__(self, trained: Trained) -> None:
        self.trained = trained
        trained.network.eval()

    @property
    def config(self) -> ModelConfig:
        """The network's choices."""
        return self.trained.config

    @property
    def objective(self) -> Objective:
        """What it was trained to do."""
        return self.trained.objective

    @property
    def tokenizer(self) -> Tokenizer:
        """Text to ids and back."""
        return self.trained.tokenizer

    @property
    def vocabulary(self) -> Vocabulary:
        """Facts about token ids."""
        return self.trained.vocabulary

    @property
    def modes(self) -> tuple[str, ...]:
        """The names that `visibility` may take."""
        return tuple(mode.name for mode in self.objective.modes)

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        return self.trained.device

    def _visibility(self, visibility: str | Visibility | None) -> Visibility:
        return visibility if isinstance(visibility, Visibility) else self.trained.mode(visibility).visibility

    def _rows(self, ids: Ids, what: str, empty: bool = False) -> list[np.ndarray]:
        """Ids as one array a text, checked."""
        if not isinstance(ids, (Tensor, np.ndarray)):
            ids = torch.tensor(ids, dtype=torch.long)
        table = ids.cpu().numpy() if isinstance(ids, Tensor) else ids
        if table.ndim not in (1, 2) or not np.issubdtype(table.dtype, np.integer):
            raise BothwaysError(f"{what} must be whole numbers of shape (L,) or (B, L), not {table.dtype} of shape "
                                f"{tuple(table.shape)}")
        table = table[None] if table.ndim == 1 else table
        if not table.size and not empty:
            begin = self.vocabulary.ids.get("<bos>")
            raise BothwaysError(f"{what} hold no token: give at least one, such as <bos> ({begin})")
        size, most = self.config.shape.vocabulary, self.config.position.length
        if table.size and not (table.min() >= 0 and table.max() < size):
            worst = table.max() if table.max() >= size else table.min()
            raise BothwaysError(f"{what} hold the token {worst}, but the vocabulary has the ids 0 to {size - 1}")
        if table.shape[1] > most:
            raise BothwaysError(f"{what} have {table.shape[1]} tokens, but this network has places for {most}: "
                                "shorten them")
        return [row.astype(np.int64) for row in table]
