"""Documents from wherever text lies, one at a time: a source is never held in memory.

A source is a file (`.txt`, `.md` or any text; `.jsonl`, `.csv`, `.tsv`, `.parquet`; each also as `.gz`), a folder,
a glob, `-` for standard input, `hf:NAME` for a data set of `datasets`, `python-library`, or a list of these.
"""

from __future__ import annotations

import difflib
import glob
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from bothways.errors import BothwaysError
from bothways.text.files import chunks, looks_like_text
from bothways.text.records import kind_of, pick, sound_records, text_of
from bothways.text.turns import Turn, turns_of

Source = str | Path | Sequence["str | Path"]

PYTHON_LIBRARY = "python-library"
PYTHON_FUNCTIONS = "python-functions"
"""Functions of the library, each with the first line of its documentation: text, or turns of a question and answer."""
TEXT_FIELDS = ("text", "content", "document", "body", "sentence", "article", "review", "message", "question")
"""The fields looked for, in this order, when none is named."""

LANGUAGES = {
    "c": "c", "h": "c", "cc": "c++", "cpp": "c++", "hpp": "c++", "cs": "c#", "go": "go", "hs": "haskell",
    "java": "java", "jl": "julia", "js": "javascript", "kt": "kotlin", "lua": "lua", "php": "php", "pl": "perl",
    "py": "python", "pyi": "python", "r": "r", "rb": "ruby", "rs": "rust", "scala": "scala", "sh": "shell",
    "sql": "sql", "swift": "swift", "ts": "typescript",
}
"""What a file is written in, by the end of its name; any other is "text". A record may say it in its `language`."""

SHORT, LONG = 2_000, 32_000
"""Blocks of plain text are gathered to at least SHORT characters, and cut at a line after LONG of them."""

_BLANK = re.compile(r"\n[ \t]*\n")
_HEADING = re.compile(r"\n(?= ?= [^=\n]+ = ?\n)")


class Document(NamedTuple):
    """One text, the name of its source, its place there (such as `line 12`), and what it is written in.

    With `turns`, the text is what all sides said.
    """

    text: str
    name: str
    place: str
    language: str = "text"
    turns: tuple[Turn, ...] = ()


def read(source: Source, field: str | None = None) -> Iterator[Document]:
    """The documents of a source, streaming.

    Args:
        source: see this module's description.
        field: the field or column that holds the text; the first of TEXT_FIELDS there is, when none.
    Raises:
        BothwaysError: a missing, empty, binary or wrongly encoded file, a field that is not there, a line that is not
            JSON. Each names the file, and the line or byte.
    """
    if isinstance(source, (list, tuple)):
        for part in source:
            yield from read(part, field)
        return
    name = str(source)
    if name == PYTHON_LIBRARY:
        from bothways.text.library import documents
        yield from documents()
    elif name == PYTHON_FUNCTIONS:
        yield from read_turns(name)
    elif name.startswith("hf:"):
        yield from _read_dataset(name.removeprefix("hf:"), field)
    else:
        for path in files(name):
            yield from _read_file(path, field)


def read_turns(source: Source) -> Iterator[Document]:
    """The conversations of a source, streaming: JSON lines, CSV, `hf:NAME`, `python-functions`, or a list of these.

    Raises:
        BothwaysError: as `read`, a kind of file without records, a record without turns (see `turns.turns_of`).
    """
    if isinstance(source, (list, tuple)):
        for part in source:
            yield from read_turns(part)
        return
    name = str(source)
    if name == PYTHON_FUNCTIONS:
        from bothways.text.library import functions
        for number, (bare, line) in enumerate(functions(aside=False)):
            if len(bare) <= LONGEST_FUNCTION:
                yield _conversation((Turn(bare, False), Turn(line, True)), name, f"function {number}", "python")
    elif name.startswith("hf:"):
        for place, row in _rows(name.removeprefix("hf:")):
            yield _conversation(turns_of(row, f"{name} {place}"), name, place, _language(row))
    else:
        for path in files(name):
            kind = kind_of(path)
            if kind not in ("jsonl", "ndjson", "csv", "tsv"):
                raise BothwaysError(f"'{path}' holds no turns: name JSON lines (or CSV) whose records have messages "
                                    "or a question and an answer, or cut the text in another way")
            for line, record in sound_records(path):
                turns = turns_of(record, f"{path}:{line}")
                yield _conversation(turns, str(path), f"line {line}", _language(record))


LONGEST_FUNCTION = 600
"""Characters of a function in `python-functions`, so that one fits into a window with what is said about it."""


def _conversation(turns: tuple[Turn, ...], name: str, place: str, language: str) -> Document:
    return Document("\n".join(turn.text for turn in turns), name, place, language, turns)


def files(source: str | Path) -> list[Path]:
    """The files a file name, folder or glob stands for, in order of name (`-` stands for itself).

    Raises:
        BothwaysError: there are none.
    """
    path = Path(source).expanduser()
    if str(source) == "-" or path.is_file():
        return [path]
    if path.is_dir():
        hidden = lambda found: any(part.startswith(".") for part in found.relative_to(path).parts)  # noqa: E731
        found = [file for file in sorted(path.rglob("*")) if file.is_file() and not hidden(file)]
        readable = [file for file in found if looks_like_text(file)]
        if not readable:
            raise BothwaysError(f"no text file in the folder '{path}' ({len(found)} other files)")
        return readable
    if glob.has_magic(str(source)):
        matches = [Path(match) for match in sorted(glob.glob(str(path), recursive=True)) if Path(match).is_file()]
        if not matches:
            raise BothwaysError(f"no file matches '{source}'")
        return matches
    neighbours = [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []
    close = difflib.get_close_matches(path.name, [*neighbours, PYTHON_LIBRARY], n=1)
    raise BothwaysError(f"no file or folder '{source}'" + (f" (did you mean '{close[0]}'?)" if close else ""))


def _read_file(path: Path, field: str | None) -> Iterator[Document]:
    """One file by the kind its name tells."""
    kind = kind_of(path)
    if kind == "parquet":
        yield from _read_parquet(path, field)
        return
    if kind not in ("jsonl", "ndjson", "csv", "tsv"):
        yield from _read_text(path)
        return
    column = field
    for place, record in sound_records(path):
        column = column or pick(record, None, TEXT_FIELDS, str(path))
        yield Document(text_of(record, column, f"{path}:{place}"), str(path), f"line {place}", _language(record))


def _language(record: Mapping[str, object]) -> str:
    """What a record says it is written in."""
    told = record.get("language")
    return told.strip().lower() if isinstance(told, str) and told.strip() else "text"


# --- plain text ---

def _read_text(path: Path) -> Iterator[Document]:
    """Blocks between blank lines, gathered; a blank line before a `= title =` begins a new document at once."""
    name = "standard input" if str(path) == "-" else str(path)
    language = LANGUAGES.get(kind_of(path), "text")
    number = 0
    for number, text in enumerate(_blocks(chunks(path)), start=1):
        yield Document(text, name, f"document {number}", language)
    if number == 0:
        raise BothwaysError(f"'{name}' is empty: name a file that holds text")


def _blocks(pieces: Iterable[str]) -> Iterator[str]:
    buffer = ""
    for piece in pieces:
        buffer += piece
        start = 0
        # what remains must hold a whole document and the boundary after it
        while len(buffer) - start > 2 * LONG:
            end = _boundary(buffer, start)
            text, start = buffer[start:end].strip("\n"), end
            if text.strip():
                yield text
        buffer = buffer[start:]
    start = 0
    while start < len(buffer):
        end = _boundary(buffer, start)
        text, start = buffer[start:end].strip("\n"), end
        if text.strip():
            yield text


def _boundary(buffer: str, start: int) -> int:
    """Where the document that begins at `start` ends: a heading, a blank line, a line end, a space, or the limit."""
    limit = start + LONG
    heading = _HEADING.search(buffer, start + 1, limit)
    blank = _BLANK.search(buffer, start + SHORT, limit)
    ends = [match.end() for match in (heading, blank) if match]
    if ends:
        return min(ends)
    if len(buffer) <= limit:
        return len(buffer)
    for separator in ("\n", ". ", " "):
        found = buffer.rfind(separator, start + LONG // 2, limit)
        if found >= 0:
            return found + len(separator)
    return limit


# --- other people's formats ---

def _read_parquet(path: Path, field: str | None) -> Iterator[Document]:
    """Row groups of one column, a thousand rows at a time."""
    import pyarrow
    import pyarrow.parquet

    if path.stat().st_size == 0:
        raise BothwaysError(f"'{path}' is empty: name a file that holds text")
    try:
        table = pyarrow.parquet.ParquetFile(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise BothwaysError(f"'{path}' is not a Parquet file ({str(error).splitlines()[0]})") from None
    with table:
        column = pick(table.schema_arrow.names, field, TEXT_FIELDS, str(path), "column")
        row = 0
        for batch in table.iter_batches(batch_size=1000, columns=[column]):
            for value in batch.column(0).to_pylist():
                row += 1
                if not isinstance(value, str):
                    raise BothwaysError(f"{path}: row {row} of column '{column}' holds {type(value).__name__}, "
                                        "and text is wanted")
                yield Document(value, str(path), f"row {row}")


def _read_dataset(name: str, field: str | None) -> Iterator[Document]:
    """`hf:NAME`, `hf:NAME:CONFIG` or either with `@SPLIT` (train when none), streamed."""
    column = field
    for place, row in _rows(name):
        column = column or pick(row, None, TEXT_FIELDS, f"hf:{name}")
        yield Document(text_of(row, column, f"hf:{name} {place}"), f"hf:{name}", place, _language(row))


def _rows(name: str) -> Iterator[tuple[str, Mapping[str, object]]]:
    """(place, row) of a data set of `datasets`, streamed."""
    import datasets

    path, _, split = name.partition("@")
    path, _, config = path.partition(":")
    try:
        rows = datasets.load_dataset(path, config or None, split=split or "train", streaming=True)
        yield from ((f"row {number}", row) for number, row in enumerate(rows))
    except BothwaysError:
        raise
    except Exception as error:  # whatever a hub, a cache or a script raises
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise BothwaysError(f"the data set '{name}' could not be read ({reason}): "
                            "check its name, or the network") from None
