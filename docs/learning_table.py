"""The table of docs/objectives.md that shows what each objective learned, from a study's folder.

    bothways compare --recipe recipes/studies/objectives.yaml --out study
    python docs/learning_table.py study

An objective with a likelihood or a bound states its distance from the truth; every one is set beside the untrained
network on the labels of tokens, and on real text beside the n-gram model that counted the same tokens.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from bothways.study.measures import kind_of
from bothways.study.results import Line, Results, compare, load


def number(line: Line | None, percent: bool = False) -> str:
    """A mean with its interval; ≤ marks a bound."""
    if line is None:
        return ""
    scale, digits = (100, 1) if percent else (1, 3)
    interval = line.interval
    shown = [f"{scale * value:.{digits}f}" for value in (interval.mean, interval.low, interval.high)]
    bound = "≤ " if kind_of(line.estimator) == "bound" and not percent else ""
    return f"{bound}{shown[0]} ({shown[1]} to {shown[2]})" if interval.known else bound + shown[0]


def headline(results: Results, source: str, measure: str, contender: str) -> Line | None:
    """The line by which a contender stands on a measure."""
    board = results.board(source, measure)
    return next((line for line in board.lines if line.contender == contender and line.headline), None)


def known_rows(results: Results) -> Iterator[tuple[str, ...]]:
    """Each objective on the known source."""
    for key in results.plan.study.contenders:
        truth, fill, tag = (headline(results, "known", measure, key) for measure in ("suffix-truth", "fill", "tag"))
        untrained = headline(results, "known", "tag", "untrained")
        verdict = ""
        if tag is not None and untrained is not None:
            difference = compare(tag, untrained, True)
            sure = difference.low > 0 or difference.high < 0
            verdict = f"{100 * difference.mean:+.1f} points" + ("" if sure else ", not sure")
        yield (f"`{key}`", number(truth), "" if truth is None else truth.estimator, number(fill, True),
               number(tag, True), verdict)


def text_rows(results: Results) -> Iterator[tuple[str, ...]]:
    """Each objective on real text: does it pass the n-gram model?"""
    control = headline(results, "text", "suffix-bits", "ngram")
    for key in results.plan.study.contenders:
        line = headline(results, "text", "suffix-bits", key)
        passes = ""
        if line is not None and control is not None:
            passes = "yes" if line.interval.mean < control.interval.mean else "no"
        yield f"`{key}`", number(line), "" if line is None else line.estimator, passes
    yield "4-gram model", number(control), "" if control is None else control.estimator, ""


def table(header: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> str:
    """Markdown."""
    return "\n".join("| " + " | ".join(row) + " |" for row in (header, ("---",) * len(header), *rows))


def main(folder: Path) -> None:
    results = load(folder)
    for source in results.plan.study.sources:
        seeds = "1 seed" if source.seeds == 1 else f"{source.seeds} seeds"
        print(f"{source.title}, {source.budget} a run, {seeds}\n")
        if source.kind == "known":
            print(table(("objective", "nats per token above the truth", "estimator", "filling gaps, %",
                         "labelling words by what follows, %", "against the untrained network"), known_rows(results)))
        else:
            print(table(("objective", "bits per byte", "estimator", "passes the n-gram model"), text_rows(results)))
        print()


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("give the folder of a study: python docs/learning_table.py study")
    main(Path(sys.argv[1]))
