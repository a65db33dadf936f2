"""Variational: the decoder knows of the text what the latent says, the loss is a bound, and noise can be repeated."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tests.objectives.shaken import shaken

from bothways.batch import RESERVED_TOKENS, Key, Vocabulary, Window, pack
from bothways.decoding import interpolate as latents
from bothways.errors import BothwaysError
from bothways.evaluation.elbo import bound, elbo
from bothways.families.trained import Trained
from bothways.model import LanguageModel, ModelConfig, Shape, cost
from bothways.objectives import make
from bothways.objectives.lots import normals
from bothways.objectives.variational import divergence
from bothways.training.optimiser import AdamW

RESERVED = len(RESERVED_TOKENS)
PLAIN = Vocabulary.plain(RESERVED + 30)


def text(length, seed=0):
    ids = np.random.default_rng(seed).integers(RESERVED, PLAIN.size, length)
    return np.concatenate(([PLAIN.bos], ids, [PLAIN.eos]))


def network(objective, spread=0.4, width=16):
    shape = Shape(PLAIN.size, width, layers=2, source_layers=1, heads=2)
    return shaken(ModelConfig(shape, companions=objective.companions), spread)


def examples(objective, n=4, progress=1.0):
    return [objective.corrupt(Window(text(10 + i, i), index=i), Key(0, 0, i, progress)) for i in range(n)]


def predictions(model, example, **given):
    with torch.no_grad():
        where = example.asks[0].where
        return model.logits(model(example, **given).states[where])


# --- examples ---

def test_an_example_by_hand():
    objective, ids = make("variational(size=3)", PLAIN), text(6)
    example = objective.corrupt(Window(ids), Key(0, 0, 0, 1.0))
    assert example.source.inputs.tolist() == ids.tolist()
    assert example.inputs.tolist() == ids[:-1].tolist()
    own, other = example.asks
    assert own.targets.tolist() == ids[1:].tolist() and own.part == "reconstruction" and own.coefficient == 1
    assert (other.part, other.count, len(other.where)) == ("kl", own.count, 0)
    assert len(set(example.fields["lot"].tolist() + example.source.fields["lot"].tolist())) == 1
    again = objective.corrupt(Window(ids), Key(0, 0, 0, 1.0))
    assert torch.equal(again.fields["lot"], example.fields["lot"])
    assert not torch.equal(objective.corrupt(Window(ids), Key(0, 1, 0)).fields["lot"], example.fields["lot"])


@pytest.mark.parametrize(("options", "weights"), [
    ("", [0, 0.5, 1, 1, 1]), ("anneal=0", [1] * 5), ("anneal=1, kl=2", [0, 0.5, 1, 1.5, 2]),
])
def test_the_weight_of_the_divergence_rises(options, weights):
    objective = make(f"variational({options})", PLAIN)
    got = [objective.corrupt(Window(text(4)), Key(0, 0, 0, place / 4)).asks[1].coefficient for place in range(5)]
    assert got == pytest.approx(weights)


def test_dropped_words_are_read_as_unknown_and_still_asked_for():
    objective, ids = make("variational(word_dropout=0.3)", PLAIN), text(400)
    counts = []
    for i in range(20):
        example = objective.corrupt(Window(ids, index=i), Key(0, 0, i))
        dropped = example.inputs == PLAIN.ids["<unk>"]
        counts.append(int(dropped.sum()))
        assert example.inputs[0] == PLAIN.bos and example.asks[0].targets.tolist() == ids[1:].tolist()
        assert example.inputs[~dropped].tolist() == ids[:-1][~dropped.numpy()].tolist()
        assert PLAIN.ids["<unk>"] not in example.source.inputs.tolist()
    assert np.mean(counts) == pytest.approx(0.3 * 400, rel=0.05)


# --- the loss ---

def test_the_divergence_is_the_textbooks():
    mean, spread = torch.randn(5, 3), torch.randn(5, 3)
    true = torch.distributions.kl_divergence(torch.distributions.Normal(mean, (spread / 2).exp()),
                                             torch.distributions.Normal(0.0, 1.0))
    assert torch.allclose(divergence(mean, spread), true, atol=1e-5)


def test_the_loss_by_hand():
    objective = make("variational(size=3)", PLAIN)
    model = network(objective)
    example = examples(objective, 1)[0]
    latent = model.companions["latent"]
    with torch.no_grad():
        pooled = model.encode(example.source).states.mean(0, keepdim=True)
        mean, spread = latent.mean(pooled), latent.log_variance(pooled)
        noise = normals(example.fields["lot"][:1], 3)
        z = mean + (spread / 2).exp() * noise
        logits = model.logits(model(replace(example, source=None), latent=z).states)
        nll = torch.nn.functional.cross_entropy(logits, example.asks[0].targets, reduction="sum")
        parts = {part.name: part for part in objective.parts(model, pack([example])[0])}
    assert float(parts["reconstruction"].sum) == pytest.approx(float(nll))
    assert float(parts["kl"].sum) == pytest.approx(float(divergence(mean, spread).sum()))
    assert parts["kl"].count == parts["reconstruction"].count == len(example)


def test_packed_equals_alone():
    objective = make("variational(size=3)", PLAIN)
    model = network(objective)
    single = examples(objective)
    with torch.no_grad():
        (row,) = pack([single[i] for i in (2, 0, 3, 1)])
        together = {part.name: float(part.sum) for part in objective.parts(model, row)}
        alone = [{part.name: float(part.sum) for part in objective.parts(model, pack([one])[0])} for one in single]
    assert together == pytest.approx({name: sum(one[name] for one in alone) for name in together})


def test_a_draw_has_the_mean_and_deviation_it_should():
    objective = make("variational(size=2)", PLAIN)
    model = network(objective)
    (row,) = pack([objective.corrupt(Window(text(2), index=i), Key(0, 0, i)) for i in range(1500)])
    with torch.no_grad():
        extras = model(row).extras
    drawn, mean, deviation = extras["latent"], extras["mean"][0], (extras["log_variance"][0] / 2).exp()
    assert torch.allclose(extras["mean"], mean.expand(1500, 2))
    assert torch.allclose(drawn.mean(0), mean, atol=4 * float(deviation.max()) / math.sqrt(1500))
    assert torch.allclose(drawn.std(0), deviation, rtol=0.08)


def test_free_bits_stop_the_pressure_and_not_the_count():
    options = "variational(size=4, free_bits={})"
    some, none = make(options.format(1.0), PLAIN), make(options.format(0.0), PLAIN)
    model = network(some, 0.2)
    (row,) = pack(examples(some, 2))
    found = []
    for objective in (some, none):
        model.zero_grad()
        kl = next(part for part in objective.parts(model, row) if part.name == "kl")
        kl.sum.backward()
        found.append((float(kl.sum.detach()), model.companions["latent"].mean.weight.grad.clone()))
        nats = divergence(*(model(row).extras[name] for name in ("mean", "log_variance")))
    assert found[0][0] == pytest.approx(found[1][0])
    free = (nats <= 1.0).all(0)
    assert free.any() and not found[0][1][free].any() and found[1][1][free].any()


def test_a_plain_autoencoder_has_neither_noise_nor_divergence():
    objective = make("variational(size=3, kl=0)", PLAIN)
    model = network(objective)
    one = objective.corrupt(Window(text(6)), Key(0, 0, 0))
    assert "lot" not in one.fields and [asked.part for asked in one.asks] == ["reconstruction"]
    assert model.companions["latent"].log_variance is None
    extras = model(pack([one])[0]).extras
    assert torch.equal(extras["latent"], extras["mean"])


def test_beside_another_objective_the_divergence_is_of_its_own_texts():
    mixed = make("0.5 variational(size=3) + 0.5 denoising(noises=deletion)", PLAIN)
    single = make("variational(size=3)", PLAIN)
    model = network(single)
    own = [mixed.corrupt(Window(text(8, i), index=i), Key(0, 0, i, 1.0)) for i in range(6)]
    rows = pack(own)
    assert len(rows) == 2
    parts = {part.name: part for row in rows for part in mixed.parts(model, row)}
    assert set(parts) == {"variational/reconstruction", "variational/kl", "denoising"}
    ours = [i for i in range(6) if mixed.names[mixed.chosen(Key(0, 0, i, 1.0))] == "variational"]
    (row,) = pack([single.corrupt(Window(text(8, i), index=i), Key(0, 0, i, 1.0)) for i in ours])
    assert float(parts["variational/kl"].sum.detach()) == pytest.approx(float(single.parts(model, row)[1].sum.detach()))


# --- leaks ---

def test_the_decoder_knows_what_the_latent_says_and_nothing_else():
    objective = make("variational(size=3)", PLAIN)
    model = network(objective)
    one, two = (pack([example])[0] for example in examples(objective, 2))
    z = model(one).extras["latent"]
    told = predictions(model, one)
    assert torch.equal(predictions(model, replace(one, source=None), latent=z), told)
    # another text and the same latent: the same; the same text and another latent: every prediction moves
    assert torch.equal(predictions(model, replace(one, source=two.source), latent=z), told)
    assert (predictions(model, one, latent=z + 1) != told).any(-1).all()
    # every token of the source moves the latent, and so everything
    for place in range(len(one.source)):
        inputs = one.source.inputs.clone()
        inputs[place] = RESERVED if inputs[place] != RESERVED else RESERVED + 1
        moved = predictions(model, replace(one, source=replace(one.source, inputs=inputs)))
        assert (moved != told).any(-1).all()


def test_the_decoder_sees_what_it_has_written_only():
    objective = make("variational(size=3)", PLAIN)
    model = network(objective)
    (row,) = pack(examples(objective, 1))
    before = predictions(model, row)
    for place in range(len(row)):
        inputs = row.inputs.clone()
        inputs[place] = RESERVED if inputs[place] != RESERVED else RESERVED + 1
        changed = (predictions(model, replace(row, inputs=inputs)) != before).any(-1)
        assert changed.tolist() == [k >= place for k in range(len(row))]


@pytest.mark.parametrize("places", [[1], [3, 4, 8], list(range(6, 12)), list(range(1, 12)), list(range(12)), []])
def test_a_question_hides_what_it_asks(places):
    objective = make("variational(size=3)", PLAIN)
    ids = np.array([PLAIN.bos, *range(RESERVED, RESERVED + 10), PLAIN.eos])
    model = network(objective)
    hidden = np.isin(np.arange(12), places)
    question = objective.blank(ids, hidden)
    (asked,) = question.asks
    assert asked.targets.tolist() == ids[hidden][int(hidden[0]):].tolist()
    assert not set(asked.targets.tolist()) & set(question.source.inputs.tolist())
    assert "lot" not in question.source.fields
    told = [*question.inputs.tolist(), PLAIN.eos]
    assert [told[place + 1] for place in asked.where.tolist()] == asked.targets.tolist()
    if len(asked.where) > 1:
        # the chain rule: the first answer knows of none of the hidden tokens
        other = objective.blank(np.where(hidden & (ids >= RESERVED), RESERVED + 15, ids), hidden)
        assert torch.equal(predictions(model, question)[0], predictions(model, other)[0])


# --- the bound ---

def test_the_bound_is_exact_where_the_latent_is_ignored_and_costs_nothing():
    objective = make("variational(size=2)", PLAIN)
    model = network(objective)
    latent = model.companions["latent"]
    with torch.no_grad():
        for layer in (latent.mean, latent.log_variance, latent.opening):
            layer.weight.zero_()
            layer.bias.zero_()
    ids = text(5)
    trained = SimpleNamespace(network=model, objective=objective, vocabulary=PLAIN, device=torch.device("cpu"))
    (row,) = pack([objective.blank(ids, np.arange(7) > 0)])
    exact = -float(predictions(model, row).log_softmax(-1).gather(-1, row.asks[0].targets[:, None]).sum())
    assert bound(trained, ids, 3, Key(0, 0, 0)) == pytest.approx(exact)


def test_the_bound_is_above_the_integral():
    """With a latent of one number, p(x) = integral of p(x|z) N(z) dz is summed up on a fine grid."""
    objective = make("variational(size=1)", PLAIN)
    model = network(objective, 0.5)
    ids = text(4)
    trained = SimpleNamespace(network=model, objective=objective, vocabulary=PLAIN, device=torch.device("cpu"))
    grid = torch.linspace(-8, 8, 801, dtype=torch.float64)[:, None]
    (row,) = pack([replace(objective.blank(ids, np.arange(6) > 0), source=None)] * len(grid))
    logits = predictions(model, row, latent=grid)
    nll = -logits.log_softmax(-1).gather(-1, row.asks[0].targets[:, None]).view(len(grid), -1).sum(-1)
    weights = torch.distributions.Normal(0.0, 1.0).log_prob(grid[:, 0]) + math.log(16 / 800)
    true = -float(torch.logsumexp(weights - nll, 0))
    assert bound(trained, ids, 400, Key(0, 0, 0)) > true + 0.01
    # with the true posterior (a normal fitted to it) the gap nearly closes
    posterior = torch.softmax(weights - nll, 0)
    mean = float((posterior * grid[:, 0]).sum())
    variance = float((posterior * (grid[:, 0] - mean) ** 2).sum())
    latent = model.companions["latent"]
    with torch.no_grad():
        for layer, value in ((latent.mean, mean), (latent.log_variance, math.log(variance))):
            layer.weight.zero_()
            layer.bias.fill_(value)
    assert true - 0.02 < bound(trained, ids, 2000, Key(0, 0, 0)) < true + 0.3


def test_scores_of_whole_texts():
    objective = make("variational(size=2)", PLAIN)
    trained = SimpleNamespace(network=network(objective), objective=objective, vocabulary=PLAIN,
                              device=torch.device("cpu"))
    nats, bits = elbo(trained, [text(8, i) for i in range(4)], samples=2)
    assert (nats.name, nats.estimator, nats.n) == ("text NLL", "upper bound, 2 samples", 4)
    assert bits.name == "text bits per byte" and nats.value > 0
    trained.objective = make("denoising", PLAIN)
    assert elbo(trained, [text(8)]) == []


# --- writing ---

def overfitted():
    """A network that knows three sentences by heart, in about two seconds."""
    objective = make("variational(size=4, kl=0.02, anneal=0)", PLAIN)
    torch.manual_seed(1)
    model = LanguageModel(ModelConfig(Shape(PLAIN.size, 32, layers=1, source_layers=1, heads=2),
                                      companions=objective.companions))
    texts = [text(length, length) for length in (5, 5, 4)]
    weights = dict(model.named_parameters())
    optimiser = AdamW({name: weight.detach() for name, weight in weights.items()}, (0.9, 0.99),
                      dict.fromkeys(weights, 0.0))
    for step in range(150):
        (row,) = pack([objective.corrupt(Window(ids, index=i), Key(0, step, i)) for i, ids in enumerate(texts)])
        model.zero_grad()
        torch.stack([part.sum / part.count * part.coefficient for part in objective.parts(model, row)]).sum().backward()
        optimiser.step({name: weight.grad for name, weight in weights.items() if weight.grad is not None}, 0.01)
    return Trained(model.eval(), objective, SimpleNamespace(readable=False)), texts


def test_a_way_between_two_texts_begins_with_one_and_ends_with_the_other():
    trained, texts = overfitted()
    insides = [ids[1:-1].tolist() for ids in texts]
    assert latents.write_from(trained, latents.locate(trained, insides)) == insides
    between = latents.interpolate(trained, insides[0], insides[1], steps=9)
    assert len(between) == 9 and between[0] == insides[0] and between[-1] == insides[1]
    # one of the two is left for the other somewhere on the way
    assert between[1] == insides[0] or between[-2] == insides[1]
    with pytest.raises(BothwaysError, match="at least that many"):
        latents.interpolate(trained, insides[0], insides[1], steps=1)
    assert all(len(ids) <= 2 for ids in latents.write_from(trained, torch.randn(3, 4), most=2))


def test_a_model_without_a_latent_has_no_way_between_texts():
    objective = make("denoising", PLAIN)
    config = ModelConfig(Shape(PLAIN.size, 16, layers=1, source_layers=1, heads=2))
    trained = Trained(LanguageModel(config), objective, SimpleNamespace(readable=False))
    with pytest.raises(BothwaysError, match="has no latent between two towers"):
        latents.interpolate(trained, [60], [61])
    (row,) = pack([objective.blank(text(4), np.arange(6) > 2)])
    with pytest.raises(BothwaysError, match="has no latent between its towers"):
        trained.network(row, latent=torch.zeros(1, 3))


def test_writing_on_is_the_same_with_and_without_a_cache():
    objective = make("variational(size=3)", PLAIN)
    model = network(objective)
    starts = [objective.continuation(text(length)[:-1]) for length in (3, 5)]
    (row,) = pack(starts)
    assert row.source.inputs.tolist() == row.inputs.tolist()
    cache = model.cache(2, 12)
    with torch.no_grad():
        cached = model(row, cache=cache).states
        assert torch.allclose(cached, model(row).states, atol=1e-10)
        # one more token each, the source told already
        longer = pack([replace(one, inputs=torch.cat((one.inputs, torch.tensor([RESERVED]))),
                               fields={name: torch.cat((fact, fact[-1:] + int(name in ("index", "position"))))
                                       for name, fact in one.fields.items()}) for one in starts])[0]
        ends = torch.tensor([len(starts[0]), len(starts[0]) + len(starts[1]) + 1])
        step = replace(longer, inputs=longer.inputs[ends], asks=(), source=None,
                       fields={name: fact[ends] for name, fact in longer.fields.items()})
        assert torch.allclose(model(step, cache=cache).states, model(longer).states[ends], atol=1e-10)


# --- costs and refusals ---

def test_one_vector_is_looked_at_instead_of_a_whole_source():
    objective, other = make("variational", PLAIN), make("denoising(noises=rotation)", PLAIN)
    config = ModelConfig(Shape(PLAIN.size, 32, layers=2, source_layers=2, heads=2))
    latent = replace(config, companions=objective.companions)
    ours, theirs = (cost.flops(one, made.profile, 64, training=False)
                    for one, made in ((latent, objective), (config, other)))
    told = 2 * 2 * 32 * 32
    assert theirs - ours == pytest.approx(2 * (told * 63 + 4 * 32 * 64 * 63) / 64)


@pytest.mark.parametrize(("options", "words"), [
    ("size=0", "size is 0"), ("kl=-1", "kl is -1"), ("anneal=2", "anneal is 2"), ("free_bits=-1", "free_bits is -1"),
    ("word_dropout=1.5", "word_dropout is 1.5"), ("kl=0, anneal=0.5", "anneal is 0.5, but kl is 0"),
    ("kl=0, free_bits=1", "free_bits is 1, but kl is 0"),
])
def test_bad_options_are_refused(options, words):
    with pytest.raises(BothwaysError, match=words):
        make(f"variational({options})", PLAIN)


def test_blanks_are_refused():
    with pytest.raises(BothwaysError, match="fills no blanks"):
        make("variational", PLAIN).infilling(text(4))
