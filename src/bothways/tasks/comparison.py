"""All ways of classifying the same data, side by side: accuracy, calibration, cost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bothways.errors import BothwaysError
from bothways.evaluation.score import Score, Stopwatch
from bothways.tasks.classify import Options, Task
from bothways.tasks.folder import interval
from bothways.tasks.tuning import TuneConfig
from bothways.tasks.ways import Row

if TYPE_CHECKING:
    from bothways.families.trained import Trained


@dataclass(frozen=True)
class Contender:
    """A way of classifying with what it begins with, under a name of its own."""

    name: str
    trained: Trained | None
    options: Options
    config: TuneConfig


@dataclass(frozen=True)
class Outcome:
    """What a contender reached: its scores, the parameters that answer, and the seconds it took to learn and to answer.

    `problem` says why it could not run, and the rest is then empty.
    """

    contender: Contender
    scores: tuple[Score, ...] = ()
    parameters: int = 0
    learning: float = 0.0
    answering: float = 0.0
    problem: str = ""


def compare(contenders: Sequence[Contender], train: Sequence[Row], dev: Sequence[Row], test: Sequence[Row],
            tell: Callable[[str], None] = print) -> list[Outcome]:
    """Every contender on the same rows; one that cannot run says why and stops nobody else."""
    found = []
    for one in contenders:
        watch = Stopwatch()
        try:
            task = Task.fit(one.trained, train, dev, one.options, one.config)
            learning, watch = watch.seconds, Stopwatch()
            scores = tuple(task.scores(test))
        except BothwaysError as problem:
            tell(f"{one.name}: {problem}")
            found.append(Outcome(one, problem=str(problem)))
            continue
        found.append(Outcome(one, scores, task.parameters, learning, watch.seconds))
        tell(f"{one.name}: {scores[0].value:.4f} in {learning:.0f} s")
    return found


def markdown(outcomes: Sequence[Outcome], tested: int) -> str:
    """The outcomes as a table, the most accurate first."""
    lines = ["| way | accuracy (95%) | macro-F1 | ECE (95%) | NLL | parameters | learning, s | answering, texts/s |",
             "| --- | --- | --- | --- | --- | --- | --- | --- |"]
    for one in sorted(outcomes, key=lambda one: -one.scores[0].value if one.scores else 1.0):
        if not one.scores:
            lines.append(f"| {one.contender.name} | {one.problem} | | | | | | |")
            continue
        by_name = {score.name.removeprefix("classification "): score for score in one.scores}
        cells: list[Any] = [one.contender.name, _spread(by_name["accuracy"]), f"{by_name['macro-F1'].value:.3f}",
                            _spread(by_name["ECE"]), f"{by_name['NLL'].value:.3f}", f"{one.parameters:,}",
                            f"{one.learning:.1f}", f"{tested / max(one.answering, 1e-9):,.0f}"]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def _spread(score: Score) -> str:
    low, high = interval(score)
    return f"{score.value:.3f} ({low:.3f} to {high:.3f})"
