"""Locks on folders, so that no two processes ever work in one: a study's, and each run's."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bothways.errors import BothwaysError

LOCK_FILE = ".lock"


@contextmanager
def only_one(folder: Path, what: str, wait: float = 0.0) -> Iterator[None]:
    """Hold a folder for as long as the block runs; the system lets go when the process ends, however it ends.

    Args:
        what: what the folder is, for the sentence: "study" or "run".
        wait: seconds to wait for another process to let go, such as one whose study was killed just now.
    Raises:
        BothwaysError: another process holds it (exit code 1).
    """
    try:
        import fcntl
    except ImportError:  # no such locks on this system: the folder is then trusted to its user
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + wait
    with (folder / LOCK_FILE).open("w") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                if time.monotonic() >= deadline:
                    raise BothwaysError(f"the {what} in '{folder}' is being worked on by another process: wait for "
                                        "it, or choose another folder", exit_code=1) from None
                time.sleep(0.2)
        yield
