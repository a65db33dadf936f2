"""Where windows end: full, with sentences (RoBERTa's two ways), or with the turns they hold."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bothways.batch import RESERVED_TOKENS, Vocabulary
from bothways.errors import BothwaysError
from bothways.text import prepare as preparing
from bothways.text.corpora import read, read_turns
from bothways.text.prepare import Prepared, prepare
from bothways.text.tokenizer import Tokenizer, TokenizerConfig
from bothways.text.turns import Turn, pieces, turns_of
from bothways.text.windows import Windows, WindowWriter, sentence_cuts

FIRST = len(RESERVED_TOKENS)
STOP = FIRST
PLAIN = replace(Vocabulary.plain(FIRST + 500), ends_sentence=np.arange(FIRST + 500) == STOP)
BYTES = Tokenizer.train([], "bytes")


# --- sentences ---

def test_windows_of_whole_sentences_by_hand():
    # sentences of 10, 15, 9 and 30 tokens in windows of 26
    assert sentence_cuts(np.array([10, 25, 34, 64]), 64, 26).tolist() == [25, 34, 60, 64]
    # a sentence that fits exactly; nothing but one long one; a cut that would leave fewer than 8 tokens
    assert sentence_cuts(np.array([26, 52]), 52, 26).tolist() == [26, 52]
    assert sentence_cuts(np.array([], dtype=int), 60, 26).tolist() == [26, 52, 60]
    assert sentence_cuts(np.array([5, 60]), 60, 26).tolist() == [26, 52, 60]
    assert sentence_cuts(np.array([9, 60]), 60, 26).tolist() == [9, 35, 60]


def documents(count: int, seed: int = 0) -> list[np.ndarray]:
    """`<bos> ... <eos>` with sentences of 1 to 40 tokens."""
    rng = np.random.default_rng(seed)
    made = []
    for length in rng.integers(3, 400, count):
        ids = rng.integers(FIRST + 1, PLAIN.size, int(length))
        ids[np.minimum(np.cumsum(rng.integers(1, 41, len(ids))), len(ids) - 2)] = STOP
        ids[0], ids[-1] = PLAIN.bos, PLAIN.eos
        made.append(ids)
    return made


def written(folder: Path, cut: str, batches: list[list[np.ndarray]], window: int = 64) -> Windows:
    writer = WindowWriter(folder, "train", window, PLAIN, cut=cut)
    for batch in batches:
        writer.add(batch)
    writer.close()
    windows = Windows(folder, "train")
    assert (len(windows), windows.tokens, windows.bytes) == (writer.windows, writer.tokens, writer.bytes)
    assert windows.tokens == sum(len(one.ids) for one in windows)
    assert windows.bytes == sum(int(PLAIN.n_bytes[one.ids].sum()) for one in windows)
    return windows


def ended(window) -> bool:
    """With a sentence, or with its document."""
    return bool(window.ids[-1] in (STOP, PLAIN.eos))


def test_sentences_inside_a_document(tmp_path):
    texts = documents(60)
    windows = written(tmp_path, "doc-sentences", [texts[:20], texts[20:]])
    assert all(one.whole and 8 <= len(one.ids) <= 64 for one in windows)
    for one in windows:
        text = texts[one.document]
        assert one.ids.tolist() == text[one.start:one.start + len(one.ids)].tolist()
        # as many sentences as fit: the next one does not
        end = one.start + len(one.ids)
        if end < len(text) and len(one.ids) < 64:
            following = np.flatnonzero(np.isin(text[end:], (STOP, PLAIN.eos)))
            behind = int(following[0]) + 1 + int(text[end + following[0] + 1:][:1].tolist() == [PLAIN.eos])
            assert ended(one) and len(one.ids) + behind > 64
    assert np.mean([ended(one) for one in windows]) > 0.85
    # what is left out are ends of documents of fewer than 8 tokens
    read_ = np.zeros(len(texts), int)
    for one in windows:
        read_[one.document] += len(one.ids)
    assert all(len(text) - count < 8 for text, count in zip(texts, read_, strict=True))


@pytest.mark.parametrize("cut", ["doc-sentences", "full-sentences"])
def test_the_end_of_a_document_stays_with_its_last_sentence(tmp_path, cut):
    """<bos> and 12 tokens, 13 tokens, <eos>: the last two share a window, so the first sentence has one of its own."""
    text = np.array([PLAIN.bos, *[FIRST + 1] * 11, STOP, *[FIRST + 2] * 12, STOP, PLAIN.eos])
    windows = written(tmp_path, cut, [[text]], window=26)
    assert [one.ids.tolist() for one in windows] == [text[:13].tolist(), text[13:].tolist()]


def test_full_sentences_go_on_into_the_next_document(tmp_path):
    texts = documents(60)
    windows = written(tmp_path, "full-sentences", [texts])
    stream = np.concatenate(texts)
    assert np.concatenate([one.ids for one in windows]).tolist() == stream.tolist()
    crossing = [one for one in windows if PLAIN.bos in one.ids[1:].tolist()]
    assert len(crossing) > 20
    for one in crossing:
        places = np.flatnonzero(one.ids[1:] == PLAIN.bos) + 1
        assert (one.ids[places - 1] == PLAIN.eos).all()
    offsets = np.concatenate(([0], np.cumsum([len(text) for text in texts])))
    begin = 0
    for one in windows:
        assert one.document == np.searchsorted(offsets, begin, side="right") - 1
        assert one.start == begin - offsets[one.document]
        begin += len(one.ids)
    assert windows.tokens / len(windows) > 45, "windows are fuller than documents of their own would make them"


@pytest.mark.parametrize("cut", ["doc-sentences", "full-sentences"])
def test_windows_do_not_depend_on_how_documents_came(tmp_path, cut):
    texts = documents(40, seed=3)
    ways = [[texts], [[text] for text in texts], [texts[:7], texts[7:8], texts[8:]]]
    found = []
    for number, way in enumerate(ways):
        folder = tmp_path / str(number)
        folder.mkdir()
        found.append([(one.document, one.start, one.ids.tolist()) for one in written(folder, cut, way)])
    assert found[0] == found[1] == found[2]


def test_prepared_with_sentences(tmp_path):
    text = "\n\n".join(" ".join(f"Word {i} of {n} is here." for i in range(90)) for n in range(9))
    (tmp_path / "corpus.txt").write_text(text)
    plain = prepare(tmp_path / "corpus.txt", tmp_path / "text", tokenizer=BYTES, window=100, held_out=0.3)
    assert plain.train.cut == "tokens" and not plain.train[0].whole
    whole = prepare(tmp_path / "corpus.txt", tmp_path / "text", tokenizer=BYTES, window=100, held_out=0.3,
                    cut="doc-sentences")
    texts = [BYTES.decode(one.ids) for one in whole.train]
    assert all(one.strip().startswith("Word") and one.endswith(".") for one in texts)
    assert Prepared.load(tmp_path / "text").train.cut == "doc-sentences"


def test_words_without_ends_are_refused(tmp_path):
    (tmp_path / "corpus.txt").write_text("a b c d\n\n" * 2000)
    with pytest.raises(BothwaysError, match="no token that ends one"):
        prepare(tmp_path / "corpus.txt", tmp_path / "text", tokenizer=Tokenizer.words("a b c d"), cut="full-sentences")
    with pytest.raises(BothwaysError, match="cut is 'sentences'"):
        prepare(tmp_path / "corpus.txt", tmp_path / "text", tokenizer=BYTES, cut="sentences")


# --- turns ---

def test_the_forms_of_a_record():
    pair = (Turn("Say it.", False), Turn("It.", True))
    for record in ({"instruction": "Say it.", "response": "It."}, {"prompt": "Say it.", "completion": "It."},
                   {"source": "Say it.", "target": "It."}, {"instruction": "Say it.", "input": "", "output": "It."},
                   {"messages": [{"role": "user", "content": "Say it."}, {"role": "assistant", "content": "It."}]},
                   {"conversations": [{"from": "human", "value": "Say it."}, {"from": "gpt", "value": "It."}]}):
        assert turns_of(record, "here") == pair
    assert turns_of({"instruction": "Add.", "input": "1 2", "output": "3"}, "here")[0].text == "Add.\n\n1 2"
    assert turns_of({"question": "q", "answer": "a", "thought": "t"}, "here")[1].text == "<think>t</think>a"


@pytest.mark.parametrize("record, says", [
    ({"messages": [{"role": "user", "content": "q"}]}, "the last of the messages must be the assistant's"),
    ({"messages": []}, "must be the assistant's"),
    ({"messages": [{"role": "user"}]}, "a role and a content"),
    ({"messages": ["q"]}, "a message is a mapping"),
    ({"text": "q"}, "no messages, and no question and answer"),
    ({"instruction": "q", "response": 3}, "field 'response' holds int"),
])
def test_records_that_are_no_turns_name_their_place(record, says):
    with pytest.raises(BothwaysError, match=f"file:7: .*{says}"):
        turns_of(record, "file:7")


def test_the_marks_of_a_conversation():
    v = PLAIN
    turns = (Turn("Be brief.", False), Turn(" Q1 ", False), Turn("A1", True), Turn("Q2", False),
             Turn("<think> why </think> A2", True))
    assert pieces(turns, v) == [v.bos, "Be brief.", v.sep, "Q1", v.sep, "A1", v.eos, "Q2", v.sep, v.ids["<think>"],
                                "why", v.ids["</think>"], "A2", v.eos]


def test_marks_in_questions_are_plain_text(tmp_path):
    file = tmp_path / "chat.jsonl"
    rows = [{"instruction": f"What is <sep> number {i} <think>x</think>?", "response": f"<think>n</think> {i} <eos>"}
            for i in range(40)]
    file.write_text("\n".join(map(json.dumps, rows)))
    made = prepare(file, tmp_path / "text", tokenizer=BYTES, window=128, held_out=0.2, cut="turns")
    assert len(made.train) + len(made.valid) == 40
    ids = made.train[0].ids.tolist()
    v = BYTES.vocabulary
    assert [token for token in ids if v.special[token]] == [v.bos, v.sep, v.ids["<think>"], v.ids["</think>"], v.eos]
    split = ids.index(v.sep)
    assert "<sep>" in BYTES.decode(ids[:split]) and "<think>x</think>" in BYTES.decode(ids[:split])
    assert BYTES.decode(ids[split:]).endswith("<eos>")


def test_a_conversation_is_never_cut(tmp_path):
    file = tmp_path / "chat.jsonl"
    lengths = [20, 90, 200, 30, 150]
    file.write_text("\n".join(json.dumps({"source": "s" * length + str(i), "target": "t"})
                              for i, length in enumerate(lengths)))
    made = prepare(file, tmp_path / "text", tokenizer=BYTES, window=256, held_out=0.3, cut="turns")
    assert sorted(len(one.ids) for split in (made.train, made.valid) for one in split) == \
        sorted(length + 1 + 1 + 3 for length in lengths)
    with pytest.raises(BothwaysError, match=r"line 3 has 205 tokens .* longest of 2 .*set the window to 205"):
        prepare(file, tmp_path / "short", tokenizer=BYTES, window=100, held_out=0.3, cut="turns")
    file.write_text(json.dumps({"source": "a b c", "target": "d"}))
    with pytest.raises(BothwaysError, match="one conversation"):
        prepare(file, tmp_path / "one", tokenizer=BYTES, cut="turns")


def test_text_without_records_has_no_turns(tmp_path):
    (tmp_path / "corpus.txt").write_text("words " * 500)
    with pytest.raises(BothwaysError, match="holds no turns"):
        prepare(tmp_path / "corpus.txt", tmp_path / "text", tokenizer=BYTES, cut="turns")
    with pytest.raises(BothwaysError, match="leave field out"):
        prepare(tmp_path / "corpus.txt", tmp_path / "text", tokenizer=BYTES, cut="turns", field="text")


def test_the_functions_of_the_library_are_turns():
    rows = list(read_turns("python-functions"))
    assert len(rows) > 300 and all(len(row.turns) == 2 and row.turns[1].answers for row in rows)
    assert rows[0].text == next(read("python-functions")).text
    assert max(len(row.turns[0].text) for row in rows) <= 600


def test_the_choice_of_a_cut_makes_other_windows(tmp_path):
    """The folder is prepared again for another cut, and for the usual one its key is what it always was."""
    source = tmp_path / "corpus.txt"
    source.write_text("One two. " * 400)
    keys = {cut: preparing._key(source, TokenizerConfig("bytes"), 64, 0.1, 0, None, None, 1.0, cut)
            for cut in ("tokens", "doc-sentences", "full-sentences")}
    assert len(set(keys.values())) == 3
