"""The one exception a user ever sees: a sentence that names what to change."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class BothwaysError(Exception):
    """A mistake the user can mend.

    The message is one sentence naming the file, line, field or option at fault and what to change.
    The command line prints it without a traceback and leaves with `exit_code`: 2 for a wrong call
    (option, field, recipe, corpus), 1 for something that failed although the call was right (disk full,
    loss not finite).
    """

    def __init__(self, message: str, exit_code: int = 2) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of a sentence about an unknown name: `(did you mean 'x'? known: a, b, c)`."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"did you mean '{close[0]}'? " if close else ""
    return f"({hint}known: {', '.join(names)})"
