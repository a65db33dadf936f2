"""From files to a tuned folder: read, check, tune over several seeds, keep the best, score, save."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from bothways import tasks
from bothways.errors import BothwaysError
from bothways.evaluation.score import Score, Stopwatch
from bothways.tasks import folder as folders
from bothways.tasks.base import Task, Watch
from bothways.tasks.rows import Rows, kept_back, overlap_report, read, strange_report
from bothways.tasks.tuning import TuneConfig

if TYPE_CHECKING:
    from bothways.families.trained import Trained

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Data:
    """The rows of a task: to learn from, to choose by (may be empty), to test on (or none)."""

    train: Rows[Any]
    dev: Rows[Any]
    test: Rows[Any] | None

    def about(self) -> dict[str, Any]:
        """What a model card says of them."""
        found = {"train": self.train.about(), "test": None if self.test is None else self.test.about()}
        return {**found, "dev": self.dev.about() if len(self.dev) else None}


@dataclass(frozen=True)
class Result:
    """A tuned task, its scores on the test and dev rows (named so, also of the model before it was tuned, where that
    can be asked), and what is known of its making."""

    task: Task
    scores: list[Score]
    report: dict[str, Any]
    stopped: bool = False
    """Whether the user stopped it while it was being scored: scores are missing then, or further seeds."""


def data(kind: type[Task], train: str | Path, dev: str | Path | None = None, test: str | Path | None = None, *,
         columns: Mapping[str, str] | None = None, keep: float = 0.0, seed: int = 0, tell: Tell = print) -> Data:
    """The rows of a task from files; bad rows and rows of the test that stand in the training data are told.

    Args:
        keep: the share of the training rows that is kept back to choose by, where no `dev` is given.
    Raises:
        BothwaysError: see `rows.read`; a share that is none.
    """
    if not 0 <= keep < 1:
        raise BothwaysError(f"keep is {keep:g}, but a share of the rows lies between 0 and 1")
    found = [None if path is None else read(path, kind.roles, kind.row, columns=columns)
             for path in (train, dev, test)]
    learned, chosen, tested = found
    assert learned is not None
    for one in found:
        if one is not None and (sentence := one.complaint()):
            tell(sentence)
    for one in (chosen, tested):
        for sentence in [] if one is None else [overlap_report(learned, one, kind.key),
                                                strange_report(learned, one, kind.group)]:
            if sentence is not None:
                tell(sentence)
    if chosen is None and keep > 0:
        learned, chosen = kept_back(learned, keep, seed, kind.key, kind.group)
    return Data(learned, chosen if chosen is not None else learned.take([]), tested)


def tuned(kind: type[Task], trained: Trained | None, given: Data, options: Any, config: TuneConfig, *, seeds: int = 1,
          watch: Callable[[int, TuneConfig], Watch | None] | None = None, tell: Tell = print) -> Result:
    """Tune once for each of `seeds` seeds, and keep the one that is best on the dev rows; all are reported.

    Whoever stops it while it is being scored keeps what was learned.

    Args:
        watch: makes what is called after each step, from the seed and the settled config.
    Raises:
        BothwaysError: several seeds without dev rows to choose by, and whatever the task refuses.
    """
    if seeds < 1:
        raise BothwaysError(f"seeds is {seeds}, but at least one is needed")
    if seeds > 1 and not len(given.dev):
        raise BothwaysError(f"{seeds} seeds need rows to choose the best by: give --dev, or --keep a share back")
    config = config.over(len(given.train))
    if trained is not None:
        config = replace(config, learning_rate=config.rate(trained.parameters))
    clock, learning = Stopwatch(), {"seconds": 0.0, "processor seconds": 0.0, "threads": torch.get_num_threads()}
    untuned = kind.untuned(trained, options, config) if len(given.dev) else None
    first = [] if untuned is None else _scored(untuned, given.dev, "untuned dev")
    best: tuple[Task, list[Score]] | None = None
    runs: list[dict[str, Any]] = []
    stopped = False
    for seed in range(config.seed, config.seed + seeds):
        one = replace(config, seed=seed)
        with _added(learning):
            task = kind.fit(trained, given.train.items, given.dev.items, options, one,  # type: ignore[arg-type]
                            None if watch is None else watch(seed, one))
        try:
            chosen_by = _scored(task, given.dev, "dev")
            tested = [] if given.test is None else _scored(task, given.test, "test")
        except KeyboardInterrupt:
            best, stopped = best or (task, []), True
            break
        runs.append({"seed": seed, **{score.name: score.value for score in (*chosen_by, *tested)}})
        if seeds > 1:
            tell(f"seed {seed}: " + ", ".join(f"{score.name} {score.value:.4f}" for score in (*chosen_by[:1],
                                                                                             *tested[:1])))
        if best is None or _better(chosen_by, best[1]):
            best = task, [*chosen_by, *tested]
    assert best is not None
    task, scores = best
    report: dict[str, Any] = {"data": given.about(), "tuning": asdict(config), "parameters": task.parameters,
                              "seconds": round(clock.seconds, 1),
                              "learning": {name: round(value, 1) for name, value in learning.items()}}
    if len(runs) > 1:
        names = [name for name in runs[0] if name != "seed"]
        report["seeds"] = runs
        report["over seeds"] = {name: {"mean": float(np.mean([run[name] for run in runs])),
                                       "deviation": float(np.std([run[name] for run in runs], ddof=1))}
                                for name in names}
    if scores and (left_out := task.unmeasured()):
        tell(left_out)
        report["not measured"] = left_out
    if stopped:
        report["not measured"] = f"stopped by the user while seed {seed} was being scored"
    return Result(task, [*scores, *first], report, stopped)


def tune_from_files(name: str, base: str | Path | None, out: str | Path, train: str | Path, options: Any,
                    config: TuneConfig, *, dev: str | Path | None = None, test: str | Path | None = None,
                    columns: Mapping[str, str] | None = None, keep: float = 0.0, seeds: int = 1,
                    device: str | None = None, watch: Callable[[int, TuneConfig], Watch | None] | None = None,
                    tell: Tell = print) -> Result:
    """All of `bothways tune`: the task in `out`, with its scores.

    Args:
        name: the kind of task. base: the folder of the model to begin with, or none for a way without a network.
        others: see `data` and `tuned`.
    """
    from bothways.families.folder import load

    kind = tasks.kind(name)
    folders.vacant(Path(out))
    # files are read before the long work, so that mistakes in them show at once
    given = data(kind, train, dev, test, columns=columns, keep=keep, seed=config.seed, tell=tell)
    # weights move in float32, whatever the folder stores
    trained = None if base is None else load(base, device, torch.float32)
    result = tuned(kind, trained, given, options, config, seeds=seeds, watch=watch, tell=tell)
    result.report.update({"base": None if base is None else str(base)})
    folders.save(result.task, out, result.report, result.scores)
    return result


def _scored(task: Task, rows: Rows[Any], part: str) -> list[Score]:
    """The scores of some rows, named after them; none of no rows."""
    return [replace(score, name=f"{part} {score.name}") for score in task.scores(rows.items)] if len(rows) else []


@contextmanager
def _added(learning: dict[str, float]) -> Iterator[None]:
    """Add the seconds that a block takes, and those that its threads compute."""
    began, worked = time.perf_counter(), time.process_time()
    yield
    learning["seconds"] += time.perf_counter() - began
    learning["processor seconds"] += time.process_time() - worked


def _better(one: Sequence[Score], other: Sequence[Score]) -> bool:
    sign = 1 if one[0].higher_is_better else -1
    return sign * one[0].value > sign * other[0].value
