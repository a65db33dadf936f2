"""Who looks on while a run goes: the console, metrics.jsonl, TensorBoard, and whatever a caller adds.

A watcher sees the run and never changes it. What it raises stops the run.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from bothways.aside import replacing
from bothways.batch import Key, Window
from bothways.errors import BothwaysError
from bothways.objectives import Mixture, Objective
from bothways.training.budget import Cost, count, duration
from bothways.training.config import TrainConfig
from bothways.training.precision import Found

SHOWN = 16
"""Tokens of the example that is shown before training."""


@dataclass(frozen=True)
class Outlook:
    """What is known when a run starts.

    parameters: "total", "non_embedding" and "active".
    plan: the whole run in all four currencies; `done` are steps taken before a resume.
    sample: the first window that is read; `tokenizer` prints it.
    """

    config: TrainConfig
    objective: Objective
    tokenizer: Any
    network: Any
    parameters: Mapping[str, int]
    plan: Cost
    precision: Found
    folder: Path
    done: int
    sample: Window


class Watcher:
    """Does nothing; subclasses override what they care for."""

    def started(self, outlook: Outlook) -> None:
        """Before the first step."""

    def stepped(self, record: Mapping[str, Any]) -> None:
        """After each step: step, tokens, flops, seconds, loss, parts, learning_rate, gradient_norm."""

    def measured(self, record: Mapping[str, Any]) -> None:
        """After a held-out measurement: step, tokens, flops, seconds, held_out; "final" with the final weights."""

    def saved(self, step: int, path: Path) -> None:
        """After a checkpoint was written."""

    def closed(self, finished: bool) -> None:
        """At the end, however it came."""


class Watchers(Watcher):
    """Several as one, in their order."""

    def __init__(self, members: Sequence[Watcher]) -> None:
        self.members = list(members)

    def started(self, outlook: Outlook) -> None:
        for member in self.members:
            member.started(outlook)

    def stepped(self, record: Mapping[str, Any]) -> None:
        for member in self.members:
            member.stepped(record)

    def measured(self, record: Mapping[str, Any]) -> None:
        for member in self.members:
            member.measured(record)

    def saved(self, step: int, path: Path) -> None:
        for member in self.members:
            member.saved(step, path)

    def closed(self, finished: bool) -> None:
        for member in self.members:
            member.closed(finished)


class JsonLines(Watcher):
    """metrics.jsonl: one line per logged step, and one per held-out measurement.

    When a run is resumed the lines after its checkpoint are cut off, so that no step is there twice.
    """

    def __init__(self, file: Path, every: int) -> None:
        self.file, self.every = file, every
        self._stream: IO[str] | None = None
        self._last = (0, 0.0)

    def started(self, outlook: Outlook) -> None:
        lines = [line for line in read(self.file) if line["step"] <= outlook.done and not line.get("final")]
        with replacing(self.file) as aside:
            aside.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
        logged = [line for line in lines if "loss" in line]
        self._last = (logged[-1]["tokens"], logged[-1]["seconds"]) if logged else (0, 0.0)
        self._stream = self.file.open("a", encoding="utf-8")

    def stepped(self, record: Mapping[str, Any]) -> None:
        if (record["step"] - 1) % self.every and not record["last"]:
            return
        tokens, seconds = record["tokens"], record["seconds"]
        speed = (tokens - self._last[0]) / max(1e-9, seconds - self._last[1])
        self._last = (tokens, seconds)
        self._write({**{key: value for key, value in record.items() if key != "last"},
                     "tokens_per_second": round(speed, 1)})

    def measured(self, record: Mapping[str, Any]) -> None:
        self._write(record)

    def closed(self, finished: bool) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def _write(self, record: Mapping[str, Any]) -> None:
        """One whole line, handed to the system at once: a killed process leaves at most one cut line."""
        assert self._stream is not None
        self._stream.write(json.dumps(record, allow_nan=False) + "\n")
        self._stream.flush()


def read(file: Path) -> list[dict[str, Any]]:
    """The lines of a metrics file; none if there is no file. A last line that was cut off is left out."""
    lines: list[dict[str, Any]] = []
    if file.exists():
        for text in file.read_text(encoding="utf-8").splitlines():
            with contextlib.suppress(json.JSONDecodeError):
                lines.append(json.loads(text))
    return [line for line in lines if isinstance(line, dict) and "step" in line]


class TensorBoard(Watcher):
    """Event files under the run's folder; needs the package tensorboard."""

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise BothwaysError("--tensorboard needs the package tensorboard: pip install 'bothways[tensorboard]'"
                                ) from error
        self.writer = SummaryWriter(str(folder))  # type: ignore[no-untyped-call]

    def stepped(self, record: Mapping[str, Any]) -> None:
        self._add("loss", record["loss"], record["step"])
        for name, value in record["parts"].items():
            self._add(f"parts/{name}", value, record["step"])
        for name in ("learning_rate", "gradient_norm"):
            self._add(name, record[name], record["step"])

    def measured(self, record: Mapping[str, Any]) -> None:
        self._add("held_out/loss", record["held_out"]["loss"], record["step"])

    def closed(self, finished: bool) -> None:
        self.writer.close()  # type: ignore[no-untyped-call]

    def _add(self, name: str, value: float, step: int) -> None:
        self.writer.add_scalar(name, value, step)  # type: ignore[no-untyped-call]


class Console(Watcher):
    """The plan, then a live line with loss, speed and time left; plain lines where there is no terminal."""

    def __init__(self, stream: IO[str] | None = None, every_seconds: float = 10.0) -> None:
        self.stream = sys.stderr if stream is None else stream
        self.every = every_seconds
        self._bar: Any = None
        self._held_out: float | None = None
        self._steps = 0

    def started(self, outlook: Outlook) -> None:
        # 1. the plan
        shape = outlook.network.config.shape
        towers = f"{shape.source_layers} + {shape.layers}" if shape.source_layers else str(shape.layers)
        total, inner = outlook.parameters["total"], outlook.parameters["non_embedding"]
        self._say(f"model      {towers} layers, {shape.width} wide, vocabulary {shape.vocabulary:,}: {count(total)} "
                  f"parameters ({count(inner)} without embeddings)")
        self._say(f"objective  {outlook.objective.name}: {outlook.objective.summary}")
        self._say(f"budget     {outlook.plan}")
        self._say(f"precision  {outlook.precision}")
        if outlook.done:
            self._say(f"resumed    at step {outlook.done:,} of {outlook.plan.steps:,}, from {outlook.folder}")
        else:
            self._show(outlook)
        # 2. the clock
        self._steps, self._done = outlook.plan.steps, outlook.done
        self._began = self._spoke = time.monotonic()
        self._tokens: int | None = None
        if self.stream.isatty():
            self._bar = _bar(self.stream)
            self._task = self._bar.add_task("training", total=self._steps, completed=self._done, loss="", speed="")
            self._bar.start()

    def stepped(self, record: Mapping[str, Any]) -> None:
        now = time.monotonic()
        if self._tokens is None:  # the first step's own time is not typical
            self._tokens, self._began, self._done = record["tokens"], now, record["step"]
        speed = (record["tokens"] - self._tokens) / max(1e-9, now - self._began)
        held = "" if self._held_out is None else f", held out {self._held_out:.3f}"
        if self._bar is not None:
            self._bar.update(self._task, completed=record["step"], loss=f"loss {record['loss']:.3f}{held}",
                             speed=f"{count(speed)} tokens/s")
        elif now - self._spoke >= self.every or record["last"]:
            self._spoke = now
            taken = record["step"] - self._done
            left = (self._steps - record["step"]) * (now - self._began) / taken if taken else 0.0
            self._say(f"step {record['step']:,}/{self._steps:,}  loss {record['loss']:.3f}{held}  "
                      f"{count(speed)} tokens/s  {duration(left)} left")

    def measured(self, record: Mapping[str, Any]) -> None:
        self._held_out = record["held_out"]["loss"]

    def closed(self, finished: bool) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _show(self, outlook: Outlook) -> None:
        """One example as it will be trained on (of a mixture one of each member), cut short to be read."""
        from rich.console import Console as Screen

        from bothways.pictures import example as story

        screen = Screen(file=self.stream, highlight=False)
        sample = outlook.sample
        if not outlook.objective.reads_turns:
            sample = sample._replace(ids=sample.ids[:SHOWN])
        key = Key(outlook.config.seed, 0, sample.index)
        whole = outlook.objective
        for one in [member.objective for member in whole.members] if isinstance(whole, Mixture) else [whole]:
            screen.print()
            screen.print(story.console(one.corrupt(sample, key), outlook.tokenizer.pieces, one))

    def _say(self, line: str) -> None:
        print(line, file=self.stream, flush=True)


def _bar(stream: IO[str]) -> Any:
    """A progress bar with the columns `loss` and `speed`."""
    from rich.console import Console as Screen
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    return Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
                    TextColumn("{task.fields[loss]}"), TextColumn("{task.fields[speed]}"), TimeRemainingColumn(),
                    TextColumn("left"), console=Screen(file=stream))
