"""What a network costs: parameters and FLOPs, counted from its config and an objective's profile.

Matrix products only, two FLOPs a multiply-add, training three times the forward pass. Attention is counted where the
visibility allows it (half the square for causal), which is the work needed; a kernel that computes hidden pairs
as well does more. `6 * parameters * tokens` is not good enough at the sizes people compare: at width 256, four layers
and a vocabulary of 4,096 the head alone is a quarter of the training FLOPs.
"""

from __future__ import annotations

from torch import nn

from bothways.model.config import ModelConfig
from bothways.objectives.base import Profile
from bothways.visibility import Visibility, bidirectional, density, make_fields

TRAINING = 3
"""A training step is a forward pass and a backward pass of twice its products."""


def flops(config: ModelConfig, profile: Profile, length: int, training: bool = True) -> float:
    """FLOPs for each raw token of text.

    Args:
        config: the network.
        profile: what the objective makes of a raw token: how many inputs each tower reads, how many logits are asked.
        length: raw tokens in one document (a window).
        training: with the backward pass.
    """
    shape = config.shape
    inside = shape.heads * config.head_size
    target, source = profile.inputs * length, profile.source_inputs * length
    # 1. the tower that predicts
    total = profile.inputs * _tower(config, shape.layers, profile.visibility, target)
    # 2. the tower that reads the source, and looking across at it
    if shape.source_layers:
        total += profile.source_inputs * _tower(config, shape.source_layers, bidirectional, source)
        products = profile.inputs * 2 * shape.width * inside + \
            profile.source_inputs * 2 * shape.width * config.key_heads * config.head_size
        total += shape.layers * (2 * products + profile.inputs * 4 * source * inside)
    # 3. the head, only where something is asked
    total += profile.asked * 2 * shape.width * shape.vocabulary
    return total * (TRAINING if training else 1)


def _tower(config: ModelConfig, layers: int, visibility: Visibility, length: float) -> float:
    """Forward FLOPs of one input token in one tower over documents of `length` tokens."""
    seen = {reach: _density(visibility & reach, round(length)) for reach in map(config.reach_of, range(layers))}
    inside = config.shape.heads * config.head_size
    attention = sum(4 * length * seen[config.reach_of(layer)] * inside for layer in range(layers))
    return layers * 2 * _block(config) + attention


def _density(visibility: Visibility, length: int) -> float:
    """The share of pairs that are seen; fields a visibility needs beyond places are all ones."""
    length = max(1, length)
    places = make_fields(length)
    return density(visibility, length, **{name: places["index"] * 0 + 1 for name in visibility.needs - places.keys()})


def _block(config: ModelConfig) -> int:
    """Weights of one block that every token is multiplied with."""
    width = config.shape.width
    attention = width * config.head_size * (2 * config.shape.heads + 2 * config.key_heads)
    return attention + width * config.inner * (3 if config.feed_forward.kind == "gated" else 2)


def parameters(network: ModelConfig | nn.Module) -> dict[str, int]:
    """Numbers of parameters: total, without embeddings and head, and those active for a token.

    A config is counted by building its network without memory.
    """
    if isinstance(network, ModelConfig):
        import torch

        from bothways.model.language_model import LanguageModel

        with torch.device("meta"):
            network = LanguageModel(network)
    counts = {name: parameter.numel() for name, parameter in network.named_parameters()}
    tables = sum(count for name, count in counts.items() if name.startswith(("embedding.", "head.")))
    total = sum(counts.values())
    return {"total": total, "non_embedding": total - tables, "active": total}
