"""Tagging: words and their pieces, valid tags, long texts, files, folder and command."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from tests.evaluation.small import small

import bothways
from bothways import cli
from bothways.errors import BothwaysError
from bothways.evaluation.spans import bio_faults
from bothways.families import folder as models
from bothways.tasks import folder, rows, tag
from bothways.tasks.pieces import Window, joined, pieces, windows
from bothways.tasks.tag import Options, Row, Task
from bothways.tasks.tuning import TuneConfig
from bothways.text.tokenizer import Tokenizer

QUICK = TuneConfig(steps=120, batch=16, learning_rate=3e-3, head_rate=1e-2)


def row(words, tags=None):
    return Task.row({"text": words, "tags": tags})


def named(n: int, seed: int = 0, length: int = 7) -> list[Row]:
    """A dog and the w-word behind it are an animal; a cat alone is one."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(n):
        words = [f"w{i}" for i in rng.integers(0, 6, length)]
        tags = ["O"] * length
        place = int(rng.integers(0, length - 1))
        if rng.random() < 0.5:
            words[place], tags[place], tags[place + 1] = "dog", "B-beast", "I-beast"
        else:
            words[place], tags[place] = "cat", "B-beast"
        found.append(row(words, tags))
    return found


@pytest.mark.parametrize("paradigm", ["causal", "masked", "denoising", "diffusion"])
def test_every_paradigm_learns_names_and_its_network_is_left_alone(paradigm):
    trained = small(paradigm, sharp=1.0)
    before = {name: weight.clone() for name, weight in trained.network.state_dict().items()}
    task = Task.fit(trained, named(120), [], Options(), QUICK)
    scores = {score.name: score for score in task.scores(named(40, 1))}
    assert list(scores) == ["span F1", "span macro-F1", "tag accuracy", "tag macro-F1"]
    assert scores["span F1"].value > 0.9 and scores["span F1"].details["beast F1"] == scores["span F1"].value
    assert scores["tag accuracy"].n == 280
    assert all(torch.equal(weight, before[name]) for name, weight in trained.network.state_dict().items())


def test_right_context_is_learned_only_by_who_sees_it():
    def low(n, seed):
        ids = np.random.default_rng(seed).integers(0, 8, (n, 3))
        return [row([f"w{i}" for i in line], ["low" if line[1] < 4 else "high", "x", "x"]) for line in ids]

    trained, seen = small("causal", sharp=1.0), {}
    config = TuneConfig(steps=150, batch=32, learning_rate=4e-3, head_rate=1e-2)
    for name in ("causal", "bidirectional"):
        task = Task.fit(trained, low(300, 0), [], Options(visibility=name), config)
        assert not task.entities
        seen[name] = task.scores(low(100, 1))[0]
    assert seen["bidirectional"].value > 0.95 and seen["causal"].value < 0.9
    assert seen["causal"].mode == "causal" and seen["causal"].name == "tag accuracy"


@pytest.fixture(scope="module")
def crf():
    return Task.fit(small("masked", sharp=1.0), named(200), named(30, 1), Options(crf=True), QUICK)


def test_a_crf_learns_names_and_its_folder_comes_back_to_the_bit(crf, tmp_path):
    asked = named(30, 2)
    assert crf.scores(asked)[0].value > 0.8
    folder.save(crf, tmp_path / "out")
    again = folder.load(tmp_path / "out", "tag")
    assert all((one == other).all() for one, other in zip(crf.each_score(asked), again.each_score(asked)))
    assert again.predict(asked) == crf.predict(asked) and again.best_tags(asked) == crf.best_tags(asked)
    card = (tmp_path / "out" / "README.md").read_text()
    assert "It knows 1 types (beast)" in card
    ask = bothways.pipeline("tag", tmp_path / "out")
    (found,) = ask("w1 w2 dog w3 w1")
    assert found["type"] == "beast" and (found["start"], found["end"], found["text"]) == (6, 12, "dog w3")
    assert 0.5 < found["probability"] <= 1
    assert ask([["w1", "cat"], "cat w1"])[0][0]["text"] == "cat"
    data = json.loads((tmp_path / "out" / "task.json").read_text())
    data["settings"]["tags"].append("B-more")
    (tmp_path / "out" / "task.json").write_text(json.dumps(data))
    with pytest.raises(BothwaysError, match="do not fit together"):
        folder.load(tmp_path / "out")


@pytest.mark.parametrize("options", [Options(), Options(crf=True)])
def test_tags_are_valid_whatever_the_head_says(options):
    trained = small("masked")
    task = Task(trained, ("O", "B-a", "I-a", "B-b", "I-b"), options, 64)
    rng = np.random.default_rng(0)
    scores = [rng.normal(size=(9, 5)).astype(np.float32) * 3 for _ in range(30)]
    freely = [[task.tags[i] for i in one.argmax(-1)] for one in scores]
    found = [[task.tags[i] for i in task._best(one)] for one in scores]
    assert any(bio_faults(tags) for tags in freely) and not any(bio_faults(tags) for tags in found)
    assert any("I-a" in tags for tags in found)
    # what is valid as it is stays
    assert all(one == other for one, other in zip(found, freely) if not bio_faults(other))


def test_words_stand_at_their_first_or_last_piece():
    tokenizer = Tokenizer.train(["ab cd abcd the a b c d"] * 3, "bytes")
    text, words = joined(["ab", "c", "déj"])
    found = pieces(tokenizer, text)
    # bytes: a b _ c _ d é é j
    assert [found.over(*word) for word in words] == [(0, 2), (3, 4), (5, 9)]
    trained = small("masked", tokenizer)
    for piece, places in (("first", [1, 4, 6]), ("last", [2, 4, 9])):
        (part,) = Task(trained, ("O", "B-a"), Options(piece=piece), 64)._parts([row(["ab", "c", "déj"])])
        assert part.places.tolist() == places and part.words.tolist() == [0, 1, 2]


def test_windows_by_hand():
    assert windows(5, 8, 2) == [Window(0, 5, 0, 5)] and windows(0, 8, 2) == [Window(0, 0, 0, 0)]
    assert windows(20, 8, 4) == [Window(0, 8, 0, 6), Window(4, 12, 6, 10), Window(8, 16, 10, 14),
                                 Window(12, 20, 14, 20)]
    for length in range(1, 40):
        found = windows(length, 7, 3)
        assert [one for each in found for one in range(each.first, each.last)] == list(range(length))
        assert all(one.start <= one.first <= one.last <= one.end for one in found)
    with pytest.raises(BothwaysError, match="cannot overlap"):
        windows(20, 8, 8)


def test_long_texts_are_tagged_to_their_end(crf):
    (long,) = named(1, 5, 300)
    task = Task(crf.trained, crf.tags, Options(crf=True, overlap=4), 20, crf.head)
    found = task.best_tags([long])[0]
    assert len(found) == 300 and found == long.tags
    assert len(task._parts([long])) > 15
    alone = task.each_score([long])[0]
    assert task.each_score([*named(3), long], tokens=64)[3] == pytest.approx(alone, abs=1e-4)


@pytest.mark.parametrize(("values", "why"), [
    ({"text": ["a", "b"], "tags": ["O"]}, "2 words and 1 tags"),
    ({"text": [], "tags": []}, "no words"),
    ({"text": ["a", 1], "tags": ["O", "O"]}, "the words are no list of words"),
    ({"text": 3}, "the text is int"),
    ({"text": "a dog here", "tags": [[2, 5, "x"], [2, 5, "y"]]}, r"2 to 5 \('dog'\) overlaps another"),
    ({"text": "a dog here", "tags": [[2, 4, "x"]]}, r"2 to 4 \('do'\) does not begin and end with a word"),
    ({"text": "a dog here", "tags": [{"start": 2, "label": "x"}]}, "is not {start, end, label}")])
def test_bad_rows_say_why(values, why):
    with pytest.raises(rows.BadRow, match=why):
        Task.row(values)


def test_rows_from_json_lines_conll_and_spans(tmp_path):
    def read(name, content):
        (tmp_path / name).write_text(content)
        return rows.read(tmp_path / name, Task.roles, Task.row)

    lines = [{"tokens": ["a", "dog"], "tags": ["O", "B-x"]}, {"tokens": ["a"], "tags": ["O", "O"]}]
    found = read("a.jsonl", "\n".join(map(json.dumps, lines)))
    assert found.items == (Row("a dog", ((0, 1), (2, 5)), ("O", "B-x")),)
    assert found.bad == ((2, "1 words and 2 tags"),)
    found = read("a.conll", "-DOCSTART- O\n\na\tO\ndog\tB-x\n\n\nno\n\nonly O\nhalf\n\na NN O\n")
    assert [(one.text, one.tags) for one in found.items] == [("a dog", ("O", "B-x")), ("a", ("O",))]
    assert found.lines == (3, 12) and found.bad == ((7, "no field 'tags'"), (9, "the word in line 10 has no tag"))
    found = read("b.jsonl", json.dumps({"text": "Mr. Dog's here", "spans": [{"start": 4, "end": 9, "label": "x"}]}))
    assert found.items[0].tags == ("O", "O", "B-x", "O")
    with pytest.raises(BothwaysError, match=r"none of the usual columns for the tags .*there are: tokens, marks"):
        read("c.jsonl", json.dumps({"tokens": ["a"], "marks": ["O"]}))


@pytest.mark.parametrize(("some", "why"), [
    ([], "needs tagged texts"), ([row(["a", "b"])], "1 texts have no tags"),
    ([row(["a"], ["O"])], "at least two tags"), ([row(["a", "b"], ["B-x", "dog"])], "write B-dog")])
def test_what_cannot_be_learned_is_refused(some, why):
    with pytest.raises(BothwaysError, match=why):
        Task.fit(small("masked"), some, [], Options(), QUICK)


def test_other_schemes_are_learned_as_bio():
    assert tag.tags_of([row(["a", "b"], ["I-x", "S-y"])]) == ("O", "B-x", "B-y", "I-x", "I-y")


def test_the_commands_from_file_to_entities(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    models.save(small("masked", sharp=1.0), tmp_path / "model")
    lines = [f"{row.text[start:end]}\t{tagged}" if part else "" for row in named(100)
             for part in (1, 0) for (start, end), tagged in (zip(row.words, row.tags) if part else [((0, 0), "")])]
    (tmp_path / "train.conll").write_text("\n".join(lines))
    assert cli.main(["tune", "--task", "tag", "--from", "model", "--data", "train.conll", "--keep", "0.2", "--out",
                     "my-tagger", "--epochs", "12", "--learning-rate", "3e-3", "--head-rate", "1e-2"]) == 0
    assert "dev span F1" in capsys.readouterr().out
    assert cli.main(["tag", "my-tagger", "w1 cat w2 w3"]) == 0
    assert json.loads(capsys.readouterr().out) == {"line": 1, "entities": [
        {"type": "beast", "text": "cat", "start": 3, "end": 6, "probability": pytest.approx(0.8, abs=0.2)}]}
    (tmp_path / "texts.jsonl").write_text('{"text": "a cat"}\n{"text": ""}\n{"tokens": ["cat", "w1"]}\n')
    assert cli.main(["tag", "my-tagger", "--data", "texts.jsonl", "--out", "entities.jsonl"]) == 1
    found = [json.loads(line) for line in (tmp_path / "entities.jsonl").read_text().splitlines()]
    assert [sorted(one) for one in found] == [["entities", "line"], ["error", "line"], ["entities", "line"]]
