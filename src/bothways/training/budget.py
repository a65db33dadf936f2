"""What a run may spend: tokens, FLOPs, seconds or steps. Whichever is given, all four are reported.

6ND is not good enough at the sizes people compare (the head dominates, and objectives differ in how many logits
they need), so FLOPs are counted by `model.cost` from the profile the objective hands over.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from bothways.errors import BothwaysError

Unit = Literal["tokens", "flops", "seconds", "steps"]

_UNITS: dict[str, tuple[Unit, float]] = {
    "s": ("seconds", 1), "sec": ("seconds", 1), "second": ("seconds", 1), "seconds": ("seconds", 1),
    "m": ("seconds", 60), "min": ("seconds", 60), "minute": ("seconds", 60), "minutes": ("seconds", 60),
    "h": ("seconds", 3600), "hour": ("seconds", 3600), "hours": ("seconds", 3600),
    "d": ("seconds", 86400), "day": ("seconds", 86400), "days": ("seconds", 86400),
    "tok": ("tokens", 1), "token": ("tokens", 1), "tokens": ("tokens", 1),
    "flop": ("flops", 1), "flops": ("flops", 1),
    "step": ("steps", 1), "steps": ("steps", 1),
}
_MULTIPLES = {"": 1.0, "k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9, "B": 1e9, "T": 1e12, "P": 1e15}
_WRITTEN = re.compile(r"\s*([0-9][0-9_]*\.?[0-9]*(?:[eE][+-]?[0-9]+)?)\s*(.*?)\s*")


@dataclass(frozen=True)
class Budget:
    """An amount of one currency, for one run."""

    amount: float
    unit: Unit

    @classmethod
    def parse(cls, text: str | Budget) -> Budget:
        """Read "10min", "4h", "30s", "2M tokens", "1e14 flops" or "500 steps".

        Raises:
            BothwaysError: not a positive amount, or no unit that is known.
        """
        if isinstance(text, Budget):
            return text
        written = _WRITTEN.fullmatch(str(text))
        if written:
            amount, rest = float(written[1]), written[2]
            for multiple, factor in _MULTIPLES.items():
                word = rest[len(multiple):].strip()
                word = word if word == "M" else word.lower()  # "2M" may mean millions, so it is not two minutes
                if rest.startswith(multiple) and word in _UNITS:
                    unit, size = _UNITS[word]
                    if unit != "seconds" or not multiple:
                        return cls(amount * factor * size, unit)._checked(text)
        raise BothwaysError(f"budget '{text}' cannot be read: write an amount and a unit, such as "
                            "'10min', '30s', '4h', '2M tokens', '1e14 flops' or '500 steps'")

    def _checked(self, text: object) -> Budget:
        if not 0 < self.amount < float("inf"):
            raise BothwaysError(f"budget '{text}' must be above 0")
        if self.unit == "steps" and self.amount < 1:
            raise BothwaysError(f"budget '{text}' is less than one step")
        return self

    def __str__(self) -> str:
        return f"{self.amount!r} {self.unit}" if self.amount != int(self.amount) else f"{int(self.amount)} {self.unit}"


@dataclass(frozen=True)
class Cost:
    """All four currencies of one run; `seconds` is none until a step has been timed."""

    steps: int
    tokens: int
    flops: float
    seconds: float | None = None

    def __str__(self) -> str:
        seconds = "a time measured as it runs" if self.seconds is None else duration(self.seconds)
        return f"{self.steps:,} steps = {count(self.tokens)} tokens = {count(self.flops)}FLOPs = {seconds}"


def steps_of(budget: Budget, tokens_per_step: float, flops_per_token: float,
             seconds_per_step: float | None = None) -> int:
    """How many steps the budget pays for, at least one.

    Args:
        tokens_per_step: mean raw tokens of a step.
        flops_per_token: training FLOPs per raw token.
        seconds_per_step: needed by a budget in seconds only.
    """
    match budget.unit:
        case "steps":
            steps = budget.amount
        case "tokens":
            steps = budget.amount / tokens_per_step
        case "flops":
            steps = budget.amount / (flops_per_token * tokens_per_step)
        case "seconds":
            if seconds_per_step is None:
                raise ValueError("a budget in seconds needs the time of a step")
            steps = budget.amount / seconds_per_step
    return max(1, round(steps))


def count(value: float) -> str:
    """A large number the way people say it: 1.5M, 20.5k, 3.2e14."""
    if value >= 1e15:
        return f"{value:.2e} "
    for size, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.3g}"


def duration(seconds: float) -> str:
    """Seconds the way people say them: 42 s, 3 min 05 s, 2 h 10 min."""
    whole = round(seconds)
    if whole < 100:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    if whole < 5400:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
