"""Rows from files: the good ones are used, the bad ones listed with their lines."""

from __future__ import annotations

import gzip
import json

import pytest

from bothways.errors import BothwaysError
from bothways.tasks import classify, rows
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
