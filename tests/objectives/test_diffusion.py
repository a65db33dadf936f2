"""Masked diffusion: the weights of every schedule make the bound what it says it is, and SUBS holds everywhere."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats
from tests.evaluation.small import places, small, texts

from bothways.batch import RESERVED_TOKENS, Key, Vocabulary, Window
from bothways.decoding import GenerateConfig, fill
from bothways.evaluation import likelihood
from bothways.evaluation.answers import answers
from bothways.evaluation.questions import ways
from bothways.objectives import make
from bothways.objectives.base import ask, example
from bothways.objectives.schedules import SCHEDULES
from bothways.visibility import bidirectional

FIRST = len(RESERVED_TOKENS)
PLAIN = Vocabulary.plain(FIRST + 40)
TIMES, SPANS = np.polynomial.legendre.leggauss(200)


def mean_over_times(what, first=0.0):
    """The mean of what(t) over [first, 1], by quadrature."""
    return sum(span / 2 * what(first + (1 - first) * (time + 1) / 2) for time, span in zip(TIMES, SPANS, strict=True))


# --- schedules -----------------------------------------------------------------------------------------------

@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_a_schedule_is_consistent(schedule):
    assert (schedule.hidden(0), schedule.hidden(1)) == (0, pytest.approx(1))
    for time in (0.05, 0.3, 0.77):
        slope = (schedule.hidden(time + 1e-6) - schedule.hidden(time - 1e-6)) / 2e-6
        assert schedule.slope(time) == pytest.approx(slope, rel=1e-5)
        assert schedule.weight(time) == pytest.approx(slope / schedule.hidden(time), rel=1e-5)
    assert mean_over_times(schedule.hidden) == pytest.approx(schedule.mean())
    assert mean_over_times(schedule.hidden, 0.2) == pytest.approx(schedule.mean(0.2))


@pytest.mark.parametrize("first", [0.0, 0.001, 0.2])
@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_every_token_weighs_one_on_average(schedule, first):
    assert mean_over_times(lambda t: schedule.hidden(t) * schedule.weight(t, first), first) == pytest.approx(1)


def test_the_linear_schedule_is_the_old_one_to_the_bit():
    for time in (0.001, 0.37, 1.0):
        assert SCHEDULES["linear"].hidden(time) == time and SCHEDULES["linear"].weight(time, 0.001) == 1 / time


@pytest.mark.parametrize("length", [1, 3, 6])
@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_a_set_of_hidden_places_weighs_what_it_weighs_in_the_exact_k_bound(schedule, length):
    """E over times of w(t) s^k (1 - s)^(L - k) = 1 / (k C(L, k)): k uniform, k of L places, weight L / k."""
    for k in range(1, length + 1):
        def weight(time, k=k):
            share = schedule.hidden(time)
            return schedule.weight(time) * share ** k * (1 - share) ** (length - k)
        assert mean_over_times(weight) == pytest.approx(1 / (k * math.comb(length, k)), rel=1e-6)


# --- a network that knows the truth --------------------------------------------------------------------------

JOINT = np.random.default_rng(0).dirichlet(np.full(81, 0.15)).reshape(3, 3, 3, 3)
"""The probability of every text of 4 tokens of 3 kinds: far from independent."""
ENTROPY = float(-(JOINT * np.log(JOINT)).sum())


def true_nll(text, hidden):
    """-log p of each hidden token given all that is not hidden, for one text of JOINT."""
    seen = JOINT[tuple(slice(None) if gone else kind for kind, gone in zip(text, hidden, strict=True))]
    left = [text[k] for k in np.flatnonzero(hidden)]
    nll = []
    for axis, kind in enumerate(left):
        marginal = seen.sum(axis=tuple(other for other in range(len(left)) if other != axis))
        nll.append(-math.log(marginal[kind] / marginal.sum()))
    return nll


def test_the_bound_of_the_true_distribution_is_its_entropy_for_every_schedule():
    """Exactly: all texts, all sets of hidden places, times by quadrature."""
    loss = {}
    for hidden in itertools.product([False, True], repeat=4):
        loss[hidden] = sum(JOINT[text] * sum(true_nll(text, hidden)) for text in np.ndindex(*JOINT.shape)
                           ) if any(hidden) else 0.0
    independent = sum(loss[tuple(np.arange(4) == k)] for k in range(4))
    assert abs(independent - ENTROPY) > 0.3  # the places do depend on each other
    for schedule in SCHEDULES.values():
        def at(time, schedule=schedule):
            share = schedule.hidden(time)
            return schedule.weight(time) * sum(
                value * share ** sum(hidden) * (1 - share) ** (4 - sum(hidden)) for hidden, value in loss.items())
        assert mean_over_times(at) == pytest.approx(ENTROPY, rel=1e-6)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_training_examples_estimate_that_bound(schedule):
    objective = make(f"diffusion(smallest_time=0.005, schedule={schedule})", PLAIN)
    rng = np.random.default_rng(1)
    drawn = rng.choice(81, size=12_000, p=JOINT.flatten())
    total = count = weights = 0.0
    for i, number in enumerate(drawn):
        text = np.unravel_index(number, JOINT.shape)
        one = objective.corrupt(Window(np.array(text) + FIRST, index=i), Key(0, 0, i))
        where = one.asks[0].where.numpy()
        hidden = np.isin(np.arange(4), where)
        assert (one.inputs.numpy()[hidden] == PLAIN.mask).all()
        if len(where):
            total += float(np.dot(one.asks[0].weights.numpy(), true_nll(text, hidden)))
            weights += float(one.asks[0].weights.sum())
        count += one.asks[0].count
    assert count == 4 * len(drawn)
    assert weights / count == pytest.approx(1, abs=0.03)
    assert total / count == pytest.approx(ENTROPY / 4, rel=0.03)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_share_hidden_follows_the_schedule(schedule):
    objective = make(f"diffusion(schedule={schedule})", PLAIN)
    ids = np.full(4000, FIRST)
    for time in (0.1, 0.5, 0.9):
        one = objective.noised(ids, time, np.random.default_rng(0))
        share = SCHEDULES[schedule].hidden(time)
        assert len(one.asks[0].where) / 4000 == pytest.approx(share, abs=0.03)
        assert one.asks[0].weights.numpy() == pytest.approx(SCHEDULES[schedule].weight(time, 0.001))
    asked = [len(objective.corrupt(Window(ids[:200], index=i), Key(0, 0, i)).asks[0].where) for i in range(500)]
    assert np.mean(asked) / 200 == pytest.approx(objective.profile.asked, abs=0.01)


# --- SUBS ----------------------------------------------------------------------------------------------------

def both(sharp=3.0):
    """One network, as LLaDA reads it and as MDLM does."""
    plain = small("diffusion", sharp=sharp)
    return plain, replace(plain, objective=make("diffusion(subs=True)", plain.vocabulary))


@torch.no_grad()
def raw_logits(trained, question):
    return trained.network.logits(trained.network(question).states[question.asks[0].where])


def test_subs_takes_the_mask_out_of_the_softmax_in_the_loss_in_scores_and_in_decoding():
    plain, subs = both()
    ids = texts(plain, 1, 12)[0].ids
    question = subs.objective.blank(ids, places(len(ids), 3, 4, 8))
    logits = raw_logits(subs, question)
    assert float(logits.softmax(-1)[:, subs.vocabulary.mask].max()) > 1e-4  # otherwise nothing would be tested
    others = logits.clone()
    others[:, subs.vocabulary.mask] = float("-inf")
    targets = question.asks[0].targets
    expected = others.log_softmax(-1).gather(-1, targets[:, None])[:, 0]
    (scored,), (without,) = answers(subs, [question]), answers(plain, [question])
    assert scored.log_probs == pytest.approx(expected.numpy(), abs=1e-5)
    assert (scored.log_probs > without.log_probs).all()
    (part,) = subs.objective.loss(subs.network, subs.network(question), question)
    assert float(part.sum.detach()) == pytest.approx(-float(expected.sum()), abs=1e-4)
    part.sum.backward()
    assert all(torch.isfinite(weight.grad).all() for weight in subs.network.parameters() if weight.grad is not None)
    for trained in (plain, subs):
        blanks = np.where(places(len(ids), 5), trained.vocabulary.mask, ids).tolist()
        (written,) = fill(trained, [blanks], GenerateConfig(begin=False))
        there = raw_logits(trained, trained.objective.blank(np.array(blanks), places(len(ids), 5)))
        if trained is subs:
            there[:, trained.vocabulary.mask] = float("-inf")
        assert written.logprobs[0] == pytest.approx(float(there.log_softmax(-1)[0, written.ids[5]]), abs=1e-5)


def test_what_is_kept_in_decoding_never_changes():
    """Carry-over: a text without blanks but one comes back with that one filled."""
    _, subs = both()
    ids = texts(subs, 1, 16)[0].ids
    blanks = np.where(places(len(ids), 2, 6, 7, 11), subs.vocabulary.mask, ids)
    (written,) = fill(subs, [blanks.tolist()], GenerateConfig(begin=False, steps=2))
    done = np.array(written.ids)
    assert (done[blanks != subs.vocabulary.mask] == ids[blanks != subs.vocabulary.mask]).all()
    assert subs.vocabulary.mask not in done


@pytest.mark.parametrize("spec", ["diffusion", "diffusion(subs=True)", "diffusion(schedule=cosine, subs=True)"])
def test_the_loss_over_all_times_is_the_exact_k_bound_and_the_mean_over_orders(spec):
    """Every set of hidden places through a real network, each weighed as the schedule does."""
    trained = small(spec, sharp=4.0)
    schedule = SCHEDULES[trained.objective.schedule]
    ids = texts(trained, 1, 5)[0].ids
    hidden = places(len(ids), *range(1, len(ids)))
    total, length = 0.0, len(ids) - 1
    for chosen in itertools.product([False, True], repeat=length):
        where = np.flatnonzero(chosen) + 1
        k = len(where)
        if not k:
            continue
        corrupted = ids.copy()
        corrupted[where] = trained.vocabulary.mask
        one = example(corrupted, bidirectional, [ask(where, ids[where])])
        with torch.no_grad():
            (part,) = trained.objective.loss(trained.network, trained.network(one), one)

        def weight(time, k=k):
            share = schedule.hidden(time)
            return schedule.weight(time) * share ** k * (1 - share) ** (length - k)
        total += float(part.sum) * mean_over_times(weight)
    way = ways(trained)[0]
    assert total == pytest.approx(likelihood.bound_in_full(trained, way, (ids, hidden)), abs=1e-3)
    assert total == pytest.approx(likelihood.over_orders(trained, way, (ids, hidden)), abs=1e-3)


def test_a_mixture_never_gives_what_one_member_forbids():
    assert make("next-token + diffusion(subs=True)", PLAIN).never == (PLAIN.mask,)
    assert make("next-token + diffusion", PLAIN).never == ()


# --- LLaDA's short windows -----------------------------------------------------------------------------------

def test_a_share_of_the_windows_is_cut_to_a_uniform_length():
    objective = make("diffusion(cut=0.2)", PLAIN)
    ids = np.concatenate(([PLAIN.bos], np.full(20, FIRST)))
    lengths = np.array([len(objective.corrupt(Window(ids, index=i), Key(0, 0, i))) for i in range(6000)])
    # cut windows have 2 to 21 tokens, all equally often
    assert (lengths < 21).mean() == pytest.approx(0.2 * 19 / 20, abs=0.015)
    assert lengths.min() == 2
    assert stats.chisquare(np.bincount(lengths[lengths < 21], minlength=21)[2:]).pvalue > 1e-3
    one = make("diffusion(cut=0.999)", PLAIN).corrupt(Window(ids), Key(0, 0, 3))
    assert one.raw == len(one) and one.asks[0].count == len(one) - 1


def test_without_options_nothing_moves():
    window = Window(np.concatenate(([PLAIN.bos], np.arange(FIRST, FIRST + 30))), index=4)
    whole, cut = (make(spec, PLAIN).corrupt(window, Key(0, 1, 4)) for spec in ("diffusion", "diffusion(cut=0.000001)"))
    assert whole.inputs.tolist() == cut.inputs.tolist()
    assert whole.asks[0].weights.tolist() == cut.asks[0].weights.tolist()
