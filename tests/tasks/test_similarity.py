"""Comparing texts: both encoders from scores and from positives, search, files, folders and commands."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from tests.evaluation.small import small

import bothways
from bothways import cli
from bothways.errors import BothwaysError
from bothways.evaluation.features import text_features
from bothways.families import folder as models
from bothways.tasks import folder, retrieve, rows
from bothways.tasks.retrieve import Index
from bothways.tasks.similarity import Options, Row, Task
from bothways.tasks.tuning import TuneConfig

QUICK = TuneConfig(steps=80, batch=16, learning_rate=2e-3, head_rate=1e-2)


def scored(n: int, seed: int = 0, way: str = "bi") -> list[Row]:
    """Texts of two words; the score counts those that both have, or, easier to see together, small first numbers."""
    table = np.random.default_rng(seed).integers(0, 4, (n, 4))
    return [Row(f"w{a} w{b} .", f"w{c} w{d} the", 1.0 + (len({a, b} & {c, d}) if way == "bi" else int(a < 2) + (c < 2)))
            for a, b, c, d in table]


def belonging(n: int, seed: int = 0, negatives: bool = False) -> list[Row]:
    """A word of one kind belongs to the word of another kind with its number."""
    numbers = np.random.default_rng(seed).integers(0, 8, n)
    return [Row(f"w{i} the", f"w{i + 10} .", None, (f"w{(i + 1) % 8 + 10} .",) if negatives else ()) for i in numbers]


@pytest.mark.parametrize("way", ["bi", "cross"])
def test_scores_of_pairs_are_learned_and_the_folder_comes_back_to_the_bit(way, tmp_path):
    trained = small("masked", sharp=1.0)
    before = {name: weight.clone() for name, weight in trained.network.state_dict().items()}
    task = Task.fit(trained, scored(300, 0, way), scored(40, 1, way), Options(way=way), QUICK)
    assert all(torch.equal(weight, before[name]) for name, weight in trained.network.state_dict().items())
    some = scored(80, 2, way)
    spearman, pearson = task.scores(some)
    assert spearman.name == "similarity Spearman" and min(spearman.value, pearson.value) > 0.55
    assert spearman.details["low"] < spearman.value < spearman.details["high"]
    assert task.span == (1.0, 3.0) and 0.5 < np.mean(task.predict(some)) < 3
    folder.save(task, tmp_path / "out")
    again = folder.load(tmp_path / "out", "similarity")
    pairs = [(row.text, row.other) for row in some]
    assert (again.compare(pairs) == task.compare(pairs)).all() and again.predict(some) == task.predict(some)
    assert "scores of pairs" in (tmp_path / "out" / "README.md").read_text()
    ask = bothways.pipeline("similarity", tmp_path / "out")
    assert ask(("w1 w2 .", "w1 w2 the")) > ask(("w2 w2 .", "w3 w3 the"))
    alone = np.concatenate([task.compare([pair]) for pair in pairs[:10]])
    assert task.compare(pairs[:10], tokens=16) == pytest.approx(alone, abs=1e-5)


@pytest.mark.parametrize(("way", "negatives"), [("bi", False), ("bi", True), ("cross", False), ("cross", True)])
def test_what_belongs_together_is_learned_from_positives(way, negatives):
    trained = small("causal", sharp=1.0)
    options = Options(way=way, learn="positives", pooling="last")
    untuned = Task(trained, options).scores(belonging(40, 1))[0].value
    task = Task.fit(trained, belonging(200, 0, negatives), [], options, QUICK)
    scores = {score.name: score for score in task.scores(belonging(40, 1))}
    assert list(scores) == ["retrieval MRR@10", "retrieval recall@1", "retrieval recall@10", "retrieval nDCG@10"]
    assert scores["retrieval MRR@10"].value > 0.9 > untuned and scores["retrieval recall@10"].value == 1.0
    assert scores["retrieval MRR@10"].estimator.endswith("among 8 texts")


def test_infonce_by_hand():
    trained = small("masked", sharp=1.0)
    task = Task(trained, Options(learn="positives", temperature=0.5))
    train = [Row("w1", "w2", None, ("w5",)), Row("w3", "w4"), Row("w1", "w6"), Row("w7", "w2")]
    loss = float(task._bi_loss(train)([0, 1, 2, 3], 0).detach())
    left, right = task.vectors(["w1", "w3", "w1", "w7"]), task.vectors(["w2", "w4", "w6", "w2", "w5"])
    scores = left @ right.T / 0.5
    # w2 and w6 both answer w1, and w2 is the text of two rows: neither is wrong where the other is right
    for line, column in ((0, 2), (2, 0), (0, 3), (3, 0)):
        scores[line, column] = -np.inf
    wanted = np.mean([np.log(np.exp(line).sum()) - line[i] for i, line in enumerate(scores)])
    assert loss == pytest.approx(wanted, abs=1e-5)


def test_untuned_vectors_are_the_mean_states():
    trained = small("masked", sharp=1.0)
    texts = ["w1 w2", "dog"]
    plain = text_features(trained, [np.array([1, *trained.tokenizer.encode(text), trained.vocabulary.eos])
                                    for text in texts])
    found = Task(trained, Options(pooling="mean")).vectors(texts)
    assert found == pytest.approx(plain / np.linalg.norm(plain, axis=1, keepdims=True), abs=1e-5)
    assert Task(trained, Options()).vectors([]).shape == (0, 32)


def test_what_cannot_be_learned_is_refused():
    trained = small("masked")
    for train, options, why in [
            ([], Options(), "give some"), ([Row("a", "b")], Options(), "--learn positives"),
            ([Row("a", "b", 1.0), Row("b", "a", 1.0)], Options(), "all 2 pairs have the score 1"),
            ([Row("a", "b"), Row("c", "b")], Options(learn="positives"), "two different other texts")]:
        with pytest.raises(BothwaysError, match=why):
            Task.fit(trained, train, [], options, QUICK)
    with pytest.raises(BothwaysError, match="has no vector for one"):
        Task(trained, Options(way="cross")).vectors(["a"])
    with pytest.raises(BothwaysError, match="way is 'by'"):
        Options(way="by")


@pytest.mark.parametrize(("values", "why"), [
    ({"text": "a"}, "no other text"), ({"text": "a", "other": "b", "score": "much"}, "a number is wanted"),
    ({"text": "a", "other": "b", "score": "nan"}, "a finite number"),
    ({"text": "a", "other": "b", "negatives": ["c", " "]}, "the negative is empty")])
def test_bad_rows_say_why(values, why):
    with pytest.raises(rows.BadRow, match=why):
        Task.row(values)


def test_rows_of_both_forms(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"sentence_a": "a", "sentence_b": "b", "relatedness": "4.5", "x": 1}\n')
    (tmp_path / "b.csv").write_text("query,positive,negative\na,b,c\nd,e,\n")
    first, second = (rows.read(tmp_path / name, Task.roles, Task.row) for name in ("a.jsonl", "b.csv"))
    assert first.items == (Row("a", "b", 4.5),)
    assert second.items == (Row("a", "b", None, ("c",)),) and second.bad == ((3, "the negative is empty"),)


def test_search_finds_what_brute_force_finds_and_comes_back_from_its_folder(tmp_path, monkeypatch):
    task = Task(small("masked", sharp=1.0), Options())
    texts = [f"w{i} w{j}" for i in range(8) for j in range(8)]
    index = Index.build(task, ["", *texts], "some model")
    queries = ["w1 w2", "dog near"]
    cosines = task.vectors(queries) @ task.vectors(texts).T
    monkeypatch.setattr(retrieve, "BLOCK", 10)
    for hits, line in zip(index.search(task, queries, 5), cosines):
        assert [hit.number for hit in hits] == np.argsort(-line, kind="stable")[:5].tolist()
        assert [hit.score for hit in hits] == pytest.approx(np.sort(line)[::-1][:5], abs=1e-4)
    assert index.search(task, queries[:1], 1)[0][0].text == "w1 w2" and len(index.search(task, ["dog"], 100)[0]) == 64
    index.save(tmp_path / "index")
    again = Index.load(tmp_path / "index")
    assert isinstance(again.vectors, np.memmap) and (again.vectors == index.vectors).all()
    assert again.search(task, queries, 5) == index.search(task, queries, 5)
    index.save(tmp_path / "index")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["index"]
    with pytest.raises(BothwaysError, match="made by 'some model'"):
        again.search(Task(small("masked", width=16), Options()), queries)
    with pytest.raises(BothwaysError, match="at least one"):
        index.search(task, queries, 0)
    with pytest.raises(BothwaysError, match="no text to search"):
        Index.build(task, ["", " "])
    (tmp_path / "index" / "texts.jsonl").write_text('{"text": "one"}\n')
    with pytest.raises(BothwaysError, match="is damaged"):
        Index.load(tmp_path / "index")
    (tmp_path / "other").mkdir()
    with pytest.raises(BothwaysError, match="is no index"):
        index.save(tmp_path / "other")


def test_the_commands_from_file_to_scores_and_search(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    models.save(small("masked", sharp=1.0), tmp_path / "model")
    (tmp_path / "pairs.csv").write_text("sentence1,sentence2,score\n" + "".join(
        f"{row.text},{row.other},{row.score}\n" for row in scored(100)) + "w1,,2\n")
    assert cli.main(["tune", "--task", "similarity", "--from", "model", "--data", "pairs.csv", "--keep", "0.2", "--out",
                     "my-encoder", "--epochs", "8", "--learning-rate", "2e-3"]) == 0
    printed = capsys.readouterr()
    assert "line 102 (the other text is empty)" in printed.err and "Spearman" in printed.out
    assert cli.main(["similarity", "my-encoder", "w1 w2 .", "w1 w2 the"]) == 0
    assert 1 < json.loads(capsys.readouterr().out)["score"] <= 3.1
    assert cli.main(["similarity", "my-encoder", "--data", "pairs.csv", "--out", "scores.csv"]) == 1
    assert len((tmp_path / "scores.csv").read_text().splitlines()) == 102
    assert cli.main(["similarity", "my-encoder", "one"]) == 2
    assert "two texts are compared, and 1 were given" in capsys.readouterr().err
    (tmp_path / "notes.txt").write_text("w1 dog\n\nw2 cat\nw3 near\n")
    for model in ("model", "my-encoder"):
        assert cli.main(["retrieve", model, "w2 cat", "--texts", "notes.txt", "--top", "2", "--index", "my-index"]) == 0
        first = capsys.readouterr().out
        hits = [json.loads(line) for line in first.splitlines()]
        assert [hit["rank"] for hit in hits] == [1, 2] and hits[0]["text"] == "w2 cat" and hits[0]["number"] == 1
        assert cli.main(["retrieve", model, "w2 cat", "--top", "2", "--index", "my-index"]) == 0
        assert capsys.readouterr().out == first
    assert cli.main(["retrieve", "model", "w2 cat"]) == 2
    assert "say where to search" in capsys.readouterr().err
