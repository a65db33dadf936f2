"""The frame of all tasks: the loop's options, the folder, from files to a folder and back."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.evaluation.small import small
from tests.tasks.test_tasks import labelled

import bothways
from bothways import cli
from bothways.errors import BothwaysError
from bothways.families import folder as models
from bothways.tasks import folder, tuning
from bothways.tasks.classify import Options, Row, Task, as_rows
from bothways.tasks.rows import Rows
from bothways.tasks.run import Data, tuned
from bothways.tasks.tuning import TuneConfig, tune

QUICK = TuneConfig(steps=30, batch=16, learning_rate=2e-3, head_rate=1e-2)


@pytest.mark.parametrize(("name", "value"), [
    ("steps", 0), ("epochs", 0.0), ("batch_tokens", -1), ("layer_decay", 1.5), ("warm_up", -0.1), ("moves", "some"),
    ("precision", "float16"), ("patience", -1), ("rank", 0), ("learning_rate", 0.0)])
def test_options_are_checked_at_once(name, value):
    with pytest.raises(BothwaysError, match=f"'{name}'"):
        TuneConfig(**{name: value})


def test_batches_of_like_length_use_every_text_once_and_keep_their_budget():
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 50, 100).tolist()
    order = tuning.like_lengths(lengths, 8, 120, rng)
    seen, spread = [], []
    while len(seen) < 100:
        batch = next(order)
        assert len(batch) <= 8 and (sum(lengths[i] for i in batch) <= 120 or len(batch) == 1)
        spread.append(max(lengths[i] for i in batch) - min(lengths[i] for i in batch))
        seen += batch
    assert sorted(seen) == list(range(100)) and np.mean(spread) < 6


def test_a_rate_that_is_not_said_fits_the_size():
    assert TuneConfig(learning_rate=None).rate(4_000_000) == 1e-3
    assert TuneConfig(learning_rate=None).rate(22_000_000) == 1e-4
    assert TuneConfig(learning_rate=3e-4).rate(4_000_000) == TuneConfig(learning_rate=3e-4).rate(10**9) == 3e-4


def test_lower_layers_learn_slower_and_a_frozen_trunk_not_at_all():
    trained = small("masked", sharp=1.0)
    network = trained.network
    weights = tuning._trunk_weights(network, 1.0, 0.5)
    names = {id(weight): name for name, weight in network.named_parameters()}
    rates = {names[id(weight)]: rate for weight, rate in weights}
    assert rates["tower.blocks.1.feed_forward.down.weight"] == 1.0
    assert rates["tower.blocks.0.feed_forward.down.weight"] == 0.5 and rates["embedding.weight"] == 0.25
    model = Task.fit(trained, as_rows(labelled(60)), [], Options(), replace(QUICK, moves="head"))
    before = trained.network.state_dict()
    assert all(torch.equal(weight, before[name]) for name, weight in model.trained.network.state_dict().items())
    assert all(weight.requires_grad for weight in model.trained.network.parameters())


def test_the_best_weights_are_put_back_and_patience_ends_early():
    layer = torch.nn.Linear(1, 1)
    values = iter([0.1, 0.9, 0.3, 0.2, 0.8])
    states = []

    def judge():
        states.append(layer.weight.detach().clone())
        return next(values)

    done = tune(layer, None, 4, lambda places, step: layer(torch.ones(1, 1)).sum(),
                TuneConfig(steps=10, evaluations=5, patience=2), judge=judge)
    assert [step for step, _ in done.judged] == [1, 3, 5, 7] and done.best == 3 and len(done.losses) == 8
    assert torch.equal(layer.weight, states[1]) and not torch.equal(states[1], states[3])


def test_classes_weigh_the_same():
    weights = tuning.class_weights([0, 0, 0, 1], 3)
    assert weights.tolist() == pytest.approx([2 / 3, 2.0, 0.0])


@pytest.fixture(scope="module")
def model():
    """A tuned classifier with the scores of a run over two seeds."""
    rows = as_rows(labelled(80))
    given = Data(Rows.of(rows[:60]), Rows.of(rows[60:]), Rows.of(as_rows(labelled(30, 1))))
    told = []
    result = tuned(Task, small("masked", sharp=1.0), given, Options(), QUICK, seeds=2, tell=told.append)
    return result, told


def test_several_seeds_are_reported_and_the_best_on_dev_is_kept(model):
    result, told = model
    assert len(told) == 2 and told[0].startswith("seed 0: dev classification accuracy")
    runs = result.report["seeds"]
    best = max(run["dev classification accuracy"] for run in runs)
    assert result.scores[0].value == best
    mean = np.mean([run["test classification accuracy"] for run in runs])
    assert result.report["over seeds"]["test classification accuracy"]["mean"] == pytest.approx(mean)


def test_who_stops_it_while_it_is_scored_keeps_what_was_learned(tmp_path, monkeypatch, capsys):
    rows = [json.dumps({"text": text, "label": label}) for text, label in labelled(40)]
    (tmp_path / "rows.jsonl").write_text("\n".join(rows))
    models.save(small("masked", sharp=1.0), tmp_path / "model")
    scores, asked = Task.scores, []

    def stopped_the_second_time(task, some, *more):
        asked.append(len(some))
        if len(asked) > 1:
            raise KeyboardInterrupt
        return scores(task, some, *more)

    monkeypatch.setattr(Task, "scores", stopped_the_second_time)
    call = ["tune", "--data", str(tmp_path / "rows.jsonl"), "--dev", str(tmp_path / "rows.jsonl"), "--from",
            str(tmp_path / "model"), "--steps", "30", "--seeds", "2", "--learning-rate", "2e-3", "--out"]
    # 1. while the second seed is scored: the first stands with its scores
    assert cli.main([*call, str(tmp_path / "two")]) == 130
    assert "stopped by the user while seed 1 was being scored: what was learned is saved" in capsys.readouterr().err
    task = json.loads((tmp_path / "two" / "task.json").read_text())
    assert [score["name"] for score in task["scores"]][:1] == ["dev classification accuracy"]
    assert "over seeds" not in task["report"] and "stopped by the user" in (tmp_path / "two" / "README.md").read_text()
    # 2. while the only one is: it stands without
    assert cli.main([*call, str(tmp_path / "one")]) == 130 and len(asked) == 3
    task = json.loads((tmp_path / "one" / "task.json").read_text())
    assert task["scores"] == [] and folder.load(tmp_path / "one").predict(as_rows(labelled(5, 2)))


def test_a_folder_comes_back_to_the_bit_and_explains_itself(model, tmp_path):
    result, _ = model
    rows = as_rows(labelled(20, 2))
    folder.save(result.task, tmp_path / "out", result.report, result.scores)
    again = folder.load(tmp_path / "out", "classify")
    assert (again.predict_proba(rows) == result.task.predict_proba(rows)).all()
    assert again.labels == ("cat", "dog", "sees")
    card = (tmp_path / "out" / "README.md").read_text()
    assert "test classification accuracy" in card and "## Limits" in card and "sha256" in card
    stored = json.loads((tmp_path / "out" / "task.json").read_text())
    assert stored["scores"][0]["low"] <= stored["scores"][0]["value"] <= stored["scores"][0]["high"]
    assert not list(tmp_path.glob(".*")), "nothing half-written stays"
    ask = bothways.pipeline("classify", tmp_path / "out")
    assert ask(rows[0].text) == again.predict(rows[:1])[0]
    assert ask([row.text for row in rows]) == again.predict(rows)
    with pytest.raises(BothwaysError, match="reads no 'words'"):
        ask({"words": "x"})


def test_what_is_no_tuned_folder_is_refused(model, tmp_path):
    models.save(small("masked"), tmp_path / "plain")
    with pytest.raises(BothwaysError, match="tuned for no task"):
        folder.load(tmp_path / "plain")
    folder.save(model[0].task, tmp_path / "out")
    file = tmp_path / "out" / "task.json"
    data = json.loads(file.read_text())
    file.write_text(json.dumps({**data, "format": 9}))
    with pytest.raises(BothwaysError, match="format version 9"):
        folder.load(tmp_path / "out")
    file.write_text(json.dumps({**data, "kind": "tga"}))
    with pytest.raises(BothwaysError, match="no task 'tga'"):
        folder.load(tmp_path / "out")
    file.write_text(json.dumps(data))
    (tmp_path / "out" / "head.safetensors").write_bytes(b"damaged")
    with pytest.raises(BothwaysError, match=r"head\.safetensors is damaged"):
        folder.load(tmp_path / "out")


def test_the_commands_from_file_to_answers(tmp_path, capsys):
    models.save(small("causal", sharp=1.0), tmp_path / "model")
    rows = labelled(60)
    train, bad, out = tmp_path / "train.csv", tmp_path / "ask.csv", tmp_path / "out"
    train.write_text("text,category\n" + "".join(f"{text},{label}\n" for text, label in rows) + ",cat\n")
    call = ["tune", "--task", "classify", "--from", str(tmp_path / "model"), "--data", str(train), "--keep", "0.2",
            "--test", str(train), "--out", str(out), "--steps", "20", "--learning-rate", "2e-3", "--pooling", "last"]
    assert cli.main(call) == 0
    printed = capsys.readouterr()
    assert "line 62 (the text is empty)" in printed.err and "rows stand in" in printed.err
    assert "saved to" in printed.out
    assert json.loads((out / "task.json").read_text())["report"]["tuning"]["steps"] == 20
    bad.write_text('text\nw1 w2 cat .\n"broken\nw3 dog .\n')
    assert cli.main(["classify", str(out), "--data", str(bad), "--out", str(tmp_path / "p.csv")]) == 1
    lines = (tmp_path / "p.csv").read_text().splitlines()
    assert lines[0] == "line,label,probability,error" and [line.split(",")[0] for line in lines[1:]] == ["2", "3", "4"]
    assert "never closed" in lines[2] and lines[1].split(",")[1] in ("cat", "dog", "sees")
    assert cli.main(["classify", str(out), "w1 w2 cat ."]) == 0
    capsys.readouterr()
    # of several texts in a call, one that is empty costs its own answer
    assert cli.main(["classify", str(out), "w1 w2 cat .", " ", "w3 dog ."]) == 1
    assert [json.loads(line).keys() >= {"label"} for line in capsys.readouterr().out.splitlines()] == [
        True, False, True]
    assert cli.main(["tune", "--task", "tga", "--data", "x", "--out", "y"]) == 2
    assert "no task 'tga'" in capsys.readouterr().err


@pytest.mark.parametrize(("out", "more", "words"), [
    ("mine", (), "holds other files (notes.txt) and no tuned task: choose a new or empty folder"),
    ("mine/notes.txt", (), "notes.txt is a file, but a tuned task is a folder"),
    ("mine/notes.txt/new", (), "notes.txt is a file, but a tuned task is a folder"),
    ("new", ("--keep", "2"), "keep is 2, but a share of the rows lies between 0 and 1"),
])
def test_nothing_of_the_users_is_replaced(tmp_path, capsys, out, more, words):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep me")
    assert cli.main(["tune", "--task", "classify", "--data", "train.csv", "--out", str(tmp_path / out), *more]) == 2
    assert words in capsys.readouterr().err
    assert (tmp_path / "mine" / "notes.txt").read_text() == "keep me" and len(list(tmp_path.iterdir())) == 1


def test_pairs_and_several_labels(tmp_path):
    trained = small("masked", sharp=1.0)
    rng = np.random.default_rng(0)

    def row(kind):
        one, two = (f"w{i}" for i in rng.integers(0, 4, 2))
        pairs = kind == "pairs"
        labels = ("same" if one == two else "other",) if pairs else tuple(sorted({one, two}))
        return Row(one, two, labels) if pairs else Row(f"{one} {two}", None, labels)

    config = TuneConfig(steps=150, batch=32, learning_rate=3e-3, head_rate=1e-2)
    several = Task.fit(trained, [row("several") for _ in range(100)], [], Options(several=True), config)
    asked = [row("several") for _ in range(40)]
    assert several.scores(asked)[0].value > 0.9 and several.scores(asked)[1].value > 0.9
    assert isinstance(several.predict(asked)[0], tuple)
    with pytest.raises(BothwaysError, match="--several"):
        Task.fit(trained, asked, [], Options(), config)
    pairs = Task.fit(trained, [row("pairs") for _ in range(200)], [], Options(pooling="first"), config)
    assert pairs.scores([row("pairs") for _ in range(60)])[0].value > 0.6

