"""Replaced token: what is drawn can be drawn again, labels are what they should be, and each loss moves its own."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tests.objectives.shaken import shaken

from bothways.api import Model
from bothways.batch import RESERVED_TOKENS, Key, Vocabulary, Window, pack
from bothways.errors import BothwaysError
from bothways.evaluation.answers import answers
from bothways.evaluation.questions import ways
from bothways.families import settings
from bothways.families.trained import Trained
from bothways.model import LanguageModel, ModelConfig, Shape, cost
from bothways.objectives import make
from bothways.objectives.lots import drawn, gumbels, lots_of, normals, uniforms
from bothways.objectives.masked import Masked
from bothways.visibility import bidirectional

RESERVED = len(RESERVED_TOKENS)
PLAIN = Vocabulary.plain(RESERVED + 60)
SHARINGS = ["all", "none", "gradient-disentangled"]


def windows(n, length=24):
    rng = np.random.default_rng(3)
    return [Window(np.concatenate(([PLAIN.bos], rng.integers(RESERVED, PLAIN.size, length - 2 + i), [PLAIN.eos])),
                   i, 0, i) for i in range(n)]


def network(objective, **choices):
    config = ModelConfig(Shape(PLAIN.size, 32, layers=2, heads=4), companions=objective.companions, **choices)
    return shaken(config, 0.3, but="delta.weight")


def judged(objective, model, row):
    """What the trunk reads, as `parts` makes it."""
    filling = replace(row, asks=tuple(one for one in row.asks if one.head == "generator"))
    return objective.replaced(model, model(filling, only_asked=True).states, row)


def totals(parts):
    return {part.name: part.sum / part.count * part.coefficient for part in parts}


# --- noise that travels with the tokens ---

def test_lots_give_uniform_normal_and_gumbel_numbers():
    lots = torch.from_numpy(lots_of(Key(0, 0, 0), 400))
    numbers = uniforms(lots, 500)
    assert numbers.min() > 0 and numbers.max() < 1
    assert float(numbers.mean()) == pytest.approx(0.5, abs=0.003)
    assert float(numbers.var() * 12) == pytest.approx(1, abs=0.01)
    # neighbours in the table have nothing to do with each other
    centred = numbers - 0.5
    assert abs(float((centred[:, 1:] * centred[:, :-1]).mean() * 12)) < 0.01
    assert abs(float((centred[1:] * centred[:-1]).mean() * 12)) < 0.01
    assert float(normals(lots, 500).std()) == pytest.approx(1, abs=0.01)
    assert float(gumbels(lots, 500).mean()) == pytest.approx(0.5772, abs=0.01)


def test_a_draw_follows_its_distribution():
    probabilities = torch.tensor([0.5, 0.0, 0.2, 0.3])
    lots = torch.from_numpy(lots_of(Key(1, 0, 0), 40_000))
    tokens = drawn(probabilities.log().expand(len(lots), 4), lots)
    shares = torch.bincount(tokens, minlength=4).double() / len(lots)
    assert shares.tolist() == pytest.approx(probabilities.tolist(), abs=0.01)
    assert shares[1] == 0


# --- examples ---

def test_an_example_by_hand():
    objective, (window,) = make("replaced-token(rate=0.2)", PLAIN), windows(1)
    example = objective.corrupt(window, Key(0, 0, 0))
    filling, verdict = example.asks
    places = filling.where.tolist()
    assert (filling.head, filling.part, filling.coefficient) == ("generator", "generator", 1.0)
    assert (verdict.head, verdict.part, verdict.coefficient) == ("replaced", "replaced", 50.0)
    assert example.inputs[places].tolist() == [PLAIN.mask] * len(places) and len(places) == filling.count
    assert filling.targets.tolist() == window.ids[places].tolist()
    # the verdict is about all tokens
    assert verdict.where.tolist() == list(range(len(window.ids))) and verdict.count == len(window.ids)
    kept = np.setdiff1d(np.arange(len(window.ids)), places)
    assert example.inputs[kept].tolist() == window.ids[kept].tolist()
    again = objective.corrupt(window, Key(0, 0, 0))
    assert torch.equal(again.inputs, example.inputs) and torch.equal(again.fields["lot"], example.fields["lot"])
    other = objective.corrupt(window, Key(1, 0, 0))
    assert not torch.equal(other.fields["lot"], example.fields["lot"])


def test_fifteen_percent_are_filled():
    objective = make("replaced-token", PLAIN)
    ids = np.random.default_rng(0).integers(RESERVED, PLAIN.size, 200)
    hidden = [int(objective.corrupt(Window(ids, index=i), Key(0, 0, i)).asks[0].count) for i in range(300)]
    assert np.mean(hidden) == pytest.approx(30, abs=0.2)


def test_the_same_tokens_are_drawn_alone_and_packed_in_any_company():
    objective = make("replaced-token(rate=0.5)", PLAIN)
    model = network(objective)
    examples = [objective.corrupt(window, Key(5, 2, window.index)) for window in windows(6)]
    alone = [judged(objective, model, pack([example])[0]) for example in examples]
    for order in (range(6), [3, 0, 5], [4, 2], [5, 4, 3, 2, 1, 0]):
        (row,) = pack([examples[i] for i in order])
        together = judged(objective, model, row)
        assert together.inputs.tolist() == [token for i in order for token in alone[i].inputs.tolist()]
        assert torch.equal(together.asks[0].targets, torch.cat([alone[i].asks[0].targets for i in order]))
    # and the draws really differ between windows and epochs
    later = objective.corrupt(windows(6)[0], Key(5, 3, 0))
    assert judged(objective, model, pack([later])[0]).inputs.tolist() != alone[0].inputs.tolist()


def test_labels_say_which_tokens_are_not_the_text():
    objective = make("replaced-token(rate=0.5)", PLAIN)
    model = network(objective)
    (row,) = pack([objective.corrupt(window, Key(0, 0, window.index)) for window in windows(5)])
    read = judged(objective, model, row)
    text = torch.from_numpy(np.concatenate([window.ids for window in windows(5)]))
    (verdict,) = read.asks
    assert verdict.targets.tolist() == (read.inputs != text).long().tolist()
    assert 0 < int(verdict.targets.sum()) < len(row.asks[0].where) + 1


def test_a_generator_that_is_always_right_leaves_nothing_to_find():
    objective = make("replaced-token(rate=0.4)", PLAIN)
    (row,) = pack([objective.corrupt(window, Key(0, 0, window.index)) for window in windows(4)])
    targets = row.asks[0].targets

    def sure(states, head):
        return torch.nn.functional.one_hot(targets, PLAIN.size).double() * 200

    read = objective.replaced(SimpleNamespace(logits=sure), torch.zeros(len(row), 2), row)
    assert int(read.asks[0].targets.sum()) == 0
    assert read.inputs.tolist() == [token for window in windows(4) for token in window.ids.tolist()]


def test_what_is_drawn_knows_nothing_of_the_hidden_tokens():
    """Other text at the hidden places: the trunk reads the same, only the labels move."""
    objective = make("replaced-token(rate=0.3)", PLAIN)
    model = network(objective)
    example = objective.corrupt(windows(1)[0], Key(0, 0, 0))
    filling, verdict = example.asks
    other = replace(example, asks=(replace(filling, targets=RESERVED + (filling.targets - RESERVED + 1) % 60), verdict))
    one, two = judged(objective, model, example), judged(objective, model, other)
    assert torch.equal(one.inputs, two.inputs)
    # and what is seen does matter
    seen = next(place for place in range(1, 20) if place not in filling.where.tolist())
    moved = example.inputs.clone()
    moved[seen] = RESERVED + (moved[seen] - RESERVED + 1) % 60
    states = [model(replace(example, inputs=inputs, asks=(filling,))).states[filling.where]
              for inputs in (example.inputs, moved)]
    assert not (states[0] == states[1]).all(-1).any()


# --- the loss ---

def test_the_loss_by_hand():
    objective = make("replaced-token(rate=0.4)", PLAIN)
    model = network(objective)
    (row,) = pack([objective.corrupt(window, Key(0, 0, window.index)) for window in windows(3)])
    filling, _ = row.asks
    parts = {part.name: part for part in objective.parts(model, row)}
    states = model.companions["generator"](row, model.embedding)[filling.where]
    logits = states @ model.embedding.weight.T
    own = torch.nn.functional.cross_entropy(logits, filling.targets, reduction="sum")
    assert float(parts["generator"].sum) == pytest.approx(float(own))
    read = judged(objective, model, row)
    scores = model.companions["replaced"](model(replace(read, asks=())).states)
    found = torch.nn.functional.cross_entropy(scores, read.asks[0].targets, reduction="sum")
    assert float(parts["replaced"].sum) == pytest.approx(float(found))
    assert parts["replaced"].count == len(row) and parts["replaced"].coefficient == 50


@pytest.mark.parametrize("sharing", SHARINGS)
def test_each_loss_moves_its_own(sharing):
    objective = make(f"replaced-token(rate=0.4, sharing={sharing})", PLAIN)
    model = network(objective)
    (row,) = pack([objective.corrupt(window, Key(0, 0, window.index)) for window in windows(3)])

    def moved(part):
        model.zero_grad()
        totals(objective.parts(model, row))[part].backward()
        return {name for name, weight in model.named_parameters()
                if weight.grad is not None and bool(weight.grad.any())}
    by_generator, by_trunk = moved("generator"), moved("replaced")
    assert all(name.startswith(("companions.generator.", "embedding")) for name in by_generator)
    assert not any(name.startswith("companions.generator.") for name in by_trunk)
    assert {"tower.norm.weight", "companions.replaced.classes.weight"} <= by_trunk
    assert ("embedding.weight" in by_generator) == (sharing != "none")
    assert ("embedding.weight" in by_trunk) == (sharing != "gradient-disentangled")
    assert ("companions.delta.weight" in by_trunk) == (sharing == "gradient-disentangled")
    assert "companions.delta.weight" not in by_generator


def test_a_disentangled_trunk_reads_the_shared_table_at_first_and_its_own_sum_later():
    objective = make("replaced-token(sharing=gradient-disentangled)", PLAIN)
    config = ModelConfig(Shape(PLAIN.size, 32, layers=1, heads=4), companions=objective.companions)
    model = LanguageModel(config)
    (row,) = pack([objective.blank(windows(1)[0].ids, np.zeros(24, bool))])
    row = replace(row, asks=())
    shared = LanguageModel(replace(config, companions=()))
    shared.load_state_dict({name: weight for name, weight in model.state_dict().items() if "companions" not in name})
    assert torch.equal(model(row).states, shared(row).states)
    torch.nn.init.normal_(model.companions["delta"].weight)
    shared.embedding.weight.data += model.companions["delta"].weight.data
    assert torch.allclose(model(row).states, shared(row).states, atol=1e-6)


# --- costs ---

def test_the_generator_is_paid_for():
    objective = make("replaced-token(rate=0.2, generator=0.5)", PLAIN)
    shape = Shape(PLAIN.size, 64, layers=3, heads=4)
    config = ModelConfig(shape, companions=objective.companions)
    wide, narrow, length = 64, 32, 50
    reading = replace(Masked(PLAIN).profile, asked=0.0)
    trunk = cost.flops(replace(config, companions=()), reading, length, training=False)
    small = replace(config, companions=(), shape=replace(shape, width=narrow, heads=2))
    tower = cost.flops(small, reading, length, training=False)
    around = 2 * wide * narrow + 0.2 * 2 * (narrow * wide + wide * PLAIN.size)
    verdict = 2 * (wide * wide + wide * 2)
    whole = cost.flops(config, objective.profile, length, training=False)
    assert whole == pytest.approx(trunk + tower + around + verdict)
    bare, full = cost.parameters(replace(config, companions=())), cost.parameters(config)
    model = LanguageModel(config)
    assert full["total"] - bare["total"] == sum(weight.numel() for weight in model.companions.parameters())
    assert model.companions["generator"].config.shape.heads == 2


@pytest.mark.parametrize(("share", "heads", "width"), [(0.25, 1, 16), (0.5, 2, 32), (0.1, 1, 16), (1, 4, 64)])
def test_a_generator_has_whole_heads(share, heads, width):
    objective = make(f"replaced-token(generator={share})", PLAIN)
    shape = LanguageModel(ModelConfig(Shape(PLAIN.size, 64, layers=2, heads=4, key_heads=2),
                                      companions=objective.companions)).companions["generator"].config.shape
    assert (shape.heads, shape.width, shape.layers) == (heads, width, 2) and heads % shape.key_heads == 0


# --- questions ---

def test_questions_are_answered_by_the_generator_alone():
    objective = make("replaced-token", PLAIN)
    model = network(objective)
    trained = SimpleNamespace(network=model, objective=objective, vocabulary=PLAIN, device=torch.device("cpu"))
    assert [way.name for way in ways(trained)] == ["generator"]
    hidden = np.isin(np.arange(24), [3, 4, 8])
    ids = windows(1)[0].ids
    question = objective.blank(ids, hidden)
    assert question.visibility == bidirectional and question.inputs[hidden].tolist() == [PLAIN.mask] * 3
    before = answers(trained, [question])[0].log_probs
    with torch.no_grad():
        model.tower.norm.weight.zero_()
    assert np.array_equal(answers(trained, [question])[0].log_probs, before)
    # the text behind the blanks changes the targets and nothing else
    other = objective.blank(np.where(hidden, RESERVED + 1, ids), hidden)
    assert torch.equal(other.inputs, question.inputs)


# --- refusals ---

@pytest.mark.parametrize(("options", "words"), [
    ("rate=0", "rate is 0"), ("generator=0", "generator is 0"), ("generator=2", "generator is 2"),
    ("sharing=half", "sharing is 'half'"), ("weight=-1", "weight is -1"),
])
def test_bad_options_are_refused(options, words):
    with pytest.raises(BothwaysError, match=words):
        make(f"replaced-token({options})", PLAIN)


def test_it_is_trained_alone_and_by_its_own_parts():
    with pytest.raises(BothwaysError, match="train it alone"):
        make("replaced-token + masked", PLAIN)
    objective = make("replaced-token", PLAIN)
    with pytest.raises(BothwaysError, match="call `parts`"):
        objective.loss(None, None, None)
    with pytest.raises(BothwaysError, match="does not write from left to right"):
        objective.continuation(windows(1)[0].ids)


@pytest.mark.parametrize("ids", [[], [PLAIN.bos], [PLAIN.bos, PLAIN.eos]])
def test_a_text_without_words_asks_the_generator_nothing(ids):
    objective = make("replaced-token", PLAIN)
    example = objective.corrupt(Window(np.array(ids, dtype=np.int64)), Key(0, 0, 0))
    assert example.asks[0].count == 0 and example.asks[1].count == len(ids)
    if ids:
        parts = objective.parts(network(objective), pack([example])[0])
        assert {part.name: float(part.sum) > 0 for part in parts} == {"generator": False, "replaced": True}


def test_the_public_surface_asks_the_generator_and_embeds_with_the_trunk():
    objective = make("replaced-token", PLAIN)
    network_, ids = network(objective), windows(1)[0].ids
    model = Model(Trained(network_, objective, SimpleNamespace(vocabulary=PLAIN)))
    question = objective.blank(ids, np.zeros(len(ids), bool))
    with torch.no_grad():
        states = network_.companions["generator"](question, network_.embedding)
        assert torch.allclose(model.logits(ids)[0], states @ network_.embedding.weight.T)
        before = network_.encode(question).states
        network_.companions["generator"].exit_norm.weight.zero_()
        assert torch.equal(network_.encode(question).states, before)
    assert not model.logits(ids).any()


def test_what_is_stored_of_a_config_builds_all_of_it_again():
    objective = make("replaced-token(sharing=gradient-disentangled)", PLAIN)
    model = network(objective)
    torch.nn.init.normal_(model.companions["delta"].weight)
    data = settings.to_data(model.config)
    again = LanguageModel(settings.from_data(json.loads(json.dumps(data)), "a test")).double()
    again.load_state_dict(model.state_dict())
    (row,) = pack([objective.corrupt(window, Key(0, 0, window.index)) for window in windows(2)])
    one, two = (totals(objective.parts(net, row)) for net in (model, again.eval()))
    assert {name: float(value.detach()) for name, value in one.items()} == {
        name: float(value.detach()) for name, value in two.items()}
