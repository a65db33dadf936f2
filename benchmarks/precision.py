"""Does training with bfloat16 weights (and a float32 master copy) reach the loss that float32 reaches?

    python benchmarks/precision.py --steps 600 --seeds 3

Both train the same network on the known source, whose true entropy is computable, with the same windows, noise and
first weights for each seed. Printed are the two held-out curves and, at each measured step, the mean difference over
seeds with a 95 % interval (Student's t, paired by seed) beside the spread that seeds alone make.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
from scipy import stats

import peers
from bothways.model import ModelConfig, Shape
from bothways.text.known import KnownSource
from bothways.training import TrainConfig, train
from bothways.training.config import Record


def curve(folder: Path) -> dict[int, float]:
    """Held-out loss by step, as the run wrote it."""
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {record["step"]: record["held_out"]["loss"] for record in records if record.get("held_out")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--objective", default="next-token")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    source = KnownSource()
    curves: dict[str, list[dict[int, float]]] = {"float32": [], "bfloat16": []}
    with tempfile.TemporaryDirectory() as folder:
        prepared = source.prepare(Path(folder) / "text")
        for seed in range(arguments.seeds):
            for precision in curves:
                config = TrainConfig(ModelConfig(Shape(width=128, layers=4, heads=2)), arguments.objective,
                                     f"{arguments.steps} steps", seed, precision=precision,
                                     record=Record(curve=2.0, keep="last"))
                run = Path(folder) / f"{precision}-{seed}"
                train(config, prepared, run, threads=arguments.threads, show=False)
                curves[precision].append(curve(run))
    rows, kept = [], []
    for step in sorted(set.intersection(*(set(c) for group in curves.values() for c in group))):
        full, low = (np.array([c[step] for c in curves[precision]]) for precision in curves)
        difference = low - full
        half = stats.t.ppf(0.975, len(difference) - 1) * difference.std(ddof=1) / len(difference) ** 0.5
        spread = full.std(ddof=1)
        rows.append((step, f"{full.mean():.4f}", f"{low.mean():.4f}", f"{difference.mean():+.4f} ± {half:.4f}",
                     f"{spread:.4f}"))
        kept.append({"step": step, "float32": full.tolist(), "bfloat16": low.tolist()})
    print(f"{arguments.objective} on the known source, {source.entropy_rate:.4f} nats per token true, "
          f"{arguments.seeds} seeds")
    print(*peers.table(rows, ("step", "float32", "bfloat16", "difference", "spread of seeds")), sep="\n")
    print("written to", peers.save("precision", {"objective": arguments.objective, "curves": kept}))


if __name__ == "__main__":
    main()
