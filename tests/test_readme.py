"""Every command the README shows works as printed; where one trains, with a budget of seconds."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from bothways.cli import COMMANDS, main

README = Path(__file__).parents[1] / "README.md"
SHORT = {"--budget": "6 steps", "--seeds": "1", "--max-new-tokens": "4", "--steps": "4"}
"""What replaces the value of an option here, so that the whole page runs in about a minute."""


def commands(text: str) -> list[list[str]]:
    """The lines `$ bothways ...` in the README's console blocks, in order, as arguments without the program."""
    blocks = re.findall(r"```console\n(.*?)```", text, flags=re.DOTALL)
    lines = [line[2:] for block in blocks for line in block.replace("\\\n", " ").splitlines() if line.startswith("$ ")]
    return [shlex.split(line)[1:] for line in lines if line.startswith("bothways ")]


def shortened(arguments: list[str]) -> list[str]:
    """The same call with the small values of SHORT."""
    return [SHORT.get(before, argument) for before, argument in zip(["", *arguments], arguments)]


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like a reader's: `notes/` with some text, `tickets.csv` with labels."""
    folder = tmp_path_factory.mktemp("desk")
    (folder / "notes").mkdir()
    import pydoc_data.topics

    for number, topic in enumerate(sorted(pydoc_data.topics.topics)[:40]):
        (folder / "notes" / f"{number}.txt").write_text(pydoc_data.topics.topics[topic] * 2, encoding="utf-8")
    rows = [f"my {thing} has not come after {days} days,{label}" for days in range(2, 14)
            for thing, label in (("card", "card"), ("refund", "refund"), ("new pin", "pin"))]
    (folder / "tickets.csv").write_text("text,category\n" + "\n".join(rows) + "\n", encoding="utf-8")
    return folder


def test_readme_commands_work_as_printed(desk: Path, monkeypatch: pytest.MonkeyPatch,
                                         capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(desk)
    shown = commands(README.read_text(encoding="utf-8"))
    assert {call[0] for call in shown} >= {"see", "train", "fill", "generate", "evaluate", "compare"}
    for call in shown:
        code = main(shortened(call))
        printed = capsys.readouterr()
        assert code == 0, f"bothways {shlex.join(call)} ended with {code}: {printed.err[-2000:]}"
        assert printed.out.strip() or printed.err.strip(), f"bothways {shlex.join(call)} printed nothing"


def test_readme_names_the_two_commands_and_every_command_of_the_program() -> None:
    text = README.read_text(encoding="utf-8")
    assert "$ make demo" in text
    assert "$ make test" in text
    assert [name for name in COMMANDS if f"bothways {name}" not in text] == []
