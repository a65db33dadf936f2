"""The network, as a few grouped choices. A contradiction is refused here, in one sentence naming both choices."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

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
    embedding: int | None = None
    """Width of the embedding, projected to `width` where it differs (ALBERT, arXiv 1909.11942, section 3.1)."""
    distinct: int | None = None
    """How many blocks have weights of their own; neighbours share the rest (ALBERT). All when none."""


@dataclass(frozen=True)
class Scaling:
    """How rotary angles are slowed down, so that a network reads texts longer than those it first learned from.

    Pairs that turn fewer than `slow` times within `length` tokens are slowed by `factor`, those that turn more than
    `fast` times stay as they are, and those between are blended: "llama3" by how often they turn (Llama 3.1's model
    card), "yarn" by their number (arXiv 2309.00071, section 3.2). "linear" slows all of them (arXiv 2306.15595).
    """

    kind: Literal["linear", "llama3", "yarn"] = "linear"
    factor: float = 1.0
    length: int = 8192
    """The longest text before the slowing; nothing to "linear"."""
    slow: float = 1.0
    fast: float = 4.0
    magnitude: float = 1.0
    """Turned queries and keys are multiplied by it: "yarn"'s attention factor."""
    whole: bool = True
    """Whether the blend of "yarn" begins and ends at whole pairs."""


@dataclass(frozen=True)
class Position:
    """How a token knows its place."""

    kind: Literal["rotary", "learned", "sinusoidal", "relative", "disentangled", "transformer-xl", "none"] = "rotary"
    """What turns queries and keys, is added to the embedding, or adds to the scores: a number for each distance
    ("relative", T5), products of contents with vectors of distances that are trained ("disentangled", DeBERTa) or
    waves, with XLNet's segments ("transformer-xl")."""
    base: float = 10000.0
    length: int = 1024
    """The longest text: a table size for learned positions, what a model card promises for the rest."""
    buckets: int = 32
    """Of distances, for relative and disentangled places; 0 (disentangled) gives each distance up to the last its own.
    """
    distance: int = 128
    """Where distances end; 0 (transformer-xl) is nowhere."""
    terms: tuple[str, ...] = ("c2p", "p2c")
    """Which products disentangled places add: contents to positions, positions to contents (arXiv 2006.03654)."""
    shared: bool = False
    """Disentangled distances go through the queries' and keys' own projections (DeBERTaV3)."""
    normed: bool = False
    """Disentangled distances are normed first (DeBERTaV3)."""
    absolute: bool = False
    """A learned table of places is added to the embedding beside disentangled ones."""
    offset: int = 0
    """Rows of a learned table before that of the first place (2 in RoBERTa and BART, which pad there)."""
    share: float = 1.0
    """Share of each head that is turned, from its front (rotary)."""
    local_base: float | None = None
    """The base of narrow layers, `base` when none (Gemma 3, arXiv 2503.19786; ModernBERT, arXiv 2412.13663)."""
    scaling: Scaling | None = None
    """How rotary angles are slowed down, except in layers that `local_base` gives a base of their own."""


@dataclass(frozen=True)
class Norm:
    """Layer or RMS norm, before or after each sub-layer, or both; `query_key` norms queries and keys per head.

    Where norms come after, the sum of state and change is normed (BERT); with "both" the change alone is, before it
    is added (Gemma 2, arXiv 2408.00118).
    """

    kind: Literal["rms", "layer"] = "rms"
    place: Literal["before", "after", "both"] = "before"
    epsilon: float = 1e-6
    query_key: bool = False
    bias: bool | None = None
    """Whether a layer norm adds one; as the network's `bias` when none."""
    embedding: bool | None = None
    """Whether the embedding is normed before the first block; only where norms come after when none."""
    widened: bool = False
    """A narrower embedding is normed behind the layer that widens it, which then has no bias (DeBERTa)."""
    centred: bool = False
    """The factor is 1 + weight, so that a weight of 0 changes nothing (Gemma)."""
    weight: bool = True
    """Whether what is normed is multiplied by a learned weight (nanochat and OLMo do without)."""
    first: bool = True
    """Whether the first block norms what its attention reads; a normed embedding needs none (ModernBERT)."""


Activation = Literal["silu", "gelu", "gelu_tanh", "relu", "relu_squared"]
"""Functions between two linear layers."""


@dataclass(frozen=True)
class Experts:
    """A mixture of experts in the feed-forward's stead: a router sends each token through a few of them.

    Mixtral (arXiv 2401.04088), DeepSeek-V2 and V3 (arXiv 2405.04434, 2412.19437), Llama 4.
    """

    count: int = 8
    active: int = 2
    """Experts that a token goes through."""
    inner: int | None = None
    """Width inside one expert; that of a plain layer's feed-forward when none."""
    shared: int = 0
    """Experts that every token goes through besides, as one that is so many times as wide."""
    where: str = "E"
    """One letter a layer, tiled as `reach` is: E has experts, D is a dense feed-forward."""
    score: Literal["softmax", "sigmoid"] = "softmax"
    normalised: bool = True
    """Whether the weights of the chosen sum to 1."""
    scale: float = 1.0
    """The weights are multiplied by it in the end."""
    weighs: Literal["outputs", "inputs"] = "outputs"
    """What of an expert is multiplied by its weight."""
    groups: int = 1
    """Neighbouring experts make a group; a token chooses among those in its best `open_groups` groups."""
    open_groups: int = 1
    group_by: int = 1
    """A group is worth its best so many experts together."""
    correction: bool = False
    """Whether the choice (not the weight) sees a number added to each score (arXiv 2408.15664)."""
    balance: float = 0.0
    """Coefficient of the loss that keeps the experts equally busy (arXiv 2101.03961, eq. 4)."""


@dataclass(frozen=True)
class LatentHeads:
    """Keys and values made of one latent a token (multi-head latent attention, DeepSeek-V2, arXiv 2405.04434).

    `shape.head_size` is that of a query with its turned part.
    """

    keys: int = 512
    """Width of the latent of keys and values."""
    queries: int | None = None
    """Width of a latent that queries are made of; they are made of the states when none."""
    rotary: int = 64
    """The turned part of a head, whose key all heads share."""
    values: int | None = None
    """Width of one head's value; `head_size` when none."""


@dataclass(frozen=True)
class Mixer:
    """What mixes tokens: attention, or a recurrence that reads left to right only (model/mamba.py).

    The other choices are the recurrence's: numbers of `state` a channel, places its `convolution` reads, the `inner`
    width (twice the network's when none), the `rank` of Mamba's steps (a 16th of the width when none), Mamba-2's
    `head_size` and `groups`.
    """

    kind: Literal["attention", "mamba", "mamba2"] = "attention"
    state: int = 16
    convolution: int = 4
    convolution_bias: bool = True
    inner: int | None = None
    rank: int | None = None
    head_size: int = 64
    groups: int = 1


@dataclass(frozen=True)
class FeedForward:
    """Gated (arXiv 2002.05202), plain, or none at all (Mamba); dense, or a mixture of experts."""

    kind: Literal["gated", "plain", "none"] = "gated"
    activation: Activation = "silu"
    experts: Experts | None = None


@dataclass(frozen=True)
class Head:
    """How a state becomes scores over the vocabulary, beside the product with a table."""

    scores: bool = True
    """Whether it does at all; the body of an encoder gives states only (a published BERT without its head)."""
    transform: bool = False
    """A dense layer to the embedding's width, an activation and a norm come first (BERT)."""
    activation: Activation | None = None
    """Of the transform; the feed-forward's when none (RoBERTa's is gelu whatever its blocks have)."""
    dense_bias: bool | None = None
    """Whether the transform's dense layer has a bias; as linear layers have one when none."""
    bias: bool = False
    """A number added to each token's score."""
    scale: float | None = None
    """Scores are multiplied by it."""
    soft_cap: float | None = None
    """Scores become cap * tanh(scores / cap) (Gemma 2, arXiv 2408.00118)."""
    decoder: int = 0
    """Times the last block is asked by states that know their absolute place (DeBERTa's enhanced mask decoder, arXiv
    2006.03654, section 3.2); 0 runs it as every other."""


@dataclass(frozen=True)
class Convolution:
    """What neighbours say to a token beside the first block (the larger DeBERTa v2); `kernel` 0 is none.

    Its channels read each other in `groups`.
    """

    kernel: int = 0
    groups: int = 1
    activation: Literal["tanh", "silu", "gelu", "gelu_tanh", "relu"] = "tanh"


BIASED = ("queries", "attention", "feed_forward")
"""Where linear layers may have a bias: queries with keys and values, what attention writes, the feed-forward."""


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
        problems = list(self._problems())
        if problems:
            raise BothwaysError("; ".join(problems))

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

    def turning_of(self, layer: int) -> tuple[float, Scaling | None]:
        """The base of rotary positions in layer `layer`, and how its angles are slowed down."""
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
        for name in ("key_heads", "head_size", "inner", "embedding", "distinct"):
            if (size := getattr(shape, name)) is not None and size < 1:
                yield f"shape.{name} is {size}, but must be at least 1 (or none, to follow from the other sizes)"
        yield from self._problems_of_blocks()
        if self.mixer.kind != "attention":
            yield from self._problems_of_recurrence()
        yield from self._problems_of_scores()
        if self.feed_forward.experts is not None:
            yield from self._problems_of_experts(self.feed_forward.experts)
        most = max(shape.layers, shape.source_layers)
        if not self.reach or set(self.reach) - set("GLC"):
            yield f"reach is '{self.reach}', but is written with the letters G (global), L (local) and C (chunk)"
        elif len(self.reach) > most:
            yield (f"reach '{self.reach}' speaks of {len(self.reach)} layers, but shape.layers is {most}: shorten "
                   "one or add layers")
        if self.local < 1:
            yield f"local is {self.local}, but a local layer reaches at least 1 token"
        if self.source_local is not None and self.source_local < 1:
            yield f"source_local is {self.source_local}, but a local layer reaches at least 1 token"
        if not shape.source_layers and (self.source_local is not None or not self.shared_embedding):
            what = "source_local" if self.source_local is not None else "shared_embedding false"
            yield f"{what} speaks of another tower, but shape.source_layers is 0: change one of them"
        if self.chunk < 1:
            yield f"chunk is {self.chunk}, but a chunk has at least 1 token"
        if not 0 <= self.dropout < 1:
            yield f"dropout is {self.dropout}, but must lie in [0, 1)"
        if self.norm.epsilon <= 0:
            yield f"norm.epsilon is {self.norm.epsilon}, but must be above 0"

    def _problems_of_blocks(self) -> Iterator[str]:
        """Contradictions between what a block is made of."""
        if not isinstance(self.bias, bool) and (unknown := [part for part in self.bias if part not in BIASED]):
            yield f"bias names '{unknown[0]}', but the parts that may have one are {', '.join(BIASED)}"
        if self.norm.bias and self.norm.kind == "rms":
            yield "norm.bias is true, but norm.kind 'rms' has none: choose 'layer' or leave the bias out"
        if self.norm.centred and self.norm.kind != "rms":
            yield f"norm.centred speaks of RMS norms, but norm.kind is '{self.norm.kind}': change one of them"
        if not self.norm.weight and (self.norm.centred or (self.norm.kind == "layer" and self.norm_bias)):
            yield (f"norm.weight is false, but norm.{'centred' if self.norm.centred else 'bias'} speaks of a norm that "
                   "has one: change one of them")
        if not self.norm.first and (self.norm.place != "before" or self.parallel):
            yield ("norm.first is false, but only blocks whose parts are normed one by one (norm.place 'before', not "
                   f"parallel) can leave the first norm out: norm.place is '{self.norm.place}'")
        if not self.norm.first and (self.shape.distinct is not None or self.shape.source_layers):
            yield ("norm.first is false for the first block of one tower, but shape.distinct or shape.source_layers "
                   "makes that block serve elsewhere: choose one")
        if self.feed_forward.kind == "none" and self.mixer.kind == "attention":
            yield ("feed_forward.kind 'none' leaves attention alone in a block: choose gated, plain or another "
                   "mixer.kind")
        if self.parallel and self.norm.place != "before":
            yield f"parallel blocks are normed before, but norm.place is '{self.norm.place}': change one of them"
        if self.parallel and self.shape.source_layers:
            yield (f"parallel blocks have no place to look across at the other tower that shape.source_layers "
                   f"{self.shape.source_layers} makes: choose one")
        if self.distinct > max(self.shape.layers, self.shape.source_layers):
            yield (f"shape.distinct {self.shape.distinct} is more than the layers there are "
                   f"({max(self.shape.layers, self.shape.source_layers)})")
        if self.shape.distinct is not None and self.shape.source_layers:
            yield "shape.distinct shares the blocks of one tower, but shape.source_layers makes two: choose one"
        head = self.head
        if not head.scores and (not self.tied or head != Head(scores=False)):
            yield "head.scores is false, so there is no head to be untied or to have other choices: leave them out"
        if (head.activation is not None or head.dense_bias is not None) and not head.transform:
            yield "head.activation and head.dense_bias speak of head.transform, which is false: change one of them"
        if head.activation is not None and head.activation not in get_args(Activation):
            yield (f"head.activation is '{head.activation}', but must be one of {', '.join(get_args(Activation))} "
                   "(or none, for the feed-forward's)")
        if head.decoder < 0:
            yield f"head.decoder is {head.decoder}, but a block is asked 0 times or more"
        if head.decoder and self.shape.source_layers:
            yield (f"head.decoder asks the last block of one tower, but shape.source_layers {self.shape.source_layers} "
                   "makes two: choose one")
        if self.qkv_bias not in ("qkv", "qv", "q"):
            yield f"qkv_bias is '{self.qkv_bias}', but is 'qkv', 'qv' or 'q'"
        beside = self.convolution
        if beside.kernel and (beside.kernel < 0 or beside.kernel % 2 == 0):
            yield f"convolution.kernel is {beside.kernel}, but has as many neighbours on both sides: choose an odd one"
        if beside.kernel and (beside.groups < 1 or self.shape.width % beside.groups):
            yield f"shape.width {self.shape.width} does not divide into convolution.groups {beside.groups}"
        if beside.kernel and self.shape.source_layers:
            yield (f"convolution.kernel {beside.kernel} is for one tower, but shape.source_layers "
                   f"{self.shape.source_layers} makes two: choose one")
        if self.tied and self.embedding_width != self.shape.width and not head.transform and head.scores:
            yield (f"shape.embedding {self.shape.embedding} is not shape.width {self.shape.width}, so a tied head "
                   "needs head.transform to come back to it")

    def _problems_of_recurrence(self) -> Iterator[str]:
        """What a recurrence cannot be combined with."""
        mixer = self.mixer
        if self.shape.source_layers:
            yield (f"mixer.kind '{mixer.kind}' reads left to right only, but shape.source_layers "
                   f"{self.shape.source_layers} makes a tower that reads both ways: choose one")
        if self.norm.place != "before" or self.parallel:
            yield (f"mixer.kind '{mixer.kind}' stands in blocks that are normed before: use norm.place before, not "
                   "parallel")
        if self.narrow:
            yield f"mixer.kind '{mixer.kind}' has no reach, but reach is '{self.reach}': use G"
        if self.position.kind in ("rotary", "relative"):
            yield (f"mixer.kind '{mixer.kind}' makes no scores, so position.kind '{self.position.kind}' has no place "
                   "in it: use none")
        for name in ("state", "convolution", "head_size", "groups", "inner", "rank"):
            if (size := getattr(mixer, name)) is not None and size < 1:
                yield f"mixer.{name} is {size}, but must be at least 1"
                return
        if mixer.kind == "mamba2" and self.mixed % (mixer.head_size * mixer.groups):
            yield (f"mixer.inner {self.mixed} does not divide into {mixer.groups} groups of heads of "
                   f"mixer.head_size {mixer.head_size}")

    def _problems_of_latents(self, latent: LatentHeads) -> Iterator[str]:
        """What attention by way of latents cannot be combined with."""
        if self.mixer.kind != "attention" or self.shape.source_layers:
            yield "latent is a choice of attention in one tower: leave mixer.kind and shape.source_layers as they are"
        if self.position.kind != "rotary" or self.position.share != 1:
            yield "latent heads have a turned part of their own: use position.kind 'rotary' and position.share 1"
        if self.key_heads != self.shape.heads:
            yield f"latent makes keys for all heads, but shape.key_heads is {self.key_heads}: leave it out"
        if self.norm.query_key:
            yield "latent norms its latents, so norm.query_key has no place: choose one"
        for name in ("keys", "queries", "rotary", "values"):
            if (size := getattr(latent, name)) is not None and size < 1:
                yield f"latent.{name} is {size}, but must be at least 1"
        if latent.rotary > self.head_size:
            yield f"latent.rotary {latent.rotary} is more than shape.head_size {self.head_size}, of which it is a part"

    def _problems_of_experts(self, experts: Experts) -> Iterator[str]:
        """Contradictions between what experts there are and who goes where."""
        name = "feed_forward.experts"
        if self.feed_forward.kind != "gated" or self.biased("feed_forward"):
            yield f"{name} are gated and have no bias: change feed_forward.kind, bias or the experts"
        if self.mixer.kind != "attention":
            yield f"{name} stand beside attention, but mixer.kind is '{self.mixer.kind}': choose one"
        if not 1 <= experts.active <= experts.count:
            yield f"{name}.active is {experts.active}, but a token goes through 1 to {experts.count} of {name}.count"
        if experts.shared < 0 or (experts.inner is not None and experts.inner < 1):
            yield f"{name}.shared {experts.shared} and {name}.inner {experts.inner} cannot be as small as that"
        if not experts.where or set(experts.where) - set("ED"):
            yield f"{name}.where is '{experts.where}', but is written with the letters E (experts) and D (dense)"
        elif len(experts.where) > max(self.shape.layers, self.shape.source_layers):
            yield f"{name}.where '{experts.where}' speaks of more layers than there are: shorten it or add layers"
        elif len(set(experts.where)) > 1 and self.shape.distinct is not None:
            yield f"{name}.where '{experts.where}' differs between layers, which shape.distinct shares: choose one"
        if experts.groups < 1 or experts.count % max(experts.groups, 1):
            yield f"{name}.count {experts.count} does not divide into {name}.groups {experts.groups}"
            return
        size = experts.count // experts.groups
        if not 1 <= experts.open_groups <= experts.groups or not 1 <= experts.group_by <= size:
            yield (f"{name}.open_groups {experts.open_groups} and {name}.group_by {experts.group_by} do not fit "
                   f"{experts.groups} groups of {size} experts")
        elif experts.active > experts.open_groups * size:
            yield (f"{name}.active {experts.active} is more than the {experts.open_groups * size} experts in "
                   f"{name}.open_groups {experts.open_groups} groups")
        if experts.scale <= 0 or experts.balance < 0:
            yield f"{name}.scale {experts.scale} must be above 0 and {name}.balance {experts.balance} not below"

    def _problems_of_scores(self) -> Iterator[str]:
        """Contradictions between what knows places and what scores."""
        position = self.position
        if self.latent is not None:
            yield from self._problems_of_latents(self.latent)
        if position.kind == "rotary" and self.turned_size % 2:
            yield (f"position.kind 'rotary' turns pairs of numbers, so an odd head size of {self.turned_size} "
                   "cannot carry it: change shape.width, shape.heads or shape.head_size")
        if position.kind == "sinusoidal" and self.shape.width % 2:
            yield f"position.kind 'sinusoidal' fills pairs of numbers, so shape.width {self.shape.width} must be even"
        if position.kind in ("relative", "disentangled", "transformer-xl") and self.soft_cap is not None:
            yield f"position.kind '{position.kind}' adds to the scores and soft_cap bends them: choose one"
        if position.kind == "disentangled":
            yield from self._problems_of_distances()
        if position.kind == "transformer-xl" and self.shape.width % 2:
            yield (f"position.kind 'transformer-xl' fills pairs of numbers, so shape.width {self.shape.width} must be "
                   "even")
        if position.kind == "transformer-xl" and position.distance < 0:
            yield f"position.distance is {position.distance}, but must be at least 1, or 0 for no end"
        if position.kind == "relative" and (position.buckets < 4 or position.buckets % 4):
            yield f"position.buckets is {position.buckets}, but must be a multiple of 4 (two sides, near and far)"
        if position.kind == "relative" and position.distance <= position.buckets // 2:
            yield (f"position.distance {position.distance} is no farther than the near half of position.buckets "
                   f"{position.buckets}: raise the distance or lower the buckets")
        if not 0 < position.share <= 1 or (position.kind == "rotary" and round(self.turned_size * position.share) % 2):
            yield (f"position.share {position.share} of a head of {self.turned_size} numbers must be an even count of "
                   "them, above none")
        if position.offset < 0:
            yield f"position.offset is {position.offset}, but must be at least 0"
        if (scaling := position.scaling) is not None:
            if position.kind != "rotary":
                yield (f"position.scaling slows rotary angles, but position.kind is '{position.kind}': change one of "
                       "them")
            if scaling.factor <= 0 or scaling.length < 1 or scaling.magnitude <= 0:
                yield (f"position.scaling has factor {scaling.factor}, length {scaling.length} and magnitude "
                       f"{scaling.magnitude}, but all of them must be above 0")
            if not 0 < scaling.slow < scaling.fast:
                yield (f"position.scaling.slow {scaling.slow} must be above 0 and below position.scaling.fast "
                       f"{scaling.fast}")
        if position.length < 1:
            yield f"position.length is {position.length}, but must be at least 1"
        if self.soft_cap is not None and self.soft_cap <= 0:
            yield f"soft_cap is {self.soft_cap}, but must be above 0"

    def _problems_of_distances(self) -> Iterator[str]:
        """Contradictions among the choices for disentangled places."""
        position = self.position
        if not position.terms or set(position.terms) - {"c2p", "p2c"} or len(set(position.terms)) < len(position.terms):
            yield (f"position.terms is ({', '.join(position.terms)}), but names 'c2p', 'p2c' or both, which "
                   "position.kind 'disentangled' adds to the scores")
        if position.buckets < 0 or position.buckets % 2:
            yield f"position.buckets is {position.buckets}, but must be even (near and far), or 0 for none"
        if position.distance < 1:
            yield f"position.distance is {position.distance}, but disentangled places end at 1 or more"
        if position.buckets > 0 and position.distance - 1 <= position.buckets // 2:
            yield (f"position.distance {position.distance} is no farther than the near half of position.buckets "
                   f"{position.buckets}: raise the distance or lower the buckets")
