"""Turn texts into vectors: the mean of a layer's states over each text's own tokens.

    bothways embed run/model "a small cat" "a large dog"

Prints a line of JSON a text, or writes them with --out: vectors.npy (an array of float32, n by width) or
vectors.jsonl. Many texts come from a file with --texts: JSON lines, CSV or Parquet with --field, or one text a line.
They are read as they come, so their number is not bounded by memory:

    bothways embed run/model --texts README.md --out vectors.npy
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Literal

import tyro

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import numpy as np


@dataclass(frozen=True)
class Options:
    """Which model reads what, and where the vectors go."""

    folder: tyro.conf.Positional[Path]
    """The model folder, or a run's folder."""
    text: tyro.conf.Positional[tuple[str, ...]] = ()
    """The texts; - reads standard input, every line a text."""
    texts: Path | None = None
    """A file of texts instead: .jsonl, .csv or .parquet with --field, otherwise one text a line."""
    field: str | None = None
    """The field of the file's records that holds the text."""
    out: Path | None = None
    """Write here, .npy or .jsonl; printed as JSON lines when none."""
    layer: int = -1
    """-1 for the last states, 0 for the embedding, k for layer k."""
    visibility: str | None = None
    """The name of a trained mode, for a model with several."""
    pooling: Literal["mean", "first", "pooled"] = "mean"
    """The mean over a text's own tokens, its first token's state, or what a trained pooler makes of that."""
    batch_tokens: int = 2048
    """Tokens read in one pass."""
    truncate: Literal["left", "right"] | None = None
    """Which side of a text is cut that is longer than the network's places; refused when none."""
    dtype: Literal["float32", "bfloat16"] | None = None
    """The number format to compute in; the file's when none. bfloat16 is faster where the processor has it."""
    device: str | None = None
    """cpu, cuda, cuda:1."""


def run(options: Options) -> int:
    """Load, read, write."""
    import itertools

    from bothways.errors import BothwaysError

    # 1. check the call before anything is loaded
    if options.out is not None and options.out.suffix not in (".npy", ".jsonl"):
        raise BothwaysError(f"--out {options.out}: vectors are written as .npy or .jsonl")
    if bool(options.text) == (options.texts is not None):
        raise BothwaysError("give texts in the call, or a file of them with --texts" if not options.text else
                            "give texts in the call or with --texts, not both")
    texts = _texts(options)
    begin = next(texts, None)
    if begin is None:
        raise BothwaysError(f"{options.texts or 'standard input'} holds no text")
    # 2. read them, as many at a time as fill a few passes
    import torch

    import bothways

    model = bothways.from_pretrained(options.folder, options.device,
                                     None if options.dtype is None else getattr(torch, options.dtype))
    texts, read = itertools.tee(itertools.chain([begin], texts))
    vectors = model.embed(read, options.layer, options.visibility, options.batch_tokens, options.pooling,
                          options.truncate)
    # 3. write the vectors
    found = zip(texts, (vector.numpy() for vector in vectors), strict=True)
    if options.out is None:
        for text, vector in found:
            print(_line(text, vector))
    else:
        count = _write(options.out, found, model.config.shape.width)
        print(f"{count} vectors of {model.config.shape.width} numbers written to {options.out}")
    return 0


def _texts(options: Options) -> Iterator[str]:
    """The texts of the call, of standard input, or of a file, as they come."""
    import sys

    from bothways.errors import BothwaysError

    if options.text == ("-",):
        yield from (line.rstrip("\n") for line in sys.stdin)
        return
    if options.texts is None:
        yield from options.text
        return
    if not options.texts.is_file():
        raise BothwaysError(f"--texts {options.texts}: no such file")
    if options.texts.suffix in (".jsonl", ".csv", ".parquet", ".gz"):
        from bothways.text.corpora import read

        yield from (document.text for document in read(options.texts, options.field))
        return
    with options.texts.open("rb") as lines:
        for number, line in enumerate(lines):
            try:
                text = line.decode("utf-8").rstrip("\r\n")
            except UnicodeDecodeError:
                raise BothwaysError(f"{options.texts} is not UTF-8: line {number + 1} cannot be read") from None
            if text.strip():
                yield text


def _line(text: str, vector: np.ndarray) -> str:
    import json

    return json.dumps({"text": text, "vector": [round(float(number), 6) for number in vector]}, ensure_ascii=False)


def _write(path: Path, found: Iterable[tuple[str, np.ndarray]], width: int) -> int:
    """Written aside as they come, then renamed; how many there were."""
    from bothways.aside import replacing

    count = 0
    with replacing(path) as aside, aside.open("wb") as file:
        if path.suffix == ".npy":
            _begin_npy(file, 0, width)
        for text, vector in found:
            count += 1
            file.write(vector.tobytes() if path.suffix == ".npy" else (_line(text, vector) + "\n").encode())
        if path.suffix == ".npy":
            file.seek(0)
            _begin_npy(file, count, width)
    return count


def _begin_npy(file: BinaryIO, count: int, width: int) -> None:
    """The beginning of an array's file, which is as long for any count: the format leaves room for it to grow."""
    from numpy.lib import format as npy

    npy.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (count, width)})
