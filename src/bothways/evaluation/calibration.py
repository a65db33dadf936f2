"""How far a classifier's probabilities can be believed, and what is gained when it may decline to answer.

Everything is a function of probabilities (n, C) and true classes (n,), so any task can call it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from bothways.errors import BothwaysError
from bothways.evaluation.score import Score, mean_score, statistic_score

Bins = Literal["mass", "width"]
"""Bins with equally many items, or of equal width in confidence."""


@dataclass(frozen=True)
class Bin:
    """Items of like confidence: their mean confidence, the share answered right, and how many they are."""

    confidence: float
    accuracy: float
    count: int


def calibration(probabilities: np.ndarray, labels: np.ndarray, *, mode: str = "all", bins: int = 15,
                resamples: int = 200) -> list[Score]:
    """All Scores of this module for one classifier on one test set.

    Args:
        probabilities: (n, C) that add up to one in each row. labels: (n,) int classes.
        mode: how the classifier was called, for the Scores.
    Returns:
        "accuracy", "NLL" (nats), "Brier score", "ECE" in equal mass and in equal width, "AURC", and "accuracy at half
        coverage"; those that are no means carry bootstrap intervals.
    Raises:
        BothwaysError: shapes that do not fit, rows that are no probabilities, or classes out of range.
    """
    probabilities, labels = checked(probabilities, labels)
    places, guessed, n = np.arange(len(labels)), probabilities.argmax(1), len(labels)
    right, sure = (guessed == labels).astype(float), probabilities.max(1)
    true = probabilities[places, labels]
    how = "of the likeliest class"
    scores = [mean_score("accuracy", mode, how, right, unit="accuracy"),
              mean_score("NLL", mode, "of the true class", -np.log(np.maximum(true, 1e-12)), unit="nats",
                         higher_is_better=False),
              mean_score("Brier score", mode, "over all classes", (probabilities ** 2).sum(1) - 2 * true + 1,
                         higher_is_better=False)]
    for kind, words in (("mass", "equally many items"), ("width", "equal width")):
        scores.append(statistic_score(
            "ECE", mode, f"{bins} bins of {words}", lambda some, kind=kind: ece(  # type: ignore[misc]
                sure[some], right[some], bins, kind), n, resamples=resamples, higher_is_better=False))
    scores.append(statistic_score("AURC", mode, "risk averaged over all coverages", lambda some: float(
        risks(sure[some], right[some]).mean()), n, resamples=resamples, higher_is_better=False))
    scores.append(statistic_score("accuracy at half coverage", mode, "of the surer half", lambda some: 1 - float(
        risks(sure[some], right[some])[max(0, (len(some) + 1) // 2 - 1)]), n, resamples=resamples, unit="accuracy"))
    return scores


def reliability(confidence: np.ndarray, right: np.ndarray, bins: int = 15, kind: Bins = "mass") -> list[Bin]:
    """The bins that hold any items, the least sure first (Guo et al. 2017, arXiv 1706.04599, eq. 2).

    Args:
        confidence: (n,) probability of the answer given. right: (n,) whether it was right.
    """
    if kind == "mass":
        groups = [part for part in np.array_split(np.argsort(confidence, kind="stable"), bins) if len(part)]
    else:
        # a bin takes its upper edge: 1.0 belongs to the last one
        of = np.clip(np.ceil(np.asarray(confidence) * bins).astype(int) - 1, 0, bins - 1)
        groups = [np.flatnonzero(of == number) for number in np.unique(of)]
    return [Bin(float(confidence[part].mean()), float(right[part].mean()), len(part)) for part in groups]


def ece(confidence: np.ndarray, right: np.ndarray, bins: int = 15, kind: Bins = "mass") -> float:
    """Expected calibration error: the mean of |accuracy - confidence| over bins, by their counts (eq. 3)."""
    found = reliability(confidence, right, bins, kind)
    return sum(one.count * abs(one.accuracy - one.confidence) for one in found) / max(len(confidence), 1)


def risks(confidence: np.ndarray, right: np.ndarray) -> np.ndarray:
    """The share answered wrong among the k surest items, k = 1..n: (n,) (Geifman & El-Yaniv 2017, arXiv 1705.08500).

    Items that are equally sure share their mean, so that their order does not matter.
    """
    order = np.argsort(-confidence, kind="stable")
    wrong = 1.0 - np.asarray(right, dtype=float)[order]
    _, group = np.unique(-confidence[order], return_inverse=True)
    wrong = (np.bincount(group, wrong) / np.bincount(group))[group]
    return np.cumsum(wrong) / np.arange(1, len(wrong) + 1)


def risk_coverage(confidence: np.ndarray, right: np.ndarray, points: int = 50) -> list[tuple[float, float]]:
    """(coverage, risk) at evenly spaced coverages, for a picture."""
    found = risks(confidence, right)
    places = np.unique(np.linspace(0, len(found) - 1, min(points, len(found))).round().astype(int))
    return [((place + 1) / len(found), float(found[place])) for place in places]


def temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The temperature that gives held-out items (n, C) their least NLL (section 4.2): divide logits by it."""
    from scipy.optimize import minimize_scalar

    def nll(log_t: float) -> float:
        scaled = logits / np.exp(log_t)
        top = scaled.max(1, keepdims=True)
        normaliser = np.log(np.exp(scaled - top).sum(1)) + top[:, 0]
        return float((normaliser - scaled[np.arange(len(labels)), labels]).mean())

    return float(np.exp(minimize_scalar(nll, bounds=(-3.0, 3.0), method="bounded").x))


def checked(probabilities: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both as arrays, or one sentence about what does not fit.

    Raises:
        BothwaysError: see `calibration`.
    """
    shares, classes = np.asarray(probabilities, dtype=np.float64), np.asarray(labels, dtype=np.int64)
    if shares.ndim != 2 or classes.shape != shares.shape[:1] or not len(classes):
        raise BothwaysError(f"probabilities of shape {shares.shape} and classes of shape {classes.shape} do not fit: "
                            "give (n, C) and (n,)")
    if (shares < 0).any() or not np.allclose(shares.sum(1), 1, atol=1e-3):
        row = int(np.flatnonzero((shares < 0).any(1) | ~np.isclose(shares.sum(1), 1, atol=1e-3))[0])
        raise BothwaysError(f"row {row} of the probabilities adds up to {shares[row].sum():.4g}, not to 1: give the "
                            "softmax of the logits")
    if classes.min() < 0 or classes.max() >= shares.shape[1]:
        raise BothwaysError(f"a class is {classes.max()}, but there are probabilities for {shares.shape[1]}, numbered "
                            "from 0")
    return shares, classes
