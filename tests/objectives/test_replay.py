"""An example is a function of (seed, epoch, window) and of nothing else: one reader and four processes agree."""

from __future__ import annotations

import multiprocessing

import numpy as np
import pytest
from tests.objectives import readers

from bothways.batch import Key, Vocabulary, pack
from bothways.objectives import known, make
from bothways.text.tokenizer import TokenizerConfig
from bothways.training.data import corrupted

PROCESSES = 4


@pytest.fixture(scope="module")
def alone() -> dict[str, list[str]]:
    return readers.made(0, 1)


@pytest.fixture(scope="module")
def shared() -> list[dict[str, list[str]]]:
    """What each of four processes makes, none of which shares anything with this one but the program."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch"])  # the one large import, once for all four
    answers = context.SimpleQueue()
    started = [context.Process(target=readers.told, args=(answers, process, PROCESSES)) for process in range(PROCESSES)]
    for process in started:
        process.start()
    found = [answers.get() for _ in started]
    for process in started:
        process.join()
    return found


@pytest.mark.parametrize("name", known())
def test_four_processes_make_the_examples_of_one_reader(name, alone, shared):
    own = [{what: prints for what, prints in one.items() if what.split()[0] == name} for one in shared]
    # 1. each window is made by one of them, and is what the one reader made
    examples = {what: prints for one in own for what, prints in one.items() if what.split()[1].isdecimal()}
    assert [len(one) - 2 for one in own] == [readers.EPOCHS * readers.WINDOWS // PROCESSES] * PROCESSES
    assert examples == {what: alone[what] for what in examples}
    assert len(examples) == readers.EPOCHS * readers.WINDOWS
    # 2. a step of the training loop, and what companions draw in the network, are the same in all of them
    for what in (f"{name} step", f"{name} loss"):
        assert alone[what] and [one[what] for one in own] == [alone[what]] * PROCESSES


@pytest.mark.parametrize("name", known())
def test_every_objective_reads_windows_of_512_tokens(name):
    """A tokenizer that is trained for such windows carries the sentinels that every objective needs."""
    words = Vocabulary.plain(1024, TokenizerConfig(size=1024).sentinels(512))
    words.ends_sentence[200:300] = True
    objective = make("next-token + masked-next" if name == "mixture" else name, words)
    text = readers.Text(objective.reads_turns, 512, words)
    for epoch in range(3):
        (*_, row) = pack(corrupted(objective, text, window, Key(0, epoch, window.index)) for window in text)
        assert row.asks and int(np.asarray(row.inputs).max()) < words.size
