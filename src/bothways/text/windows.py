"""Windows over documents that lie end to end in one memory-mapped file of token ids."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from bothways.batch import Vocabulary, Window
from bothways.errors import BothwaysError

SHORTEST = 8
"""A window's fewest tokens: the rest of a document that is shorter than this is left out."""


def cuts(lengths: np.ndarray, window: int) -> np.ndarray:
    """How many windows each document gives: (documents,) int64 from (documents,) lengths in tokens."""
    full, rest = np.divmod(lengths, window)
    return np.asarray(full + (rest >= min(SHORTEST, window)), dtype=np.int64)


def shares_read(tokens: np.ndarray, smoothing: float) -> np.ndarray:
    """The share of each language's windows that a smoothed epoch reads: (languages,) float, 1 for the rarest.

    Language i, with a share p_i of the tokens, is to be read in proportion to p_i ** smoothing (Lample and Conneau
    2019, arXiv 1901.07291, section 3.1; PLBART, arXiv 2103.06333, with 0.3). An epoch in which no window comes twice
    then reads the rarest in full, and (p_rarest / p_i) ** (1 - smoothing) of another.
    """
    return np.asarray((tokens.min() / tokens) ** (1 - smoothing), dtype=np.float64)


class Windows:
    """The windows of one split: consecutive slices of `window` tokens of each document, without overlap.

    A document's last window may be shorter, down to 8 tokens. Nothing is held in memory but the documents' offsets
    and languages.
    """

    def __init__(self, folder: Path, split: str) -> None:
        facts = json.loads((folder / f"{split}.json").read_text(encoding="utf-8"))
        self.folder, self.split = folder, split
        self.window = int(facts["window"])
        self.tokens = int(facts["tokens"])
        """Tokens that lie in windows, `<bos>` and `<eos>` included."""
        self.bytes = int(facts["bytes"])
        """UTF-8 bytes of text that those tokens stand for."""
        self._offsets = np.load(folder / f"{split}.offsets.npy", mmap_mode="r")
        counts = cuts(np.diff(self._offsets), self.window)
        self._first = np.concatenate([[0], np.cumsum(counts)])
        self.languages: tuple[str, ...] = tuple(facts.get("languages", ()))
        """What the documents are written in, in order of appearance; none in a folder that does not know."""
        self._language = np.load(folder / f"{split}.languages.npy") if self.languages else None
        self.smoothing = float(facts.get("smoothing", 1.0))
        """Languages are read in proportion to their share of the tokens to this power: 1 is as they are."""
        total = int(self._offsets[-1])
        file = folder / f"{split}.tokens"
        if file.stat().st_size != total * np.dtype(facts["dtype"]).itemsize:
            raise BothwaysError(f"'{file}' is not as long as its {total} tokens: delete its folder and prepare again")
        self._ids = np.memmap(file, dtype=facts["dtype"], mode="r", shape=(total,)) if total else np.zeros(0, np.uint16)

    def __len__(self) -> int:
        return int(self._first[-1])

    def __getitem__(self, index: int) -> Window:
        """Window number `index`: its ids (L,) int64, its document, and where it starts there."""
        size = len(self)
        if not -size <= index < size:
            raise IndexError(f"window {index} of {size}")
        index = int(index) % size
        document = int(np.searchsorted(self._first, index, side="right")) - 1
        start = (index - int(self._first[document])) * self.window
        begin = int(self._offsets[document]) + start
        end = min(begin + self.window, int(self._offsets[document + 1]))
        language = "" if self._language is None else self.languages[int(self._language[document])]
        return Window(np.array(self._ids[begin:end], dtype=np.int64), document, start, index, language)

    def __iter__(self) -> Iterator[Window]:
        return (self[index] for index in range(len(self)))

    @property
    def documents(self) -> int:
        """The number of documents."""
        return len(self._offsets) - 1

    def document(self, number: int) -> np.ndarray:
        """All ids of one document, `<bos>` and `<eos>` included: (L,) int64."""
        return np.array(self._ids[int(self._offsets[number]):int(self._offsets[number + 1])], dtype=np.int64)

    def order(self, seed: int, epoch: int) -> np.ndarray:
        """The order in which an epoch reads the windows: (n,) int64, the same for the same seed and epoch.

        All windows, each once; with smoothing, a fresh random part of the windows of each common language.
        """
        rng = np.random.default_rng((seed, epoch))
        if self.smoothing == 1 or self._language is None or len(self.languages) < 2 or not len(self):
            return rng.permutation(len(self))
        # 1. the language of each window, and how much text each has in windows
        counts = np.diff(self._first)
        kept = np.minimum(np.diff(self._offsets), counts * self.window)
        tokens = np.bincount(self._language, weights=kept, minlength=len(self.languages))
        languages = np.repeat(self._language, counts)
        # 2. a part of each
        present = np.flatnonzero(tokens)
        shares = shares_read(tokens[present], self.smoothing)
        taken = []
        for language, share in zip(present, shares, strict=True):
            own = np.flatnonzero(languages == language)
            taken.append(rng.permutation(own)[:max(1, round(share * len(own)))])
        return rng.permutation(np.concatenate(taken))

    def __repr__(self) -> str:
        return f"Windows({self.split}: {len(self):,} windows of {self.window}, {self.tokens:,} tokens)"


class WindowWriter:
    """Appends documents to a split's files as they come; nothing but the offsets stays in memory."""

    def __init__(self, folder: Path, split: str, window: int, vocabulary: Vocabulary, smoothing: float = 1.0) -> None:
        self._folder, self._split, self._window, self._vocabulary = folder, split, window, vocabulary
        self._smoothing = smoothing
        self._languages: dict[str, int] = {}
        self._language: list[int] = []
        self._dtype = np.dtype(np.uint16 if vocabulary.size <= 2**16 else np.uint32)
        self._file = (folder / f"{split}.tokens").open("wb")
        self._lengths: list[np.ndarray] = []
        self.tokens = self.bytes = self.windows = 0
        self.all_tokens = self.all_bytes = 0

    def add(self, documents: Iterable[np.ndarray], languages: Sequence[str] | None = None) -> None:
        """Append documents, each (L,) ids with `<bos>` and `<eos>`, and what each is written in ("text" if none)."""
        arrays = [np.asarray(ids) for ids in documents]
        if not arrays:
            return
        for language in ["text"] * len(arrays) if languages is None else languages:
            self._language.append(self._languages.setdefault(language, len(self._languages)))
        # 1. the ids, end to end
        lengths = np.array([len(ids) for ids in arrays], dtype=np.int64)
        flat = np.concatenate(arrays)
        flat.astype(self._dtype).tofile(self._file)
        self._lengths.append(lengths)
        # 2. what lies in windows and what is a remainder too short for one
        counts = cuts(lengths, self._window)
        kept = np.minimum(lengths, counts * self._window)
        place = np.arange(len(flat)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        n_bytes = self._vocabulary.n_bytes[flat]
        self.windows += int(counts.sum())
        self.tokens += int(kept.sum())
        self.bytes += int(n_bytes[place < np.repeat(kept, lengths)].sum())
        self.all_tokens += len(flat)
        self.all_bytes += int(n_bytes.sum())

    def close(self) -> None:
        """Write the offsets and the facts beside the ids."""
        self._file.close()
        lengths = np.concatenate(self._lengths) if self._lengths else np.zeros(0, np.int64)
        np.save(self._folder / f"{self._split}.offsets.npy", np.concatenate([[0], np.cumsum(lengths)]))
        np.save(self._folder / f"{self._split}.languages.npy", np.array(self._language, dtype=np.uint16))
        facts = {"window": self._window, "dtype": self._dtype.name, "windows": self.windows, "tokens": self.tokens,
                 "bytes": self.bytes, "languages": list(self._languages), "smoothing": self._smoothing}
        (self._folder / f"{self._split}.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
