"""Rows from files: the good ones are used, the bad ones listed with their lines."""

from __future__ import annotations

import gzip
import json

import pytest

from bothways.errors import BothwaysError
from bothways.tasks import classify, instruct, rows, similarity, tag
from bothways.tasks.classify import Task
from bothways.text.records import records


def table(tmp_path, content, name="a.csv"):
    path = tmp_path / name
    path.write_bytes(gzip.compress(content.encode()) if name.endswith(".gz") else content.encode())
    return path


def read(path, **more):
    return rows.read(path, Task.roles, Task.row, **more)


def test_bad_rows_cost_their_own_line_alone(tmp_path):
    path = table(tmp_path, 'text,category\n"one, two",a\n"never closed,b\nthree,b\n,a\nfour,\nfive,a,more\n'
                           '"6\nsix",b\n')
    found = read(path)
    assert [row.text for row in found.items] == ["one, two", "three", "6\nsix"]
    assert found.lines == (2, 4, 8) and found.columns == {"text": "text", "label": "category"}
    assert [line for line, _ in found.bad] == [3, 5, 6, 7]
    assert found.complaint() == (
        f"{path}: 4 of 7 rows are left out: line 3 (a quotation mark is opened and never closed: close it, or double "
        "those within a text), line 5 (the text is empty), line 6 (no label), line 7 (3 columns, and the first line "
        "names 2)")


def test_a_mark_that_is_never_closed_and_one_within_a_text(tmp_path):
    path = table(tmp_path, 'text,label\n"open,a\n5" nails,b\nx,a\n')
    assert [record if isinstance(record, str) else record["text"] for _, record in records(path)] == [
        "a quotation mark is opened and never closed: close it, or double those within a text", '5" nails', "x"]


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz"])
def test_json_lines_with_lists_numbers_and_damage(tmp_path, name):
    lines = [json.dumps({"text": "x", "label": 1}), '{"text": ', json.dumps({"text": "y", "label": [1, "b"]}),
             json.dumps({"text": 3, "label": 1}), json.dumps({"text": "z"}), json.dumps({"text": "z", "label": {}})]
    found = read(table(tmp_path, "\n".join(lines), name))
    assert [row.labels for row in found.items] == [("1",), ("1", "b")]
    assert [line for line, _ in found.bad] == [2, 4, 5, 6]
    assert [why for _, why in found.bad][1:] == ["the text is int, and text is wanted", "no field 'label'",
                                                 "the label is dict, and one word or number is wanted"]


@pytest.mark.parametrize(("content", "columns", "words"), [
    ("text,kind\nx,y\n", {}, r"none of the usual columns for the label .*--columns label=.*there are: text, kind"),
    ("text,kind\nx,y\n", {"label": "kinds"}, r"no column 'kinds' \(did you mean 'kind'\?"),
    ("text,label\nx,y\n", {"lable": "kind"}, r"reads no 'lable' \(did you mean 'label'"),
    ("text,label\n,y\n", {}, r"no row that can be used: line 2 \(the text is empty\)"),
    ("text,label\n", {}, "column names alone"),
    ("", {}, "is empty"),
])
def test_what_is_wrong_with_a_file_is_one_sentence(tmp_path, content, columns, words):
    with pytest.raises(BothwaysError, match=words) as caught:
        read(table(tmp_path, content), columns=columns)
    assert "\n" not in str(caught.value)
    with pytest.raises(BothwaysError, match="no file"):
        read(tmp_path / "none.csv")


def test_columns_by_name_and_without_answers(tmp_path):
    path = table(tmp_path, "a,b,c\nx,y,z\n")
    found = read(path, columns={"text": "a", "other": "b", "label": "c"})
    assert found.items == (classify.Row("x", "y", ("z",)),)
    assert read(path, columns={"text": "b"}, answers=False).items == (classify.Row("y"),)
    pairs = table(tmp_path, "sentence_a,sentence_b,entailment\nx,y,no\n", "b.csv")
    assert read(pairs).items == (classify.Row("x", "y", ("no",)),)


def test_rows_of_the_test_that_stand_in_training_are_counted(tmp_path):
    train, test = (read(table(tmp_path, content, name)) for content, name in (
        ("text,label\nOne two,a\nthree,b\n", "train.csv"), ("text,label\nfour,a\none  TWO,a\n", "test.csv")))
    assert rows.overlap(train, test, Task.key) == ((1, 0),)
    assert "1 of 2 rows stand in" in rows.overlap_report(train, test, Task.key)
    assert "line 3 (line 2 there)" in rows.overlap_report(train, test, Task.key)
    assert rows.overlap_report(train, train.take([]), Task.key) is None


def test_a_part_kept_back_has_every_label_and_shares_no_text():
    given = rows.Rows.of([classify.Row(f"text {i // 2}", None, ("a" if i < 150 else "b",)) for i in range(200)])
    rest, part = rows.kept_back(given, 0.2, 0, Task.key, Task.group)
    assert len(rest) + len(part) == 200 and len(part) == 40
    assert not {row.text for row in rest.items} & {row.text for row in part.items}
    assert sum(row.labels == ("a",) for row in part.items) == 30
    assert rows.kept_back(given, 0.2, 0, Task.key, Task.group)[1] == part


@pytest.mark.parametrize("mark", [";", "\t"])
def test_other_marks_between_columns(tmp_path, mark):
    found = read(table(tmp_path, f'text{mark}label\none, two{mark}a\n"three{mark} four"{mark}b\nfive\n'))
    assert [(row.text, *row.labels) for row in found.items] == [("one, two", "a"), (f"three{mark} four", "b")]
    assert found.bad == ((4, "1 columns, and the first line names 2"),)


def test_a_name_that_two_columns_have(tmp_path):
    with pytest.raises(BothwaysError, match=r"a\.csv:1: two columns are called 'text': rename one"):
        read(table(tmp_path, "text,text,label\nx,y,z\n"))
    (tmp_path / "b.csv").mkdir()
    with pytest.raises(BothwaysError, match=r"b\.csv' is a folder, and a file is wanted"):
        read(tmp_path / "b.csv")


def test_rows_of_several_forms_in_one_file(tmp_path):
    lines = [{"nope": 1}, {"tokens": ["x"], "tags": ["B-A"]}, {"text": "y", "spans": []},
             {"tokens": ["z"], "tags": None}]
    path = table(tmp_path, "\n".join(map(json.dumps, lines)), "a.jsonl")
    found = rows.read(path, tag.Task.roles, tag.Task.row)
    assert found.lines == (2, 3) and found.bad == ((1, "no field 'tokens'"), (4, "no tags"))
    lines = [{"instruction": "x", "output": "y"}, {"messages": [{"role": "user", "content": "a"}]}, {"nope": 1}]
    path = table(tmp_path, "\n".join(map(json.dumps, lines)), "b.jsonl")
    found = rows.read(path, instruct.Task.roles, instruct.Task.row)
    assert found.lines == (1, 2) and found.bad == ((3, "no messages, and no instruction"),)


def test_an_answer_that_nobody_asks_for_spoils_no_row(tmp_path):
    path = table(tmp_path, '{"text": "x", "label": {}}\n{"text": "y", "label": null}\n', "a.jsonl")
    assert [row.labels for row in read(path, answers=False).items] == [None, None]
    with pytest.raises(BothwaysError, match=r"line 1 \(the label is dict, .*line 2 \(no label\)"):
        read(path)
    path = table(tmp_path, "sentence_a,sentence_b,score\na,b,3\nc,d,\n")
    found = rows.read(path, similarity.Task.roles, similarity.Task.row)
    assert found.lines == (2,) and found.bad == ((3, "no score"),)


def test_labels_that_training_has_none_of_are_told(tmp_path):
    train = read(table(tmp_path, "text,label\nx,a\ny,b\n"))
    assert rows.strange_report(train, train, Task.group) is None
    other = read(table(tmp_path, "text,label\nx,a\ny,c\nz,a|b\n", "b.csv"))
    told = rows.strange_report(train, other, Task.group)
    assert told is not None and told.startswith(f"{other.path}: 1 of 3 rows are of a kind") and "line 3 ('c')" in told
