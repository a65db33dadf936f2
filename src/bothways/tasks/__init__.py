"""Putting a model to work: each kind of task is one file, and all share one frame.

The frame: `rows` reads examples from files and says what is wrong with bad ones, `tuning` is the one loop that moves
weights, `folder` saves and loads a tuned task, `run` goes from files to a scored folder (it is what `bothways tune`
calls), `predicting` asks a tuned task, and `base.Task` is what a kind must be.

**A new kind** is a module `tasks/<kind>.py` with a class `Task` in it (a subclass of `base.Task`), and a line in
`KINDS`. `classify` is the example to follow. The class says, in this order:

1. `roles`: the columns it reads, and `row(values)`: one record as a row of its own type, or `BadRow("why")`;
   `key(row)`: the text by which duplicates are found; `group(row)`: its label, if splits should keep shares of it.
2. `Options`: a frozen dataclass of its own choices, whose fields become options of `bothways tune --task <kind>`; and
   `recipe`, where other defaults of the loop suit it.
3. `fit(trained, train, dev, options, config, watch)`: a tuned task, from a copy of the network.
4. `predict(rows)` and `predict_proba(rows)`; `outputs(rows)`: what a line of `predictions.csv` says of each.
5. `scores(rows)`: `evaluation.score.Score`s with items, the principal one (by which seeds are compared) first.
6. `settings()` and `weights()`: what a folder must hold beside the network, as plain data and as tensors; and
   `restored(trained, settings, weights)`, the way back.

A command for it is `cli/<command>.py` with two lines of work (see `cli/classify.py`), and the pipeline
`bothways.pipeline(kind, folder)` comes by itself.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from bothways.errors import BothwaysError, nearest

if TYPE_CHECKING:
    from bothways.tasks.base import Task

KINDS: dict[str, str] = {
    "classify": "texts, or pairs of texts, into one class or several",
    "rewrite": "one text as another: translating, summarising, simplifying, mending code",
    "answer": "the span of a context that answers a question, or none",
    "similarity": "how alike two texts are, or whether they belong together",
    "tag": "a tag for every word of a text, such as the names in it",
    "instruct": "instructions and conversations, of which the answers are learned",
}
"""Every kind of task and what it does; the kind's module is imported when it is asked for."""


def kind(name: str) -> type[Task]:
    """The class of that kind of task.

    Raises:
        BothwaysError: there is no such kind.
    """
    if name not in KINDS:
        raise BothwaysError(f"there is no task '{name}' {nearest(name, KINDS)}")
    found: type[Task] = importlib.import_module(f"bothways.tasks.{name}").Task
    return found
