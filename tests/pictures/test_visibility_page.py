"""The page about visibilities shows what its commands print and names all there are; its strings of layers are real."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from bothways.cli import main
from bothways.model import ModelConfig, Shape
from bothways.pictures.expression import FORMS, read
from bothways.visibility import NAMED, Visibility

PAGE = (Path(__file__).parents[2] / "docs" / "visibility.md").read_text(encoding="utf-8")
SHOWN = re.findall(r"```console\n\$ bothways ([^\n]*)\n(.*?)\n```", PAGE, re.DOTALL)
CODE = set(re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", PAGE, flags=re.DOTALL)))


@pytest.mark.parametrize("command, printed", SHOWN, ids=[command for command, _ in SHOWN])
def test_a_picture_is_what_its_command_prints(capsys, command, printed):
    assert main(shlex.split(command)) == 0
    assert "\n".join(line.rstrip() for line in capsys.readouterr().out.splitlines()).rstrip() == printed


def test_every_visibility_is_named_on_the_page():
    names = {re.split(r"[(]", code)[0].replace("-", "_") for code in CODE}
    assert {name.replace("-", "_") for name in NAMED} - names == {"order_query"}
    assert {re.split(r"[(]", form)[0].replace("-", "_") for form in FORMS} <= names


@pytest.mark.parametrize("form", FORMS)
def test_the_forms_of_the_list_are_read_as_written(form):
    assert isinstance(read(form), Visibility)


def test_the_patterns_of_layers_can_be_built():
    found = re.findall(r'^\| `"([GLC]+)"`', PAGE, re.MULTILINE)
    assert {"GL", "CCCG"} <= set(found)
    for reach in found:
        config = ModelConfig(Shape(layers=12), reach=reach)
        assert config.narrow == (reach != "G")
