"""What trains beside the trunk: each kind of `Companion` an objective may declare, and what it is built of."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from bothways.batch import Companion
from bothways.errors import BothwaysError, nearest
from bothways.model.config import ModelConfig


class Classes(nn.Module):
    """Scores of a few classes from one state: a dense layer with tanh, then a linear one (BERT's pooler and head)."""

    def __init__(self, companion: Companion, config: ModelConfig) -> None:
        super().__init__()
        if companion.size < 2:
            raise BothwaysError(f"the head '{companion.name}' has {companion.size} classes, but needs at least 2")
        self.dense = nn.Linear(config.shape.width, config.shape.width)
        self.classes = nn.Linear(config.shape.width, companion.size)

    def forward(self, states: Tensor) -> Tensor:
        """(T, D) to (T, C)."""
        return self.classes(torch.tanh(self.dense(states)))  # type: ignore[no-any-return]


KINDS: dict[str, Callable[[Companion, ModelConfig], nn.Module]] = {"classes": Classes}
"""What builds each kind."""


def build_companions(config: ModelConfig) -> nn.ModuleDict:
    """The companions a config names, by name."""
    built = nn.ModuleDict()
    for companion in config.companions:
        if companion.kind not in KINDS:
            raise BothwaysError(f"companions: unknown kind '{companion.kind}' {nearest(companion.kind, KINDS)}")
        if companion.name == "tokens" or companion.name in built:
            raise BothwaysError(f"companions: the name '{companion.name}' is taken: choose another one")
        built[companion.name] = KINDS[companion.kind](companion, config)
    return built
