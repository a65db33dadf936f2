"""Texts of very different lengths: real tokens per second in masked training, packed against padded.

    python benchmarks/skewed_lengths.py --rounds 15

64 texts of 10 to 256 tokens, most of them short. The peer (`transformers` BERT, the same sizes) pads them: all in one
batch, as texts come in random order, or sorted into batches of like lengths whose gradients add up to one step (the
fastest of several batch sizes counts). Ours packs them into one row without padding.
"""

from __future__ import annotations

import argparse
import contextlib

import numpy as np
import torch
from torch import Tensor

import peers
import train_speed as speed
from bothways.batch import Ask, Example, pack
from bothways.model import LanguageModel
from bothways.model.allocator import keep_memory
from bothways.objectives.loss import cross_entropy
from bothways.visibility import bidirectional
from train_speed import ASKED, HEADS, LAYERS, VOCABULARY, WIDTH, Contender, Updater

TEXTS, SHORTEST, LONGEST = 64, 10, 256


def lengths(seed: int = 0) -> list[int]:
    """Lengths from a long-tailed distribution, the shortest and the longest among them."""
    rng = np.random.default_rng(seed)
    drawn = np.clip(rng.lognormal(np.log(28), 0.85, TEXTS).astype(int), SHORTEST, LONGEST)
    drawn[:2] = SHORTEST, LONGEST
    return [int(n) for n in rng.permutation(drawn)]


def ours(block: str, precision: str, sizes: list[int]) -> Contender:
    network = LanguageModel(speed.our_config("masked", block)).to(getattr(torch, precision)).train()
    updater = Updater(network.parameters())

    def text(length: int) -> Example:
        where = torch.randperm(length)[:max(1, round(ASKED * length))].sort().values
        ask = Ask(where, torch.randint(44, VOCABULARY, (len(where),)), count=len(where))
        return Example(torch.randint(44, VOCABULARY, (length,)), bidirectional, asks=(ask,))

    def step() -> None:
        row, = pack(text(length) for length in sizes)
        part, = cross_entropy(network.logits, network(row, only_asked=True).states, row)
        (part.sum / part.count).backward()
        updater.step()
    return Contender(f"bothways packed, {block} block", "ours", precision, step)


def peer(attention: str, precision: str, batches: list[list[int]], name: str) -> Contender:
    """BERT over padded batches of texts, one update after all of them."""
    network = speed.peer_network("masked", attention, "").train()
    network = network.to(torch.bfloat16) if precision == "bfloat16" else network
    updater = Updater(network.parameters())
    asked = sum(round(ASKED * length) for batch in batches for length in batch)

    def inputs(batch: list[int]) -> dict[str, Tensor]:
        real = torch.arange(max(batch)) < torch.tensor(batch)[:, None]
        tokens = torch.randint(44, VOCABULARY, real.shape)
        return {"input_ids": tokens, "attention_mask": real.long(),
                "labels": tokens.masked_fill(~real | (torch.rand(real.shape) >= ASKED), -100)}

    def step() -> None:
        for batch in batches:
            given = inputs(batch)
            with torch.autocast("cpu", torch.bfloat16) if precision == "autocast" else contextlib.nullcontext():
                loss = network(**given).loss
            (loss * float((given["labels"] >= 0).sum()) / asked).backward()
        updater.step()
    label = f"transformers BERT, {name}, {attention}, {precision}"
    return Contender(label, f"peer {name.split(', ')[0]}", precision, step)


def bucketed(sizes: list[int], batch: int) -> list[list[int]]:
    """Texts sorted by length, `batch` of them at a time."""
    ordered = sorted(sizes)
    return [ordered[i:i + batch] for i in range(0, len(ordered), batch)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    kept = keep_memory()
    sizes = lengths()
    real, padded = sum(sizes), max(sizes) * len(sizes)
    print(f"{len(sizes)} texts of {min(sizes)} to {max(sizes)} tokens, {real} real of {padded} padded; "
          f"{LAYERS} layers, width {WIDTH}, {HEADS} heads; "
          f"allocator keeps memory for everyone: {'yes' if kept else 'no'}")
    print(*(f"{name}: {value}" for name, value in peers.hardware().items()), sep="; ")
    group = [ours(block, precision, sizes) for block in ("peer", "default") for precision in ("float32", "bfloat16")]
    for precision in ("float32", "autocast", "bfloat16"):
        for attention in ("eager", "sdpa"):
            group.append(peer(attention, precision, [sizes], "padded in random order"))
            group += [peer(attention, precision, bucketed(sizes, batch), f"bucketed by length, {batch} at a time")
                      for batch in (8, 16)]
    seconds = peers.interleave({speed.key(c): c.step for c in group}, arguments.rounds, warm=3, per_round=1)
    result = speed.report("masked, skewed lengths", group, seconds, real)
    result |= {"padded_tokens": padded, "allocator_keeps_memory": kept}
    print("written to", peers.save("skewed_lengths", result))


if __name__ == "__main__":
    main()
