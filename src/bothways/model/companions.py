"""What trains beside the trunk: each kind of `Companion` an objective may declare, and what it is built of."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import Tensor, nn

from bothways.batch import Companion
from bothways.errors import BothwaysError, nearest
from bothways.model.boundary import Boundary
from bothways.model.config import ModelConfig
from bothways.model.critic import Critic
from bothways.model.feed_forward import ACTIVATIONS
from bothways.model.generator import Delta, Generator
from bothways.model.latent import Latent
from bothways.model.product import Linear
from bothways.visibility import Fields


class Pooler(nn.Module):
    """What stands for a whole text, made of its first token's state: a dense layer and tanh (BERT), or another bend."""

    def __init__(self, companion: Companion, config: ModelConfig,
                 bend: Callable[[Tensor], Tensor] = torch.tanh) -> None:
        super().__init__()
        self.dense, self.bend = Linear(config.shape.width, config.shape.width), bend

    def pooled(self, states: Tensor) -> Tensor:
        """(T, D) to (T, D)."""
        return self.bend(self.dense(states))

    def forward(self, states: Tensor) -> Tensor:
        """As `pooled`."""
        return self.pooled(states)


class Classes(Pooler):
    """Scores of a few classes from one state: a pooler, then a linear layer (BERT's question about two sentences)."""

    def __init__(self, companion: Companion, config: ModelConfig) -> None:
        super().__init__(companion, config)
        if companion.size < 2:
            raise BothwaysError(f"the head '{companion.name}' has {companion.size} classes, but needs at least 2")
        self.classes = Linear(config.shape.width, companion.size)

    def forward(self, states: Tensor) -> Tensor:
        """(T, D) to (T, C)."""
        return self.classes(self.pooled(states))  # type: ignore[no-any-return]


class Verdict(nn.Module):
    """Original (0) or replaced (1): a dense layer, the feed-forward's activation, and one score (ELECTRA's head).

    Arxiv 2003.10555, section 2: the probability of replaced is the sigmoid of the score. As two classes that is a
    softmax of 0 and the score.
    """

    def __init__(self, companion: Companion, config: ModelConfig) -> None:
        super().__init__()
        if companion.size != 2:
            raise BothwaysError(f"the head '{companion.name}' has {companion.size} classes, but a verdict has 2")
        self.dense = Linear(config.shape.width, config.shape.width)
        self.score = Linear(config.shape.width, 1)
        self.activation = config.feed_forward.activation

    def forward(self, states: Tensor) -> Tensor:
        """(T, D) to (T, 2)."""
        return nn.functional.pad(self.score(ACTIVATIONS[self.activation](self.dense(states))), (1, 0))


class FieldEmbedding(nn.Module):
    """A learned vector for each value of the field it is named after, added to the embedding of every tower's tokens.

    BERT's segments (arXiv 1810.04805, figure 2). Tokens without the field have its value 0.
    """

    def __init__(self, companion: Companion, config: ModelConfig) -> None:
        super().__init__()
        if companion.size < 1:
            raise BothwaysError(f"the embedding of the field '{companion.name}' has {companion.size} values, but needs "
                                "at least 1")
        self.field = companion.name
        self.weight = nn.Parameter(torch.empty(companion.size, config.embedding_width))

    def forward(self, embedded: Tensor, fields: Fields) -> Tensor:
        """Embedded tokens (N, E) and their fields, (N,) each on the CPU, to (N, E)."""
        values = fields.get(self.field)
        if values is None:
            return embedded + self.weight[0]
        if not torch.compiler.is_exporting() and len(values) and int(values.max()) >= len(self.weight):
            raise BothwaysError(f"the field '{self.field}' holds {int(values.max())}, but this network has learned its "
                                f"values 0 to {len(self.weight) - 1}")
        return embedded + nn.functional.embedding(values.to(self.weight.device), self.weight)


class QueryEmbedding(nn.Module):
    """What every row of the stream that knows places but not contents begins as, in its token's stead (XLNet, arXiv
    1906.08237, section 2.3). Such rows have the field that the companion is named after at 1."""

    def __init__(self, companion: Companion, config: ModelConfig) -> None:
        super().__init__()
        self.field = companion.name
        self.weight = nn.Parameter(torch.empty(config.embedding_width))

    def forward(self, embedded: Tensor, fields: Fields) -> Tensor:
        """Embedded tokens (N, E) and their fields, (N,) each on the CPU, to (N, E)."""
        asks = fields.get(self.field)
        if asks is None or not bool(asks.any()):
            return embedded
        return torch.where((asks == 1).to(embedded.device).unsqueeze(-1), self.weight.to(embedded.dtype), embedded)


KINDS: dict[str, Callable[[Companion, ModelConfig], nn.Module]] = {
    "generator": Generator, "separate generator": functools.partial(Generator, own=True), "delta": Delta,
    "boundary": Boundary, "latent": Latent, "plain latent": functools.partial(Latent, plain=True),
    "critic": Critic,
    "pooler": Pooler, "gelu pooler": functools.partial(Pooler, bend=nn.functional.gelu),
    "classes": Classes, "verdict": Verdict, "embedding": FieldEmbedding,
    "query embedding": QueryEmbedding}
"""What builds each kind. A module's `initialise`, if it has one, runs behind the network's."""


def build(companion: Companion, config: ModelConfig) -> nn.Module:
    """One companion beside a trunk of this config."""
    if companion.kind not in KINDS:
        raise BothwaysError(f"companions: unknown kind '{companion.kind}' {nearest(companion.kind, KINDS)}")
    return KINDS[companion.kind](companion, config)


def build_companions(config: ModelConfig) -> nn.ModuleDict:
    """The companions a config names, by name."""
    built = nn.ModuleDict()
    for companion in config.companions:
        if companion.name == "tokens" or companion.name in built:
            raise BothwaysError(f"companions: the name '{companion.name}' is taken: choose another one")
        built[companion.name] = build(companion, config)
    return built
