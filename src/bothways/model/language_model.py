"""The network: embedding, one tower or two, and a head that is read only where something is asked."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import cast

import torch
from torch import Tensor, nn

from bothways.batch import Example
from bothways.errors import BothwaysError, nearest
from bothways.model.attention import Kept
from bothways.model.cache import Cache
from bothways.model.compact import Compact, whole
from bothways.model.companions import FieldEmbedding, Pooler, QueryEmbedding, build_companions
from bothways.model.config import ModelConfig
from bothways.model.experts import Routing, loads
from bothways.model.feed_forward import ACTIVATIONS, GatedFeedForward
from bothways.model.generator import Delta, Generator
from bothways.model.latent import Latent, facts
from bothways.model.mixer import CrossAttention, SelfAttention
from bothways.model.norm import make_norm
from bothways.model.product import Linear, product
from bothways.model.render import Plan, Planner
from bothways.model.tower import Tower
from bothways.visibility import bidirectional

MOST = 0.7
"""Above this share of asked rows the last layer answers for all of them: picking rows costs more than it saves."""


@dataclass
class Output:
    """What a call of the network returns, rows in the order of the inputs.

    states: (N, D) behind the last norm.
    source: (M, D) of the other tower, or none.
    hidden: (N, D) of the embedding and of each layer, if asked for.
    extras: what else a part of the network has to say: "mean", "log_variance", "latent" of a bottleneck; what the
        routers of the tower that predicts did (see `experts.loads`).
    """

    states: Tensor
    source: Tensor | None = None
    hidden: tuple[Tensor, ...] | None = None
    extras: dict[str, Tensor] = field(default_factory=dict)


class Transform(nn.Module):
    """What a state goes through before it is scored: a dense layer, an activation, a norm (BERT's head)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.dense = Linear(config.shape.width, config.embedding_width, bias=config.head_dense_bias)
        self.norm = make_norm(config, config.embedding_width)
        self.activation = config.head_activation

    def forward(self, states: Tensor) -> Tensor:
        """(T, D) to (T, E)."""
        return cast(Tensor, self.norm(ACTIVATIONS[self.activation](self.dense(states))))


class LanguageModel(nn.Module):
    """One network for every objective and direction; `config` says all it is."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config, shape = config, config.shape
        self.embedding = nn.Embedding(shape.vocabulary, config.embedding_width)
        self.source_tower = (Tower(config.of_source, shape.source_layers, looks_back=False) if shape.source_layers
                             else None)
        two = self.source_tower is not None
        self.source_embedding = (None if config.shared_embedding else
                                 nn.Embedding(shape.vocabulary, config.embedding_width))
        self.tower = Tower(config, shape.layers, crosses=two, looks_back=two)
        self.head_transform = Transform(config) if config.head.transform else None
        self.head: Linear | Compact | None = None if config.tied else Linear(
            config.embedding_width if config.head.transform else shape.width, shape.vocabulary, bias=False)
        self.head_bias = nn.Parameter(torch.zeros(shape.vocabulary)) if config.head.bias else None
        self.companions = build_companions(config)
        self.initialise()

    def forward(self, example: Example, cache: Cache | None = None, hidden: bool = False, only_asked: bool = False,
                latent: Tensor | None = None) -> Output:
        """States of every input token.

        Args:
            example: one document or many packed; fields on the CPU, inputs on the network's device.
            cache: what the same documents have read before; the example then brings only new tokens.
            hidden: also return the states of every layer.
            only_asked: let the last layer answer only where an Ask of the example points; other states are zeros. What
                is asked and its gradients stay the same; a masked objective saves most of a layer.
            latent: (B, size) to be told to the tower that predicts, one row a document, in a source's stead; for a
                network with a bottleneck between its towers.
        An example whose Asks are all for one companion that reads for itself (a generator) is read by that one.

        Raises:
            BothwaysError: the example does not fit the stack (a source for one tower, or none for two), or a cache
                is given where an earlier token could see a later one.
        """
        rows = _asked(example) if only_asked and cache is None and not hidden else None
        reader = self._reader(example)
        if reader is not None:
            return Output(reader(example, self._plain, rows))
        # 1. the other tower
        source, across = None, None
        extras: dict[str, Tensor] = {}
        if self.source_tower is not None:
            source, across, extras = self._across(example, cache, rows, latent)
        elif example.source is not None:
            raise BothwaysError("this network has one tower, but the example brings a source: "
                                "set shape.source_layers above 0 or choose an objective for one tower")
        # 2. the tower that predicts
        planner = None
        if cache is None:
            planner = Planner(example.fields, None, example.inputs.device)
        else:
            cache.begin(example)
        heard: list[Routing] = []
        states, layers = self.tower(self._embed(example), example.fields, example.visibility, planner, cache,
                                    across, rows, heard)
        if cache is not None:
            cache.finish()
        if rows is not None:
            states = states.new_zeros(len(example), states.shape[-1]).index_copy(0, rows, states)
        experts = self.config.feed_forward.experts
        extras |= loads(heard, 0.0 if experts is None else experts.balance)
        return Output(states, source, tuple(layers) if hidden else None, extras)

    def encode(self, source: Example, hidden: bool = False) -> Output:
        """States of a source alone, by the tower that reads it (or by the only one)."""
        tower = self.tower if self.source_tower is None else self.source_tower
        states, layers = tower(self._embed(source, self.source_embedding), source.fields, source.visibility,
                               Planner(source.fields, None, source.inputs.device))
        return Output(states, None, tuple(layers) if hidden else None)

    def logits(self, states: Tensor, head: str = "tokens") -> Tensor:
        """Scores for the given states: (T, D) to (T, V) over the vocabulary, or (T, C) by a head for classes."""
        if head != "tokens":
            if head not in self.companions:
                raise BothwaysError(f"this network has no head '{head}' {nearest(head, ['tokens', *self.companions])}")
            companion = self.companions[head]
            if isinstance(companion, Generator):
                return companion.logits(states, self.embedding.weight)
            return cast(Tensor, companion(states))
        if not self.config.head.scores:
            raise BothwaysError("this network has no head over the vocabulary, it gives states only: use its states "
                                "(`embed`), or give it a head to be trained with `with_objective`")
        states = states if self.head_transform is None else self.head_transform(states)
        if isinstance(self.head, Compact):
            scores = self.head(states)
            scores = scores if self.head_bias is None else scores + self.head_bias
        else:
            scores = product(states, self.embedding.weight if self.head is None else self.head.weight, self.head_bias)
        scores = scores if self.config.head.scale is None else scores * self.config.head.scale
        cap = self.config.head.soft_cap
        return scores if cap is None else torch.tanh(scores / cap) * cap

    def pooled(self, states: Tensor) -> Tensor:
        """The published summary of texts from the states of their first tokens: (B, D) to (B, D).

        Raises:
            BothwaysError: no pooler was trained beside this network.
        """
        for companion in self.companions.values():
            if isinstance(companion, Pooler):
                return companion.pooled(states)
        raise BothwaysError("this network has no pooler: choose the mean over a text's tokens, or its first token")

    def cache(self, sequences: int, capacity: int) -> Cache:
        """An empty cache for this network, in its number format and on its device."""
        return Cache(self.config, sequences, capacity, self.embedding.weight.dtype, self.embedding.weight.device)

    def split_projections(self) -> None:
        """Separate fused projections (q, k, v and up, gate), as adapters want them; the function stays the same."""
        whole(self, "split for adapters")
        for module in list(self.modules()):
            if isinstance(module, SelfAttention | CrossAttention | GatedFeedForward):
                module.split_projections()

    @torch.no_grad()
    def initialise(self) -> None:
        """Normal(0, 0.02); what writes into the residual stream is scaled by 1 / sqrt(2 layers) (GPT-2).

        A part with a beginning of its own (a recurrence, a delta) has the last word.
        """
        depth = max(self.config.shape.layers, self.config.shape.source_layers)
        for name, weight in self.named_parameters():
            if "norm" in name:
                weight.fill_(0.0 if name.endswith("bias") or self.config.norm.centred else 1.0)
            elif name.endswith("bias"):
                weight.zero_()
            else:
                writes = name.endswith(("out.weight", "down.weight", "expert_down"))
                weight.normal_(0.0, 0.02 / (math.sqrt(2 * depth) if writes else 1.0))
        for part in self.modules():
            if part is not self and hasattr(part, "initialise"):
                cast(Delta, part).initialise()

    def _embed(self, example: Example, table: nn.Module | None = None) -> Tensor:
        """Tokens as vectors, with those of the fields that have an embedding of their own: (N, D).

        Args:
            table: the embedding to look in, the one of the tower that predicts when none.
        """
        embedded = self._looked_up(example.inputs) if table is None else cast(Tensor, table(example.inputs))
        if self.config.embedding_scale is not None:
            embedded = embedded * _factor(self.config.embedding_scale, embedded)
        for companion in self.companions.values():
            if isinstance(companion, FieldEmbedding | QueryEmbedding):
                embedded = companion(embedded, example.fields)
        return embedded

    def _looked_up(self, inputs: Tensor) -> Tensor:
        """The trunk's own vector for each token: (N,) ids to (N, D)."""
        delta = next((one for one in self.companions.values() if isinstance(one, Delta)), None)
        return cast(Tensor, self.embedding(inputs) if delta is None else delta(inputs, self.embedding.weight))

    def _plain(self, inputs: Tensor) -> Tensor:
        """What a companion reads that shares the trunk's embedding: (N,) ids to (N, D)."""
        embedded = cast(Tensor, self.embedding(inputs))
        return embedded if self.config.embedding_scale is None else embedded * _factor(
            self.config.embedding_scale, embedded)

    def _reader(self, example: Example) -> Generator | None:
        """The companion that reads in the trunk's stead, if all Asks are for it."""
        heads = {ask.head for ask in example.asks}
        readers = (one for name, one in self.companions.items() if isinstance(one, Generator) and heads == {name})
        return next(readers, None)

    def _told(self, example: Example, latent: Tensor | None
              ) -> tuple[Tensor | None, Tensor, Example, dict[str, Tensor]]:
        """The source's states; what the other tower is told, (M, D), and the same as a source; what lies between."""
        bottleneck = next((one for one in self.companions.values() if isinstance(one, Latent)), None)
        source, extras = None, dict[str, Tensor]()
        if latent is None:
            assert example.source is not None
            source = self.encode(example.source).states
            if bottleneck is None:
                return source, source, example.source, {}
            told, extras = bottleneck(source, example.source.fields)
        elif bottleneck is None:
            raise BothwaysError("this network has no latent between its towers: give the example a source instead")
        else:
            told = bottleneck.opened(latent)
        nothing = torch.zeros(len(told), dtype=torch.long, device=told.device)
        return source, told, Example(nothing, bidirectional, facts(len(told))), extras

    def _across(self, example: Example, cache: Cache | None, rows: Tensor | None, latent: Tensor | None = None
                ) -> tuple[Tensor | None, list[tuple[Tensor | Kept, Plan]], dict[str, Tensor]]:
        """The source's states, for each block what they told and the plan of looking there, and a bottleneck's word."""
        source, extras, cross = None, dict[str, Tensor](), example.cross
        if cross is None:
            raise BothwaysError("this network has two towers, but the example does not say who may look across: "
                                "give it `cross` (say, `bidirectional`)")
        if example.source is None and latent is None and (cache is None or not cache.cross):
            raise BothwaysError("this network has two towers, but the example brings no source: "
                                "give it one (which may be empty)")
        told: list[Tensor] = []
        if example.source is not None or latent is not None:
            source, memory, telling, extras = self._told(example, latent)
            told = [self.tower.block(i).cross.told(memory) for i in range(self.config.shape.layers)]
            example = replace(example, source=telling)
        if cache is None:
            assert example.source is not None
            planner = Planner(example.fields, example.source.fields, example.inputs.device)
            plans = [planner.plan(cross)] * len(told)
            if rows is not None:
                plans[-1] = planner.only(rows).plan(cross)
            return source, list(zip(told, plans, strict=True)), extras
        if example.source is not None:
            cache.read_source(example.source, told)
        plan = cache.plan_across(example, cross)
        return source, [(kept, plan) for kept in cache.cross], extras


def _factor(scale: float, like: Tensor) -> float:
    """A scale in the number format of what it is to multiply, as Gemma was trained: 55.4256 is 55.5 in bfloat16."""
    return scale if like.dtype == torch.float32 else torch.tensor(scale, dtype=like.dtype).item()


def _asked(example: Example) -> Tensor | None:
    """The rows that Asks point at, in order; none if they are so many that leaving out the rest saves little."""
    if not example.asks:
        return None
    rows = torch.unique(torch.cat([ask.where for ask in example.asks]))
    return rows if len(rows) < MOST * len(example) else None
