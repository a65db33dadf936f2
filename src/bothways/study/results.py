"""What a study has measured so far: read from the folders of its runs, which are the truth."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from bothways.study import plan as plans
from bothways.study.contenders import is_contender
from bothways.study.measures import LIKELIHOODS, MEASURES, Measure, kind_of
from bothways.study.plan import Job, Plan
from bothways.study.statistics import Difference, Interval, holm, over_items, over_seeds, paired, paired_items

RESULT_FILE = "result.json"
FAILURE_FILE = "failure.json"


@dataclass(frozen=True)
class Row:
    """One score of one run. `own` says whether the mode is one the network was trained in."""

    source: str
    contender: str
    seed: int
    measure: str
    mode: str
    estimator: str
    value: float
    n: int
    own: bool = True
    items: tuple[float, ...] = ()
    details: Mapping[str, float] = field(default_factory=dict)
    unit: str = ""


@dataclass(frozen=True)
class Line:
    """One line of a leaderboard: a contender in a mode with an estimator, over its seeds.

    `headline` marks the one line by which a contender stands for itself on this measure.
    """

    contender: str
    mode: str
    estimator: str
    rows: tuple[Row, ...]
    interval: Interval
    headline: bool = False

    @property
    def control(self) -> bool:
        """Whether this is something to beat, not a contender."""
        return not is_contender(self.contender)

    @property
    def by_seed(self) -> dict[int, Row]:
        """Rows by seed."""
        return {row.seed: row for row in self.rows}


@dataclass(frozen=True)
class Versus:
    """One line against another: `difference.mean` above 0 means that `one` is the better, whatever the unit."""

    one: Line
    other: Line
    difference: Difference
    adjusted: float

    @property
    def sure(self) -> bool:
        """Whether the difference stands after correction for the number of comparisons, over several seeds."""
        return self.seeds > 1 and not math.isnan(self.adjusted) and self.adjusted < 0.05

    @property
    def seeds(self) -> int:
        """Pairs of seeds compared (the smaller number of the two; a control without seeds counts as the other)."""
        counts = [len(line.rows) for line in (self.one, self.other) if not _fixed(line)]
        return min(counts, default=1)


@dataclass(frozen=True)
class Board:
    """The leaderboard of one measure on one source, best first, with the winner against all others."""

    source: str
    measure: Measure
    lines: tuple[Line, ...]
    versus: tuple[Versus, ...]

    @property
    def headlines(self) -> list[Line]:
        """One line for each contender, best first."""
        return [line for line in self.lines if line.headline and not line.control]

    @property
    def controls(self) -> list[Line]:
        """The controls' lines, best first."""
        return [line for line in self.lines if line.control]

    @property
    def best(self) -> Line | None:
        """The contender in front."""
        return next(iter(self.headlines), None)

    @property
    def best_control(self) -> Line | None:
        """The strongest control."""
        return next(iter(self.controls), None)

    def against(self, contender: str) -> Versus | None:
        """The winner against that contender or control."""
        return next((versus for versus in self.versus if versus.other.contender == contender), None)


@dataclass(frozen=True)
class Results:
    """Everything measured: the plan, the stored results of finished runs, and why others failed."""

    plan: Plan
    runs: dict[str, dict[str, Any]]
    failures: dict[str, str]
    folder: Path = Path()

    @cached_property
    def rows(self) -> list[Row]:
        """Every score that belongs to a known measure."""
        return [row for job in self.plan.jobs() for row in _rows_of(job, self.runs.get(job.name))]

    @property
    def missing(self) -> list[str]:
        """Names of runs that have neither finished nor failed."""
        return [job.name for job in self.plan.jobs() if job.name not in self.runs and job.name not in self.failures]

    def run(self, source: str, contender: str, seed: int = 0) -> dict[str, Any] | None:
        """The stored result of one run."""
        return self.runs.get(Job(source, contender, seed).name)

    def runs_of(self, source: str, contender: str) -> list[dict[str, Any]]:
        """The stored results of a contender's runs, by seed."""
        return [self.runs[job.name] for job in self.plan.jobs()
                if job.source == source and job.contender == contender and job.name in self.runs]

    def select(self, source: str, measure: str, contender: str | None = None, mode: str | None = None,
               own: bool | None = None) -> list[Row]:
        """The rows of one measure, narrowed."""
        return [row for row in self.rows if row.source == source and row.measure == measure
                and contender in (None, row.contender) and mode in (None, base_mode(row.mode))
                and own in (None, row.own)]

    def board(self, source: str, measure: str) -> Board:
        """The leaderboard of one measure on one source."""
        return _board(source, MEASURES[measure], self.select(source, measure))

    def boards(self, source: str) -> list[Board]:
        """Every leaderboard that has a contender's line, in the order of the catalogue."""
        boards = (self.board(source, key) for key in MEASURES)
        return [board for board in boards if any(not line.control for line in board.lines)]


def load(folder: Path) -> Results:
    """Read a study's folder.

    Raises:
        BothwaysError: the folder is no study.
    """
    plan = plans.load(folder)
    runs: dict[str, dict[str, Any]] = {}
    failures: dict[str, str] = {}
    for job in plan.jobs():
        place = folder / "runs" / job.name
        stored = read_json(place / RESULT_FILE)
        failed = read_json(place / FAILURE_FILE)
        if stored is not None:
            runs[job.name] = stored
        elif failed is not None:
            failures[job.name] = str(failed.get("message", "unknown reason"))
    return Results(plan, runs, failures, folder)


def read_json(path: Path) -> dict[str, Any] | None:
    """A JSON object, or none where there is no such file or it is not whole."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return data if isinstance(data, dict) else None


def base_mode(mode: str) -> str:
    """The visibility of a mode's name, without the remark that it was not trained."""
    return mode.removesuffix(" (off-mode)")


def _rows_of(job: Job, stored: Mapping[str, Any] | None) -> Iterable[Row]:
    for score in () if stored is None else stored["scores"]:
        value = score.get("value")
        if score.get("measure") not in MEASURES or value is None or not math.isfinite(value):
            continue
        items = tuple(float("nan") if item is None else float(item) for item in score.get("items") or ())
        mode = str(score.get("mode", ""))
        yield Row(job.source, str(score.get("contender") or job.contender), job.seed, score["measure"], mode,
                  str(score.get("estimator", "")), float(value), int(score.get("n", 0)), "(off-mode)" not in mode,
                  items, score.get("details") or {}, str(score.get("unit", "")))


def _fixed(line: Line) -> bool:
    """Whether a line does not depend on a seed (counts, majorities): one value stands for every seed."""
    return line.control and len(line.rows) == 1 and line.contender != "untrained"


def _board(source: str, measure: Measure, rows: Sequence[Row]) -> Board:
    """Group into lines, choose each contender's headline, rank, and compare the winner with every other line."""
    # 1. one line for each contender, mode and estimator
    groups: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.contender, row.mode, row.estimator), []).append(row)
    lines = [Line(*key, tuple(sorted(group, key=lambda row: row.seed)), _interval(group, measure))
             for key, group in groups.items()]
    # 2. headlines by the rule written down beforehand, and the order
    chosen = {id(_headline(measure, [line for line in lines if line.contender == who]))
              for who in {line.contender for line in lines}}
    lines = [Line(line.contender, line.mode, line.estimator, line.rows, line.interval, id(line) in chosen)
             for line in lines]
    lines.sort(key=lambda line: (line.interval.mean, line.contender), reverse=measure.higher_is_better)
    # 3. the winner against all other contenders, corrected among these; then against every control, likewise
    rivals = [line for line in lines if line.headline and not line.control]
    controls = [line for line in lines if line.control and line.headline]
    versus = []
    for others in (rivals[1:], controls):
        if rivals:
            differences = [compare(rivals[0], other, measure.higher_is_better) for other in others]
            versus += [Versus(rivals[0], other, difference, adjusted) for other, difference, adjusted
                       in zip(others, differences, holm([difference.p for difference in differences]))]
    return Board(source, measure, tuple(lines), tuple(versus))


def _interval(rows: Sequence[Row], measure: Measure) -> Interval:
    """Over seeds where there are several, else over the items of the one run; shares stay between 0 and 1."""
    if len(rows) > 1:
        interval = over_seeds([row.value for row in rows], items_of(rows))
    else:
        (row,) = rows
        interval = over_items(row.items)
        # items are unweighted, a score may be weighted by tokens: keep the score's own value and the range's width
        shift = row.value - interval.mean if interval.known else 0.0
        interval = Interval(row.value, interval.low + shift, interval.high + shift, interval.n, interval.method)
    if not measure.percent or not interval.known:
        return interval
    return Interval(interval.mean, max(0.0, interval.low), min(1.0, interval.high), interval.n, interval.method)


def items_of(rows: Sequence[Row]) -> list[tuple[float, ...]] | None:
    """(S, N) items of rows that were all asked the same, none where some were not or an item is missing."""
    lengths = {len(row.items) for row in rows}
    whole = len(lengths) == 1 and lengths.pop() > 1 and not any(math.isnan(item) for row in rows for item in row.items)
    return [row.items for row in rows] if whole else None


def _headline(measure: Measure, lines: Sequence[Line]) -> Line | None:
    """The line that stands for a contender: a trained mode, the preferred visibility, the first estimator measured."""
    def fits(line: Line) -> bool:
        if line.control:
            return True
        own = all(row.own for row in line.rows)
        return own and (measure.pseudo or kind_of(line.estimator) != "pseudo")

    usable = [line for line in lines if fits(line)]
    preferred = [line for line in usable if base_mode(line.mode) == measure.prefers]
    if not preferred and measure.prefers == "causal":
        # a prefix, a decoder or a left-to-right order under another name: who can read exactly stands so
        preferred = [line for line in usable if kind_of(line.estimator) == "exact"]
    if lines and lines[0].control:
        # a control is as good as its best line: that is what has to be beaten
        return min(usable, key=lambda line: -line.interval.mean if measure.higher_is_better else line.interval.mean)
    return next(iter(preferred or usable), None)


def compare(one: Line, other: Line, higher_is_better: bool) -> Difference:
    """How much better `one` is than `other`: paired over seeds, over items where there is one seed."""
    left, right = one.by_seed, other.by_seed
    if _fixed(other) and len(left) > 1:
        right = dict.fromkeys(left, other.rows[0])
    seeds = sorted(set(left) & set(right))
    if not seeds:
        mean = one.interval.mean - other.interval.mean
        return Difference(mean if higher_is_better else -mean, math.nan, math.nan, math.nan, math.nan, 0,
                          "no seeds in common")
    return contrast([left[seed] for seed in seeds], [right[seed] for seed in seeds], higher_is_better)


def contrast(one: Sequence[Row], other: Sequence[Row], higher_is_better: bool) -> Difference:
    """Rows of one contender against another's, seed by seed; above zero means that `one` is the better."""
    sign = 1.0 if higher_is_better else -1.0
    a, b = items_of(one), items_of(other)
    if a is None or b is None or len(a[0]) != len(b[0]):
        a = b = None
    left, right = (None if side is None else [[sign * item for item in items] for items in side] for side in (a, b))
    if len(one) > 1:
        return paired([sign * row.value for row in one], [sign * row.value for row in other], left, right)
    if left is not None and right is not None:
        return paired_items(left[0], right[0])
    return Difference(sign * (one[0].value - other[0].value), math.nan, math.nan, math.nan, math.nan, 1,
                      "one seed, no interval")


def likelihood_note(board: Board) -> str | None:
    """What has to be said beside a ranking of likelihoods of different kinds."""
    kinds = {kind_of(line.estimator) for line in board.headlines}
    if board.measure.key in LIKELIHOODS and len(kinds) > 1:
        return "exact values and upper bounds (≤) stand together here: a bound can only hide how good a model is"
    return None
