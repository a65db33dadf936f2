"""What is tuned, how fast and for how long: one frozen config for every task."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal, get_args

from bothways.errors import BothwaysError, nearest

Moves = Literal["all", "head", "lora", "dora", "ia3"]
Precision = Literal["auto", "float32", "bfloat16"]


@dataclass(frozen=True)
class TuneConfig:
    """How a pretrained network is fine-tuned; the same for every paradigm, as a fair comparison needs.

    Many short steps with a warm-up and a decay to zero, and AdamW with its bias correction, are what keeps fine-tuning
    on little data stable (Mosbach et al. 2021, arXiv 2006.04884). A head that starts from zero learns at its own,
    larger rate.
    """

    steps: int = 200
    """Updates, where no epochs are given."""
    epochs: float | None = None
    """Passes over the training texts, instead of steps."""
    batch: int = 32
    """Texts in one update, at most."""
    batch_tokens: int | None = None
    """Tokens in one update, at most; any number when none."""
    by_length: bool = False
    """Whether texts of like length share an update: their attention is then computed in fewer, larger pieces."""
    learning_rate: float | None = 5e-4
    """The highest rate of the network's weights; none for what fits its size, see `rate`."""
    head_rate: float = 5e-3
    """The highest rate of a new head."""
    layer_decay: float = 1.0
    """The rate of each layer over that of the layer above it."""
    moves: Moves = "all"
    """What is trained beside the head: all weights, none (head), or an adapter of `peft` (lora, dora, ia3)."""
    rank: int = 8
    """The rank of LoRA and DoRA; their scale is twice the rank over the rank."""
    weight_decay: float = 0.01
    dropout: float | None = None
    """The share of numbers dropped while tuning; the network's own when none."""
    warm_up: float = 0.1
    """The share of the steps in which the rate rises."""
    clip: float = 1.0
    """The largest norm of a gradient."""
    balanced: bool = False
    """Whether every class weighs the same in the loss, however many texts it has."""
    evaluations: int = 8
    """How often the texts kept back are looked at; the best weights seen are kept."""
    patience: int = 0
    """Stop after so many looks without a better one; 0 goes on to the end."""
    precision: Precision = "float32"
    """What products are computed in; auto takes bfloat16 where the processor has it. Weights stay float32."""
    longest: int = 256
    """Tokens of a text that are read."""
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "longest", "rank", "evaluations"):
            if getattr(self, name) < 1:
                raise BothwaysError(f"fine-tuning option '{name}' is {getattr(self, name)}, but must be at least 1")
        for name in ("epochs", "batch_tokens", "learning_rate", "head_rate", "clip", "layer_decay"):
            if getattr(self, name) is not None and not getattr(self, name) > 0:
                raise BothwaysError(f"fine-tuning option '{name}' is {getattr(self, name)}, but must be above 0")
        for name, most in (("warm_up", 1.0), ("layer_decay", 1.0), ("weight_decay", 1.0)):
            if not 0 <= getattr(self, name) <= most:
                raise BothwaysError(f"fine-tuning option '{name}' is {getattr(self, name)}, but lies between 0 and 1")
        if self.dropout is not None and not 0 <= self.dropout < 1:
            raise BothwaysError(f"fine-tuning option 'dropout' is {self.dropout}, but lies between 0 and 1")
        if self.patience < 0:
            raise BothwaysError(f"fine-tuning option 'patience' is {self.patience}, but must be 0 or more")
        for name, known in (("moves", get_args(Moves)), ("precision", get_args(Precision))):
            if getattr(self, name) not in known:
                raise BothwaysError(f"fine-tuning option '{name}' is '{getattr(self, name)}' "
                                    + nearest(str(getattr(self, name)), known))

    def rate(self, numbers: int) -> float:
        """The highest rate for a network of so many numbers: as given, or 1e-3 under ten million and 1e-4 above."""
        return self.learning_rate or (1e-3 if numbers < 10_000_000 else 1e-4)

    def over(self, texts: int) -> TuneConfig:
        """This config with its steps settled for so many training texts."""
        if self.epochs is None:
            return self
        return replace(self, steps=max(1, math.ceil(self.epochs * texts / self.batch)), epochs=None)
