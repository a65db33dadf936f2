"""Runs a plan: each run in a process of its own, several at once, resumable, and never losing the others.

A finished run has `result.json` and is passed over; one that was stopped goes on from its checkpoint. The processes
are forked from a server that has loaded the libraries once, since loading takes longer than many a small run.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from bothways.errors import BothwaysError
from bothways.study import plan as plans
from bothways.study.plan import STEPS_FILE, Job, Plan, Source
from bothways.study.progress import STATUS_FILE, Display, Live, clock, label
from bothways.study.results import FAILURE_FILE, RESULT_FILE, read_json

JOB_FILE = "run.json"
PREPARED_FILE = "prepared.json"
FIRST = ("prepare", "timing")
"""What a source needs before its runs: its text, and what a budget in seconds is worth to each contender."""
POLL = 0.2
GRACE = 120.0
"""Seconds a run gets to write its checkpoint after Ctrl-C."""
MEASURING = {"smoke": 4.0, "quick": 15.0, "full": 180.0}
"""Seconds that measuring a run takes, as long as none has been timed."""
PREPARING = {"known": 3.0, "text": 30.0}
TIMING = 10.0


@dataclass
class Outcome:
    """What came of a study's runs."""

    finished: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    seconds: float = 0.0


def run(folder: Path, plan: Plan, display: Display) -> Outcome:
    """Do everything a plan says that has not been done yet.

    Raises:
        KeyboardInterrupt: stopped by the user; every run has written a checkpoint by then.
        BothwaysError: the text of a source cannot be prepared.
    """
    return _Runner(folder, plan, display).run()


class _Runner:
    """The state of one call: what waits, what runs, what is done."""

    def __init__(self, folder: Path, plan: Plan, display: Display) -> None:
        self.folder, self.plan, self.display = folder, plan, display
        self.first = [Job(source.key, "prepare", 0) for source in plan.study.sources]
        self.first += [Job(source.key, "timing", 0) for source in plan.study.sources if in_seconds(source)]
        self.jobs = plan.jobs()
        self.waiting: list[Job] = []
        self.running: dict[Job, tuple[BaseProcess, Live]] = {}
        self.pipes: dict[Job, Any] = {}
        self.outcome = Outcome()
        self.measured: dict[str, list[float]] = {}
        self.context: Any = multiprocessing.get_context("forkserver" if os.name == "posix" else "spawn")
        if os.name == "posix":
            self.context.set_forkserver_preload(["bothways.study.worker"])

    def run(self) -> Outcome:
        """Work until no run is left, each in a process of its own; what was done and what failed."""
        start = time.monotonic()
        # 1. what is left to do; failures are tried again
        self.waiting = [job for job in (*self.first, *self.jobs) if not self._done(job)]
        self.outcome.finished = [job.name for job in self.jobs if self._done(job)]
        if self.outcome.finished and self.waiting:
            self.display.say(f"continuing: {len(self.outcome.finished)} of {len(self.jobs)} runs are done already")
        # 2. keep the workers busy
        try:
            with self.display.open():
                while self.waiting or self.running:
                    self._start_ready()
                    time.sleep(POLL)
                    self._collect()
                    self.display.show(len(self.outcome.finished) + len(self.outcome.failed), len(self.jobs),
                                      self.left(), [live for _, live in self.running.values()])
        except BaseException:
            self._stop()
            raise
        self.outcome.seconds = time.monotonic() - start
        return self.outcome

    # -- what is ready

    def _done(self, job: Job) -> bool:
        if job.contender in FIRST:
            return (self.folder / "data" / job.source / _made_by(job)).exists()
        return (self._place(job) / RESULT_FILE).exists()

    def _place(self, job: Job) -> Path:
        return self.folder / "runs" / job.name

    def _ready(self, job: Job) -> bool:
        needed = FIRST[:FIRST.index(job.contender)] if job.contender in FIRST else FIRST if job.trains else FIRST[:1]
        return all(self._done(Job(job.source, name, 0)) for name in needed
                   if name != "timing" or in_seconds(self.plan.source(job.source)))

    def _steps(self, job: Job) -> int | None:
        """The steps that a budget in seconds is worth to this contender, the same for all its seeds."""
        known = read_json(self.folder / "data" / job.source / STEPS_FILE)
        return None if known is None or not job.trains else int(known[job.contender])

    # -- starting and ending

    def _start_ready(self) -> None:
        for job in list(self.waiting):
            if len(self.running) >= self.plan.study.workers:
                return
            if self._ready(job):
                self.waiting.remove(job)
                self._start(job)

    def _start(self, job: Job) -> None:
        from bothways.study import worker

        place = self._place(job)
        place.mkdir(parents=True, exist_ok=True)
        for name in (FAILURE_FILE, STATUS_FILE):
            (place / name).unlink(missing_ok=True)
        plans.write_json(place / JOB_FILE, self._told(job))
        # the run holds one end of a pipe and learns from it when this process, which holds the other, is gone
        theirs, ours = self.context.Pipe(duplex=False)
        process = self.context.Process(target=worker.child, args=(str(place), theirs), name=job.name)
        process.start()
        theirs.close()
        self.running[job] = (process, Live(job, place, time.monotonic()))
        self.pipes[job] = ours
        if not self.display.pretty:
            self.display.say(f"started   {label(job)}")

    def _told(self, job: Job) -> dict[str, Any]:
        """Everything a run has to know; its folder is then enough to repeat it."""
        source = self.plan.source(job.source)
        return {"study": str(self.folder.resolve()), "source": asdict(source), "contender": job.contender,
                "seed": job.seed, "size": {**asdict(self.plan.chosen[job.source]), "until": None},
                "steps": self._steps(job), "contenders": list(self.plan.study.contenders),
                "threads": self.plan.study.threads, "device": self.plan.study.device,
                "controls": list(self.plan.study.controls)}

    def _collect(self) -> None:
        for job, (process, live) in list(self.running.items()):
            live.refresh()
            if process.is_alive():
                continue
            process.join()
            del self.running[job]
            self.pipes.pop(job).close()
            if self._done(job):
                self._finished(job, live)
            else:
                self._failed(job, process)

    def _finished(self, job: Job, live: Live) -> None:
        took = time.monotonic() - live.started
        if job.contender in FIRST:
            self.display.say(f"finished  {label(job)} in {clock(took)}")
            return
        stored = read_json(self._place(job) / RESULT_FILE) or {}
        self.outcome.finished.append(job.name)
        self.measured.setdefault(job.source, []).append(float(stored.get("seconds", {}).get("measuring", 0.0)))
        self.display.say(f"finished  {label(job)} in {clock(took)}{_remark(stored)}")

    def _failed(self, job: Job, process: BaseProcess) -> None:
        place = self._place(job)
        stored = read_json(place / FAILURE_FILE)
        message = str(stored["message"]) if stored else _ended(process.exitcode)
        if stored is None:
            plans.write_json(place / FAILURE_FILE, {"message": message, "expected": False})
        if job.contender in FIRST:
            raise BothwaysError(message, int(stored.get("exit_code", 1)) if stored else 1)
        self.outcome.failed.append(job.name)
        self.display.say(f"FAILED    {label(job)}: {message} (see {place / 'log.txt'})")

    def _stop(self) -> None:
        """Ask every run to write a checkpoint and end; end those that do not, by their own number."""
        for process, _ in self.running.values():
            _signal(process, signal.SIGINT)
        deadline = time.monotonic() + GRACE
        for process, _ in self.running.values():
            process.join(max(0.1, deadline - time.monotonic()))
            if process.is_alive():
                process.kill()
                process.join()
        self.running.clear()

    # -- how long still

    def left(self) -> float | None:
        """Seconds until the last run ends, as far as can be said."""
        work = [self._expected(job, None) for job in self.waiting]
        work += [self._expected(job, live) for job, (_, live) in self.running.items()]
        if any(part is None for part in work):
            return None
        known = [part for part in work if part is not None]
        return max(sum(known) / self.plan.study.workers, max(known, default=0.0))

    def _expected(self, job: Job, live: Live | None) -> float | None:
        """Seconds that a run still needs."""
        if job.contender in FIRST:
            spent = 0.0 if live is None else time.monotonic() - live.started
            return max(1.0, (TIMING if job.contender == "timing" else PREPARING[job.source]) - spent)
        measuring = expected_measuring(self.plan, job, self.measured.get(job.source, []))
        training = expected_training(self.plan, job)
        if live is None:
            return training + measuring
        if live.phase == "training" or live.phase == "starting":
            return (1 - live.share) * training + measuring
        return max(1.0, (1 - live.share) * measuring)


def in_seconds(source: Source) -> bool:
    """Whether the budget of a source's runs is time, whose worth in steps has to be found out."""
    from bothways.training.budget import Budget

    return Budget.parse(source.budget).unit == "seconds"


def _made_by(job: Job) -> str:
    """The file that one of the first jobs leaves in the source's folder."""
    return PREPARED_FILE if job.contender == "prepare" else STEPS_FILE


def expected_training(plan: Plan, job: Job) -> float:
    """Seconds of training, from the budget in FLOPs and what the machine is believed to do."""
    from bothways.study import sizes

    if not job.trains:
        return 0.0
    study = plan.study
    rate = sizes.CPU_THREAD_FLOPS * study.threads if study.device == "cpu" else sizes.ACCELERATOR_FLOPS
    return plan.flops[job.source] / rate


def expected_measuring(plan: Plan, job: Job, measured: Sequence[float] = ()) -> float:
    """Seconds of measuring: what other runs took, or a guess."""
    return sum(measured) / len(measured) if measured else MEASURING[plan.source(job.source).effort]


def expected_seconds(plan: Plan) -> float:
    """How long the whole study will take, said before it begins."""
    jobs = plan.jobs()
    work = sum(expected_training(plan, job) + expected_measuring(plan, job) for job in jobs)
    first = sum(PREPARING[source.key] + TIMING * in_seconds(source) for source in plan.study.sources)
    return first + work / plan.study.workers


def _signal(process: BaseProcess, number: int) -> None:
    if process.pid is not None and process.is_alive():
        try:
            os.kill(process.pid, number)
        except ProcessLookupError:
            pass


def _ended(code: int | None) -> str:
    """Why a process without a message ended."""
    if code is not None and code < 0:
        name = signal.Signals(-code).name
        hint = " (most often: not enough memory; try --workers 1)" if name == "SIGKILL" else ""
        return f"its process was ended by {name}{hint}"
    return f"its process ended with code {code}"


def _remark(stored: dict[str, Any]) -> str:
    """The figures worth a glance when a run ends."""
    training = stored.get("training") or {}
    if not training:
        return ""
    return f" ({training['steps']:,} steps, {training['tokens'] / 1e6:.2f}M tokens)"
