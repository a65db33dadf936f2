"""The learning curves of a report, and where they cross."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import Any

from bothways.pictures import curves
from bothways.study.contenders import colour, title
from bothways.study.measures import MEASURES, Measure, kind_of
from bothways.study.results import Results
from bothways.study.statistics import Curve, crossings
from bothways.study.words import human

CURVES = ("suffix-truth", "suffix-bits", "classify-frozen")
"""Measures whose learning curves are drawn."""


def points(found: Results, source: str, contender: str, measure: str) -> list[list[dict[str, float]]]:
    """The learning curves of a contender's runs."""
    runs = [[{"tokens": point["tokens"], "flops": point["flops"], "seconds": point["seconds"],
              "value": point["scores"][measure]} for point in run["curve"]
             if point["scores"].get(measure) is not None and point["tokens"] > 0]
            for run in found.runs_of(source, contender)]
    return [run for run in runs if run]


def curve_part(found: Results, source: str, measure_key: str, draw: bool) -> dict[str, Any] | None:
    """The curves of one measure with their crossings, or none where nothing was measured."""
    measure = MEASURES[measure_key]
    known = {key: points(found, source, key, measure_key) for key in found.plan.study.contenders}
    known = {key: runs for key, runs in known.items() if runs}
    if not known:
        return None
    part: dict[str, Any] = {"key": measure_key, "title": measure.title, "unit": measure.unit,
                            "crossings": {axis: list(_crossings(known, measure, axis)) for axis in curves.X_AXES}}
    board = found.board(source, measure_key)
    if draw:
        bound = {line.contender for line in board.headlines if kind_of(line.estimator) == "bound"}
        series = [curves.Series(("≤ " if key in bound else "") + title(key), colour(key), runs,
                                "dot" if key in bound else "solid") for key, runs in known.items()]
        control = board.best_control
        levels = {} if control is None else {title(control.contender): control.interval.mean}
        part["figure"] = curves.learning_curves(series, measure.unit, levels, measure.percent)
    return part


def _crossings(known: dict[str, list[list[dict[str, float]]]], measure: Measure, axis: str) -> Iterator[str]:
    """The last change of places of every two contenders, in words; with several seeds only what most of them show."""
    def curve(run: Sequence[dict[str, float]]) -> Curve:
        return [(point[axis], point["value"]) for point in run]

    for one, other in combinations(known, 2):
        if len(known[one]) != len(known[other]):
            continue
        found = crossings([curve(run) for run in known[one]], [curve(run) for run in known[other]],
                          (title(one), title(other)), measure.higher_is_better)
        for crossing in found[-1:]:
            if crossing.of == 1:
                yield f"{crossing.after} passes {crossing.before} at {human(crossing.at)} {_unit(axis)}"
            elif 2 * crossing.seeds > crossing.of:
                yield (f"{crossing.after} passes {crossing.before} at {human(crossing.at)} {_unit(axis)} (seeds from "
                       f"{human(crossing.low)} to {human(crossing.high)})")


def _unit(axis: str) -> str:
    return {"tokens": "tokens", "flops": "FLOPs", "seconds": "seconds"}[axis]
