"""A budget in seconds becomes a number of steps, once. The number is written down, so that the run can be repeated.

The steps that are timed train a network that is then thrown away: training starts from step 0 after them, and the
clock has no other way into the result than the recorded number.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from bothways.errors import BothwaysError
from bothways.training.budget import Budget, steps_of
from bothways.training.data import Batches, Place
from bothways.training.files import read_json, write_json
from bothways.training.loop import Loop

WARM = 3
"""Steps before the clock counts: first calls allocate, plan and choose kernels."""
CYCLE = 16
"""Steps of one timed run."""
SHARE = 0.05
"""Of the budget that timing may take, between the bounds below."""
SHORTEST, LONGEST, FEWEST, MOST = 0.5, 10.0, 3, 200


def calibrate(file: Path, budget: Budget, make: Callable[[int], tuple[Loop, Batches]]) -> dict[str, Any]:
    """The record in `file`, made if it is not there: seconds, seconds_per_step, steps, threads.

    Args:
        budget: in seconds.
        make: a fresh loop and its batches for a number of steps; called only when something has to be timed.
    """
    if file.exists():
        record = read_json(file)
        if record.get("seconds") != budget.amount:
            raise BothwaysError(f"{file} was made for a budget of {record.get('seconds')} seconds, not "
                                f"{budget.amount}: choose another folder, or remove the file to measure again")
        return record
    each = _usual(_times(make, min(LONGEST, max(SHORTEST, SHARE * budget.amount))))
    record = {"seconds": budget.amount, "seconds_per_step": each, "steps": steps_of(budget, 1.0, 1.0, each),
              "threads": torch.get_num_threads()}
    write_json(file, record)
    return record


def _times(make: Callable[[int], tuple[Loop, Batches]], seconds: float) -> list[float]:
    """The time of each step after the warm ones, until `seconds` have gone by.

    Short runs, one after another with the same network: phases and rates that change over a run all take part.
    """
    loop, batches = make(CYCLE)
    place, times = Place(), []
    began = before = time.perf_counter()
    while True:
        for batch in batches.stream(1, place, loop.config.prefetch):
            loop.step(batch)
            if loop.device.type == "cuda":
                torch.cuda.synchronize(loop.device)
            now = time.perf_counter()
            times.append(now - before)
            before, place = now, batch.after
            timed = len(times) - WARM
            if timed >= MOST or (timed >= FEWEST and now - began > seconds):
                return times[WARM:]


TURN = 4
"""Steps of one turn when several runs are timed side by side."""


def side_by_side(runs: Mapping[str, Callable[[int], tuple[Loop, Batches]]], budget: Budget) -> dict[str, int]:
    """Steps that a budget in seconds pays for, for several runs that are to be compared.

    They are timed in turns of a few steps, so that whatever else the machine does holds all of them up alike. Timing
    each when it starts would give the run that met a busy moment fewer steps than its rivals.

    Args:
        budget: in seconds, for each run.
        runs: name -> a fresh loop and its batches for a number of steps; all are held in memory at once.
    """
    made = {name: make(CYCLE) for name, make in runs.items()}
    steps = {name: _forever(*pair) for name, pair in made.items()}
    times: dict[str, list[float]] = {name: [] for name in runs}
    limit = len(runs) * min(LONGEST, max(SHORTEST, SHARE * budget.amount))
    # 1. warm up, then turns until the time is up
    for name in runs:
        for _ in range(WARM):
            next(steps[name])
    began = time.perf_counter()
    while time.perf_counter() - began < limit or len(times[next(iter(runs))]) < 2 * TURN:
        for name in runs:
            times[name] += [next(steps[name]) for _ in range(TURN)]
    # 2. what the budget is worth to each
    return {name: steps_of(budget, 1.0, 1.0, _usual(seen)) for name, seen in times.items()}


def _usual(times: list[float]) -> float:
    """The mean time of a step, without those that another process held up."""
    usual = statistics.median(times)
    return statistics.fmean(one for one in times if one <= 3 * usual)


def _forever(loop: Loop, batches: Batches) -> Iterator[float]:
    """The time of step after step, batch preparation included: short runs, one after another."""
    place = Place()
    while True:
        before = time.perf_counter()
        for batch in batches.stream(1, place, prefetch=False):
            loop.step(batch)
            if loop.device.type == "cuda":
                torch.cuda.synchronize(loop.device)
            place = batch.after
            yield time.perf_counter() - before
            before = time.perf_counter()
