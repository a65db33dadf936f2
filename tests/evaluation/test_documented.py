"""Every Python call that docs/evaluation.md shows works, and the representation page says what its results say."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tests.evaluation.small import small

from bothways.cli import main
from bothways.evaluation.score import mean_score
from bothways.families.folder import save
from bothways.text.tokenizer import Tokenizer

DOCS = Path(__file__).parents[2] / "docs"
TEXT = "the cat sleeps and the dog barks at it, and nobody hears the cat. " * 20


def test_the_calls_of_the_page_on_measuring_work_as_printed(tmp_path, monkeypatch, capsys):
    save(small("causal", Tokenizer.train([TEXT], kind="bpe", size=320), width=16), tmp_path / "run/model")
    (tmp_path / "labels.csv").write_text("text,label\n" + "".join(
        f"the {'cat sleeps' if row % 2 else 'dog barks'} {row},{row % 2}\n" for row in range(20)))
    monkeypatch.chdir(tmp_path)
    assert main(["tune", "--task", "classify", "--way", "logistic", "--data", "labels.csv", "--out",
                 "my-classifier"]) == 0
    (code,) = re.findall(r"```python\n(import numpy.*?)```", (DOCS / "evaluation.md").read_text(), re.S)
    found: dict[str, object] = {}
    exec(compile(code, "docs/evaluation.md", "exec"), found)
    assert 0 <= found["kept"] <= 1 and len(found["curve"]) == 2 and found["heart"][0].n == 1
    assert {"tagging probe accuracy", "animal probe accuracy"} <= {score.name for score in found["known"]}


@pytest.fixture
def study(monkeypatch):
    """The modules of the study, and the names they took in `sys.modules` given back."""
    monkeypatch.syspath_prepend(str(DOCS / "representation"))
    before = set(sys.modules)
    import kept
    import page

    yield kept, page
    for name in set(sys.modules) - before:
        if str(DOCS) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def test_results_are_kept_once_and_shared_by_lanes(study, tmp_path):
    kept, _ = study
    made = []
    work = {name: lambda name=name: made.append(name) or 1.23456789 for name in "abcd"}
    kept.Kept(tmp_path, "part", (0, 2)).fill(work)
    with (tmp_path / "part.jsonl").open("a") as file:
        file.write('{"key": "b", "val')  # a process was killed here
    kept.Kept(tmp_path, "part", (1, 2)).fill(work)
    kept.Kept(tmp_path, "part").fill(work)
    assert made == ["a", "c", "b", "d"]
    assert kept.Kept(tmp_path, "part").all() == dict.fromkeys("abcd", 1.23457)


def test_intervals_and_verdicts(study):
    kept, _ = study
    mean, low, high = kept.spread([1.0, 2.0, 3.0])
    assert mean == 2.0 and high - mean == pytest.approx(4.302653 / math.sqrt(3), rel=1e-5) == mean - low
    # overlapping splits with a third tested: the variance of the mean is 1/3 + 1/2 of one value's
    assert kept.spread([1.0, 2.0, 3.0], 0.5)[2] - mean == pytest.approx(4.302653 * math.sqrt(1 / 3 + 1 / 2), rel=1e-5)
    assert kept.said((1.0, 0.5, 1.5)) == "reproduced" and kept.said((1.0, 0.5, 1.5), -1).startswith("not reproduced")
    assert kept.said((1.0, -0.5, 1.5)) == kept.said((1.0, math.nan, math.nan)) == "cannot be said"


def test_a_page_says_what_its_numbers_say(study, tmp_path):
    """Made-up accuracies with the published signs: the generative classifier leads with 8 labels, the head with 512."""
    _, page = study
    rng = np.random.default_rng(0)
    ahead = {"generative, from scratch": {8: 0.7, 512: 0.8}, "head, from scratch": {8: 0.6, 512: 0.9}}
    lines = [json.dumps({"key": f"intents | {arm} | {size} | {draw}", "value": value + rng.normal() / 100})
             for arm, sizes in ahead.items() for size, value in sizes.items() for draw in range(4)]
    (tmp_path / "f8.jsonl").write_text("\n".join(lines) + "\n")
    steps = {step: 0.5 + 0.02 * place for place, step in enumerate((16, 32, 64, 128, 256, 512))}
    (tmp_path / "f2.jsonl").write_text("".join(json.dumps({"key": f"text {name} step={step}", "value": {
        "entities": [value + bonus[step > 100] + rng.normal() / 1000 for _ in range(5)]}}) + "\n" for step, value in
        steps.items() for name, bonus in (("causal", (0.05, 0.0)), ("masked", (0.0, 0.05)))))
    page.write_page(tmp_path, tmp_path / "page.md")
    text = (tmp_path / "page.md").read_text()
    assert "few: reproduced; many: reproduced" in text and "the curves cross at" in text
    assert "early: reproduced; late: reproduced" in text and "cross at 91 steps" in text
    assert {file.name for file in (tmp_path / "pictures").iterdir()} == {
        "representation_few_labels.svg", "representation_early.svg"}


def test_minimal_pairs_are_compared_pair_by_pair(study, tmp_path):
    kept, page = study
    import f10_pairs

    wins = {("causal", "causal", "NLL, exact"): [1.0, 0.0] * 20, ("masked", "bidirectional", "PLL-word-l2r, pseudo"):
            [1.0] * 30 + [0.0] * 10, ("masked", "causal (off-mode)", "NLL, exact"): [0.0] * 40}
    data = {f"{name}, all pairs, nll": [mean_score("minimal pairs", mode, rule, items).to_dict()
                                        for (other, mode, rule), items in wins.items() if other == name]
            for name in ("causal", "masked")}
    (tmp_path / "pairs.json").write_text(json.dumps(data))
    f10_pairs.measure(kept.Kept(tmp_path, "f10"), tmp_path / "pairs.json")
    found = kept.Kept(tmp_path, "f10").all()["pairs"]
    assert found["masked minus causal"][0] == pytest.approx(0.25) and len(found["rows"]) == 3
    page.write_page(tmp_path, tmp_path / "page.md")
    text = (tmp_path / "page.md").read_text()
    assert "| F10, BLiMP, OpenStax prose, masked minus causal | masked ahead | 25.0 (" in text


def test_the_page_in_the_repository_is_what_its_results_say(study, tmp_path):
    _, page = study
    page.write_page(DOCS / "representation/results", tmp_path / "representation.md")
    assert (tmp_path / "representation.md").read_text() == (DOCS / "representation.md").read_text(), \
        "write it anew: python docs/representation page"


def test_the_study_tells_what_it_can_do():
    told = subprocess.run([sys.executable, str(DOCS / "representation"), "measure", "--help"], capture_output=True,
                          text=True, check=True).stdout
    assert "--lane" in told and "known, f2, f4, f8, f10, text" in told
