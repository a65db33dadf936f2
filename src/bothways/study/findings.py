"""Published findings, with the sign we expect written down before any run, and what the measurements say of them.

The numbers F1, F2, ... are those of the project's literature notes. A finding is tested by contrasts: one contender
in one mode against another, paired over seeds, corrected over all contrasts of a source (Holm). Three answers are
possible: agrees, disagrees, cannot be said. One seed always gives the third.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from bothways.study.measures import MEASURES
from bothways.study.results import Results, Row
from bothways.study.results import contrast as compare_rows
from bothways.study.statistics import Difference, holm

Verdict = Literal["agrees", "disagrees", "cannot be said"]
EARLY = 0.15
"""The share of a run's tokens that counts as early."""


@dataclass(frozen=True)
class Side:
    """One side of a contrast: a contender called in a mode."""

    contender: str
    mode: str | None = None

    def __str__(self) -> str:
        from bothways.study.contenders import title

        return title(self.contender) + (f", called {self.mode}" if self.mode else "")


@dataclass(frozen=True)
class Contrast:
    """`better` is expected to do better than `worse` on `measure`; `at` says whether early in training or at its end.

    `least` is the size we would call worth the name, in the measure's unit: it is printed, and decides nothing.
    """

    better: Side
    worse: Side
    measure: str
    at: Literal["end", "early"] = "end"
    least: float = 0.0


@dataclass(frozen=True)
class Finding:
    """A claim, where it was published, what is expected at this scale, and the contrasts that decide."""

    key: str
    claim: str
    published: str
    expected: str
    confidence: str
    contrasts: tuple[Contrast, ...]


_CAUSAL, _BOTH = "causal", "bidirectional"
_SUFFIX = ("suffix-truth", "suffix-bits")


def _each(better: Side, worse: Side, measures: Sequence[str], at: Literal["end", "early"] = "end",
          least: float = 0.0) -> tuple[Contrast, ...]:
    return tuple(Contrast(better, worse, measure, at, least) for measure in measures)


FINDINGS: tuple[Finding, ...] = (
    Finding("F1", "Seeing the whole input beats seeing its left half, where the answer hangs on what follows",
            "T5 table 2: GLUE 74.7 causal, 81.8 with a visible prefix; BERT: SQuAD 77.8 left to right, 87.9 masked",
            "masked encoder ahead of causal decoder on token labels, by 10 points or more on the known source", "high",
            _each(Side("masked", _BOTH), Side("causal", _CAUSAL), ("tag",), least=0.10)),
    Finding("F2", "Causal training is ahead early",
            "BERT figure 5: 79.4 against 78.6 after 30,000 steps, 82.2 against 84.4 at the end; AntLM",
            "causal decoder's features at least level with the masked encoder's early in the run; the crossing may be "
            "out of reach", "medium",
            _each(Side("causal", _CAUSAL), Side("masked", _BOTH), ("classify-frozen",), at="early")),
    Finding("F3(i)", "Called in the direction it was not trained in, a pure model collapses; a hybrid does not",
            "GPT-BERT figure 2: 6% of the other objective buys 4.5 nats; BLiMP read causally 66.6 masked, 79.2 hybrid",
            "hybrid far ahead of each pure model in that model's other direction, by nats", "very high",
            (*_each(Side("hybrid", _CAUSAL), Side("masked", _CAUSAL), _SUFFIX, least=0.5),
             *_each(Side("hybrid", _BOTH), Side("causal", _BOTH), ("fill",), least=0.10))),
    Finding("F6", "At one pass over the data, left-to-right likelihood is lower than masked diffusion's bound",
            "MDLM: gaps of 0.10 to 0.28 nats a token; about 16 times the compute to draw level (Nie et al. 2024)",
            "causal decoder's exact value below diffusion's upper bound, by 0.1 to 0.5 nats", "very high",
            _each(Side("causal", _CAUSAL), Side("diffusion", _BOTH), _SUFFIX)),
    Finding("F10", "Minimal pairs: seeing both sides wins at convergence, and loses at budgets as small as this",
            "BLiMP: RoBERTa-large 86.5, GPT-2 82.6; GPT-BERT masked 84.3, causal 76.6 (all at convergence)",
            "the reverse: causal decoder ahead of masked encoder, since masked training starts later (F2)", "low",
            _each(Side("causal", _CAUSAL), Side("masked", _BOTH), ("pairs-across", "pairs"))),
)


@dataclass(frozen=True)
class Tested:
    """A contrast with what was measured; `difference.mean` above 0 is the expected sign."""

    contrast: Contrast
    left: float
    right: float
    difference: Difference
    adjusted: float
    seeds: int
    tokens: tuple[float, float] = (math.nan, math.nan)
    """Training tokens behind either side, which a budget in seconds does not make equal."""

    @property
    def verdict(self) -> Verdict:
        """Agrees or disagrees when the corrected p value is below 0.05 over several seeds."""
        if self.seeds < 2 or math.isnan(self.adjusted) or self.adjusted >= 0.05 or self.difference.mean == 0:
            return "cannot be said"
        return "agrees" if self.difference.mean > 0 else "disagrees"


@dataclass(frozen=True)
class Outcome:
    """A finding on one source: the verdict, its reason in words, and the contrasts behind it."""

    finding: Finding
    source: str
    verdict: Verdict
    reason: str
    tested: tuple[Tested, ...]


def evaluate(results: Results, source: str) -> list[Outcome]:
    """Every finding on one source; those whose contrasts were not measured there cannot be said."""
    # 1. measure all contrasts of the source, and correct over all of them together
    raw = [(finding, contrast, _measure(results, source, contrast))
           for finding in FINDINGS for contrast in finding.contrasts]
    found = [(finding, contrast, values) for finding, contrast, values in raw if values is not None]
    differences = [compare_rows(*values, MEASURES[contrast.measure].higher_is_better) for _, contrast, values in found]
    adjusted = holm([difference.p for difference in differences])
    # 2. each finding from its own
    outcomes = []
    for finding in FINDINGS:
        tested = tuple(Tested(contrast, _mean(values[0]), _mean(values[1]), difference, p, len(values[0]),
                              (_tokens(results, source, contrast.better), _tokens(results, source, contrast.worse)))
                       for (owner, contrast, values), difference, p in zip(found, differences, adjusted)
                       if owner is finding)
        outcomes.append(Outcome(finding, source, *_verdict(tested), tested))
    return outcomes


def _verdict(tested: Sequence[Tested]) -> tuple[Verdict, str]:
    """One disagreement is a disagreement; agreement needs every contrast that was measured."""
    if not tested:
        return "cannot be said", "not measured on this source"
    if max(one.seeds for one in tested) < 2:
        return "cannot be said", "one seed: the numbers are shown, and no verdict is given"
    verdicts = [one.verdict for one in tested]
    if "disagrees" in verdicts:
        return "disagrees", "a difference of the other sign stands after correction"
    if all(verdict == "agrees" for verdict in verdicts):
        small = [one for one in tested if one.difference.mean < one.contrast.least]
        return "agrees", ("the expected sign, beyond chance among seeds and test items"
                          + (", though smaller than expected" if small else ""))
    return "cannot be said", "the difference is no larger than chance among seeds and test items allows"


def _measure(results: Results, source: str, contrast: Contrast) -> tuple[list[Row], list[Row]] | None:
    """The rows of both sides over the seeds they share, or none."""
    sides = [_rows(results, source, contrast, side) for side in (contrast.better, contrast.worse)]
    seeds = sorted(set(sides[0]) & set(sides[1]))
    return ([sides[0][seed] for seed in seeds], [sides[1][seed] for seed in seeds]) if seeds else None


def _rows(results: Results, source: str, contrast: Contrast, side: Side) -> dict[int, Row]:
    """seed -> the row of one side: at the end of the run, or made from a point of its curve."""
    if contrast.at == "end":
        found: dict[int, Row] = {}
        for row in results.select(source, contrast.measure, side.contender, side.mode):
            found.setdefault(row.seed, row)
        return found
    early = {}
    for run in results.runs_of(source, side.contender):
        value, seed = early_value(run["curve"], contrast.measure), int(run["run"]["seed"])
        if value is not None:
            early[seed] = Row(source, side.contender, seed, contrast.measure, side.mode or "", "", value, 0)
    return early


def early_value(curve: Sequence[dict[str, object]], measure: str) -> float | None:
    """The value of a measure at the last point of a curve that is still early, or none."""
    points = [(float(point["tokens"]), point["scores"].get(measure)) for point in curve]  # type: ignore[arg-type,attr-defined]
    points = [(tokens, value) for tokens, value in points if value is not None and tokens > 0]
    early = [(tokens, value) for tokens, value in points if tokens <= EARLY * points[-1][0]] if points else []
    return float(early[-1][1]) if early else None


def _mean(rows: Sequence[Row]) -> float:
    return sum(row.value for row in rows) / len(rows)


def _tokens(results: Results, source: str, side: Side) -> float:
    """Training tokens of a contender, the mean over its runs."""
    spent = [float(run["training"]["tokens"]) for run in results.runs_of(source, side.contender)]
    return sum(spent) / len(spent) if spent else math.nan
