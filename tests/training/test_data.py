from __future__ import annotations

import pytest
import torch

from bothways import objectives
from bothways.batch import Vocabulary
from bothways.errors import BothwaysError
from bothways.text.prepare import Prepared
from bothways.training.data import Batch, Batches, Place


def batches(prepared: Prepared, objective: str = "masked", **options: object) -> Batches:
    made = objectives.make(objective, prepared.tokenizer.vocabulary)
    return Batches(prepared.train, made, **{"seed": 0, "tokens": 128, "steps": 20, **options})  # type: ignore[arg-type]


def same(one: Batch, other: Batch) -> bool:
    return one.windows == other.windows and all(torch.equal(a.inputs, b.inputs) for a, b in zip(one.rows, other.rows))


def test_every_objective_reads_the_same_windows_in_the_same_order(prepared: Prepared) -> None:
    read = [
        [batch.windows for batch in batches(prepared, name).stream(1, Place())]
        for name in ("next-token", "masked", "span-corruption", "diffusion")
    ]
    assert read[0] == read[1] == read[2] == read[3]
    other = [batch.windows for batch in batches(prepared, seed=1).stream(1, Place())]
    assert other != read[0]


def test_a_step_never_reads_more_than_it_may(prepared: Prepared) -> None:
    for batch in batches(prepared, tokens=100).stream(1, Place()):
        assert 60 < batch.tokens <= 100
    alone = batches(prepared, tokens=3).read(1, Place())
    assert len(alone.windows) == 1, "one window at least"


def test_epochs_follow_each_other_within_a_step(prepared: Prepared) -> None:
    last = len(prepared.train) - 1
    batch = batches(prepared).read(5, Place(0, last))
    assert [epoch for epoch, _ in batch.windows][:2] == [0, 1]
    assert batch.after.epoch == 1 and batch.after.offset == len(batch.windows) - 1
    all_windows = {
        index
        for offset in range(0, last + 1, 500)
        for _, index in batches(prepared, tokens=500 * 32).read(1, Place(0, offset)).windows
    }
    assert len(all_windows) == len(prepared.train)


def test_a_batch_is_a_function_of_its_place(prepared: Prepared) -> None:
    first = list(batches(prepared).stream(1, Place(), prefetch=False))
    ahead = list(batches(prepared).stream(1, Place(), prefetch=True))
    later = list(batches(prepared).stream(11, first[9].after, prefetch=True))
    assert len(first) == len(ahead) == 20 and len(later) == 10
    assert all(same(one, other) for one, other in zip(first, ahead))
    assert all(same(one, other) for one, other in zip(first[10:], later))
    assert not same(first[0], batches(prepared, seed=1).read(1, Place()))


def test_small_rows_hold_what_one_large_row_holds(prepared: Prepared) -> None:
    whole, parts = batches(prepared).read(1, Place()), batches(prepared, micro=40).read(1, Place())
    assert len(whole.rows) == 1 and len(parts.rows) == len(parts.windows)
    assert whole.counts == parts.counts and torch.equal(whole.rows[0].inputs, torch.cat([r.inputs for r in parts.rows]))


def test_no_window_is_a_sentence() -> None:
    class Empty:
        def __len__(self) -> int:
            return 0

    with pytest.raises(BothwaysError, match="no training window"):
        Batches(Empty(), objectives.make("masked", Vocabulary.plain(60)), seed=0, tokens=8, steps=1)  # type: ignore[arg-type]
