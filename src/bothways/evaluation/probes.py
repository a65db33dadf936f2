"""Probes: what a linear classifier can read from frozen features, beside what it reads from control tasks.

A probe can learn a task by itself. So each comes with a control (Hewitt & Liang 2019, arXiv 1909.03368): for texts
the same features with shuffled training labels; for tags a random label drawn once for each word type, whose
accuracy is what the probe can memorise. Selectivity is accuracy minus control accuracy. And an untrained network of
the same shape is probed like any other model.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from bothways.errors import BothwaysError
from bothways.evaluation.features import Tagged, span_features, text_features, visibility_named
from bothways.evaluation.rows import TOKENS
from bothways.evaluation.score import Score, Stopwatch, mean_score

if TYPE_CHECKING:
    from bothways.families.trained import Trained
    from bothways.text import labels as text_labels

Labelled = Sequence[tuple[str, str]]
"""(text, label) pairs; the text may also be (L,) ids."""


def probe_texts(trained: Trained, train: Labelled, test: Labelled, *, layer: int = -1, visibility: str | None = None,
                control: bool = True, longest: int = 256, seed: int = 0, tokens: int = TOKENS) -> list[Score]:
    """Classification by logistic regression on mean-pooled frozen features.

    Returns:
        "probe accuracy", "probe macro-F1", and with `control` "probe accuracy, shuffled labels"; items are texts.
    """
    watch = Stopwatch()
    check_labelled(train, test)
    vectors = text_features(trained, [text for text, _ in train] + [text for text, _ in test], layer=layer,
                            visibility=visibility, longest=longest, tokens=tokens)
    labels, truth = [label for _, label in train], [label for _, label in test]
    name = repr(visibility_named(trained, visibility))
    how = "frozen mean-pooled features, logistic regression"
    guessed = regress(vectors[:len(train)], labels, vectors[len(train):], seed)
    scores = accuracy_scores("probe", name, how, truth, guessed, watch.seconds)
    if control:
        watch = Stopwatch()
        shuffled = [labels[place] for place in np.random.default_rng(seed).permutation(len(labels))]
        guessed = regress(vectors[:len(train)], shuffled, vectors[len(train):], seed)
        scores.append(mean_score("probe accuracy, shuffled labels", name, how, hits(truth, guessed), unit="accuracy",
                                 seconds=watch.seconds))
    return scores


def probe_tags(trained: Trained, train: Sequence[Tagged], test: Sequence[Tagged], *, layer: int = -1,
               visibility: str | None = None, control: bool = True, seed: int = 0,
               tokens: int = TOKENS) -> list[Score]:
    """Tagging of spans by logistic regression on their frozen mean states.

    Returns:
        "tagging probe accuracy", "tagging probe macro-F1", and with `control` "..., control task" and "tagging
        probe selectivity"; items are spans.
    """
    watch = Stopwatch()
    vectors = span_features(trained, [*train, *test], layer=layer, visibility=visibility, tokens=tokens)
    labels, truth = tags_of(train), tags_of(test)
    check_labelled([("", tag) for tag in labels], [("", tag) for tag in truth])
    cut = len(labels)
    name = repr(visibility_named(trained, visibility))
    how = "frozen mean span features, logistic regression"
    guessed = regress(vectors[:cut], labels, vectors[cut:], seed)
    scores = accuracy_scores("tagging probe", name, how, truth, guessed, watch.seconds)
    if control:
        watch = Stopwatch()
        types = control_labels([*train, *test], labels, seed)
        guessed = regress(vectors[:cut], types[:cut], vectors[cut:], seed)
        right = np.array(hits(types[cut:], guessed))
        scores.append(mean_score("tagging probe accuracy, control task", name, how, right, unit="accuracy",
                                 seconds=watch.seconds))
        scores.append(mean_score("tagging probe selectivity", name, how + ", minus a random label for each word type",
                                 np.array(scores[0].items) - right, unit="accuracy"))
    return scores


def control_labels(tagged: Sequence[Tagged], labels: Sequence[str], seed: int = 0) -> list[str]:
    """Hewitt & Liang's control: one label for each type of span (its token ids), drawn as often as tags occur."""
    counts = Counter(labels)
    names, shares = list(counts), np.array(list(counts.values())) / len(labels)
    rng = np.random.default_rng(seed)
    drawn: dict[tuple[int, ...], str] = {}
    found = []
    for text in tagged:
        for start, end, _ in text.spans:
            kind = tuple(int(token) for token in text.ids[start:end])
            if kind not in drawn:
                drawn[kind] = names[int(rng.choice(len(names), p=shares))]
            found.append(drawn[kind])
    return found


def regress(train: np.ndarray, labels: Sequence[str], test: np.ndarray, seed: int = 0) -> list[str]:
    """Labels of `test` (m, D) by logistic regression on standardised `train` (n, D)."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    if len(set(labels)) < 2:
        return [labels[0]] * len(test)
    scaler = StandardScaler().fit(train)
    model = LogisticRegression(C=0.1, max_iter=100, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a probe that needs more than 100 steps reads nothing new
        model.fit(scaler.transform(train), list(labels))
    return [str(label) for label in model.predict(scaler.transform(test))]


def accuracy_scores(what: str, mode: str, how: str, truth: Sequence[str], guessed: Sequence[str],
                    seconds: float = 0.0, details: dict[str, float] | None = None) -> list[Score]:
    """"`what` accuracy" with its items, and "`what` macro-F1"."""
    accuracy = mean_score(f"{what} accuracy", mode, how, hits(truth, guessed), unit="accuracy", seconds=seconds,
                          details=details or {})
    return [accuracy, Score(f"{what} macro-F1", mode, how, macro_f1(truth, guessed), len(truth), "F1")]


def hits(truth: Sequence[str], guessed: Sequence[str]) -> list[float]:
    """1.0 where the guess is right."""
    return [float(one == other) for one, other in zip(truth, guessed, strict=True)]


def macro_f1(truth: Sequence[str], guessed: Sequence[str]) -> float:
    """The unweighted mean of F1 over the classes that occur in `truth`."""
    right, true, said = Counter(a for a, b in zip(truth, guessed) if a == b), Counter(truth), Counter(guessed)
    return float(np.mean([2 * right[label] / (true[label] + said[label]) for label in true])) if true else float("nan")


def tags_of(tagged: Sequence[Tagged]) -> list[str]:
    """The tags of all spans, in order."""
    return [tag for text in tagged for _, _, tag in text.spans]


def check_labelled(train: Labelled, test: Labelled) -> None:
    """Refuse what cannot be classified.

    Raises:
        BothwaysError: fewer than two classes, or an empty side.
    """
    if not len(train) or not len(test):
        raise BothwaysError("classification needs labelled texts to train on and others to test on: give more rows")
    if len({label for _, label in train}) < 2:
        raise BothwaysError(f"classification needs at least two labels, but all {len(train)} texts carry "
                            f"'{train[0][1]}'")


def rows(labelled: text_labels.Labelled) -> list[tuple[str, str]]:
    """(text, label) pairs from the text room's table."""
    return [(text, labelled.names[label]) for text, label in zip(labelled.texts, labelled.labels)]


def split(labelled: Labelled, test_share: float = 0.25, seed: int = 0, train_limit: int | None = None,
          test_limit: int | None = None) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Labelled texts as (train, test), shuffled by `seed`; texts that occur twice go to one side only."""
    unique = list(dict(labelled).items())
    order = np.random.default_rng(seed).permutation(len(unique))
    n_test = max(1, int(len(unique) * test_share)) if len(unique) > 1 else 0
    test = [unique[place] for place in order[:n_test][:test_limit]]
    train = [unique[place] for place in order[n_test:][:train_limit]]
    return train, test
