"""A network in words and numbers."""

from __future__ import annotations

from bothways.model.config import ModelConfig
from bothways.model.cost import flops, parameters
from bothways.objectives.base import Profile


def describe(config: ModelConfig, profile: Profile | None = None, length: int = 128) -> str:
    """The network as text: shapes, parameters, and operations for a token of an objective.

    Args:
        profile: what an objective makes of a raw token; without one, costs are left out.
        length: raw tokens in a document.
    """
    shape, count = config.shape, parameters(config)
    towers = (f"{shape.source_layers} + {shape.layers} layers in two towers" if shape.source_layers
              else f"{shape.layers} layers in one tower")
    shared = "" if config.key_heads == shape.heads else f" sharing {config.key_heads} of keys"
    turned = "turned " if config.norm.query_key == "turned" else ""
    normed = f" and on {turned}queries and keys" if config.norm.query_key else ""
    head = "head tied to the embedding" if config.tied else "head of its own"
    head = head if config.head.scores else "no head: states only"
    lines = [
        ("stack", f"{towers}, reach {config.reach}" + (f" (L: {config.local} tokens)" if "L" in config.reach else "")
         + (f" (C: chunks of {config.chunk} tokens)" if "C" in config.reach else "")),
        ("width", f"{shape.width}, {_mixing(config)}{shared}" + (
            f", {config.inner} inside the {config.feed_forward.kind} feed-forward ({config.feed_forward.activation})"
            if config.feed_forward.kind != "none" else "")),
        ("places", config.position.kind + (f" in layers R of {config.position.where}" if "N" in config.position.where
                                           else "")),
        ("norm", f"{config.norm.kind}, {config.norm.place} each layer{normed}"),
        ("vocabulary", f"{shape.vocabulary:,}, {head}"),
        ("parameters", f"{count['total']:,} in all, {count['non_embedding']:,} without embeddings, "
                       f"{count['active']:,} active for a token"),
    ]
    if profile is not None:
        train, read = flops(config, profile, length), flops(config, profile, length, training=False)
        lines += [("operations", f"{train:,.0f} to train on a raw token, {read:,.0f} to read one (documents of "
                                 f"{length}, {profile.visibility!r}, logits for {profile.asked:.0%})")]
    if (experts := config.feed_forward.experts) is not None:
        layers = sum(config.experts_of(layer) is not None for layer in range(shape.layers))
        beside = f" and {experts.shared} for all" if experts.shared else ""
        lines.insert(2, ("experts", f"{experts.active} of {experts.count} for each token{beside} in {layers} layers, "
                                    f"{experts.inner or config.inner} inside each"))
    width = max(len(name) for name, _ in lines)
    return "\n".join(f"{name:<{width}}  {text}" for name, text in lines)


def _mixing(config: ModelConfig) -> str:
    """What mixes tokens, in words."""
    if config.mixer.kind == "attention":
        return f"{config.shape.heads} heads of {config.head_size}"
    return f"{config.mixer.kind} {config.mixed} wide with {config.mixer.state} numbers of state each"
