"""`bothways evaluate` on a small saved model: a table, a file of scores, and mistakes in one sentence."""

from __future__ import annotations

import json

import pytest
from tests.evaluation.small import small

from bothways.cli import main
from bothways.evaluation.score import load
from bothways.families.folder import save
from bothways.text.tokenizer import Tokenizer

TEXT = "The dog near the cat barks often, and nobody hears it. " * 30


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluate")
    save(small("hybrid", Tokenizer.train([TEXT], kind="bpe", size=320), width=16), folder / "model")
    (folder / "text.txt").write_text(TEXT)
    (folder / "pairs.jsonl").write_text("".join(json.dumps(
        {"sentence_good": "the dog barks", "sentence_bad": "the dog bark", "UID": kind}) + "\n" for kind in "ab"))
    (folder / "labels.csv").write_text("text,label\n" + "".join(
        f"the {'cat' if row % 2 else 'dog'} number {row},{'cats' if row % 2 else 'dogs'}\n" for row in range(40)))
    return folder


def test_everything_is_measured_and_kept(model, capsys):
    assert main(["evaluate", str(model / "model"), "--corpus", str(model / "text.txt"), "--pairs",
                 str(model / "pairs.jsonl"), "--labels", str(model / "labels.csv"), "--windows", "3", "--blanks", "4",
                 "--samples", "2", "--stride", "32", "--limit", "8", "--steps", "3",
                 "--json", str(model / "scores.json")]) == 0
    printed = capsys.readouterr().out
    assert "estimator" in printed and "≤" in printed and "exact" in printed
    scores = load(model / "scores.json")
    assert {"suffix NLL", "suffix bits per byte", "fill accuracy, single token", "minimal pairs", "probe accuracy",
            "classification accuracy", "document bits per byte"} <= {score.name for score in scores}
    assert {score.mode for score in scores if score.name == "suffix NLL"} == {"causal", "bidirectional"}


@pytest.mark.parametrize(("arguments", "sentence"), [
    ([], "give --corpus, --pairs or --labels, or --facts"),
    (["--corpus", "nowhere.txt"], "nowhere.txt"),
    (["--pairs", "nowhere.jsonl"], "nowhere.jsonl"),
])
def test_mistakes_are_one_sentence(model, capsys, arguments, sentence):
    assert main(["evaluate", str(model / "model"), *arguments]) == 2
    error = capsys.readouterr().err.strip()
    assert sentence in error and len(error.splitlines()) == 1


def test_heart_variety_and_facts(model, capsys):
    facts = model / "facts.csv"
    facts.write_text("a,b\nthe dog,the cat\na cat,a dog\nnobody,it\n")
    assert main(["evaluate", str(model / "model"), "--corpus", str(model / "text.txt"), "--windows", "2", "--blanks",
                 "2", "--samples", "2", "--trained-on", str(model / "text.txt"), "--write", "3", "--new-tokens", "6",
                 "--facts", str(facts), "--forward", "{a} hears {b}", "--backward", "{b} is heard by {a}",
                 "--json", str(model / "more.json")]) == 0
    scores = {(score.name, score.mode): score for score in load(model / "more.json")}
    # the same text is by heart as little as held-out text: it is one text
    assert scores["extracted training text, 8 tokens", "causal"].value == \
        scores["extracted held-out text, 8 tokens", "causal"].value
    assert {mode for name, mode in scores if name == "distinct-1"} == {"causal, written", "held-out text"}
    assert scores["rep-2", "causal, written"].n == 3 and scores["reversal, forward", "causal"].n == 3


def test_a_tuned_classifier_is_damaged(model, capsys):
    assert main(["tune", "--task", "classify", "--way", "logistic", "--data", str(model / "labels.csv"), "--out",
                 str(model / "task")]) == 0
    (model / "test.csv").write_text("text,label\n" + "".join(
        f"a {kind} {'x' * row},{kind}s\n" for row in range(10) for kind in ("cat", "dog")))
    assert main(["evaluate", str(model / "task"), "--labels", str(model / "test.csv"), "--limit", "20",
                 "--json", str(model / "task.json")]) == 0
    scores = {score.name: score for score in load(model / "task.json")}
    assert scores["classification accuracy"].value == 1.0 and scores["accuracy under typos"].value < 1.0
    assert {"AURC", "accuracy lost to typos", "accuracy under case"} <= set(scores)
    assert main(["evaluate", str(model / "task"), "--corpus", "x"]) == 2
    assert "give --labels" in capsys.readouterr().err
    # labels of another task: everything is wrong, and the scores are there
    (model / "other.csv").write_text("text,label\na cat,fish\na dog,birds\n")
    assert main(["evaluate", str(model / "task"), "--labels", str(model / "other.csv"), "--json",
                 str(model / "other.json")]) == 0
    assert [score.value for score in load(model / "other.json") if score.name == "classification accuracy"] == [0.0]
    assert "none of the 2 rows has a label that was trained" in capsys.readouterr().err
    # a published classifier is tested, not tuned
    assert main(["tune", "--task", "classify", "--data", str(model / "labels.csv"), "--from", str(model / "model"),
                 "--steps", "2", "--pooling", "last", "--out", str(model / "head")]) == 0
    assert main(["convert", str(model / "head"), str(model / "theirs")]) == 0
    for folder in ("head", "theirs"):
        assert main(["evaluate", str(model / folder), "--labels", str(model / "test.csv"), "--limit", "0",
                     "--json", str(model / f"{folder}.json")]) == 0
    ours, theirs = ({score.name: score.value for score in load(model / f"{name}.json")} for name in ("head", "theirs"))
    assert ours == pytest.approx(theirs, abs=1e-3)


def test_every_kind_of_task_is_tested_on_other_rows(model, capsys):
    def lines(name, *rows):
        (model / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
        return str(model / name)

    good = [{"tokens": ["a", animal, "sees"], "tags": ["O", tag, "O"]} for animal, tag in
            (("dog", "B-DOG"), ("cat", "B-CAT")) for _ in range(9)]
    tags = lines("tags.jsonl", *good, {"tokens": ["a"], "tags": ["O", "O"]})
    assert main(["tune", "--task", "tag", "--from", str(model / "model"), "--data", tags, "--steps", "40",
                 "--learning-rate", "4e-3", "--out", str(model / "tagger")]) == 0
    capsys.readouterr()
    assert main(["evaluate", str(model / "tagger"), "--labels", tags, "--limit", "4", "--json",
                 str(model / "tagger.json")]) == 0
    scores = {score.name: score for score in load(model / "tagger.json")}
    assert scores["span F1"].value == 1.0 and scores["tag accuracy"].n == 12
    assert {"CAT F1", "DOG F1"} <= set(scores["span F1"].details), "dogs stand first in the file"
    told = capsys.readouterr()
    assert "1 of 19 rows are left out: line 19" in told.err and "4 of 18 rows are asked for" in told.err
    several = lines("several.jsonl", *({"words": f"a {kind}", "about": [kind, "any"]} for kind in ("cat", "dog")))
    columns = ["--columns", "text=words", "label=about"]
    assert main(["tune", "--task", "classify", "--way", "svm", "--several", "--data", several, *columns, "--out",
                 str(model / "several")]) == 0
    assert main(["evaluate", str(model / "several"), "--labels", several, *columns, "--json",
                 str(model / "several.json")]) == 0
    assert [score.name for score in load(model / "several.json")] == ["classification accuracy",
                                                                      "classification macro-F1"]


@pytest.mark.parametrize(("arguments", "sentence"), [
    (["--write", "2", "--labels", "labels.csv"], "give --corpus too"),
    (["--facts", "one.csv"], "at least two"),
    (["--facts", "facts.csv", "--forward", "{b} {a}"], "{a} once and, behind it, {b} once"),
    (["--facts", "labels.csv"], "no field 'a'"),
])
def test_more_mistakes_are_one_sentence(model, capsys, arguments, sentence):
    (model / "one.csv").write_text("a,b\nx,y\n")
    (model / "facts.csv").write_text("a,b\nx,y\nz,w\n")
    arguments = [str(model / one) if one.endswith(".csv") else one for one in arguments]
    assert main(["evaluate", str(model / "model"), *arguments]) == 2
    error = capsys.readouterr().err.strip()
    assert sentence in error and len(error.splitlines()) == 1


def test_pairs_may_be_asked_in_bfloat16(model, monkeypatch):
    monkeypatch.setattr("torch.cpu._is_avx512_bf16_supported", lambda: True)
    for precision in ("float32", "bfloat16"):
        assert main(["evaluate", str(model / "model"), "--pairs", str(model / "pairs.jsonl"), "--precision", precision,
                     "--json", str(model / f"{precision}.json")]) == 0
    exact, low = (load(model / f"{precision}.json") for precision in ("float32", "bfloat16"))
    assert [(one.mode, one.estimator, one.n) for one in exact] == [(one.mode, one.estimator, one.n) for one in low]
