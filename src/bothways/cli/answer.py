"""Find the answer to a question in a text with a model that `bothways tune --task answer` made.

    bothways answer my-reader --question "Where does Angela live?" --context "Angela lives in Paris with her dog."

Prints a line of JSON a question: the answer, its first character in the context, and by how much it beats no answer.
Several questions may be asked of one context, and a context may be a file: --context-file letter.txt. Many questions
come from a file of rows, and a bad row costs its own line alone:

    bothways answer my-reader --data questions.jsonl --out answers.jsonl
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro

from bothways.cli.answers import Asked, run_task


@dataclass(frozen=True)
class Options(Asked):
    """Which model answers what, and where the answers go."""

    text: tyro.conf.Suppress[tuple[str, ...]] = ()
    """Not used: a question needs its context."""
    question: tuple[str, ...] = ()
    """The questions."""
    context: str | None = None
    """The text that holds the answers."""
    context_file: Path | None = None
    """A file with that text instead."""


def run(options: Options) -> int:
    """Load, answer, write."""
    from bothways.errors import BothwaysError

    given = sum(value is not None for value in (options.context, options.context_file))
    if options.data is None and (not options.question or given != 1):
        raise BothwaysError("ask with --question and either --context or --context-file, or give a file of rows with "
                            "--data")
    if options.data is not None and (options.question or given):
        raise BothwaysError("ask in the call or with --data, not both")
    if options.data is not None:
        return run_task("answer", options)
    from bothways.text.files import chunks

    context = options.context if options.context is not None else "".join(chunks(options.context_file or Path()))
    asked = [{"question": question, "context": context} for question in options.question]
    return run_task("answer", options, items=asked)
