"""Options as a user reads them: `--seed INT`, not `--seed {None}|INT`."""

from __future__ import annotations

import types
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tyro
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

_KINDS: dict[type, tuple[str, str]] = {str: ("TEXT", "text"), int: ("INT", "a whole number"),
                                       float: ("FLOAT", "a number"), Path: ("PATH", "a path")}
_registry = ConstructorRegistry()


def parse(options: type, prog: str, description: str | None, arguments: Sequence[str]) -> object:
    """The dataclass `options` from its arguments.

    Raises:
        SystemExit: 0 after `--help`, 2 after a wrong call; what is wrong has been printed.
    """
    return tyro.cli(options, prog=prog, description=description, args=list(arguments), registry=_registry,
                    config=(tyro.conf.FlagCreatePairsOff,))


def _inner(kind: Any) -> Any:
    """X of `X | None`; anything else as it is."""
    members = [member for member in typing.get_args(kind) if member is not type(None)]
    union = typing.get_origin(kind) in (typing.Union, types.UnionType)
    return members[0] if union and len(members) == 1 else kind


@_registry.primitive_rule
def _plain(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
    """`X`, and `X | None`: an option that may be left out, and never has to be written as none."""
    inner = _inner(info.type)
    if typing.get_origin(inner) is typing.Literal and inner is not info.type:
        names = tuple(map(str, typing.get_args(inner)))
        return PrimitiveConstructorSpec(nargs=1, metavar="{" + ",".join(names) + "}", choices=names,
                                        instance_from_str=lambda given: given[0],
                                        is_instance=lambda value: value is None or value in names,
                                        str_from_instance=lambda value: [str(value or "none")])
    if not isinstance(inner, type) or inner not in _KINDS:
        return None
    metavar, said = _KINDS[inner]

    def read(given: list[str]) -> object:
        try:
            return inner(given[0])
        except ValueError:
            raise ValueError(f"'{given[0]}' is not {said}") from None

    return PrimitiveConstructorSpec(nargs=1, metavar=metavar, instance_from_str=read,
                                    is_instance=lambda value: value is None or isinstance(value, inner),
                                    str_from_instance=lambda value: ["none" if value is None else str(value)])
