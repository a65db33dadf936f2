"""Texts per second of classifying by likelihood: what labels and texts have in common read once, beside each question
by itself.

    python benchmarks/label_speed.py --data banking77_train.csv --texts 32 --rounds 3

The networks have random weights (256 wide, 4 layers) and the tokens of the data. Both paths answer the same texts in
turn, in one run; before anything is timed, their log-probabilities are compared. Rates are medians over the rounds.
"""

from __future__ import annotations

import argparse
import statistics

import numpy as np
import torch

from bothways.evaluation.score import Stopwatch
from bothways.families.trained import Trained
from bothways.model import LanguageModel, ModelConfig, Shape
from bothways.objectives import make
from bothways.tasks.classify import Options, Task
from bothways.tasks.rows import read
from bothways.tasks.tuning import TuneConfig
from bothways.tasks.ways import Row
from bothways.text.tokenizer import Tokenizer

CASES = (("text-to-text", "next-token"), ("prompt", "next-token"), ("generative", "next-token"),
         ("channel", "next-token"), ("text-to-text", "span-corruption"), ("text-to-text", "prefix"),
         ("prompt", "masked"))


def network(objective: str, tokenizer: Tokenizer, width: int, layers: int) -> Trained:
    """Random weights."""
    torch.manual_seed(0)
    made = make(objective, tokenizer.vocabulary)
    two = {"source_layers": layers} if made.stack == "two towers" else {}
    shape = Shape(vocabulary=tokenizer.size, width=width, layers=layers, heads=4, **two)
    return Trained(LanguageModel(ModelConfig(shape)), made, tokenizer)


def rates(way: str, trained: Trained, rows: list[Row], texts: int, rounds: int) -> tuple[float, float, float]:
    """Texts per second plain and shared, and the largest difference of their log-probabilities."""
    task = Task.fit(trained, rows, [], Options(way=way, untuned=True), TuneConfig(longest=64))
    asked = [rows[place] for place in np.random.default_rng(0).permutation(len(rows))[:texts]]
    plain = task.way.log_probabilities(asked, shared=False)
    apart = float(np.abs(plain - task.way.log_probabilities(asked)).max())
    seconds: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(rounds):
        for shared in (False, True):
            watch = Stopwatch()
            task.way.log_probabilities(asked, shared=shared)
            seconds[shared].append(watch.seconds)
    return texts / statistics.median(seconds[False]), texts / statistics.median(seconds[True]), apart


def main() -> None:
    """Compare, print Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="labelled texts")
    parser.add_argument("--texts", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--only", nargs="*", default=[], help="ways, all by default")
    given = parser.parse_args()
    rows: list[Row] = read(given.data, Task.roles, Task.row).items
    tokenizer = Tokenizer.train([row.text for row in rows], "bpe", 4096)
    print(f"{len({row.labels for row in rows})} labels, {given.texts} texts, {given.width} wide, "
          f"{given.layers} layers, {torch.get_num_threads()} threads, median of {given.rounds} rounds\n")
    print("| way | network | each by itself, texts/s | shared, texts/s | ratio | largest difference, nats |")
    print("| --- | --- | --- | --- | --- | --- |")
    for way, objective in CASES:
        if not given.only or way in given.only:
            plain, shared, apart = rates(way, network(objective, tokenizer, given.width, given.layers), rows,
                                         given.texts, given.rounds)
            print(f"| {way} | {objective} | {plain:.1f} | {shared:.1f} | {shared / plain:.1f} | {apart:.0e} |",
                  flush=True)


if __name__ == "__main__":
    main()
