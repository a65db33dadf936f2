"""What a network costs: parameters, and floating-point operations per raw token.

Only matrix products are counted, a multiply-add as two, training as three forward passes (Kaplan et al., arXiv
2001.08361, section 2.1). Unlike 6 N D this counts attention by the pairs that a visibility really allows, the head
only where something is asked, and both towers by the tokens that each of them reads.
"""

from __future__ import annotations

import torch
from torch import nn

from bothways.batch import Companion
from bothways.model.companions import build
from bothways.model.config import ModelConfig
from bothways.model.critic import Critic
from bothways.model.generator import Generator
from bothways.model.language_model import LanguageModel
from bothways.model.terms import DistanceTable
from bothways.objectives.base import Profile
from bothways.visibility import Visibility, bidirectional, density


def flops(config: ModelConfig, profile: Profile, length: int, training: bool = True, as_run: bool = False) -> float:
    """Floating-point operations for each raw token of documents of `length` raw tokens.

    Args:
        profile: what the objective makes of a raw token.
        training: forward and backward instead of forward alone.
        as_run: count every query with every key of a document, as our own CPU kernel multiplies them, instead of only
            the pairs that the visibility needs (half of them for a causal one).
    """
    # 1. tokens in each tower
    tokens, told = round(profile.inputs * length), round(profile.source_inputs * length)
    total = _tower(config, tokens, config.shape.layers, profile.visibility, as_run)
    if config.embedding_width != config.shape.width:
        total += 2.0 * config.embedding_width * config.shape.width * (tokens + told)
    # 2. the other tower, and looking across at it
    if config.shape.source_layers:
        total += _tower(config.of_source, told, config.shape.source_layers, bidirectional, as_run)
        asking, telling = cross_products(config)
        # a latent between the towers leaves one thing to look at
        seen = 1 if any("latent" in companion.kind for companion in config.companions) else told
        total += config.shape.layers * (2.0 * tokens * asking + 2.0 * seen * telling + _pairs(config, tokens * seen))
    # 3. the head, where something is asked
    total += 2.0 * head_products(config) * profile.asked * length
    # 4. what runs beside the trunk
    for companion, read, asked in profile.companions:
        total += _beside(config, companion, profile.visibility, round(read * length), asked * length, as_run)
    return total * (3 if training else 1) / length


def block_products(config: ModelConfig, layer: int = 0) -> int:
    """Weights a token is multiplied with in one block, cross-attention apart."""
    width, heads, shared = config.shape.width, config.shape.heads, config.key_heads
    mixing = width * config.head_size * (2 * heads + 2 * shared)
    if config.mixer.kind != "attention":
        mixing = recurrent_products(config)
    if (latent := config.latent) is not None:
        queries, value = heads * config.head_size, latent.values or config.head_size
        opened = config.head_size - latent.rotary + value
        mixing = (queries * width if latent.queries is None else latent.queries * (width + queries)) + (
            width * (latent.keys + latent.rotary) + latent.keys * heads * opened
            + heads * value * width)
    experts = config.experts_of(layer)
    if experts is None:
        return mixing + {"gated": 3, "plain": 2, "none": 0}[config.feed_forward.kind] * width * config.inner
    inside = (experts.active + experts.shared) * (experts.inner or config.inner)
    return mixing + width * (experts.count + 3 * inside)


def recurrent_products(config: ModelConfig) -> int:
    """Products of one recurrent mixer for a token: its linear maps, its convolution, and its state, which is written
    and read once. Mamba-2's chunks multiply more, to do it faster."""
    mixer, width, inner = config.mixer, config.shape.width, config.mixed
    state = 2 * inner * mixer.state
    if mixer.kind == "mamba":
        rank = mixer.rank or -(-width // 16)
        return 3 * width * inner + inner * (mixer.convolution + 2 * rank + 2 * mixer.state) + state
    channels = inner + 2 * mixer.groups * mixer.state
    return width * (2 * inner + channels + inner // mixer.head_size) + channels * mixer.convolution + state


def head_products(config: ModelConfig) -> int:
    """Weights a state asked for is multiplied with; none without a head."""
    if not config.head.scores:
        return 0
    scored = config.embedding_width if config.tied or config.head.transform else config.shape.width
    return scored * (config.shape.vocabulary + (config.shape.width if config.head.transform else 0))


def cross_products(config: ModelConfig) -> tuple[int, int]:
    """Weights of one block's cross-attention: for each token that looks, and for each that is looked at."""
    width, size = config.shape.width, config.head_size
    return 2 * width * config.shape.heads * size, 2 * width * config.key_heads * size


def _tower(config: ModelConfig, tokens: int, layers: int, visibility: Visibility, as_run: bool) -> float:
    """Forward operations of one document of `tokens` tokens in one tower."""
    if not tokens:
        return 0.0
    shares: dict[Visibility, float] = {}
    total = 2.0 * tokens * sum(block_products(config, layer) for layer in range(layers))
    if config.mixer.kind != "attention":
        return total
    for layer in range(layers):
        value = visibility & config.reach_of(layer)
        if value not in shares:
            shares[value] = 1.0 if as_run else allowed(value, tokens)
        total += _pairs(config, shares[value] * tokens * tokens)
    return total + layers * _placed(config, tokens) + _beside_blocks(config, tokens, shares[value])


def _placed(config: ModelConfig, tokens: int) -> float:
    """What one layer multiplies with distances: their vectors with weights, and every token with all of them."""
    position, size = config.position, config.shape.heads * config.head_size
    if position.kind not in ("disentangled", "transformer-xl"):
        return 0.0
    distances = torch.arange(1 - tokens, tokens)
    if position.kind == "transformer-xl":
        terms, ends = 1, distances if not position.distance else distances.clamp(-position.distance, position.distance)
    else:
        with torch.device("meta"):
            table = DistanceTable(config)
        terms, ends = len(position.terms), table.bucket(distances)
    return 2.0 * terms * size * (len(ends.unique()) * config.shape.width + len(distances) * tokens)


def _beside_blocks(config: ModelConfig, tokens: int, share: float) -> float:
    """A convolution beside the first block, and the further steps of a decoder whose last block sees this share."""
    beside, steps = config.convolution, max(config.head.decoder - 1, 0)
    block = 2.0 * tokens * block_products(config) + _pairs(config, share * tokens * tokens)
    return 2.0 * tokens * beside.kernel * config.shape.width ** 2 / beside.groups + steps * (
        block + _placed(config, tokens))


def _beside(config: ModelConfig, companion: Companion, visibility: Visibility, tokens: int, asked: float,
            as_run: bool) -> float:
    """Forward operations of a companion that reads `tokens` tokens and answers for `asked` states."""
    with torch.device("meta"):
        built = build(companion, config)
    if isinstance(built, Generator):
        entry, answer = built.products()
        return _tower(built.config, tokens, built.config.shape.layers, visibility, as_run) + 2.0 * (
            tokens * entry + asked * answer)
    if isinstance(built, Critic):
        # tokens that carry a gradient are shares of the whole vocabulary
        read = _tower(built.config, tokens, built.config.shape.layers, bidirectional, as_run)
        return read + 2.0 * asked * built.table.weight.numel()
    return 2.0 * asked * sum(part.weight.numel() for part in built.modules() if isinstance(part, nn.Linear))


def _pairs(config: ModelConfig, pairs: float) -> float:
    """Scores and the values they weigh, for so many pairs of tokens."""
    value = config.head_size if config.latent is None else config.latent.values or config.head_size
    return 2.0 * pairs * config.shape.heads * (config.head_size + value)


def allowed(visibility: Visibility, length: int) -> float:
    """The share of pairs a visibility allows in one document.

    Half of it is prefix, nothing is padding, all is one part, the order is random, the first token is global. Blocks
    are one token each and stand there twice, clean and then noised, as `block-diffusion` lays them.
    """
    place, half = torch.arange(length), length // 2
    return density(visibility, length, prefix=(place < half).long(),
                   block=torch.where(place < half, 2 * place + 1, 2 * (place - half)),
                   **{"global": (place == 0).long()},
                   valid=torch.ones(length, dtype=torch.long), part=torch.zeros(length, dtype=torch.long),
                   rank=torch.randperm(length, generator=torch.Generator().manual_seed(0)))


def parameters(network: ModelConfig | LanguageModel) -> dict[str, int]:
    """How many weights: `total`; `non_embedding`, without tables of tokens and places and an untied head; `active`,
    those that one token passes through (all but the experts that are not chosen for it)."""
    if isinstance(network, ModelConfig):
        with torch.device("meta"):
            network = LanguageModel(network)
    sizes = {name: weight.numel() for name, weight in network.named_parameters()}
    total = sum(sizes.values())
    tables = sum(size for name, size in sizes.items()
                 if name in ("embedding.weight", "source_embedding.weight", "head.weight")
                 or name.endswith(("position.weight", "distances.weight", ".table.weight", ".delta.weight")))
    experts = network.config.feed_forward.experts
    idle = 0 if experts is None else sum(size // experts.count * (experts.count - experts.active)
                                         for name, size in sizes.items() if ".expert_" in name)
    return {"total": total, "non_embedding": total - tables, "active": total - idle}
