"""What a network has to beat: an n-gram model on the same tokens, the commonest answer, TF-IDF, shuffled labels."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from bothways.batch import Vocabulary, Window
from bothways.errors import BothwaysError, nearest
from bothways.evaluation.fill import choose_blanks
from bothways.evaluation.likelihood import TrueNLL, suffix_scores, true_nll_of
from bothways.evaluation.ngram import NGram
from bothways.evaluation.pairs import PairLike, by_kind, sentence
from bothways.evaluation.probes import Labelled, accuracy_scores, check_labelled
from bothways.evaluation.questions import halves, rests
from bothways.evaluation.score import Score, Stopwatch, mean_score, timed

if TYPE_CHECKING:
    from bothways.text.known import KnownSource
    from bothways.text.tokenizer import Tokenizer

MODE = "causal"


def train_ngram(windows: Iterable[Window], size: int, order: int = 4) -> NGram:
    """An n-gram model of the windows a network was trained on; windows that continue one document are joined."""
    return NGram.train(documents(windows), size, order)


def documents(windows: Iterable[Window]) -> Iterator[np.ndarray]:
    """Windows in the order of their corpus, joined where one begins at the place the last one ended."""
    parts: list[np.ndarray] = []
    document, end = -1, -1
    for window in windows:
        if parts and (window.document != document or window.start != end):
            yield np.concatenate(parts)
            parts = []
        parts.append(np.asarray(window.ids))
        document, end = window.document, window.start + len(window.ids)
    if parts:
        yield np.concatenate(parts)


def ngram_suffix(model: NGram, windows: Sequence[Window] | Sequence[np.ndarray], vocabulary: Vocabulary, *,
                 limit: int = 64, truth: KnownSource | TrueNLL | None = None) -> list[Score]:
    """The scores of `likelihood.suffix`, on the same tokens of the same windows."""
    scores: list[Score] = []
    with timed(scores):
        known = truth is not None and not callable(truth)
        asked = rests(windows, vocabulary, limit) if known else halves(windows, vocabulary, limit)
        nats = np.array([-model.log_probs(ids)[hidden].sum() for ids, hidden in asked])
        scores += suffix_scores("suffix", MODE, "exact", nats, asked, vocabulary, true_nll_of(truth))
    return scores


def ngram_fill(model: NGram, windows: Sequence[Window] | Sequence[np.ndarray], vocabulary: Vocabulary, *,
               blanks: int = 256, spans: Sequence[int] = (1, 3), seed: int = 0) -> list[Score]:
    """The scores of `fill.fill` on the same blanks, from the left side only."""
    scores: list[Score] = []
    how = "exact, left side only"
    for span in spans:
        what = "single token" if span == 1 else f"span of {span}"
        with timed(scores):
            right, nats = [], []
            for ids, hidden in choose_blanks(windows, vocabulary, blanks, span, seed):
                places = np.flatnonzero(hidden)
                guesses = [model.distribution(ids[:place]) for place in places]
                right.append(float(np.mean([guess.argmax() == ids[place]
                                            for guess, place in zip(guesses, places)])))
                nats.append(float(-np.mean([np.log(guess[ids[place]]) for guess, place in zip(guesses, places)])))
            weights = [float(span)] * len(right)
            scores.append(mean_score(f"fill accuracy, {what}", MODE, how, right, weights, unit="share"))
            scores.append(mean_score(f"fill NLL, {what}", MODE, how, nats, weights, unit="nats per token",
                                     higher_is_better=False))
    return scores


def ngram_pairs(model: NGram, tokenizer: Tokenizer, pairs: Sequence[PairLike]) -> Score:
    """The share of minimal pairs whose good member is likelier under the n-gram model."""
    watch = Stopwatch()
    items = []
    for pair in pairs:
        good, bad = (float(model.log_probs(sentence(tokenizer, text))[1:].sum()) for text in (pair.good, pair.bad))
        items.append(1.0 if good > bad else 0.5 if good == bad else 0.0)
    return mean_score("minimal pairs", MODE, "NLL, exact", items, unit="accuracy",
                      details=by_kind([pair.kind for pair in pairs], items), seconds=watch.seconds)


CLASSIFIERS = {
    "majority": "always the most frequent label",
    "tfidf-logistic": "TF-IDF of words and word pairs, logistic regression",
    "tfidf-svm": "TF-IDF of words and word pairs, linear SVM",
    "shuffled": "TF-IDF, logistic regression, training labels shuffled",
}
"""Control -> what it does."""

Control = Literal["majority", "tfidf-logistic", "tfidf-svm", "shuffled"]


def classify(control: Control, train: Labelled, test: Labelled, *, seed: int = 0) -> list[Score]:
    """Accuracy and macro-F1 of a classifier without a network.

    Returns:
        "classification accuracy" (items are texts) and "classification macro-F1", as fine-tuned networks give.
    Raises:
        BothwaysError: an unknown control, too few texts or labels.
    """
    if control not in CLASSIFIERS:
        raise BothwaysError(f"no control classifier is called '{control}' " + nearest(control, CLASSIFIERS))
    watch = Stopwatch()
    check_labelled(train, test)
    texts, labels = [text for text, _ in train], [label for _, label in train]
    if control == "shuffled":
        labels = [labels[place] for place in np.random.default_rng(seed).permutation(len(labels))]
    if control == "majority":
        guessed = [Counter(labels).most_common(1)[0][0]] * len(test)
    else:
        guessed = _tfidf(control, texts, labels, [text for text, _ in test], seed)
    return accuracy_scores("classification", "no network", CLASSIFIERS[control], [label for _, label in test], guessed,
                           watch.seconds)


def tfidf(terms: Sequence[str] | None = None) -> Any:
    """TF-IDF of words and word pairs with sublinear counts, to be fitted; or over `terms` that are known already."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    # single letters count as words too: code and short texts are made of them
    return TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2), token_pattern=r"(?u)\b\w+\b", max_features=50_000,
                           vocabulary=None if terms is None else list(terms))


def logistic(texts: int, seed: int) -> Any:
    """Logistic regression for so many texts, to be fitted."""
    from sklearn.linear_model import LogisticRegression

    # stochastic passes: with many classes a quasi-Newton solver takes minutes for the same answer
    return LogisticRegression(C=10.0, solver="saga", max_iter=max(20, 60_000 // texts), tol=1e-3, random_state=seed)


def fitted_quietly(model: Any, features: Any, labels: Sequence[Any] | np.ndarray) -> Any:
    """The model, fitted; that it did not converge is not said, since its number of passes is chosen."""
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(features, labels)


def _tfidf(control: Control, texts: list[str], labels: list[str], others: list[str], seed: int) -> list[str]:
    """Labels of `others`."""
    from sklearn.svm import LinearSVC

    features = tfidf()
    model = LinearSVC(random_state=seed) if control == "tfidf-svm" else logistic(len(texts), seed)
    fitted_quietly(model, features.fit_transform(texts), labels)
    return [str(label) for label in model.predict(features.transform(others))]
