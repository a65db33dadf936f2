"""A study's folder as one self-contained page, with the same facts as JSON and Markdown beside it.

`document` gathers everything as plain data; the three files are drawn from that one value, so they cannot disagree.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from bothways.aside import replacing
from bothways.pictures import curves
from bothways.study import answers as words
from bothways.study import findings, results
from bothways.study.contenders import CONTROLS, colour, contender, title
from bothways.study.curve_report import CURVES, curve_part
from bothways.study.measures import MEASURES, Measure, kind_of
from bothways.study.plan import MATCHED, UNMATCHED, Source, write_json
from bothways.study.results import Board, Line, Results
from bothways.study.words import human, squeezed


def write(folder: Path) -> list[Path]:
    """Write report.html, report.md and report.json into a study's folder, finished or not.

    Returns:
        the three paths, the page first.
    Raises:
        BothwaysError: the folder is no study.
    """
    data = document(results.load(folder))
    page, text, facts = (folder / f"report.{kind}" for kind in ("html", "md", "json"))
    _put(page, render("report.html.jinja", data))
    _put(text, render("report.md.jinja", data))
    write_json(facts, _plain({key: value for key, value in data.items() if key not in ("plotly", "palette")}))
    return [page, text, facts]


def first_lines(folder: Path) -> list[str]:
    """The first lines of the report, for the console."""
    return document(results.load(folder), draw=False)["lead"]


def render(template: str, data: dict[str, Any]) -> str:
    """One template of this room with the study's data."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(loader=PackageLoader("bothways.study"), autoescape=template.endswith(".html.jinja"),
                              undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["human"] = human
    return environment.get_template(template).render(**data)


def _put(path: Path, text: str) -> None:
    """Written aside and renamed."""
    with replacing(path) as aside:
        aside.write_text(text, encoding="utf-8")


# ----------------------------------------------------------------------------------------------- everything

def document(found: Results, draw: bool = True) -> dict[str, Any]:
    """Everything the report says, as plain data; with `draw` also the pictures."""
    sources = list(found.plan.study.sources)
    answered = {source.key: words.answers(found, source.key) for source in sources}
    data: dict[str, Any] = {
        "title": "Which one for what, and how sure are we?",
        "made": datetime.now().strftime("%d %B %Y, %H:%M"),
        "lead": words.lead(found, answered),
        "uses": uses(sources, answered),
        "contenders": [{"key": key, "title": title(key), "plain": contender(key).plain, "colour": colour(key)}
                       for key in found.plan.study.contenders],
        "controls": [{"title": CONTROLS[key].title, "plain": CONTROLS[key].plain} for key in found.plan.study.controls],
        "sources": [source_part(found, source, draw) for source in sources],
        "matched": MATCHED, "unmatched": UNMATCHED,
        "failures": [{"run": name, "message": message} for name, message in found.failures.items()],
        "missing": found.missing,
        "environment": environment(found),
        "total_runs": len(found.plan.jobs()),
    }
    if draw:
        import plotly.offline

        data["plotly"] = plotly.offline.get_plotlyjs()
        data["palette"] = curves.PALETTE
    return data


def uses(sources: Sequence[Source], answered: dict[str, list[words.Answer]]) -> list[dict[str, Any]]:
    """The table of the first screen: one row a use, one cell a source."""
    names = dict.fromkeys(answer.use for found in answered.values() for answer in found)
    rows = []
    for use in names:
        cells = []
        for source in sources:
            answer = next((one for one in answered[source.key] if one.use == use), None)
            cells.append(None if answer is None else cell(answer))
        rows.append({"use": use, "cells": cells})
    return rows


def cell(answer: words.Answer) -> dict[str, Any]:
    """One answer: who, with which number, how sure, and the sentence."""
    measure, line = answer.board.measure, answer.winner
    control = answer.control
    return {"winner": title(line.contender), "colour": colour(line.contender), "mode": line.mode,
            "value": words.value(measure, line.interval.mean, line.estimator), "unit": measure.unit,
            "measure": measure.title, "sureness": answer.sureness, "label": words.SURENESS[answer.sureness],
            "sentence": answer.sentence, "level": [title(one.contender) for one in answer.level],
            "control": None if control is None else {
                "name": title(control.contender),
                "value": words.value(measure, control.interval.mean, control.estimator), "beaten": answer.beaten},
            "needed": None if answer.needed is None else answer.needed.text}


def source_part(found: Results, source: Source, draw: bool) -> dict[str, Any]:
    """Everything on one source."""
    key = source.key
    size = found.plan.chosen[key]
    prepared = results.read_json(found.folder / "data" / key / "prepared.json") or {}
    return {
        "key": key, "title": source.title, "source": asdict(source), "size": asdict(size) | {"until": None},
        "prepared": prepared,
        "boards": [board_part(board, draw) for board in found.boards(key) if board.measure.shown],
        "curves": [part for part in (curve_part(found, key, measure, draw) for measure in CURVES) if part is not None],
        "findings": [finding_part(outcome) for outcome in findings.evaluate(found, key)],
        "costs": costs(found, key), "spent": spent(found, key),
        "pictures": list(pictures(found, key, draw)),
        "samples": samples(found, key),
    }


# ---------------------------------------------------------------------------------------------- leaderboards

def board_part(board: Board, draw: bool) -> dict[str, Any]:
    """One leaderboard: trained modes of every contender, then the controls, then modes nobody was trained in."""
    measure = board.measure
    groups = {"contenders": [line for line in board.lines if not line.control and _own(line)],
              "controls": [line for line in board.lines if line.control and line.headline],
              "off": [line for line in board.lines if not line.control and not _own(line)]}
    limits = (0.0, 1.0) if measure.percent else (-math.inf, math.inf)
    ends = curves.domain([_dot(measure, line) for name in ("contenders", "controls") for line in groups[name]], limits)
    control = board.best_control
    level = None if control is None else control.interval.mean
    # what all lines share is said once, above them
    estimators = {line.estimator for line in groups["contenders"]}
    shared = next(iter(estimators)) if len(estimators) == 1 else ""
    parts = {name: [line_part(board, line, ends, level, draw) | {
        "shown": "" if line.estimator == shared else line.estimator} for line in lines]
        for name, lines in groups.items()}
    return {"key": measure.key, "title": measure.title, "plain": measure.plain, "unit": measure.unit,
            "better": "higher is better" if measure.higher_is_better else "lower is better", **parts,
            "shared": shared, "note": results.likelihood_note(board), "use": measure.use,
            "method": next((line.interval.method for line in board.lines if not line.control), "")}


def _own(line: Line) -> bool:
    return all(row.own for row in line.rows)


def line_part(board: Board, line: Line, ends: tuple[float, float], level: float | None, draw: bool) -> dict[str, Any]:
    """One line of a leaderboard."""
    measure, interval = board.measure, line.interval
    versus = board.against(line.contender) if line.headline else None
    part = {"contender": line.contender, "title": title(line.contender), "colour": colour(line.contender),
            "mode": results.base_mode(line.mode), "own": _own(line), "estimator": line.estimator,
            "kind": kind_of(line.estimator), "headline": line.headline, "mean": interval.mean, "low": interval.low,
            "high": interval.high, "n": interval.n, "method": interval.method,
            "value": words.value(measure, interval.mean, line.estimator),
            "range": _range(measure, interval.low, interval.high),
            "seeds": {row.seed: row.value for row in line.rows},
            "versus": None if versus is None else {
                "mean": versus.difference.mean, "low": versus.difference.low, "high": versus.difference.high,
                "p": versus.difference.p, "adjusted": versus.adjusted, "effect": versus.difference.effect,
                "method": versus.difference.method, "sure": versus.sure,
                "words": _versus_words(measure, versus)},
            "details": _details(measure, line)}
    if draw:
        part["picture"] = curves.strip(_dot(measure, line), ends, level)
    return part


def _details(measure: Measure, line: Line) -> str:
    """The control task beside a probe's number, in words."""
    names = {"shuffled_labels": "shuffled labels", "control_task": "random labels for each word"}
    found = []
    for key, label in names.items():
        values = [row.details[key] for row in line.rows if key in row.details]
        if values:
            found.append(f"{label} {words.value(measure, sum(values) / len(values))}")
    return ", ".join(found)


def _versus_words(measure: Measure, versus: results.Versus) -> str:
    """How far this line is from the first, and how sure that is."""
    difference = versus.difference
    # its number minus the first's: above zero where lower is better
    distance = -difference.mean if measure.higher_is_better else difference.mean
    scaled, digits = (100 * distance, 1) if measure.percent else (distance, measure.digits)
    gap = f"{round(scaled, digits) + 0.0:+.{digits}f}{' points' if measure.percent else ''}"
    if math.isnan(versus.adjusted):
        return gap
    if versus.seeds < 2:
        return gap
    sign = "p < 0.001" if versus.adjusted < 0.001 else f"p = {versus.adjusted:.2g}"
    return f"{gap}, {sign}"


def _dot(measure: Measure, line: Line) -> curves.Dot:
    singles = [row.value for row in line.rows] if len(line.rows) > 1 else []
    number = words.value(measure, line.interval.mean, line.estimator)
    name = f"{title(line.contender)}: {number} ({line.interval.method})"
    return curves.Dot(line.interval.mean, line.interval.low, line.interval.high, singles, colour(line.contender),
                      hollow=kind_of(line.estimator) == "bound", title=name)


def _range(measure: Measure, low: float, high: float) -> str:
    if not (math.isfinite(low) and math.isfinite(high)):
        return ""
    if measure.percent:
        return f"{100 * low:.1f} to {100 * high:.1f}"
    return f"{low:,.{measure.digits}f} to {high:,.{measure.digits}f}"


# --------------------------------------------------------------------------------- findings, costs, pictures

def finding_part(outcome: findings.Outcome) -> dict[str, Any]:
    """A finding with its verdict and the numbers behind it."""
    finding = outcome.finding
    return {"key": finding.key, "claim": finding.claim, "published": finding.published, "expected": finding.expected,
            "confidence": finding.confidence, "verdict": outcome.verdict, "reason": outcome.reason,
            "numbers": [tested_part(one) for one in outcome.tested]}


def tested_part(one: findings.Tested) -> dict[str, Any]:
    """One contrast in words and numbers."""
    measure = MEASURES[one.contrast.measure]
    difference = one.difference
    scale = 100 if measure.percent else 1
    digits = 1 if measure.percent else 3
    unit = "points" if measure.percent else measure.unit
    when = " early in the run" if one.contrast.at == "early" else ""
    spread = "" if math.isnan(difference.low) else (f" ({scale * difference.low:+.{digits}f} to "
                                                    f"{scale * difference.high:+.{digits}f})")
    p = "" if math.isnan(one.adjusted) or one.seeds < 2 else f", p = {one.adjusted:.2g} after correction"
    seen = ""
    if one.contrast.at == "end" and max(one.tokens) > 1.2 * min(one.tokens):
        seen = f"; trained on {human(one.tokens[0])} and {human(one.tokens[1])} tokens"
    text = (f"{measure.title}{when}: {one.contrast.better} {words.value(measure, one.left)}, {one.contrast.worse} "
            f"{words.value(measure, one.right)}; in favour of the first by {scale * difference.mean:+.{digits}f}"
            f"{spread} {unit} over {one.seeds} seed{'s' if one.seeds != 1 else ''}{p}{seen}")
    return {"words": text, "verdict": one.verdict, "difference": difference.mean, "low": difference.low,
            "high": difference.high, "p": difference.p, "adjusted": one.adjusted, "effect": difference.effect,
            "seeds": one.seeds}


def costs(found: Results, source: str) -> list[dict[str, Any]]:
    """What each contender cost, as means over its runs."""
    rows = []
    for key in found.plan.study.contenders:
        runs = [run["training"] for run in found.runs_of(source, key)]
        if not runs:
            continue
        mean = {name: sum(float(run[name]) for run in runs) / len(runs)
                for name in ("tokens", "flops", "seconds", "steps", "tokens_per_second", "memory_mib", "epochs")}
        speeds = {name: found.select(source, name, key) for name in ("write-speed", "read-speed")}
        rows.append({"contender": key, "title": title(key), "colour": colour(key), **mean,
                     "parameters": runs[0]["parameters"], "stack": runs[0].get("stack", ""),
                     **{name.replace("-", "_"): sum(row.value for row in rows_) / len(rows_) if rows_ else math.nan
                        for name, rows_ in speeds.items()}})
    return rows


def spent(found: Results, source: str) -> str:
    """How far the budget made the contenders' tokens differ, in words; empty where it hardly did."""
    tokens = {row["title"]: row["tokens"] for row in costs(found, source)}
    if not tokens or max(tokens.values()) <= 1.2 * min(tokens.values()):
        return ""
    least, most = min(tokens, key=lambda name: tokens[name]), max(tokens, key=lambda name: tokens[name])
    return (f"The same budget bought {human(tokens[least])} tokens for {least} and {human(tokens[most])} for {most}; "
            "the learning curves by tokens compare them at equal text")


def pictures(found: Results, source: str, draw: bool) -> Iterator[dict[str, Any]]:
    """What each contender was really given: one training example and who may see whom in it."""
    for key in found.plan.study.contenders:
        run = next(iter(found.runs_of(source, key)), None)
        if run is None or not run.get("example"):
            continue
        example = run["example"]
        # a hybrid shows one example a direction; all others show one
        parts = [example_part(one, colour(key), draw) for one in example.get("several", [example])]
        yield {"contender": key, "title": title(key), "colour": colour(key), "plain": contender(key).plain,
               "parts": parts}


def example_part(example: dict[str, Any], shade: str, draw: bool) -> dict[str, Any]:
    """Each tower's tokens with what is asked at each place, and the grids with a sentence each."""
    names = {"source": "the encoder reads", "target": "the decoder reads, and predicts"}
    sides = [{"name": names.get(side["name"], ""),
              "tokens": [{"piece": piece, "hidden": place in side["hidden"],
                          "asked": ", ".join(side["asked"].get(str(place), ()))}
                         for place, piece in enumerate(side["labels"])]} for side in example["sides"]]
    grids = [{"sentence": sentence, "grid": curves.visibility_grid(grid, colour=shade) if draw else ""}
             for sentence, grid in zip(example["sentences"], example["grids"])]
    return {"title": example["title"], "sides": sides, "grids": grids,
            "asked": sum(len(side["asked"]) for side in example["sides"])}


def samples(found: Results, source: str) -> list[dict[str, Any]]:
    """Each prompt with what every contender wrote after it (first seed)."""
    prompts: dict[str, list[dict[str, str]]] = {}
    for key in found.plan.study.contenders:
        run = next(iter(found.runs_of(source, key)), None)
        for sample in (run or {}).get("samples", ()):
            prompts.setdefault(sample["prompt"], []).append(
                {"title": title(key), "colour": colour(key), "text": squeezed(sample["text"])})
    return [{"prompt": squeezed(prompt), "written": written} for prompt, written in prompts.items()]


def environment(found: Results) -> dict[str, Any]:
    """Where it ran: from the first run that has told."""
    for job in found.plan.jobs():
        stored = results.read_json(found.folder / "runs" / job.name / "training" / "environment.json")
        if stored is not None:
            break
    else:
        stored = {}
    study = found.plan.study
    return {"machine": stored, "workers": study.workers, "threads": study.threads, "device": study.device}


def _plain(value: Any) -> Any:
    """JSON has no word for numbers that are not finite, nor for pictures."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        pictures_ = ("picture", "figure", "grid", "cross")
        return {str(key): _plain(part) for key, part in value.items() if key not in pictures_}
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    return json.loads(json.dumps(value, default=str))
