"""What a process that shares the work of reading does: it makes its part of the examples, and says what they are."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from multiprocessing.queues import SimpleQueue

import numpy as np
import torch
from tests.objectives.shaken import shaken

from bothways.batch import Example, Key, Vocabulary, Window, pack
from bothways.model import ModelConfig, Shape
from bothways.objectives import Objective, known, make
from bothways.training.data import Batches, Place, corrupted

SEED, EPOCHS, WINDOWS, LENGTH = 3, 2, 8, 48
PLAIN = Vocabulary.plain(120, sentinels=40)
IDS = np.arange(PLAIN.size)
WORDS = replace(PLAIN, starts_word=~PLAIN.special & (IDS % 3 > 0), ends_sentence=~PLAIN.special & (IDS % 9 == 0),
                capital=~PLAIN.special & (IDS % 5 == 1))


def objectives() -> dict[str, Objective]:
    """One of every kind, by its name."""
    return {name: make("next-token + masked-next" if name == "mixture" else name, WORDS) for name in known()}


class Text(list[Window]):
    """Windows of a document each; with `turns` the middle of each closes a question."""

    def __init__(self, turns: bool, length: int = LENGTH, words: Vocabulary = WORDS) -> None:
        rng = np.random.default_rng(1)
        for i in range(WINDOWS):
            ids = np.concatenate(([words.bos], rng.integers(len(words.ids), words.size, length - 2), [words.eos]))
            if turns:
                ids[length // 2] = words.sep
            self.append(Window(ids, document=i, index=i))

    def order(self, seed: int, epoch: int) -> np.ndarray:
        return np.random.default_rng((seed, epoch)).permutation(len(self))


def made(process: int, of: int) -> dict[str, list[str]]:
    """Everything a process makes that reads every `of`-th window, from number `process` on: prints by what they are of.

    `<objective> <epoch> <window>`: the example. `<objective> step`: a whole batch of the training loop, which every
    process reads alike. `<objective> loss`: its parts in a network of weights that are the same everywhere.
    """
    torch.set_num_threads(1)
    prints = {}
    for name, objective in objectives().items():
        text = Text(objective.reads_turns)
        for epoch in range(EPOCHS):
            for window in text[process::of]:
                example = corrupted(objective, text, window, Key(SEED, epoch, window.index, 0.5))
                prints[f"{name} {epoch} {window.index}"] = _print(example)
        batch = Batches(text, objective, seed=SEED, tokens=3 * LENGTH, steps=4).read(3, Place(0, 4))
        prints[f"{name} step"] = [number for row in batch.rows for number in _print(row)]
        prints[f"{name} loss"] = _losses(objective, text)
    return prints


def told(answers: SimpleQueue[dict[str, list[str]]], process: int, of: int) -> None:
    """`made`, from a process of its own."""
    answers.put(made(process, of))


def _losses(objective: Objective, text: Text) -> list[str]:
    """The parts of the loss over two windows, to the last bit."""
    towers = 1 if objective.stack == "two towers" else 0
    shape = Shape(WORDS.size, 16, layers=1, source_layers=towers, heads=2)
    network = shaken(ModelConfig(shape, companions=objective.companions), 0.2)
    rows = pack(corrupted(objective, text, window, Key(SEED, 0, window.index, 0.9)) for window in text[:2])
    with torch.no_grad():
        return [f"{part.name} {float(part.sum).hex()} {part.count}" for row in rows
                for part in objective.parts(network, row)]


def _print(example: Example) -> list[str]:
    """A number for every tensor of an Example, and what else it says."""
    return [hashlib.sha256(tensor.numpy().tobytes()).hexdigest() for tensor in _tensors(example)] + [
        repr((example.visibility, example.cross, [(one.head, one.part, one.count, one.coefficient)
                                                  for one in example.asks]))]


def _tensors(example: Example) -> Iterator[torch.Tensor]:
    yield example.inputs
    yield from (example.fields[name] for name in sorted(example.fields))
    for ask in example.asks:
        yield from (tensor for tensor in (ask.where, ask.targets, ask.weights) if tensor is not None)
    if example.source is not None:
        yield from _tensors(example.source)
