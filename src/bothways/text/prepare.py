"""A source into a folder of windows: split by document, duplicates removed, tokens on disk.

Two passes over the source, both streaming. The first surveys: a digest of every document, and a bounded, even sample
to train the tokenizer on. Digests alone decide what is a duplicate and what is held out, so the second pass only
encodes and appends. Memory holds 16 bytes and a few flags a document, however long the documents are.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import json
import os
import platform
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

import numpy as np

from bothways.errors import BothwaysError, nearest
from bothways.text.corpora import PYTHON_FUNCTIONS, PYTHON_LIBRARY, Document, Source, files, read, read_turns
from bothways.text.tokenizer import Tokenizer, TokenizerConfig
from bothways.text.turns import pieces
from bothways.text.windows import CUTS, SHORTEST, Cut, Windows, WindowWriter

FORMAT = 1
SAMPLE_BYTES = 20_000_000
"""About as much text as a tokenizer is trained on."""
BATCH_CHARACTERS = 1_000_000
SPLITS = ("train", "valid")


@dataclass(frozen=True)
class Prepared:
    """A corpus ready to train on: its tokenizer, the windows of both splits, and what was found."""

    folder: Path
    tokenizer: Tokenizer
    train: Windows
    valid: Windows
    report: dict[str, object]

    @classmethod
    def load(cls, folder: str | Path, tokenizer: Tokenizer | None = None) -> Prepared:
        """What `prepare` left in a folder; the tokenizer is read from there, unless it is given.

        Raises:
            BothwaysError: nothing was prepared there, or by another version.
        """
        folder = Path(folder)
        facts = _facts(folder)
        if facts is None:
            raise BothwaysError(f"'{folder}' holds no prepared corpus: call prepare on it first")
        if facts["format"] != FORMAT:
            raise BothwaysError(f"'{folder}' was prepared by another version of bothways (format {facts['format']}, "
                                f"not {FORMAT}): prepare it again")
        return cls(folder, tokenizer or Tokenizer.load(folder), Windows(folder, "train"), Windows(folder, "valid"),
                   cast("dict[str, object]", facts["report"]))


def prepare(source: Source, folder: str | Path, *, tokenizer: Tokenizer | TokenizerConfig, window: int = 128,
            held_out: float = 0.05, seed: int = 0, field: str | None = None,
            limit_bytes: int | None = None, smoothing: float = 1.0, cut: Cut = "tokens") -> Prepared:
    """Read a source, remove exact duplicates, split by document, tokenise, and cut into windows.

    Called again with the same source (names, sizes and times of its files) and choices, it reuses the folder.

    Args:
        source: what `corpora.read` takes.
        folder: where to write; written aside and renamed, so it is whole or not there.
        tokenizer: one to use, or how to train one, on documents that are not held out.
        window: tokens in a window.
        held_out: share of the documents in the `valid` split, chosen by their content and `seed`; at least one.
        field: the field of records that holds the text.
        limit_bytes: stop reading after this much text.
        smoothing: training reads each language (a file's by its name, a record's by its field `language`) in
            proportion to its share of the tokens to this power: 1 as they are, 0 all equally.
        cut: "tokens" cuts windows wherever they are full; "doc-sentences" behind the last sentence that fits, inside a
            document; "full-sentences" likewise, but a window goes on into the next document behind `<eos> <bos>`
            (RoBERTa, arXiv 1907.11692, section 4.2). "turns" reads records of questions and answers (`text.turns`),
            each one window, and refuses one that is longer.
    Raises:
        BothwaysError: whatever `read` complains of, a corpus shorter than one window, a full disk.
    """
    if window < SHORTEST or not 0 < held_out < 1:
        raise BothwaysError(f"a window needs at least {SHORTEST} tokens and held_out lies between 0 and 1, "
                            f"not window={window} and held_out={held_out}")
    if not 0 <= smoothing <= 1:
        raise BothwaysError(f"smoothing is {smoothing}, but lies between 0 (all languages equally) and 1 (as they are)")
    if cut not in CUTS:
        raise BothwaysError(f"cut is '{cut}' {nearest(str(cut), CUTS)}")
    if cut == "turns" and field is not None:
        raise BothwaysError(f"field '{field}' names where text stands, but cut 'turns' finds questions and answers by "
                            "the names of their fields: leave field out")
    folder = Path(folder)
    key = _key(source, tokenizer, window, held_out, seed, field, limit_bytes, smoothing, cut)
    given = None if isinstance(tokenizer, TokenizerConfig) else tokenizer
    if key is not None and _is_current(folder, key):
        return Prepared.load(folder, given)
    with building(folder) as aside:
        with _rereadable(source, aside) as again:
            def documents() -> Iterator[Document]:
                return _limited(read_turns(again) if cut == "turns" else read(again, field), limit_bytes)
            survey = _survey(documents(), held_out, seed,
                             SAMPLE_BYTES if given is None else 0)
            if isinstance(tokenizer, TokenizerConfig):
                tokenizer = Tokenizer.train(survey.sample, tokenizer.kind, tokenizer.size,
                                            sentinels=tokenizer.sentinels(window))
            report = _write(documents(), survey, aside, tokenizer, window, smoothing, cut)
        tokens, name = cast(int, report["train_tokens"]), _name(source)
        if (tokens < window and cut != "turns") or not report["valid_tokens"]:
            raise BothwaysError(f"{name} is shorter than one window: {tokens} tokens to train on and "
                                f"{report['valid_tokens']} held out, and a window is {window}; add text or ask for "
                                "shorter windows")
        finish(aside, tokenizer, key, {"source": name, **report})
    return Prepared.load(folder, given)


# --- the first pass ---

@dataclass(frozen=True)
class _Survey:
    """For every document in reading order: is it kept (first of its kind, not empty), and is it held out?

    A corpus that is one single document is `halved`: its end is held out.
    """

    kept: np.ndarray
    held: np.ndarray
    duplicates: int
    halved: bool
    sample: list[str]


def _survey(documents: Iterator[Document], held_out: float, seed: int, sample_bytes: int) -> _Survey:
    digests = bytearray()
    sample: list[tuple[int, str]] = []
    stride, gathered = 1, 0
    salt = seed.to_bytes(8, "little", signed=True)
    # 1. a digest each, and an even sample: whenever it grows too long, every other document of it goes
    for number, document in enumerate(documents):
        raw = document.text.strip().encode("utf-8", errors="surrogatepass")
        digests += hashlib.blake2b(raw, digest_size=16, key=salt).digest() if raw else b"\0" * 16
        if sample_bytes and number % stride == 0:
            sample.append((number, document.text))
            gathered += len(raw)
            while gathered > sample_bytes and len(sample) > 1:
                stride *= 2
                sample = [(place, text) for place, text in sample if place % stride == 0]
                gathered = sum(len(text.encode("utf-8", errors="surrogatepass")) for _, text in sample)
    # 2. first appearances
    pairs = np.frombuffer(digests, dtype="<u8").reshape(-1, 2)
    filled = pairs.any(axis=1)
    by_digest = np.lexsort((pairs[:, 1], pairs[:, 0]))
    ordered = pairs[by_digest]
    fresh = np.ones(len(pairs), bool)
    fresh[by_digest[1:]] = (ordered[1:] != ordered[:-1]).any(axis=1)  # lexsort is stable: the first one stays
    kept = fresh & filled
    # 3. the smallest digests are held out, and at least one; one single document is cut in two instead
    share = pairs[:, 0].astype(np.float64) / 2.0**64
    unique = int(kept.sum())
    threshold = held_out if unique < 2 else max(held_out, float(np.min(share[kept])))
    held = kept & (share <= threshold) if unique > 1 else np.zeros(len(pairs), bool)
    if unique > 1 and bool((held == kept).all()):
        held[np.flatnonzero(held)[0]] = False
    return _Survey(kept, held, int(filled.sum()) - unique, unique == 1,
                   [text for number, text in sample if kept[number] and not held[number]])


# --- the second pass ---

def _write(documents: Iterator[Document], survey: _Survey, folder: Path, tokenizer: Tokenizer, window: int,
           smoothing: float, cut: Cut) -> dict[str, object]:
    """Encode and append what the survey keeps; what was found, as the report. Held-out text is read as it is."""
    if cut.endswith("sentences") and not tokenizer.vocabulary.ends_sentence.any():
        raise BothwaysError(f"cut '{cut}' ends windows with sentences, and this tokenizer has no token that ends one "
                            "(. ! or ?): cut by tokens")
    if cut == "turns" and survey.halved:
        raise BothwaysError("there is one conversation, and one has to be held out: add records")
    writers = {split: WindowWriter(folder, split, window, tokenizer.vocabulary, smoothing if split == "train" else 1.0,
                                   cut) for split in SPLITS}
    long: list[tuple[int, str]] = []
    counts = dict.fromkeys(SPLITS, 0)
    try:
        seen = 0
        batch: list[tuple[str, Document]] = []
        characters = 0
        for seen, document in enumerate(documents, start=1):
            if seen > len(survey.kept):
                break
            if not survey.kept[seen - 1]:
                continue
            text = document.text.strip()
            parts = _halves(text) if survey.halved else [("valid" if survey.held[seen - 1] else "train", text)]
            batch += [(split, document._replace(text=part)) for split, part in parts]
            characters += len(text)
            if characters >= BATCH_CHARACTERS:
                long += _append(batch, writers, counts, tokenizer, window)
                batch, characters = [], 0
        long += _append(batch, writers, counts, tokenizer, window)
        if seen != len(survey.kept):
            raise BothwaysError("the source changed while it was being read: call again when it is at rest")
        if long and cut == "turns":
            longest, where = max(long)
            raise BothwaysError(f"{where} has {longest} tokens with its marks, the longest of {len(long)} that are "
                                f"longer than a window of {window}: set the window to {longest}, or shorten them")
    finally:
        for writer in writers.values():
            writer.close()
    return _report(writers, counts, survey.duplicates, window, tokenizer)


def _append(batch: list[tuple[str, Document]], writers: dict[str, WindowWriter], counts: dict[str, int],
            tokenizer: Tokenizer, window: int) -> list[tuple[int, str]]:
    """Texts to `<bos> ids <eos>`, or turns with their marks, each to its split; (length, place) of those that are
    longer than a window. Reserved names in a corpus are plain text, but for thoughts in answers."""
    vocabulary = tokenizer.vocabulary
    made = [pieces(one.turns, vocabulary) if one.turns else [vocabulary.bos, one.text, vocabulary.eos]
            for _, one in batch]
    encoded = iter(tokenizer.encode_batch([part for parts in made for part in parts if isinstance(part, str)],
                                          reserved=False))
    ids = [np.array(list(itertools.chain.from_iterable([part] if isinstance(part, int) else next(encoded)
                                                       for part in parts))) for parts in made]
    for split in SPLITS:
        own = [where == split for where, _ in batch]
        chosen = list(itertools.compress(ids, own))
        writers[split].add(chosen, [one.language for _, one in itertools.compress(batch, own)])
        counts[split] += len(chosen)
    return [(len(one), f"{document.name} {document.place}") for one, (_, document) in zip(ids, batch, strict=True)
            if len(one) > window]


def _halves(text: str) -> list[tuple[str, str]]:
    """The only document there is: its last fifth is held out."""
    place = text.rfind(" ", 0, max(1, len(text) * 4 // 5)) + 1 or len(text) * 4 // 5
    return [("train", text[:place]), ("valid", text[place:])]


def _report(writers: dict[str, WindowWriter], counts: dict[str, int], duplicates: int, window: int,
            tokenizer: Tokenizer) -> dict[str, object]:
    """The facts a user asks for first. Packed rows hold no padding; padded windows would be filled less."""
    report: dict[str, object] = {"window": window, "vocabulary": tokenizer.size, "tokenizer": tokenizer.kind,
                                 "documents": sum(counts.values()), "duplicates_removed": duplicates}
    for split, writer in writers.items():
        report |= {f"{split}_documents": counts[split], f"{split}_windows": writer.windows,
                   f"{split}_tokens": writer.tokens, f"{split}_bytes": writer.bytes}
    both = list(writers.values())
    kept, every, windows = (sum(getattr(w, name) for w in both) for name in ("tokens", "all_tokens", "windows"))
    text, documents = sum(w.all_bytes for w in both), sum(counts.values())
    report |= {"tokens": kept, "bytes": text,
               "bytes_per_token": round(text / max(1, every - 2 * documents), 4),
               "packing_efficiency": round(kept / max(1, every), 4),
               "padded_efficiency": round(kept / max(1, windows * window), 4)}
    return report


# --- folders that are whole or not there ---

@contextlib.contextmanager
def building(folder: Path) -> Iterator[Path]:
    """A folder to write aside; renamed to `folder` when all went well, deleted when not.

    Raises:
        BothwaysError: `folder` holds something that is no prepared corpus, or the disk is full.
    """
    if folder.exists() and _facts(folder) is None and (not folder.is_dir() or any(folder.iterdir())):
        raise BothwaysError(f"'{folder}' holds something else than a prepared corpus: name another folder")
    aside = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    try:
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        yield aside
        if folder.exists():
            old = folder.with_name(f".{folder.name}.{os.getpid()}.old")
            os.replace(folder, old)
            os.replace(aside, folder)
            shutil.rmtree(old, ignore_errors=True)
        else:
            os.replace(aside, folder)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise BothwaysError(f"the disk filled up while '{folder}' was being written: make room and call again",
                                exit_code=1) from None
        raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def finish(aside: Path, tokenizer: Tokenizer, key: str | None, report: dict[str, object]) -> None:
    """The last files of a prepared folder: its tokenizer, and `prepared.json`, which makes it one."""
    tokenizer.save(aside)
    facts = {"format": FORMAT, "key": key, "report": report}
    (aside / "prepared.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


def _facts(folder: Path) -> dict[str, object] | None:
    """What `prepared.json` says, or none where there is no such file."""
    try:
        facts = json.loads((folder / "prepared.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return facts if isinstance(facts, dict) and {"format", "key", "report"} <= set(facts) else None


def _is_current(folder: Path, key: str) -> bool:
    facts = _facts(folder)
    return facts is not None and facts["key"] == key and facts["format"] == FORMAT


# --- sources ---

def _key(source: Source, tokenizer: Tokenizer | TokenizerConfig, window: int, held_out: float, seed: int,
         field: str | None, limit_bytes: int | None, smoothing: float, cut: Cut) -> str | None:
    """Everything the result depends on, as a digest; none for a source whose state cannot be known (a stream)."""
    states: list[object] = []
    for part in source if isinstance(source, (list, tuple)) else [source]:
        name = str(part)
        if name == "-" or name.startswith("hf:"):
            return None
        if name in (PYTHON_LIBRARY, PYTHON_FUNCTIONS):
            states.append([name, platform.python_version(), platform.system()])
        else:
            stats = [(str(path), path.stat()) for path in files(name)]
            states.append([[path, stat.st_size, stat.st_mtime_ns] for path, stat in stats])
    chosen = asdict(tokenizer) if isinstance(tokenizer, TokenizerConfig) else tokenizer.fingerprint
    everything = [FORMAT, "languages", states, chosen, window, held_out, seed, field, limit_bytes, smoothing,
                  *([] if cut == "tokens" else [cut])]
    return hashlib.sha256(json.dumps(everything).encode()).hexdigest()[:32]


@contextlib.contextmanager
def _rereadable(source: Source, folder: Path) -> Iterator[Source]:
    """The source itself, but standard input kept in a file for as long as it is read twice."""
    parts = list(source) if isinstance(source, (list, tuple)) else [source]
    if "-" not in [str(part) for part in parts]:
        yield source
        return
    from bothways.text.files import chunks
    kept = folder / "standard-input.txt"
    with kept.open("w", encoding="utf-8") as stream:
        stream.writelines(chunks(Path("-")))
    try:
        if kept.stat().st_size == 0:
            raise BothwaysError("standard input is empty: send it text")
        yield [kept if str(part) == "-" else cast("str | Path", part) for part in parts]
    finally:
        kept.unlink()


def _limited(documents: Iterator[Document], limit_bytes: int | None) -> Iterator[Document]:
    """Documents until `limit_bytes` of text were read."""
    total = 0
    for document in documents:
        yield document
        total += len(document.text.encode("utf-8", errors="surrogatepass")) if limit_bytes else 0
        if limit_bytes is not None and total >= limit_bytes:
            return


def _name(source: Source) -> str:
    """A source in words."""
    return ", ".join(map(str, source)) if isinstance(source, (list, tuple)) else str(source)
