"""A trained model goes on, on another text or by another objective: what it learns and what it forgets, by the rates.

    python benchmarks/going_on.py --from causal/model --objective masked --corpus notes.txt --held held.txt \\
        --old held.txt --out runs
    python benchmarks/going_on.py --from causal/model --objective next-token --corpus policies.txt --held held.txt \\
        --old textbooks.txt --out runs

One run for each pair of rates (matrices, the rest), and one from new weights at the last pair, on the same batches.
"new" is the loss by the new objective on text of the new kind that no run has read; "old" the loss by the model's own
objective on text of the old kind, both in nats. Stopped in the middle, the same call goes on.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

import peers
from bothways import objectives
from bothways.families.folder import load
from bothways.families.trained import Trained
from bothways.text.prepare import Prepared, prepare
from bothways.training import TrainConfig, begin, train
from bothways.training.config import Record
from bothways.training.held_out import HeldOut

RATES = ((0.002, 8e-4), (0.01, 2e-3), (0.02, 5e-3))
CPU = torch.device("cpu")


class Losses:
    """The losses by the new and by the old objective, each on its own text."""

    def __init__(self, begun: Trained, new: Prepared, old: Prepared, was: str, tokens: int) -> None:
        self.new = HeldOut(new.train, begun.objective, tokens=tokens)
        self.old = HeldOut(old.train, objectives.make(was, begun.vocabulary), tokens=tokens)

    def of(self, network: Any) -> dict[str, float]:
        """Both, in nats."""
        found = {"new": self.new.measure(network, CPU), "old": self.old.measure(network, CPU)}
        return {name: one["loss"] for name, one in found.items() if one is not None}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--from", dest="start", required=True)
    parser.add_argument("--objective", required=True)
    parser.add_argument("--was", default="next-token", help="the objective that the old loss is measured by")
    parser.add_argument("--corpus", required=True)
    parser.add_argument("--held", required=True)
    parser.add_argument("--old", required=True)
    parser.add_argument("--steps", type=int, default=80)
    parser.add_argument("--batch-tokens", type=int, default=2048)
    parser.add_argument("--window", type=int, default=256)
    parser.add_argument("--tokens", type=int, default=8192, help="of each text that is measured on")
    parser.add_argument("--limit-bytes", type=int, default=2_000_000)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    # 1. the model in the form that the new objective needs, and three texts
    begun = begin(arguments.start, arguments.objective)
    begun = replace(begun, objective=objectives.make(arguments.objective, begun.vocabulary))
    texts = {name: prepare(path, arguments.out / name, tokenizer=begun.tokenizer, window=arguments.window,
                           held_out=0.01, limit_bytes=limit)
             for name, path, limit in (("text", arguments.corpus, arguments.limit_bytes),
                                       ("held", arguments.held, 200_000), ("old", arguments.old, 200_000))}
    losses = Losses(begun, texts["held"], texts["old"], arguments.was, arguments.tokens)
    results = [{"begun": "as it is", "rates": None, **losses.of(begun.network)}]
    print(results[-1], flush=True)
    # 2. the runs
    for rates, start in [*((pair, arguments.start) for pair in RATES), (RATES[-1], None)]:
        config = TrainConfig(begun.config, start, arguments.objective, f"{arguments.steps} steps",
                             batch_tokens=arguments.batch_tokens, matrix_rate=rates[0], other_rate=rates[1],
                             record=Record(keep="last"))
        name = f"{'trained' if start else 'untrained'}-{rates[0]:g}-{rates[1]:g}"
        run = train(config, texts["text"], arguments.out / name, show=False)
        results.append({"begun": "trained" if start else "untrained", "rates": rates,
                        **losses.of(load(run.model).network)})
        print(results[-1], flush=True)
    # 3. a table
    rows = [(one["begun"], "" if one["rates"] is None else "{:g}, {:g}".format(*one["rates"]),
             f"{one['new']:.3f}", f"{one['old']:.3f}") for one in results]
    print(*peers.table(rows, ("begun", "rates", f"new: {arguments.objective}", f"old: {arguments.was}")), sep="\n")
    (arguments.out / "going_on.json").write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
