"""Bytes of a file as checked text, a bounded piece at a time: every complaint names the file and the byte."""

from __future__ import annotations

import codecs
import gzip
import os
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

from bothways.errors import BothwaysError

CHUNK = 1 << 20


def open_bytes(path: Path) -> BinaryIO:
    """The file's bytes, unpacked when its name ends in `.gz`.

    Raises:
        BothwaysError: missing, a folder, not readable, or empty.
    """
    try:
        if path.is_dir():
            raise BothwaysError(f"'{path}' is a folder, and a file is wanted here")
        if path.stat().st_size == 0:
            raise BothwaysError(f"'{path}' is empty: name a file that holds text")
        return cast(BinaryIO, gzip.open(path, "rb")) if path.suffix == ".gz" else path.open("rb")
    except FileNotFoundError:
        raise BothwaysError(f"no file '{path}': check the name") from None
    except PermissionError:
        raise BothwaysError(f"'{path}' may not be read: check its permissions") from None


def chunks(path: Path) -> Iterator[str]:
    """The text of a file in pieces of about a megabyte, line ends as `\\n`, without a byte-order mark.

    Raises:
        BothwaysError: binary (a NUL byte), not UTF-8 (naming the byte), or a damaged `.gz`.
    """
    if str(path) == "-":
        yield from _decoded(sys.stdin.buffer, "standard input")
        return
    with open_bytes(path) as stream:
        yield from _decoded(stream, str(path))


def lines(path: Path) -> Iterator[str]:
    """The lines of a file, each with its line end (but the last may have none)."""
    rest: list[str] = []
    for chunk in chunks(path):
        *whole, last = chunk.split("\n")
        if whole:
            yield "".join(rest) + whole[0] + "\n"
            yield from (line + "\n" for line in whole[1:])
            rest = []
        rest.append(last)
    if any(rest):
        yield "".join(rest)


def _decoded(stream: BinaryIO, name: str) -> Iterator[str]:
    """Strict UTF-8 of a stream; `consumed` is the number of bytes that were decoded before this chunk."""
    decoder = codecs.getincrementaldecoder("utf-8")("strict")
    consumed, pending_return, empty = 0, "", True
    while True:
        try:
            raw = stream.read(CHUNK)
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise BothwaysError(f"'{name}' is not a whole gzip file ({error}): fetch it again") from None
        if empty and raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            raise BothwaysError(f"'{name}' is UTF-16 from byte 0 on, and text must be UTF-8: convert it "
                                "(iconv -f utf-16 -t utf-8)")
        nul = raw.find(b"\0")
        if nul >= 0:
            raise BothwaysError(f"'{name}' is binary (a NUL at byte {consumed + nul}): name a text file")
        held = len(decoder.getstate()[0])
        try:
            text = decoder.decode(raw, final=not raw)
        except UnicodeDecodeError as error:
            raise BothwaysError(f"'{name}' is not UTF-8 at byte {consumed - held + error.start}: convert it "
                                "(iconv -f latin1 -t utf-8, if that is what it is)") from None
        if empty and raw:
            text, empty = text.removeprefix("\ufeff"), False
        consumed += len(raw)
        # a carriage return at the end of a chunk waits for the line feed that may follow
        text = pending_return + text
        pending_return = "\r" if text.endswith("\r") and raw else ""
        text = text.removesuffix("\r") if pending_return else text
        if text:
            yield text.replace("\r\n", "\n").replace("\r", "\n")
        if not raw:
            return


def looks_like_text(path: Path) -> bool:
    """Whether a file found in a folder is one to read: not hidden, not empty, no NUL and UTF-8 where it begins."""
    if path.name.startswith(".") or not os.access(path, os.R_OK) or path.stat().st_size == 0:
        return False
    if path.name.endswith(".parquet"):
        return True
    try:
        with open_bytes(path) as stream:
            head = stream.read(8192)
    except (OSError, EOFError, zlib.error):
        return False
    try:
        codecs.getincrementaldecoder("utf-8")("strict").decode(head)
    except UnicodeDecodeError:
        return False
    return b"\0" not in head
