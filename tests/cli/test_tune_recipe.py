"""`bothways tune --recipe`: a file of options under those of the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from bothways.cli import main, parsing, tune
from bothways.errors import BothwaysError


@pytest.fixture
def recipe(tmp_path):
    def write(text: str) -> Path:
        file = tmp_path / "mine.yaml"
        file.write_text(text, encoding="utf-8")
        return file
    return write


def read(file: Path, *more: str):
    arguments = ["--recipe", str(file), *more]
    return parsing.parse(tune.options_for(arguments), "bothways tune", None, arguments)


def test_every_group_of_options_can_stand_in_a_recipe(recipe):
    found = read(recipe("task: tag\ndata: a.jsonl\nfrom: model\ncolumns: [text=words]\ncrf: true\nepochs: 2\n"
                        "moves: head\n"), "--out", "x")
    assert (found.task, found.data, found.from_, found.columns) == ("tag", Path("a.jsonl"), Path("model"),
                                                                    ("text=words",))
    assert found.own.crf and found.tuning.epochs == 2 and found.tuning.moves == "head"
    # what the recipe leaves out is the default of the kind
    assert found.tuning.batch == 16 and found.tuning.learning_rate is None and found.seeds == 1


def test_the_command_line_comes_before_the_recipe(recipe):
    file = recipe("task: classify\ndata: a.csv\nout: here\nepochs: 2\nlongest: 64\nway: neighbours\nseeds: 3\n")
    found = read(file, "--epochs", "5", "--way", "head", "--seeds", "1", "--data", "b.csv")
    assert (found.tuning.epochs, found.own.way, found.seeds) == (5.0, "head", 1)
    assert (found.data, found.out, found.tuning.longest) == (Path("b.csv"), Path("here"), 64)


def test_the_task_of_the_command_line_says_which_options_there_are(recipe):
    found = read(recipe("task: classify\ndata: a.csv\nout: x\nepochs: 2\n"), "--task", "tag", "--crf")
    assert found.task == "tag" and found.own.crf and found.tuning.epochs == 2


def test_steps_are_instead_of_passes_wherever_they_are_asked_for(recipe):
    assert read(recipe("data: a.csv\nout: x\nsteps: 7\n")).tuning.epochs is None
    assert read(recipe("data: a.csv\nout: x\nepochs: 2\n"), "--steps", "7").tuning.epochs is None
    assert read(recipe("data: a.csv\nout: x\nsteps: 7\n"), "--epochs", "2").tuning.epochs == 2


@pytest.mark.parametrize(("text", "said"), [
    ("epoch: 2", r"mine\.yaml: unknown key 'epoch' \(did you mean 'epochs'\? known: balanced, batch, .*, way, "),
    ("form: model", r"unknown key 'form' \(did you mean 'from'\?"),
    ("recipe: other.yaml", "unknown key 'recipe'"),
    ("task: tag\nway: head", r"mine\.yaml: unknown key 'way' .*crf"),
    ("task: tga", r"mine\.yaml: there is no task 'tga' .*tag"),
    ("epochs: many", r"mine\.yaml: epochs is 'many'"),
    ("several: 3 of them", r"mine\.yaml: several is '3 of them'"),
    ("columns: text=a", r"mine\.yaml: columns is 'text=a'"),
    ("moves: some", r"mine\.yaml: moves is 'some': .*'lora'"),
    ("longest: 0", r"mine\.yaml: fine-tuning option 'longest' is 0"),
    ("- a\n- b", r"mine\.yaml: a recipe is a mapping"),
    ("a: [", r"mine\.yaml, line 2: not YAML"),
])
def test_what_is_wrong_with_a_recipe_is_said_with_its_file_and_key(recipe, text, said):
    with pytest.raises(BothwaysError, match=said):
        read(recipe(text + "\n"), "--data", "a.csv", "--out", "x")


def test_a_wrong_recipe_is_a_wrong_call(recipe, tmp_path, capsys):
    assert main(["tune", "--recipe", str(recipe("epoch: 2")), "--data", "a.csv", "--out", str(tmp_path / "x")]) == 2
    assert "unknown key 'epoch'" in capsys.readouterr().err and not (tmp_path / "x").exists()
    assert main(["tune", "--recipe", str(tmp_path / "mime.yaml"), "--data", "a.csv", "--out", "x"]) == 2
    assert "no such recipe (did you mean 'mine.yaml'?" in capsys.readouterr().err
