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
    ([], "give --corpus, --pairs or --labels"),
    (["--corpus", "nowhere.txt"], "nowhere.txt"),
    (["--pairs", "nowhere.jsonl"], "nowhere.jsonl"),
])
def test_mistakes_are_one_sentence(model, capsys, arguments, sentence):
    assert main(["evaluate", str(model / "model"), *arguments]) == 2
    error = capsys.readouterr().err.strip()
    assert sentence in error and len(error.splitlines()) == 1
