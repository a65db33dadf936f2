"""Small JSON files of a run, written aside and renamed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bothways.aside import replacing
from bothways.errors import BothwaysError


def write_json(file: Path, data: Mapping[str, Any]) -> None:
    """Indented JSON that is there whole or not at all. Raises: BothwaysError, exit code 1, when the disk refuses."""
    with replacing(file) as aside:
        aside.write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read_json(file: Path) -> dict[str, Any]:
    """A JSON object. Raises: BothwaysError naming the file."""
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise BothwaysError(f"{file} cannot be read ({error})") from error
    if not isinstance(data, dict):
        raise BothwaysError(f"{file} holds a {type(data).__name__}, not an object")
    return data


def plain(data: Any) -> Any:
    """Data as JSON gives it back: tuples become lists, keys become text."""
    return json.loads(json.dumps(data))
