"""Measurements that are kept: JSON lines, one file for each part, and what intervals and verdicts are made of them.

A key that stands in the file is not measured again, so a command that was stopped goes on where it was. Lines are
appended whole; two processes may fill one file with different keys.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats


class Kept:
    """The measurements of one part, by key.

    Args:
        folder: where the file PART.jsonl lies.
        lane: (number, lanes): `fill` takes every so manieth key only, so that several processes share the work.
    """

    def __init__(self, folder: Path, part: str, lane: tuple[int, int] = (0, 1)) -> None:
        self.file, self.lane, self.part = folder / f"{part}.jsonl", lane, part

    def all(self) -> dict[str, Any]:
        """Key -> what was measured. A line that a killed process left unfinished is passed over."""
        found = {}
        for line in self.file.read_text(encoding="utf-8").splitlines() if self.file.is_file() else ():
            try:
                entry = json.loads(line)
            except json.JSONDecodeError:
                continue
            found[entry["key"]] = entry["value"]
        return found

    def one(self, key: str, make: Callable[[], Any]) -> Any:
        """What is kept under `key`; made and appended where it is not."""
        known = self.all()
        if key in known:
            return known[key]
        begin = time.perf_counter()
        value = rounded(make())
        seconds = time.perf_counter() - begin
        self.file.parent.mkdir(parents=True, exist_ok=True)
        line = json.dumps({"key": key, "value": value, "seconds": round(seconds, 1)})
        with self.file.open("a+b") as file:
            file.seek(0, 2)
            if file.tell():
                file.seek(-1, 2)
                line = line if file.read(1) == b"\n" else "\n" + line
            file.write((line + "\n").encode())
        print(f"{seconds:6.1f} s  {self.part}: {key}", flush=True)
        return value

    def fill(self, makes: dict[str, Callable[[], Any]]) -> None:
        """Every key of this lane."""
        number, lanes = self.lane
        for place, (key, make) in enumerate(makes.items()):
            if place % lanes == number:
                self.one(key, make)


def rounded(value: Any) -> Any:
    """Floats to six significant digits, arrays as lists: what a page prints has fewer."""
    if isinstance(value, dict):
        return {str(name): rounded(part) for name, part in value.items()}
    if isinstance(value, np.ndarray | list | tuple):
        return [rounded(part) for part in value]
    if isinstance(value, float | np.floating):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return int(value) if isinstance(value, np.integer) else value


def spread(values: Sequence[float], shared: float = 0.0) -> tuple[float, float, float]:
    """Mean and its 95% t interval over seeds, draws or splits.

    Args:
        shared: for random splits of one data set, texts tested over texts learnt from: splits overlap, and the
            variance of their mean is that much larger (Nadeau & Bengio 2003, section 3). 0 for independent values.
    """
    mean = float(np.mean(values))
    if len(values) < 2:
        return mean, math.nan, math.nan
    half = float(stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) * math.sqrt(1 / len(values) + shared))
    return mean, mean - half, mean + half


def paired_items(items: Sequence[float], resamples: int = 2000) -> tuple[float, float, float]:
    """Mean of differences and its 95% bootstrap interval over items: of one training run, and no more than that."""
    values = np.asarray(items, dtype=float)
    places = np.random.default_rng(0).integers(0, len(values), (resamples, len(values)))
    low, high = np.quantile(values[places].mean(1), [0.025, 0.975])
    return float(values.mean()), float(low), float(high)


def written(found: tuple[float, float, float], scale: float = 1.0, digits: int = 3) -> str:
    """(mean, low, high) for a table."""
    mean, low, high = (scale * value for value in found)
    return f"{mean:.{digits}f}" + (f" ({low:.{digits}f} to {high:.{digits}f})" if math.isfinite(low) else "")


def shown(values: Sequence[float], scale: float = 1.0, digits: int = 3, shared: float = 0.0) -> str:
    """`spread`, for a table."""
    return written(spread(values, shared), scale, digits)


def said(found: tuple[float, float, float], expected: int = 1) -> str:
    """What (mean, low, high) of a difference says of an expected sign."""
    mean, low, high = found
    if not math.isfinite(low) or low <= 0 <= high:
        return "cannot be said"
    return "reproduced" if mean * expected > 0 else "not reproduced: the other sign"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Markdown."""
    return "\n".join("| " + " | ".join(row) + " |" for row in (header, ["---"] * len(header), *rows))


def listed(names: Sequence[str]) -> str:
    """ "a, b and c"."""
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]])) if names else "none"
