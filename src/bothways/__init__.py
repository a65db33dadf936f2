"""Read both ways, write one way: one Transformer that trains, compares and serves every language-model paradigm.

    >>> import bothways
    >>> model = bothways.from_pretrained("runs/notes/model")
    >>> model.generate("Once upon a time", max_new_tokens=40)

Importing this package loads nothing heavy: the names of `bothways.api` are looked up when first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

__version__ = "0.1.0"
__all__ = ["Model", "__version__", "extend_vocabulary", "from_pretrained", "pipeline", "remote"]

if TYPE_CHECKING:
    from bothways.api import Model, extend_vocabulary, from_pretrained, pipeline, remote

_PUBLIC = frozenset({"Model", "extend_vocabulary", "from_pretrained", "pipeline", "remote"})


def __getattr__(name: str) -> object:
    """Names of the public surface, loaded on first use."""
    if name in _PUBLIC:
        value = getattr(importlib.import_module("bothways.api"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'bothways' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)
