"""A ModelConfig as plain data for a JSON file, and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

from bothways.batch import Companion
from bothways.errors import BothwaysError, nearest
from bothways.model.config import FeedForward, ModelConfig, Norm, Position, Shape

_GROUPS: dict[str, type[Any]] = {"shape": Shape, "position": Position, "norm": Norm, "feed_forward": FeedForward}


def to_data(config: ModelConfig) -> dict[str, Any]:
    """Every choice by its name, groups as nested mappings."""
    return asdict(config)


def from_data(data: Mapping[str, Any], where: str) -> ModelConfig:
    """The config that `to_data` wrote; choices left out take their defaults.

    Args:
        data: what the file holds.
        where: the file's name, for the message.
    Raises:
        BothwaysError: names that no choice has, all of them at once, or a contradiction between choices.
    """
    unknown = [f"'{name}' {nearest(name, _names(ModelConfig))}" for name in data if name not in _names(ModelConfig)]
    groups: dict[str, Any] = {}
    for group, kind in _GROUPS.items():
        given = data.get(group, {})
        unknown += [f"'{group}.{name}' {nearest(name, _names(kind))}" for name in given if name not in _names(kind)]
        groups[group] = given
    if unknown:
        raise BothwaysError(f"{where} describes the network with unknown choices: {'; '.join(unknown)}")
    rest = {name: value for name, value in data.items() if name not in _GROUPS}
    rest["companions"] = tuple(Companion(**given) for given in data.get("companions", ()))
    return ModelConfig(**{group: _GROUPS[group](**given) for group, given in groups.items()}, **rest)


def _names(kind: type[Any]) -> list[str]:
    return [entry.name for entry in fields(kind)]
