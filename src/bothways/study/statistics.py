"""How sure are we: intervals, paired differences, corrections for many comparisons, and where curves cross.

Seeds are paired (runs of one seed share data order and first weights), so a difference is taken seed by seed
before anything is averaged. With one seed the items of the test set are resampled instead; that says how far the
*test set* can be trusted, never how far the *training run* can, so a study of one seed gives no verdict.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

LEVEL = 0.95
RESAMPLES = 2000


@dataclass(frozen=True)
class Interval:
    """A mean and the range it is trusted in; `method` says how that range was found."""

    mean: float
    low: float
    high: float
    n: int
    method: str

    @property
    def known(self) -> bool:
        """Whether there is a range at all: one seed without items has none."""
        return math.isfinite(self.low) and math.isfinite(self.high)


@dataclass(frozen=True)
class Difference:
    """A mean paired difference `one - other`, its range, its two-sided p value and its effect size.

    `effect` is the mean difference over the standard deviation of the differences (Cohen's d for pairs).
    """

    mean: float
    low: float
    high: float
    p: float
    effect: float
    n: int
    method: str

    @property
    def sign(self) -> int:
        """+1 or -1 when the range excludes zero, else 0."""
        if not (math.isfinite(self.low) and math.isfinite(self.high)):
            return 0
        return 1 if self.low > 0 else -1 if self.high < 0 else 0


def over_seeds(values: Sequence[float], items: Sequence[Sequence[float]] | None = None,
               level: float = LEVEL) -> Interval:
    """Mean over seeds with Student's interval; with one value the range is unknown (NaN).

    Args:
        values: (S,) one number a seed.
        items: (S, N) the test items behind each, where all seeds were asked the same: their own noise is added (see
            `_error`), so that seeds which agree by chance on a short test do not look certain.
    """
    sample = np.asarray(values, float)
    n = len(sample)
    if n < 2:
        return Interval(float(sample.mean()) if n else math.nan, math.nan, math.nan, n, "one seed, no interval")
    error, freedom = _error(sample, items)
    half = float(stats.t.ppf(0.5 + level / 2, freedom) * error)
    return Interval(float(sample.mean()), float(sample.mean()) - half, float(sample.mean()) + half, n,
                    f"t interval over {n} seeds" + (" and test items" if items is not None else ""))


def _error(sample: np.ndarray, items: Sequence[Sequence[float]] | None) -> tuple[float, float]:
    """(standard error of the mean over seeds, degrees of freedom).

    Two sources of chance are added: the runs (variance over seeds / S) and the test set (variance over items of their
    mean over seeds / N), with the degrees of freedom of Welch and Satterthwaite (Biometrics Bulletin 2, 1946).
    """
    seeds = float(sample.var(ddof=1)) / len(sample)
    if items is None:
        return math.sqrt(seeds), float(len(sample) - 1)
    means = np.asarray(items, float).mean(axis=0)
    test = float(means.var(ddof=1)) / len(means)
    total = seeds + test
    if total == 0.0:
        return 0.0, float(len(sample) - 1)
    freedom = total ** 2 / (seeds ** 2 / (len(sample) - 1) + test ** 2 / (len(means) - 1))
    return math.sqrt(total), freedom


def over_items(items: Sequence[float], level: float = LEVEL, seed: int = 0) -> Interval:
    """Mean over test items with a percentile bootstrap interval."""
    sample = np.asarray(items, float)
    n = len(sample)
    if n < 2:
        return Interval(float(sample.mean()) if n else math.nan, math.nan, math.nan, n, "too few items, no interval")
    means = _resampled_means(sample, seed)
    low, high = np.quantile(means, [0.5 - level / 2, 0.5 + level / 2])
    return Interval(float(sample.mean()), float(low), float(high), n, f"bootstrap over {n} items, one seed")


def paired(one: Sequence[float], other: Sequence[float], items_one: Sequence[Sequence[float]] | None = None,
           items_other: Sequence[Sequence[float]] | None = None, level: float = LEVEL) -> Difference:
    """The paired t test of two contenders over the same seeds.

    Args:
        one, other: (S,) values of the same measure, seed by seed.
        items_one, items_other: (S, N) the test items behind them, if there are; the noise of the test set is then
            added to that of the seeds. Without them this is the textbook's paired t test.
    Raises:
        ValueError: the two have different lengths.
    """
    difference = _differences(one, other)
    n = len(difference)
    mean = float(difference.mean()) if n else math.nan
    if n < 2:
        return Difference(mean, math.nan, math.nan, math.nan, math.nan, n, "one seed, no interval")
    items = None if items_one is None or items_other is None else \
        (np.asarray(items_one, float) - np.asarray(items_other, float)).tolist()
    how = f"paired t over {n} seeds" + ("" if items is None else f" and {len(items[0])} test items")
    error, freedom = _error(difference, items)
    spread = float(difference.std(ddof=1))
    effect = mean / spread if spread > 1e-12 else math.copysign(math.inf, mean) if abs(mean) > 1e-12 else 0.0
    # seeds and items that agree to rounding have no spread to divide by: the difference is then as sure as its sign
    if error <= 1e-12 * max(1.0, abs(mean)):
        return Difference(mean, mean, mean, 0.0 if abs(mean) > 1e-12 else 1.0, effect, n, how)
    half = float(stats.t.ppf(0.5 + level / 2, freedom) * error)
    return Difference(mean, mean - half, mean + half, float(2 * stats.t.sf(abs(mean) / error, freedom)), effect, n, how)


def paired_items(one: Sequence[float], other: Sequence[float], level: float = LEVEL, seed: int = 0) -> Difference:
    """The paired bootstrap of two contenders over the same test items, for a study of one seed.

    The p value is twice the share of resampled means on the other side of zero (never below 1 / resamples).
    """
    difference = _differences(one, other)
    n = len(difference)
    mean = float(difference.mean()) if n else math.nan
    if n < 2:
        return Difference(mean, math.nan, math.nan, math.nan, math.nan, n, "too few items, no interval")
    means = _resampled_means(difference, seed)
    low, high = np.quantile(means, [0.5 - level / 2, 0.5 + level / 2])
    tail = min(float((means <= 0).mean()), float((means >= 0).mean()))
    spread = float(difference.std(ddof=1))
    return Difference(mean, float(low), float(high), min(1.0, max(2 * tail, 1 / RESAMPLES)),
                      mean / spread if spread else 0.0, n, f"paired bootstrap over {n} items, one seed")


def _differences(one: Sequence[float], other: Sequence[float]) -> np.ndarray:
    if len(one) != len(other):
        raise ValueError(f"a paired difference needs as many values on both sides, not {len(one)} and {len(other)}")
    return np.asarray(one, float) - np.asarray(other, float)


def _resampled_means(sample: np.ndarray, seed: int) -> np.ndarray:
    """(RESAMPLES,) means of resampled items, drawn in blocks so that a long test set needs little memory."""
    rng = np.random.default_rng(seed)
    block = max(1, min(RESAMPLES, 2_000_000 // len(sample)))
    means = [sample[rng.integers(0, len(sample), (min(block, RESAMPLES - start), len(sample)))].mean(axis=1)
             for start in range(0, RESAMPLES, block)]
    return np.concatenate(means)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction (Scandinavian Journal of Statistics 6, 1979): adjusted p values, in the order given.

    A p value that is not a number stays one and is not counted as a comparison.
    """
    known = [index for index, p in enumerate(p_values) if not math.isnan(p)]
    adjusted = [math.nan] * len(p_values)
    highest = 0.0
    for rank, index in enumerate(sorted(known, key=lambda index: p_values[index])):
        highest = max(highest, min(1.0, (len(known) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted


@dataclass(frozen=True)
class Crossing:
    """Where two learning curves change places: `before` leads up to `at`, `after` from there on.

    `low` and `high` are the smallest and largest crossing of a single seed, `seeds` of `of` seeds show one.
    """

    before: str
    after: str
    at: float
    low: float
    high: float
    seeds: int
    of: int


Curve = Sequence[tuple[float, float]]
"""(x, value) points of one run, x rising."""


def crossings(one: Sequence[Curve], other: Sequence[Curve], names: tuple[str, str],
              higher_is_better: bool = False) -> list[Crossing]:
    """Where the mean curves of two contenders cross, over the range both were measured in.

    Curves are read on a logarithmic x between their points. Only the mean curve decides that there is a crossing;
    the seeds say how well its place is known.

    Args:
        one, other: the curves of the two contenders, seed by seed.
        names: what to call them.
    """
    if not one or not other or len(one) != len(other):
        return []
    places = _places([*one, *other])
    if len(places) < 2:
        return []
    better = 1.0 if higher_is_better else -1.0
    each = np.stack([better * (_read(a, places) - _read(b, places)) for a, b in zip(one, other, strict=True)])
    found = []
    for at, before in _sign_changes(places, each.mean(axis=0)):
        singles = [place for row in each for place, first in _sign_changes(places, row)[:1] if first == before]
        found.append(Crossing(names[0] if before > 0 else names[1], names[1] if before > 0 else names[0], at,
                              min(singles, default=at), max(singles, default=at), len(singles), len(each)))
    return found


def _places(curves: Sequence[Curve]) -> np.ndarray:
    """The x values at which every curve can be read, from all of their own points."""
    usable = [[x for x, value in curve if x > 0 and math.isfinite(value)] for curve in curves]
    if any(len(points) < 2 for points in usable):
        return np.empty(0)
    low, high = max(points[0] for points in usable), min(points[-1] for points in usable)
    return np.asarray(sorted({x for points in usable for x in points if low <= x <= high}))


def _read(curve: Curve, places: np.ndarray) -> np.ndarray:
    """The curve's values at `places`, linear in log x."""
    points = [(x, value) for x, value in curve if x > 0 and math.isfinite(value)]
    return np.interp(np.log(places), np.log([x for x, _ in points]), [value for _, value in points])


def _sign_changes(places: np.ndarray, difference: np.ndarray) -> list[tuple[float, int]]:
    """(x of a change of sign, the sign before it), exact zeros belonging to the side they came from."""
    changes = []
    last, sign = 0, 0
    for index, value in enumerate(difference):
        now = int(np.sign(value))
        if now == 0:
            continue
        if sign and now != sign:
            left, right = math.log(places[last]), math.log(places[index])
            share = abs(difference[last]) / (abs(difference[last]) + abs(value))
            changes.append((math.exp(left + share * (right - left)), sign))
        last, sign = index, now
    return changes
