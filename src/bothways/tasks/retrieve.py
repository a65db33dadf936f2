"""Searching texts by meaning: an index is a folder of vectors and texts, and every search looks at all of them.

`vectors.npy` is a float32 matrix (n, D) of vectors of length 1, which is read without loading it whole; `texts.jsonl`
has a text a line, and `index.json` says which model made them. Exact search by one matrix product: a million texts of
384 numbers are 1.5 GB, and a search reads them once.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from bothways.aside import replacing
from bothways.errors import BothwaysError
from bothways.families import folder as folders
from bothways.families.files import read_json, write_json
from bothways.tasks import folder as tuned
from bothways.tasks.similarity import Options, Task

FORMAT = 1
VECTORS, TEXTS, ABOUT = "vectors.npy", "texts.jsonl", "index.json"
BLOCK = 1 << 16
"""Vectors that one matrix product looks at."""
MANY = 4096
"""Texts that are made into vectors at a time."""


class Hit(NamedTuple):
    """A text that was found: its number in the index, the text, and its cosine."""

    number: int
    text: str
    score: float


def encoder(folder: str | Path, device: torch.device | str | None = None) -> Task:
    """The bi-encoder of a folder that was tuned to similarity, or of any model folder as it is.

    Raises:
        BothwaysError: a cross-encoder, or a folder tuned to another task.
    """
    if (Path(folder) / tuned.FILE).is_file():
        task = tuned.load(folder, "similarity", device)
        assert isinstance(task, Task)
        if task.options.way == "cross":
            raise BothwaysError(f"{folder} is a cross-encoder, which has no vector for one text: tune with --way bi")
        return task
    return Task(folders.load(folder, device), Options())


@dataclass(frozen=True)
class Index:
    """Texts and their vectors (n, D) float32 of length 1."""

    texts: Sequence[str]
    vectors: np.ndarray
    model: str

    @classmethod
    def build(cls, task: Task, texts: Iterable[str], model: str = "") -> Index:
        """The index of some texts; empty ones are left out.

        Raises:
            BothwaysError: no text.
        """
        kept = [text for text in texts if text.strip()]
        if not kept:
            raise BothwaysError("there is no text to search in: give some")
        parts = [task.vectors(kept[at:at + MANY]) for at in range(0, len(kept), MANY)]
        return cls(kept, np.concatenate(parts), model)

    def search(self, task: Task, queries: Sequence[str], k: int = 10) -> list[list[Hit]]:
        """For each query the `k` texts of highest cosine, the best first; of equal ones the earlier first.

        Raises:
            BothwaysError: a model whose vectors have another width, or k below 1.
        """
        if k < 1:
            raise BothwaysError(f"{k} texts were asked for, but at least one can be found")
        asked = task.vectors(queries)
        if asked.shape[1] != self.vectors.shape[1]:
            raise BothwaysError(f"the index has vectors of {self.vectors.shape[1]} numbers, made by '{self.model}', "
                                f"and this model gives {asked.shape[1]}: search with the model that made it")
        best = [(np.zeros(0, np.int64), np.zeros(0, np.float32)) for _ in queries]
        for at in range(0, len(self.vectors), BLOCK):
            table = asked @ np.asarray(self.vectors[at:at + BLOCK]).T
            for i, line in enumerate(table):
                numbers, scores = np.append(best[i][0], np.arange(at, at + len(line))), np.append(best[i][1], line)
                chosen = np.lexsort((numbers, -scores))[:k]
                best[i] = numbers[chosen], scores[chosen]
        return [[Hit(int(number), self.texts[int(number)], round(float(score), 4)) for number, score in zip(*one)]
                for one in best]

    def save(self, folder: str | Path) -> None:
        """Write the folder aside, then put it in its place.

        Raises:
            BothwaysError: the place holds something else than an index, or cannot be written (exit code 1).
        """
        folder = Path(folder)
        if folder.exists() and not (folder / ABOUT).is_file():
            raise BothwaysError(f"{folder} is there and is no index: name another folder")
        with replacing(folder) as aside:
            aside.mkdir()
            np.save(aside / VECTORS, self.vectors.astype(np.float32, copy=False), allow_pickle=False)
            with (aside / TEXTS).open("w", encoding="utf-8") as stream:
                stream.writelines(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in self.texts)
            write_json(aside / ABOUT, {"format": FORMAT, "model": self.model, "texts": len(self.texts),
                                       "width": int(self.vectors.shape[1])})

    @classmethod
    def load(cls, folder: str | Path) -> Index:
        """The index in a folder; its vectors stay on the disk until a search reads them.

        Raises:
            BothwaysError: no index, one of another version, or files that do not fit together.
        """
        folder = Path(folder)
        if not (folder / ABOUT).is_file():
            raise BothwaysError(f"{folder} is no index: make one with `bothways retrieve MODEL --texts FILE --index "
                                f"{folder}`")
        about = read_json(folder / ABOUT)
        if about.get("format") != FORMAT:
            raise BothwaysError(f"{folder / ABOUT} is of format version {about.get('format')}, but this bothways reads "
                                f"version {FORMAT}: make the index again")
        try:
            vectors = np.load(folder / VECTORS, mmap_mode="r", allow_pickle=False)
            with (folder / TEXTS).open(encoding="utf-8") as stream:
                texts = [str(json.loads(line)["text"]) for line in stream]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BothwaysError(f"{folder} is damaged ({error}): make the index again") from error
        if vectors.ndim != 2 or vectors.dtype != np.float32 or len(vectors) != len(texts):
            raise BothwaysError(f"{folder} is damaged ({len(texts)} texts, vectors {vectors.shape} {vectors.dtype}): "
                                "make the index again")
        return cls(texts, vectors, str(about.get("model", "")))


def texts_of(path: str | Path, field: str | None = None) -> Iterator[str]:
    """The texts of a file: of JSON lines, CSV or Parquet one field, of any other file a line each.

    Raises:
        BothwaysError: a file or field that is not there, or no text.
    """
    from bothways.text.corpora import read
    from bothways.text.files import lines

    path = Path(path)
    if path.name.removesuffix(".gz").endswith((".jsonl", ".csv", ".parquet")):
        return (document.text for document in read(path, field))
    return (line.rstrip("\n") for line in lines(path) if line.strip())
