"""Adversarial: what is written can be written again, and each side of the game moves its own weights."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.objectives.shaken import shaken

from bothways.batch import RESERVED_TOKENS, Example, Key, Vocabulary, Window, pack
from bothways.errors import BothwaysError
from bothways.model import ModelConfig, Shape, cost
from bothways.objectives import make
from bothways.objectives.lots import gumbels
from bothways.visibility import causal, make_fields

RESERVED = len(RESERVED_TOKENS)
PLAIN = Vocabulary.plain(RESERVED + 30)


def text(length, seed=0):
    ids = np.random.default_rng(seed).integers(RESERVED, PLAIN.size, length)
    return np.concatenate(([PLAIN.bos], ids, [PLAIN.eos]))


def network(objective, spread=0.3):
    config = ModelConfig(Shape(PLAIN.size, 16, layers=2, heads=2), companions=objective.companions)
    return shaken(config, spread)


def examples(objective, n=4, progress=1.0):
    return [objective.corrupt(Window(text(10 + 3 * i, i), index=i), Key(0, 0, i, progress)) for i in range(n)]


def found(objective, model, row):
    return {part.name: part for part in objective.parts(model, row)}


# --- examples ---

def test_an_example_by_hand():
    objective, ids = make("adversarial(stretch=0.4, likelihood=0.7, weight=0.2)", PLAIN), text(8)
    example = objective.corrupt(Window(ids), Key(0, 0, 0, 0.5))
    assert example.inputs.tolist() == ids.tolist() and example.visibility == causal
    # ceil(0.4 * 10) tokens behind the first one
    assert example.fields["judged"].tolist() == [0, 1, 1, 1, 1, 0, 0, 0, 0, 0]
    assert [(one.part, one.count, one.coefficient, len(one.where)) for one in example.asks] == [
        ("likelihood", 9, 0.7, 9), ("critic", 2, 1.0, 0), ("generator", 1, 0.2, 0)]
    again = objective.corrupt(Window(ids), Key(0, 0, 0, 0.9))
    assert torch.equal(again.fields["lot"], example.fields["lot"])


def test_the_game_begins_after_likelihood_alone():
    objective = make("adversarial(begin=0.5, likelihood=0)", PLAIN)
    model = network(objective)
    (row,) = pack(examples(objective, progress=0.49))
    (part,) = objective.parts(model, row)
    alone = make("next-token", PLAIN)
    (plain,) = pack([alone.corrupt(Window(text(10 + 3 * i, i), index=i), Key(0, 0, i)) for i in range(4)])
    (same,) = alone.parts(model, plain)
    assert torch.equal(part.sum, same.sum) and (part.count, part.coefficient) == (same.count, 1.0)
    (row,) = pack(examples(objective, progress=0.5))
    assert {name: part.coefficient for name, part in found(objective, model, row).items()} == {
        "likelihood": 0.0, "critic": 1.0, "generator": 0.1}


@pytest.mark.parametrize("ids", [[PLAIN.bos], [60]])
def test_a_text_of_one_token_is_not_played_with(ids):
    objective = make("adversarial", PLAIN)
    one = objective.corrupt(Window(np.array(ids)), Key(0, 0, 0, 1.0))
    assert [asked.part for asked in one.asks] == ["likelihood"] and int(one.fields["judged"].sum()) == 0
    # and in company it is passed over
    model = network(objective)
    others = examples(objective, 2)
    (row,), (without,) = pack([others[0], one, others[1]]), pack(others)
    assert torch.equal(objective.write(model, row), objective.write(model, without))
    parts, fewer = found(objective, model, row), found(objective, model, without)
    assert float(parts["critic"].sum) == pytest.approx(float(fewer["critic"].sum)) and parts["critic"].count == 4


# --- writing ---

def test_what_is_written_is_read_off_the_trunk_with_the_noise_of_each_place():
    """The reference: no cache, one document, token by token."""
    objective = make("adversarial(stretch=0.5)", PLAIN)
    model = network(objective)
    (example,) = examples(objective, 1)
    count = int(example.fields["judged"].sum())
    ids = example.inputs[:1]
    for place in range(1, count + 1):
        with torch.no_grad():
            states = model(Example(ids, causal, make_fields(len(ids)))).states
        noise = gumbels(example.fields["lot"][place:place + 1], PLAIN.size)[0]
        ids = torch.cat((ids, (model.logits(states[-1:])[0] + noise).argmax()[None]))
    assert objective.write(model, pack([example])[0]).tolist() == ids[1:].tolist()


def test_the_same_is_written_alone_and_packed_in_any_company():
    objective = make("adversarial(stretch=0.5)", PLAIN)
    model = network(objective)
    single = examples(objective)
    alone = [objective.write(model, pack([one])[0]).tolist() for one in single]
    for order in (range(4), [3, 1], [2, 0, 3]):
        (row,) = pack([single[i] for i in order])
        assert objective.write(model, row).tolist() == [token for i in order for token in alone[i]]
    assert len({tuple(one[:4]) for one in alone}) > 1


def test_a_written_token_follows_the_trunks_distribution():
    objective = make("adversarial(stretch=0.1)", PLAIN)
    model = network(objective, 0.5)
    (row,) = pack([objective.corrupt(Window(text(4), index=i), Key(0, 0, i, 1.0)) for i in range(2000)])
    written = objective.write(model, row)
    with torch.no_grad():
        states = model(Example(torch.tensor([PLAIN.bos]), causal, make_fields(1))).states
        true = model.logits(states)[0].softmax(-1)
    shares = torch.bincount(written, minlength=PLAIN.size).double() / len(written)
    assert len(written) == 2000 and torch.allclose(shares, true, atol=0.04)


def test_the_relaxed_tokens_are_the_written_ones():
    objective = make("adversarial(stretch=0.5, temperature=0.7)", PLAIN)
    model = network(objective)
    (row,) = pack(examples(objective))
    judged = row.fields["judged"] == 1
    fields = {name: fact[judged] for name, fact in row.fields.items()}
    written = objective.write(model, row)
    relaxed = objective._relaxed(model, row, written, fields)
    assert torch.allclose(relaxed, torch.nn.functional.one_hot(written, PLAIN.size).double(), atol=1e-12)
    # and the softmax behind them has its top at the very token that was drawn through a cache
    assert torch.equal(objective.noisy(model, row, written, fields).argmax(-1), written)
    (gradient,) = torch.autograd.grad((relaxed * torch.arange(PLAIN.size)).sum(), model.embedding.weight)
    assert gradient.abs().sum() > 0


# --- the loss ---

def test_the_loss_by_hand():
    objective = make("adversarial(stretch=0.5)", PLAIN)
    model = network(objective)
    (example,) = examples(objective, 1)
    (row,) = pack([example])
    parts, critic = found(objective, model, row), model.companions["critic"]
    count = int(example.fields["judged"].sum())
    with torch.no_grad():
        real, fake = (critic(tokens, make_fields(count)) for tokens in
                      (example.inputs[1:count + 1], objective.write(model, row)))
    wrong = -torch.log(torch.sigmoid(real)) - torch.log(1 - torch.sigmoid(fake))
    assert float(parts["critic"].sum) == pytest.approx(float(wrong), rel=1e-5)
    assert float(parts["generator"].sum) == pytest.approx(float(-torch.log(torch.sigmoid(fake))), rel=1e-5)
    assert (parts["critic"].count, parts["generator"].count) == (2, 1)


def test_each_side_moves_its_own_weights():
    objective = make("adversarial(stretch=0.5)", PLAIN)
    model = network(objective)
    (row,) = pack(examples(objective))

    def moved(part):
        model.zero_grad()
        found(objective, model, row)[part].sum.backward()
        return {name for name, weight in model.named_parameters()
                if weight.grad is not None and bool(weight.grad.any())}
    critic = {name for name, _ in model.named_parameters() if name.startswith("companions.critic.")}
    trunk = {name for name, _ in model.named_parameters()} - critic
    assert moved("likelihood") == trunk
    assert moved("critic") == critic
    assert moved("generator") == trunk
    assert not model.training


def test_the_trunks_part_goes_downhill():
    """Against a critic that holds still, steps along the gradient make it believe more of what is written."""
    objective = make("adversarial(stretch=0.5)", PLAIN)
    model = network(objective, 0.3)
    row = pack([objective.corrupt(Window(text(10, i), index=i), Key(0, 0, i, 1.0)) for i in range(40)])[0]
    losses = []
    for _ in range(12):
        model.zero_grad()
        part = found(objective, model, row)["generator"]
        losses.append(float(part.sum.detach()) / part.count)
        (part.sum / part.count).backward()
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if not name.startswith("companions") and weight.grad is not None:
                    weight -= 0.1 * weight.grad
    assert np.mean(losses[-3:]) < np.mean(losses[:3]) - 0.02, losses


# --- questions, costs, refusals ---

def test_it_is_asked_and_written_with_like_next_token():
    objective, plain, ids = make("adversarial", PLAIN), make("next-token", PLAIN), text(10)
    hidden = np.isin(np.arange(12), [2, 5, 6])
    ours, theirs = objective.blank(ids, hidden), plain.blank(ids, hidden)
    assert torch.equal(ours.inputs, theirs.inputs) and torch.equal(ours.asks[0].where, theirs.asks[0].where)
    assert objective.modes == plain.modes and objective.modes[0].likelihood == "exact"
    assert torch.equal(objective.continuation(ids[1:4]).inputs, plain.continuation(ids[1:4]).inputs)


def test_the_game_is_paid_for():
    config = ModelConfig(Shape(PLAIN.size, 32, layers=2, heads=2))
    plain = cost.flops(config, make("next-token", PLAIN).profile, 64)
    priced = [cost.flops(replace(config, companions=made.companions), made.profile, 64) / plain for made in
              (make(f"adversarial(begin={begin}, stretch={stretch})", PLAIN)
               for begin, stretch in ((1, 0.5), (0.5, 0.5), (0, 0.5), (0, 1)))]
    assert priced[0] == 1 and sorted(priced) == priced and priced[2] > 1 + 0.5 * 4 / 3


@pytest.mark.parametrize(("options", "words"), [
    ("begin=2", "begin is 2"), ("stretch=0", "stretch is 0"), ("critic=-1", "critic is -1"),
    ("weight=-1", "weight is -1"),
    ("likelihood=-1", "likelihood is -1"), ("temperature=0", "temperature is 0"),
])
def test_bad_options_are_refused(options, words):
    with pytest.raises(BothwaysError, match=words):
        make(f"adversarial({options})", PLAIN)


def test_it_is_trained_alone():
    with pytest.raises(BothwaysError, match="train it alone"):
        make("adversarial + next-token", PLAIN)
