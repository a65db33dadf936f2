"""Masked diffusion against writing from left to right: tokens per second and quality by the number of steps.

    python benchmarks/diffusion_steps.py --budget 10min
    python benchmarks/diffusion_steps.py --models study/runs/known/next-token-seed0 study/runs/known/diffusion-seed0

Two networks of equal size write texts of 128 tokens at temperature 1, many at once; everybody takes turns, and rates
are medians over rounds. Both were trained on the known source, so that quality has a truth: the share of sentences that
the grammar can say at all, and what they cost under its true probabilities (nats per token; near the source's own
entropy is right, below it is too tame). The entropy of the words beside it would show a text that repeats itself.

The last lines keep what stands before a block (`prefix_cache`). That is an approximation; its error is the difference
between the log probability a token had when it was written and the one the network gives it when all is read anew.
"""

from __future__ import annotations

import argparse
import functools
import math
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

import bothways
import peers
from bothways import decoding
from bothways.decoding import GenerateConfig, Written
from bothways.evaluation.answers import answers
from bothways.model import ModelConfig, Shape
from bothways.text.known import KnownSource
from bothways.training import TrainConfig, train
from bothways.training.config import Record

BLOCK = 32


def trained(source: KnownSource, objective: str, budget: str, folder: Path, threads: int) -> bothways.Model:
    """A network of the benchmark's size."""
    prepared = source.prepare(folder / "text")
    network = ModelConfig(Shape(width=128, layers=4, heads=4))
    config = TrainConfig(network, objective, budget, record=Record(keep="last"))
    train(config, prepared, folder / objective, threads=threads)
    return bothways.from_pretrained(folder / objective)


def quality(source: KnownSource, model: bothways.Model, texts: list[list[int]]) -> tuple[float, float, float]:
    """Share of sentences the grammar can say, their true nats per token, and the entropy of the words in nats."""
    vocabulary, stop = model.vocabulary, model.tokenizer.encode(".")[0]
    costs, words, said = [], 0, 0
    for text in texts:
        ends = [place for place, token in enumerate(text) if token == stop]
        for start, end in zip([0, *(place + 1 for place in ends)], ends, strict=False):
            cost = float(np.sum(source.true_nll(np.array([vocabulary.bos, *text[start:end + 1]]))))
            said += 1
            if math.isfinite(cost):
                costs.append(cost)
                words += end + 1 - start
    counts = np.bincount(np.concatenate([np.array(text, dtype=np.int64) for text in texts]))
    shares = counts[counts > 0] / counts.sum()
    return (len(costs) / max(said, 1), sum(costs) / words if words else math.nan,
            float(-(shares * np.log(shares)).sum()))


def by_blocks(model: bothways.Model, texts: int, tokens: int, config: GenerateConfig) -> list[list[Written]]:
    """Texts written block by block without an end: what each block's call gave, text by text."""
    vocabulary = model.vocabulary
    rows = [[vocabulary.bos] for _ in range(texts)]
    blocks = []
    for first in range(0, tokens, BLOCK):
        size = min(BLOCK, tokens - first)
        blocks.append(decoding.fill(model.trained, [[*row, *[vocabulary.mask] * size] for row in rows],
                                    replace(config, begin=False, seed=config.seed + first)))
        rows = [text.ids for text in blocks[-1]]
    return [list(parts) for parts in zip(*blocks, strict=True)]


def joined(parts: list[Written]) -> Written:
    """The blocks of one text as one."""
    return replace(parts[-1], ids=parts[-1].ids[1:], logprobs=[one for part in parts for one in part.logprobs],
                   network_evaluations=sum(part.network_evaluations for part in parts))


def kept_error(model: bothways.Model, block: Written) -> list[float]:
    """|difference| of the log probabilities of a block's tokens as they were written and when all is read anew."""
    differences: list[float] = []
    places = sorted(place for step in block.steps for place in step.places)
    for before, step in zip(block.canvases(), block.steps, strict=False):
        hidden = np.array(before) < 0
        (answer,) = answers(model.trained, [model.objective.blank(np.array(block.ids), hidden)])
        fresh = dict(zip(np.flatnonzero(hidden), answer.log_probs, strict=True))
        differences += [abs(fresh[place] - block.logprobs[places.index(place)]) for place in step.places]
    return differences


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs=2, type=Path, metavar=("CAUSAL", "DIFFUSION"))
    parser.add_argument("--budget", default="10min", help="of each network where none are given")
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--steps", type=int, nargs="+", default=[8, 16, 32, 128])
    parser.add_argument("--texts", type=int, default=16, help="written at once")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    source = KnownSource()
    # 1. two networks
    with tempfile.TemporaryDirectory() as folder:
        causal, diffusion = (map(bothways.from_pretrained, arguments.models) if arguments.models else
                             (trained(source, name, arguments.budget, Path(folder), arguments.threads)
                              for name in ("next-token", "diffusion")))
    texts, tokens = arguments.texts, arguments.tokens
    # 2. the ways to write; no end is ever written, so that all texts are as long
    base = GenerateConfig(max_new_tokens=tokens, temperature=1.0)
    eos, mark = causal.vocabulary.eos, diffusion.vocabulary.mask
    bare = replace(base, logit_bias=((eos, -math.inf),))
    ways: dict[str, tuple[bothways.Model, Callable[[int], list[Written]]]] = {
        "left to right": (causal, lambda seed: decoding.generate(causal.trained, [[]] * texts,
                                                                 replace(bare, seed=seed * texts)))}

    def filling(seed: int, **options: object) -> list[Written]:
        return decoding.fill(diffusion.trained, [[mark] * tokens] * texts,
                             replace(base, seed=seed * texts, **options))  # type: ignore[arg-type]

    for steps in arguments.steps:
        for order in ("confidence", "random"):
            ways[f"diffusion, {steps} steps, {order}"] = (diffusion, functools.partial(filling, steps=steps,
                                                                                       order=order))
    per_block = max(1, BLOCK * 32 // tokens)
    blocks = replace(base, steps=per_block, order="random")
    seen: list[list[Written]] = []

    def block_after_block(seed: int, kept: bool) -> list[Written]:
        parts = by_blocks(diffusion, texts, tokens, replace(blocks, seed=seed * texts, prefix_cache=kept))
        if kept:
            seen[:] = parts
        return [joined(text) for text in parts]

    for kept in (False, True):
        name = f"diffusion, blocks of {BLOCK}, {per_block} steps each, random" + (", prefix kept" if kept else "")
        ways[name] = diffusion, functools.partial(block_after_block, kept=kept)
    # 3. everybody in turn
    written: dict[str, list[Written]] = {name: [] for name in ways}

    def turn(name: str) -> None:
        written[name] += ways[name][1](len(written[name]) // texts)

    turns = {name: functools.partial(turn, name) for name in ways}
    seconds = peers.interleave(turns, arguments.rounds, warm=min(1, arguments.rounds - 1), per_round=1)
    # 4. what came of it
    rows, kept_rows = [], []
    for name, (model, _) in ways.items():
        new = written[name]
        said, nats, entropy = quality(source, model, [text.ids for text in new])
        length = sum(len(text.ids) for text in new) / len(new)
        rate = texts * length / statistics.median(seconds[name])
        rows.append((name, f"{rate:.0f}", f"{np.mean([text.network_evaluations for text in new]):.0f}", f"{said:.1%}",
                     f"{nats:.3f}", f"{entropy:.2f}"))
        kept_rows.append({"way": name, "tokens_per_second": rate, "seconds": seconds[name], "length": length,
                          "evaluations": float(np.mean([text.network_evaluations for text in new])),
                          "grammatical": said, "true_nats": nats, "word_entropy": entropy})
    error = [difference for text in seen for block in text for difference in kept_error(diffusion, block)]
    print(f"{texts} texts of {tokens} tokens at once, {arguments.rounds} rounds; the source itself: 100 %, "
          f"{source.entropy_rate:.3f} nats")
    print(*peers.table(rows, ("way", "tokens per second", "evaluations a text", "sentences the grammar can say",
                              "true nats per token of those", "entropy of words")), sep="\n")
    if error:
        print(f"kept prefix: the log probability of a written token is off by {np.mean(error):.3f} nats in the mean, "
              f"{np.median(error):.3f} in the median ({len(error)} tokens)")
    print("written to", peers.save("diffusion_steps", {"texts": texts, "tokens": tokens, "ways": kept_rows,
                                                       "kept_prefix_error": error}))


if __name__ == "__main__":
    main()
