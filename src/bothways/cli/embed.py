"""Turn texts into vectors: the mean of a layer's states over each text's own tokens.

    bothways embed run/model "a small cat" "a large dog"

Prints a line of JSON a text, or writes them with --out: vectors.npy (an array of float32, n by width) or
vectors.jsonl. Many texts come from a file with --texts: JSON lines, CSV or Parquet with --field, or one text a line:

    bothways embed run/model --texts README.md --out vectors.npy
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro

if TYPE_CHECKING:
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
    batch_tokens: int = 8192
    """Tokens read in one pass."""
    device: str | None = None
    """cpu, cuda, cuda:1."""


def run(options: Options) -> int:
    """Load, read, write."""
    from bothways.errors import BothwaysError

    # 1. check the call before anything is loaded
    if options.out is not None and options.out.suffix not in (".npy", ".jsonl"):
        raise BothwaysError(f"--out {options.out}: vectors are written as .npy or .jsonl")
    if bool(options.text) == (options.texts is not None):
        raise BothwaysError("give texts in the call, or a file of them with --texts" if not options.text else
                            "give texts in the call or with --texts, not both")
    texts = _texts(options)
    if not texts:
        raise BothwaysError(f"{options.texts or 'standard input'} holds no text")
    # 2. read them
    import bothways

    model = bothways.from_pretrained(options.folder, device=options.device)
    vectors = model.embed(texts, options.layer, options.visibility, options.batch_tokens,
                          options.pooling).numpy()
    # 3. write the vectors
    if options.out is None:
        for line in _lines(texts, vectors):
            print(line)
    else:
        _write(options.out, texts, vectors)
        print(f"{len(vectors)} vectors of {vectors.shape[1]} numbers written to {options.out}")
    return 0


def _texts(options: Options) -> list[str]:
    """The texts of the call, of standard input, or of a file."""
    import sys

    from bothways.errors import BothwaysError

    if options.text == ("-",):
        return sys.stdin.read().splitlines()
    if options.texts is None:
        return list(options.text)
    if not options.texts.is_file():
        raise BothwaysError(f"--texts {options.texts}: no such file")
    if options.texts.suffix in (".jsonl", ".csv", ".parquet", ".gz"):
        return _records(options.texts, options.field)
    try:
        return [line for line in options.texts.read_text(encoding="utf-8").splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise BothwaysError(f"{options.texts} is not UTF-8: byte {error.start} cannot be read") from None


def _records(file: Path, field: str | None) -> list[str]:
    """The texts of a file of records, by the reader of corpora."""
    from bothways.text.corpora import read

    return [document.text for document in read(file, field)]


def _lines(texts: list[str], vectors: np.ndarray) -> list[str]:
    import json

    return [json.dumps({"text": text, "vector": [round(float(number), 6) for number in vector]}, ensure_ascii=False)
            for text, vector in zip(texts, vectors, strict=True)]


def _write(path: Path, texts: list[str], vectors: np.ndarray) -> None:
    """Written aside, then renamed."""
    import os

    import numpy as np

    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    if path.suffix == ".npy":
        with aside.open("wb") as file:
            np.save(file, vectors)
    else:
        aside.write_text("\n".join(_lines(texts, vectors)) + "\n", encoding="utf-8")
    os.replace(aside, path)
