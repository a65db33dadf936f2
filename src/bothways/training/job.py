"""What a run is made of before its first step, and whose folder it is."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bothways import objectives
from bothways.errors import BothwaysError
from bothways.model import LanguageModel, cost
from bothways.objectives.base import Objective
from bothways.objectives.options import need_sentences
from bothways.text.prepare import Prepared
from bothways.training import start
from bothways.training.budget import steps_of
from bothways.training.calibration import calibrate, side_by_side
from bothways.training.config import TrainConfig, merge
from bothways.training.data import Batches, Source
from bothways.training.environment import describe as describe_environment
from bothways.training.files import plain, read_json, write_json
from bothways.training.held_out import SEED as HELD_OUT_SEED
from bothways.training.loop import Loop
from bothways.training.precision import Found, find


@dataclass(frozen=True)
class Job:
    """Everything a run is made of, before its first step."""

    config: TrainConfig
    objective: Objective
    prepared: Prepared
    folder: Path
    precision: Found

    @property
    def checkpoints(self) -> Path:
        """Where its checkpoints lie."""
        return self.folder / "checkpoints"

    @functools.cached_property
    def flops_per_token(self) -> float:
        """Training FLOPs per raw token."""
        return flops_per_token(self.config, self.objective, self.prepared)

    @functools.cached_property
    def tokens_per_step(self) -> float:
        """Mean raw tokens of a step."""
        return tokens_per_step(self.prepared.train, self.config.batch_tokens)

    def loop(self, steps: int) -> Loop:
        """A fresh network, its first weights a function of the seed alone, or those of the model it goes on from."""
        torch.manual_seed(self.config.seed)
        network = LanguageModel(self.config.model).to(self.precision.device, self.precision.dtype)
        loop = Loop(self.config, self.objective, network, self.precision, steps)
        if self.config.start is not None:
            masters = loop.optimiser.masters
            masters.load(start.weights(self.config, masters.tensors), self.config.start)
        return loop

    def batches(self, steps: int) -> Batches:
        """The batches of a run of that many steps."""
        config = self.config
        return Batches(self.prepared.train, self.objective, seed=config.seed, tokens=config.batch_tokens, steps=steps,
                       micro=config.micro_batch)


LOOKED_AT = 10_000
"""Windows that are looked at at most, evenly spread, to see whether a text has sentences."""


def resolved(config: TrainConfig, prepared: Prepared) -> tuple[TrainConfig, Objective]:
    """The config with what follows from text and objective filled in, and the objective.

    The vocabulary is the tokenizer's. An objective for two towers and a config with one: its blocks are shared out,
    the encoder getting half of them (rounded down).

    Raises:
        BothwaysError: an unknown objective or option; one tower's objective with a config of two.
    """
    objective = objectives.make(config.objective, prepared.tokenizer.vocabulary)
    if objective.reads_turns and prepared.train.cut != "turns":
        raise BothwaysError(f"the objective '{objective.name}' learns answers to questions, but this text was cut by "
                            f"'{prepared.train.cut}': read records with text.cut: turns, or choose another objective")
    if objective.needs_sentences:
        windows = prepared.train
        some = range(0, len(windows), -(-len(windows) // LOOKED_AT))
        need_sentences(objective.name, objective.vocabulary, (windows[index].ids for index in some))
    shape = dataclasses.replace(config.model.shape, vocabulary=prepared.tokenizer.vocabulary.size)
    if objective.stack == "two towers" and not shape.source_layers:
        if shape.layers < 2:
            raise BothwaysError(f"the objective '{objective.name}' needs two towers, but model.shape.layers is "
                                f"{shape.layers}: give it at least 2, or set model.shape.source_layers")
        shape = dataclasses.replace(shape, layers=shape.layers - shape.layers // 2, source_layers=shape.layers // 2)
    if objective.stack == "one tower" and shape.source_layers:
        raise BothwaysError(f"the objective '{objective.name}' trains one tower, but model.shape.source_layers is "
                            f"{shape.source_layers}: set it to 0 or choose span-corruption or denoising")
    model = dataclasses.replace(config.model, shape=shape, companions=objective.companions)
    return dataclasses.replace(config, model=model, objective=plain(objective.describe())), objective


_FREE = ("record", "keep_memory", "prefetch")
"""What may change between the calls of one run, since no weight depends on it."""


def claim(config: TrainConfig, prepared: Prepared, folder: Path) -> Job:
    """Write config.json and environment.json, or check that the folder holds this very run.

    Raises:
        BothwaysError: another run lies there (every difference is named), or files that are no run.
    """
    config, objective = resolved(config, prepared)
    described = plain({**config.describe(), "text": text_of(prepared)})
    file, environment = folder / "config.json", folder / "environment.json"
    if file.exists():
        differences = list(_differences(_filled(read_json(file)), described))
        if differences:
            raise BothwaysError(f"{folder} holds another run ({'; '.join(differences)}): choose another folder, or "
                                "repeat the call that made it to go on with it")
        # "auto" finds what it found the first time, also on another machine
        found = read_json(environment) if environment.exists() else {}
        precision = find(found.get("dtype", config.precision), config.device)
        return Job(config, objective, prepared, folder, precision)
    vacant(folder)
    precision = find(config.precision, config.device)
    write_json(environment, describe_environment(precision))
    write_json(file, described)
    return Job(config, objective, prepared, folder, precision)


BESIDE = ("text", "tensorboard")
"""What a caller may keep in a run's folder."""


def vacant(folder: Path) -> None:
    """Whether a run may begin or go on in this folder.

    Raises:
        BothwaysError: there are files in it, but no run; or it is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise BothwaysError(f"{folder} is a file, but a run needs a folder: choose another one")
    if folder.is_dir() and not (folder / "config.json").exists():
        others = sorted(path.name for path in folder.iterdir() if path.name not in BESIDE and path.name[0] != ".")
        if others and others != ["environment.json"]:
            raise BothwaysError(f"{folder} holds other files ({', '.join(others[:3])}) and no run: "
                                "choose a new or empty folder")


def text_of(prepared: Prepared) -> dict[str, Any]:
    """What tells one prepared text from another."""
    return {"tokenizer": prepared.tokenizer.fingerprint, "windows": len(prepared.train),
            "tokens": int(prepared.train.tokens), "held_out_windows": len(prepared.valid)}


def _filled(stored: dict[str, Any]) -> dict[str, Any]:
    """What an earlier version wrote, with the choices that have come since at what they were: their defaults."""
    filled = merge(plain(TrainConfig().describe()), stored)
    return {**filled, **{key: stored[key] for key in ("objective",) if key in stored}}


def _differences(stored: dict[str, Any], wanted: dict[str, Any], path: str = "") -> Iterator[str]:
    """Sentences such as "seed is 1 there and 2 here"."""
    for key in dict.fromkeys([*stored, *wanted]):
        left, right = stored.get(key), wanted.get(key)
        if left == right or (not path and key in _FREE):
            continue
        if isinstance(left, dict) and isinstance(right, dict):
            yield from _differences(left, right, f"{path}{key}.")
        else:
            yield f"{path}{key} is {left} there and {right} here"


def steps(job: Job) -> int:
    """What the budget pays for; a budget in seconds is timed once and written down."""
    budget = job.config.allowance
    if budget.unit == "seconds":
        record = calibrate(job.folder / "calibration.json", budget, lambda steps: (job.loop(steps), job.batches(steps)))
        return int(record["steps"])
    return steps_of(budget, job.tokens_per_step, job.flops_per_token)


def steps_side_by_side(configs: Mapping[str, TrainConfig], prepared: Prepared) -> dict[str, int]:
    """Steps for each of several runs on one text whose budgets are the same number of seconds, timed in turns."""
    made: dict[str, Callable[[int], tuple[Loop, Batches]]] = {}
    for name, given in configs.items():
        config, objective = resolved(given, prepared)
        job = Job(config, objective, prepared, Path(), find(config.precision, config.device))
        made[name] = lambda count, job=job: (job.loop(count), job.batches(count))  # type: ignore[misc]
    return side_by_side(made, next(iter(configs.values())).allowance)


def tokens_per_step(windows: Source, batch_tokens: int) -> float:
    """The mean raw tokens of a step, from the first 4,096 windows of an order that is the same for all seeds."""
    if not len(windows):
        raise BothwaysError("the corpus has no training window: add text, or lower --window or --held-out")
    totals, total = [], 0
    for index in windows.order(HELD_OUT_SEED, 0)[:4096]:
        length = len(windows[int(index)].ids)
        if total and total + length > batch_tokens:
            totals.append(total)
            total = 0
        total += length
    return sum(totals) / len(totals) if totals else float(min(total, batch_tokens))


def flops_per_token(config: TrainConfig, objective: Objective, prepared: Prepared) -> float:
    """Training FLOPs per raw token, at the mean length of the windows."""
    length = max(1, round(prepared.train.tokens / max(1, len(prepared.train))))
    return float(cost.flops(config.model, objective.profile, length, training=True))
