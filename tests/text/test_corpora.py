import csv
import gzip
import io
import json
import sys
import types

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bothways.errors import BothwaysError
from bothways.text import corpora, files
from bothways.text.corpora import LONG, SHORT, read

ROWS = [{"id": str(i), "text": f"Row {i}, with a \"quote\",\na comma and é."} for i in range(5)]


def write(path, rows=ROWS):
    name = path.name.removesuffix(".gz")
    if name.endswith(".parquet"):
        import pyarrow
        import pyarrow.parquet
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
        return path
    if name.endswith(".jsonl"):
        content = "".join(json.dumps(row) + "\n" for row in rows)
    else:
        stream = io.StringIO()
        writer = csv.DictWriter(stream, list(rows[0]), delimiter="\t" if name.endswith(".tsv") else ",")
        writer.writeheader()
        writer.writerows(rows)
        content = stream.getvalue()
    raw = content.encode()
    path.write_bytes(gzip.compress(raw) if path.name.endswith(".gz") else raw)
    return path


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.tsv", "a.jsonl.gz", "a.csv.gz", "a.parquet"])
def test_records_of_every_format(tmp_path, name):
    path = write(tmp_path / name)
    assert [document.text for document in read(path)] == [row["text"] for row in ROWS]
    assert [document.text for document in read(path, "id")] == ["0", "1", "2", "3", "4"]
    with pytest.raises(BothwaysError, match=r"'txt' \(did you mean 'text'\? known: id, text"):
        list(read(path, "txt"))


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz", "noending", "a.md"])
def test_plain_text_is_cut_at_blank_lines(tmp_path, name):
    blocks = [f"Block {i}. " + "words " * 250 for i in range(8)]
    raw = "\n\n".join(blocks).encode()
    path = tmp_path / name
    path.write_bytes(gzip.compress(raw) if name.endswith(".gz") else raw)
    documents = [document.text for document in read(path)]
    assert len(documents) == 4
    assert all(len(text) >= SHORT for text in documents)
    assert "\n\n".join(documents).split() == raw.decode().split()


def test_a_heading_begins_a_document(tmp_path):
    (tmp_path / "a.txt").write_text("Words.\n\n= One =\nfirst\n\n= Two =\nsecond\n")
    assert [document.text for document in read(tmp_path / "a.txt")] == ["Words.", "= One =\nfirst", "= Two =\nsecond"]


@given(st.lists(st.sampled_from(["\n", "\n\n", " ", "= a =\n", "word ", "x" * 999, "y. " * 3000]), max_size=60))
def test_cutting_loses_no_character_that_is_not_space(parts):
    text = "".join(parts)
    pieces = [text[start:start + 5000] for start in range(0, len(text), 5000)]
    found = list(corpora._blocks(pieces))
    assert "".join("".join(found).split()) == "".join(text.split())
    assert all(0 < len(document) <= LONG for document in found)


def test_cutting_does_not_depend_on_the_pieces_read():
    text = "".join(f"Paragraph {i} " + "word " * (i % 700) + "\n" * (1 + i % 3) for i in range(600))
    whole = list(corpora._blocks([text]))
    assert "".join("".join(whole).split()) == "".join(text.split())
    assert whole == list(corpora._blocks([text[start:start + 70_001] for start in range(0, len(text), 70_001)]))


def test_folders_globs_lists_and_standard_input(tmp_path, monkeypatch):
    (tmp_path / "sub" / ".git").mkdir(parents=True)
    (tmp_path / "a.txt").write_text("alpha")
    (tmp_path / "sub" / "b.md").write_text("beta")
    (tmp_path / "sub" / "c.bin").write_bytes(b"\0\1\2")
    (tmp_path / "sub" / ".git" / "d.txt").write_text("hidden")
    write(tmp_path / "sub" / "e.csv", [{"text": "epsilon"}])
    assert [document.text for document in read(tmp_path)] == ["alpha", "beta", "epsilon"]
    assert [document.text for document in read(str(tmp_path / "**" / "*.md"))] == ["beta"]
    assert [document.text for document in read([tmp_path / "sub", tmp_path / "a.txt"])] == ["beta", "epsilon", "alpha"]
    monkeypatch.setattr(sys, "stdin", types.SimpleNamespace(buffer=io.BytesIO("γάμμα\r\n".encode())))
    assert [document.text for document in read("-")] == ["γάμμα"]


def test_reading_is_lazy(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "one"}\n' + "not JSON\n")
    documents = read(path)
    assert next(documents).text == "one"
    with pytest.raises(BothwaysError, match=r"a\.jsonl:2: not JSON"):
        next(documents)


def test_a_data_set_by_name(monkeypatch):
    calls = []

    def load_dataset(path, name, split, streaming):
        calls.append((path, name, split, streaming))
        return iter(ROWS)

    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=load_dataset))
    assert [document.text for document in read("hf:books:small@test")] == [row["text"] for row in ROWS]
    assert calls == [("books", "small", "test", True)]

    def broken(*_, **__):
        raise ConnectionError("no network\nlong trace")

    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=broken))
    with pytest.raises(BothwaysError, match=r"'books' could not be read \(no network\)"):
        list(read("hf:books"))


BAD = {
    "missing": (None, "a.txt", "no file or folder '.*a.txt'"),
    "empty": (b"", "a.txt", "a.txt' is empty"),
    "blank": (b"\n \n", "a.txt", "a.txt' is empty"),
    "binary": (b"words \0 words", "a.txt", "binary .*byte 6"),
    "latin": ("caf\u00e9 au lait".encode("latin-1"), "a.txt", "not UTF-8 at byte 3"),
    "cut": (b"caf\xc3", "a.txt", "not UTF-8 at byte 3"),
    "utf-16": ("words".encode("utf-16"), "a.txt", "UTF-16 from byte 0"),
    "damaged gzip": (gzip.compress(b"words" * 99)[:-9], "a.txt.gz", "not a whole gzip file"),
    "no gzip": (b"plain words", "a.txt.gz", "not a whole gzip file"),
    "bad JSON": (b'{"text": "a"}\n{"text": \n', "a.jsonl", "a.jsonl:2: not JSON"),
    "JSON list": (b"[1]\n", "a.jsonl", "a.jsonl:1: a JSON object"),
    "other field": (b'{"text": "a"}\n{"txt": "b"}\n', "a.jsonl", "a.jsonl:2: no field 'text'"),
    "number": (b'{"text": 3}\n', "a.jsonl", "a.jsonl:1: field 'text' holds int"),
    "no usual field": (b'{"a": "x", "b": "y"}\n', "a.jsonl", "there are: a, b"),
    "wide row": (b"text,b\nx,y\nx,y,z\n", "a.csv", "a.csv:3: 3 columns"),
    "empty table": (b"", "a.csv", "a.csv' is empty"),
    "no parquet": (b"plain words", "a.parquet", "not a Parquet file"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_files_are_named_in_one_sentence(tmp_path, case):
    content, name, words = BAD[case]
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BothwaysError, match=words) as caught:
        list(read(path))
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


def test_the_byte_is_right_far_into_a_file(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "CHUNK", 7)
    path = tmp_path / "a.txt"
    path.write_bytes("日本語 words ".encode() * 5 + b"\xff")
    with pytest.raises(BothwaysError, match=f"byte {len('日本語 words '.encode()) * 5}:"):
        list(read(path))


@given(text=st.text(alphabet="aé日\n\r ", max_size=60))
def test_lines_and_chunks_agree_with_python(tmp_path, text):
    path = tmp_path / "a.txt"
    path.write_bytes(text.encode() + b"x")
    size, files.CHUNK = files.CHUNK, 3
    try:
        expected = (text + "x").replace("\r\n", "\n").replace("\r", "\n")
        assert "".join(files.chunks(path)) == expected
        assert list(files.lines(path)) == expected.splitlines(keepends=True)
    finally:
        files.CHUNK = size


def test_a_folder_without_text_says_so(tmp_path):
    (tmp_path / "a.bin").write_bytes(b"\0")
    with pytest.raises(BothwaysError, match=r"no text file in the folder .* \(1 other"):
        list(read(tmp_path))
    with pytest.raises(BothwaysError, match="no file matches"):
        list(read(str(tmp_path / "*.txt")))
