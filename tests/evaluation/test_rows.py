"""Texts through a network: in rows under a budget, one long text alone, answers in order, streams in bounded memory."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from tests.evaluation.small import small

from bothways.api import Model
from bothways.batch import groups
from bothways.errors import BothwaysError
from bothways.evaluation.features import Tagged, pool, span_features, text_features
from bothways.evaluation.rows import encoded, in_order, reading, rows, size
from bothways.objectives.base import example as make
from bothways.visibility import bidirectional, causal

CPU = torch.device("cpu")
LENGTHS = (5, 1, 7, 30, 2, 2, 9, 1)


def of(length: int, visibility=bidirectional, source: int | None = None):
    other = None if source is None else make(np.arange(source), bidirectional)
    return make(np.full(length, length), visibility, source=other, cross=None if source is None else bidirectional)


def laid(lengths, **how):
    return [(numbers, row.inputs.tolist()) for numbers, _, row in rows(lengths, of, CPU, **how)]


def test_rows_by_hand():
    # the shortest first, as many as fit into 10 tokens; 30 alone
    assert laid(LENGTHS, tokens=10) == [
        ([1, 7, 4, 5], [1, 1, 2, 2, 2, 2]), ([0], [5] * 5), ([2], [7] * 7), ([6], [9] * 9), ([3], [30] * 30)]
    # a row's worth ahead: texts meet only within 10 tokens of the stream
    assert [numbers for numbers, _ in laid(LENGTHS, tokens=10, ahead=1)] == [[1, 0], [2], [3], [4, 5], [7, 6]]
    assert laid([]) == []


def test_groups_by_hand():
    assert list(groups([3, 3, 4, 1, 20, 1, 1], 10)) == [[0, 1, 2], [3], [4], [5, 6]]
    assert list(groups([], 10)) == []


def test_examples_of_several_kinds_lie_in_rows_of_their_own_and_sources_count():
    kinds = [of(3), of(2, causal), of(4, source=5), of(1), of(2, causal), of(1, source=1)]
    found = list(rows(kinds, lambda one: one, CPU, 9))
    assert [numbers for numbers, _, _ in found] == [[3, 0], [1, 4], [5], [2]]
    assert [size(row) for _, _, row in found] == [4, 4, 2, 9]
    assert all(size(row) == sum(map(size, some)) for _, some, row in found)


def test_answers_come_in_order_as_soon_as_they_can():
    heard = []

    def read():
        for numbers in ((2, 0), (3,), (1, 5), (4,)):
            heard.append(numbers)
            yield numbers, [f"answer {number}" for number in numbers]

    answers = in_order(read())
    assert next(answers) == "answer 0" and heard == [(2, 0)]
    assert next(answers) == "answer 1" and len(heard) == 3
    assert list(answers) == [f"answer {number}" for number in (2, 3, 4, 5)]


def test_a_stream_is_held_a_few_rows_at_a_time():
    taken = []
    stream = rows((taken.append(1) or number % 7 + 1 for number in itertools.count()), of, CPU, tokens=32, ahead=4)
    given = most = 0
    for numbers, _, row in itertools.islice(stream, 200):
        assert len(row) <= 32
        most = max(most, len(taken) - given)
        given += len(numbers)
    # 4 tokens in the mean: 128 tokens are 32 texts, and the one that did not fit any more
    assert given > 1000 and most <= 34


def test_what_is_refused():
    with pytest.raises(BothwaysError, match="text 4 has 30 tokens, but this network has places for 29"):
        laid(LENGTHS, places=29)
    with pytest.raises(BothwaysError, match="text 1 has 8 tokens, but this network has places for 5"):
        list(rows([of(2, source=8)], lambda one: one, CPU, places=5))
    with pytest.raises(BothwaysError, match="the budget of a pass is 0 tokens"):
        laid(LENGTHS, tokens=0)


def test_means_are_summed_in_float32_and_a_text_without_words_has_one():
    row = next(rows([3000, 2], of, CPU, 4096))[2]
    states = torch.full((3002, 1), 1.01, dtype=torch.bfloat16)
    counted = torch.arange(3002) != 0
    assert (pool(states, row, counted) == states[0].float()).all()
    # the first text's tokens are all reserved: all of them count
    states[:2] = torch.tensor([[1.0], [3.0]])
    assert pool(states, row, torch.arange(3002) > 1).tolist() == [[2.0], [states[2].item()]]


def test_reading_puts_the_network_back_and_leaves_gradients_alone_between_rows():
    network = torch.nn.Linear(2, 2).train()
    with reading(network):
        assert not network.training and torch.is_inference_mode_enabled()
    assert network.training
    stream = Model(small("masked")).embed(iter(["cat"] * 3))
    next(stream)
    # a stream that is not read to its end changes nothing for whoever holds it
    assert torch.is_grad_enabled() and not torch.is_inference_mode_enabled()


def test_a_stream_of_strings_is_encoded_a_few_hundred_at_a_time():
    taken = []
    tokenizer = small("masked").tokenizer
    stream = encoded(tokenizer, (taken.append(n) or "cat dog" for n in range(10_000)))
    assert next(stream) == tokenizer.encode("cat dog") and len(taken) < 1000
    assert sum(1 for _ in stream) == 9_999


@pytest.mark.parametrize("paradigm", ["masked", "causal", "denoising"])
def test_whoever_reads_texts_gets_the_same_packed_alone_and_streaming(paradigm):
    trained = small(paradigm, sharp=1.0)
    rng = np.random.default_rng(1)
    texts = [" ".join(rng.choice(["cat", "dog", "sees", "w1", "w2"], n)) for n in (4, 1, 13, 2, 2, 7)]
    alone = np.concatenate([text_features(trained, [text]) for text in texts])
    for tokens in (1, 16, 4096):
        assert text_features(trained, texts, tokens=tokens) == pytest.approx(alone, abs=1e-5)
    # spans, some texts without one
    tagged = [Tagged(np.array([1, *trained.tokenizer.encode(text)]), spans) for text, spans in zip(texts, (
        ((1, 2, "x"), (2, 4, "y")), (), ((0, 9, "x"),), ((2, 3, "y"),), ((1, 2, "x"),), ()))]
    spans = np.concatenate([span_features(trained, [text]) for text in tagged])
    assert span_features(trained, tagged, tokens=8) == pytest.approx(spans, abs=1e-5)
