"""Windows over documents that lie end to end in one memory-mapped file of token ids."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from bothways.batch import Vocabulary, Window
from bothways.errors import BothwaysError

SHORTEST = 8
"""A window's fewest tokens: the rest of a document that is shorter than this is left out."""


Cut = Literal["tokens", "doc-sentences", "full-sentences", "turns"]
"""Where windows end: wherever they are full; at the last end of a sentence that fits, inside one document or going on
into the next (RoBERTa, arXiv 1907.11692, section 4.2); or with their document, which is then one window."""
CUTS: tuple[Cut, ...] = get_args(Cut)


def cuts(lengths: np.ndarray, window: int) -> np.ndarray:
    """How many windows each document gives: (documents,) int64 from (documents,) lengths in tokens."""
    full, rest = np.divmod(lengths, window)
    return np.asarray(full + (rest >= min(SHORTEST, window)), dtype=np.int64)


def sentence_cuts(ends: np.ndarray, length: int, window: int) -> np.ndarray:
    """Where windows of whole sentences end in a text, each with as many sentences as fit: (W,) int64, rising.

    A sentence that leaves the window before it fewer than 8 tokens, or is longer than a window, is cut where the
    window is full.

    Args:
        ends: (S,) places behind the ends of sentences, rising.
        length: of the text, in tokens; the last window ends there.
    """
    found, begin, least = [0], 0, min(SHORTEST, window)
    while length - begin > window:
        fits = int(np.searchsorted(ends, begin + window, side="right"))
        last = int(ends[fits - 1]) if fits else 0
        begin = last if last - begin >= least else begin + window
        found.append(begin)
    return np.array([*found[1:], length] if length > begin else found[1:], dtype=np.int64)


def shares_read(tokens: np.ndarray, smoothing: float) -> np.ndarray:
    """The share of each language's windows that a smoothed epoch reads: (languages,) float, 1 for the rarest.

    Language i, with a share p_i of the tokens, is to be read in proportion to p_i ** smoothing (Lample and Conneau
    2019, arXiv 1901.07291, section 3.1; PLBART, arXiv 2103.06333, with 0.3). An epoch in which no window comes twice
    then reads the rarest in full, and (p_rarest / p_i) ** (1 - smoothing) of another.
    """
    return np.asarray((tokens.min() / tokens) ** (1 - smoothing), dtype=np.float64)


class Windows:
    """The windows of one split: consecutive slices of at most `window` tokens, without overlap, ended as `cut` says.

    A document's last window may be shorter, down to 8 tokens. Nothing is held in memory but the offsets of windows
    and documents, and the languages.
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
        self.cut: Cut = facts.get("cut", "tokens")
        """Where windows end."""
        self._slices = None if self.cut == "tokens" else np.load(folder / f"{split}.windows.npy")
        if self._slices is None:
            counts = cuts(np.diff(self._offsets), self.window)
        else:
            counts = np.bincount(self._documents(self._slices[:, 0]), minlength=len(self._offsets) - 1)
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
        if self._slices is None:
            start = (index - int(self._first[document])) * self.window
            begin = int(self._offsets[document]) + start
            end = min(begin + self.window, int(self._offsets[document + 1]))
        else:
            begin, end = map(int, self._slices[index])
            start = begin - int(self._offsets[document])
        language = "" if self._language is None else self.languages[int(self._language[document])]
        ids = np.array(self._ids[begin:end], dtype=np.int64)
        return Window(ids, document, start, index, language, self.cut.endswith("sentences"))

    def __iter__(self) -> Iterator[Window]:
        return (self[index] for index in range(len(self)))

    @property
    def documents(self) -> int:
        """The number of documents."""
        return len(self._offsets) - 1

    def document(self, number: int) -> np.ndarray:
        """All ids of one document, `<bos>` and `<eos>` included: (L,) int64."""
        return np.array(self._ids[int(self._offsets[number]):int(self._offsets[number + 1])], dtype=np.int64)

    def _documents(self, places: np.ndarray) -> np.ndarray:
        """The document that each place of the file lies in."""
        return np.searchsorted(self._offsets, places, side="right") - 1

    def order(self, seed: int, epoch: int) -> np.ndarray:
        """The order in which an epoch reads the windows: (n,) int64, the same for the same seed and epoch.

        All windows, each once; with smoothing, a fresh random part of the windows of each common language.
        """
        rng = np.random.default_rng((seed, epoch))
        if self.smoothing == 1 or self._language is None or len(self.languages) < 2 or not len(self):
            return rng.permutation(len(self))
        # 1. the language of each window, and how much text each has in windows
        counts = np.diff(self._first)
        kept = (np.minimum(np.diff(self._offsets), counts * self.window) if self._slices is None else
                np.bincount(self._documents(self._slices[:, 0]), np.diff(self._slices)[:, 0], len(counts)))
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

    def __init__(self, folder: Path, split: str, window: int, vocabulary: Vocabulary, smoothing: float = 1.0,
                 cut: Cut = "tokens") -> None:
        self._cut = cut
        self._slices: list[np.ndarray] = []
        self._waiting = np.zeros(0, np.int64)
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
        self.all_tokens += len(flat)
        self.all_bytes += int(self._vocabulary.n_bytes[flat].sum())
        # 2. what lies in windows and what is a remainder too short for one
        if self._cut != "tokens":
            self._slice(arrays, flat)
            return
        counts = cuts(lengths, self._window)
        kept = np.minimum(lengths, counts * self._window)
        place = np.arange(len(flat)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        n_bytes = self._vocabulary.n_bytes[flat]
        self.windows += int(counts.sum())
        self.tokens += int(kept.sum())
        self.bytes += int(n_bytes[place < np.repeat(kept, lengths)].sum())

    def _slice(self, arrays: Sequence[np.ndarray], flat: np.ndarray) -> None:
        """Windows that end with sentences or documents."""
        if self._cut == "full-sentences":
            # the last window of a batch waits for the text that comes after it
            self._waiting = np.concatenate((self._waiting, flat))
            ends = self._sentences(self._waiting)
            self._keep(self._waiting, ends[:-1])
            self._waiting = self._waiting[int(ends[-2]) if len(ends) > 1 else 0:]
            return
        first = self.all_tokens - len(flat)
        for ids in arrays:
            ends = np.array([len(ids)]) if self._cut == "turns" else self._sentences(ids)
            self._keep(ids, ends, first)
            first += len(ids)

    def _sentences(self, ids: np.ndarray) -> np.ndarray:
        """Where windows of whole sentences end in these ids; a document's `<eos>` ends a sentence."""
        vocabulary = self._vocabulary
        ends = vocabulary.ends_sentence[ids]
        closed = ids == vocabulary.eos
        # the <eos> behind a sentence belongs to it
        ends[:-1] &= ~closed[1:]
        return sentence_cuts(np.flatnonzero(ends | closed) + 1, len(ids), self._window)

    def _keep(self, ids: np.ndarray, ends: np.ndarray, first: int | None = None) -> None:
        """Windows of these ids that end there, those of at least 8 tokens (of any length where a document is one).

        Args:
            first: place of `ids` in the file; the last ids of the file when none.
        """
        if not len(ends):
            return
        first = self.all_tokens - len(ids) if first is None else first
        slices = np.stack((np.concatenate(([0], ends[:-1])), ends), axis=1)[:len(ends)].astype(np.int64)
        slices = slices[np.diff(slices)[:, 0] >= (1 if self._cut == "turns" else min(SHORTEST, self._window))]
        read = np.concatenate(([0], np.cumsum(self._vocabulary.n_bytes[ids])))
        self._slices.append(slices + first)
        self.windows += len(slices)
        self.tokens += int(np.diff(slices).sum())
        self.bytes += int((read[slices[:, 1]] - read[slices[:, 0]]).sum())

    def close(self) -> None:
        """Write the offsets and the facts beside the ids."""
        self._file.close()
        if len(self._waiting):
            self._keep(self._waiting, np.array([len(self._waiting)]))
            self._waiting = self._waiting[:0]
        if self._cut != "tokens":
            slices = np.concatenate(self._slices) if self._slices else np.zeros((0, 2), np.int64)
            np.save(self._folder / f"{self._split}.windows.npy", slices)
        lengths = np.concatenate(self._lengths) if self._lengths else np.zeros(0, np.int64)
        np.save(self._folder / f"{self._split}.offsets.npy", np.concatenate([[0], np.cumsum(lengths)]))
        np.save(self._folder / f"{self._split}.languages.npy", np.array(self._language, dtype=np.uint16))
        facts = {"window": self._window, "dtype": self._dtype.name, "windows": self.windows, "tokens": self.tokens,
                 "bytes": self.bytes, "languages": list(self._languages), "smoothing": self._smoothing,
                 "cut": self._cut}
        (self._folder / f"{self._split}.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
