"""Records of CSV, TSV, JSON-lines, JSON and CoNLL files (also `.gz`), one at a time; a damaged one costs its line."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from bothways.errors import BothwaysError, nearest
from bothways.text.files import lines

Record = Mapping[str, object]
UNCLOSED = "a quotation mark is opened and never closed: close it, or double those within a text"
LOOKAHEAD = 1000
"""Lines that one row of a CSV file may go over; a quotation mark that is open for longer was never closed."""


def kind_of(path: Path) -> str:
    """The file's kind by its name, `.gz` aside: `txt`, `jsonl`, `csv`, ..."""
    name = path.name.lower().removesuffix(".gz")
    return name.rpartition(".")[2] if "." in name else "txt"


def records(path: Path) -> Iterator[tuple[int, Record | str]]:
    """(line number, record, or what is wrong with it as a phrase) of every row that is not blank.

    Raises:
        BothwaysError: a file that is missing, empty, not UTF-8 or of another kind.
    """
    if path.is_dir():
        raise BothwaysError(f"'{path}' is a folder, and a file is wanted here")
    kind = kind_of(path)
    if kind in ("csv", "tsv"):
        return _csv(path, "\t" if kind == "tsv" else ",")
    if kind in ("jsonl", "ndjson"):
        return _json(path)
    if kind in ("conll", "bio", "iob"):
        return _conll(path)
    if kind == "json":
        return _whole_json(path)
    raise BothwaysError(f"'{path}': records are read from .csv, .tsv, .jsonl, .json or .conll files (also .gz)")


def sound_records(path: Path) -> Iterator[tuple[str, Record]]:
    """(line number, record) where every row must be sound.

    Raises:
        BothwaysError: as `records`, and a damaged row, with its line.
    """
    for line, record in records(path):
        if isinstance(record, str):
            raise BothwaysError(f"{path}:{line}: {record}")
        yield str(line), record


def json_records(path: Path) -> Iterator[tuple[str, Record]]:
    """`sound_records` of a file of JSON lines, whatever its name."""
    for line, record in _json(path):
        if isinstance(record, str):
            raise BothwaysError(f"{path}:{line}: {record}")
        yield str(line), record


def _json(path: Path) -> Iterator[tuple[int, Record | str]]:
    number = 0
    for number, line in enumerate(lines(path), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:
            reason = f"{error.msg} at column {error.colno}" if isinstance(error, json.JSONDecodeError) else "too deep"
            yield number, f"not JSON ({reason}): mend the line"
            continue
        yield number, record if isinstance(record, dict) else (
            f"a JSON object with named fields is wanted, not {type(record).__name__}")
    if number == 0:
        raise BothwaysError(f"'{path}' is empty: name a file that holds text")


def _conll(path: Path) -> Iterator[tuple[int, Record | str]]:
    """Sentences of a CoNLL file: a word a line, its tag in the last column, a blank line between sentences.

    Columns are parted by tabs, or by spaces where a line has no tab. Each sentence is a record of `tokens` and `tags`
    (no tags where no line has any), with the number of its first line. Lines `-DOCSTART-` are no words.
    """
    number, first = 0, 0
    words: list[str] = []
    tags: list[str | None] = []

    def sentence() -> Record | str:
        if all(tag is None for tag in tags):
            return {"tokens": list(words)}
        if None in tags:
            return f"the word in line {first + tags.index(None)} has no tag"
        return {"tokens": list(words), "tags": list(tags)}

    for number, line in enumerate(lines(path), start=1):
        line = line.rstrip("\r\n")
        if line.strip() and not line.startswith("-DOCSTART-"):
            cells = [cell.strip() for cell in line.split("\t")] if "\t" in line else line.split()
            first = first if words else number
            words.append(cells[0])
            tags.append(cells[-1] if len(cells) > 1 and cells[-1] else None)
        elif words:
            yield first, sentence()
            words, tags = [], []
    if words:
        yield first, sentence()
    if number == 0:
        raise BothwaysError(f"'{path}' is empty: name a file that holds text")


def _whole_json(path: Path) -> Iterator[tuple[int, Record | str]]:
    """Records of one JSON document, counted from 1: a list of objects, or SQuAD's nested layout, a record a question.

    SQuAD's (arXiv 1606.05250) is {"data": [{"paragraphs": [{"context", "qas": [{"id", "question", "answers"}]}]}]}.
    """
    try:
        data = json.loads("".join(lines(path)))
    except (json.JSONDecodeError, RecursionError) as error:
        raise BothwaysError(f"'{path}' is no JSON document ({error}): mend it, or name it .jsonl if every line is a "
                            "record") from None
    data = data.get("data") if isinstance(data, dict) else data
    if not isinstance(data, list) or not data:
        raise BothwaysError(f"'{path}' holds no list of records, and none under 'data'")
    number = 0
    for entry in data:
        if not (isinstance(entry, dict) and isinstance(entry.get("paragraphs"), list)):
            number += 1
            yield number, entry if isinstance(entry, dict) else (
                f"an object with named fields is wanted, not {type(entry).__name__}")
            continue
        for paragraph in entry["paragraphs"]:
            sound = isinstance(paragraph, dict) and isinstance(paragraph.get("qas"), list)
            for question in paragraph["qas"] if sound else [None]:
                number += 1
                yield number, {"context": paragraph.get("context"), **question} if isinstance(question, dict) else (
                    "a paragraph without a list 'qas' of questions")


def _csv(path: Path, delimiter: str) -> Iterator[tuple[int, Record | str]]:
    """Rows under the names of the first line.

    Where that line is one name with semicolons or tabs in it, these part the columns: so tables are saved where the
    comma is a decimal point. A row goes on over as many lines as its quotation marks ask for. One that is never closed
    is a fault of the line it stands in: reading goes on with the next line.
    """
    csv.field_size_limit(1 << 30)
    source, ahead, number = lines(path), list[str](), 0
    header: list[str] | None = None

    def following(place: int) -> str | None:
        while len(ahead) <= place:
            line = next(source, None)
            if line is None:
                return None
            ahead.append(line)
        return ahead[place]

    while following(0) is not None:
        found, taken = _row(following, delimiter)
        del ahead[:taken]
        number += taken
        first = number - taken + 1
        if isinstance(found, str):
            if header is None:
                raise BothwaysError(f"{path}:{first}: {found}")
            yield first, found
        elif not found:
            continue
        elif header is None:
            other = next((mark for mark in ";\t" if len(found) == 1 and mark in found[0]), None)
            header, delimiter = (found, delimiter) if other is None else (found[0].split(other), other)
            if twice := [name for place, name in enumerate(header) if name in header[:place]]:
                raise BothwaysError(f"{path}:{first}: two columns are called '{twice[0]}': rename one of them")
        elif len(found) != len(header):
            yield first, f"{len(found)} columns, and the first line names {len(header)}"
        else:
            yield first, dict(zip(header, found, strict=True))
    if header is None:
        raise BothwaysError(f"'{path}' is empty: name a file that holds text")


def _row(following: Callable[[int], str | None], delimiter: str) -> tuple[list[str] | str, int]:
    """The cells of the row that begins with `following(0)`, or what is wrong with it; and how many lines it took."""
    parts: list[str] = []
    while len(parts) < LOOKAHEAD and (line := following(len(parts))) is not None:
        parts.append(line)
        if len(parts) > 1 and '"' not in line:
            continue  # no line without a mark can close one
        try:
            return next(csv.reader(parts, delimiter=delimiter, strict=True), []), len(parts)
        except csv.Error as error:
            if "unexpected end" not in str(error):
                # later lines only show that the first one's mark was not closed where it was meant to be
                return f"not {'TSV' if delimiter != ',' else 'CSV'} ({error})" if len(parts) == 1 else UNCLOSED, 1
    return UNCLOSED, 1


def pick(record: Iterable[str], wanted: str | None, usual: Sequence[str], where: str, what: str = "field") -> str:
    """The field to read: the one wanted, or the first of the usual ones (case aside).

    Raises:
        BothwaysError: it is not there; the sentence lists the fields there are.
    """
    names = list(record)
    if wanted is not None:
        if wanted in names:
            return wanted
        raise BothwaysError(f"{where}: no {what} '{wanted}' {nearest(wanted, names)}")
    lower = {name.lower().strip(): name for name in reversed(names)}
    for name in usual:
        if name in lower:
            return lower[name]
    if len(names) == 1 and what == "field":
        return names[0]
    raise BothwaysError(f"{where}: none of the usual {what}s ({', '.join(usual)}) is there, "
                        f"so name the {what} to read; there are: {', '.join(names)}")


def text_of(record: Record, field: str, where: str) -> str:
    """The text in one field of a record; a complaint names the place."""
    if field not in record:
        raise BothwaysError(f"{where}: no field '{field}' {nearest(field, record)}")
    value = record[field]
    if not isinstance(value, str):
        raise BothwaysError(f"{where}: field '{field}' holds {type(value).__name__}, and text is wanted")
    return value
