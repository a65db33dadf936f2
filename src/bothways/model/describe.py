"""A network in words and numbers, and which class of `transformers` could hold it."""

from __future__ import annotations

from bothways.model.config import ModelConfig
from bothways.model.cost import flops, parameters
from bothways.objectives.base import Profile

_LLAMA: dict[str, object] = {
    "position.kind": "rotary", "position.span": 0, "norm.kind": "rms", "norm.place": "before", "norm.query_key": False,
    "feed_forward.kind": "gated", "feed_forward.activation": "silu", "bias": False, "scale": None,
    "embedding_scale": None, "soft_cap": None}
_T5: dict[str, object] = {
    "position.kind": "relative", "norm.kind": "rms", "norm.place": "before", "norm.query_key": False,
    "feed_forward.kind": "gated", "feed_forward.activation": "gelu_tanh", "bias": False, "scale": 1.0, "tied": False,
    "embedding_scale": None, "soft_cap": None}
CLASSES: dict[str, tuple[str, dict[str, object]]] = {
    "Llama (left to right) and EuroBERT (both ways)": ("one tower", _LLAMA),
    "Qwen3": ("one tower", {**_LLAMA, "norm.query_key": True}),
    "T5 v1.1": ("two towers", _T5),
}
"""Classes of `transformers`, the stack each has, and the choices it fixes."""


def transformers_class(config: ModelConfig) -> tuple[str | None, tuple[str, ...]]:
    """The class of `transformers` with this trunk, or none and the choices that keep it from the nearest one."""
    nearest: tuple[str, tuple[str, ...]] | None = None
    for name, (stack, fixed) in CLASSES.items():
        if stack != config.stack:
            continue
        others = tuple(_differs(path, _choice(config, path), value)
                       for path, value in fixed.items() if _choice(config, path) != value)
        if config.narrow:
            others += (f"reach is '{config.reach}', not all G",)
        if stack == "two towers" and config.key_heads != config.shape.heads:
            others += (f"shape.key_heads is {config.key_heads}, not {config.shape.heads}",)
        if not others:
            return name, ()
        if nearest is None or len(others) < len(nearest[1]):
            nearest = name, others
    assert nearest is not None
    return None, (f"nearest is {nearest[0]}", *nearest[1])


def _choice(config: ModelConfig, path: str) -> object:
    value: object = config
    for name in path.split("."):
        value = getattr(value, name)
    return value


def _differs(path: str, is_value: object, wanted: object) -> str:
    shown = ["none" if value is None else f"'{value}'" if isinstance(value, str) else str(value)
             for value in (is_value, wanted)]
    return f"{path} is {shown[0]}, not {shown[1]}"


def describe(config: ModelConfig, profile: Profile | None = None, length: int = 128) -> str:
    """The network as text: shapes, parameters, operations for a token of an objective, and where it could be exported.

    Args:
        profile: what an objective makes of a raw token; without one, costs are left out.
        length: raw tokens in a document.
    """
    shape, count = config.shape, parameters(config)
    towers = (f"{shape.source_layers} + {shape.layers} layers in two towers" if shape.source_layers
              else f"{shape.layers} layers in one tower")
    shared = "" if config.key_heads == shape.heads else f" sharing {config.key_heads} of keys"
    normed = " and on queries and keys" if config.norm.query_key else ""
    lines = [
        ("stack", f"{towers}, reach {config.reach}" + (f" (L: {config.local} tokens)" if "L" in config.reach else "")
         + (f" (C: chunks of {config.chunk} tokens)" if "C" in config.reach else "")),
        ("width", f"{shape.width}, {shape.heads} heads of {config.head_size}{shared}, {config.inner} inside "
                  f"the {config.feed_forward.kind} feed-forward ({config.feed_forward.activation})"),
        ("places", config.position.kind),
        ("norm", f"{config.norm.kind}, {config.norm.place} each layer{normed}"),
        ("vocabulary", f"{shape.vocabulary:,}, head {'tied to the embedding' if config.tied else 'of its own'}"),
        ("parameters", f"{count['total']:,} in all, {count['non_embedding']:,} without embeddings, "
                       f"{count['active']:,} active for a token"),
    ]
    if profile is not None:
        train, read = flops(config, profile, length), flops(config, profile, length, training=False)
        lines += [("operations", f"{train:,.0f} to train on a raw token, {read:,.0f} to read one (documents of "
                                 f"{length}, {profile.visibility!r}, logits for {profile.asked:.0%})")]
    name, why = transformers_class(config)
    lines += [("transformers", name or "no class has this trunk: " + "; ".join(why))]
    width = max(len(name) for name, _ in lines)
    return "\n".join(f"{name:<{width}}  {text}" for name, text in lines)
