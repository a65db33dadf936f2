"""The batch of a step: the next windows, corrupted one by one and packed. A pure function of seed, place and step.

All objectives with one seed read the same windows in the same order; only what they make of them differs.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from bothways.batch import Example, Key, Window, pack
from bothways.errors import BothwaysError
from bothways.objectives.base import Objective


class Source(Protocol):
    """What training needs of `text.windows.Windows`."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Window: ...
    def order(self, seed: int, epoch: int) -> np.ndarray:
        """(n,) int: the order in which an epoch reads the windows."""


class Place(NamedTuple):
    """Where in the stream of windows a run stands: the next window is `order(seed, epoch)[offset]`."""

    epoch: int = 0
    offset: int = 0


@dataclass(frozen=True)
class Batch:
    """Everything step `step` reads.

    rows: packed Examples, each one forward and backward pass.
    counts: part name -> its denominator over the whole step, known before anything is computed.
    tokens: raw text tokens.
    windows: (epoch, index) of each window, to name when something goes wrong.
    after: where the next step goes on.
    """

    step: int
    rows: tuple[Example, ...]
    counts: dict[str, float]
    tokens: int
    windows: tuple[tuple[int, int], ...]
    after: Place


class Batches:
    """The batches of a run.

    Args:
        windows: the training text.
        objective: what is made of each window.
        seed: of the order and of the noise.
        tokens: raw tokens a step reads at most (one window at least).
        steps: of the whole run: a Key's progress goes from 0 at the first step to 1 at the last.
        micro: raw tokens of a packed row; the whole step in one when none.
    """

    def __init__(self, windows: Source, objective: Objective, *, seed: int, tokens: int, steps: int,
                 micro: int | None = None) -> None:
        if not len(windows):
            raise BothwaysError("the corpus has no training window: add text, or lower --window or --held-out")
        self.windows, self.objective = windows, objective
        self.seed, self.tokens, self.steps, self.micro = seed, tokens, steps, micro
        self._order: tuple[int, np.ndarray] | None = None

    def read(self, step: int, place: Place) -> Batch:
        """The batch of `step` (from 1) for a run that stands at `place`."""
        # 1. the next windows, as many as fit
        progress = (step - 1) / max(1, self.steps - 1)
        taken: list[tuple[int, Window]] = []
        total = 0
        while True:
            if place.offset >= len(self._ordered(place.epoch)):
                place = Place(place.epoch + 1, 0)
            window = self.windows[int(self._ordered(place.epoch)[place.offset])]
            if taken and total + len(window.ids) > self.tokens:
                break
            taken.append((place.epoch, window))
            total += len(window.ids)
            place = Place(place.epoch, place.offset + 1)
        # 2. each corrupted by noise of its own, packed in groups
        examples = [corrupted(self.objective, self.windows, window, Key(self.seed, epoch, window.index, progress))
                    for epoch, window in taken]
        rows = tuple(row for group in grouped(examples, self.micro) for row in pack(group))
        return Batch(step, rows, counts(rows), total, tuple((epoch, window.index) for epoch, window in taken), place)

    def stream(self, step: int, place: Place, prefetch: bool = True) -> Generator[Batch]:
        """The batches from `step` to the last; with `prefetch` one is prepared while the one before is used."""
        if not prefetch:
            for number in range(step, self.steps + 1):
                batch = self.read(number, place)
                place = batch.after
                yield batch
            return
        with ThreadPoolExecutor(1, thread_name_prefix="batches") as worker:
            ahead = worker.submit(self.read, step, place)
            for number in range(step, self.steps + 1):
                batch = ahead.result()
                if number < self.steps:
                    ahead = worker.submit(self.read, number + 1, batch.after)
                yield batch

    def _ordered(self, epoch: int) -> np.ndarray:
        if self._order is None or self._order[0] != epoch:
            self._order = (epoch, self.windows.order(self.seed, epoch))
        return self._order[1]


OTHER = 41
"""Salt of the draw of a window of another document."""
TRIES = 64
"""Draws of another document before the nearest one is taken."""


def corrupted(objective: Objective, windows: Source, window: Window, key: Key) -> Example:
    """What the objective makes of one of these windows, given another beside it where it asks for one."""
    if objective.reads_another:
        window = window._replace(other=another(windows, window, key, objective.vocabulary.bos))
    return objective.corrupt(window, key)


def another(windows: Source, window: Window, key: Key, bos: int) -> Window:
    """A window of another document, each as likely as any other: a function of the key alone.

    Args:
        bos: begins documents; a window that holds it behind its first place goes on into later documents.
    Raises:
        BothwaysError: there is only one document.
    """
    def apart(other: Window) -> bool:
        (first, last), (begin, end) = (
            (one.document, one.document + int((one.ids[1:] == bos).sum())) for one in (window, other))
        return last < begin or end < first
    # 1. by lot
    for index in key.rng(OTHER).integers(len(windows), size=TRIES):
        if apart(other := windows[int(index)]):
            return other
    # 2. where nearly all is one document, the nearest window that is not
    for distance in range(1, len(windows)):
        for index in (window.index - distance, window.index + distance):
            if 0 <= index < len(windows) and apart(other := windows[index]):
                return other
    raise BothwaysError("next-sentence needs a second document to take a wrong sentence from, and this text (or its "
                        "held-out part) is one: add documents, hold more of them out with text.held_out, or ask for "
                        "sentence-order")


def grouped(examples: Sequence[Example], tokens: int | None) -> Iterator[Sequence[Example]]:
    """Runs of Examples of at most `tokens` raw tokens together (one Example at least); all of them when none."""
    if tokens is None:
        yield examples
        return
    group: list[Example] = []
    for example in examples:
        if group and sum(one.raw for one in group) + example.raw > tokens:
            yield group
            group = []
        group.append(example)
    if group:
        yield group


def counts(rows: Sequence[Example]) -> dict[str, float]:
    """Part name -> the sum of its counts over all rows; `<part>/z` is counted by target (`objectives.loss`)."""
    total: dict[str, float] = {}
    for row in rows:
        for ask in row.asks:
            total[ask.part] = total.get(ask.part, 0.0) + ask.count
            total[f"{ask.part}/z"] = total.get(f"{ask.part}/z", 0.0) + len(ask.targets)
    return total
