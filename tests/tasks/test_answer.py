"""Answering: where the answer lies, long contexts, none at all, files, folder and command."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
import torch
from tests.evaluation.small import small

import bothways
from bothways import cli
from bothways.errors import BothwaysError
from bothways.families import folder as models
from bothways.tasks import answer, folder, rows
from bothways.tasks.answer import Options, Row, Task, best_span
from bothways.tasks.pieces import pieces
from bothways.tasks.tuning import TuneConfig

QUICK = TuneConfig(steps=110, batch=16, learning_rate=3e-3, head_rate=1e-2)
SMALL = Options(question_tokens=4, answer_tokens=4)


def asked(n: int, seed: int = 0, length: int = 8, none: float = 0.0) -> list[Row]:
    """The dog sees the one low word, the cat the one high word, among words between."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(n):
        words = [f"w{i}" for i in rng.integers(4, 10, length)]
        low, high = (int(place) for place in rng.choice(length, 2, replace=False))
        words[low], words[high] = f"w{rng.integers(0, 4)}", f"w{rng.integers(10, 14)}"
        who, place = ("dog", low) if rng.random() < 0.5 else ("cat", high)
        truth = [{"text": words[place], "answer_start": len(" ".join([*words[:place], ""]))}]
        if rng.random() < none:
            words[place], truth = "w9", []
        found.append(Task.row({"question": f"{who} sees", "context": " ".join(words), "answers": truth}))
    return found


@pytest.fixture(scope="module")
def reader():
    return Task.fit(small("masked", sharp=1.0), asked(300), asked(40, 1), SMALL, QUICK)


@pytest.mark.parametrize("paradigm", ["causal", "denoising"])
def test_other_paradigms_read_too_and_their_networks_are_left_alone(paradigm):
    trained = small(paradigm, sharp=1.0)
    before = {name: weight.clone() for name, weight in trained.network.state_dict().items()}
    task = Task.fit(trained, asked(300), [], SMALL, QUICK)
    f1, exact = task.scores(asked(60, 1))
    assert f1.value > 0.8 and exact.value > 0.8, "a blind guess is right one time in eight"
    assert all(torch.equal(weight, before[name]) for name, weight in trained.network.state_dict().items())


def test_the_folder_comes_back_to_the_bit(reader, tmp_path):
    some = asked(40, 2)
    scores = reader.scores(some)
    assert [score.name for score in scores] == ["answer F1", "exact match"]
    assert scores[0].value > 0.9 and scores[0].n == 40
    folder.save(reader, tmp_path / "out")
    again = folder.load(tmp_path / "out", "answer")
    assert again.spans(some) == reader.spans(some)
    assert "answers every question" in (tmp_path / "out" / "README.md").read_text()
    ask = bothways.pipeline("answer", tmp_path / "out")
    assert ask(("dog sees", "w5 w6 w1 w7 w12 w5")) == "w1"
    assert ask([{"question": "cat sees", "context": "w5 w6 w1 w7 w12 w5"}]) == ["w12"]
    with pytest.raises(BothwaysError, match="no context"):
        ask("dog sees")


def test_an_answer_is_found_in_a_long_context_and_alone_as_in_company(reader):
    long = [Row(row.question, f"{'w5 w6 ' * 40}{row.context} {'w5 w6 ' * 40}") for row in asked(10, 3)]
    task = Task(reader.trained, Options(overlap=8, question_tokens=4, answer_tokens=4), 20, False, None, reader.head)
    assert len(task._parts(long[:1], [pieces(reader.trained.tokenizer, long[0].context)])) > 10
    truth = [row.answers[0][1] for row in asked(10, 3)]
    found = task.spans(long)
    assert np.mean([one.text == other for one, other in zip(found, truth)]) > 0.7
    assert all(row.context[one.start:].startswith(one.text) for one, row in zip(found, long))
    for one, row in zip(found, long):
        (alone,) = task.spans([row], tokens=40)
        assert alone[:2] == one[:2] and alone.score == pytest.approx(one.score, abs=1e-3)


def test_no_answer_is_given_where_there_is_none_by_a_threshold_from_dev():
    task = Task.fit(small("masked", sharp=1.0), asked(400, 0, none=0.4), asked(80, 1, none=0.4), SMALL, QUICK)
    assert task.threshold is not None
    scores = {score.name: score.value for score in task.scores(asked(80, 2, none=0.4))}
    assert next(iter(scores)) == "answer F1" and scores["answer F1"] > 0.8
    assert scores["answer F1, with an answer"] > 0.7 and scores["answer F1, without an answer"] > 0.7
    task.threshold = 1e9
    scores = {score.name: score.value for score in task.scores(asked(80, 2, none=0.4))}
    assert (scores["answer F1, with an answer"], scores["answer F1, without an answer"]) == (0.0, 1.0)
    assert task.outputs(asked(1))[0]["answer"] == "" and task.outputs(asked(1))[0]["start"] is None


def test_the_best_span_is_the_best_of_all(rng):
    for length in (1, 3, 9):
        scores = rng.normal(size=(length, 2))
        every = {(i, j): scores[i, 0] + scores[j, 1] for i, j in itertools.product(range(length), repeat=2)
                 if 0 <= j - i < 3}
        first, last, found = best_span(scores, 3)
        assert (first, last) == max(every, key=lambda at: every[at]) and found == pytest.approx(every[first, last])


def test_windows_without_the_answer_point_at_their_end(reader):
    row = Row("dog sees", "w1 w2 w3 dog w4 w5 w6 w7", ((13, "w4"),))
    task = Task(reader.trained, Options(overlap=1, question_tokens=4), 10, False)
    text = pieces(reader.trained.tokenizer, row.context)
    parts = task._parts([row], [text])
    assert [(part.first, part.size) for part in parts] == [(0, 5), (4, 4)]
    assert [answer._target(part, row, text) for part in parts] == [(4, 4), (0, 0)]
    assert answer._target(parts[0], row._replace(answers=((13, "w4 w5"),)), text) == (-1, -1)
    assert parts[1].example.inputs.tolist()[-1] == reader.trained.vocabulary.eos


def test_segments_tell_question_and_context_apart():
    task = Task(small("masked"), SMALL, 32, True)
    row = asked(1)[0]
    (part,) = task._parts([row], [pieces(task.trained.tokenizer, row.context)])
    assert part.example.fields["segment"].tolist() == [0] * 4 + [1] * 9


@pytest.mark.parametrize(("answers", "found"), [
    ({"text": ["dog"], "answer_start": [2]}, ((2, "dog"),)), ([{"text": "dog", "answer_start": 2}], ((2, "dog"),)),
    ("dog", ((2, "dog"),)), ({"text": ["dog"], "answer_start": [9]}, ((10, "dog"),)), ([], ()),
    ({"text": [], "answer_start": []}, ()), (["owl", "cat"], ((6, "cat"),)), ({"text": "cat", "answer_start": 6},
                                                                             ((6, "cat"),))])
def test_answers_in_every_layout(answers, found):
    assert Task.row({"question": "q", "context": "a dog cat dog", "answers": answers}).answers == found


@pytest.mark.parametrize(("answers", "why"), [
    ("owl", "the answer 'owl' is not in its context"), ([""], "an answer is empty"), (3, "the answers are int"),
    ({"answer_start": [1]}, "no list 'text'")])
def test_bad_answers_say_why(answers, why):
    with pytest.raises(rows.BadRow, match=why):
        Task.row({"question": "q", "context": "a dog", "answers": answers})


def test_what_cannot_be_learned_is_refused():
    with pytest.raises(BothwaysError, match="none of the 1 rows"):
        Task.fit(small("masked"), [Row("q", "c", ())], [], SMALL, QUICK)
    with pytest.raises(BothwaysError, match="has no answers, not even"):
        Task.fit(small("masked"), [*asked(1), Row("q", "c")], [], SMALL, QUICK)
    with pytest.raises(BothwaysError, match="leaves no token for the text"):
        Task(small("masked"), Options(), 40, False)


def test_the_commands_from_squads_file_to_answers(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    models.save(small("masked", sharp=1.0), tmp_path / "model")
    paragraphs = [{"context": row.context, "qas": [{"id": str(i), "question": row.question, "answers": [
        {"text": text, "answer_start": start} for start, text in row.answers]}]} for i, row in enumerate(asked(200))]
    paragraphs[3]["qas"].append({"question": "where?", "answers": [{"text": "owl", "answer_start": 0}]})
    (tmp_path / "train.json").write_text(json.dumps({"data": [{"title": "x", "paragraphs": paragraphs}]}))
    assert cli.main(["tune", "--task", "answer", "--from", "model", "--data", "train.json", "--keep", "0.1", "--out",
                     "my-reader", "--epochs", "8", "--learning-rate", "3e-3", "--head-rate", "1e-2",
                     "--question-tokens", "4"]) == 0
    printed = capsys.readouterr()
    assert "1 of 201 rows are left out: line 5 (the answer 'owl' is not in its context)" in printed.err
    assert "F1" in printed.out and "saved to my-reader" in printed.out
    assert cli.main(["answer", "my-reader", "--question", "dog sees", "cat sees", "--context", "w5 w6 w1 w12"]) == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert found[0]["answer"] == "w1" and found[0]["start"] == 6 and len(found) == 2
    (tmp_path / "letter.txt").write_text("w5 w6 w1 w12")
    assert cli.main(["answer", "my-reader", "--question", "dog sees", "--context-file", "letter.txt"]) == 0
    assert json.loads(capsys.readouterr().out) == found[0]
    (tmp_path / "questions.jsonl").write_text('{"id": 7, "question": "dog sees", "context": "w5 w1 w12"}\n{"q')
    assert cli.main(["answer", "my-reader", "--data", "questions.jsonl", "--out", "answers.jsonl"]) == 1
    lines = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text().splitlines()]
    assert lines[0]["id"] == "7" and "not JSON" in lines[1]["error"]
    assert cli.main(["answer", "my-reader", "--question", "dog sees"]) == 2
    assert "either --context or --context-file" in capsys.readouterr().err
