"""Controls: the n-gram model is a distribution, and simple classifiers do what they say."""

from __future__ import annotations

import numpy as np
import pytest
from tests.evaluation.small import small, texts

from bothways.batch import Window
from bothways.errors import BothwaysError
from bothways.evaluation import controls
from bothways.evaluation.likelihood import suffix
from bothways.evaluation.ngram import NGram


def markov(n: int, seed: int = 0, size: int = 12) -> list[np.ndarray]:
    """Texts of a sharp second-order source."""
    rng = np.random.default_rng(seed)
    table = np.random.default_rng(7).dirichlet(np.full(size, 0.15), size=(size, size))
    found = []
    for _ in range(n):
        ids = [0, 1]
        for _ in range(40):
            ids.append(int(rng.choice(size, p=table[ids[-2], ids[-1]])))
        found.append(np.array(ids))
    return found


def true_nll(ids: np.ndarray, size: int = 12) -> float:
    table = np.random.default_rng(7).dirichlet(np.full(size, 0.15), size=(size, size))
    return float(np.mean([-np.log(table[a, b, c]) for a, b, c in zip(ids, ids[1:], ids[2:])]))


@pytest.mark.parametrize("order", [1, 2, 4])
def test_an_ngram_sums_to_one_over_the_vocabulary_in_any_context(order):
    model = NGram.train(markov(40), 15, order)
    for context in ([], [0], [0, 1], [3, 3, 3, 3], [14, 13], [0, 1, 5, 2]):
        distribution = model.distribution(context)
        assert distribution.sum() == pytest.approx(1.0, abs=1e-9)
        assert (distribution > 0).all()
        for token in (0, 5, 14):
            assert model.log_probs(np.array([*context, token]))[-1] == pytest.approx(np.log(distribution[token]))


def test_an_ngram_learns_a_markov_source_and_longer_orders_learn_more():
    train, test = markov(2000), markov(60, seed=1)
    losses = [-np.mean([NGram.train(train, 15, order).log_probs(ids)[2:].mean() for ids in test])
              for order in (1, 2, 3)]
    true = np.mean([true_nll(ids) for ids in test])
    assert losses[0] > losses[1] > losses[2] >= true - 0.02
    assert losses[2] - true < 0.03


def test_kneser_ney_shares_by_hand():
    """Bigrams of "a b a b a c": the unigram share counts different predecessors, not occurrences."""
    model = NGram.train([np.array([0, 1, 0, 1, 0, 2])], 3, order=2)
    # distinct predecessors: 0 after start and after 1 -> 2; 1 after 0 -> 1; 2 after 0 -> 1
    unigrams = model.orders[0]
    assert (unigrams.grams == [0, 1, 2]).all()
    # n1 = 2, n2 = 1: unit 0.5, D1 = 1 - 2 * 0.5 * 1/2 = 0.5; n3 = 0 so D2 falls back to 0.5 * sqrt 2
    assert unigrams.shares == pytest.approx([(2 - 0.5 * 2 ** 0.5) / 4, 0.5 / 4, 0.5 / 4])


def test_no_context_crosses_texts_and_windows_are_joined_into_documents():
    windows = [Window(np.array([1, 2, 3]), 0, 0, 0), Window(np.array([4, 5]), 0, 3, 1), Window(np.array([6]), 1, 0, 2)]
    assert [list(ids) for ids in controls.documents(windows)] == [[1, 2, 3, 4, 5], [6]]
    model = NGram.train([np.array([0, 1]), np.array([2, 3])], 5, order=2)
    crossing, inside = 1 * 6 + 2, 2 * 6 + 3
    assert inside in model.orders[1].grams and crossing not in model.orders[1].grams


def test_a_large_vocabulary_lowers_the_order_and_no_text_is_refused():
    assert NGram.train([np.array([0, 99_999])], 100_000, order=4).order == 3
    with pytest.raises(BothwaysError, match="needs some text"):
        NGram.train([], 10)


def test_ngram_scores_stand_beside_a_networks():
    trained = small("causal")
    windows = texts(trained, 12, 24)
    model = controls.train_ngram(windows, trained.vocabulary.size)
    network, control = suffix(trained, windows, limit=6)[:2], controls.ngram_suffix(model, windows,
                                                                                     trained.vocabulary, limit=6)
    assert [score.name for score in network] == [score.name for score in control]
    assert [score.weights for score in network] == [score.weights for score in control]
    filled = controls.ngram_fill(model, windows, trained.vocabulary, blanks=5)
    assert [score.name for score in filled][:2] == ["fill accuracy, single token", "fill NLL, single token"]
    assert all(len(score.items) == 5 for score in filled)


def labelled(n: int, seed: int = 0) -> list[tuple[str, str]]:
    rng = np.random.default_rng(seed)
    return [(f"the {'cat' if number % 2 else 'dog'} w{rng.integers(9)} w{rng.integers(9)}",
             "cats" if number % 2 else "dogs") for number in range(n)]


@pytest.mark.parametrize(("control", "least", "most"), [("majority", 0.5, 0.5), ("tfidf-logistic", 1, 1),
                                                       ("tfidf-svm", 1, 1), ("shuffled", 0.2, 0.8)])
def test_control_classifiers(control, least, most):
    accuracy, f1 = controls.classify(control, labelled(60), labelled(40, seed=1))
    assert least <= accuracy.value <= most and accuracy.n == 40
    assert f1.value <= accuracy.value + 0.05 and f1.name == "classification macro-F1"


def test_what_cannot_be_classified_is_refused():
    with pytest.raises(BothwaysError, match="did you mean 'majority'"):
        controls.classify("majorty", labelled(4), labelled(4))  # type: ignore[arg-type]
    with pytest.raises(BothwaysError, match="at least two labels"):
        controls.classify("majority", [("a", "x"), ("b", "x")], labelled(4))
