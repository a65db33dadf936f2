"""What documents are written in, from a file's name to the tag of a window; and smoothed reading of languages."""

from __future__ import annotations

import collections
import json

import numpy as np
import pytest

from bothways.batch import Vocabulary
from bothways.errors import BothwaysError
from bothways.objectives import make
from bothways.text.corpora import read
from bothways.text.prepare import prepare
from bothways.text.tokenizer import TokenizerConfig
from bothways.text.windows import Windows, WindowWriter, shares_read
from bothways.training.data import Batches, Place

SIZES = {"text": 900, "python": 90, "java": 10}
"""Windows of each language; all of 16 tokens."""


def written(folder, smoothing: float, sizes: dict[str, int] | None = None) -> Windows:
    """A split with so many windows of each language, in documents of two windows."""
    writer = WindowWriter(folder, "train", 16, Vocabulary.plain(80), smoothing)
    for language, size in (SIZES if sizes is None else sizes).items():
        writer.add([np.full(32, 50)] * (size // 2), [language] * (size // 2))
    writer.close()
    return Windows(folder, "train")


def languages(windows: Windows, order: np.ndarray) -> collections.Counter:
    return collections.Counter(windows[int(index)].language for index in order)


def test_a_window_knows_the_language_of_its_document(tmp_path):
    windows = written(tmp_path, 1.0)
    assert windows.languages == ("text", "python", "java")
    assert languages(windows, np.arange(len(windows))) == SIZES


def test_a_folder_that_does_not_know_says_nothing(tmp_path):
    written(tmp_path, 1.0)
    (tmp_path / "train.languages.npy").unlink()
    facts = json.loads((tmp_path / "train.json").read_text())
    (tmp_path / "train.json").write_text(json.dumps({k: v for k, v in facts.items()
                                                     if k not in ("languages", "smoothing")}))
    windows = Windows(tmp_path, "train")
    assert windows[0].language == "" and len(windows.order(0, 0)) == len(windows)


def test_without_smoothing_every_window_is_read_once_in_the_usual_order(tmp_path):
    windows = written(tmp_path, 1.0)
    assert (windows.order(3, 4) == np.random.default_rng((3, 4)).permutation(1000)).all()


@pytest.mark.parametrize("smoothing", [0.0, 0.3, 0.7])
def test_languages_are_read_by_the_power_of_their_share(tmp_path, smoothing):
    """PLBART's weights: proportional to p ** smoothing, however many windows that leaves an epoch."""
    windows = written(tmp_path, smoothing)
    found = languages(windows, windows.order(0, 0))
    total = sum(found.values())
    wanted = {language: (size / 1000) ** smoothing for language, size in SIZES.items()}
    for language, weight in wanted.items():
        assert found[language] / total == pytest.approx(weight / sum(wanted.values()), abs=0.02)
    assert found["java"] == 10  # the rarest is read in full


def test_a_smoothed_epoch_reads_no_window_twice_and_all_are_read_in_time(tmp_path):
    windows = written(tmp_path, 0.3)
    epochs = [windows.order(0, epoch) for epoch in range(300)]
    assert all(len(set(order.tolist())) == len(order) for order in epochs)
    assert set(epochs[0].tolist()) != set(epochs[1].tolist()) and (epochs[0] == windows.order(0, 0)).all()
    assert len({int(index) for order in epochs for index in order}) == 1000
    # languages are mixed, not one after the other
    kinds = [windows[int(index)].language for index in epochs[0]]
    assert set(kinds[:len(kinds) // 2]) == set(kinds[len(kinds) // 2:]) == set(SIZES)


def test_shares_follow_tokens_and_not_documents():
    assert shares_read(np.array([100.0, 10.0, 1.0]), 0.5).tolist() == pytest.approx([0.1, 10 ** -0.5, 1.0])
    assert shares_read(np.array([100.0, 10.0]), 1.0).tolist() == [1.0, 1.0]
    assert shares_read(np.array([7.0]), 0.0).tolist() == [1.0]


def test_training_goes_on_to_the_next_epoch_where_a_smoothed_one_ends(tmp_path):
    windows = written(tmp_path, 0.0)
    batches = Batches(windows, make("next-token", Vocabulary.plain(80)), seed=0, tokens=16 * 20, steps=4)
    place, read_windows = Place(), []
    for step in range(1, 5):
        batch = batches.read(step, place)
        read_windows += batch.windows
        place = batch.after
    per_epoch = collections.Counter(epoch for epoch, _ in read_windows)
    assert per_epoch == {0: 30, 1: 30, 2: 20}
    assert languages(windows, np.array([index for epoch, index in read_windows if epoch == 1])) == \
        {"text": 10, "python": 10, "java": 10}


# --- from files ---

def test_files_say_it_by_their_name_and_records_by_their_field(tmp_path):
    (tmp_path / "a.py").write_text("x = 1\n")
    (tmp_path / "b.txt").write_text("Some text.\n")
    (tmp_path / "c.java").write_text("class A {}\n")
    (tmp_path / "d.jsonl").write_text(json.dumps({"text": "x", "language": "Go"}) + "\n" + json.dumps({"text": "y"}))
    assert [document.language for document in read(tmp_path)] == ["python", "text", "java", "go", "text"]


def test_the_embedded_corpus_has_prose_and_code():
    found = collections.Counter(document.language for document in read("python-library"))
    assert set(found) == {"text", "python"} and min(found.values()) > 100


def test_a_prepared_corpus_keeps_languages_and_smooths_training_alone(tmp_path):
    (tmp_path / "in").mkdir()
    for i in range(40):
        (tmp_path / "in" / f"{i}.txt").write_text(f"Words of text number {i}. " * 20)
        if i % 4 == 0:
            (tmp_path / "in" / f"{i}.py").write_text(f"value_{i} = {i}\n" * 20)
    made = {smoothing: prepare(tmp_path / "in", tmp_path / f"out{smoothing}", tokenizer=TokenizerConfig("bytes"),
                               window=32, held_out=0.2, smoothing=smoothing) for smoothing in (1.0, 0.0)}
    plain, smooth = made[1.0], made[0.0]
    for prepared in made.values():
        for part in (prepared.train, prepared.valid):
            for window in part:
                text = prepared.tokenizer.decode(part.document(window.document))
                assert window.language == ("python" if "value" in text else "text")
    assert len(smooth.train) == len(plain.train) == len(plain.train.order(0, 0))
    found = languages(smooth.train, smooth.train.order(0, 0))
    assert found["python"] == pytest.approx(found["text"], rel=0.05)
    assert len(smooth.valid.order(0, 0)) == len(smooth.valid) and smooth.valid.smoothing == 1
    # another smoothing is another text to train on, the same one is used again
    stamp = (tmp_path / "out0.0" / "prepared.json").stat().st_mtime_ns
    prepare(tmp_path / "in", tmp_path / "out0.0", tokenizer=TokenizerConfig("bytes"), window=32, held_out=0.2,
            smoothing=0.0)
    assert (tmp_path / "out0.0" / "prepared.json").stat().st_mtime_ns == stamp
    again = prepare(tmp_path / "in", tmp_path / "out0.0", tokenizer=TokenizerConfig("bytes"), window=32, held_out=0.2)
    assert again.train.smoothing == 1


def test_a_smoothing_out_of_range_is_refused(tmp_path):
    with pytest.raises(BothwaysError, match=r"smoothing is 1\.5, but lies between 0 .* and 1"):
        prepare(tmp_path, tmp_path / "out", tokenizer=TokenizerConfig("bytes"), smoothing=1.5)
