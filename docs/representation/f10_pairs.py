"""F10: do networks that see both sides win minimal pairs at equal size, under the right scoring rule?

Measures nothing: it reads what `python docs/blimp_table.py ... --keep pairs.json` has kept, pair by pair, and keeps the
paired differences.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from kept import Kept, paired_items, said, table, written

from bothways.evaluation.score import Score

RULE, PLAIN, EXACT = "PLL-word-l2r", "PLL plain", "NLL"
"""How estimators begin: the pseudo-likelihood that is compared, the plain one, and the likelihood."""


def measure(kept: Kept, pairs: Path) -> None:
    """The accuracy of every network, way and rule, and what masked has over causal."""
    kept.one("pairs", lambda: read(json.loads(pairs.read_text(encoding="utf-8"))))


def read(data: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Name of the table's entry -> scores, as rows and paired differences."""
    items: dict[tuple[str, str, str], list[float]] = {}
    for entry, scores in data.items():
        for score in map(Score.from_dict, scores):
            if score.name == "minimal pairs" and score.items:
                items[entry.partition(",")[0], score.mode, score.estimator] = score.items
    rows = [[*key, len(values), *paired_items(values)] for key, values in items.items()]
    found: dict[str, Any] = {"rows": rows}
    sides = {name: one(items, *wanted) for name, wanted in {
        "causal": ("causal", "causal", EXACT), "masked": ("masked", "bidirectional", RULE),
        "masked, plain PLL": ("masked", "bidirectional", PLAIN), "hybrid, causal": ("hybrid", "causal", EXACT),
        "hybrid, both ways": ("hybrid", "bidirectional", RULE)}.items()}
    for name, left, right in (("masked minus causal", "masked", "causal"),
                              ("hybrid both ways minus hybrid causal", "hybrid, both ways", "hybrid, causal"),
                              ("plain PLL minus PLL-word-l2r", "masked, plain PLL", "masked")):
        if len(sides[left]) and len(sides[left]) == len(sides[right]):
            found[name] = paired_items(sides[left] - sides[right])
    return found


def one(items: dict[tuple[str, str, str], list[float]], name: str, mode: str, rule: str) -> np.ndarray:
    """The pairs of one network, way and rule: 1 where it is right; empty where that was not measured."""
    return next((np.array(values) for (network, way, estimator), values in items.items()
                 if network == name and way == mode and estimator.startswith(rule)), np.array([]))


# ---------------------------------------------------------------------------------------------------------- the page

def page(kept: Kept, pictures: Path) -> tuple[str, list[list[str]]]:
    """The section, and its lines of the page's first table."""
    found = kept.all().get("pairs")
    text = """### F10: both sides win minimal pairs, under the right scoring rule

Published, on BLiMP: RoBERTa large 86.5, GPT-2 medium 82.6 (pseudo-likelihood against likelihood); GPT-BERT, one trunk,
masked 84.3, causal 76.6 (arXiv 2410.24159); within-word left-to-right pseudo-likelihoods for words of several pieces
(Kauf & Ivanova 2023). By phenomenon and by pieces of a word: `docs/blimp_table.py`, [evaluation.md](evaluation.md).
"""
    if not found:
        return text, []
    rows = [[network, mode, rule, str(n), written((value, low, high), 100, 1)]
            for network, mode, rule, n, value, low, high in found["rows"]]
    summary = []
    for name, expected in (("masked minus causal", "masked ahead"), ("hybrid both ways minus hybrid causal",
                                                                     "both ways ahead"),
                           ("plain PLL minus PLL-word-l2r", "plain ahead (inflated)")):
        if name in found:
            summary.append([f"F10, BLiMP, OpenStax prose, {name}", expected,
                            f"{written(tuple(found[name]), 100, 1)} points ({found['rows'][0][3]:,} pairs, 1 training "
                            "seed)", said(tuple(found[name]))])
    return text + f"""
Ours, networks that read OpenStax prose, one seed each; intervals over pairs:

{table(("network", "called", "rule", "pairs", "right, %"), rows)}
""", summary
