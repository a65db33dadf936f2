"""What the next token costs at each place of a text, with a cache and without: a table and a picture.

    python benchmarks/time_per_token.py --out docs/pictures/time_per_token.svg

One text is written from left to right by a network of random weights. With a cache a token costs one token, and a
little for looking at more of them; without one it costs the whole text again, so the time of a text grows with its
square.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

import peers
from bothways.batch import Vocabulary
from bothways.decoding.left_to_right import Writer
from bothways.decoding.sampling import GenerateConfig
from bothways.model import LanguageModel, ModelConfig, Shape
from bothways.objectives import make
from bothways.pictures.curves import line_chart


def seconds_per_token(network: LanguageModel, vocabulary: Vocabulary, tokens: int, cached: bool) -> list[float]:
    """Seconds of each step."""
    start = make("next-token", vocabulary).continuation(np.array([], dtype=np.int64))
    blocked = torch.zeros(vocabulary.size, dtype=torch.bool)
    writer = Writer(network, [start], replace(GenerateConfig(temperature=1.0), cached=cached), blocked, tokens)
    taken = []
    for _ in range(tokens):
        begun = time.perf_counter()
        writer.step()
        taken.append(time.perf_counter() - begun)
    return taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=1024)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--bins", type=int, default=32)
    parser.add_argument("--out", type=Path, default=Path("time_per_token.svg"))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    vocabulary = Vocabulary.plain(4096)
    torch.manual_seed(0)
    network = LanguageModel(ModelConfig(Shape(vocabulary.size, arguments.width, arguments.layers, 0,
                                              arguments.width // 64))).eval()
    # 1. both in turn; of each place the fastest round, of some places together the median
    names = {"with a cache": True, "without": False}
    rounds: dict[str, list[list[float]]] = {name: [] for name in names}
    for _ in range(arguments.rounds):
        for name, cached in names.items():
            rounds[name].append(seconds_per_token(network, vocabulary, arguments.tokens, cached))
    lines = {}
    for name, taken in rounds.items():
        best = np.array(taken).min(axis=0)[1:]
        places = np.array_split(np.arange(1, arguments.tokens), arguments.bins)
        lines[name] = [(float(part.mean()), 1000 * float(np.median(best[part - 1]))) for part in places]
    # 2. the picture, and a table of a few places
    arguments.out.write_text(line_chart(lines, "tokens in front", "milliseconds for the next token"), encoding="utf-8")
    rows = [(f"{lines['without'][i][0]:.0f}", *(f"{points[i][1]:.2f}" for points in lines.values()))
            for i in np.linspace(0, arguments.bins - 1, 5).round().astype(int)]
    print(*peers.table(rows, ("tokens in front", *(f"{name}, ms" for name in names))), sep="\n")
    whole = {name: float(np.min(np.array(taken).sum(axis=1))) for name, taken in rounds.items()}
    print(f"all {arguments.tokens} tokens: " + ", ".join(f"{name} {total:.2f} s" for name, total in whole.items()))
    print("written to", arguments.out, "and", peers.save("time_per_token", {"lines": lines, "whole": whole}))


if __name__ == "__main__":
    main()
