"""The weights of a folder as a mapping from name to tensor that reads a tensor when it is asked for.

One file or many by an index, safetensors or torch's own; safetensors come first where both lie there. Nothing is
believed: what an index names must lie in the folder, and every name stands in one file only.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from bothways.errors import BothwaysError
from bothways.families.files import read_json
from bothways.families.stored import Stored, safetensors_of, torch_bin_of

FILES = ("model.safetensors", "pytorch_model.bin")
"""Names of a weights file, in the order they are looked for; each may be an index of several instead."""
_LEGACY = {"gamma": "weight", "beta": "bias"}
"""How TensorFlow called the two tensors of a layer norm; the first BERT files still do."""


class Source(Mapping[str, Tensor], ABC):
    """Tensors by name, each made when it is asked for; shapes and number formats are known before."""

    @abstractmethod
    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor, without reading it."""

    @abstractmethod
    def read_into(self, name: str, target: Tensor) -> None:
        """Fill `target`, of that shape, without a copy of the tensor on the way where that can be done."""

    @abstractmethod
    def pieces(self, name: str) -> Sequence[Stored]:
        """What a tensor is made of in files, one under the other; nothing where it is changed on the way."""

    @property
    @abstractmethod
    def dtype(self) -> torch.dtype:
        """The number format that most of the numbers have; float32 where there are none."""


class Weights(Source):
    """The tensors of files: `weights[name]` is a fresh tensor every time.

    Names are the file's, except that a layer norm's `gamma` and `beta` are `weight` and `bias`.
    """

    def __init__(self, stored: Mapping[str, Stored], where: str) -> None:
        self.where = where
        """The file (or the index of several) they come from, for messages."""
        self.stored: dict[str, Stored] = {}
        for name, entry in stored.items():
            stem, dot, last = name.rpartition(".")
            modern = f"{stem}{dot}{_LEGACY.get(last, last)}"
            self.stored[name if modern in stored else modern] = entry

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> Weights:
        """Tensors that are in memory already, as if they came from a file; weights as they are."""
        if isinstance(tensors, Weights):
            return tensors
        return cls({name: Stored(Path(), tuple(one.shape), one.dtype, ready=one) for name, one in tensors.items()}, "")

    def renamed(self, change: Callable[[str], str]) -> Weights:
        """The same weights under other names."""
        return Weights({change(name): entry for name, entry in self.stored.items()}, self.where)

    def __getitem__(self, name: str) -> Tensor:
        return self.stored[name].read()

    def __iter__(self) -> Iterator[str]:
        return iter(self.stored)

    def __len__(self) -> int:
        return len(self.stored)

    def shape(self, name: str) -> tuple[int, ...]:
        return self.stored[name].shape

    def read_into(self, name: str, target: Tensor) -> None:
        self.stored[name].read_into(target)

    def pieces(self, name: str) -> Sequence[Stored]:
        return (self.stored[name],)

    @property
    def dtype(self) -> torch.dtype:
        counts: dict[torch.dtype, int] = {}
        for entry in self.stored.values():
            if entry.dtype.is_floating_point:
                counts[entry.dtype] = counts.get(entry.dtype, 0) + torch.Size(entry.shape).numel()
        return max(counts, key=lambda dtype: counts[dtype], default=torch.float32)


class Part(NamedTuple):
    """A published tensor that makes up `rows` rows of one of ours, changed by `change` where it is laid out otherwise.
    """

    name: str
    rows: int
    change: Callable[[Tensor], Tensor] | None = None


class Joined(Source):
    """Tensors whose parts, laid one under the other, stand in a file under other names."""

    def __init__(self, weights: Weights, parts: Mapping[str, Sequence[Part]], shapes: Mapping[str, torch.Size]) -> None:
        self.weights, self.parts, self.shapes = weights, parts, shapes

    def __getitem__(self, name: str) -> Tensor:
        parts = [self.weights[part.name] if part.change is None else part.change(self.weights[part.name])
                 for part in self.parts[name]]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def __iter__(self) -> Iterator[str]:
        return iter(self.parts)

    def __len__(self) -> int:
        return len(self.parts)

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self.shapes[name])

    def read_into(self, name: str, target: Tensor) -> None:
        row, parts = 0, self.parts[name]
        for part in parts:
            place = target if len(parts) == 1 else target[row:row + part.rows]
            if part.change is None:
                self.weights.read_into(part.name, place)
            else:
                place.copy_(part.change(self.weights[part.name]))
            row += part.rows

    def pieces(self, name: str) -> Sequence[Stored]:
        parts = self.parts[name]
        return [] if any(part.change for part in parts) else [self.weights.stored[part.name] for part in parts]

    @property
    def dtype(self) -> torch.dtype:
        return self.weights.dtype


def weights_file(folder: Path) -> Path | None:
    """The file that holds a folder's weights, or the index of the files that do; none where there is neither."""
    for name in FILES:
        for file in (folder / name, folder / f"{name}.index.json"):
            if file.is_file():
                return file
    return None


def open_weights(folder: Path) -> Weights:
    """The weights of a folder, looked through but not yet read.

    Raises:
        BothwaysError: no weights; a file that is truncated, corrupt or holds code; an index that names a missing file,
            one outside the folder, or a tensor that is not there; a name that stands in two files.
    """
    file = weights_file(folder)
    if file is None:
        raise BothwaysError(f"{folder / FILES[0]} does not exist, but a model folder holds its weights there")
    shards = _shards(file) if file.suffix == ".json" else {}
    if not shards:
        return Weights(_entries(file), str(file))
    found: dict[str, Stored] = {}
    for shard in dict.fromkeys(shards.values()):
        for name, entry in _entries(shard).items():
            if name in found:
                raise BothwaysError(f"{name} stands in both {found[name].file.name} and {shard.name} of {folder}: "
                                    "remove it from one of them")
            found[name] = entry
    for name, shard in shards.items():
        if name not in found or found[name].file != shard:
            raise BothwaysError(f"{file} says that {name} is in {shard.name}, but it is not there: copy both again")
    return Weights(found, str(file))


def _entries(file: Path) -> dict[str, Stored]:
    return torch_bin_of(file) if file.suffix == ".bin" else safetensors_of(file)


def _shards(index: Path) -> dict[str, Path]:
    """The file of each tensor, as an index says; every one of them lies in the index's own folder."""
    named = read_json(index).get("weight_map")
    if not isinstance(named, dict) or not named or not all(isinstance(part, str) for part in named.values()):
        raise BothwaysError(f"{index} lacks a weight_map that names a file for every tensor: copy it again")
    files = {part: _inside(index, part) for part in set(named.values())}
    return {name: files[part] for name, part in named.items()}


def _inside(index: Path, part: str) -> Path:
    """The file that an index names, if it is there and is really in the folder."""
    folder, file = index.parent, index.parent / part
    climbs = Path(part).is_absolute() or ".." in Path(part).parts or "\0" in part
    if climbs or not (file.resolve().is_relative_to(folder.resolve()) or _of_a_hub(file)):
        raise BothwaysError(f"{index} names '{part}', which lies outside the folder: only files inside are read")
    kind = ".bin" if index.name.startswith("pytorch") else ".safetensors"
    if file.suffix != kind:
        raise BothwaysError(f"{index} names '{part}', but the files of this index end with {kind}")
    if not file.is_file():
        raise BothwaysError(f"{index} names '{part}', which does not exist: copy it too")
    return file


def _of_a_hub(file: Path) -> bool:
    """Whether a link is one of a hub's cache, whose `snapshots/REVISION/` points at files in the `blobs/` beside."""
    home = file.parent.parent
    return home.name == "snapshots" and file.resolve().parent == (home.parent / "blobs").resolve()
