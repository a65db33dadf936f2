"""What budget a contender would need to beat a control, in words, from its measured curves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bothways.study.progress import clock
from bothways.study.statistics import Curve


@dataclass(frozen=True)
class Needed:
    """The budget needed, as the end of a sentence: "about 5 min a run" if `known`, else "cannot be said: ..."."""

    known: bool
    text: str
    seconds: float = float("nan")


def budget_for(curves: Sequence[Curve], target: float, higher_is_better: bool) -> Needed:
    """How many seconds a run would have to last for its mean curve to reach `target`.

    Args:
        curves: (seconds, value) of each seed, with the same checkpoints.
        target: the control's value.
    """
    from bothways.evaluation.extrapolate import budget_to_reach

    if not curves:
        return Needed(False, "cannot be said: no learning curve of this was measured")
    length = min(len(curve) for curve in curves)
    seconds = [sum(curve[place][0] for curve in curves) / len(curves) for place in range(length)]
    # the law is one of losses: an accuracy is turned into what is missing to 1
    values = [sum(curve[place][1] for curve in curves) / len(curves) for place in range(length)]
    losses = [1 - value for value in values] if higher_is_better else values
    found = budget_to_reach(seconds, losses, 1 - target if higher_is_better else target, unit="seconds")
    if not found.known:
        return Needed(False, found.reason)
    if found.reached:
        return Needed(False, "is about what it had: on the smaller test of its curve it is level with the control")
    return Needed(True, f"about {clock(found.budget)} a run ({clock(found.low)} to {clock(found.high)}), an estimate",
                  found.budget)
