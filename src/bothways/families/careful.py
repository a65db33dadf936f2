"""A config that a stranger wrote, read by its family: whatever is wrong with an entry becomes one sentence."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from bothways.errors import BothwaysError
from bothways.families.base import Family
from bothways.model.config import ModelConfig

_WRONG = (TypeError, ValueError, AttributeError, LookupError, ArithmeticError)
"""What code raises that meets a text, a list or nothing where a number is meant."""
Path = tuple[str | int, ...]
"""Where a value stands in nested groups and lists."""


def read_config(family: Family, stored: Mapping[str, Any], where: str) -> ModelConfig:
    """`family.from_config`, with no other error than its sentences.

    Raises:
        BothwaysError: as `from_config`; an entry that is of another kind than the family takes, named if it can be
            told; a number with a fraction where the family takes a whole one.
    """
    try:
        config = family.from_config(stored, where)
    except _WRONG as error:
        culprit = _culprit(family, stored, where)
        said = "an entry that is" if culprit is None else f"{culprit} {stored[culprit]!r}, which is"
        raise BothwaysError(f"{where} has {said} of another kind than {family.architecture} takes ({error}): correct "
                            "it") from None
    for path, value in _fractions(stored):
        # where a whole number is read, the fraction goes unseen, and another whole number is another network (the one
        # after the next, where an entry is halved)
        lower, *upper = (_read(family, _with(stored, path, math.trunc(value) + i), where) for i in (0, 1, 2))
        if lower == config and any(other != config for other in upper):
            raise BothwaysError(f"{where} has {'.'.join(map(str, path))} {value!r}, but {family.architecture} takes a "
                                "whole number there: correct it")
    return config


def _fractions(part: Any, path: Path = ()) -> Iterator[tuple[Path, float]]:
    """Every number that is not whole, in groups and lists too."""
    if isinstance(part, float) and math.isfinite(part) and not part.is_integer():
        yield path, part
    elif isinstance(part, Mapping | list):
        for name, value in part.items() if isinstance(part, Mapping) else enumerate(part):
            yield from _fractions(value, (*path, name))


def _with(part: Any, path: Path, value: Any) -> Any:
    """The same data with another value in one place."""
    if not path:
        return value
    first, *rest = path
    if isinstance(part, Mapping):
        return {**part, first: _with(part[first], tuple(rest), value)}
    return [_with(one, tuple(rest), value) if place == first else one for place, one in enumerate(part)]


def _culprit(family: Family, stored: Mapping[str, Any], where: str) -> str | None:
    """The entry without which, or with a number in whose place, the config can be read; none where that is not one."""
    for name, value in stored.items():
        rest = {other: one for other, one in stored.items() if other != name}
        if _reads(family, rest, where):
            return name
        if not isinstance(value, int | float) and _reads(family, {**rest, name: 8}, where, name):
            return name
    return None


def _read(family: Family, stored: Mapping[str, Any], where: str) -> ModelConfig | None:
    """What the family reads, or none where it reads nothing."""
    try:
        return family.from_config(stored, where)
    except (BothwaysError, *_WRONG):
        return None


def _reads(family: Family, stored: Mapping[str, Any], where: str, tried: str | None = None) -> bool:
    """Whether the family reads it, or at least refuses it for something else than the entry that is tried."""
    try:
        family.from_config(stored, where)
    except BothwaysError as error:
        return tried is not None and tried not in str(error)
    except _WRONG:
        return False
    return True
