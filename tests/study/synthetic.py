"""Made-up results of a study, written as its runs would write them: for tests of everything behind the runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bothways.study.plan import Job, Plan, Source, Study, write_json
from bothways.study.sizes import KNOWN, TEXT

MODES = {"causal": ("causal",), "masked": ("bidirectional",), "denoising": ("encoder-decoder",),
         "hybrid": ("causal", "bidirectional"), "diffusion": ("bidirectional",)}
ESTIMATORS = {"causal": "exact", "encoder-decoder": "exact", "bidirectional": "upper bound, 8 samples"}
TRUE = {"suffix-truth": {"causal": 0.01, "masked": 0.3, "denoising": 0.02, "hybrid": 0.03, "diffusion": 0.07},
        "suffix-bits": {"causal": 1.7, "masked": 2.6, "denoising": 1.9, "hybrid": 1.8, "diffusion": 2.2},
        "fill": {"causal": 0.45, "masked": 0.6, "denoising": 0.55, "hybrid": 0.59, "diffusion": 0.57},
        "pairs": {"causal": 0.9, "masked": 0.7, "denoising": 0.8, "hybrid": 0.88, "diffusion": 0.72},
        "pairs-across": {"causal": 0.99, "masked": 0.6, "denoising": 0.8, "hybrid": 0.97, "diffusion": 0.6},
        "classify-frozen": {"causal": 0.5, "masked": 0.55, "denoising": 0.5, "hybrid": 0.56, "diffusion": 0.5},
        "classify-tuned": {"causal": 0.6, "masked": 0.7, "denoising": 0.62, "hybrid": 0.69, "diffusion": 0.66},
        "tag": {"causal": 0.6, "masked": 0.95, "denoising": 0.9, "hybrid": 0.95, "diffusion": 0.94}}
LOWER = ("suffix-truth", "suffix-bits")


def score(measure: str, mode: str, estimator: str, value: float, rng: np.random.Generator,
          contender: str | None = None) -> dict[str, Any]:
    """A stored row with 40 items around its value."""
    items = (value + 0.1 * rng.standard_normal(40)).tolist()
    return {"name": measure, "mode": mode, "estimator": estimator, "value": value, "n": 40, "unit": "", "items": items,
            "higher_is_better": measure not in LOWER, "weights": None, "details": {}, "seconds": 0.0,
            "measure": measure, "contender": contender}


def study(folder: Path, *, seeds: int = 3, spread: float = 0.003, known: bool = True,
          changes: Mapping[tuple[str, str], float] | None = None, ngram: float = 2.0,
          leave_out: tuple[str, ...] = ()) -> Plan:
    """Write a finished study.

    Args:
        spread: standard deviation over seeds.
        changes: (measure, contender) -> another true value.
        ngram: the control's bits per byte.
        leave_out: names of runs that have not finished.
    """
    sources = ((Source("known", "grammar", budget="15s", seeds=seeds, effort="quick"),) if known else ())
    sources += (Source("text", budget="1min", seeds=seeds, effort="quick"),)
    chosen = {"known": KNOWN[0], "text": TEXT[0]}
    plan = Plan(Study(sources, workers=2, threads=1), {s.key: chosen[s.key] for s in sources},
                {s.key: 1e12 for s in sources})
    write_json(folder / "study.json", plan.to_dict())
    for job in plan.jobs():
        if job.name not in leave_out:
            write_json(folder / "runs" / job.name / "result.json", result(job, spread, changes or {}, ngram))
    return plan


def result(job: Job, spread: float, changes: Mapping[tuple[str, str], float], ngram: float) -> dict[str, Any]:
    """What one run would have written."""
    rng = np.random.default_rng([job.seed, *job.name.encode()])
    skip = ("suffix-bits", "pairs") if job.source == "known" else ("suffix-truth", "pairs-across")
    stored: dict[str, Any] = {"format": 1, "run": {"source": job.source, "contender": job.contender, "seed": job.seed},
                              "curve": [], "seconds": {"all": 20.0, "measuring": 5.0}}
    if job.contender == "controls":
        suffix = "suffix-truth" if job.source == "known" else "suffix-bits"
        return {**stored, "scores": [
            score(suffix, "causal", "exact", 0.5 if job.source == "known" else ngram, rng, "ngram"),
            score("classify-tuned", "no network", "TF-IDF, logistic regression", 0.8, rng, "tfidf-logistic"),
            score("classify-tuned", "no network", "always the commonest", 0.1, rng, "majority")]}
    if job.contender == "untrained":
        return {**stored, "scores": [score("classify-frozen", "bidirectional", "frozen", 0.3, rng)]}
    rows = []
    for measure, values in TRUE.items():
        if measure in skip:
            continue
        value = changes.get((measure, job.contender), values[job.contender]) + spread * rng.standard_normal()
        for mode in MODES[job.contender]:
            estimator = ESTIMATORS[mode] if measure in LOWER else "counted"
            rows.append(score(measure, mode, estimator, value, rng))
        off = {"causal": "bidirectional", "masked": "causal"}.get(job.contender)
        if off is not None and (measure in LOWER or measure == "fill"):
            worse = value + 3.0 if measure in LOWER else value - 0.3
            rows.append(score(measure, f"{off} (off-mode)", ESTIMATORS[off], worse, rng))
    final = {row["measure"]: row["value"] for row in reversed(rows) if "off-mode" not in row["mode"]}
    return {**stored, "scores": rows, "curve": curve(final, job), "training": training(),
            "samples": [{"prompt": "The function returns", "text": " the number <of> & names"}],
            "example": example(job.contender)}


def curve(final: Mapping[str, float], job: Job) -> list[dict[str, Any]]:
    """Losses that fall as 1 / tokens to their last value, accuracies that rise to theirs."""
    points = []
    late = 1.5 if job.contender in ("masked", "diffusion") else 1.0
    for place in range(8):
        share = 2.0 ** (place - 7)
        scores = {key: value + (late * 0.05 * (1 / share - 1) if key in LOWER else -late * 0.3 * (1 - share))
                  for key, value in final.items() if key in (*LOWER, "classify-frozen")}
        points.append({"step": 2 ** place, "tokens": int(2_000_000 * share), "flops": 1e12 * share,
                       "seconds": 60 * share, "scores": scores})
    return points


def training() -> dict[str, Any]:
    """What training cost."""
    return {"tokens": 2_000_000, "flops": 1e12, "seconds": 60.0, "steps": 128, "tokens_per_second": 33_000.0,
            "parameters": {"total": 1_000_000, "non_embedding": 800_000, "active": 1_000_000}, "loss": 2.0,
            "memory_mib": 800.0, "epochs": 0.6, "stack": "one tower", "budget": "1min"}


def example(contender: str) -> dict[str, Any]:
    """Six tokens with one asked."""
    side = {"name": "token", "labels": ["<bos>", "the", "cat", "<mask>", "on", "it"], "hidden": [3],
            "asked": {"3": ["sat"]}}
    grid = ["1" * (row + 1) + "0" * (5 - row) for row in range(6)]
    one = {"title": "causal", "sides": [side], "sentences": ["a token sees itself and what stands before it"],
           "grids": [grid]}
    if contender == "denoising":
        return {"title": "two towers", "sides": [{**side, "name": "source", "asked": {}}, {**side, "name": "target"}],
                "sentences": ["source: every token", "target: what stands before it", "target at source: every token"],
                "grids": [["1" * 6] * 6, grid, ["1" * 6] * 6]}
    return {"several": [one, {**one, "title": "bidirectional"}]} if contender == "hybrid" else one
