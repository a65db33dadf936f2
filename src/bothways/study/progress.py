"""How far a study has come, shown all the time: on a terminal as a small moving table, elsewhere as plain lines.

Everything shown is read from the run folders (`status.json`, the training room's `metrics.jsonl`); the runs know
nothing of who watches them.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from bothways.study.contenders import title
from bothways.study.plan import Job

STATUS_FILE = "status.json"
HEARTBEAT = 15.0
"""Seconds between plain lines while nothing ends."""


@dataclass
class Live:
    """One run that is going on."""

    job: Job
    folder: Path
    started: float
    phase: str = "starting"
    detail: str = ""
    share: float = 0.0
    metrics: dict[str, Any] = field(default_factory=dict)
    _offset: int = 0

    def refresh(self) -> None:
        """Read what the run has written since."""
        status = _json(self.folder / STATUS_FILE)
        if status:
            self.phase, self.detail = str(status.get("phase", "")), str(status.get("detail", ""))
            self.share = float(status.get("share", 0.0))
        file = self.folder / "training" / "metrics.jsonl"
        try:
            with file.open("rb") as stream:
                stream.seek(self._offset)
                tail = stream.read()
        except OSError:
            return
        whole, _, _ = tail.rpartition(b"\n")
        self._offset += len(whole) + 1 if whole else 0
        for line in whole.splitlines():
            try:
                self.metrics.update(json.loads(line))
            except ValueError:
                continue
        if self.phase == "training" and status and status.get("steps"):
            self.share = float(self.metrics.get("step", 0)) / float(status["steps"])

    def line(self) -> str:
        """One line: what it does, how far, how fast."""
        parts = [self.phase if not self.detail else f"{self.phase}: {self.detail}"]
        if self.phase == "training":
            parts = [f"training {self.share:4.0%}"]
            if "loss" in self.metrics:
                parts.append(f"loss {float(self.metrics['loss']):.3f}")
            if "tokens_per_second" in self.metrics:
                parts.append(f"{float(self.metrics['tokens_per_second']):,.0f} tokens/s")
        return ", ".join(parts)


def label(job: Job) -> str:
    """What a run is called on the screen: "known source · Causal decoder · seed 0"."""
    source = "known source" if job.source == "known" else "real text"
    names = {"prepare": "preparing text", "timing": "timing contenders in turns", "controls": "counting controls"}
    name = names.get(job.contender) or title(job.contender)
    return f"{source} · {name}" + ("" if job.contender in names else f" · seed {job.seed}")


def clock(seconds: float) -> str:
    """Seconds as people say them: "40 s", "3 min 20 s", "2 h 05 min"."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


class Display:
    """Where progress goes. `stream` is a terminal or not; the two never mix."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self.stream = stream or sys.stderr
        self.pretty = self.stream.isatty()
        self._live: Any = None
        self._last = 0.0

    @contextmanager
    def open(self) -> Iterator[Display]:
        """Show the moving table, on a terminal, until the block ends."""
        if not self.pretty:
            yield self
            return
        from rich.console import Console
        from rich.live import Live as RichLive

        with RichLive(console=Console(file=self.stream), refresh_per_second=4, transient=True) as live:
            self._live = live
            try:
                yield self
            finally:
                self._live = None

    def say(self, line: str) -> None:
        """One lasting line."""
        if self._live is not None:
            self._live.console.print(line, highlight=False, markup=False)
        else:
            print(line, file=self.stream, flush=True)
        self._last = time.monotonic()

    def show(self, done: int, total: int, left: float | None, running: Sequence[Live]) -> None:
        """The state of the whole study: runs done, time left, and each run that is going on."""
        remaining = "" if left is None else f", about {clock(left)} left"
        head = f"{done} of {total} runs done{remaining}"
        if self._live is not None:
            self._live.update(_table(head, done, total, running))
        elif time.monotonic() - self._last > HEARTBEAT:
            self.say(head + "".join(f" | {label(live.job)}: {live.line()}" for live in running))


def _table(head: str, done: int, total: int, running: Sequence[Live]) -> Any:
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    rows = Table.grid(padding=(0, 1))
    rows.add_column(no_wrap=True)
    rows.add_column(no_wrap=True)
    rows.add_column(no_wrap=True, overflow="ellipsis")
    for live in running:
        rows.add_row(ProgressBar(total=1.0, completed=min(1.0, live.share), width=12), Text(label(live.job), "bold"),
                     Text(live.line(), "dim"))
    return Group(Text(head), ProgressBar(total=max(1, total), completed=done, width=60), rows)


def _json(path: Path) -> dict[str, Any] | None:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return data if isinstance(data, dict) else None
