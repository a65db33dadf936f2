"""The learning rate over a run: warm up, stay, come down by 1 - sqrt (arXiv 2405.18392, section 3)."""

from __future__ import annotations

import math

from bothways.training.config import Schedule


def factor(schedule: Schedule, step: int, steps: int) -> float:
    """What the learning rate is multiplied by at `step` (1 is the first, `steps` the last); above 0, at most 1.

    Linear over the warm-up, 1 over the stable part, `1 - (1 - floor) * sqrt(share of the decay gone)` at the end.
    The last step still moves: the decay reaches its floor one step after it.
    """
    if not 1 <= step <= steps:
        raise ValueError(f"step {step} is not one of the {steps} steps")
    warmup, decay = schedule.warmup * steps, schedule.decay * steps
    rise = min(1.0, step / warmup) if warmup >= 1 else 1.0
    gone = (step - 1 - (steps - decay)) / decay if decay >= 1 else 0.0
    fall = 1.0 - (1.0 - schedule.floor) * math.sqrt(min(1.0, max(0.0, gone)))
    return min(rise, fall)


def geometric(steps: int, ratio: float) -> list[int]:
    """The steps 1, ratio, ratio^2, ... (rounded, without repeats) and the last: where a curve is measured."""
    places = {1, steps}
    place = 1.0
    while place <= steps:
        places.add(round(place))
        place *= ratio
    return sorted(place for place in places if place <= steps)
