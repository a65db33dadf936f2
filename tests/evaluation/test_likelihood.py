"""Likelihoods by every estimator, against loops written by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from tests.evaluation.small import PARADIGMS, places, small, texts

from bothways.batch import Example
from bothways.evaluation import likelihood
from bothways.evaluation.answers import answers, distributions
from bothways.evaluation.pseudo import pseudo_nats
from bothways.evaluation.questions import halves, ways
from bothways.objectives.base import example
from bothways.visibility import bidirectional, causal


def by_hand(trained, ids, visibility, where):
    """log-softmax at one place of one unpacked text."""
    with torch.inference_mode():
        states = trained.network(example(np.asarray(ids), visibility)).states
        return trained.network.logits(states[where]).log_softmax(-1)


def way_of(trained, name):
    return next(way for way in ways(trained) if way.name == name)


def test_causal_exact_is_the_chain_rule_by_hand():
    trained = small("causal")
    asked = halves(texts(trained, 3, 20), trained.vocabulary, 10)
    nats = likelihood.exact(trained, way_of(trained, "causal"), asked)
    for (ids, hidden), value in zip(asked, nats):
        loop = -sum(float(by_hand(trained, ids[:k], causal, k - 1)[ids[k]]) for k in np.flatnonzero(hidden))
        assert value == pytest.approx(loop, abs=1e-4)


def test_a_masked_network_called_causally_is_the_chain_rule_with_a_blank_at_each_place():
    trained = small("masked")
    (ids, hidden), = halves(texts(trained, 1, 20), trained.vocabulary, 1)
    way = way_of(trained, "causal (off-mode)")
    (got,) = answers(trained, [way.pose(ids, hidden)])
    loop = [float(by_hand(trained, [*ids[:k], trained.vocabulary.mask], causal, k)[ids[k]])
            for k in np.flatnonzero(hidden)]
    assert got.log_probs == pytest.approx(loop, abs=1e-4)


def test_a_causal_network_called_bidirectionally_reads_the_place_before_the_blank():
    trained = small("causal")
    (ids, _), = halves(texts(trained, 1, 20), trained.vocabulary, 1)
    way = way_of(trained, "bidirectional (off-mode)")
    (got,) = answers(trained, [way.pose(ids, places(len(ids), 7, 9))])
    corrupted = np.where(places(len(ids), 7, 9), trained.vocabulary.mask, ids)
    loop = [float(by_hand(trained, corrupted, bidirectional, k - 1)[ids[k]]) for k in (7, 9)]
    assert got.log_probs == pytest.approx(loop, abs=1e-4)


def changed(ids, place):
    """The ids with another token at `place`."""
    other = ids.copy()
    other[place] = (other[place] - 44 + 1) % 20 + 44
    return other


@pytest.mark.parametrize("paradigm", PARADIGMS)
def test_every_way_of_every_paradigm_hides_what_it_must(paradigm):
    """Changing what must not be seen changes no answer, changing what may be seen does."""
    trained = small(paradigm)
    ids = texts(trained, 1, 16)[0].ids
    for way in ways(trained):
        if way.kind == "both sides":
            asked, unseen, seen = (9, 12), (9, 12), (3, 10, 14)
        elif way.two_towers:
            asked, unseen, seen = (9, 10), (10,), (3, 14)
        else:
            asked, unseen, seen = (9, 10), (10, 12, 14), (3,)
        hidden = places(len(ids), *asked)
        (before,) = distributions(trained, [way.pose(ids, hidden)])
        for place in unseen:
            assert np.allclose(before, distributions(trained, [way.pose(changed(ids, place), hidden)])[0], atol=1e-5)
        for place in seen:
            after = distributions(trained, [way.pose(changed(ids, place), hidden)])[0]
            assert not np.allclose(before, after, atol=1e-4), (way.name, place)


@pytest.mark.parametrize("paradigm", ["causal", "masked", "denoising", "hybrid"])
def test_packed_answers_equal_one_by_one(paradigm):
    trained = small(paradigm)
    asked = halves(texts(trained, 5, 24), trained.vocabulary, 5)
    for way in ways(trained):
        questions: list[Example] = [way.pose(*pair) for pair in asked]
        alone = [answers(trained, [question])[0] for question in questions]
        for one, other in zip(alone, answers(trained, questions, tokens=60)):
            assert one.log_probs == pytest.approx(other.log_probs, abs=2e-5)
            assert (one.correct == other.correct).all()


def test_the_mean_over_all_orders_of_a_masked_network_is_its_exact_k_bound():
    trained = small("masked", sharp=4.0)
    ids = texts(trained, 1, 8)[0].ids
    way = way_of(trained, "bidirectional")
    asked = (ids, places(len(ids), 2, 4, 5, 7))
    in_full = likelihood.bound_in_full(trained, way, asked)
    assert likelihood.over_orders(trained, way, asked) == pytest.approx(in_full, abs=1e-4)
    # and the sampled bound is an unbiased estimate of it, the same every time
    sampled = likelihood.bound(trained, way, [asked], samples=2000)
    assert sampled[0] == pytest.approx(in_full, rel=0.03)
    once, again = (likelihood.bound(trained, way, [asked], samples=8) for _ in range(2))
    assert (once == again).all()


def test_the_bound_is_not_below_the_exact_nll_of_the_same_any_order_model():
    """For one hidden token they agree; by Jensen the mean over orders is at least the NLL of the orders' mixture."""
    trained = small("diffusion", sharp=4.0)
    ids = texts(trained, 1, 8)[0].ids
    way = way_of(trained, "bidirectional")
    one = (ids, places(len(ids), 3))
    assert likelihood.bound_in_full(trained, way, one) == pytest.approx(
        float(pseudo_nats(trained, way, [one])[0]), abs=1e-5)
    two = (ids, places(len(ids), 3, 5))
    orders = []
    for first, second in ((3, 5), (5, 3)):
        (start,) = answers(trained, [way.pose(ids, places(len(ids), 3, 5))])
        (rest,) = answers(trained, [way.pose(ids, places(len(ids), second))])
        orders.append(math.exp(start.log_probs[0 if first == 3 else 1] + rest.log_probs[0]))
    assert likelihood.bound_in_full(trained, way, two) >= -math.log(np.mean(orders)) - 1e-6


def test_subsets_have_uniform_sizes_and_places():
    drawn = [one for one, _ in likelihood.subsets(5, 20_000, np.random.default_rng(0))]
    sizes = np.bincount([subset.sum() for subset in drawn], minlength=6)
    assert sizes[0] == 0 and np.abs(sizes[1:] / 20_000 - 0.2).max() < 0.001
    assert np.abs(np.mean(drawn, axis=0) - 0.6).max() < 0.02


@pytest.mark.parametrize("paradigm", PARADIGMS)
def test_suffix_scores_name_their_estimators_and_ask_the_same_tokens(paradigm):
    trained = small(paradigm)
    scores = likelihood.suffix(trained, texts(trained, 6, 24), limit=4, samples=3, pseudo=2,
                               truth=lambda ids: np.full(len(ids), 1.0))
    expected = {"causal": {"causal": "exact", "bidirectional (off-mode)": "upper bound, 3 samples"},
                "masked": {"bidirectional": "upper bound, 3 samples", "causal (off-mode)": "exact"},
                "diffusion": {"bidirectional": "upper bound, 3 samples", "causal (off-mode)": "exact"},
                "hybrid": {"causal": "exact", "bidirectional": "upper bound, 3 samples"}}
    nll = {score.mode: score for score in scores if score.name == "suffix NLL" and "pseudo" not in score.estimator}
    if paradigm in expected:
        assert {mode: score.estimator for mode, score in nll.items()} == expected[paradigm]
    else:
        assert [score.estimator for score in nll.values()] == ["exact"]
    asked = halves(texts(trained, 6, 24), trained.vocabulary, 4)
    assert all(score.weights == [float(hidden.sum()) for _, hidden in asked] for score in nll.values())
    for score in nll.values():
        above = next(other for other in scores if other.name.endswith("above the truth") and other.mode == score.mode)
        assert above.value == pytest.approx(score.value - 1.0)
        bits = next(other for other in scores if other.name.endswith("byte") and other.mode == score.mode)
        assert bits.value * math.log(2) * score.details["bytes"] == pytest.approx(score.value * score.details["tokens"])
    has_pseudo = any("pseudo" in score.estimator for score in scores)
    assert has_pseudo == any(way.kind == "both sides" and way.trained for way in ways(trained))


def test_reserved_tokens_are_never_asked_for_and_windows_from_the_middle_come_first():
    trained = small("causal")
    ids = texts(trained, 1, 20)[0].ids
    ended = np.append(ids, trained.vocabulary.eos)
    (found, hidden), = halves([ended], trained.vocabulary, 1)
    assert (found == ended).all() and hidden.sum() == len(ids) - len(ids) // 2 and not hidden[-1]
    assert [len(found) for found, _ in halves([ended, ids, ended, ids], trained.vocabulary, 3)] == [20, 20, 21]


def test_evaluation_leaves_the_training_flag_and_no_gradients():
    trained = small("causal")
    trained.network.train()
    way = ways(trained)[0]
    answers(trained, [way.pose(*pair) for pair in halves(texts(trained, 1, 20), trained.vocabulary, 1)])
    assert trained.network.training
    assert all(weight.grad is None for weight in trained.network.parameters())
