"""Tune a model to a task, on your labelled data; what it is worth is printed with intervals and stored.

    bothways tune --task classify --from run/model --data train.csv --test test.csv --out my-classifier

Columns are found by their usual names (text and label, category, class; ...), or named: --columns text=utterance.
Rows that cannot be used are listed with their lines, and the others are used. `bothways tune --task NAME --help` shows
the options of that task. The folder is used by the command of the task's name: bothways classify my-classifier "a text"
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, make_dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from bothways.tasks.config import TuneConfig

if TYPE_CHECKING:
    from bothways.tasks.base import Watch


@dataclass(frozen=True)
class Options:
    """What every task is told."""

    data: Path
    """The rows to learn from: .csv, .tsv, .jsonl, .json or .conll, also .gz."""
    out: Path
    """The folder to write."""
    task: str = "classify"
    """The kind of task."""
    from_: Annotated[Path | None, tyro.conf.arg(name="from")] = None
    """The model to begin with; none for ways without a network."""
    dev: Path | None = None
    """Rows by which the best weights and the best seed are chosen."""
    test: Path | None = None
    """Rows to measure on."""
    keep: float = 0.0
    """Without --dev: keep back this share of the rows to choose by."""
    columns: tuple[str, ...] = ()
    """Columns with other names than the usual: role=column."""
    seeds: int = 1
    """Tune with so many seeds, and keep the best; all are reported."""
    json: Path | None = None
    """Also write the scores, item by item, to this file."""
    device: str | None = None
    """cpu, cuda, cuda:1."""


def options_for(arguments: Sequence[str]) -> type[Any]:
    """The options of the task that these arguments name; help without a task shows those that all tasks have."""
    from bothways import tasks

    name = next((after for one, after in itertools.pairwise(arguments) if one == "--task"), None) or \
        next((one.partition("=")[2] for one in arguments if one.startswith("--task=")), None)
    flat = tyro.conf.OmitArgPrefixes
    if name is None and {"-h", "--help"} & set(arguments):
        fields: list[Any] = [("tuning", flat[TuneConfig], field(default_factory=recipe))]
    else:
        kind = tasks.kind(name or Options.task)
        # a number of steps that is asked for is what is wanted instead of the usual passes
        counted = any(one.partition("=")[0] == "--steps" for one in arguments)
        usual = replace(recipe(kind.recipe), epochs=None) if counted else recipe(kind.recipe)
        fields = [("own", flat[kind.Options], field(default_factory=kind.Options)),
                  ("tuning", flat[TuneConfig], field(default_factory=lambda: usual))]
    return make_dataclass("Options", fields, bases=(Options,), frozen=True, kw_only=True)


def recipe(of_kind: Mapping[str, Any] | None = None) -> TuneConfig:
    """What suits published weights and a few thousand rows or fewer, with what a kind of task wants otherwise."""
    common = TuneConfig(epochs=6.0, learning_rate=1e-4, head_rate=5e-3, by_length=True, precision="auto", longest=128)
    return replace(common, **(of_kind or {}))


def run(options: Any) -> int:
    """Read, tune, print, save."""
    import sys

    from rich.console import Console
    from rich.table import Table

    from bothways.evaluation.score import save
    from bothways.tasks.folder import interval
    from bothways.tasks.progress import Line
    from bothways.tasks.run import tune_from_files

    def tell(sentence: str) -> None:
        print(sentence, file=sys.stderr, flush=True)

    def watch(seed: int, config: TuneConfig) -> Watch:
        return Line(config.steps, config.batch, f"seed {seed}, step" if options.seeds > 1 else "step")

    result = tune_from_files(
        options.task, options.from_, options.out, options.data, options.own, options.tuning, dev=options.dev,
        test=options.test, columns=named_columns(options.columns), keep=options.keep, seeds=options.seeds,
        device=options.device, watch=watch, tell=tell)
    if result.scores:
        table = Table("what", "called", "estimator", "value", "95%", "n")
        for score in result.scores:
            low, high = interval(score)
            table.add_row(score.name, score.mode, score.estimator, f"{score.value:.4f} {score.unit}",
                          f"{low:.4f} to {high:.4f}" if low == low else "", str(score.n))
        Console().print(table)
    if options.json is not None:
        save(result.scores, options.json)
    learning = result.report["learning"]
    print(f"tuned in {result.report['seconds']:.0f} s, of which learning {learning['seconds']:.0f} s "
          f"({learning['processor seconds']:.0f} s of processor time, threads: {learning['threads']}), "
          f"saved to {options.out}")
    return 0


def named_columns(given: Sequence[str]) -> dict[str, str]:
    """role=column, as a mapping. Raises: BothwaysError."""
    from bothways.errors import BothwaysError

    found = {}
    for one in given:
        role, equals, column = one.partition("=")
        if not equals:
            raise BothwaysError(f"--columns {one}: write role=column, such as text=utterance")
        found[role] = column
    return found
