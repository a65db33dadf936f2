"""Which learning rate suits fine-tuning a trained network, and which the same network untrained?

    python -m benchmarks.tune_rates runs/masked/model --labels tickets.csv

Accuracy on held-back texts for each pair of rates (the network's and the head's), for the network as trained and with
fresh first weights: one rate for both would favour whom it happens to fit.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses

import torch
from benchmarks import peers

from bothways.evaluation import probes
from bothways.families.folder import load
from bothways.tasks.classify import classification
from bothways.tasks.tuning import TuneConfig
from bothways.text.labels import read_labelled

RATES = ((5e-4, 5e-3), (1e-3, 2e-2), (2e-3, 2e-2), (3e-3, 3e-2))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--labels", required=True)
    parser.add_argument("--texts", type=int, nargs=2, default=(2000, 600), metavar=("TRAIN", "TEST"))
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    trained = load(arguments.model)
    train, test = probes.split(probes.rows(read_labelled(arguments.labels)), seed=0, train_limit=arguments.texts[0],
                               test_limit=arguments.texts[1])
    torch.manual_seed(0)
    fresh = copy.deepcopy(trained.network)
    fresh.initialise()
    untrained = dataclasses.replace(trained, network=fresh)
    rows = []
    for rate, head in RATES:
        config = TuneConfig(arguments.steps, learning_rate=rate, head_rate=head, longest=128)
        found = [classification(one, train, test, config, rates=())[0].value for one in (trained, untrained)]
        rows.append((f"{rate:g}, {head:g}", *(f"{100 * value:.1f} %" for value in found)))
        print(*rows[-1], flush=True)
    print(f"{len(train)} texts to learn from, {len(test)} to test, {arguments.steps} steps, one seed")
    print(*peers.table(rows, ("rate, head's rate", trained.objective.name, "untrained")), sep="\n")


if __name__ == "__main__":
    main()
