"""The pictures in the documentation are what the commands above them print, and its code runs."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from bothways.batch import Vocabulary
from bothways.cli import main
from bothways.objectives import known, make
from bothways.pictures import svg
from bothways.pictures.expression import read
from bothways.pictures.visibility import demo_fields, of_visibility

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "objectives.md").read_text(encoding="utf-8")
SHOWN = re.findall(r"```console\n\$ bothways ([^\n]*)\n(.*?)\n```", PAGE, re.DOTALL)


@pytest.mark.parametrize("command, printed", SHOWN, ids=[command for command, _ in SHOWN])
def test_a_picture_is_what_its_command_prints(capsys, command, printed):
    assert main(shlex.split(command)) == 0
    assert "\n".join(line.rstrip() for line in capsys.readouterr().out.splitlines()).rstrip() == printed


def test_every_objective_has_its_section_and_picture():
    for name in known():
        assert f"\n## {name}\n" in PAGE
    assert len(SHOWN) == len(known())


def test_the_objective_of_ones_own_on_the_page_works(tmp_path):
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / "mine.py").write_text(code)
    assert make(f"{tmp_path / 'mine.py'}:EveryOther(step=3)", Vocabulary.plain(60)).describe()["step"] == 3


def test_the_picture_of_visibilities_is_drawn_from_them():
    words = ["The", "old", "cat", "sat", "down", ".", "It", "was", "warm", "in", "there", "."]
    pictures = [of_visibility(read(text), demo_fields(len(words)), words)
                for text in ("causal", "bidirectional", "prefix", "window(3, 3) & same_document")]
    assert (DOCS / "pictures" / "visibilities.svg").read_text(encoding="utf-8") == svg.beside(pictures)
