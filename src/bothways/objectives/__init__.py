"""Objectives: what is hidden, what is asked, how it is scored. One file each, found by being in this folder."""

from __future__ import annotations

import functools
import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator, Mapping

from bothways.batch import Vocabulary
from bothways.errors import BothwaysError, nearest
from bothways.objectives import specs
from bothways.objectives.base import Mode, Objective, Part, Profile
from bothways.objectives.loss import cross_entropy
from bothways.objectives.mixture import Member, Mixture, described_members

__all__ = ["Member", "Mixture", "Mode", "Objective", "Part", "Profile", "cross_entropy", "known", "make"]


@functools.cache
def known() -> Mapping[str, type[Objective]]:
    """Every objective of the house by its name, in the order they were published."""
    return {kind.name: kind for kind in sorted(_found(), key=lambda kind: (_year(kind), kind.name))}


def _found() -> Iterator[type[Objective]]:
    """The classes with a name of their own in the files of this folder: a new objective is one new file."""
    for file in pkgutil.iter_modules(__path__, f"{__name__}."):
        for kind in vars(importlib.import_module(file.name)).values():
            if inspect.isclass(kind) and issubclass(kind, Objective) and kind.__module__ == file.name \
                    and "name" in vars(kind) and not inspect.isabstract(kind):
                yield kind


def _year(kind: type[Objective]) -> int:
    """The year its source names first."""
    named = re.search(r"\b(?:19|20)\d\d\b", kind.source)
    return int(named[0]) if named else 9999


def make(spec: str | Mapping[str, object], vocabulary: Vocabulary) -> Objective:
    """The objective a spec describes.

    Args:
        spec: a name ("masked"), a name with options ("masked(rate=0.3)"), a sum ("0.25 next-token + 0.75 masked-next",
            or with "then" for phases), a mapping ({"name": "masked", "rate": 0.3}), a YAML file with such a mapping,
            or a class in a file of your own ("mine.py:Mine").
        vocabulary: of the tokenizer it will work with.
    Raises:
        BothwaysError: an unknown name or option (with the nearest one), a value out of range, a tokenizer without a
            token it needs.
    """
    options = specs.read(spec)
    name = str(options.pop("name"))
    kind = specs.load(name) if specs.is_file(name) else known().get(name)
    if kind is None:
        raise BothwaysError(f"unknown objective '{name}' {nearest(name, known())}")
    specs.check_options(kind, name, options)
    if kind is Mixture:
        options["members"] = [_member(described, vocabulary) for described in described_members(options.get("members"))]
    return specs.build(kind, vocabulary, {option: specs.frozen(value) for option, value in options.items()})


def _member(described: Mapping[str, object], vocabulary: Vocabulary) -> Member:
    """A mixture's member from its mapping: an objective's own spec, and a share."""
    options = specs.read(described)
    share = options.pop("share", 1.0)
    return Member(make(options, vocabulary), share)  # type: ignore[arg-type]
