"""Tune a model to a task, on your labelled data; what it is worth is printed with intervals and stored.

    bothways tune --task classify --from run/model --data train.csv --test test.csv --out my-classifier

Columns are found by their usual names (text and label, category, class; ...), or named: --columns text=utterance.
Rows that cannot be used are listed with their lines, and the others are used. `bothways tune --task NAME --help` shows
the options of that task. The folder is used by the command of the task's name: bothways classify my-classifier "a text"

A recipe (YAML) holds any of these options under its name; options given here come before it:

    bothways tune --recipe recipes/tasks/banking77.yaml --data train.csv --from MiniLM --out banking
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, make_dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import tyro

from bothways.errors import BothwaysError
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
    recipe: Path | None = None
    """A YAML file of options; those given here come before it."""
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
    """The options of the task that these arguments or their recipe name, with the values of the recipe as defaults;
    help without a task shows those that all tasks have.

    Raises:
        BothwaysError: a recipe that is not there, with unknown keys or wrong values, or an unknown task.
    """
    from bothways import tasks

    flat = tyro.conf.OmitArgPrefixes
    file = _said("recipe", arguments)
    name, given = (None, {}) if file is None else _chosen(Path(file), _said("task", arguments))
    name = _said("task", arguments) or name
    if name is None and {"-h", "--help"} & set(arguments):
        fields: list[Any] = [("tuning", flat[TuneConfig], field(default_factory=usual))]
        return make_dataclass("Options", fields, bases=(Options,), frozen=True, kw_only=True)
    kind = tasks.kind(name or Options.task)
    # a number of steps that is asked for is what is wanted instead of the usual passes
    counted = _said("steps", arguments) is not None
    tuning = usual(kind.recipe)
    if "steps" in given:
        tuning = replace(tuning, epochs=None)
    own, tuning = (_with(value, given, file) for value in (kind.Options(), tuning))
    if counted:
        tuning = replace(tuning, epochs=None)
    fields = [("own", flat[kind.Options], field(default_factory=lambda: own)),
              ("tuning", flat[TuneConfig], field(default_factory=lambda: tuning))]
    hints = get_type_hints(Options, include_extras=True)
    fields += [(one.name, hints[one.name], field(default=given[one.name]))
               for one in dataclasses.fields(Options) if one.name in given]
    return make_dataclass("Options", fields, bases=(Options,), frozen=True, kw_only=True)


def _said(option: str, arguments: Sequence[str]) -> str | None:
    """The value of an option among arguments that are not parsed yet; the last one, as the parser has it."""
    found = [after for one, after in itertools.pairwise(arguments) if one == f"--{option}"] + [
        one.partition("=")[2] for one in arguments if one.startswith(f"--{option}=")]
    return found[-1] if found else None


def _chosen(file: Path, task: str | None) -> tuple[str | None, dict[str, Any]]:
    """The task that a recipe is for, and its values by the names of their fields, each of its field's type.

    Args:
        task: the one that the call names, which comes before the recipe's.
    Raises:
        BothwaysError: see `options_for`.
    """
    from bothways import tasks
    from bothways.training.config import load_mapping, read

    data = load_mapping(file)
    name = task or data.get("task", Options.task)
    try:
        kind = tasks.kind(str(name))
    except BothwaysError as problem:
        raise BothwaysError(f"{file}: {problem}" if task is None else str(problem)) from None
    types = {name: hint for group in (Options, kind.Options, TuneConfig)
             for name, hint in get_type_hints(group).items() if name != "recipe"}
    strict = make_dataclass("Recipe", [(name, hint, field(default=None)) for name, hint in types.items()])
    found: Any = read(strict, data, str(file))
    return str(name), {name: getattr(found, name) for name in types if name.rstrip("_") in data}


def _with(value: Any, given: Mapping[str, Any], file: str | None) -> Any:
    """A frozen dataclass with those of the given values that are its own. Raises: BothwaysError, naming the file."""
    try:
        return replace(value, **{one.name: given[one.name] for one in dataclasses.fields(value) if one.name in given})
    except BothwaysError as problem:
        raise BothwaysError(f"{file}: {problem}") from None


def usual(of_kind: Mapping[str, Any] | None = None) -> TuneConfig:
    """What suits published weights and a few thousand rows or fewer, with what a kind of task wants otherwise."""
    common = TuneConfig(epochs=6.0, learning_rate=None, head_rate=5e-3, by_length=True, precision="auto", longest=128)
    return replace(common, **(of_kind or {}))


def run(options: Any) -> int:
    """Read, tune, print, save."""
    import sys

    from rich.console import Console
    from rich.table import Table

    from bothways.evaluation.score import save
    from bothways.model.allocator import keep_memory
    from bothways.tasks.folder import interval
    from bothways.tasks.progress import Line
    from bothways.tasks.run import tune_from_files

    def tell(sentence: str) -> None:
        print(sentence, file=sys.stderr, flush=True)

    def watch(seed: int, config: TuneConfig) -> Watch:
        return Line(config.steps, config.batch, f"seed {seed}, step" if options.seeds > 1 else "step")

    keep_memory()
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
    if result.stopped:
        tell(f"{result.report['not measured']}: what was learned is saved")
        return 130
    return 0


def named_columns(given: Sequence[str]) -> dict[str, str]:
    """role=column, as a mapping. Raises: BothwaysError."""
    found = {}
    for one in given:
        role, equals, column = one.partition("=")
        if not equals:
            raise BothwaysError(f"--columns {one}: write role=column, such as text=utterance")
        found[role] = column
    return found
