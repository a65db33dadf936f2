"""JSON files of a model folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bothways.errors import BothwaysError


def read_json(file: Path) -> dict[str, Any]:
    """A JSON object from a file, or one sentence saying what is wrong with it."""
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise BothwaysError(f"{file} does not exist, but a model folder has one: check the path") from None
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BothwaysError(f"{file} is not JSON ({error}): copy it again") from None
    if not isinstance(data, dict):
        raise BothwaysError(f"{file} holds a {type(data).__name__}, but an object is expected")
    return data


def write_json(file: Path, data: Mapping[str, Any]) -> None:
    """Indented JSON with a last line end, entries in their own order."""
    file.write_text(json.dumps(data, indent=2, ensure_ascii=False, default=str) + "\n", encoding="utf-8")
