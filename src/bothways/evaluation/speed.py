"""What using a model costs: texts read per second, tokens written per second, memory, parameters.

Speeds are of this machine at this moment: quote them as ratios between models measured in one run.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from bothways.evaluation.features import text_features
from bothways.evaluation.rows import TOKENS
from bothways.evaluation.score import Score, Stopwatch, mean_score

if TYPE_CHECKING:
    from bothways.families.trained import Trained


def encoding_speed(trained: Trained, texts: Sequence[str] | Sequence[np.ndarray], *, repeats: int = 3,
                   longest: int = 256, tokens: int = TOKENS) -> Score:
    """Texts turned into mean-pooled features per second; items are the repeats, value their median."""
    text_features(trained, texts[:8], longest=longest, tokens=tokens)  # the first call allocates
    rates = []
    for _ in range(repeats):
        watch = Stopwatch()
        text_features(trained, texts, longest=longest, tokens=tokens)
        rates.append(len(texts) / watch.seconds)
    return _rate("documents encoded per second", "documents/s", rates, len(texts))


def writing_speed(trained: Trained, prompts: Sequence[Sequence[int]], *, new_tokens: int = 32, repeats: int = 2,
                  mode: str | None = None) -> Score:
    """New tokens per second, one prompt at a time, by the decoding that fits the mode (the first, if none is named);
    items are the repeats."""
    from bothways.decoding import GenerateConfig, generate

    config = GenerateConfig(max_new_tokens=new_tokens, temperature=0.0)
    chosen = trained.objective.modes[0] if mode is None else trained.mode(mode)
    rates = []
    for _ in range(repeats):
        watch, written = Stopwatch(), 0
        for prompt in prompts:
            (one,) = generate(trained, [[int(token) for token in prompt]], config, chosen)
            written += max(len(one.ids), 1)
        rates.append(written / watch.seconds)
    return _rate("tokens written per second", "tokens/s", rates, len(prompts))


def parameters(trained: Trained) -> Score:
    """All parameters; `details` has those outside the embedding, and those active for one token."""
    from bothways.model import cost

    counts = {name: float(count) for name, count in dict(cost.parameters(trained.network)).items()}
    return Score("parameters", "all", "counted", counts.get("total", float("nan")), 1, "parameters",
                 higher_is_better=False, details=counts)


def peak_memory() -> Score:
    """The most memory this process has held: on the accelerator when there is one, else resident (RAM)."""
    if torch.cuda.is_available():
        return Score("peak memory", "all", "accelerator, this process", torch.cuda.max_memory_allocated() / 2 ** 20, 1,
                     "MiB", higher_is_better=False)
    import resource

    unit = 2 ** 20 if sys.platform == "darwin" else 2 ** 10
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
    return Score("peak memory", "all", "resident, this process so far", peak, 1, "MiB", higher_is_better=False)


def _rate(name: str, unit: str, rates: list[float], n: int) -> Score:
    median = float(np.median(rates))
    score = mean_score(name, "all", f"median of {len(rates)} repeats", rates, unit=unit, n=n)
    return Score(score.name, score.mode, score.estimator, median, n, unit, items=score.items)
