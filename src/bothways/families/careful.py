"""A config that a stranger wrote, read by its family: whatever is wrong with an entry becomes one sentence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bothways.errors import BothwaysError
from bothways.families.base import Family
from bothways.model.config import ModelConfig

_WRONG = (TypeError, ValueError, AttributeError, LookupError, ArithmeticError)
"""What code raises that meets a text, a list or nothing where a number is meant."""


def read_config(family: Family, stored: Mapping[str, Any], where: str) -> ModelConfig:
    """`family.from_config`, with no other error than its sentences.

    Raises:
        BothwaysError: as `from_config`; an entry that is of another kind than the family takes, named if it can be
            told.
    """
    try:
        return family.from_config(stored, where)
    except _WRONG as error:
        culprit = _culprit(family, stored, where)
        said = "an entry that is" if culprit is None else f"{culprit} {stored[culprit]!r}, which is"
        raise BothwaysError(f"{where} has {said} of another kind than {family.architecture} takes ({error}): correct "
                            "it") from None


def _culprit(family: Family, stored: Mapping[str, Any], where: str) -> str | None:
    """The entry without which, or with a number in whose place, the config can be read; none where that is not one."""
    for name, value in stored.items():
        rest = {other: one for other, one in stored.items() if other != name}
        if _reads(family, rest, where):
            return name
        if not isinstance(value, int | float) and _reads(family, {**rest, name: 8}, where, name):
            return name
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
