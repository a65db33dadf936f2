"""The network, as a few grouped choices. A contradiction is refused here, in one sentence naming both choices."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from bothways.batch import Companion
from bothways.errors import BothwaysError
from bothways.model.choices import (
    BIASED,
    Activation,
    Convolution,
    Experts,
    FeedForward,
    Head,
    LatentHeads,
    Mixer,
    Norm,
    Position,
    Scaling,
    Shape,
    Temperature,
)
from bothways.model.problems import problems
from bothways.visibility import Visibility, bidirectional, chunked, window

__all__ = ["BIASED", "Activation", "Convolution", "Experts", "FeedForward", "Head", "LatentHeads", "Mixer",
           "ModelConfig", "Norm", "Position", "Scaling", "Shape", "Temperature"]


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
    head: Head = field(default_factory=Head)
    mixer: Mixer = field(default_factory=Mixer)
    parallel: bool = False
    """Attention and feed-forward read the same normed state, and both changes are added at once (GPT-J, PaLM)."""
    bias: bool | tuple[str, ...] = False
    """Whether linear layers have one: all, none, or those of BIASED that are named."""
    qkv_bias: Literal["qkv", "qv", "q"] = "qkv"
    """Of queries, keys and values, those that have the bias which `bias` gives "queries"."""
    convolution: Convolution = field(default_factory=Convolution)
    tied: bool = True
    source_local: int | None = None
    """How far L layers of the other tower see to each side; `local` when none."""
    shared_embedding: bool = True
    """Whether both towers read by one table; else the other one has its own (T5Gemma, arXiv 2504.06225)."""
    dropout: float = 0.0
    scale: float | None = None
    """Scale of attention scores; when none 1 / sqrt(head size), or with disentangled places 1 / sqrt(head size times
    one more than there are terms). T5 uses 1."""
    embedding_scale: float | None = None
    soft_cap: float | None = None
    """Scores become cap * tanh(scores / cap) when set."""
    latent: LatentHeads | None = None
    """Attention by way of latents, which alone are cached."""
    companions: tuple[Companion, ...] = ()
    """What the objective trains beside the trunk; filled in from what it declares."""

    def __post_init__(self) -> None:
        found = list(problems(self))
        if found:
            raise BothwaysError("; ".join(found))

    @property
    def stack(self) -> Literal["one tower", "two towers"]:
        """How many towers the shape has."""
        return "two towers" if self.shape.source_layers else "one tower"

    @property
    def of_source(self) -> ModelConfig:
        """The config as the other tower has it."""
        return self if self.source_local is None else replace(self, local=self.source_local, source_local=None)

    @property
    def head_size(self) -> int:
        """Numbers of a head: as given, or the width's share."""
        return self.shape.head_size or self.shape.width // self.shape.heads

    @property
    def key_heads(self) -> int:
        """Heads of keys and values: as given, or as many as of queries."""
        return self.shape.key_heads or self.shape.heads

    @property
    def inner(self) -> int:
        """Width of the feed-forward part: as given, 4 times the width, or 8/3 of it (gated) in whole 32s."""
        if self.shape.inner:
            return self.shape.inner
        if self.feed_forward.kind == "plain":
            return 4 * self.shape.width
        return -(-8 * self.shape.width // 3 // 32) * 32

    @property
    def embedding_width(self) -> int:
        return self.shape.embedding or self.shape.width

    @property
    def distinct(self) -> int:
        """How many blocks have weights of their own."""
        return self.shape.distinct or max(self.shape.layers, self.shape.source_layers)

    @property
    def norms_embedding(self) -> bool:
        """Whether the embedding is normed before the first block."""
        return self.norm.place == "after" if self.norm.embedding is None else self.norm.embedding

    @property
    def head_activation(self) -> str:
        """The activation of the head's transform."""
        return self.head.activation or self.feed_forward.activation

    @property
    def head_dense_bias(self) -> bool:
        """Whether the dense layer of the head's transform has a bias."""
        return self.bias not in (False, ()) if self.head.dense_bias is None else self.head.dense_bias

    @property
    def norm_bias(self) -> bool:
        """Whether layer norms add one."""
        return self.bias is not False and self.bias != () if self.norm.bias is None else self.norm.bias

    @property
    def mixed(self) -> int:
        """Width inside a recurrent mixer."""
        return self.mixer.inner or 2 * self.shape.width

    def biased(self, part: str) -> bool:
        """Whether the linear layers of this part (one of BIASED) have a bias."""
        return self.bias if isinstance(self.bias, bool) else part in self.bias

    def biased_in(self, part: str) -> bool:
        """Whether queries, keys or values ("q", "k" or "v") have a bias."""
        return self.biased("queries") and part in self.qkv_bias

    @property
    def score_scale(self) -> float:
        """What the product of a query and a key is multiplied with."""
        terms = len(self.position.terms) if self.position.kind == "disentangled" else 0
        return (self.head_size * (1 + terms)) ** -0.5 if self.scale is None else self.scale

    def turns(self, layer: int) -> bool:
        """Whether layer `layer` knows places, rotary ones; all layers know those of other kinds."""
        return self.position.where[layer % len(self.position.where)] == "R"

    def norms_queries(self, layer: int) -> bool:
        """Whether layer `layer` norms its queries and keys."""
        return self.turns(layer) if self.norm.query_key == "turned" else self.norm.query_key

    def turning_of(self, layer: int) -> tuple[float, Scaling | None] | None:
        """The base of rotary positions in layer `layer`, and how its angles are slowed down; none where it has none."""
        if not self.turns(layer):
            return None
        local = self.position.local_base
        narrow = self.reach[layer % len(self.reach)] != "G"
        return (self.position.base, self.position.scaling) if local is None or not narrow else (local, None)

    def reach_of(self, layer: int) -> Visibility:
        """What layer `layer` may reach, to be combined with the visibility of the call."""
        letter = self.reach[layer % len(self.reach)]
        return {"G": bidirectional, "L": window(self.local, self.local), "C": chunked(self.chunk)}[letter]

    @property
    def kept(self) -> tuple[int, int]:
        """Vectors that a cache keeps for a token in one layer, and their width; keys and values apart, or latents."""
        return (self.key_heads, self.head_size) if self.latent is None else (1, self.latent.keys + self.latent.rotary)

    @property
    def turned_size(self) -> int:
        """Numbers of a head among which rotary pairs are taken."""
        return self.head_size if self.latent is None else self.latent.rotary

    def experts_of(self, layer: int) -> Experts | None:
        """The experts of layer `layer`; none where its feed-forward is dense."""
        experts = self.feed_forward.experts
        return experts if experts is not None and experts.where[layer % len(experts.where)] == "E" else None

    @property
    def narrow(self) -> bool:
        """Whether some layer sees less than the visibility allows."""
        return set(self.reach) != {"G"}
