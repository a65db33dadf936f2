"""The groups of choices that a network's config is made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


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
    run: int = 1
    """What neighbours share is a run of so many blocks, one behind the other (ALBERT's groups of several layers)."""


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
class Temperature:
    """Queries grow with their place, so that attention stays sharp among ever more keys (arXiv 2501.19399).

    That at place t is multiplied by 1 + rise * ln(1 + floor((t + 1) / step)) (Llama 4's temperature tuning).
    """

    rise: float = 0.1
    step: int = 8192


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
    where: str = "R"
    """One letter a layer, tiled as `reach` is: R turns its queries and keys, N knows no places (Llama 4, SmolLM3)."""
    temperature: Temperature | None = None
    """How the queries of N layers grow with their place."""


@dataclass(frozen=True)
class Norm:
    """Layer or RMS norm, before or after each sub-layer, or both; `query_key` norms queries and keys per head.

    Where norms come after, the sum of state and change is normed (BERT); with "both" the change alone is, before it
    is added (Gemma 2, arXiv 2408.00118).
    """

    kind: Literal["rms", "layer"] = "rms"
    place: Literal["before", "after", "both"] = "before"
    epsilon: float = 1e-6
    query_key: bool | Literal["turned"] = False
    """In all layers, in none, or in those alone that turn their queries and keys (`position.where`)."""
    query_key_weight: bool = True
    """Whether the norms of queries and keys have a learned weight where others do (Llama 4's have none)."""
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


Activation = Literal["silu", "gelu", "gelu_tanh", "relu", "relu_squared", "quick_gelu", "tanh"]
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
    speed: float = 1e-3
    """By how much that number moves behind each step of training, against the expert's load (arXiv 2412.19437, 2.1.2).
    """
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
