"""GGUF files (llama.cpp): one file that holds config, tokenizer and weights, often quantised. Read, never mapped.

The header is read here, since the `gguf` package's own reader takes 12 seconds for a vocabulary of 50,000; names of
tensors, sizes of blocks and dequantisation are the package's (extra `export`). Layout: GGUF specification, version 3.
"""

from __future__ import annotations

import importlib
import math
import struct
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from bothways.errors import BothwaysError, nearest
from bothways.families.gguf_tables import FREQUENCIES, KNOWN
from bothways.families.stored import Stored, truncated
from bothways.families.weights import Weights
from bothways.model.config import ModelConfig

_NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_PLAIN = {0: torch.float32, 1: torch.float16, 28: torch.float64, 30: torch.bfloat16}
"""Types of tensors that are stored as the numbers they are."""


TOKENS = {"bos": "bos_token_id", "eos": "eos_token_id", "padding": "pad_token_id", "mask": "mask_token_id",
          "unknown": "unk_token_id", "cls": "cls_token_id", "seperator": "sep_token_id"}
"""How a header calls special tokens (its spelling), and a published config."""


def gguf_in(path: Path) -> Path | None:
    """The GGUF file that a path is, or that a folder without config.json holds; none where there is none.

    Raises:
        BothwaysError: such a folder holds several.
    """
    if path.is_file():
        return path if path.suffix == ".gguf" else None
    if (path / "config.json").exists() or not path.is_dir():
        return None
    found = sorted(path.glob("*.gguf"))
    if len(found) > 1:
        raise BothwaysError(f"{path} holds {len(found)} GGUF files: name one of them, such as {found[0]}")
    return found[0] if found else None


class Gguf:
    """A GGUF file, its header read.

    Raises:
        BothwaysError: a file that is truncated or is no GGUF file, of another version or of an unknown architecture.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.fields: dict[str, Any] = {}
        """Everything the header says, by key."""
        self._tensors: dict[str, tuple[tuple[int, ...], int, int]] = {}
        try:
            with file.open("rb") as stream:
                self._read_header(stream)
        except (struct.error, UnicodeDecodeError, OverflowError, MemoryError, OSError) as error:
            raise truncated(file, error, "GGUF") from None
        name = str(self.fields.get("general.architecture"))
        if name not in KNOWN:
            raise BothwaysError(f"{file} is of the architecture '{name}', which is not read here "
                                + nearest(name, KNOWN))
        self.name, self.architecture = name, KNOWN[name]
        blocks = [self.fields.get(f"{name}.{key}", 0) for key in ("block_count", "decoder_block_count")]
        if not all(isinstance(count, int) and 0 <= count <= len(self._tensors) for count in blocks):
            raise truncated(file, f"its header speaks of {max(map(str, blocks))} blocks, but it has "
                                  f"{len(self._tensors)} tensors", "GGUF")
        self.blocks: int = max(blocks)

    @property
    def config(self) -> dict[str, Any]:
        """What config.json of the same model would say.

        Raises:
            BothwaysError: its rotary positions are scaled in a way that is not known here.
        """
        divisors = None
        if FREQUENCIES in self._tensors:
            divisors = self._stored(FREQUENCIES, None, package()).read().float()
        shapes = {name: shape for name, (shape, _, _) in self._tensors.items()}
        found = self.architecture.published(self.name, self.fields, shapes, divisors, str(self.file))
        for key, entry in TOKENS.items():
            if f"tokenizer.ggml.{key}_token_id" in self.fields:
                found[entry] = self.fields[f"tokenizer.ggml.{key}_token_id"]
        return found

    def named(self, published: Collection[str]) -> dict[str, str]:
        """Those of the published names that stand for a tensor of the file, and its own name.

        Raises:
            BothwaysError: the `gguf` package is not there.
        """
        names = own_names(self.name, self.blocks, published)
        return {theirs: own for theirs, own in names.items() if own in self._tensors}

    def weights(self, published: Collection[str], config: ModelConfig) -> Weights:
        """The tensors under published names; those that none of the names stands for keep their own.

        Raises:
            BothwaysError: the `gguf` package is not there, or a tensor is of a type it cannot dequantise.
        """
        gguf, names = package(), self.named(published)
        left = self._tensors.keys() - set(names.values()) - {FREQUENCIES}
        found = {}
        for theirs, own in names.items():
            change = self.architecture.change(own)
            found[theirs] = self._stored(own, None if change is None else change.bound(config), gguf)
        return Weights({**found, **{own: self._stored(own, None, gguf) for own in sorted(left)}}, str(self.file))

    def _stored(self, own: str, change: Callable[[Tensor], Tensor] | None, gguf: Any) -> Stored:
        shape, kind, offset = self._tensors[own]
        dtype, numbers = _PLAIN.get(kind), math.prod(shape)
        if dtype is not None:
            size = numbers * dtype.itemsize
        else:
            try:
                block, length = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType(kind)]
            except (ValueError, KeyError):
                raise BothwaysError(f"{self.file}: {own} is of the unknown type {kind}: convert it to F16") from None
            if not shape or shape[-1] % block:
                raise truncated(self.file, f"{own} of shape {shape} does not divide into blocks of {block}", "GGUF")
            size = numbers // block * length
        if offset + size > self.file.stat().st_size:
            raise truncated(self.file, f"{own} reaches beyond its end", "GGUF")
        if dtype is not None and change is None:
            return Stored(self.file, shape, dtype, offset, size)

        def decode(raw: np.ndarray) -> Tensor:
            if dtype is not None:
                whole = torch.from_numpy(raw).view(dtype).view(shape)
            else:
                try:
                    rows = gguf.quants.dequantize(raw.reshape(*shape[:-1], -1), gguf.GGMLQuantizationType(kind))
                except NotImplementedError:
                    raise BothwaysError(f"{self.file}: {own} is of the type {gguf.GGMLQuantizationType(kind).name}, "
                                        "which the gguf package does not dequantise: convert it to F16") from None
                whole = torch.from_numpy(np.ascontiguousarray(rows))
            return whole if change is None else change(whole)

        try:
            changed = shape if change is None else tuple(change(torch.empty(shape, device="meta")).shape)
        except RuntimeError:  # of a shape that cannot be changed so: it is refused with the one that it should have
            changed = shape
        return Stored(self.file, changed, dtype or torch.float32, offset, size, decode=decode)

    # --- the header ---

    def _read_header(self, stream: BinaryIO) -> None:
        if stream.read(4) != b"GGUF":
            raise truncated(self.file, "it does not begin with GGUF", "GGUF")
        version, = _unpack(stream, "I")
        if version not in (2, 3):
            raise BothwaysError(f"{self.file} is of GGUF version {version}, but versions 2 and 3 (little-endian) are "
                                "read here: convert it again with a newer llama.cpp")
        tensors, fields = _unpack(stream, "QQ")
        for _ in range(fields):
            key = _string(stream)
            self.fields[key] = self._value(stream, _unpack(stream, "I")[0])
        for _ in range(tensors):
            name = _string(stream)
            if name in self._tensors:
                raise BothwaysError(f"{self.file}: {name} stands in it twice")
            count, = _unpack(stream, "I")
            if count > 8:
                raise truncated(self.file, f"{name} has {count} dimensions", "GGUF")
            shape = _unpack(stream, f"{count}Q")[::-1]
            kind, offset = _unpack(stream, "IQ")
            self._tensors[name] = shape, kind, offset
        alignment = int(self.fields.get("general.alignment", 32))
        begin = -(-stream.tell() // alignment) * alignment
        self._tensors = {name: (shape, kind, begin + offset) for name, (shape, kind, offset) in self._tensors.items()}

    def _value(self, stream: BinaryIO, kind: int) -> Any:
        if kind in _NUMBERS:
            return _unpack(stream, _NUMBERS[kind])[0]
        if kind == _STRING:
            return _string(stream)
        if kind != _ARRAY:
            raise truncated(self.file, f"a value is of the unknown type {kind}", "GGUF")
        inner, count = _unpack(stream, "IQ")
        if inner in _NUMBERS:
            return list(_unpack(stream, f"{count}{_NUMBERS[inner]}"))
        if inner != _STRING:
            raise truncated(self.file, "an array holds arrays", "GGUF")
        return [_string(stream) for _ in range(count)]


def _unpack(stream: BinaryIO, form: str) -> tuple[Any, ...]:
    size = struct.calcsize(f"<{form}")
    if size > 2 ** 30:
        raise struct.error("a field of it is longer than a gigabyte")
    return struct.unpack(f"<{form}", stream.read(size))


def _string(stream: BinaryIO) -> str:
    length, = _unpack(stream, "Q")
    if length > 2 ** 30:
        raise struct.error("a text in it is longer than a gigabyte")
    raw = stream.read(length)
    if len(raw) < length:
        raise struct.error("it ends in the middle of a text")
    return raw.decode("utf-8")


def own_names(architecture: str, blocks: int, published: Collection[str]) -> dict[str, str]:
    """GGUF's names of published tensors, by the package's own maps; those it has no name for are left out."""
    gguf = package()
    number = next(one for one, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture)
    names, found = gguf.get_tensor_name_map(number, blocks), {}
    for name in published:
        # what stands before the names of a body is left out there
        for spelled in (name, name.partition(".")[2]):
            own = names.get_name(spelled, try_suffixes=(".weight", ".bias"))
            if own is not None:
                found[name] = own
                break
    return found


def package() -> Any:
    """The package `gguf`.

    Raises:
        BothwaysError: it is not installed.
    """
    try:
        return importlib.import_module("gguf")
    except ModuleNotFoundError:
        raise BothwaysError("GGUF files need the package 'gguf', which is not installed: pip install gguf",
                            exit_code=1) from None
