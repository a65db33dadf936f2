"""Ways side by side: the setting is chosen on the rows kept back, rows that stand in the file are not run again."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from pathlib import Path

import pytest
from tests.evaluation.small import small
from tests.tasks.test_tasks import labelled

from bothways.errors import BothwaysError
from bothways.tasks.classify import Options, Task, as_rows
from bothways.tasks.comparison import Contender, Setting, compare, markdown, read, without_network
from bothways.tasks.tuning import TuneConfig

TRAIN, KEPT, TEST = (as_rows(labelled(n, seed)) for n, seed in ((60, 0), (20, 1), (30, 2)))
CONFIG = TuneConfig(steps=24, batch=16, learning_rate=2e-3, head_rate=1e-2)


def head(name="head", rates=(1e-9, 2e-3), **more):
    start = more.pop("start", lambda: small("masked", sharp=1.0))
    return Contender(name, start, tuple(Setting(f"rate {rate:g}", Options(), replace(
        CONFIG, learning_rate=rate, head_rate=5 * rate)) for rate in rates), **more)


def test_the_setting_is_the_one_that_is_best_on_the_rows_kept_back(tmp_path):
    out = tmp_path / "rows.jsonl"
    told = []
    found = compare([head(), *without_network(("bayes",))], TRAIN, KEPT, TEST, out, told.append)
    one, bayes = found
    assert one.chosen == "rate 0.002" and one.tried["rate 0.002"][0] > one.tried["rate 1e-09"][0]
    # what is scored was learned in full with it
    (chosen,) = [setting for setting in head().settings if setting.name == one.chosen]
    task = Task.fit(small("masked", sharp=1.0), TRAIN, [], chosen.options, chosen.config)
    assert one.scores["accuracy"][0] == task.scores(TEST)[0].value and one.parameters == task.parameters
    assert len(bayes.tried) == 3 and bayes.chosen in bayes.tried and bayes.tested == 30
    assert one.scores["accuracy"][1] <= one.scores["accuracy"][0] <= one.scores["accuracy"][2]
    # a second call runs nothing that stands there, and gives it back
    again = compare([head(start=None), head("other", start=None, tested=3)], TRAIN, KEPT, TEST, out, told.append)
    assert [row.name for row in again] == ["head", "bayes, TF-IDF", "other"] and again[0] == read(out, 60)[0]
    assert again[2].problem and again[2].tested == 3 and not again[2].scores
    table = markdown(again, 0.4)
    assert "| the commonest label | 0.400 |" in table and f"| other | {again[2].problem} |" in table
    assert table.splitlines()[2].startswith("| head ")


def test_a_setting_is_judged_on_the_rows_kept_back_after_a_third_of_the_steps():
    (found,) = compare([head()], TRAIN, KEPT, TEST)
    for setting in head().settings:
        task = Task.fit(small("masked", sharp=1.0), TRAIN, [], setting.options, replace(setting.config, steps=8))
        accuracy, _, nll, _ = (score.value for score in task.scores(KEPT))
        assert found.tried[setting.name] == (accuracy, nll) and nll != task.scores(TEST)[2].value


def test_a_file_of_other_rows_is_refused(tmp_path):
    out = tmp_path / "rows.jsonl"
    compare(without_network(("bayes",)), TRAIN, KEPT, TEST, out, lambda _: None)
    with pytest.raises(BothwaysError, match="line 1 was learned from 60 rows, but now there are 20"):
        compare(without_network(("bayes",)), KEPT, TRAIN, TEST, out, lambda _: None)
    out.write_text("no\n")
    with pytest.raises(BothwaysError, match="line 1 is no outcome"):
        read(out, 60)


def test_the_strength_of_baselines_is_what_it_says():
    accuracies = {}
    for strength in (1e-6, 10.0):
        task = Task.fit(None, TRAIN, [], Options(way="logistic", strength=strength), CONFIG)
        accuracies[strength] = float(task.way.weight.abs().max())
    assert accuracies[1e-6] < 0.01 < accuracies[10.0]
    with pytest.raises(BothwaysError, match="strength is -1, but must be above 0"):
        Options(way="svm", strength=-1)


def test_the_script_of_the_table_knows_its_rows(tmp_path, monkeypatch, capsys):
    for name, rows in (("train", TRAIN), ("test", TEST)):
        (tmp_path / f"{name}.jsonl").write_text("".join(
            json.dumps({"text": row.text, "label": row.labels[0]}) + "\n" for row in rows))
    script = Path(__file__).parents[2] / "docs" / "classifying_table.py"
    spec = importlib.util.spec_from_file_location("classifying_table", script)
    table = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(table)

    def said(*more):
        monkeypatch.setattr("sys.argv", ["table", "--train", str(tmp_path / "train.jsonl"), "--test",
                                         str(tmp_path / "test.jsonl"), "--out", str(tmp_path / "out.jsonl"),
                                         "--masked", "nowhere", *more])
        table.main()
        return capsys.readouterr().out

    listed = said("--list").splitlines()
    assert {"bayes, TF-IDF", "head, masked, mean", "prompt, masked", "neighbours, masked"} <= set(listed)
    assert not any("causal," in name for name in listed)
    done = said("--only", "bayes*", "--texts", "50")
    assert "45 texts to learn from, 5 to choose by, " in done and "| bayes, TF-IDF | " in done
