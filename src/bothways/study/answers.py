"""Which one for what, and how sure are we: the plain words a report begins with.

Every sentence is made from a leaderboard by fixed rules, so that nothing is claimed that the statistics do not carry.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from bothways.study.contenders import title
from bothways.study.measures import LIKELIHOODS, Measure, kind_of
from bothways.study.results import Board, Line, Results, Versus

Sureness = Literal["sure", "likely", "open", "one seed", "control"]

SURENESS: dict[Sureness, str] = {
    "sure": "sure",
    "likely": "likely",
    "open": "too close to call",
    "one seed": "one seed, no verdict",
    "control": "beaten by a control",
}


@dataclass(frozen=True)
class Answer:
    """The answer for one use on one source.

    winner: who is in front; level: who cannot be told apart from it; control: the strongest control and whether
    the winner has beaten it.
    """

    board: Board
    winner: Line
    level: tuple[Line, ...]
    sureness: Sureness
    sentence: str
    control: Line | None = None
    beaten: bool = True
    needed: str | None = None

    @property
    def use(self) -> str:
        """What a user would do with it."""
        return self.board.measure.use or self.board.measure.title


def answers(results: Results, source: str) -> list[Answer]:
    """One answer for every use that was measured on a source, in the order of the catalogue."""
    return [answer(board, needed(results, board)) for board in results.boards(source)
            if board.measure.use is not None and board.best is not None]


def answer(board: Board, budget: str | None = None) -> Answer:
    """The answer that a leaderboard carries. `budget` is an estimate of what it would take to beat the control."""
    best = board.best
    assert best is not None
    rivals = [versus for versus in board.versus if not versus.other.control]
    level = tuple(versus.other for versus in rivals if not versus.sure)
    control, beaten = _control(board)
    sureness = _sureness(best, rivals, beaten)
    sentence = _sentence(board, best, rivals, level, sureness, control, beaten, budget)
    return Answer(board, best, level, sureness, sentence, control, beaten, None if beaten else budget)


def _sureness(best: Line, rivals: Sequence[Versus], beaten: bool) -> Sureness:
    if not beaten:
        return "control"
    if len(best.rows) < 2:
        return "one seed"
    if all(versus.sure for versus in rivals):
        return "sure"
    # every seed in front of every rival is a fact worth telling, but not proof
    if all(_in_front_on_every_seed(versus) for versus in rivals):
        return "likely"
    return "open"


def _in_front_on_every_seed(versus: Versus) -> bool:
    one, other = versus.one.by_seed, versus.other.by_seed
    shared = set(one) & set(other)
    sign = math.copysign(1.0, versus.difference.mean)
    direction = math.copysign(1.0, sum(one[seed].value - other[seed].value for seed in shared)) if shared else 0.0
    return bool(shared) and sign > 0 and all(direction * (one[seed].value - other[seed].value) > 0 for seed in shared)


def _control(board: Board) -> tuple[Line | None, bool]:
    """The strongest control, and whether the winner is in front of it."""
    control, best = board.best_control, board.best
    if control is None or best is None:
        return None, True
    ahead = best.interval.mean > control.interval.mean
    return control, ahead == board.measure.higher_is_better and best.interval.mean != control.interval.mean


def value(measure: Measure, number: float, estimator: str = "") -> str:
    """A number the way the report prints it: with ≤ for a bound, as a percentage for shares."""
    if not math.isfinite(number):
        return "–"
    sign = "≤ " if measure.key in LIKELIHOODS and kind_of(estimator) == "bound" else ""
    return sign + (f"{100 * number:.1f}%" if measure.percent else f"{number:,.{measure.digits}f}")


def called(line: Line) -> str:
    """A line's name in a sentence: "Hybrid (bidirectional)" where the contender has several modes."""
    several = line.contender == "hybrid"
    return title(line.contender) + (f" (called {line.mode})" if several and line.mode else "")


def _sentence(board: Board, best: Line, rivals: Sequence[Versus], level: Sequence[Line], sureness: Sureness,
              control: Line | None, beaten: bool, budget: str | None) -> str:
    """One or two sentences: the winner, its number, how sure, and the control."""
    measure = board.measure
    number = value(measure, best.interval.mean, best.estimator) + ("" if measure.percent else f" {measure.unit}")
    # 1. a control in front comes first, since it changes what a user should do
    if not beaten and control is not None:
        text = (f"No contender has beaten the control {title(control.contender)} "
                f"({value(measure, control.interval.mean, control.estimator)}); the nearest is {called(best)} with "
                f"{number}.")
        return text + (f" {budget}" if budget else " What budget would be needed cannot be estimated from its curve.")
    # 2. the winner and the others
    worst = min((versus.difference.mean for versus in rivals), default=math.nan)
    seeds = len(best.rows)
    match sureness:
        case "sure" if rivals:
            p = max(versus.adjusted for versus in rivals)
            text = (f"{called(best)}, with {number}: ahead of every other contender over {seeds} paired seeds "
                    f"(the nearest by {_gap(measure, worst)}; p ≤ {_p(p)} after correction).")
        case "likely":
            text = (f"{called(best)}, with {number}: ahead on each of {seeds} seeds, though the distance to "
                    f"{_names(level)} is not proven.")
        case "open":
            text = f"Too close to call between {called(best)} ({number}) and {_names(level)} with {seeds} seeds."
        case "one seed":
            text = f"{called(best)} stands first with {number}, from one seed: no verdict."
        case _:
            text = f"{called(best)}, with {number}: the only contender that can be measured on this."
    # 3. the control it has passed
    if control is not None:
        text += (f" The best control, {title(control.contender)}, has "
                 f"{value(measure, control.interval.mean, control.estimator)}.")
    return text


def _names(lines: Sequence[Line]) -> str:
    names = [called(line) for line in lines]
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]


def _gap(measure: Measure, number: float) -> str:
    return f"{100 * number:.1f} points" if measure.percent else f"{number:.{measure.digits}f} {measure.unit}"


def _p(p: float) -> str:
    return f"{p:.2g}" if p >= 0.001 else "0.001"


def needed(results: Results, board: Board) -> str | None:
    """An estimate, from the measured curve of the nearest contender, of the budget that would beat the control."""
    control, beaten = _control(board)
    best = board.best
    if beaten or control is None or best is None:
        return None
    return estimate(results, board, best, control.interval.mean)


def estimate(results: Results, board: Board, line: Line, target: float) -> str | None:
    """In words: how many seconds a run would have to last to reach `target`, or that the curve does not tell."""
    from bothways.study.extrapolation import budget_for

    curves = [[(point["seconds"], point["scores"][board.measure.key]) for point in run["curve"]
               if board.measure.key in point["scores"] and point["seconds"] > 0]
              for run in results.runs_of(board.source, line.contender)]
    return budget_for([curve for curve in curves if len(curve) >= 3], target, board.measure.higher_is_better)


def lead(results: Results, everything: dict[str, list[Answer]]) -> list[str]:
    """The first lines of a report: what won for what, controls that nobody has beaten, and what is missing."""
    lines = []
    for source in results.plan.study.sources:
        found = everything.get(source.key, [])
        # 1. what is sure, gathered by winner
        sure: dict[str, list[str]] = {}
        for one in found:
            if one.sureness in ("sure", "likely"):
                sure.setdefault(title(one.winner.contender), []).append(
                    one.use + ("" if one.sureness == "sure" else " (likely)"))
        if sure:
            named = "; ".join(f"{who} for {_list(uses)}" for who, uses in sure.items())
            lines.append(f"On {source.title}: {named}.")
        open_ = [one.use for one in found if one.sureness == "open"]
        if open_:
            lines.append(f"On {source.title}, too close to call with {source.seeds} seeds: {_list(open_)}.")
        # 2. what no contender can do better than something simple
        lines += [f"On {source.title}, {one.use}: {one.sentence}" for one in found if not one.beaten]
        if source.seeds == 1 and found:
            lines.append(f"On {source.title} every contender ran with one seed: numbers and curves, and no verdict.")
    total = len(results.plan.jobs())
    if results.failures:
        lines.append(f"{len(results.failures)} of {total} runs failed and are missing from every number.")
    if results.missing:
        lines.append(f"{len(results.missing)} of {total} runs have not finished: this is a report on the way.")
    return lines or ["Nothing has been measured yet."]


def _list(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]
