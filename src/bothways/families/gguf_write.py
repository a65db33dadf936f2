"""A model as one GGUF file, which llama.cpp and what is built on it read: header, tokenizer and weights.

An architecture fits a network whose config survives the way into a header and back, as a family does. Names and
quantisation are the `gguf` package's; the file is written aside and renamed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from torch import Tensor

from bothways import families
from bothways.aside import replacing
from bothways.errors import BothwaysError
from bothways.families import settings
from bothways.families.base import Family, token_ids
from bothways.families.blank import shapes_of
from bothways.families.encoder import SEGMENT
from bothways.families.folder import fused
from bothways.families.gguf_file import TOKENS, own_names, package
from bothways.families.gguf_tables import FREQUENCIES, KNOWN, Architecture, as_stored, divisors_of
from bothways.families.gguf_tokens import fields_of
from bothways.families.trained import Trained
from bothways.model.config import Head, ModelConfig

Numbers = Literal["float32", "float16", "bfloat16", "q8_0"]
"""Number formats of matrices: as they are, halves, or blocks of 32 bytes with a scale. Vectors stay float32."""
_TYPES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16", "q8_0": "Q8_0"}
_FILE_TYPES = {"F32": 0, "F16": 1, "Q8_0": 7, "BF16": 32}
_EXACT = ("position_embd.weight", "token_types.weight", "attn_rel_b.weight", "ssm_conv1d.weight", "ssm_a", "ssm_d")
"""Tensors that llama.cpp keeps in float32 whatever the others are."""


class Written(NamedTuple):
    """What became of a model.

    architecture: GGUF's name of it.
    tensors: how many there are.
    left_out: our names of tensors that have no place there: an encoder's heads.
    """

    architecture: str
    tensors: int
    left_out: tuple[str, ...]


def write_gguf(trained: Trained, file: Path, numbers: Numbers = "float32") -> Written:
    """Write a GGUF file; it appears whole or not at all, and replaces an older one.

    GGUF holds an encoder's body: its heads and its pooler are left out, and named in what is returned.

    Raises:
        BothwaysError: no architecture of GGUF fits the network or the tokenizer (with the choice that prevents it); the
            `gguf` package is missing; the place cannot be written (exit code 1).
    """
    gguf = package()
    # 1. the architecture, and what has a place in it
    name, config = _fitting(trained)
    architecture, family = KNOWN[name], families.KNOWN[KNOWN[name].model_type]
    whole = fused(trained.network)
    kept = {ours: whole[ours].detach().cpu() for ours in shapes_of(config)}
    left = tuple(ours for ours in whole if ours not in kept)
    # 2. the tensors under GGUF's names
    published = family.export(kept, config)
    names = own_names(name, _blocks(config), published)
    tensors = {names[theirs]: tensor for theirs, tensor in published.items()}
    if (divisors := _divisors(config, architecture)) is not None:
        tensors[FREQUENCIES] = divisors
    # 3. the header
    fields = {"general.name": file.stem, "general.file_type": _FILE_TYPES[_TYPES[numbers]],
              "general.quantization_version": 2,
              **architecture.header(name, _published(family, config, trained)), **_tokenizer(trained)}
    if "token_types.weight" in tensors:
        fields["tokenizer.ggml.token_type_count"] = len(tensors["token_types.weight"])
    # 4. aside, then in place
    with replacing(file) as aside:
        _write(gguf, aside, name, fields, dict(_laid_out(tensors, architecture, config, numbers, gguf)))
    return Written(name, len(tensors), left)


def _fitting(trained: Trained) -> tuple[str, ModelConfig]:
    """The architecture that holds this network, the one of the family it was read from first, and what it holds of it.

    Raises:
        BothwaysError: none does; the one with the fewest differences is named.
    """
    looks, found = families.direction(trained.objective), {}
    for name, architecture in sorted(KNOWN.items(), key=lambda one: one[1].model_type != trained.layout):
        family = families.KNOWN[architecture.model_type]
        if family.direction == looks:
            config = _body(trained.config) if looks == "bidirectional" else trained.config
            found[name] = list(_lost(name, architecture, family, config, trained))
            if not found[name]:
                return name, config
    nearest = min(found, key=lambda name: len(found[name]))
    raise BothwaysError(f"no architecture of GGUF that is known here holds this network: for '{nearest}', "
                        + "; ".join(found[nearest]))


def _body(config: ModelConfig) -> ModelConfig:
    """An encoder without heads and without a pooler."""
    segments = tuple(one for one in config.companions if one.name == SEGMENT)
    return replace(config, head=Head(scores=False), tied=True, companions=segments)


def _lost(name: str, architecture: Architecture, family: Family, config: ModelConfig, trained: Trained
          ) -> Iterator[str]:
    """Each choice that does not survive the way to a header and back, as a phrase."""
    if found := family.differences(config):
        yield from found
        return
    links = [theirs for link in family.links(config) for theirs in link.names.theirs]
    names = own_names(name, _blocks(config), links)
    if missing := [theirs for theirs in links if theirs not in names]:
        yield f"it has no place for {', '.join(missing)}"
        return
    fields = as_stored(architecture.header(name, _published(family, config, trained)))
    sizes = shapes_of(config)
    shapes: dict[str, tuple[int, ...]] = dict.fromkeys(names.values(), (1,))
    shapes["token_embd.weight"] = tuple(sizes["embedding.weight"])
    if "token_types.weight" in shapes:
        shapes["token_types.weight"] = tuple(sizes[f"companions.{SEGMENT}.weight"])
    try:
        stored = architecture.published(name, fields, shapes, _divisors(config, architecture), "it")
        read = family.settled(family.from_config(stored, "it"), names)
    except BothwaysError as error:
        yield str(error)
        return
    yield from settings.differences(config, read)


def _published(family: Family, config: ModelConfig, trained: Trained) -> dict[str, Any]:
    """The entries of config.json that a header repeats."""
    ids = token_ids(trained.vocabulary)
    return {"decoder_start_token_id": ids["decoder_start_token_id"], **family.to_config(config)}


def _divisors(config: ModelConfig, architecture: Architecture) -> Tensor | None:
    if not architecture.rotary or config.position.kind != "rotary":
        return None
    return divisors_of(config.position.scaling, config.head_size, config.position.base)


def _blocks(config: ModelConfig) -> int:
    return max(config.shape.layers, config.shape.source_layers)


def _tokenizer(trained: Trained) -> dict[str, Any]:
    """The header's part about text."""
    tokenizer, vocabulary = trained.tokenizer, trained.vocabulary
    told = {**token_ids(vocabulary), "unk_token_id": vocabulary.ids.get("<unk>"),
            "cls_token_id": vocabulary.ids.get("<cls>"), "sep_token_id": vocabulary.ids.get("<sep>")}
    ids = {key: number for key, entry in TOKENS.items() if (number := told.get(entry)) is not None}
    core = tokenizer.core if trained.readable else None
    return fields_of(core, ids, getattr(tokenizer, "settings", {}), trained.config.shape.vocabulary, "this model")


def _laid_out(tensors: Mapping[str, Tensor], architecture: Architecture, config: ModelConfig, numbers: Numbers,
              gguf: Any) -> Iterator[tuple[str, tuple[np.ndarray, Any]]]:
    """Every tensor as llama.cpp keeps it, in its number format, and that format."""
    for name, tensor in tensors.items():
        change = architecture.change(name)
        rows = tensor.float() if change is None else change.theirs(tensor.float(), config)
        kind = "F32" if rows.ndim < 2 or name.endswith(_EXACT) else _TYPES[numbers]
        if kind == "Q8_0" and rows.shape[-1] % 32:
            kind = "F16"  # blocks of 32 do not fit; llama.cpp does the same
        chosen = gguf.GGMLQuantizationType[kind]
        yield name, (gguf.quants.quantize(rows.contiguous().numpy(), chosen), chosen)


def _write(gguf: Any, file: Path, name: str, fields: Mapping[str, Any], tensors: Mapping[str, tuple[np.ndarray, Any]]
           ) -> None:
    """Header and tensors into a new file."""
    writer = gguf.GGUFWriter(file, name)
    kinds = {bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32, str: writer.add_string,
             list: writer.add_array}
    for key, value in fields.items():
        kinds[type(value)](key, value)
    for own, (rows, kind) in tensors.items():
        writer.add_tensor(own, rows, raw_dtype=kind)
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    finally:
        writer.close()
    with file.open("rb") as written:
        os.fsync(written.fileno())
