"""Where each tensor lies in a weights file, found without reading it, and read straight into the memory it is for.

A tensor is read at its place with one call of the operating system, so that what a process holds is the network and
nothing of the file (a large one that needs no change is not read at all: `mapped`). Both formats are checked by their
own libraries first.
"""

from __future__ import annotations

import json
import pickle
import struct
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from bothways.errors import BothwaysError

_DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
           "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8,
           "BOOL": torch.bool, "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2}
"""Number formats by the names that safetensors headers use."""
Decode = Callable[[np.ndarray], Tensor]


@dataclass(frozen=True)
class Stored:
    """One tensor in a file.

    offset, size: its bytes in the file.
    stride: of its elements in those bytes; none where they simply follow each other.
    decode: makes the tensor of its bytes, (size,) uint8, where they are not its numbers (a quantised one).
    ready: the tensor itself, of a file that can only be read as a whole.
    """

    file: Path
    shape: tuple[int, ...]
    dtype: torch.dtype
    offset: int = 0
    size: int = 0
    stride: tuple[int, ...] | None = None
    decode: Decode | None = None
    ready: Tensor | None = None

    @property
    def plain(self) -> bool:
        """Whether its numbers stand in the file as they are, one behind the other."""
        return all(other is None for other in (self.decode, self.stride, self.ready))

    def read(self) -> Tensor:
        """The tensor, in memory of its own (or the file's, where it was read as a whole)."""
        if self.ready is not None:
            return self.ready
        if self.decode is not None:
            raw = np.empty(self.size, np.uint8)
            self._bytes_into(raw)
            return self.decode(raw)
        if self.stride is not None:
            span = torch.empty(self.size // self.dtype.itemsize, dtype=self.dtype)
            self._bytes_into(_as_bytes(span))
            return span.as_strided(self.shape, self.stride)
        whole = torch.empty(self.shape, dtype=self.dtype)
        self._bytes_into(_as_bytes(whole))
        return whole

    def read_into(self, target: Tensor) -> None:
        """Fill `target`, of the same shape; without a copy on the way where format and layout agree."""
        same = target.dtype == self.dtype and target.is_contiguous() and target.device.type == "cpu"
        if self.plain and same:
            self._bytes_into(_as_bytes(target))
        else:
            target.copy_(self.read())

    def _bytes_into(self, raw: np.ndarray) -> None:
        """Read the file's bytes at the tensor's place."""
        view, done = memoryview(raw), 0  # type: ignore[arg-type]
        with self.file.open("rb", buffering=0) as stream:
            stream.seek(self.offset)
            while done < self.size:
                count = stream.readinto(view[done:self.size])
                if not count:
                    raise truncated(self.file, f"it ends {self.size - done} bytes early")
                done += count


def truncated(file: Path, why: object, kind: str = "safetensors") -> BothwaysError:
    """The error for a file that is not what it should be."""
    reason = str(why).strip().partition("\n")[0] or "it ends early"
    return BothwaysError(f"{file} is truncated or not a {kind} file ({reason}): copy it again")


def safetensors_of(file: Path) -> dict[str, Stored]:
    """Every tensor of a safetensors file.

    The library checks the header (lengths, overlaps, shapes against bytes) before we look for places in it.

    Raises:
        BothwaysError: a file that is truncated, is no safetensors file, or has an unknown number format.
    """
    try:
        with safe_open(file, "pt"):  # type: ignore[no-untyped-call]
            pass
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            header: dict[str, dict[str, Any]] = json.loads(stream.read(length), object_pairs_hook=_once)
    except (SafetensorError, OSError, ValueError) as error:
        raise truncated(file, error) from None
    found = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        written, (begin, end) = entry["dtype"], entry["data_offsets"]
        if written not in _DTYPES:
            raise BothwaysError(f"{file}: {name} is of the number format {written}, which is not read here: convert it "
                                "to float32, float16 or bfloat16")
        found[name] = Stored(file, tuple(entry["shape"]), _DTYPES[written], 8 + length + begin, end - begin)
    return found


def torch_bin_of(file: Path) -> dict[str, Stored]:
    """Every tensor of a file that `torch.save` wrote; no code in it is ever run.

    A file of today (a zip archive) is only looked through: its tensors stand in it as they are. An older one has to be
    read as a whole.

    Raises:
        BothwaysError: a file that is truncated, or holds anything but tensors by name.
    """
    records: dict[int, int] = {}
    try:
        with file.open("rb") as stream:
            archive = stream.read(4) == b"PK\x03\x04"
        records = _records(file) if archive else {}
        content = torch.load(file, map_location="cpu", weights_only=True, mmap=archive)
    except pickle.UnpicklingError as error:
        culprit = next((line.strip() for line in str(error).splitlines() if "GLOBAL" in line or "Can only" in line), "")
        if not culprit:
            raise truncated(file, error, "torch") from None
        raise BothwaysError(f"{file} holds more than tensors, and nothing in it is run ({culprit}): "
                            "ask for a safetensors file") from None
    except Exception as error:  # an unpickler that reads garbage may raise anything
        raise truncated(file, error, "torch") from None
    if not isinstance(content, Mapping):
        raise BothwaysError(f"{file} holds a {type(content).__name__}, but tensors by name are expected")
    for name, tensor in content.items():
        if not isinstance(tensor, Tensor) or tensor.layout != torch.strided or tensor.is_quantized:
            raise BothwaysError(f"{file}: '{name}' is a {type(tensor).__name__}, but only plain tensors are read")
    tensors = {str(name): tensor.detach() for name, tensor in content.items()}
    return _placed(file, tensors, records) or {name: Stored(file, tuple(tensor.shape), tensor.dtype, ready=tensor)
                                               for name, tensor in tensors.items()}


def _records(file: Path) -> dict[int, int]:
    """The tensors' records in a zip archive of torch: bytes by place in the file."""
    found = {}
    with zipfile.ZipFile(file) as archive, file.open("rb") as stream:
        for record in archive.infolist():
            stream.seek(record.header_offset + 26)
            name, extra = struct.unpack("<HH", stream.read(4))
            if "/data/" in record.filename and record.file_size:
                found[record.header_offset + 30 + name + extra] = record.file_size
    return found


def _placed(file: Path, tensors: Mapping[str, Tensor], records: Mapping[int, int]) -> dict[str, Stored]:
    """Where mapped tensors lie in their file; nothing where that cannot be told for sure.

    The library maps the file and keeps the map's beginning for itself. It follows from the first tensor and the first
    record, and holds only if every tensor then lies inside a record.
    """
    full = {name: tensor.untyped_storage() for name, tensor in tensors.items() if tensor.untyped_storage().nbytes()}
    if not full or not records:
        return {}
    begin = min(storage.data_ptr() for storage in full.values()) - min(records)
    if any(records.get(storage.data_ptr() - begin, -1) < storage.nbytes() for storage in full.values()):
        return {}
    found = {}
    for name, tensor in tensors.items():
        shape, empty = tuple(tensor.shape), tensor.numel() == 0
        spanned = 0 if empty else 1 + sum((length - 1) * step for length, step in zip(shape, tensor.stride()))
        plain = empty or tensor.is_contiguous()
        found[name] = Stored(file, shape, tensor.dtype, 0 if empty else tensor.data_ptr() - begin,
                             spanned * tensor.dtype.itemsize, None if plain else tuple(tensor.stride()))
    return found


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """A JSON object; a name that stands twice is refused, where JSON would keep the last."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)} stands in it twice")
    return found


def _as_bytes(tensor: Tensor) -> np.ndarray:
    """A contiguous tensor's memory, (bytes,) uint8."""
    flat: np.ndarray = tensor.detach().reshape(-1).view(torch.uint8).numpy()
    return flat
