"""How much more budget would a contender need to beat a control? From measured curves, or "cannot be said".

Loss over compute follows L(C) = E + A * C^-alpha over the ranges people measure (Hoffmann et al. 2022,
arXiv 2203.15556, section 3.3 in one variable). Few points on a short range hardly fix E, so the answer is an
interval over what the points allow, and is refused when that interval says nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

LONGEST = 1000.0
"""A budget more than this many times the last measured one is not estimated."""
WIDEST = 100.0
"""An interval wider than this factor says nothing."""


@dataclass(frozen=True)
class Needed:
    """The budget at which a curve is expected to reach a target, in the unit of the curve; or why it is not said.

    known: whether there is an estimate; `budget`, `low` and `high` (about 90%) are NaN otherwise.
    reached: the target had been reached already, at `budget`.
    reason: a sentence for the report.
    """

    known: bool
    reached: bool
    budget: float
    low: float
    high: float
    reason: str


def budget_to_reach(budgets: Sequence[float], losses: Sequence[float], target: float, *, last: int = 6,
                    unit: str = "tokens", resamples: int = 200, seed: int = 0) -> Needed:
    """Fit L = E + A * C^-alpha to the last points of a curve and ask where it passes below `target`.

    Args:
        budgets, losses: a learning curve, in order.
        target: the control's loss.
        last: how many points at the end are fitted (earlier ones follow the schedule's warm-up, not the law).
        unit: of the budgets, for the sentence.
    Returns:
        Needed; never raises for a curve that says nothing.
    """
    x, y = np.asarray(budgets, dtype=float), np.asarray(losses, dtype=float)
    # 1. already there?
    below = np.flatnonzero(y <= target)
    if len(below) and below[-1] == len(y) - 1:
        at = float(x[below[0]])
        return Needed(True, True, at, at, at, f"reached at {at:.3g} {unit}")
    # 2. enough of a curve to say anything
    usable = np.isfinite(x) & np.isfinite(y) & (x > 0)
    x, y = x[usable][-last:], y[usable][-last:]
    if len(x) < 4 or x[-1] < 4 * x[0]:
        return _unknown(f"fewer than four points over a fourfold range ({len(x)} given)")
    if np.polyfit(np.log(x), y, 1)[0] >= 0:
        return _unknown("the curve does not fall")
    # 3. the fit, and refits to curves disturbed by its own residuals
    fitted = fit(x, y)
    smooth = _law(fitted, x)
    spread = max(float(np.sqrt(np.square(y - smooth).sum() / max(len(x) - 3, 1))), 1e-4 * abs(float(y[-1])))
    rng = np.random.default_rng(seed)
    answers = np.array([_where(fit(x, smooth + spread * rng.standard_normal(len(x))), target)
                        for _ in range(resamples)])
    budget = _where(fitted, target)
    low, high = (float(value) for value in np.quantile(answers, [0.05, 0.95], method="nearest"))
    # 4. does that say something?
    if not np.isfinite(budget) or not np.isfinite(high):
        return _unknown("its fitted floor lies above the control, or may")
    if high > LONGEST * x[-1]:
        return _unknown(f"more than {LONGEST:.0f} times the measured budget may be needed")
    if high > WIDEST * max(low, x[-1]):
        return _unknown(f"anything from {low:.1g} to {high:.1g} {unit} would fit")
    low, budget, high = max(low, float(x[-1])), max(budget, float(x[-1])), max(high, float(x[-1]))
    return Needed(True, False, budget, low, high,
                  f"about {budget:.2g} {unit} ({low:.2g} to {high:.2g}), {budget / x[-1]:.1f} times what it had")


def fit(x: np.ndarray, y: np.ndarray) -> tuple[float, float, float]:
    """(E, A, alpha) of L = E + A * C^-alpha by least squares, E >= 0, A >= 0, 0.02 <= alpha <= 1.5.

    For each alpha of a fine grid E and A are a linear fit, so there is no start value to choose and no failure.
    """
    from scipy.optimize import nnls

    best: tuple[float, tuple[float, float, float]] | None = None
    for alpha in np.geomspace(0.02, 1.5, 60):
        design = np.stack([np.ones_like(x), (x / x[-1]) ** -alpha], axis=1)
        (floor, scale), error = nnls(design, y)
        if best is None or error < best[0]:
            best = (float(error), (float(floor), float(scale * x[-1] ** alpha), float(alpha)))
    assert best is not None
    return best[1]


def _law(fitted: tuple[float, float, float], x: np.ndarray) -> np.ndarray:
    floor, scale, alpha = fitted
    return floor + scale * x ** -alpha


def _where(fitted: tuple[float, float, float], target: float) -> float:
    """The budget at which the fitted curve equals `target`; infinite when its floor lies above."""
    floor, scale, alpha = fitted
    return float("inf") if target <= floor or scale <= 0 else float((scale / (target - floor)) ** (1 / alpha))


def _unknown(why: str) -> Needed:
    nan = float("nan")
    return Needed(False, False, nan, nan, nan, f"cannot be said from this curve: {why}")
