"""Which one for what, and how sure are we: the plain words a report begins with.

Every sentence is made from a leaderboard by fixed rules, so that nothing is claimed that the statistics do not carry.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from bothways.study.contenders import contender, title
from bothways.study.extrapolation import Needed, budget_for
from bothways.study.measures import LIKELIHOODS, Measure, kind_of
from bothways.study.plan import Source
from bothways.study.results import Board, Line, Results, Versus

Sureness = Literal["sure", "likely", "open", "one seed", "control"]

FEWEST = 3
"""Seeds without which nothing is called likely."""
SURENESS: dict[Sureness, str] = {
    "sure": "sure",
    "likely": "likely",
    "open": "too close to call",
    "one seed": "one seed, no verdict",
    "control": "no better than a control",
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
    needed: Needed | None = None

    @property
    def use(self) -> str:
        """What a user would do with it."""
        return self.board.measure.use or self.board.measure.title


def answers(results: Results, source: str) -> list[Answer]:
    """One answer for every use that was measured on a source, in the order of the catalogue."""
    return [answer(board, needed(results, board)) for board in results.boards(source)
            if board.measure.use is not None and board.best is not None]


def answer(board: Board, budget: Needed | None = None) -> Answer:
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
    # in front of every rival with each of three seeds: by chance alone that is one case in 25 with five contenders
    if len(best.rows) >= FEWEST and all(_in_front_on_every_seed(versus) for versus in rivals):
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
    """A line's name in a sentence: "Hybrid (bidirectional)" where the contender trains several objectives."""
    several = not line.control and contender(line.contender).objective["name"] == "mixture"
    return title(line.contender) + (f" (called {line.mode})" if several and line.mode else "")


def _sentence(board: Board, best: Line, rivals: Sequence[Versus], level: Sequence[Line], sureness: Sureness,
              control: Line | None, beaten: bool, budget: Needed | None) -> str:
    """One or two sentences: the winner, its number, how sure, and the control."""
    measure = board.measure
    number = value(measure, best.interval.mean, best.estimator) + ("" if measure.percent else f" {measure.unit}")
    # 1. a control in front comes first, since it changes what a user should do
    if not beaten and control is not None:
        text = (f"No contender has beaten the control {title(control.contender)} "
                f"({value(measure, control.interval.mean, control.estimator)}); the nearest is {called(best)} with "
                f"{number}.")
        return text + ("" if budget is None else f" Needed, by its curve: {budget.text}." if budget.known else
                       f" The budget needed {budget.text}.")
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


def needed(results: Results, board: Board) -> Needed | None:
    """An estimate, from the measured curve of the nearest contender, of the budget that would beat the control."""
    control, beaten = _control(board)
    best = board.best
    if beaten or control is None or best is None:
        return None
    key = board.measure.key
    curves = [[(point["seconds"], point["scores"][key]) for point in run["curve"]
               if point["scores"].get(key) is not None and point["seconds"] > 0]
              for run in results.runs_of(board.source, best.contender)]
    return budget_for([curve for curve in curves if curve], control.interval.mean, board.measure.higher_is_better)


def lead(results: Results, everything: dict[str, list[Answer]]) -> list[str]:
    """The first lines of a report: what won for what, controls that nobody has beaten, and what is missing."""
    lines = [line for source in results.plan.study.sources for line in _lead_of(source, everything.get(source.key, []))]
    total = len(results.plan.jobs())
    if results.failures:
        lines.append(f"{len(results.failures)} of {total} runs failed and are missing from every number.")
    if results.missing:
        lines.append(f"{len(results.missing)} of {total} runs have not finished: this is a report on the way.")
    return lines or ["Nothing has been measured yet."]


def _lead_of(source: Source, found: Sequence[Answer]) -> Iterator[str]:
    """At most three sentences on one source."""
    where = source.title[0].upper() + source.title[1:]
    # 1. who is in front, gathered by winner
    for kinds, opening in ((("sure", "likely"), f"{where}, {source.seeds} seeds"),
                           (("one seed",), f"{where}, one seed and so no verdict, in front")):
        named = [(title(one.winner.contender), one.use + (" (likely)" if one.sureness == "likely" else ""))
                 for one in found if one.sureness in kinds]
        if named:
            gathered = {who: _list([use for name, use in named if name == who]) for who, _ in named}
            yield f"{opening}: " + "; ".join(f"{who} for {uses}" for who, uses in gathered.items()) + "."
    # 2. what cannot be told apart
    close = [one.use for one in found if one.sureness == "open"]
    if close:
        yield f"{where}, too close to call with {source.seeds} seeds: {_list(close)}."
    # 3. what something simple still does better
    beaten = [_beaten(one) for one in found if not one.beaten]
    if beaten:
        yield f"{where}: at this budget no contender has beaten the control for {'; '.join(beaten)}."


def _beaten(one: Answer) -> str:
    """A use, the control's number, the nearest contender's, and the budget that would be needed where it is known."""
    assert one.control is not None
    measure, best = one.board.measure, one.winner
    control = value(measure, one.control.interval.mean, one.control.estimator)
    known = one.needed is not None and one.needed.known
    needed = f", whose curve would get there at {one.needed.text}" if known and one.needed is not None else ""
    return (f"{one.use} ({title(one.control.contender)} {control}, {title(best.contender)} "
            f"{value(measure, best.interval.mean, best.estimator)}{needed})")


def _list(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]
