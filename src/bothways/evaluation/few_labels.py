"""Accuracy by the number of labelled texts, and where a generative and a discriminative classifier cross.

Few labels favour p(x|y) p(y), many p(y|x) (Ng & Jordan 2001; Yogatama et al. 2017, arXiv 1703.01898): the crossing is
found on the mean curves, its interval by drawing seeds again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from bothways.errors import BothwaysError
from bothways.evaluation.score import Score

Fit = Callable[[Sequence[tuple[str, str]], int], Callable[[Sequence[str]], Sequence[str]]]
"""(labelled texts, seed) -> a function that names the label of each text."""


def draw(train: Sequence[tuple[str, str]], per_class: int, seed: int) -> list[tuple[str, str]]:
    """`per_class` texts of each label (all where there are fewer), a pure function of the seed.

    The draws of one seed are nested: a larger one holds the smaller ones.
    """
    order = np.random.default_rng(seed).permutation(len(train))
    taken: dict[str, int] = {}
    found = []
    for place in order:
        text, label = train[place]
        if taken.get(label, 0) < per_class:
            taken[label] = taken.get(label, 0) + 1
            found.append((text, label))
    return found


def curve(name: str, fit: Fit, train: Sequence[tuple[str, str]], test: Sequence[tuple[str, str]],
          sizes: Sequence[int] = (8, 32, 128, 512), seeds: Sequence[int] = (0, 1, 2), mode: str = "all") -> list[Score]:
    """Accuracy on `test` after learning from so many texts of each label.

    Returns:
        one Score for each size: items are the seeds' accuracies, `details["labels"]` the texts of each class.
    """
    texts, truth = [text for text, _ in test], [label for _, label in test]
    scores = []
    for size in sizes:
        found = []
        for seed in seeds:
            guessed = fit(draw(train, size, seed), seed)(texts)
            found.append(float(np.mean([one == other for one, other in zip(guessed, truth, strict=True)])))
        scores.append(Score(name, mode, f"{size} labelled texts of each class", float(np.mean(found)), len(found),
                            "accuracy", items=found, details={"labels": float(size)}))
    return scores


@dataclass(frozen=True)
class Crossing:
    """Where one curve passes another: labels of each class, or steps (NaN where none was seen), with a 95% interval.

    seen: the share of redrawn seeds with a crossing. sentence: all of it in words.
    """

    labels: float
    low: float
    high: float
    seen: float
    sentence: str


def crossing(generative: Sequence[Score], discriminative: Sequence[Score], resamples: int = 1000, seed: int = 0, *,
             along: str = "labels", unit: str = "labels of each class",
             names: tuple[str, str] = ("the generative classifier", "the discriminative classifier")) -> Crossing:
    """From where on the discriminative classifier (the second curve) stays ahead, on a logarithmic scale.

    Args:
        generative, discriminative: curves over the same sizes with the same seeds in the same order.
        along: where a Score's `details` say its size. unit, names: of sizes and curves, for the sentence.
    Raises:
        BothwaysError: curves over different sizes, or with different numbers of seeds.
    """
    sizes = [score.details[along] for score in generative]
    first, second = (np.array([score.items for score in side], dtype=float) for side in (generative, discriminative))
    if first.shape != second.shape or sizes != [score.details[along] for score in discriminative]:
        raise BothwaysError("the crossing of two curves needs the same sizes and seeds in both: measure them together")
    gap = second - first
    at = _crossing(gap.mean(1), sizes)
    rng = np.random.default_rng(seed)
    drawn = np.array([_crossing(gap[:, rng.integers(0, gap.shape[1], gap.shape[1])].mean(1), sizes)
                      for _ in range(resamples)])
    known = drawn[np.isfinite(drawn)]
    low, high = np.quantile(known, [0.025, 0.975]) if len(known) else (math.nan, math.nan)
    share = len(known) / resamples
    if math.isfinite(at):
        words = f"the curves cross at {at:.0f} {unit} ({low:.0f} to {high:.0f})"
    else:
        words = f"no crossing seen: {names[int(gap.mean() > 0)]} is ahead on the whole"
    return Crossing(at, float(low), float(high), share, f"{words}; in {share:.0%} of redrawn seeds there is one")


def _crossing(gap: np.ndarray, sizes: Sequence[float]) -> float:
    """The size after which the gap stays above 0, where it was below before; NaN for none."""
    below = np.flatnonzero(gap <= 0)
    if not len(below) or below[-1] == len(gap) - 1:
        return math.nan
    last = int(below[-1])
    share = -gap[last] / (gap[last + 1] - gap[last])
    return float(np.exp((1 - share) * np.log(sizes[last]) + share * np.log(sizes[last + 1])))
