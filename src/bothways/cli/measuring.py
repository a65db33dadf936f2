"""What `bothways evaluate` measures beside likelihoods: what is known by heart, variety, and what damage costs."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

    from bothways.batch import Window
    from bothways.cli.evaluate import Options
    from bothways.evaluation.score import Score
    from bothways.families.trained import Trained
    from bothways.tasks import classify
    from bothways.tasks.ways import Row

PROMPT = 8
"""Tokens of held-out text that a written text goes on from."""


def by_heart(trained: Trained, options: Options, held_out: Sequence[Window]) -> list[Score]:
    """The share of training text that comes out word for word, beside held-out text of like length.

    Raises:
        BothwaysError: no window is long enough to give a prompt and ask for what follows.
    """
    from dataclasses import replace
    from pathlib import Path

    from bothways.cli.evaluate import held_out as windows_of
    from bothways.errors import BothwaysError
    from bothways.evaluation.memory import extraction
    from bothways.evaluation.questions import spread
    from bothways.text.prepare import Prepared

    assert options.trained_on is not None
    if (Path(options.trained_on) / "prepared.json").is_file():
        every = Prepared.load(options.trained_on).train
        learned: Sequence[Window] = [every[place] for place in spread(len(every), options.limit or len(every))]
    else:
        learned = windows_of(trained, replace(options, corpus=options.trained_on))
    found = [score for name, some in (("training text", learned), ("held-out text", held_out))
             for score in extraction(trained, some, name=name, limit=options.limit or len(some)) if score.n]
    if not found:
        raise BothwaysError(f"nothing of '{options.trained_on}' can be asked for: this needs a model that writes from "
                            "left to right, and windows of at least 40 tokens")
    return found


def reversed_facts(trained: Trained, options: Options) -> list[Score]:
    """The reversal test on a file of facts."""
    from bothways.evaluation.memory import read_facts, reversal, template

    assert options.facts is not None
    return reversal(trained, read_facts(options.facts), forward=template(options.forward, "b"),
                    backward=template(options.backward, "a"), samples=options.samples)


def variety(trained: Trained, options: Options, held_out: Sequence[Window]) -> list[Score]:
    """How varied written texts are, and held-out text of the same length beside them.

    Raises:
        BothwaysError: the corpus has no text to begin with.
    """
    from bothways.decoding import GenerateConfig, generate
    from bothways.errors import BothwaysError
    from bothways.evaluation.generated import diversity

    begun = [window.ids for window in held_out if len(window.ids) > 2 * PROMPT][:options.write]
    if not begun:
        raise BothwaysError(f"'{options.corpus}' has no text of {2 * PROMPT} tokens to begin a written text with")
    mode = trained.objective.modes[0]
    written = generate(trained, [ids[:PROMPT].tolist() for ids in begun],
                       GenerateConfig(max_new_tokens=options.new_tokens, seed=options.seed, begin=False), mode)
    texts = [list(map(int, one.ids)) for one in written]
    real = [ids[PROMPT:PROMPT + options.new_tokens].tolist() for ids in begun]
    return [*diversity(_of_words(trained, texts), mode=f"{mode.name}, written"),
            *diversity(_of_words(trained, real), mode="held-out text")]


def _of_words(trained: Trained, texts: Sequence[Sequence[int]]) -> list[list[str]]:
    return [trained.tokenizer.decode([one for one in ids if not trained.vocabulary.special[one]]).split()
            for ids in texts]


def task_scores(options: Options) -> Iterator[tuple[str, list[Score]]]:
    """A tuned task on rows with answers: its scores, and of one label a text calibration and what damage costs it.

    Raises:
        BothwaysError: no --labels, or a file without rows that can be used.
    """
    from pathlib import Path

    from bothways.cli.tune import named_columns
    from bothways.errors import BothwaysError
    from bothways.evaluation.questions import spread
    from bothways.tasks import classify
    from bothways.tasks.folder import load
    from bothways.tasks.rows import read

    if options.labels is None:
        raise BothwaysError(f"'{options.folder}' is a tuned task: give --labels with rows and answers to test it on")
    task = load(Path(options.folder))
    rows = read(options.labels, task.roles, task.row, columns=named_columns(options.columns))
    if complaint := rows.complaint():
        print(complaint, file=sys.stderr)
    some = [rows.items[place] for place in spread(len(rows), options.limit or len(rows))]
    if len(some) < len(rows):
        print(f"{options.labels}: {len(some)} of {len(rows)} rows are asked for; --limit 0 asks for all",
              file=sys.stderr)
    yield "scores", task.scores(some)
    if isinstance(task, classify.Task) and not task.choices.several:
        yield from _sureness(task, some, options.seed)


def _sureness(task: classify.Task, rows: Sequence[Row], seed: int) -> Iterator[tuple[str, list[Score]]]:
    """How far probabilities of labels can be trusted, and what typing errors, case and cuts change."""
    import numpy as np

    from bothways.evaluation.calibration import calibration
    from bothways.evaluation.robustness import robustness

    place = {label: number for number, label in enumerate(task.labels)}
    known = [row for row in rows if row.labels and row.labels[0] in place]
    if not known:
        print(f"calibration is left out: none of the {len(rows)} rows has a label that was trained", file=sys.stderr)
        return
    labels = np.array([place[row.labels[0]] for row in known if row.labels])
    yield "calibration", calibration(task.predict_proba(known), labels, mode=task.way.mode)[1:]

    def predict(texts: Sequence[str]) -> np.ndarray:
        return task.predict_proba([row._replace(text=text) for row, text in zip(known, texts, strict=True)])

    found = robustness(predict, [row.text for row in known], labels, mode=task.way.mode, seed=seed)
    yield "damaged texts", found[1:]
