"""GGUF files (llama.cpp): one file that holds config, tokenizer and weights, often quantised. Read, never mapped.

The header is read here, since the `gguf` package's own reader takes 12 seconds for a vocabulary of 50,000; names of
tensors, sizes of blocks and dequantisation are the package's (extra `export`). Layout: GGUF specification, version 3.
"""

from __future__ import annotations

import importlib
import math
import struct
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from bothways.errors import BothwaysError, nearest
from bothways.families.stored import Stored, truncated
from bothways.families.weights import Weights

_NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_PLAIN = {0: torch.float32, 1: torch.float16, 28: torch.float64, 30: torch.bfloat16}
"""Types of tensors that are stored as the numbers they are."""


@dataclass(frozen=True)
class Architecture:
    """How a GGUF architecture is one of ours.

    entries: of the published config, by the GGUF key without the architecture in front.
    halves: the parts of a published name whose rows llama.cpp keeps in interleaved pairs, and the key of their heads.
    """

    model_type: str
    entries: dict[str, str]
    halves: dict[str, str] = field(default_factory=dict)


_DECODER = {
    "embedding_length": "hidden_size", "block_count": "num_hidden_layers", "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads", "attention.head_count_kv": "num_key_value_heads",
    "attention.key_length": "head_dim", "attention.layer_norm_rms_epsilon": "rms_norm_eps",
    "rope.freq_base": "rope_theta", "context_length": "max_position_embeddings"}
KNOWN: dict[str, Architecture] = {
    "llama": Architecture("llama", _DECODER, {"q_proj": "attention.head_count", "k_proj": "attention.head_count_kv"}),
    "qwen3": Architecture("qwen3", _DECODER)}
"""The architectures that are read."""
_TOKENS = {"bos": "bos_token_id", "eos": "eos_token_id", "padding": "pad_token_id", "mask": "mask_token_id",
           "unknown": "unk_token_id"}


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

    @property
    def config(self) -> dict[str, Any]:
        """What config.json of the same model would say."""
        found: dict[str, Any] = {"model_type": self.architecture.model_type}
        for key, entry in self.architecture.entries.items():
            if f"{self.name}.{key}" in self.fields:
                said = self.fields[f"{self.name}.{key}"]
                # a header keeps 32 bits: 9.99999975e-06 was 1e-05
                found[entry] = float(f"{said:.7g}") if isinstance(said, float) else said
        if f"{self.name}.rope.scaling.type" in self.fields or "rope_freqs.weight" in self._tensors:
            kind = self.fields.get(f"{self.name}.rope.scaling.type", "llama3")
            if kind != "none":
                found["rope_scaling"] = {"rope_type": kind}
        tokens = self.fields.get("tokenizer.ggml.tokens")
        embedding = self._tensors.get("token_embd.weight")
        found["vocab_size"] = embedding[0][0] if embedding else len(tokens or ())
        found["tie_word_embeddings"] = "output.weight" not in self._tensors
        for key, entry in _TOKENS.items():
            if f"tokenizer.ggml.{key}_token_id" in self.fields:
                found[entry] = self.fields[f"tokenizer.ggml.{key}_token_id"]
        return found

    def weights(self, published: Collection[str]) -> Weights:
        """The tensors under published names; those that none of the names stands for keep their own.

        Raises:
            BothwaysError: the `gguf` package is not there, or a tensor is of a type it cannot dequantise.
        """
        gguf = _package()
        architecture = next(one for one, name in gguf.MODEL_ARCH_NAMES.items() if name == self.name)
        names = gguf.get_tensor_name_map(architecture, int(self.fields.get(f"{self.name}.block_count", 0)))
        found, left = {}, dict.fromkeys(self._tensors)
        for name in published:
            own = names.get_name(name, try_suffixes=(".weight", ".bias"))
            if own in self._tensors:
                left.pop(own, None)
                found[name] = self._stored(own, self._turn(name), gguf)
        left.pop("rope_freqs.weight", None)
        return Weights({**found, **{own: self._stored(own, None, gguf) for own in left}}, str(self.file))

    def _turn(self, published: str) -> Callable[[Tensor], Tensor] | None:
        """What puts the rows of a projection back where its turned pairs are (k, k + half), or nothing."""
        key = next((key for part, key in self.architecture.halves.items() if f".{part}." in published), None)
        if key is None:
            return None
        heads = int(self.fields.get(f"{self.name}.{key}") or self.fields[f"{self.name}.attention.head_count"])

        def turn(rows: Tensor) -> Tensor:
            return rows.unflatten(0, (heads, -1, 2)).transpose(1, 2).flatten(0, 2)

        return turn

    def _stored(self, own: str, turn: Callable[[Tensor], Tensor] | None, gguf: Any) -> Stored:
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
        if dtype is not None and turn is None:
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
            return whole if turn is None else turn(whole)

        return Stored(self.file, shape, dtype or torch.float32, offset, size, decode=decode)

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


def _package() -> Any:
    try:
        return importlib.import_module("gguf")
    except ModuleNotFoundError:
        raise BothwaysError("GGUF files need the package 'gguf', which is not installed: pip install gguf",
                            exit_code=1) from None
