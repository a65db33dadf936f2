"""Does making examples keep the network waiting? Every objective's corruption and packing, beside one small network.

    python benchmarks/corruption_speed.py --rounds 9

A batch is 32 windows of 512 tokens, corrupted and packed on one thread. The network is the demo's, the smallest that a
study trains, and so the fastest: one thread, next token, in the faster of float32 and bfloat16. The ratio says how
many times as many raw tokens an objective makes ready as the network trains on in the same time; below 20, making
examples would cost more than a twentieth of a training step. Seconds are the processor's, since all is one thread.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

import peers
from bothways.batch import Key, Vocabulary, Window, pack
from bothways.model import LanguageModel, ModelConfig, Shape
from bothways.model.allocator import keep_memory
from bothways.objectives import Objective, known, make
from bothways.objectives.loss import cross_entropy
from bothways.study.sizes import CPU_THREAD_FLOPS, choose
from bothways.text.tokenizer import TokenizerConfig
from bothways.training.data import corrupted
from train_speed import Updater

WINDOWS, LENGTH = 32, 512
TRAINED = 4
"""Windows of the network's step: the demo's batch of 2,048 tokens."""
SPECS = {"mixture": "next-token + masked-next"}
"""What stands for an objective that has no meaning without options."""
WANTED = 20.0


def vocabulary(size: int) -> Vocabulary:
    """Ordinary tokens of which three in four begin a word and one in twenty ends a sentence, as in English; and as many
    sentinels as a tokenizer trained for such windows has."""
    plain = Vocabulary.plain(size, TokenizerConfig(size=size).sentinels(LENGTH))
    ids = np.arange(size)
    return replace(plain, starts_word=~plain.special & (ids % 4 != 0), ends_sentence=~plain.special & (ids % 20 == 0))


def windows(words: Vocabulary, turns: bool = False) -> list[Window]:
    """A batch, each window a document of its own; with `turns` the first half of it is a question."""
    rng = np.random.default_rng(0)
    made = []
    for i in range(WINDOWS):
        ids = np.concatenate(([words.bos], rng.integers(len(words.ids), words.size, LENGTH - 2), [words.eos]))
        if turns:
            ids[LENGTH // 2] = words.sep
        made.append(Window(ids, document=i, index=i))
    return made


def preparing(objective: Objective) -> Callable[[], object]:
    """One batch of this objective, new noise every time."""
    batch = windows(objective.vocabulary, objective.reads_turns)
    epoch = iter(range(1 << 30))

    def step() -> object:
        now = next(epoch)
        return pack(corrupted(objective, batch, window, Key(0, now, window.index)) for window in batch)
    return step


def training(words: Vocabulary, precision: str) -> Callable[[], object]:
    """One step of the demo's network on the next token."""
    size = choose("text", 40 * CPU_THREAD_FLOPS)
    network = LanguageModel(ModelConfig(Shape(words.size, size.width, size.layers, heads=size.heads)))
    network = network.to(getattr(torch, precision)).train()
    updater, objective = Updater(network.parameters()), make("next-token", words)
    (row,) = pack(objective.corrupt(window, Key(0, 0, window.index)) for window in windows(words)[:TRAINED])

    def step() -> None:
        part, = cross_entropy(network.logits, network(row, only_asked=True).states, row)
        (part.sum / part.count).backward()
        updater.step()
    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--only", nargs="*", default=None, help="names or specs of objectives (all known ones)")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    kept = keep_memory()
    words = vocabulary(choose("text", 40 * CPU_THREAD_FLOPS).vocabulary)
    print(*(f"{name}: {value}" for name, value in peers.hardware().items()), sep="; ")
    # 1. everyone in turn
    specs = arguments.only or [SPECS.get(name, name) for name in known()]
    steps = {spec: preparing(make(spec, words)) for spec in specs}
    networks = {f"network, {precision}": training(words, precision) for precision in ("float32", "bfloat16")}
    seconds = peers.interleave({**steps, **networks}, arguments.rounds, warm=2, per_round=1,
                               clock=time.process_time)
    # 2. the faster network counts
    per_token = {name: np.array(seconds[name]) / (TRAINED * LENGTH) for name in networks}
    fastest = min(per_token, key=lambda name: float(np.median(per_token[name])))
    rows, result = [], {}
    for spec in sorted(specs, key=lambda spec: -float(np.median(seconds[spec]))):
        ratio = peers.ratio(per_token[fastest], np.array(seconds[spec]) / (WINDOWS * LENGTH))
        examples = peers.median_rate(WINDOWS, seconds[spec])
        rows.append((f"`{spec}`", f"{examples:,.0f}", f"{LENGTH * examples:,.0f}", ratio,
                     "" if ratio.value >= WANTED else "slow"))
        result[spec] = {"examples_per_second": examples, "tokens_per_second": LENGTH * examples, "ratio": ratio}
    trained = peers.median_rate(TRAINED * LENGTH, seconds[fastest])
    print(f"the {fastest} trains on {trained:,.0f} tokens/s")
    print(*peers.table(rows, ("objective", "examples/s", "tokens/s", "times the network", "")), sep="\n")
    print("written to", peers.save("corruption_speed", {
        "rounds": arguments.rounds, "network": fastest, "network_tokens_per_second": trained, "objectives": result,
        "seconds": seconds, "allocator_keeps_memory": kept}))


if __name__ == "__main__":
    main()
