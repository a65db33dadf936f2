"""Packing lays whole Examples end to end and changes nothing about any of them."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bothways.batch import RESERVED_TOKENS, Ask, Example, Key, Vocabulary, pack
from bothways.visibility import bidirectional, causal, grid, make_fields, prefix, same_document


def example(length, visibility=causal, weights=None, **kwargs):
    where = torch.arange(0, length, 2)
    return Example(torch.arange(length), visibility, asks=(Ask(where, where + 10, weights, float(len(where))),),
                   raw=length, **kwargs)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=6))
@settings(max_examples=50, deadline=None)
def test_a_packed_row_is_its_examples_side_by_side(lengths):
    row, = pack(example(n) for n in lengths)
    assert len(row) == sum(lengths) and row.raw == sum(lengths)
    seen = torch.block_diag(*(grid(causal, make_fields(n)).long() for n in lengths)).bool()
    assert torch.equal(row.visibility.allows(row.fields, row.fields), seen)
    assert torch.equal(row.fields["document"], torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths)))
    ask, = row.asks
    assert torch.equal(row.inputs[ask.where] + 10, ask.targets)
    assert ask.count == len(ask.targets) and ask.weights is None


def test_a_row_for_each_kind_of_example():
    rows = pack([example(3), example(4, bidirectional), example(2)])
    assert [len(row) for row in rows] == [5, 4]
    assert {row.visibility for row in rows} == {causal & same_document, same_document}


def test_packing_packed_rows_keeps_every_document():
    once, = pack([example(2), example(3)])
    twice, = pack([once, once])
    assert twice.fields["document"].tolist() == [0, 0, 1, 1, 1, 2, 2, 3, 3, 3]
    assert twice.visibility == causal & same_document


def test_sources_carry_the_numbers_of_their_targets():
    def pair(n, m):
        return example(n, source=example(m, bidirectional), cross=bidirectional)
    row, = pack([pair(2, 3), pair(1, 0), pair(2, 1)])
    assert row.cross == same_document
    assert row.source is not None and row.source.fields["document"].tolist() == [0, 0, 0, 2]
    looks = row.cross.allows(row.fields, row.source.fields)
    assert looks.sum(-1).tolist() == [3, 3, 0, 1, 1]


def test_weights_beside_none_count_one():
    row, = pack([example(3, weights=torch.tensor([0.5, 2.0])), example(2)])
    assert row.asks[0].weights.tolist() == [0.5, 2.0, 1.0]


def test_asks_of_different_parts_stay_apart():
    one = Example(torch.arange(2), causal, asks=(Ask(torch.tensor([0]), torch.tensor([1]), count=1.0),))
    other = Example(torch.arange(2), causal,
                    asks=(Ask(torch.tensor([1]), torch.tensor([1]), count=1.0, part="other", coefficient=0.5),))
    row, = pack([one, other])
    asked = [(ask.part, ask.where.tolist(), ask.coefficient) for ask in row.asks]
    assert asked == [("loss", [0], 1.0), ("other", [3], 0.5)]


def test_other_fields_travel():
    row, = pack([example(2, prefix, fields=make_fields(2, prefix=torch.tensor([1, 0]))),
                 example(1, prefix, fields=make_fields(1, prefix=torch.tensor([1])))])
    assert row.fields["prefix"].tolist() == [1, 0, 1]


def test_noise_depends_on_the_key_alone():
    key = Key(seed=1, epoch=2, index=3)
    assert key.rng().integers(1 << 40) == Key(1, 2, 3, progress=0.7).rng().integers(1 << 40)
    assert key.rng().integers(1 << 40) != key.rng(1).integers(1 << 40)
    assert key.rng().integers(1 << 40) != Key(1, 2, 4).rng().integers(1 << 40)


def test_reserved_tokens_come_first():
    vocabulary = Vocabulary.plain(64)
    assert len(RESERVED_TOKENS) == 44
    assert vocabulary.special[:44].all() and not vocabulary.special[44:].any()
    assert (vocabulary.pad, vocabulary.bos, vocabulary.eos, vocabulary.mask) == (0, 1, 2, 6)
    assert vocabulary.sentinels == tuple(range(12, 44))
