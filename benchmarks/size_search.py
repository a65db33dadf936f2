"""The recorded search behind `bothways/study/sizes.py`: which size, vocabulary and rate suit a budget.

    python -m benchmarks.size_search --seconds 40 --contenders causal --widths 128 192 256 --vocabularies 1024 2048
    python -m benchmarks.size_search --seconds 25 --contenders causal masked hybrid --rates 0.01 0.02 0.04

Every trial is one training run on one thread with a budget in seconds, two at once, and is judged by held-out bits
per byte of second halves given first halves (an upper bound where the contender has no exact likelihood), so trials of
one contender compare, whatever their vocabulary. Lines are appended to the results file as trials end.
"""

from __future__ import annotations

import argparse
import itertools
import json
import platform
import tempfile
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def text(source: str, vocabulary: int, window: int, cache: str) -> Any:
    """The prepared corpus of trials with this vocabulary; made once, then read back."""
    from bothways.text.prepare import TokenizerConfig, prepare

    return prepare(source, Path(cache) / f"text-{vocabulary}-{window}", tokenizer=TokenizerConfig(size=vocabulary),
                   window=window)


def trial(choice: dict[str, Any], source: str, seconds: float, cache: str) -> dict[str, Any]:
    """Train one network within the budget and score it; returns the choice with what came out."""
    import torch

    torch.set_num_threads(1)
    from bothways.evaluation.likelihood import suffix
    from bothways.model.config import ModelConfig, Shape
    from bothways.study.contenders import contender
    from bothways.training import TrainConfig, train

    # 1. the text, with this trial's vocabulary
    prepared = text(source, choice["vocabulary"], choice["window"], cache)
    # 2. the run
    who = contender(choice["contender"])
    towers = choice["layers"] if who.stack == "two towers" else 0
    shape = Shape(vocabulary=prepared.tokenizer.vocabulary.size, width=choice["width"], heads=choice["heads"],
                  layers=choice["layers"] // 2 if towers else choice["layers"], source_layers=towers // 2)
    config = TrainConfig(model=ModelConfig(shape=shape), objective=dict(who.objective), budget=f"{seconds:g}s",
                         optimizer=choice["optimizer"], matrix_rate=choice["rate"], other_rate=choice["other_rate"],
                         weight_decay=choice["decay"], batch_tokens=choice["batch_tokens"], keep_memory=True,
                         seed=choice["seed"])
    with tempfile.TemporaryDirectory() as folder:
        run = train(config, prepared, Path(folder) / "run", threads=1, show=False)
        trained = run.load()
    # 3. the judgement: the contender's own trained ways
    windows = [prepared.valid[i] for i in range(0, len(prepared.valid), max(1, len(prepared.valid) // 96))]
    scores = suffix(trained, windows, limit=96, samples=16, off_mode=False)
    bits = {f"{score.mode} ({score.estimator})": round(score.value, 4) for score in scores
            if score.name == "suffix bits per byte"}
    return {**choice, "seconds": round(run.seconds, 1), "steps": run.steps, "tokens": run.tokens, "flops": run.flops,
            "parameters": run.parameters["total"], "bits_per_byte": bits}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", default="python-library")
    parser.add_argument("--seconds", type=float, default=40)
    parser.add_argument("--contenders", nargs="+", default=["causal"])
    parser.add_argument("--widths", type=int, nargs="+", default=[192])
    parser.add_argument("--layers", type=int, nargs="+", default=[4])
    parser.add_argument("--vocabularies", type=int, nargs="+", default=[1024])
    parser.add_argument("--windows", type=int, nargs="+", default=[128])
    parser.add_argument("--batches", type=int, nargs="+", default=[2048])
    parser.add_argument("--optimizers", nargs="+", default=["muon"])
    parser.add_argument("--rates", type=float, nargs="+", default=[0.02])
    parser.add_argument("--other-rates", type=float, nargs="+", default=[3e-3])
    parser.add_argument("--decays", type=float, nargs="+", default=[0.1])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, default=RESULTS / "size_search.jsonl")
    given = parser.parse_args()
    # every combination; texts are prepared before the first trial
    names = ("contender", "width", "layers", "vocabulary", "window", "batch_tokens", "optimizer", "rate", "other_rate",
             "decay", "seed")
    grid = itertools.product(given.contenders, given.widths, given.layers, given.vocabularies, given.windows,
                             given.batches, given.optimizers, given.rates, given.other_rates, given.decays, given.seeds)
    choices = [{**dict(zip(names, values)), "heads": max(2, values[1] // 64)} for values in grid]
    given.out.parent.mkdir(parents=True, exist_ok=True)
    hardware = f"{platform.machine()}, 1 thread a trial, {given.workers} trials at once"
    with tempfile.TemporaryDirectory() as cache, ProcessPoolExecutor(given.workers) as pool:
        for size, window in itertools.product(given.vocabularies, given.windows):
            pool.submit(text, given.source, size, window, cache).result()
        waiting = [pool.submit(trial, choice, given.source, given.seconds, cache) for choice in choices]
        for done in as_completed(waiting):
            line = {**done.result(), "source": given.source, "hardware": hardware}
            with given.out.open("a") as file:
                file.write(json.dumps(line) + "\n")
            shown = " ".join(f"{key}={line[key]}" for key in ("contender", "width", "layers", "vocabulary", "window",
                                                              "batch_tokens", "optimizer", "rate", "other_rate",
                                                              "decay"))
            print(f"{shown}: {line['bits_per_byte']} after {line['steps']} steps, {line['tokens']:,} tokens, "
                  f"{line['seconds']} s", flush=True)


if __name__ == "__main__":
    main()
