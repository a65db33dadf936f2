"""Small turns of phrase that more than one part of a report needs."""

from __future__ import annotations

import math


def human(number: float) -> str:
    """A number as people say it: 1.2M, 34k, 5.1e13."""
    if number is None or not math.isfinite(number):
        return "–"
    if abs(number) >= 1e12:
        mantissa, exponent = f"{number:.1e}".split("e")
        return f"{mantissa}e{int(exponent)}"
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= size:
            return f"{number / size:.3g}{letter}"
    return f"{number:.3g}"


def squeezed(text: str) -> str:
    """Text without the empty lines that young networks like to write."""
    lines = [line.rstrip() for line in text.splitlines()]
    return "\n".join(line for line in lines if line)
