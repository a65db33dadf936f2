"""What tests run in processes of their own, which are then killed, interrupted or denied room."""

from __future__ import annotations

import dataclasses
import os
import resource
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from bothways.errors import BothwaysError
from bothways.text.prepare import Prepared
from bothways.training import TrainConfig, Watcher, checkpoint, train


class Killer(Watcher):
    """SIGKILL, from this very process, right after a step: nothing can be tidied up."""

    def __init__(self, step: int) -> None:
        self.step = step

    def stepped(self, record: Mapping[str, Any]) -> None:
        if record["step"] == self.step:
            os.kill(os.getpid(), signal.SIGKILL)


class Slow(Watcher):
    """Leaves time between steps for a signal to arrive; says on a file which step it has seen."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def stepped(self, record: Mapping[str, Any]) -> None:
        self.file.write_text(str(record["step"]))
        time.sleep(0.05)


def train_until_killed(config: TrainConfig, text: Path, folder: Path, step: int) -> None:
    torch.set_num_threads(1)
    train(config, Prepared.load(text), folder, watchers=[Killer(step)], show=False)


def kill_while_saving(config: TrainConfig, text: Path, folder: Path, call: int) -> None:
    """Die at the `call`th time that something is brought to the disk."""
    torch.set_num_threads(1)
    seen = [0]
    to_disk = checkpoint._to_disk

    def dies(path: Path) -> None:
        seen[0] += 1
        if seen[0] == call:
            os.kill(os.getpid(), signal.SIGKILL)
        to_disk(path)

    checkpoint._to_disk = dies
    train(config, Prepared.load(text), folder, show=False)


def train_slowly(config: TrainConfig, text: Path, folder: Path, file: Path) -> None:
    torch.set_num_threads(1)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    try:
        train(config, Prepared.load(text), folder, watchers=[Slow(file)], show=False)
    except BothwaysError as error:
        file.with_suffix(".error").write_text(str(error))
        sys.exit(error.exit_code)


def save_large(folder: Path) -> None:
    """One small checkpoint, then one that is larger than a file may be."""
    small = checkpoint.Checkpoint({}, {"weights": {"w": torch.ones(4)}, "optimiser": {"m": torch.ones(4)}})
    checkpoint.save(folder, 1, small)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
    large = dataclasses.replace(small, tensors={**small.tensors, "weights": {"w": torch.ones(100_000)}})
    try:
        checkpoint.save(folder, 2, large)
    except BothwaysError as error:
        sys.exit(error.exit_code)
