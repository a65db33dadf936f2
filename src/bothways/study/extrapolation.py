"""What budget a contender would need to beat a control, in words, from its measured curves."""

from __future__ import annotations

from collections.abc import Sequence

from bothways.study.progress import clock
from bothways.study.statistics import Curve


def budget_for(curves: Sequence[Curve], target: float, higher_is_better: bool) -> str:
    """A sentence about the seconds a run would have to last for its mean curve to reach `target`.

    Args:
        curves: (seconds, value) of each seed, with the same checkpoints.
        target: the control's value.
    """
    from bothways.evaluation.extrapolate import budget_to_reach

    if not curves:
        return "What budget would be needed cannot be said: no learning curve was measured."
    length = min(len(curve) for curve in curves)
    seconds = [sum(curve[place][0] for curve in curves) / len(curves) for place in range(length)]
    # the law is one of losses: an accuracy is turned into what is missing to 1
    values = [sum(curve[place][1] for curve in curves) / len(curves) for place in range(length)]
    losses = [1 - value for value in values] if higher_is_better else values
    found = budget_to_reach(seconds, losses, 1 - target if higher_is_better else target, unit="seconds")
    if not found.known:
        return f"What budget would be needed {found.reason}."
    if found.reached:
        return (f"On the smaller test of its learning curve it reached that at {clock(found.budget)}; the difference "
                "is within what the test sets can tell.")
    return (f"Its curve, carried on, would reach that at about {clock(found.budget)} a run "
            f"({clock(found.low)} to {clock(found.high)}), an estimate.")
