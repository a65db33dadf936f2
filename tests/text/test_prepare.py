import errno
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bothways.batch import Vocabulary
from bothways.errors import BothwaysError
from bothways.text import prepare as module
from bothways.text.prepare import Prepared, prepare
from bothways.text.tokenizer import Tokenizer, TokenizerConfig
from bothways.text.windows import SHORTEST, Windows, WindowWriter

BYTES = TokenizerConfig("bytes")


def corpus(path, texts):
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return path


@pytest.fixture
def source(tmp_path):
    texts = [f"Document {i} speaks of <mask> and é. " * (1 + i % 7) for i in range(200)]
    return corpus(tmp_path / "a.jsonl", [*texts, *texts[:20], " " + texts[3] + "\n"])


def texts_of(windows, tokenizer):
    return [tokenizer.decode(windows.document(i)) for i in range(windows.documents)]


def test_every_document_is_in_one_split_once(source, tmp_path):
    prepared = prepare(source, tmp_path / "out", tokenizer=BYTES, window=64, held_out=0.2)
    train, valid = (texts_of(part, prepared.tokenizer) for part in (prepared.train, prepared.valid))
    assert len(train) + len(valid) == len({*train, *valid}) == 200
    assert 20 <= len(valid) <= 60
    assert prepared.report["duplicates_removed"] == 21
    assert prepared.report["documents"] == 200
    assert ("Document 4 speaks of <mask> and é. " * 5).strip() in train + valid


def test_the_split_depends_on_content_and_seed_alone(source, tmp_path):
    lines = source.read_text().splitlines(keepends=True)
    backwards = tmp_path / "b.jsonl"
    backwards.write_text("".join(reversed(lines)))
    one, same, other = (prepare(path, tmp_path / f"out{i}", tokenizer=BYTES, window=64, held_out=0.3, seed=seed)
                        for i, (path, seed) in enumerate([(source, 0), (backwards, 0), (source, 1)]))
    held = [set(texts_of(part.valid, part.tokenizer)) for part in (one, same, other)]
    assert held[0] == held[1] != held[2]


def test_windows_cover_documents(source, tmp_path):
    prepared = prepare(source, tmp_path / "out", tokenizer=BYTES, window=50)
    vocabulary = prepared.tokenizer.vocabulary
    for part in (prepared.train, prepared.valid):
        by_document = {}
        for window in part:
            assert SHORTEST <= len(window.ids) <= 50
            assert window.ids.dtype == np.int64
            by_document.setdefault(window.document, []).append(window)
        for number, windows in by_document.items():
            joined = np.concatenate([window.ids for window in windows])
            document = part.document(number)
            assert document[0] == vocabulary.bos and document[-1] == vocabulary.eos
            assert (joined == document[:len(joined)]).all() and len(document) - len(joined) < SHORTEST
            assert [window.start for window in windows] == [50 * i for i in range(len(windows))]
        assert part.tokens == sum(len(window.ids) for window in part)
        assert part.bytes == sum(int(vocabulary.n_bytes[window.ids].sum()) for window in part)
        assert [window.index for window in part] == list(range(len(part)))


@given(lengths=st.lists(st.integers(2, 70), min_size=1, max_size=20), window=st.integers(8, 40))
def test_written_windows_read_back(lengths, window, tmp_path_factory):
    folder = tmp_path_factory.mktemp("w")
    writer = WindowWriter(folder, "train", window, Vocabulary.plain(70_000))
    documents = [np.arange(length) + 69_000 for length in lengths]
    writer.add(documents[:1])
    writer.add(documents[1:])
    writer.close()
    windows = Windows(folder, "train")
    expected = [(number, start, document[start:start + window]) for number, document in enumerate(documents)
                for start in range(0, len(document), window) if len(document[start:start + window]) >= SHORTEST]
    assert len(windows) == len(expected)
    for found, (number, start, ids) in zip(windows, expected, strict=True):
        assert (found.document, found.start) == (number, start) and (found.ids == ids).all()
    with pytest.raises(IndexError):
        windows[len(windows)]
    if len(windows):
        assert (windows[-1].ids == expected[-1][2]).all()


def test_orders_are_permutations_that_repeat(known_prepared):
    windows = known_prepared.train
    order = windows.order(0, 0)
    assert sorted(order) == list(range(len(windows)))
    assert (order == windows.order(0, 0)).all()
    assert (order != windows.order(0, 1)).any() and (order != windows.order(1, 0)).any()


def test_called_again_it_reuses_the_folder(source, tmp_path, monkeypatch):
    first = prepare(source, tmp_path / "out", tokenizer=BYTES, window=64)
    made = (tmp_path / "out" / "prepared.json").stat().st_mtime_ns
    again = prepare(source, tmp_path / "out", tokenizer=BYTES, window=64)
    assert (tmp_path / "out" / "prepared.json").stat().st_mtime_ns == made
    assert again.report == first.report
    prepare(source, tmp_path / "out", tokenizer=BYTES, window=32)
    assert Prepared.load(tmp_path / "out").train.window == 32
    corpus(source, ["another text that is long enough " * 9, "and one more of them here " * 9])
    assert prepare(source, tmp_path / "out", tokenizer=BYTES, window=32).report["documents"] == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jsonl", "out"]


def test_a_trained_tokenizer_and_a_given_one(source, tmp_path):
    trained = prepare(source, tmp_path / "one", tokenizer=TokenizerConfig("bpe", 400), window=32)
    given_one = prepare(source, tmp_path / "two", tokenizer=trained.tokenizer, window=32)
    assert trained.tokenizer.fingerprint == given_one.tokenizer.fingerprint
    assert (trained.train[3].ids == given_one.train[3].ids).all()
    assert trained.report["bytes_per_token"] > 2
    assert prepare(source, tmp_path / "bytes", tokenizer=BYTES, window=32).report["bytes_per_token"] == 1


def test_a_tokenizer_is_trained_for_its_windows(source, tmp_path):
    long = prepare(source, tmp_path / "long", tokenizer=TokenizerConfig("bpe", 640), window=160)
    assert len(long.tokenizer.vocabulary.sentinels) == 40


def test_the_tokenizer_sees_an_even_bounded_sample(source, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "SAMPLE_BYTES", 3_000)
    seen = []
    train = Tokenizer.train
    monkeypatch.setattr(Tokenizer, "train", lambda texts, *how, **more: seen.extend(texts) or train(seen, *how, **more))
    prepared = prepare(source, tmp_path / "out", tokenizer=TokenizerConfig("bpe", 320), window=32, held_out=0.4)
    assert 500 < sum(len(text.encode()) for text in seen) <= 3_000
    numbers = [int(text.split()[1]) for text in seen]
    assert min(numbers) < 60 and max(numbers) > 120
    held = set(texts_of(prepared.valid, prepared.tokenizer))
    assert not held & {text.strip() for text in seen}


def test_one_single_document_is_cut_in_two(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("some words in one block " * 30)
    prepared = prepare(path, tmp_path / "out", tokenizer=BYTES, window=32)
    assert prepared.train.tokens > 3 * prepared.valid.tokens > 0


def test_two_documents_give_one_to_each_side(tmp_path):
    path = corpus(tmp_path / "a.jsonl", ["first words " * 9, "other words " * 9])
    prepared = prepare(path, tmp_path / "out", tokenizer=BYTES, window=32)
    assert (prepared.train.documents, prepared.valid.documents) == (1, 1)


def test_a_limit_stops_reading(source, tmp_path):
    prepared = prepare(source, tmp_path / "out", tokenizer=BYTES, window=32, limit_bytes=2_000)
    assert 2_000 <= prepared.report["bytes"] < 2_400


def test_standard_input_is_read_once(tmp_path, monkeypatch):
    import io
    import sys
    import types
    raw = "\n\n".join(f"Block {i} " + "words " * 400 for i in range(9)).encode()
    monkeypatch.setattr(sys, "stdin", types.SimpleNamespace(buffer=io.BytesIO(raw)))
    prepared = prepare("-", tmp_path / "out", tokenizer=TokenizerConfig("bpe", 320), window=32)
    assert prepared.report["documents"] == 9
    assert not (tmp_path / "out" / "standard-input.txt").exists()


def test_too_short_a_corpus_leaves_nothing_behind(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("too short")
    with pytest.raises(BothwaysError, match="shorter than one window"):
        prepare(path, tmp_path / "out", tokenizer=BYTES)
    assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]


def test_a_folder_with_other_things_is_not_touched(source, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(BothwaysError, match="something else"):
        prepare(source, tmp_path / "out", tokenizer=BYTES, window=32)
    assert (tmp_path / "out" / "mine.txt").read_text() == "mine"


def test_a_full_disk_is_a_sentence_and_leaves_nothing(source, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(WindowWriter, "add", full)
    with pytest.raises(BothwaysError, match="disk filled up") as caught:
        prepare(source, tmp_path / "out", tokenizer=BYTES, window=32)
    assert caught.value.exit_code == 1
    assert [file.name for file in tmp_path.iterdir()] == ["a.jsonl"]


def test_a_failure_keeps_the_old_folder(source, tmp_path, monkeypatch):
    prepare(source, tmp_path / "out", tokenizer=BYTES, window=64)
    monkeypatch.setattr(module, "_append", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        prepare(source, tmp_path / "out", tokenizer=BYTES, window=32)
    assert Prepared.load(tmp_path / "out").train.window == 64
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jsonl", "out"]


def test_what_was_not_prepared_cannot_be_loaded(source, tmp_path):
    with pytest.raises(BothwaysError, match="no prepared corpus"):
        Prepared.load(tmp_path)
    prepare(source, tmp_path / "out", tokenizer=BYTES, window=64)
    tokens = tmp_path / "out" / "train.tokens"
    tokens.write_bytes(tokens.read_bytes()[:-2])
    with pytest.raises(BothwaysError, match="not as long as"):
        Prepared.load(tmp_path / "out")
    facts = tmp_path / "out" / "prepared.json"
    facts.write_text(facts.read_text().replace('"format": 1', '"format": 0'))
    with pytest.raises(BothwaysError, match="another version"):
        Prepared.load(tmp_path / "out")


def test_nonsense_choices_are_refused(source, tmp_path):
    with pytest.raises(BothwaysError, match="window=4"):
        prepare(source, tmp_path / "out", tokenizer=BYTES, window=4)


def test_outside_data(data, tmp_path):
    prepared = prepare(data / "lm" / "wikitext2_valid.txt.gz", tmp_path / "out", tokenizer=TokenizerConfig("bpe", 1024),
                       limit_bytes=200_000)
    assert prepared.report["documents"] > 20
