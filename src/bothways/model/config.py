"""The network, as a few grouped choices. A contradiction is refused here, in one sentence naming both choices."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from bothways.batch import Companion
from bothways.errors import BothwaysError
from bothways.visibility import Visibility, bidirectional, chunked, window


@dataclass(frozen=True)
class Shape:
    """Sizes. `source_layers` above 0 adds the second tower (an encoder); `layers` is the tower that predicts."""

    vocabulary: int = 4096
    width: int = 256
    layers: int = 6
    source_layers: int = 0
    heads: int = 4
    key_heads: int | None = None
    """Grouped-query attention (arXiv 2305.13245): heads that hold keys and values; `heads` when none."""
    head_size: int | None = None
    """Width of one head; width / heads when none."""
    inner: int | None = None
    """Width inside the feed-forward; 4 * width plain, 8/3 * width (to a multiple of 32) gated, when none."""


@dataclass(frozen=True)
class Position:
    """How a token knows its place."""

    kind: Literal["rotary", "learned", "sinusoidal", "relative", "none"] = "rotary"
    base: float = 10000.0
    length: int = 1024
    """The longest text: a table size for learned positions, what a model card promises for the rest."""
    buckets: int = 32
    distance: int = 128


@dataclass(frozen=True)
class Norm:
    """Layer or RMS norm, before or after each sub-layer; `query_key` norms queries and keys per head."""

    kind: Literal["rms", "layer"] = "rms"
    place: Literal["before", "after"] = "before"
    epsilon: float = 1e-6
    query_key: bool = False


@dataclass(frozen=True)
class FeedForward:
    """Gated (arXiv 2002.05202) or plain."""

    kind: Literal["gated", "plain"] = "gated"
    activation: Literal["silu", "gelu", "gelu_tanh", "relu"] = "silu"


@dataclass(frozen=True)
class ModelConfig:
    """Everything the network is. It knows neither objective nor direction: visibility comes with each call.

    `reach` is one letter a layer, tiled: G sees all that the visibility allows, L only `local` tokens around, C only
    the own chunk of `chunk` tokens. GPT-3 is "GL" (arXiv 2005.14165, section 2.1), Llama 4 "CCCG".
    """

    shape: Shape = field(default_factory=Shape)
    position: Position = field(default_factory=Position)
    norm: Norm = field(default_factory=Norm)
    feed_forward: FeedForward = field(default_factory=FeedForward)
    reach: str = "G"
    local: int = 128
    chunk: int = 128
    bias: bool = False
    tied: bool = True
    dropout: float = 0.0
    scale: float | None = None
    """Scale of attention scores; 1 / sqrt(head size) when none (T5 uses 1)."""
    embedding_scale: float | None = None
    soft_cap: float | None = None
    """Scores become cap * tanh(scores / cap) when set."""
    companions: tuple[Companion, ...] = ()
    """What the objective trains beside the trunk; filled in from what it declares."""

    def __post_init__(self) -> None:
        problems = list(self._problems())
        if problems:
            raise BothwaysError("; ".join(problems))

    @property
    def stack(self) -> Literal["one tower", "two towers"]:
        return "two towers" if self.shape.source_layers else "one tower"

    @property
    def head_size(self) -> int:
        return self.shape.head_size or self.shape.width // self.shape.heads

    @property
    def key_heads(self) -> int:
        return self.shape.key_heads or self.shape.heads

    @property
    def inner(self) -> int:
        if self.shape.inner:
            return self.shape.inner
        if self.feed_forward.kind == "plain":
            return 4 * self.shape.width
        return -(-8 * self.shape.width // 3 // 32) * 32

    def reach_of(self, layer: int) -> Visibility:
        """What layer `layer` may reach, to be combined with the visibility of the call."""
        letter = self.reach[layer % len(self.reach)]
        return {"G": bidirectional, "L": window(self.local, self.local), "C": chunked(self.chunk)}[letter]

    @property
    def narrow(self) -> bool:
        """Whether some layer sees less than the visibility allows."""
        return set(self.reach) != {"G"}

    def _problems(self) -> Iterator[str]:
        """Every contradiction among the choices, each as a sentence that names both."""
        shape = self.shape
        for name in ("vocabulary", "width", "layers", "heads"):
            if getattr(shape, name) < 1:
                yield f"shape.{name} is {getattr(shape, name)}, but must be at least 1"
                return
        if shape.source_layers < 0:
            yield f"shape.source_layers is {shape.source_layers}, but a tower cannot have fewer than 0 layers"
        if shape.head_size is None and shape.width % shape.heads:
            yield (f"shape.width {shape.width} does not divide into shape.heads {shape.heads}: "
                   "change one of them or set shape.head_size")
        if shape.heads % max(self.key_heads, 1):
            yield f"shape.heads {shape.heads} does not divide into shape.key_heads {self.key_heads} groups"
        for name in ("key_heads", "head_size", "inner"):
            if (size := getattr(shape, name)) is not None and size < 1:
                yield f"shape.{name} is {size}, but must be at least 1 (or none, to follow from the other sizes)"
        yield from self._problems_of_scores()
        most = max(shape.layers, shape.source_layers)
        if not self.reach or set(self.reach) - set("GLC"):
            yield f"reach is '{self.reach}', but is written with the letters G (global), L (local) and C (chunk)"
        elif len(self.reach) > most:
            yield (f"reach '{self.reach}' speaks of {len(self.reach)} layers, but shape.layers is {most}: shorten "
                   "one or add layers")
        if self.local < 1:
            yield f"local is {self.local}, but a local layer reaches at least 1 token"
        if self.chunk < 1:
            yield f"chunk is {self.chunk}, but a chunk has at least 1 token"
        if not 0 <= self.dropout < 1:
            yield f"dropout is {self.dropout}, but must lie in [0, 1)"
        if self.norm.epsilon <= 0:
            yield f"norm.epsilon is {self.norm.epsilon}, but must be above 0"

    def _problems_of_scores(self) -> Iterator[str]:
        """Contradictions between what knows places and what scores."""
        position = self.position
        if position.kind == "rotary" and self.head_size % 2:
            yield (f"position.kind 'rotary' turns pairs of numbers, so an odd head size of {self.head_size} "
                   "cannot carry it: change shape.width, shape.heads or shape.head_size")
        if position.kind == "sinusoidal" and self.shape.width % 2:
            yield f"position.kind 'sinusoidal' fills pairs of numbers, so shape.width {self.shape.width} must be even"
        if position.kind == "relative" and self.soft_cap is not None:
            yield "position.kind 'relative' adds to the scores and soft_cap bends them: choose one"
        if position.kind == "relative" and (position.buckets < 4 or position.buckets % 4):
            yield f"position.buckets is {position.buckets}, but must be a multiple of 4 (two sides, near and far)"
        if position.kind == "relative" and position.distance <= position.buckets // 2:
            yield (f"position.distance {position.distance} is no farther than the near half of position.buckets "
                   f"{position.buckets}: raise the distance or lower the buckets")
        if position.length < 1:
            yield f"position.length is {position.length}, but must be at least 1"
        if self.soft_cap is not None and self.soft_cap <= 0:
            yield f"soft_cap is {self.soft_cap}, but must be above 0"
