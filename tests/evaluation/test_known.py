"""Against the known source: an oracle with the true probabilities scores the truth, whatever the estimator."""

from __future__ import annotations

import collections
import math

import numpy as np
import pytest
from tests.evaluation.small import small

from bothways.evaluation.answers import answers
from bothways.evaluation.lengths import length_nll
from bothways.evaluation.likelihood import length_price, subsets, suffix
from bothways.evaluation.questions import halves, rests, ways
from bothways.text.known import KnownSource
from bothways.text.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def source() -> KnownSource:
    return KnownSource(seed=0)


def test_lengths_are_as_frequent_as_they_are_said_to_be(source):
    documents = source.sample(30_000, np.random.default_rng(0))
    counts = collections.Counter(map(len, documents))
    begin = np.array([source.tokenizer.vocabulary.bos])
    for length in (14, 20, 26, 33):
        ids = np.concatenate([begin, np.full(length - 2, 50), [source.tokenizer.vocabulary.eos]])
        expected, got = math.exp(-length_nll(source, ids, 1)), counts[length] / len(documents)
        assert got == pytest.approx(expected, abs=4 * math.sqrt(expected / len(documents)))


def test_lengths_given_a_beginning_sum_to_one(source):
    ids = source.sample(1, np.random.default_rng(1))[0]
    start = len(ids) // 2
    total = sum(math.exp(-length_nll(source, np.resize(ids, length), start)) for length in range(start + 1, 56))
    assert total == pytest.approx(1.0, abs=1e-9)


def test_a_network_that_knew_the_truth_given_the_length_would_score_the_truth(source):
    """The last word and the end: true conditionals given both sides, made a likelihood by the price of the length."""
    for ids in source.sample(5, np.random.default_rng(2)):
        hidden = np.arange(len(ids)) >= len(ids) - 2
        given_length = -math.log(source.true_conditional(ids, len(ids) - 2)[ids[-2]])
        paid = given_length + length_price(source, ids, hidden)
        assert paid == pytest.approx(float(source.true_nll(ids)[-2:].sum()), abs=1e-6)


def test_the_truth_is_a_lower_bound_only_where_the_cut_tells_nothing(source):
    """Who knows that hidden halves are as long as what is shown beats the truth; with one cut for all nobody can."""
    windows = source.sample(400, np.random.default_rng(4))
    vocabulary = source.tokenizer.vocabulary

    def against(asked):
        """Mean nats on the length alone: of the truth, and of who guesses it from how long the beginning is."""
        starts = [int(np.flatnonzero(hidden)[0]) for _, hidden in asked]
        true = np.mean([length_nll(source, ids, start) for (ids, _), start in zip(asked, starts)])
        seen = collections.Counter((start, len(ids)) for (ids, _), start in zip(asked, starts))
        begun = collections.Counter(starts)
        return true, np.mean([-math.log(seen[start, len(ids)] / begun[start]) for (ids, _), start in
                              zip(asked, starts)])

    true, cheating = against(halves(windows, vocabulary, 400))
    assert cheating < true - 0.5
    true, cheating = against(rests(windows, vocabulary, 400))
    assert true < cheating + 0.05        # the guesser was fitted to these very lengths


def test_rests_ask_whole_texts_from_one_place_on_for_their_ends(source):
    vocabulary = source.tokenizer.vocabulary
    windows = source.sample(40, np.random.default_rng(5))
    asked = rests([*windows, windows[0][3:], windows[1][:-1]], vocabulary, 30)
    assert len({int(np.flatnonzero(hidden)[0]) for _, hidden in asked}) == 1 and len(asked) == 30
    assert all(hidden[-1] and ids[-1] == vocabulary.eos and ids[0] == vocabulary.bos for ids, hidden in asked)
    assert rests([windows[0][3:]], vocabulary, 3) == []


WAYS = {"causal": {"causal": "exact"}, "prefix": {"prefix": "exact"}, "spans": {"encoder-decoder": "exact"},
        "ul2": {"prefix": "exact"}, "glm": {"prefix": "exact"}, "denoising": {"encoder-decoder": "exact"},
        "diffusion": {"bidirectional": "upper bound and the length's true price, 2 samples"},
        "block-diffusion(block=4)": {"block-causal": "upper bound and the length's true price, 2 samples"},
        "block-diffusion(block=1)": {"block-causal": "exact"},
        "permuted": {"any-order": "upper bound and the length's true price, 2 samples", "left-to-right": "exact"},
        "text-to-text(form=mass)": {"encoder-decoder": "exact and the length's true price"}}


@pytest.mark.parametrize("paradigm", WAYS)
def test_every_format_is_asked_for_the_end(source, paradigm):
    """Asked once, last, whatever closes its spans; who is told the length pays it, and never sees it otherwise."""
    trained = small(paradigm, source.tokenizer)
    windows = source.sample(6, np.random.default_rng(3))
    vocabulary = source.tokenizer.vocabulary
    asked = rests(windows, vocabulary, 4)
    for way in ways(trained, off_mode=False):
        for ids, hidden in asked if way.kind == "exact" else ():
            (question,) = [way.pose(ids, hidden)]
            assert question.asks[0].targets.tolist() == ids[hidden].tolist()
        # a text that ends where its hidden part would begin is asked for its end alone
        if way.kind == "exact":
            ids = np.array([vocabulary.bos, 50, 51, vocabulary.eos])
            assert way.pose(ids, np.arange(4) >= 3).asks[0].targets.tolist() == [vocabulary.eos]
    found = suffix(trained, windows, limit=4, samples=2, off_mode=False, truth=source)
    assert {score.mode: score.estimator for score in found} == WAYS[paradigm]
    above = next(score for score in found if score.name.endswith("truth"))
    assert above.value == pytest.approx(found[0].value - above.details["true NLL"])
    assert above.details["tokens"] == sum(hidden.sum() for _, hidden in asked) and above.value > 0


def test_an_exact_answer_with_its_end_is_a_distribution_over_all_that_could_follow():
    """The end at once, one token and the end, and one token and more: they add up to one."""
    for paradigm in ("causal", "prefix", "spans", "ul2", "glm", "denoising"):
        trained = small(paradigm, Tokenizer.words("a b"))
        vocabulary = trained.vocabulary
        (way, *_) = ways(trained, off_mode=False)
        begin, total = [vocabulary.bos, vocabulary.size - 1], 0.0
        others = [token for token in range(vocabulary.size) if token != vocabulary.eos]
        for tail in ([vocabulary.eos], *([token, vocabulary.eos] for token in others)):
            ids = np.array(begin + tail)
            (one,) = answers(trained, [way.pose(ids, np.arange(len(ids)) >= 2)])
            total += math.exp(one.log_probs.sum())
            if len(tail) == 2:
                total += math.exp(one.log_probs[0]) * (1 - math.exp(one.log_probs[1]))
        assert total == pytest.approx(1.0, abs=1e-4)


def test_suffix_of_whole_documents_without_their_source_names_the_length(source):
    windows = source.sample(6, np.random.default_rng(3))
    trained = small("diffusion", source.tokenizer)
    estimators = {score.estimator for score in suffix(trained, windows, limit=4, samples=2, off_mode=False)}
    assert estimators == {"upper bound given the length, 2 samples"}
    unpaid = suffix(trained, windows, limit=4, samples=2, off_mode=False, truth=source.true_nll)
    assert {score.estimator for score in unpaid} == estimators
    # and then a text is never asked for its end
    assert all(not source.tokenizer.vocabulary.special[ids[hidden]].any()
               for ids, hidden in halves(windows, source.tokenizer.vocabulary, 4))
    assert len(subsets(0, 3, np.random.default_rng(0))) == 0
