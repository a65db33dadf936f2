"""The frame of the command line: what it lists, what it refuses, and how it ends."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from bothways import cli
from bothways.cli import COMMANDS, main
from bothways.errors import BothwaysError

SRC = Path(__file__).parents[2] / "src"


def called(*arguments: str) -> subprocess.CompletedProcess[str]:
    """`python -m bothways ...` in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "bothways", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(SRC)},
        timeout=120,
    )


def test_help_lists_every_command_with_a_summary(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    printed = capsys.readouterr().out
    for name, summary in COMMANDS.items():
        assert f"  {name}" in printed and summary in printed


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; from bothways.cli import main; main(['--help']); main(['--version']); "
        "print(sorted({'torch', 'numpy', 'tyro', 'pydantic', 'rich'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(SRC)},
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_parsing_a_command_needs_no_torch() -> None:
    code = (
        "import sys\nfrom bothways.cli import main, COMMANDS\n"
        "for name in COMMANDS:\n    assert main([name, '--help']) == 0, name\n"
        "print(sorted({'torch', 'transformers', 'datasets', 'sklearn'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(SRC)},
    )
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("name", list(COMMANDS))
def test_every_command_says_what_it_does_with_an_example(name: str) -> None:
    module = importlib.import_module(f"bothways.cli.{name}")
    assert module.__doc__ is not None and f"bothways {name}" in module.__doc__
    assert callable(module.run) and module.Options.__dataclass_params__.frozen


def test_no_command_is_a_wrong_call(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "usage: bothways <command>" in capsys.readouterr().out


def test_an_unknown_command_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trian"]) == 2
    error = capsys.readouterr().err
    assert "there is no command 'trian' (did you mean 'train'?" in error and error.count("\n") == 1
    assert main(["--verson"]) == 2
    assert "no option '--verson'" in capsys.readouterr().err


def test_an_unknown_option_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--objectiv", "masked"]) == 2
    captured = capsys.readouterr()
    assert "--objectiv" in captured.out + captured.err and "--objective" in captured.out + captured.err


def test_a_wrong_value_names_its_option(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--seed", "many"]) == 2
    captured = capsys.readouterr()
    assert "--seed" in captured.out + captured.err


def test_help_of_a_command_by_either_word(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--help"]) == 0
    first = capsys.readouterr().out
    assert main(["help", "train"]) == 0
    assert capsys.readouterr().out == first
    assert "usage: bothways train" in first and "--budget" in first


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("bothways ")


@pytest.mark.parametrize(
    ("raised", "code", "said"),
    [
        (BothwaysError("the corpus is empty"), 2, "the corpus is empty"),
        (BothwaysError("the disk is full", exit_code=1), 1, "the disk is full"),
        (KeyboardInterrupt(), 130, "stopped"),
        (FileNotFoundError(2, "No such file or directory", "notes.txt"), 1, "notes.txt: No such file or directory"),
        (ModuleNotFoundError("No module named 'tensorboard'", name="tensorboard"), 1, "pip install tensorboard"),
    ],
)
def test_mistakes_are_a_sentence_and_a_code(
    raised: BaseException, code: int, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(arguments: list[str]) -> int:
        raise raised

    monkeypatch.setattr(cli, "_dispatch", fails)
    assert main(["train"]) == code
    error = capsys.readouterr().err
    assert said in error and "Traceback" not in error and "\x1b" not in error, "no colour where there is no terminal"
    assert main(["train", "--traceback"]) == code
    assert "Traceback" in capsys.readouterr().err


def test_a_mistake_of_ours_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(arguments: list[str]) -> int:
        raise ZeroDivisionError

    monkeypatch.setattr(cli, "_dispatch", fails)
    with pytest.raises(ZeroDivisionError):
        main(["train"])


def test_a_command_gives_its_own_code(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("bothways.cli.train")
    module.__dict__.update(__doc__="Nothing.", run=lambda options: 7)
    monkeypatch.setitem(sys.modules, "bothways.cli.train", module)
    monkeypatch.setattr(cli, "parse", lambda module, name, arguments: None)
    assert main(["train"]) == 7


def test_python_dash_m() -> None:
    done = called("fil")
    assert done.returncode == 2 and "did you mean 'fill'" in done.stderr and not done.stdout


def test_a_reader_that_leaves_early_is_no_error() -> None:
    code = (
        "import sys; from bothways import cli; cli.overview = lambda: 'x\\n' * 200000; sys.exit(cli.main(['--help']))"
    )
    script = f'{sys.executable} -c "{code}" | head -n 1; exit ${{PIPESTATUS[0]}}'
    done = subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(SRC)}, timeout=60
    )
    assert done.stdout == "x\n" and done.stderr == "" and done.returncode == 141
