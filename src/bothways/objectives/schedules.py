"""Noise schedules of masked diffusion: how large a share of the tokens is hidden at time t, and what that weighs.

With alpha(t) the chance that a token is still there, the continuous-time bound weighs the hidden tokens by
w(t) = -alpha'(t) / (1 - alpha(t))  (MDLM, arXiv 2406.07524, section 3). A schedule moves time, not the bound: with
s = 1 - alpha(t) it is the integral of (1/s) * loss(s) over s in (0, 1] whatever the path; only its variance differs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Schedule:
    """One path from nothing hidden at time 0 to everything hidden at time 1.

    hidden: 1 - alpha(t), the share hidden at time t.
    slope: its derivative.
    integral: the integral of `hidden` from time t to 1.
    """

    hidden: Callable[[float], float]
    slope: Callable[[float], float]
    integral: Callable[[float], float]

    def weight(self, time: float, first: float = 0.0) -> float:
        """w(t), for times drawn evenly from [first, 1].

        What times below `first` would weigh is spread over the others, so that every token counts once on average:
        the mean of hidden(t) * weight(t) over [first, 1] is 1.
        """
        missing = (1 - first) / (1 - self.hidden(first))
        return self.slope(time) / self.hidden(time) * missing

    def mean(self, first: float = 0.0) -> float:
        """The share hidden on average, for times drawn evenly from [first, 1]."""
        return self.integral(first) / (1 - first)


SCHEDULES: dict[str, Schedule] = {
    "linear": Schedule(lambda t: t, lambda t: 1.0, lambda t: (1 - t * t) / 2),
    "cosine": Schedule(lambda t: math.sin(math.pi / 2 * t), lambda t: math.pi / 2 * math.cos(math.pi / 2 * t),
                       lambda t: 2 / math.pi * math.cos(math.pi / 2 * t)),
    "polynomial": Schedule(lambda t: t * t, lambda t: 2 * t, lambda t: (1 - t ** 3) / 3),
}
"""alpha(t) = 1 - t (LLaDA; MDLM's loss does not depend on it), 1 - cos(pi/2 (1 - t)), and 1 - t^2 (MD4, arXiv
2406.04329)."""
