"""Answering as a kind of task, and talking in the terminal."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import numpy as np
import pytest
from tests.evaluation.small import small

import bothways
from bothways import cli
from bothways.errors import BothwaysError
from bothways.families import folder as models
from bothways.families.conversation import answer_tokens, conversation
from bothways.tasks import folder
from bothways.tasks.instruct import Options, Row, Task
from bothways.tasks.rows import BadRow
from bothways.tasks.tuning import TuneConfig

QUICK = TuneConfig(steps=250, batch=16, learning_rate=4e-3, evaluations=2, longest=16)


def rows(n: int, seed: int = 0) -> list[Row]:
    """The answer is the second word of the question."""
    rng = np.random.default_rng(seed)
    return [Row(({"role": "user", "content": f"w{one} w{two} the"},), f"w{two}")
            for one, two in rng.integers(0, 4, (n, 2))]


@pytest.fixture(scope="module")
def made():
    return Task.fit(small("causal", sharp=1.0), rows(60), rows(10, 2), Options(answer=4), QUICK)


def test_it_answers_and_its_folder_talks(made, tmp_path, capsys, monkeypatch):
    asked = rows(10, 1)
    assert made.predict(asked) == [row.answer for row in asked] and made.scores(asked)[0].value < 0.3
    folder.save(made, tmp_path / "out", {}, made.scores(asked))
    again = folder.load(tmp_path / "out", "instruct")
    assert again.predict(asked) == made.predict(asked) and again.settings()["format"] == "instruct"
    assert bothways.pipeline("instruct", tmp_path / "out")("w1 w3 the") == "w3"
    assert cli.main(["chat", str(tmp_path / "out"), "w1 w3 the", "--max-new-tokens", "4"]) == 0
    assert capsys.readouterr().out == "w3\n"
    # a conversation reads earlier turns again from its memory alone, and /new forgets them
    monkeypatch.setattr("sys.stdin", io.StringIO("w1 w3 the\n/new\nw1 w3 the\n\n/quit\nw1 w2 the\n"))
    assert cli.main(["chat", str(tmp_path / "out"), "--max-new-tokens", "4"]) == 0
    assert capsys.readouterr().out == "w3\nw3\n"


def test_only_answers_are_asked_for_and_each_sees_all_before(made):
    said = ({"role": "system", "content": "the"}, {"role": "user", "content": "w1"},
            {"role": "assistant", "content": "w2"}, {"role": "user", "content": "w3"})
    first, second = made.asked_of([Row(said, "w4")])
    vocabulary, encode = made.trained.vocabulary, made.trained.tokenizer.encode
    own = [vocabulary.bos, *encode("the"), vocabulary.sep, *encode("w1"), vocabulary.sep]
    assert first[0].tolist() == [*own, *encode("w2"), vocabulary.eos] and first[1].sum() == 2
    assert second[0].tolist() == [*first[0], *encode("w3"), vocabulary.sep, *encode("w4"), vocabulary.eos]
    assert second[1].sum() == 2 and second[1][-2:].all()
    assert answer_tokens(made.trained, "<think>w1</think> w2") == [
        vocabulary.ids["<think>"], *encode("w1"), vocabulary.ids["</think>"], *encode("w2"), vocabulary.eos]
    assert len(made.prompt([{"role": "user", "content": "w1 " * 40}])) == 16


def test_two_towers_answer_as_pairs(tmp_path):
    task = Task.fit(small("spans", sharp=1.0), rows(10), [], Options(answer=4), replace(QUICK, steps=2))
    assert task.settings()["format"] == "pairs"
    folder.save(task, tmp_path / "out")
    assert folder.load(tmp_path / "out", "instruct").predict(rows(3, 1)) == task.predict(rows(3, 1))


def test_what_cannot_answer_is_refused(made):
    for paradigm in ("masked", "diffusion"):
        with pytest.raises(BothwaysError, match="left to right"):
            Task.fit(small(paradigm), rows(4), [], Options(answer=4), QUICK)
    with pytest.raises(BothwaysError, match="--from"):
        Task.fit(None, rows(4), [], Options(), QUICK)
    with pytest.raises(BothwaysError, match="give some"):
        Task.fit(small("causal"), [row._replace(answer=None) for row in rows(4)], [], Options(answer=4), QUICK)
    with pytest.raises(BothwaysError, match="lower --answer"):
        Task.fit(small("causal"), rows(4), [], Options(answer=10 ** 6), QUICK)
    with pytest.raises(BothwaysError, match="no chat template and was not trained to answer"):
        conversation(small("causal"), [{"role": "user", "content": "w1"}])
    with pytest.raises(BothwaysError, match="must be a question"):
        conversation(made.trained, [{"role": "assistant", "content": "w1"}])


@pytest.mark.parametrize(("values", "why"), [
    ({"output": "x"}, "no instruction"), ({"instruction": " "}, "instruction is empty"),
    ({"instruction": "x", "output": 3}, "output is int"), ({"messages": []}, "no list"),
    ({"messages": ["x"]}, "message is str"), ({"messages": [{"role": "user"}]}, "has: role"),
    ({"messages": [{"role": "assistant", "content": "x"}]}, "no question"),
    ({"instruction": "x", "instances": [1]}, "instances")])
def test_bad_rows_say_why(values, why):
    with pytest.raises(BadRow, match=why):
        Task.row(values)


def test_rows_of_every_form():
    user = {"role": "user", "content": "a"}
    assert Task.row({"instruction": "a", "output": "b"}) == Row((user,), "b")
    assert Task.row({"instruction": "a", "instances": [{"input": "c", "output": "b"}]}) == Row(
        ({"role": "user", "content": "a\n\nc"},), "b")
    assert Task.row({"messages": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}) == Row((user,), "b")
    assert Task.row({"messages": [{"speaker": "USER", "text": "a"}, {"speaker": "SYSTEM", "text": "b"}]}) == Row(
        (user,), "b")
    assert Task.row({"system": "s", "messages": [user]}) == Row(({"role": "system", "content": "s"}, user))


def test_the_commands_as_printed(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    models.save(small("causal", sharp=1.0), tmp_path / "model")
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(
        {"instruction": row.messages[0]["content"], "output": row.answer}) + "\n" for row in rows(20)) + "{}\n")
    assert cli.main(["tune", "--task", "instruct", "--from", "model", "--data", "train.jsonl", "--test", "train.jsonl",
                     "--out", "out", "--steps", "2", "--answer", "4"]) == 0
    printed = capsys.readouterr()
    assert "line 21 (" in printed.err and "saved to out" in printed.out
    # what it was worth before, what learning took, and the same in the folder
    assert cli.main(["tune", "--task", "instruct", "--from", "model", "--data", "train.jsonl", "--keep", "0.2",
                     "--out", "out", "--steps", "2", "--answer", "4"]) == 0
    printed = capsys.readouterr().out
    assert "untuned dev" in printed and "of processor time, threads: " in printed
    stored = json.loads((tmp_path / "out" / "task.json").read_text())
    names = [score["name"] for score in stored["scores"]]
    assert names == ["dev answer NLL", "untuned dev answer NLL"]
    assert {"seconds", "processor seconds", "threads"} == stored["report"]["learning"].keys()
    assert '"processor seconds": ' in (tmp_path / "out" / "README.md").read_text()
    assert cli.main(["chat", "model", "w1"]) == 2
    assert "bothways tune --task instruct" in capsys.readouterr().err
