"""A Score: one number about one model, with the name of the estimator that made it and the items it is a mean of."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from bothways.aside import replacing
from bothways.errors import BothwaysError

COUNTS = 4_000_000
"""How many counts of resampled items are held at once: 32 MB."""


@dataclass(frozen=True)
class Score:
    """One measured number.

    name: what was measured, "suffix bits per byte".
    mode: the visibility the model was called with; an off-mode (one it was not trained in) ends in "(off-mode)".
    estimator: how: "exact", "upper bound, 16 samples", "pseudo, one token at a time", or the scoring rule of a task.
        Two estimators are never put in one column without these names.
    value: the mean of `items` weighted by `weights`; n is the number of items, or of tokens where that is said.
    items: the value of each window, blank, pair or text, in the order of the data, so that two models can be
        compared item by item; none where there is only one number.
    weights: tokens or bytes in each item, none for all ones.
    details: the same value for parts of the data ("agreement": 0.93), and facts beside it.
    """

    name: str
    mode: str
    estimator: str
    value: float
    n: int
    unit: str = ""
    higher_is_better: bool = True
    items: list[float] | None = None
    weights: list[float] | None = None
    details: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def key(self) -> str:
        """Name, mode and estimator: equal keys may share a column."""
        return f"{self.name} | {self.mode} | {self.estimator}"

    def interval(self, level: float = 0.95, resamples: int = 1000, seed: int = 0) -> tuple[float, float]:
        """Bootstrap interval over items: how far this *test set* can be trusted, not the training run.

        A number that is no mean of items brings its own in `details`, as "low" and "high" (`statistic_score`).

        Returns:
            (low, high); both NaN with fewer than two items.
        """
        if self.items is None and {"low", "high"} <= self.details.keys():
            return self.details["low"], self.details["high"]
        if self.items is None or len(self.items) < 2:
            return float("nan"), float("nan")
        items = np.asarray(self.items, dtype=np.float64)
        weights = np.ones_like(items) if self.weights is None else np.asarray(self.weights, dtype=np.float64)
        rng = np.random.default_rng(seed)
        # counts of each item in a resample: a multinomial row, so that many items cost a few matrix products
        likely, block = np.full(len(items), 1 / len(items)), max(1, COUNTS // len(items))
        means = np.empty(resamples)
        for start in range(0, resamples, block):
            draws = rng.multinomial(len(items), likely, size=min(block, resamples - start))
            means[start:start + block] = (draws @ (items * weights)) / np.maximum(draws @ weights, 1e-300)
        low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
        return float(low), float(high)

    def to_dict(self) -> dict[str, Any]:
        """As plain data for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Score:
        """The Score that `to_dict` wrote.

        Raises:
            BothwaysError: unknown or missing fields.
        """
        known = dict(data)
        if known.get("value", 0.0) is None:
            known["value"] = float("nan")
        if known.get("items") is not None:
            known["items"] = [float("nan") if item is None else item for item in known["items"]]
        try:
            return cls(**known)
        except TypeError as error:
            raise BothwaysError(f"this is not a stored score ({error}): write it with bothways.evaluation") from error


def mean_score(name: str, mode: str, estimator: str, items: Sequence[float] | np.ndarray,
               weights: Sequence[float] | np.ndarray | None = None, **others: Any) -> Score:
    """A Score whose value is the (weighted) mean of `items`; NaN when there are none."""
    values = np.asarray(items, dtype=np.float64)
    share = np.ones_like(values) if weights is None else np.asarray(weights, dtype=np.float64)
    value = float((values * share).sum() / share.sum()) if share.sum() > 0 else float("nan")
    n = int(others.pop("n", len(values)))
    return Score(name, mode, estimator, value, n, items=[float(item) for item in values],
                 weights=None if weights is None else [float(weight) for weight in share], **others)


def statistic_score(name: str, mode: str, estimator: str, statistic: Callable[[np.ndarray], float], n: int, *,
                    resamples: int = 200, seed: int = 0, **others: Any) -> Score:
    """A Score of a number that is no mean, with its 95% bootstrap interval over items in `details`.

    Args:
        statistic: of the items at some places (m,) int64, which may hold a place more than once.
        n: items.
    """
    rng = np.random.default_rng(seed)
    drawn = [statistic(rng.integers(0, n, n)) for _ in range(resamples)] if n > 1 else []
    # a resample may hold none of what is counted, and says nothing then
    drawn = [one for one in drawn if one == one]
    low, high = np.quantile(drawn, [0.025, 0.975]) if drawn else (float("nan"), float("nan"))
    details = {**others.pop("details", {}), "low": float(low), "high": float(high)}
    value = float(statistic(np.arange(n))) if n else float("nan")
    return Score(name, mode, estimator, value, n, details=details, **others)


class Stopwatch:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self._start = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Seconds since this began."""
        return time.perf_counter() - self._start


@contextmanager
def timed(scores: list[Score]) -> Iterator[None]:
    """Share the seconds of a block evenly among the scores that the block adds to `scores`."""
    before, watch = len(scores), Stopwatch()
    yield
    new = len(scores) - before
    for place in range(before, len(scores)):
        scores[place] = replace(scores[place], seconds=watch.seconds / new)


def save(scores: Iterable[Score], path: str | Path) -> None:
    """Scores as a JSON list, written aside and then renamed."""
    with replacing(Path(path)) as aside:
        aside.write_text(to_json(scores), encoding="utf-8")


def load(path: str | Path) -> list[Score]:
    """What `save` wrote.

    Raises:
        BothwaysError: the file is missing or is no list of scores.
    """
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise BothwaysError(f"{path} cannot be read as a list of scores ({error})") from error
    if not isinstance(data, list):
        raise BothwaysError(f"{path} holds no list of scores")
    return [Score.from_dict(entry) for entry in data]


def to_json(scores: Iterable[Score]) -> str:
    """The JSON text of `save`; a number that is not finite becomes null, which `load` reads back as NaN."""
    return json.dumps([_finite(score.to_dict()) for score in scores], indent=1) + "\n"


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    if isinstance(value, dict):
        return {name: _finite(part) for name, part in value.items()}
    return [_finite(part) for part in value] if isinstance(value, list) else value
