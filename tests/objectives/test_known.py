"""The house knows an objective because its file lies in the folder, and for no other reason."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from bothways import objectives
from bothways.batch import Vocabulary

NEW = '''
"""Backwards: each token from the one behind it."""
from dataclasses import dataclass

from bothways.batch import Vocabulary
from bothways.objectives.next_token import NextToken


@dataclass(frozen=True)
class Backwards(NextToken):
    vocabulary: Vocabulary
    name = "backwards"
    summary = "predict each token from those behind it"
    source = "A test 1999"
'''


def test_a_new_objective_is_one_new_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = list(objectives.known())
    (tmp_path / "backwards.py").write_text(NEW)
    try:
        with monkeypatch.context() as patched:
            patched.setattr(objectives, "__path__", [*objectives.__path__, str(tmp_path)])
            objectives.known.cache_clear()
            assert list(objectives.known()) == ["backwards", *before]
            assert objectives.make("backwards", Vocabulary.plain(64)).name == "backwards"
    finally:
        sys.modules.pop("bothways.objectives.backwards", None)
        objectives.known.cache_clear()
    assert list(objectives.known()) == before


def test_classes_without_a_name_of_their_own_are_no_objectives() -> None:
    assert "masked" in objectives.known()
    assert all(name == kind.name for name, kind in objectives.known().items())
    assert len(set(objectives.known().values())) == len(objectives.known())
