"""Two streams: who sees whom is XLNet's, and the logits are those of two streams computed apart."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy import stats
from tests.objectives.shaken import shaken

from bothways.batch import RESERVED_TOKENS, Key, Vocabulary, Window
from bothways.errors import BothwaysError
from bothways.model import LanguageModel, ModelConfig, Shape
from bothways.objectives import make
from bothways.objectives.noise import spans_in_context
from bothways.visibility import grid, two_streams

RESERVED = len(RESERVED_TOKENS)
PLAIN = Vocabulary.plain(RESERVED + 60)
IDS = np.array([PLAIN.bos, *range(RESERVED, RESERVED + 6), PLAIN.eos])
MASK = PLAIN.mask


def network() -> LanguageModel:
    return shaken(ModelConfig(Shape(PLAIN.size, 16, layers=3, heads=2)))


@torch.no_grad()
def logits(model: LanguageModel, example) -> torch.Tensor:
    return model.logits(model(example).states[example.asks[0].where])


def test_a_small_order_by_hand():
    """Places 0 to 4 in the order 3 1 4 2 0, the last two asked for."""
    ids = IDS[1:6]
    ordered = make("permuted(ordered_context=true)", PLAIN).in_order(ids, np.array([3, 1, 4, 2, 0]), np.array([0, 2]))
    assert ordered.inputs.tolist() == [*ids.tolist(), MASK, MASK]
    assert ordered.fields["position"].tolist() == ordered.fields["index"].tolist() == [0, 1, 2, 3, 4, 0, 2]
    assert ordered.fields["part"].tolist() == [0] * 5 + [1] * 2
    assert ordered.fields["rank"].tolist() == [5, 2, 4, 1, 3, 5, 4]
    assert (ordered.asks[0].where.tolist(), ordered.asks[0].targets.tolist()) == ([5, 6], ids[[0, 2]].tolist())
    rows = ["xxxxx..", ".x.x...", ".xxxx..", "...x...", ".x.xx..", ".xxxx..", ".x.xx.."]
    assert grid(two_streams, ordered.fields).tolist() == [[c == "x" for c in row] for row in rows]
    # the released code: what is not asked for is one context
    example = make("permuted", PLAIN).in_order(ids, np.array([3, 1, 4, 2, 0]), np.array([0, 2]))
    assert example.fields["rank"].tolist() == [2, 0, 1, 0, 0, 2, 1]
    rows = ["xxxxx..", ".x.xx..", ".xxxx..", ".x.xx..", ".x.xx..", ".xxxx..", ".x.xx.."]
    assert grid(two_streams, example.fields).tolist() == [[c == "x" for c in row] for row in rows]


def test_who_sees_whom_is_that_of_transformers():
    """The collator's perm_mask: 1 where i may not attend to j; the content stream also sees itself."""
    transformers = pytest.importorskip("transformers")
    tokenizer = SimpleNamespace(mask_token="<mask>", mask_token_id=MASK, pad_token="<pad>", pad_token_id=PLAIN.pad,
                                get_special_tokens_mask=lambda ids, already_has_special_tokens: [0] * len(ids))
    collator = transformers.DataCollatorForPermutationLanguageModeling(tokenizer)
    objective = make("permuted", PLAIN)
    torch.manual_seed(0)
    for index in range(20):
        ids = np.random.default_rng(index).integers(RESERVED, PLAIN.size, 24)
        _, perm_mask, _, labels = collator.torch_mask_tokens(torch.from_numpy(ids)[None].clone())
        sees = perm_mask[0] == 0
        asked = np.flatnonzero(labels[0].numpy() != -100)
        if not len(asked):
            continue
        # the order is read off the relation: the more asked tokens one sees, the later it comes
        rank = sees[asked][:, asked].sum(1).numpy()
        context = np.setdiff1d(np.arange(24), asked)
        example = objective.in_order(ids, np.concatenate((context, asked[np.argsort(rank)])), asked)
        ours = grid(example.visibility, example.fields)
        assert torch.equal(ours[:24, :24], sees | torch.eye(24, dtype=torch.bool))
        assert torch.equal(ours[24:, :24], sees[asked])
        assert not ours[:, 24:].any()
        assert example.asks[0].targets.tolist() == labels[0][asked].tolist()


@pytest.mark.parametrize("options", ["", "(k=2)", "(k=1)", "(k=2, ordered_context=true)"])
def test_logits_are_those_of_two_streams_computed_apart(options):
    """Eq. 4 with two tensors: contents h attend to h with themselves, queries g to h without; both share weights."""
    model, objective = network(), make("permuted" + options, PLAIN)
    example = objective.corrupt(Window(IDS), Key(0, 0, 4))
    length = len(IDS)
    rank, place = example.fields["rank"], example.fields["position"].double()
    content, asked = rank[:length], rank[length:]
    h, g = model.embedding(torch.from_numpy(IDS)), model.embedding(torch.full((len(asked),), MASK))

    def turned(heads, places):
        size = heads.shape[-1]
        angle = places[:, None, None] * 10000.0 ** (-torch.arange(0, size, 2).double() / size)
        both = torch.complex(*heads.split(size // 2, dim=-1)) * torch.polar(torch.ones_like(angle), angle)
        return torch.cat((both.real, both.imag), -1)

    with torch.no_grad():
        for block in model.tower.blocks:
            query, key, value = block.attention.qkv(block.attention_norm(h)).view(length, 3, 2, 8).unbind(1)
            asking = block.attention.qkv(block.attention_norm(g)).view(len(g), 3, 2, 8)[:, 0]
            key = turned(key, place[:length])
            new = []
            for states, looks, places, seen in ((h, query, place[:length], content[None] <= content[:, None]),
                                                (g, asking, place[length:], content[None] < asked[:, None])):
                scores = torch.einsum("qhd,khd->hqk", turned(looks, places), key) / math.sqrt(8)
                weights = scores.masked_fill(~seen, -torch.inf).softmax(-1).nan_to_num(0)
                states = states + block.attention.out(torch.einsum("hqk,khd->qhd", weights, value).flatten(1))
                new.append(states + block.feed_forward(block.feed_forward_norm(states)))
            h, g = new
        expected = model.logits(model.tower.norm(g))
    # the network's table of angles is float32
    assert torch.allclose(logits(model, example), expected, atol=1e-5)


def test_in_the_identity_order_a_query_knows_exactly_what_stands_before_it():
    objective, length = make("permuted(k=1, ordered_context=true)", PLAIN), len(IDS)
    example = objective.in_order(IDS, np.arange(1, length), np.arange(1, length))
    seen = grid(example.visibility, example.fields)
    # contents are a causal network's, queries see one less
    assert torch.equal(seen[:length, :length], torch.ones(length, length, dtype=torch.bool).tril())
    assert torch.equal(seen[length:, :length], torch.ones(length, length, dtype=torch.bool).tril(-1)[1:])
    mode = objective.mode("left-to-right")
    question = objective.blank(IDS, np.arange(length) > 0, mode)
    assert torch.equal(grid(question.visibility, question.fields), seen)
    assert torch.equal(logits(network(), question), logits(network(), example))


def test_the_chain_rule_of_one_order_does_not_depend_on_who_is_asked_beside():
    """Queries together in one row, or one after another: nobody sees a query."""
    model, objective = network(), make("permuted(k=1)", PLAIN)
    order = np.array([3, 1, 4, 2])
    together = objective.in_order(IDS[:5], order, np.sort(order))
    targets = together.asks[0].targets
    scores = dict(zip(np.sort(order).tolist(), logits(model, together).log_softmax(-1)[range(4), targets].tolist(),
                      strict=True))
    alone = {}
    for place in order:
        part = objective.in_order(IDS[:5], order, np.array([place]))
        # the full order's context keeps its own order: give the same ranks
        part.fields["rank"] = torch.cat((together.fields["rank"][:5], together.fields["rank"][[place]]))
        alone[int(place)] = float(logits(model, part).log_softmax(-1)[0, IDS[place]])
    assert alone == pytest.approx(scores, abs=1e-12)


# --- what is asked -------------------------------------------------------------------------------------------

@pytest.mark.parametrize("k", [6, 7, 2, 1])
def test_one_token_in_k_is_asked_for_the_last_of_a_uniform_order(k):
    objective, length, windows = make(f"permuted(k={k})", PLAIN), 33, 3000
    counts, total = np.zeros(length), 0
    for index in range(windows):
        ids = np.concatenate(([PLAIN.bos], np.random.default_rng(index).integers(RESERVED, PLAIN.size, length - 1)))
        example = objective.corrupt(Window(ids, index=index), Key(0, 0, index))
        ask, rank = example.asks[0], example.fields["rank"]
        places = example.fields["position"][ask.where].numpy()
        counts[places] += 1
        total += len(places)
        assert ask.targets.tolist() == ids[places].tolist() and ask.count == len(places)
        assert example.inputs.tolist() == [*ids.tolist(), *[MASK] * len(places)] and example.raw == length
        # everything asked for is later than everything that is not
        assert sorted(rank[ask.where].tolist()) == list(range(1, len(places) + 1))
        assert (np.delete(rank[:length].numpy(), places) == 0).all()
    assert total / (windows * (length - 1)) == pytest.approx(1 / k, abs=0.003)
    assert counts[0] == 0
    assert np.abs(counts[1:] / windows - 1 / k).max() < 0.04


def test_runs_have_the_lengths_and_the_room_of_the_released_code():
    """Lengths by 1/n up to 5, a run of n at a random place among 6 n others: of 512 tokens one in 7 lies in a run."""
    rng, lengths, shares, places = np.random.default_rng(0), [], [], []
    for _ in range(2000):
        starts, long = spans_in_context(512, 5, 6.0, rng)
        lengths += long[:20].tolist()  # what the text's end cuts off are rather the long ones
        shares.append(long.sum() / 512)
        # the first run begins among its own 6 n tokens
        places.append((starts[0] + 0.5) / (6 * long[0]))
        assert (starts[1:] >= starts[:-1] + long[:-1]).all()
        assert starts[-1] + long[-1] <= 512
    law = 1 / np.arange(1, 6)
    counts = np.bincount(lengths, minlength=6)[1:]
    assert stats.chisquare(counts, law / law.sum() * counts.sum()).pvalue > 1e-3
    assert np.mean(shares) == pytest.approx(1 / 7, abs=0.005)
    assert np.mean(places) == pytest.approx(0.5, abs=0.02) and np.std(places) == pytest.approx(12 ** -0.5, abs=0.02)


def test_runs_are_asked_for_last_in_a_uniform_order_and_single_tokens_make_up_the_rest():
    objective, length, windows = make("permuted(longest=5)", PLAIN), 129, 1500
    total, beside, first = 0, 0, []
    for index in range(windows):
        ids = np.concatenate(([PLAIN.bos], np.random.default_rng(index).integers(RESERVED, PLAIN.size, length - 1)))
        example = objective.corrupt(Window(ids, index=index), Key(0, 0, index))
        rank, places = example.fields["rank"], example.fields["position"][example.asks[0].where].numpy()
        total += len(places)
        beside += int((np.diff(places) == 1).sum())
        assert (np.diff(places) > 0).all() and places[0] > 0
        assert sorted(rank[example.asks[0].where].tolist()) == list(range(1, len(places) + 1))
        assert (np.delete(rank[:length].numpy(), places) == 0).all()
        first.append(int(np.argmin(rank[example.asks[0].where])) / (len(places) - 1))
    assert total / (windows * (length - 1)) == pytest.approx(1 / 6, abs=0.001)
    # single tokens would stand beside each other for one in 6, runs of 2.2 on average do for more than half
    assert beside / total > 0.45
    assert stats.kstest(first, "uniform").statistic < 0.08


def test_orders_are_uniform():
    objective = make("permuted(k=1, ordered_context=true)", PLAIN)
    ids = IDS[1:5]
    counts: dict[tuple[int, ...], int] = {}
    for index in range(6000):
        order = tuple(objective.corrupt(Window(ids, index=index), Key(0, 0, index)).fields["rank"][:4].tolist())
        counts[order] = counts.get(order, 0) + 1
    assert len(counts) == 24
    assert stats.chisquare(list(counts.values())).pvalue > 1e-3


def test_the_profile_is_what_examples_measure():
    objective = make("permuted", PLAIN)
    read = asked = raw = 0
    for index in range(200):
        ids = np.random.default_rng(index).integers(RESERVED, PLAIN.size, 128)
        example = objective.corrupt(Window(ids, index=index), Key(0, 0, index))
        read, asked, raw = read + len(example), asked + len(example.asks[0].where), raw + example.raw
    assert read / raw == pytest.approx(objective.profile.inputs, abs=0.005)
    assert asked / raw == pytest.approx(objective.profile.asked, abs=0.005)


@pytest.mark.parametrize("spec", ["permuted", "permuted(longest=5)"])
@pytest.mark.parametrize("ids", [IDS[:1], IDS[:2], IDS[1:2]])
def test_short_texts(ids, spec):
    example = make(spec, PLAIN).corrupt(Window(ids), Key(0, 0, 0))
    assert len(example.asks[0].where) == int((ids != PLAIN.bos).sum())


# --- questions -----------------------------------------------------------------------------------------------

@pytest.mark.parametrize("ordered", ["false", "true"])
@pytest.mark.parametrize("places", [[3, 4, 6], [1], [1, 2, 3, 4, 5, 6, 7], [], [0, 7]])
def test_a_question_shows_what_its_mode_may_see(places, ordered):
    objective, hidden = make(f"permuted(ordered_context={ordered})", PLAIN), np.isin(np.arange(8), places)
    for mode in objective.modes:
        question = objective.blank(IDS, hidden, mode)
        assert question.asks[0].targets.tolist() == IDS[hidden].tolist() and question.visibility == mode.visibility
        seen = grid(question.visibility, question.fields)
        for place, row in zip(places, question.asks[0].where.tolist(), strict=True):
            shown = question.inputs.numpy()[seen[row].numpy()].tolist()
            assert shown == (IDS[:place] if mode.likelihood == "exact" else IDS[~hidden]).tolist()
            assert question.fields["position"][row] == place
        if mode.likelihood != "exact":
            assert not set(IDS[hidden].tolist()) & set(question.inputs.tolist())


def test_any_order_fills_and_left_to_right_only_scores():
    objective = make("permuted", PLAIN)
    assert [objective.decoding_of(mode) for mode in objective.modes] == ["diffusion", "left_to_right"]
    assert objective.decoding_of() == "diffusion"
    with pytest.raises(BothwaysError, match="does not write from left to right: its decoding is diffusion"):
        objective.continuation(IDS)
    with pytest.raises(BothwaysError, match="'any-order' and 'left-to-right'"):
        objective.mode(None)


@pytest.mark.parametrize(("options", "words"), [
    ({"k": 0.5}, "k is 0.5, but must be a number of at least 1"), ({"k": "six"}, "k is 'six'"),
    ({"ordered_context": 1}, "ordered_context is 1"), ({"longest": 0}, "longest is 0, but must be a whole number"),
])
def test_bad_options_are_refused(options, words):
    with pytest.raises(BothwaysError, match=words):
        make({"name": "permuted", **options}, PLAIN)
