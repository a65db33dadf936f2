import json

import pytest

from bothways.errors import BothwaysError
from bothways.text.labels import Labelled, read_labelled
from bothways.text.pairs import read_pairs, swapped


def test_columns_are_found_by_their_usual_names(tmp_path):
    table, lines = tmp_path / "a.csv", tmp_path / "a.jsonl"
    table.write_text('id,category,text\n1,b,"first, one"\n2,a,second\n')
    lines.write_text('{"sentence": "first", "label": 1}\n{"sentence": "second", "label": 0}\n')
    rows = read_labelled(table)
    assert (rows.texts, rows.labels, rows.names) == (("first, one", "second"), (1, 0), ("a", "b"))
    assert read_labelled(lines).names == ("0", "1")
    assert read_labelled(table, text="category", label="id").texts == ("b", "a")


@pytest.mark.parametrize(("name", "content", "words"), [
    ("a.csv", "text,kind\nx,y\n", "none of the usual columns .*there are: text, kind"),
    ("a.csv", "text,label\nx,\n", r"a\.csv:2: no label"),
    ("a.csv", "text,label\nx,a\ny,a\n", "2 rows of 1 classes"),
    ("a.jsonl", '{"text": "x", "label": 1}\n{"text": "y"}\n', r"a\.jsonl:2: no label"),
    ("a.txt", "words", "read from .csv"),
])
def test_bad_labels_are_named(tmp_path, name, content, words):
    (tmp_path / name).write_text(content)
    with pytest.raises(BothwaysError, match=words):
        read_labelled(tmp_path / name)


def test_unknown_column_lists_those_there_are(tmp_path):
    (tmp_path / "a.csv").write_text("text,category\nx,a\ny,b\n")
    with pytest.raises(BothwaysError, match=r"no column 'categories' \(did you mean 'category'\? known: cat"):
        read_labelled(tmp_path / "a.csv", label="categories")


def test_split_keeps_classes_and_equal_texts_together():
    rows = Labelled.of([f"text {i // 2}" for i in range(200)], ["a" if i < 150 else "b" for i in range(200)])
    rest, part = rows.split(0.2, seed=0)
    assert len(rest) + len(part) == 200 and len(part) == 40
    assert not set(rest.texts) & set(part.texts)
    assert part.labels.count(0) == 30
    assert rows.split(0.2, seed=0)[1] == part != rows.split(0.2, seed=1)[1]


def test_pairs_in_the_format_of_blimp(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"sentence_good": "A b.", "sentence_bad": "B a.", "UID": "order",
                                "linguistics_term": "word order"}) + "\n"
                    + json.dumps({"good": "x", "bad": "y"}) + "\n")
    assert [tuple(pair) for pair in read_pairs(path)] == [("A b.", "B a.", "order", "word order"),
                                                          ("x", "y", "pair", "")]
    path.write_text('{"sentence_good": "x"}\n')
    with pytest.raises(BothwaysError, match=r"a\.jsonl:1: no field 'sentence_bad'"):
        read_pairs(path)


def test_real_pairs(data):
    pairs = read_pairs(data / "blimp" / "blimp_23_paradigms.jsonl.gz")
    assert len(pairs) == 4_600 and len({pair.kind for pair in pairs}) == 23


def test_real_labels(data):
    rows = read_labelled(data / "intents" / "banking77_train.csv")
    assert len(rows.names) == 77 and len(rows) == 10_003


def test_swapped_words(rng):
    pairs = swapped(["The cat  sat on\nthe mat.", "one", "same same"], rng)
    assert len(pairs) == 1
    good, bad, *_ = pairs[0]
    assert good != bad and sorted(good.split()) == sorted(bad.split()) and len(good) == len(bad)
    assert sum(a != b for a, b in zip(good.split(), bad.split(), strict=True)) == 2
