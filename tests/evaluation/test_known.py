"""Against the known source: an oracle with the true probabilities scores the truth, whatever the estimator."""

from __future__ import annotations

import collections
import math

import numpy as np
import pytest
from tests.evaluation.small import small

from bothways.evaluation.lengths import length_nll
from bothways.evaluation.likelihood import length_price, subsets, suffix
from bothways.evaluation.questions import halves
from bothways.text.known import KnownSource


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
    """The last word but the end: true conditionals given both sides, made a likelihood by the price of the length."""
    vocabulary = source.tokenizer.vocabulary
    for ids in source.sample(5, np.random.default_rng(2)):
        # hide the last word: with its place and the end behind it known, and without
        hidden = np.arange(len(ids)) == len(ids) - 2
        given_length = -math.log(source.true_conditional(ids, len(ids) - 2)[ids[-2]])
        paid = given_length + length_price(source, ids, hidden, vocabulary)
        assert paid == pytest.approx(float(source.true_nll(ids)[-2]), abs=1e-6)


def test_suffix_of_whole_documents_names_the_length(source):
    windows = source.sample(6, np.random.default_rng(3))
    trained = small("diffusion", source.tokenizer)
    estimators = {score.estimator for score in suffix(trained, windows, limit=4, samples=2, off_mode=False)}
    assert estimators == {"upper bound given the length, 2 samples"}
    unpaid = suffix(trained, windows, limit=4, samples=2, off_mode=False, truth=source.true_nll)
    assert {score.estimator for score in unpaid} == estimators
    paid = suffix(trained, windows, limit=4, samples=2, off_mode=False, truth=source)
    assert {score.estimator for score in paid} == {"upper bound and the length's true price, 2 samples"}
    above = next(score for score in paid if score.name.endswith("truth"))
    assert above.value == pytest.approx(paid[0].value - above.details["true NLL"])
    # a text is never asked for its end
    assert all(not source.tokenizer.vocabulary.special[ids[hidden]].any()
               for ids, hidden in halves(windows, source.tokenizer.vocabulary, 4))
    assert len(subsets(0, 3, np.random.default_rng(0))) == 0
