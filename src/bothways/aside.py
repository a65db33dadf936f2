"""Files and folders that are there whole or not at all: written aside, then renamed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from bothways.errors import BothwaysError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A place beside `path` to write a file to, or to make a folder at; it takes the place of `path` in the end.

    An older file is replaced at once; an older folder steps aside first and goes last. When anything goes wrong, what
    was written is gone and what stood there stands.

    Raises:
        BothwaysError: the disk refuses (exit code 1).
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    _drop(beside)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield beside
        if beside.is_dir():
            _swap(beside, path)
        else:
            beside.replace(path)
    except BothwaysError as error:
        # a part of it that was written aside in turn is named as the whole
        raise BothwaysError(str(error).replace(str(beside), str(path)), error.exit_code) from error
    except (OSError, SafetensorError) as error:
        raise BothwaysError(f"{path} could not be written: {getattr(error, 'strerror', None) or error}",
                            exit_code=1) from error
    finally:
        _drop(beside)


def _swap(beside: Path, folder: Path) -> None:
    old = folder.with_name(f".{folder.name}.{os.getpid()}.old")
    if folder.exists():
        folder.rename(old)
    beside.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def _drop(beside: Path) -> None:
    if beside.is_dir():
        shutil.rmtree(beside, ignore_errors=True)
    else:
        beside.unlink(missing_ok=True)
