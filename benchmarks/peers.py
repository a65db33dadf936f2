"""Side by side in one process: interleaved rounds, medians, and the ratio with its interval.

A speed says little alone: other work on the machine, its temperature and its memory move it by more than most
ideas do. So contenders take turns, a round each, and what is quoted is the ratio of neighbours in time.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Ratio:
    """How many times faster: the median over rounds, and a bootstrap interval of it."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"


def interleave(steps: Mapping[str, Callable[[], object]], rounds: int, warm: int = 4, per_round: int = 2,
               clock: Callable[[], float] = time.perf_counter) -> dict[str, list[float]]:
    """Seconds of one step of each contender in each round; contenders take turns within a round.

    Args:
        steps: name -> one step of work.
        rounds: how often everybody gets a turn.
        warm: untimed steps of each at the beginning, until its memory has settled.
        per_round: steps in a turn; the fastest counts, so a hiccup of the machine costs one step and not the round.
        clock: seconds; `time.process_time` for work on one thread, which other work on the machine then slows less.
    """
    for step in steps.values():
        for _ in range(warm):
            step()
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    names = list(steps)
    for turn in range(rounds):
        for name in names if turn % 2 == 0 else reversed(names):
            taken = []
            for _ in range(per_round):
                start = clock()
                steps[name]()
                taken.append(clock() - start)
            seconds[name].append(min(taken))
    return seconds


def ratio(slow: Sequence[float], fast: Sequence[float], resamples: int = 2000, seed: int = 0) -> Ratio:
    """How many times as fast the second is: median of per-round ratios, with a 95 % bootstrap interval over rounds."""
    rounds = np.asarray(slow) / np.asarray(fast)
    rng = np.random.default_rng(seed)
    medians = np.median(rng.choice(rounds, (resamples, len(rounds))), axis=1)
    return Ratio(float(np.median(rounds)), *(float(x) for x in np.quantile(medians, (0.025, 0.975))))


def hardware() -> dict[str, object]:
    """What ran: processor, what it can do with bfloat16, threads, versions, and how busy it was before."""
    info = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    lines = dict(line.split(":", 1) for line in info.split("\n\n")[0].replace("\t", "").splitlines() if ":" in line)
    flags = lines.get("flags", "").split()
    return {"processor": lines.get("model name", platform.processor()).strip(),
            "family": lines.get("cpu family", "").strip(),
            "bfloat16": [flag for flag in ("avx512_bf16", "amx_bf16") if flag in flags],
            "cores": os.cpu_count(), "threads": torch.get_num_threads(), "torch": torch.__version__,
            "python": platform.python_version(), "load_before": os.getloadavg()[0]}


def table(rows: Sequence[Sequence[object]], header: Sequence[str]) -> Iterator[str]:
    """Lines of a Markdown table."""
    yield "| " + " | ".join(header) + " |"
    yield "|" + " --- |" * len(header)
    for row in rows:
        yield "| " + " | ".join(str(cell) for cell in row) + " |"


def peak_growth(command: Sequence[str]) -> float:
    """MiB that a fresh process's peak memory grows by in its last part: it prints `peak <MiB>` when it is done."""
    run = subprocess.run([sys.executable, *command], capture_output=True, text=True, check=True, env=dict(os.environ))
    return next(float(line.split()[1]) for line in run.stdout.splitlines() if line.startswith("peak "))


def resident_peak() -> float:
    """The most memory this process has held so far, in MiB (getrusage would count the process that started it, too)."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024


def resident() -> float:
    """What it holds now, in MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def save(name: str, result: Mapping[str, object]) -> Path:
    """Keep a result beside the benchmarks, with the machine it came from."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    aside = path.with_suffix(".tmp")
    aside.write_text(json.dumps({"hardware": hardware(), **result}, indent=2, default=asdict) + "\n")
    aside.replace(path)
    return path


def median_rate(work: float, seconds: Sequence[float]) -> float:
    """Work per second in the median round."""
    return work / statistics.median(seconds)
