"""Rewriting as a kind of task: from files to a folder and back, in every paradigm that writes."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from tests.evaluation.small import small
from tests.tasks.test_tasks import sentences

import bothways
from bothways import cli
from bothways.errors import BothwaysError
from bothways.families import folder as models
from bothways.tasks import folder
from bothways.tasks.rewrite import Options, Row, Task, _text
from bothways.tasks.rows import BadRow, Rows
from bothways.tasks.run import Data, tuned
from bothways.tasks.tuning import TuneConfig

QUICK = TuneConfig(steps=120, batch=16, learning_rate=4e-3, evaluations=2, longest=8)


def pairs(n: int, seed: int = 0) -> list[Row]:
    return [Row(*pair) for pair in sentences(n, seed)]


@pytest.fixture(scope="module")
def made():
    given = Data(Rows.of(pairs(60)), Rows.of(pairs(10, 2)), Rows.of(pairs(20, 1)))
    return tuned(Task, small("causal", sharp=1.0), given, Options(target=4), QUICK, tell=lambda sentence: None)


def test_it_learns_and_its_scores_are_named(made):
    scores = {score.name: score for score in made.scores}
    assert list(scores)[:2] == ["dev rewriting NLL", "dev exact match"]
    assert scores["test exact match"].value > 0.9 and scores["test rewriting NLL"].value < 0.3
    assert scores["test rewriting NLL"].estimator == "exact" and not scores["test rewriting NLL"].higher_is_better
    assert {"test chrF", "test BLEU", "test ROUGE-L"} <= set(scores) and scores["test chrF"].value > 90


def test_a_folder_comes_back_and_writes_the_same(made, tmp_path):
    rows = pairs(20, 3)
    folder.save(made.task, tmp_path / "out", made.report, made.scores)
    again = folder.load(tmp_path / "out", "rewrite")
    assert again.predict(rows) == made.task.predict(rows) and again.scores(rows)[0].items == \
        made.task.scores(rows)[0].items
    ask = bothways.pipeline("rewrite", tmp_path / "out")
    assert ask(rows[0].source) == again.predict(rows[:1])[0]
    assert "exact match" in (tmp_path / "out" / "README.md").read_text()


def test_scores_that_need_another_package_are_said_to_be_left_out(monkeypatch, tmp_path):
    import importlib.util

    there = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name in ("sacrebleu", "rouge_score")
                        else there(name, *more))
    told: list[str] = []
    given = Data(Rows.of(pairs(8)), Rows.of([]), Rows.of(pairs(4, 1)))
    found = tuned(Task, small("causal"), given, Options(target=4), replace(QUICK, steps=1), tell=told.append)
    assert [score.name for score in found.scores] == ["test rewriting NLL", "test exact match"]
    assert told == ["chrF and BLEU and ROUGE are not measured, since the extra 'eval' is not installed: pip install "
                    "'bothways[eval]'"]
    folder.save(found.task, tmp_path / "out", found.report, found.scores)
    assert "Of its scores, chrF and BLEU and ROUGE are not measured" in (tmp_path / "out" / "README.md").read_text()


def test_beams_find_at_least_as_likely_a_text(made):
    rows = pairs(20, 3)
    searched = Task(made.task.trained, replace(made.task.options, beams=3), made.task.form)
    assert searched.how == "3 beams"

    def nll(task: Task) -> float:
        return task.scores([Row(row.source, text) for row, text in zip(rows, task.predict(rows))])[0].value

    assert nll(searched) <= nll(made.task) + 1e-6


@pytest.mark.parametrize("paradigm", ["spans", "diffusion", "prefix", "glm"])
def test_every_way_of_writing_has_its_folder(paradigm, tmp_path):
    task = Task.fit(small(paradigm, sharp=1.0), pairs(20), [], Options(target=4), replace(QUICK, steps=4))
    folder.save(task, tmp_path / "out")
    assert folder.load(tmp_path / "out", "rewrite").predict(pairs(5, 1)) == task.predict(pairs(5, 1))
    if paradigm == "diffusion":
        with pytest.raises(BothwaysError, match="does not search"):
            Task(task.trained, replace(task.options, beams=2), task.form)


def test_what_cannot_be_rewritten_is_refused():
    with pytest.raises(BothwaysError, match="does not write"):
        Task.fit(small("masked"), pairs(4), [], Options(target=4), QUICK)
    with pytest.raises(BothwaysError, match="say which"):
        Task.fit(None, pairs(4), [], Options(), QUICK)
    with pytest.raises(BothwaysError, match=r"does not write so .*causal"):
        Task.fit(small("causal"), pairs(4), [], Options(visibility="left"), QUICK)
    with pytest.raises(BothwaysError, match="lower --target"):
        Task.fit(small("causal"), pairs(4), [], Options(target=10 ** 6), QUICK)
    with pytest.raises(BothwaysError, match="some"):
        Task.fit(small("causal"), [Row("a")], [], Options(target=4), QUICK)
    with pytest.raises(BothwaysError, match="beams is 0"):
        Options(beams=0)
    assert _text(["a b.", "c."], "target") == "a b. c."
    for bad in ([], ["a", 1], 3, " "):
        with pytest.raises(BadRow):
            _text(bad, "target")


def test_long_sources_and_targets_are_cut_and_counted():
    rows = [Row("w1 " * 20, "w2 " * 9), Row("w1", "w2")]
    task = Task.fit(small("causal"), rows, [], Options(target=4), replace(QUICK, steps=1))
    assert task.settings()["cut"] == {"sources": 1, "targets": 1} and "1 targets of its data" in task.limits()
    assert len(task.prompt(rows[0].source)) == 8


def test_the_commands_as_printed(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    models.save(small("causal", sharp=1.0), tmp_path / "model")
    (tmp_path / "train.jsonl").write_text("".join(
        json.dumps({"en": source, "de": target, "fr": "x"}) + "\n" for source, target in sentences(40)))
    (tmp_path / "sources.csv").write_text("source\nw1 w2 the\n  \n")
    call = ["tune", "--task", "rewrite", "--from", "model", "--data", "train.jsonl", "--test", "train.jsonl", "--out",
            "my-rewriter", "--steps", "3", "--target", "4", "--scored", "5"]
    assert cli.main([*call, "--columns", "source=en", "target=dee"]) == 2
    assert "no column 'dee'" in capsys.readouterr().err
    assert cli.main([*call, "--columns", "source=en", "target=de"]) == 0
    assert "saved to my-rewriter" in capsys.readouterr().out
    sentence = "A long sentence, which could be two, is hard to read."
    assert cli.main(["rewrite", "my-rewriter", sentence]) == 0
    assert json.loads(capsys.readouterr().out).keys() == {"line", "written"}
    assert cli.main(["rewrite", "my-rewriter", sentence, "--beams", "4"]) == 0
    assert cli.main(["rewrite", "my-rewriter", "--data", "sources.csv", "--out", "predictions.csv"]) == 1
    assert "the source is empty" in (tmp_path / "predictions.csv").read_text()
    capsys.readouterr()
    assert cli.main(["classify", "my-rewriter", sentence]) == 2
    assert "call `bothways rewrite`" in capsys.readouterr().err
