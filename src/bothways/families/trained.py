"""What everybody above this room passes round: a network, what it was trained to do, and its tokenizer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from bothways.batch import Vocabulary
from bothways.model import LanguageModel
from bothways.model.config import ModelConfig
from bothways.objectives.base import Mode, Objective
from bothways.text.tokenizer import Tokenizer


@dataclass(frozen=True, eq=False)
class Trained:
    """A network with the objective that trained it and the tokenizer it reads through.

    `report` is what is known of the data and the run; it goes into the model card and nothing depends on it.
    """

    network: LanguageModel
    objective: Objective
    tokenizer: Tokenizer
    report: Mapping[str, object] = field(default_factory=dict)
    layout: str | None = None
    """The family whose folder it was read from: it goes back there where it still fits."""

    @property
    def vocabulary(self) -> Vocabulary:
        """The token facts the objective was made with."""
        return self.objective.vocabulary

    @property
    def config(self) -> ModelConfig:
        """The network's config."""
        return self.network.config

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        return next(self.network.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """The number format of the weights."""
        return next(self.network.parameters()).dtype

    @property
    def parameters(self) -> int:
        """How many numbers the network has."""
        return sum(weight.numel() for weight in self.network.parameters())

    @property
    def readable(self) -> bool:
        """Whether there is a tokenizer; a foreign folder without one speaks in ids only."""
        return getattr(self.tokenizer, "readable", True)

    def mode(self, name: str | None = None) -> Mode:
        """The mode of that name; none stands for the only one.

        Raises:
            BothwaysError: none named and several trained, or an unknown name; the message lists them.
        """
        return self.objective.mode(name)
