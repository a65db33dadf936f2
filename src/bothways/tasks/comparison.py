"""All ways of classifying the same data, side by side: accuracy, calibration, cost.

Every contender gets the same effort: as many settings as all others (a rate, a C, a number of neighbours), each tried
for a share of the steps and judged by its accuracy on rows kept back; the best, and of equals the one with the lower
NLL, is learned in full. The test rows play no part in that.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bothways.errors import BothwaysError
from bothways.evaluation.score import Stopwatch
from bothways.tasks.classify import Options, Task
from bothways.tasks.folder import interval
from bothways.tasks.tuning import TuneConfig
from bothways.tasks.ways import WITHOUT_NETWORK, Row

if TYPE_CHECKING:
    from bothways.families.trained import Trained

TRIAL = 1 / 3
"""The share of the steps that each setting is tried for."""
COLUMNS = ("accuracy", "macro-F1", "ECE", "NLL")


@dataclass(frozen=True)
class Setting:
    """One of the settings that a contender may choose, under a name such as "rate 0.0003"."""

    name: str
    options: Options
    config: TuneConfig


@dataclass(frozen=True)
class Contender:
    """A way of classifying with what it begins with, under a name of its own.

    start: makes what it begins with when its turn comes; none for a way without a network.
    settings: at least one, in the order in which a tie is broken.
    tested: at most so many of the test rows, for ways that answer slowly.
    """

    name: str
    start: Callable[[], Trained] | None
    settings: tuple[Setting, ...]
    tested: int | None = None


@dataclass(frozen=True)
class Outcome:
    """What a contender reached, as plain data.

    learned, tested: rows. scores: by the names of `COLUMNS`, value, low and high. chosen: the name of its setting, and
    tried the accuracy and NLL of each on the rows kept back. learning, answering: seconds of the chosen setting, in
    full. problem: why it could not run; the rest is then empty.
    """

    name: str
    learned: int
    tested: int
    scores: Mapping[str, tuple[float, float, float]] = field(default_factory=dict)
    chosen: str = ""
    tried: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    parameters: int = 0
    learning: float = 0.0
    answering: float = 0.0
    problem: str = ""


def compare(contenders: Sequence[Contender], train: Sequence[Row], kept: Sequence[Row], test: Sequence[Row],
            out: Path | None = None, tell: Callable[[str], None] = print) -> list[Outcome]:
    """Every contender on the same rows; one that cannot run says why and stops nobody else.

    Args:
        kept: the rows by which settings are chosen.
        out: JSON lines, one a contender; those that stand there with scores are not run again, so that a comparison
            goes on where it stopped, and two can share the work.
    Returns:
        the outcomes of these contenders, and whatever else stands in `out`.
    Raises:
        BothwaysError: `out` speaks of other rows, or holds something else.
    """
    found: dict[str, Outcome] = {}
    for one in contenders:
        found.update({outcome.name: outcome for outcome in read(out, len(train))})
        if one.name in found and not found[one.name].problem:
            continue
        outcome = _reached(one, train, kept, test[:one.tested])
        tell(f"{one.name}: " + (outcome.problem or f"{outcome.scores['accuracy'][0]:.4f} with {outcome.chosen}, "
                                f"learned in {outcome.learning:.0f} s"))
        found[one.name] = outcome
        if out is not None:
            with out.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(asdict(outcome)) + "\n")
    found.update({outcome.name: outcome for outcome in read(out, len(train))})
    return list(found.values())


def read(out: Path | None, learned: int) -> list[Outcome]:
    """The outcomes in a file, the last of each name; none where there is none. Raises: BothwaysError, see `compare`."""
    if out is None or not out.is_file():
        return []
    found: dict[str, Outcome] = {}
    for number, line in enumerate(out.read_text(encoding="utf-8").splitlines(), 1):
        try:
            one = Outcome(**json.loads(line))
        except (json.JSONDecodeError, TypeError) as error:
            raise BothwaysError(f"{out}, line {number} is no outcome ({error}): remove the line, or name another file"
                                ) from None
        if one.learned != learned:
            raise BothwaysError(f"{out}, line {number} was learned from {one.learned} rows, but now there are "
                                f"{learned}: name another file")
        found[one.name] = one
    return list(found.values())


def markdown(outcomes: Sequence[Outcome], chance: float | None = None) -> str:
    """The outcomes as a table, the most accurate first.

    Args:
        chance: the accuracy of whoever always gives the commonest label, as a row of its own.
    """
    lines = ["| way | accuracy (95%) | macro-F1 | ECE (95%) | NLL (95%) | chosen | parameters | learning, s "
             "| answering, texts/s |", "| --- | --- | --- | --- | --- | --- | --- | --- | --- |"]
    rows = [(one.scores["accuracy"][0] if one.scores else -1.0, _line(one)) for one in outcomes]
    if chance is not None:
        rows.append((chance, f"| the commonest label | {chance:.3f} | | | | | | | |"))
    return "\n".join([*lines, *(line for _, line in sorted(rows, key=lambda row: -row[0]))])


def _reached(one: Contender, train: Sequence[Row], kept: Sequence[Row], test: Sequence[Row]) -> Outcome:
    """Try the settings, learn in full with the best, score."""
    try:
        trained = None if one.start is None else one.start()
        # 1. the setting
        tried: dict[str, tuple[float, float]] = {}
        for setting in one.settings if len(one.settings) > 1 else ():
            config = setting.config.over(len(train))
            short = replace(config, steps=max(1, round(config.steps * TRIAL)))
            scores = Task.fit(trained, train, [], setting.options, short).scores(kept)
            by_name = {score.name.removeprefix("classification "): score.value for score in scores}
            tried[setting.name] = by_name["accuracy"], by_name["NLL"]
        best = min(one.settings, key=lambda setting: (-tried[setting.name][0], tried[setting.name][1])
                   if tried else (0.0, 0.0))
        # 2. in full
        watch = Stopwatch()
        task = Task.fit(trained, train, [], best.options, best.config)
        learning, watch = watch.seconds, Stopwatch()
        logs = task.way.log_probabilities(test)
        answering = watch.seconds
        scores = task.scores(test, logs)
    except BothwaysError as problem:
        return Outcome(one.name, len(train), len(test), problem=str(problem))
    values = {score.name.removeprefix("classification "): (score.value, *interval(score)) for score in scores}
    return Outcome(one.name, len(train), len(test), {name: values[name] for name in COLUMNS}, best.name, tried,
                   task.parameters, learning, answering)


def _line(one: Outcome) -> str:
    if not one.scores:
        return f"| {one.name} | {one.problem} | | | | | | | |"
    accuracy, f1, ece, nll = (one.scores[name] for name in COLUMNS)
    cells: list[Any] = [one.name, _spread(accuracy), f"{f1[0]:.3f}", _spread(ece), _spread(nll), one.chosen,
                        f"{one.parameters:,}", f"{one.learning:.0f}",
                        f"{one.tested / max(one.answering, 1e-9):,.0f}"]
    return "| " + " | ".join(map(str, cells)) + " |"


def _spread(score: tuple[float, float, float]) -> str:
    value, low, high = score
    return f"{value:.3f} ({low:.3f} to {high:.3f})" if low == low else f"{value:.3f}"


def without_network(ways: Sequence[str] = WITHOUT_NETWORK,
                    strengths: Mapping[str, Sequence[float]] | None = None) -> list[Contender]:
    """The baselines over TF-IDF, each with three strengths to choose from."""
    grid = strengths or {"logistic": (1.0, 10.0, 100.0), "svm": (0.1, 0.5, 2.0), "bayes": (0.03, 0.1, 0.5)}
    names = {"logistic": "C", "svm": "C", "bayes": "alpha"}
    return [Contender(f"{way}, TF-IDF", None, tuple(
        Setting(f"{names[way]} {value:g}", Options(way=way, strength=value), TuneConfig(steps=1))  # type: ignore[arg-type]
        for value in grid[way])) for way in ways]
