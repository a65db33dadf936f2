"""Spans: the paper's lengths and rates, whole words, and what the two tokens around a span are asked for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.objectives.shaken import shaken

from bothways.batch import RESERVED_TOKENS, Key, Vocabulary, Window, pack
from bothways.errors import BothwaysError
from bothways.model import ModelConfig, Shape, cost
from bothways.objectives import make
from bothways.objectives.noise import geometric_lengths, runs
from bothways.visibility import bidirectional

RESERVED = len(RESERVED_TOKENS)
PLAIN = Vocabulary.plain(RESERVED + 400)
EVEN = replace(PLAIN, starts_word=PLAIN.starts_word & (np.arange(PLAIN.size) % 2 == 0))
"""Here words begin at even ids."""


def text(length, seed=0, words=None):
    """`<bos>`, tokens, `<eos>`; with `words`, each an even id followed by `words - 1` odd ones."""
    ids = np.random.default_rng(seed).integers(RESERVED, PLAIN.size, length)
    if words:
        ids = RESERVED + RESERVED % 2 + 2 * ((ids - RESERVED) // 2) % 300 + (np.arange(length) % words > 0)
    return np.concatenate(([PLAIN.bos], ids, [PLAIN.eos]))


def network(objective):
    return shaken(ModelConfig(Shape(PLAIN.size, 16, layers=2, heads=2), companions=objective.companions))


# --- the paper's numbers ---

def test_span_lengths_follow_the_law():
    lengths = np.concatenate([geometric_lengths(2000, 0.2, 10, np.random.default_rng(i)) for i in range(40)])
    law = 0.2 * 0.8 ** np.arange(10)
    law /= law.sum()
    assert float((np.arange(1, 11) * law).sum()) == pytest.approx(3.8, abs=0.01)
    assert np.bincount(lengths, minlength=11)[1:] / len(lengths) == pytest.approx(law, abs=0.012)
    assert lengths.mean() == pytest.approx(3.797, abs=0.06) and lengths.max() == 10


@pytest.mark.parametrize("total", [1, 4, 10, 30])
def test_lengths_add_up_on_average(total):
    sums = [geometric_lengths(total, 0.2, min(10, total), np.random.default_rng(i)).sum() for i in range(4000)]
    assert np.mean(sums) == pytest.approx(total, rel=0.02) and min(sums) >= 1


def test_rate_and_mean_span_of_examples():
    objective = make("spans", PLAIN)
    hidden, spans = 0, []
    for i in range(150):
        asked = objective.corrupt(Window(text(600, i), index=i), Key(0, 0, i)).asks[0]
        hidden += int(asked.count)
        starts, ends = runs(np.isin(np.arange(602), asked.where.numpy()))
        spans.append(ends - starts)
    assert hidden / (150 * 600) == pytest.approx(0.15, abs=0.002)
    assert np.concatenate(spans).mean() == pytest.approx(3.8, abs=0.1) and np.concatenate(spans).max() == 10


@pytest.mark.parametrize("length", [1, 2, 3, 6, 12])
def test_short_texts_hide_about_the_rate_and_at_least_one_word(length):
    objective = make("spans(rate=0.3)", PLAIN)
    counts = [int(objective.corrupt(Window(text(length), index=i), Key(0, 0, i)).asks[0].count) for i in range(2000)]
    assert min(counts) >= 1
    assert np.mean(counts) == pytest.approx(max(1, 0.3 * length), rel=0.08)


def test_eighty_ten_ten_goes_by_spans():
    objective = make("spans", PLAIN)
    kinds = {"all hidden": 0, "all kept": 0, "random": 0}
    for i in range(300):
        ids = text(400, i)
        example = objective.corrupt(Window(ids, index=i), Key(0, 0, i))
        read = example.inputs.numpy()
        starts, ends = runs(np.isin(np.arange(402), example.asks[0].where.numpy()))
        for start, end in zip(starts, ends, strict=True):
            here, text_here = read[start:end], ids[start:end]
            if (here == PLAIN.mask).any():
                assert (here == PLAIN.mask).all()
                kinds["all hidden"] += 1
            else:
                assert not PLAIN.special[here].any()
                kinds["all kept" if (here == text_here).all() else "random"] += 1
    total = sum(kinds.values())
    shares = [kinds[kind] / total for kind in ("all hidden", "random", "all kept")]
    assert shares == pytest.approx([0.8, 0.1, 0.1], abs=0.015)


def test_every_place_is_as_likely():
    objective = make("spans", PLAIN)
    counts = np.zeros(82)
    for i in range(4000):
        counts[objective.corrupt(Window(text(80), index=i), Key(0, 0, i)).asks[0].where.numpy()] += 1
    assert counts[0] == counts[-1] == 0
    assert counts[10:-10].std() / counts[10:-10].mean() < 0.12


# --- words and boundaries ---

def test_words_stay_whole():
    objective = make("spans(rate=0.3)", EVEN)
    for i in range(50):
        ids = text(90, i, words=3)
        example = objective.corrupt(Window(ids, index=i), Key(0, 0, i))
        hidden = np.isin(np.arange(len(ids)), example.asks[0].where.numpy())
        assert (hidden[1:-1].reshape(-1, 3).sum(1) % 3 == 0).all() and hidden.any()


def test_each_token_is_asked_for_three_times_in_one_order():
    objective = make("spans(rate=0.3)", PLAIN)
    for i in range(30):
        ids = text(60, i)
        example = objective.corrupt(Window(ids, index=i), Key(0, 0, i))
        inside, left, right = example.asks
        starts, ends = runs(np.isin(np.arange(len(ids)), inside.where.numpy()))
        want = [(place, start - 1, end) for start, end in zip(starts, ends, strict=True) for place in range(start, end)]
        assert list(zip(inside.where.tolist(), left.where.tolist(), right.where.tolist(), strict=True)) == want
        for asked in example.asks:
            assert asked.targets.tolist() == ids[inside.where.numpy()].tolist()
        # the tokens around a span are read as they are
        around = np.concatenate((starts - 1, ends))
        assert example.inputs[around].tolist() == ids[around].tolist()
        assert (left.count, right.count) == (len(want), 0) and (left.part, inside.part) == ("boundary", "masked")


def test_reserved_tokens_and_the_ends_of_a_window_are_never_hidden():
    objective = make("spans(rate=0.5)", PLAIN)
    ids = text(40)[1:-1]
    ids[[10, 11, 25]] = PLAIN.sep
    seen = set()
    for i in range(200):
        seen |= set(objective.corrupt(Window(ids, index=i), Key(0, 0, i)).asks[0].where.tolist())
    assert seen == set(range(1, 39)) - {10, 11, 25}


SHORT = [[], [60], [60, 61], [PLAIN.bos, PLAIN.eos], [PLAIN.bos, PLAIN.sep, PLAIN.sep, PLAIN.eos]]


@pytest.mark.parametrize("ids", SHORT)
def test_a_text_too_short_asks_nothing(ids):
    example = make("spans", PLAIN).corrupt(Window(np.array(ids, dtype=np.int64)), Key(0, 0, 0))
    assert [len(asked.where) for asked in example.asks] == [0, 0, 0] and example.inputs.tolist() == ids


def test_the_same_key_hides_the_same():
    objective, window = make("spans", PLAIN), Window(text(100))
    one, two, other = (objective.corrupt(window, key) for key in (Key(1, 2, 3), Key(1, 2, 3, 0.7), Key(1, 2, 4)))
    assert torch.equal(one.inputs, two.inputs) and not torch.equal(one.inputs, other.inputs)


# --- the loss ---

def test_the_loss_by_hand():
    objective = make("spans(rate=0.3, boundary=0.5)", PLAIN)
    model = network(objective)
    rows = pack([objective.corrupt(Window(text(30, i), index=i), Key(0, 0, i)) for i in range(3)])
    (row,) = rows
    parts = {part.name: part for part in objective.parts(model, row)}
    states = model(row).states
    head, norm = model.companions["boundary"], torch.nn.functional
    total = torch.zeros((), dtype=torch.float64)
    starts, ends = runs(np.isin(np.arange(len(row)), row.asks[0].where.numpy()))
    targets = dict(zip(row.asks[0].where.tolist(), row.asks[0].targets.tolist(), strict=True))
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        for place in range(start, end):
            known = torch.cat((states[start - 1], states[end], head.place.weight[place - start]))
            mixed = head.first_norm(norm.gelu(head.first(known))[None])
            mixed = head.second_norm(norm.gelu(head.second(mixed)))
            total -= (mixed @ model.embedding.weight.T)[0].log_softmax(-1)[targets[place]].detach()
    assert float(parts["boundary"].sum.detach()) == pytest.approx(float(total))
    assert parts["boundary"].count == parts["masked"].count == len(targets)
    assert parts["boundary"].coefficient == 0.5 and parts["masked"].coefficient == 1


def test_packed_equals_alone_and_only_asked_equals_all():
    objective = make("spans(rate=0.15)", PLAIN)
    model = network(objective)
    examples = [objective.corrupt(Window(text(60, i), index=i), Key(0, 0, i)) for i in range(4)]
    (row,) = pack(examples)
    together = {part.name: float(part.sum.detach()) for part in objective.parts(model, row)}
    whole = {part.name: float(part.sum.detach()) for part in objective.loss(model, model(row), row)}
    alone: dict[str, float] = {}
    for example in examples:
        for part in objective.parts(model, pack([example])[0]):
            alone[part.name] = alone.get(part.name, 0.0) + float(part.sum.detach())
    assert together == pytest.approx(alone) and together == pytest.approx(whole)


def test_beside_another_objective_the_parts_keep_apart():
    mixed = make("0.5 spans(rate=0.3) + 0.5 next-token", PLAIN)
    model = network(mixed)
    examples = [mixed.corrupt(Window(text(30, i), index=i), Key(0, 0, i)) for i in range(4)]
    found = {part.name for row in pack(examples) for part in mixed.parts(model, row)}
    assert found == {"spans/masked", "spans/boundary", "next-token"}


def test_without_a_boundary_it_is_masking_by_spans():
    objective = make("spans(boundary=0)", PLAIN)
    example = objective.corrupt(Window(text(60)), Key(0, 0, 0))
    assert [asked.part for asked in example.asks] == ["masked"] and objective.companions == ()
    with_boundary = make("spans", PLAIN).corrupt(Window(text(60)), Key(0, 0, 0))
    assert torch.equal(example.inputs, with_boundary.inputs)
    parts = objective.parts(network(objective), pack([example])[0])
    assert [part.name for part in parts] == ["masked"]


def test_hidden_tokens_are_not_seen_from_where_they_are_asked():
    objective = make("spans(rate=0.3, replace=all)", PLAIN)
    ids = np.concatenate(([PLAIN.bos], RESERVED + np.arange(60), [PLAIN.eos]))
    example = objective.corrupt(Window(ids), Key(0, 0, 0))
    for asked in example.asks:
        assert not set(asked.targets.tolist()) & set(example.inputs.tolist())


def test_the_boundary_is_paid_for():
    objective, bare = make("spans(rate=0.2)", PLAIN), make("spans(rate=0.2, boundary=0)", PLAIN)
    config = ModelConfig(Shape(PLAIN.size, 32, layers=2, heads=2), companions=objective.companions)
    more = (cost.flops(config, objective.profile, 50, training=False)
            - cost.flops(config, bare.profile, 50, training=False))
    assert more == pytest.approx(0.2 * 2 * (3 * 32 * 32 + 32 * 32 + 32 * PLAIN.size))


# --- questions ---

def test_a_question_hides_what_it_asks():
    objective, ids = make("spans", PLAIN), np.concatenate(([PLAIN.bos], RESERVED + np.arange(20), [PLAIN.eos]))
    hidden = np.isin(np.arange(22), [3, 4, 9])
    question = objective.blank(ids, hidden)
    (asked,) = question.asks
    assert asked.where.tolist() == [3, 4, 9] and asked.targets.tolist() == ids[hidden].tolist()
    assert question.inputs.tolist() == np.where(hidden, PLAIN.mask, ids).tolist()
    assert question.visibility == bidirectional
    with pytest.raises(BothwaysError, match="does not write from left to right"):
        objective.continuation(ids)


@pytest.mark.parametrize(("options", "words"), [
    ("rate=1", "rate is 1"), ("ends=0", "ends is 0"), ("longest=0", "longest is 0"), ("boundary=-1", "boundary is -1"),
    ("replace=half", "replace is 'half'"), ("longest=2.5", "longest is 2.5"),
])
def test_bad_options_are_refused(options, words):
    with pytest.raises(BothwaysError, match=words):
        make(f"spans({options})", PLAIN)
