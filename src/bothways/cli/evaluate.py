"""Measure what a trained model is worth on your text; every number comes with its estimator and an interval.

    bothways evaluate run/model --corpus python-library --windows 8 --blanks 16

Minimal pairs in the format of BLiMP and labelled texts (CSV or JSON lines) add what they can tell:

    bothways evaluate run/model --corpus notes/ --pairs blimp.jsonl.gz --labels tickets.csv --json scores.json

All pairs of a file, by phenomenon and by pieces of the critical word; and whole texts in windows of the model's length:

    bothways evaluate run/model --pairs blimp.jsonl.gz --limit 0 --no-off-mode
    bothways evaluate run/model --corpus notes/ --stride 64

What it has by heart, how varied it writes, whether it knows facts both ways round (rows with columns a and b); and what
a tuned task of any kind is worth on other rows, a classifier also with typing errors in them:

    bothways evaluate run/model --corpus notes/ --trained-on run/text --write 32
    bothways evaluate run/model --facts facts.csv --forward "{a} wrote {b}" --backward "{b} was written by {a}"
    bothways evaluate my-classifier --labels test.csv --limit 0

Give text the model has not been trained on: a folder prepared by `bothways train` offers its held-out part by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import tyro

if TYPE_CHECKING:
    import numpy as np

    from bothways.batch import Window
    from bothways.evaluation.score import Score
    from bothways.families.trained import Trained


@dataclass(frozen=True)
class Options:
    """What `bothways evaluate` takes."""

    folder: tyro.conf.Positional[str]
    """A trained model: a run's model/ folder, or any folder that bothways loads."""
    corpus: str | None = None
    """Held-out text: a file, folder or glob, - for standard input, python-library, hf:NAME, or a prepared folder."""
    field: str | None = None
    """The field of JSON lines, CSV or Parquet that holds the text."""
    pairs: str | None = None
    """Minimal pairs: JSON lines with sentence_good and sentence_bad (BLiMP) or good and bad."""
    labels: str | None = None
    """Labelled texts: CSV or JSON lines; a classifier is fine-tuned on three quarters and tested on the rest. A tuned
    task is tested on all of them: rows as it was tuned with."""
    columns: tuple[str, ...] = ()
    """For a tuned task: which column is what, as role=column."""
    json: str | None = None
    """Also write the scores, item by item, to this file."""
    windows: int = 64
    """Held-out windows whose second half is scored."""
    blanks: int = 128
    """Hidden tokens to fill."""
    samples: int = 16
    """Draws of each bound."""
    limit: int = 200
    """Pairs, and tested labelled texts, at most (four times as many to learn from), evenly spread; 0 for all."""
    rules: tuple[str, ...] = ()
    """How pairs are scored, such as nll, pll-word-l2r, pll, pll-word, difference or bound; what fits when none."""
    trained_on: str | None = None
    """Text the model was trained on, or its prepared folder: how much of it comes out word for word?"""
    facts: str | None = None
    """Facts as rows with columns a and b, asked both ways round."""
    forward: str = "{a} is {b}"
    """A fact as it was trained; what stands last is asked for."""
    backward: str = "{b} is {a}"
    """The same fact the other way round."""
    write: int = 0
    """Texts to write on from the corpus, whose variety is measured."""
    new_tokens: int = 48
    """Tokens of each written text."""
    stride: int | None = None
    """Also score whole texts of any length, with so many new tokens in each window of the model's length."""
    window: int = 128
    """Tokens of a window."""
    steps: int = 150
    """Steps of fine-tuning."""
    visibility: str | None = None
    """Who sees whom when texts are classified: native, bidirectional or causal."""
    off_mode: bool = True
    """Also call the model in the direction it was not trained in."""
    precision: Literal["float32", "bfloat16"] | None = None
    """What the network computes in; as its weights are stored when none. Log-probabilities are float32 in any case."""
    seed: int = 0


def run(options: Options) -> int:
    """Load, measure, print."""
    from bothways.errors import BothwaysError

    if options.corpus is None and options.pairs is None and options.labels is None and options.facts is None:
        raise BothwaysError("there is nothing to measure on: give --corpus, --pairs or --labels, or --facts")
    if options.corpus is None and (options.trained_on is not None or options.write):
        raise BothwaysError("--trained-on and --write compare with held-out text: give --corpus too")
    from rich.console import Console
    from rich.table import Table

    from bothways.cli.measuring import task_scores
    from bothways.evaluation.score import save
    from bothways.families.folder import load
    from bothways.model.allocator import keep_memory
    from bothways.tasks.folder import interval
    from bothways.tasks.published import is_published

    keep_memory()
    folder = Path(options.folder)
    tuned = (folder / "task.json").is_file() or is_published(folder)
    console, scores = Console(), []
    work = task_scores(options) if tuned else measured(load(options.folder, weights=options.precision), options)
    for what, found in work:
        scores += found
        seconds = sum(score.seconds for score in found)
        done = sum(score.n for score in found if score.name == "minimal pairs")
        rate = f", {done / seconds:,.1f} pairs a second" if done and seconds else ""
        Console(stderr=True).print(f"[dim]{what}: {seconds:.1f} s{rate}[/dim]")
    table = Table("what", "called", "estimator", "value", "95%", "n", title=f"{options.folder}")
    for score in scores:
        low, high = interval(score)
        table.add_row(score.name, score.mode, score.estimator, _number(score), f"{low:.3f} to {high:.3f}"
                      if low == low else "", str(score.n))
    console.print(table)
    if options.json is not None:
        save(scores, Path(options.json))
    return 0


def measured(trained: Trained, options: Options) -> Iterator[tuple[str, list[Score]]]:
    """(what, its scores), one currency at a time."""
    from bothways.cli.measuring import by_heart, reversed_facts, variety
    from bothways.evaluation import controls, probes
    from bothways.evaluation.elbo import elbo
    from bothways.evaluation.fill import fill
    from bothways.evaluation.likelihood import suffix
    from bothways.evaluation.pairs import minimal_pairs
    from bothways.evaluation.speed import encoding_speed
    from bothways.evaluation.strided import documents
    from bothways.tasks.classify import classification
    from bothways.tasks.tuning import TuneConfig
    from bothways.text.labels import read_labelled
    from bothways.text.pairs import read_pairs

    # files are read before the long work, so that mistakes in them show at once
    pairs = read_pairs(options.pairs) if options.pairs is not None else None
    labelled = read_labelled(options.labels) if options.labels is not None else None
    if options.corpus is not None:
        windows = held_out(trained, options)
        yield "likelihood of second halves", suffix(trained, windows, limit=options.windows, samples=options.samples,
                                                    off_mode=options.off_mode, seed=options.seed)
        whole = elbo(trained, windows, limit=options.windows, samples=options.samples, seed=options.seed)
        if whole:
            yield "likelihood of whole texts", whole
        if options.stride is not None:
            yield "texts in windows", documents(trained, texts_of(trained, options), stride=options.stride,
                                                samples=options.samples, seed=options.seed)
        yield "filling blanks", fill(trained, windows, blanks=options.blanks, seed=options.seed)
        yield "reading speed", [encoding_speed(trained, [window.ids for window in windows[:32]])]
        if options.trained_on is not None:
            yield "what it has by heart", by_heart(trained, options, windows)
        if options.write:
            yield "variety of what it writes", variety(trained, options, windows)
    if options.facts is not None:
        yield "facts both ways round", reversed_facts(trained, options)
    if pairs is not None:
        from bothways.evaluation.questions import spread

        some = [pairs[place] for place in spread(len(pairs), options.limit or len(pairs))]
        with progress("pairs") as tell:
            found = minimal_pairs(trained, some, rules=options.rules or None, samples=options.samples,
                                  off_mode=options.off_mode, parts=True, tell=tell)
        yield "minimal pairs", found
    if labelled is not None:
        most = options.limit or len(labelled.texts)
        train, test = probes.split(probes.rows(labelled), seed=options.seed, train_limit=4 * most, test_limit=most)
        yield "frozen features", probes.probe_texts(trained, train, test, visibility=options.visibility)
        config = TuneConfig(steps=options.steps, seed=options.seed, longest=options.window)
        yield "fine-tuning", classification(trained, train, test, config, visibility=options.visibility)
        for control in controls.CLASSIFIERS:
            yield control, controls.classify(control, train, test)  # type: ignore[arg-type]


@contextmanager
def progress(what: str) -> Iterator[Callable[[str, int, int], None]]:
    """A line on standard error with what is done, the rate and the time left, while a block runs at a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    with Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
                  TextColumn("{task.fields[rate]}", style="dim"), TimeRemainingColumn(),
                  console=console, transient=True, disable=not console.is_terminal) as shown:
        lines: dict[str, Any] = {}

        def tell(name: str, done: int, total: int) -> None:
            if name not in lines:
                lines[name] = shown.add_task(name, total=total, rate="")
            spent = shown.tasks[lines[name]].elapsed or 0.0
            shown.update(lines[name], completed=done, rate=f"{done / max(spent, 1e-9):,.1f} {what} a second")

        yield tell


def texts_of(trained: Trained, options: Options) -> list[np.ndarray]:
    """Whole texts of the corpus, at most `windows` of them, in the model's tokens behind `<bos>`."""
    import itertools

    import numpy as np

    from bothways.text.corpora import read

    assert options.corpus is not None
    begin = trained.vocabulary.bos
    some = itertools.islice(read(options.corpus, options.field), options.windows)
    return [np.array([begin, *trained.tokenizer.encode(document.text, reserved=False)]) for document in some]


def held_out(trained: Trained, options: Options) -> Sequence[Window]:
    """Windows of the corpus in the model's tokens: the held-out part of a prepared folder, else the text itself.

    Raises:
        BothwaysError: a corpus that cannot be read, prepared with another tokenizer, or shorter than one window.
    """
    from bothways.errors import BothwaysError
    from bothways.evaluation.questions import from_texts, spread
    from bothways.text.corpora import read
    from bothways.text.prepare import Prepared

    assert options.corpus is not None
    wanted = 4 * max(options.windows, options.blanks, 32)
    if (Path(options.corpus) / "prepared.json").is_file():
        prepared = Prepared.load(options.corpus)
        if prepared.tokenizer.fingerprint != trained.tokenizer.fingerprint:
            raise BothwaysError(f"'{options.corpus}' was prepared with another tokenizer than that of "
                                f"'{options.folder}': give the text itself")
        return [prepared.valid[place] for place in spread(len(prepared.valid), wanted)]
    texts = (document.text for document in read(options.corpus, options.field))
    found = from_texts(trained.tokenizer, texts, min(options.window, trained.config.position.length), wanted)
    if not found:
        raise BothwaysError(f"'{options.corpus}' is too short to measure on: give at least one text of 16 tokens")
    return found


def _number(score: Score) -> str:
    bound = "≤ " if score.estimator.startswith("upper bound") and score.unit.startswith(("nats", "bits")) else ""
    return f"{bound}{score.value:.3f} {score.unit}"
