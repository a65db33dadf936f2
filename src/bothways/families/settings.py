"""A ModelConfig as plain data for a JSON file, and back; and what of one changes the function it computes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, asdict, fields, is_dataclass
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from bothways.errors import BothwaysError, nearest
from bothways.model.config import BIASED, ModelConfig, Scaling


def to_data(config: ModelConfig) -> dict[str, Any]:
    """Every choice by its name, groups as nested mappings."""
    return asdict(config)


def from_data(data: Mapping[str, Any], where: str) -> ModelConfig:
    """The config that `to_data` wrote; choices left out take their defaults.

    Args:
        data: what the file holds.
        where: the file's name, for the message.
    Raises:
        BothwaysError: names that no choice has, or values of another kind, all of them at once; a contradiction
            between choices.
    """
    if unknown := list(_unknown(ModelConfig, data, "")):
        raise BothwaysError(f"{where} describes the network with unknown choices: {'; '.join(unknown)}")
    if wrong := list(_wrong(ModelConfig, data, "")):
        raise BothwaysError(f"{where} describes the network with values that cannot be meant: {'; '.join(wrong)}")
    config: ModelConfig = _built(ModelConfig, data)
    return config


def choices(config: ModelConfig) -> dict[str, Any]:
    """Every choice that changes the function the network computes, by its path, what follows from others filled in.

    Two configs with equal choices are one network: a head size is the same said or left out, the base of rotary
    positions says nothing where there are none, dropout and the length promised change no logit.
    """
    flat = dict(_flat("", asdict(config)))
    shape, position, reach = config.shape, config.position, config.reach
    layers = max(shape.layers, shape.source_layers)
    flat |= {"shape.key_heads": config.key_heads, "shape.head_size": config.head_size, "shape.inner": config.inner,
             "shape.embedding": config.embedding_width, "shape.distinct": config.distinct,
             "scale": config.score_scale,
             "bias": tuple(part for part in BIASED if config.biased(part)),
             "norm.bias": config.norm.kind == "layer" and config.norm_bias, "norm.embedding": config.norms_embedding,
             "reach": "".join(reach[i % len(reach)] for i in range(layers)),
             "position.local_base": position.base if position.local_base is None else position.local_base,
             "position.scaling": _spoken(position.scaling),
             "latent": "none" if config.latent is None else "of keys and values",
             "feed_forward.experts": "dense" if config.feed_forward.experts is None else "a mixture",
             "position.where": "".join("R" if config.turns(i) else "N" for i in range(layers)),
             "position.temperature": "none" if position.temperature is None else "of unturned layers",
             "source_local": config.of_source.local,
             "companions": {one["name"]: one for one in flat["companions"]}}
    flat |= {"head.activation": config.head_activation, "head.dense_bias": config.head_dense_bias}
    silent = ["dropout"] + ["head.activation", "head.dense_bias"] * (not config.head.transform)
    flat |= {"mixer.inner": config.mixed, "mixer.rank": config.mixer.rank or -(-shape.width // 16)}
    recurrent = [f"mixer.{name}" for name in ("state", "convolution", "convolution_bias", "inner", "rank", "head_size",
                                              "groups")]
    silent += recurrent if config.mixer.kind == "attention" else [
        "shape.heads", "shape.key_heads", "shape.head_size", "scale", "soft_cap", "reach",
        *{"mamba": recurrent[-2:], "mamba2": ["mixer.rank"]}[config.mixer.kind]]
    silent += ["shape.inner", "feed_forward.activation"] * (config.feed_forward.kind == "none")
    if config.latent is not None:
        flat["latent.values"] = config.latent.values or config.head_size
    if (experts := config.feed_forward.experts) is not None:
        where = "".join(experts.where[i % len(experts.where)] for i in range(layers))
        flat |= {"feed_forward.experts.where": where, "feed_forward.experts.inner": experts.inner or config.inner}
        silent += ["feed_forward.experts.balance", "feed_forward.experts.speed"] + ["shape.inner"] * ("D" not in where)
        silent += ["feed_forward.experts.open_groups", "feed_forward.experts.group_by"] * (experts.groups == 1)
    disentangled, tables = position.kind == "disentangled", position.kind == "learned" or config.head.decoder > 0
    silent += ["position.length"] * (not tables and not (disentangled and position.absolute))
    silent += ["position.terms", "position.shared", "position.normed", "position.absolute"] * (not disentangled)
    silent += ["position.base"] * (position.kind not in ("rotary", "sinusoidal", "transformer-xl"))
    silent += ["position.share", "position.where"] * (position.kind != "rotary")
    silent += ["norm.query_key_weight"] * (not config.norm.query_key or not config.norm.weight)
    silent += [name for name in flat if name.startswith("position.scaling.")]
    silent += ["position.local_base"] * (position.kind != "rotary" or "L" not in flat["reach"])
    silent += ["position.buckets"] * (position.kind not in ("relative", "disentangled"))
    silent += ["position.distance"] * (position.kind not in ("relative", "disentangled", "transformer-xl"))
    silent += ["qkv_bias"] * (not config.biased("queries"))
    silent += ["norm.widened"] * (config.embedding_width == shape.width or not config.norms_embedding)
    silent += ["convolution.groups", "convolution.activation"] * (not config.convolution.kernel)
    silent += ["source_local"] * ("L" not in flat["reach"] or not shape.source_layers)
    silent += ["local"] * ("L" not in flat["reach"]) + ["chunk"] * ("C" not in flat["reach"])
    return {name: value for name, value in flat.items() if name not in silent}


def _spoken(scaling: Scaling | None) -> str | None:
    """What of a scaling changes an angle, in words."""
    if scaling is None or (scaling.factor == 1 and scaling.magnitude == 1):
        return None
    said = f"{scaling.kind} by {scaling.factor}"
    if scaling.kind != "linear":
        said += f" of {scaling.length} tokens between {scaling.slow} and {scaling.fast} turns"
    said += "" if scaling.whole or scaling.kind != "yarn" else ", at fractions of pairs"
    return said if scaling.magnitude == 1 else f"{said}, times {scaling.magnitude}"


def differences(config: ModelConfig, other: ModelConfig) -> Iterator[str]:
    """Each choice in which another network computes something else, as a phrase: "norm.kind is 'layer', not 'rms'"."""
    mine, theirs = choices(config), choices(other)
    for name in mine:
        # a choice that only one of them has to make follows from another in which they differ
        one, two = mine[name], theirs.get(name, mine[name])
        if one == two or (isinstance(one, float) and isinstance(two, float) and abs(one - two) <= 1e-12 * abs(one)):
            continue
        if name == "companions":
            beside = [f"'{each}'" for each in {**mine[name], **theirs[name]} if mine[name].get(each)
                      != theirs[name].get(each)]
            yield f"{' and '.join(beside)} beside the trunk would be lost"
        else:
            yield f"{name} is {_said(one)}, not {_said(two)}"


def _said(value: Any) -> str:
    """A choice as a config file would write it."""
    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or "none"
    return {True: "true", False: "false", None: "none"}.get(value, repr(value)) if not isinstance(
        value, int | float) or isinstance(value, bool) else repr(value)


def _flat(path: str, data: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Nested choices by their paths."""
    for name, value in data.items():
        if isinstance(value, Mapping):
            yield from _flat(f"{path}{name}.", value)
        else:
            yield path + name, value


def _unknown(kind: type[Any], data: Mapping[str, Any], path: str) -> Iterator[str]:
    """Names in the data that no field has, each with the nearest that there is."""
    groups = _groups(kind)
    yield from (f"'{path}{name}' {nearest(name, list(groups))}" for name in data if name not in groups)
    for name, value in data.items():
        group = groups.get(name)
        if group is not None:
            several = isinstance(value, list | tuple)
            for one in value if several else (value,):
                if isinstance(one, Mapping):
                    yield from _unknown(group, one, f"{path}{name}{'[]' * several}.")


def _wrong(kind: type[Any], data: Mapping[str, Any], path: str) -> Iterator[str]:
    """Values in the data that are not of their field's kind, and fields without which there is no network."""
    hints, groups = get_type_hints(kind), _groups(kind)
    for entry in fields(kind):
        if entry.name not in data:
            if entry.default is MISSING and entry.default_factory is MISSING:
                yield f"'{path}{entry.name}' is missing"
            continue
        value, group = data[entry.name], groups[entry.name]
        if not _is(value, hints[entry.name]):
            yield f"'{path}{entry.name}' is {json.dumps(value)}, not {_meant(hints[entry.name])}"
        elif group is not None and isinstance(value, Mapping):
            yield from _wrong(group, value, f"{path}{entry.name}.")
        elif group is not None and value is not None:  # several of a kind
            for one in value:
                yield from _wrong(group, one, f"{path}{entry.name}[].")


def _is(value: Any, hint: Any) -> bool:
    """Whether plain data may stand for a value of this type."""
    if isinstance(hint, UnionType) or get_origin(hint) is Union:
        return any(_is(value, one) for one in get_args(hint))
    if get_origin(hint) is Literal:
        return any(value is one or (isinstance(value, str) and value == one) for one in get_args(hint))
    if get_origin(hint) is tuple:
        return isinstance(value, list | tuple) and all(_is(one, get_args(hint)[0]) for one in value)
    if is_dataclass(hint):
        return isinstance(value, Mapping)
    if hint in (int, float):
        return isinstance(value, int if hint is int else int | float) and not isinstance(value, bool)
    return isinstance(value, hint)


def _meant(hint: Any) -> str:
    """A type in words."""
    if isinstance(hint, UnionType) or get_origin(hint) in (Union, Literal):
        said = [repr(one) if isinstance(one, str) else _meant(one) for one in get_args(hint)]
        return " or ".join(filter(None, (", ".join(said[:-1]), said[-1])))
    if get_origin(hint) is tuple:
        return f"a list of which each is {_meant(get_args(hint)[0])}"
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "a text", type(None): "null"}
    return words.get(hint, "a group of choices")


def _built(kind: type[Any], data: Mapping[str, Any]) -> Any:
    """A dataclass from plain data, groups and tuples of groups in it too."""
    groups, given = _groups(kind), {}
    for name, value in data.items():
        group = groups[name]
        if isinstance(value, list | tuple):
            value = tuple(value if group is None else (_built(group, one) for one in value))
        elif group is not None and value is not None:
            value = _built(group, value)
        given[name] = value
    return kind(**given)


def _groups(kind: type[Any]) -> dict[str, type[Any] | None]:
    """The fields of a dataclass, and for those that hold dataclasses (one, several or perhaps none) which one."""
    hints = get_type_hints(kind)
    return {entry.name: next((found for found in (hints[entry.name], *get_args(hints[entry.name]))
                              if is_dataclass(found) and isinstance(found, type)), None) for entry in fields(kind)}
