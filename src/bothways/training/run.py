"""A run from its config to a trained model in a folder; called again with the same config it goes on where it was.

    config.json         every choice, the objective with all its options, the text's fingerprint
    environment.json    versions, processor, threads, number format
    calibration.json    only for a budget in seconds: the number of steps it pays for
    metrics.jsonl       one line per logged step and per held-out measurement
    checkpoints/        see `checkpoint`
    model/              the trained model, in the Hugging Face layout
    summary.json        tokens, FLOPs, seconds and steps spent, and the last losses
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bothways.batch import Key
from bothways.errors import BothwaysError
from bothways.families import folder as families
from bothways.model import LanguageModel, cost
from bothways.model.allocator import keep_memory
from bothways.text.prepare import Prepared
from bothways.training import checkpoint
from bothways.training.budget import Cost
from bothways.training.config import TrainConfig
from bothways.training.data import Batches, Place, another
from bothways.training.files import read_json, write_json
from bothways.training.held_out import HeldOut
from bothways.training.job import Job, claim, text_of
from bothways.training.job import steps as steps_of
from bothways.training.loop import Loop, NotFinite, Totals
from bothways.training.schedule import geometric
from bothways.training.signals import Stop
from bothways.training.watchers import Console, JsonLines, Outlook, Watcher, Watchers

LINES = 1000
"""About how many steps a run logs unless it is told."""
KEPT = 2
"""Checkpoints kept to resume from."""


@dataclass(frozen=True)
class Run:
    """What came out of a run. All four currencies are what was really spent."""

    folder: Path
    steps: int
    tokens: int
    flops: float
    seconds: float
    loss: float
    held_out: dict[str, Any] | None
    parameters: dict[str, int]

    @property
    def model(self) -> Path:
        """The folder of the trained model."""
        return self.folder / "model"

    def load(self) -> families.Trained:
        """The trained model."""
        return families.load(self.model)


def train(config: TrainConfig, prepared: Prepared, folder: str | Path, *, watchers: Sequence[Watcher] = (),
          threads: int | None = None, show: bool = True) -> Run:
    """Train one model.

    Args:
        config: all choices; the vocabulary's size and, for an objective that needs two towers and a config with
            one, the towers are filled in (`resolved`).
        prepared: a `text.prepare.Prepared`: tokenizer, `train` and `valid` windows.
        folder: the run's; if it holds checkpoints of the same config, the run goes on from the last one.
        watchers: who else looks on.
        threads: of torch; results repeat to the bit only with the same number. As it is when none.
        show: print the plan and progress.
    Raises:
        BothwaysError: the folder holds another run; a checkpoint that cannot be used; a full disk or a loss that is
            not finite (exit code 1); Ctrl-C or SIGTERM, after a checkpoint (exit code 130).
    """
    # 1. what is asked for
    if threads is not None:
        torch.set_num_threads(threads)
    if config.keep_memory:
        keep_memory()
    job = claim(config, prepared, Path(folder))
    if (finished := _finished(job)) is not None:
        return finished
    # 2. how long it takes
    steps = steps_of(job)
    loop, batches = job.loop(steps), job.batches(steps)
    held_out = HeldOut(prepared.valid, job.objective, tokens=job.config.record.held_out_tokens,
                       micro=job.config.micro_batch)
    # 3. where it stands
    checkpoint.sweep(job.checkpoints)
    _resume(job, loop)
    # 4. the steps that are left, and what they led to
    every = job.config.record.log_every or max(1, steps // LINES)
    everyone = Watchers([JsonLines(job.folder / "metrics.jsonl", every), *([Console()] if show else []), *watchers])
    done = False
    try:
        everyone.started(_outlook(job, loop, steps))
        _go(job, loop, batches, held_out, everyone)
        measured = _settle(job, loop, held_out, everyone)
        done = True
    finally:
        everyone.closed(done)
    # 5. the model
    return _write(job, loop, measured)


def _finished(job: Job) -> Run | None:
    """The run that this folder already holds, if it went to its end."""
    file = job.folder / "summary.json"
    if not file.exists() or not (job.folder / "model").is_dir():
        return None
    return _run(job.folder, read_json(file))


def _outlook(job: Job, loop: Loop, steps: int) -> Outlook:

    tokens = round(steps * job.tokens_per_step)
    budget = job.config.allowance
    plan = Cost(steps, tokens, tokens * job.flops_per_token, budget.amount if budget.unit == "seconds" else None)
    windows = job.prepared.train
    sample = windows[int(windows.order(job.config.seed, 0)[0])]
    if job.objective.reads_another:
        sample = sample._replace(other=another(windows, sample, Key(job.config.seed, 0, sample.index),
                                               job.objective.vocabulary.bos))
    return Outlook(job.config, job.objective, job.prepared.tokenizer, loop.network, _parameters(loop.network), plan,
                   job.precision, job.folder, loop.totals.step, sample)


def _parameters(network: LanguageModel) -> dict[str, int]:
    return {name: int(number) for name, number in cost.parameters(network).items()}


def _resume(job: Job, loop: Loop) -> None:
    """Take over the newest checkpoint, if there is one."""
    path = checkpoint.newest(job.checkpoints)
    if path is None:
        return
    stored = checkpoint.load(path)
    loop.optimiser.masters.load(stored.tensors["weights"], str(path / "weights.safetensors"))
    loop.optimiser.load(stored.tensors["optimiser"], str(path / "optimiser.safetensors"))
    loop.average.load(stored.tensors.get("average", {}), str(path / "average.safetensors"))
    state = stored.state
    loop.totals = Totals(state["step"], Place(state["epoch"], state["offset"]), state["tokens"], state["seconds"],
                         state["loss"])
    if state["steps"] != loop.steps:
        raise BothwaysError(f"{path} belongs to a run of {state['steps']} steps, but this one has {loop.steps}: "
                            "choose another folder")


def _go(job: Job, loop: Loop, batches: Batches, held_out: HeldOut, watchers: Watcher) -> None:
    """Every step that is left, with what is measured and saved between them."""
    record, steps, totals = job.config.record, loop.steps, loop.totals
    curve = frozenset(geometric(steps, record.curve))
    kept = frozenset(geometric(steps, 2.0)) if record.keep == "geometric" else frozenset()
    saved = time.monotonic()
    last_good: Path | None = checkpoint.newest(job.checkpoints)
    stream = batches.stream(totals.step + 1, totals.place, job.config.prefetch)
    with Stop() as stop, contextlib.closing(stream):
        began = time.perf_counter()
        for batch in stream:
            # 1. train
            try:
                result = loop.step(batch)
            except NotFinite as error:
                raise _with_checkpoint(error, last_good) from error
            _synchronise(loop.device)
            totals.seconds += time.perf_counter() - began
            spent = _spent(job, loop)
            watchers.stepped({**spent, **result, "last": totals.step == steps})
            # 2. measure
            if totals.step in curve and totals.step < steps:
                try:
                    measured = held_out.measure(loop.network, loop.device)
                except NotFinite as error:
                    raise _with_checkpoint(error, last_good, f" after step {totals.step}") from error
                if measured is not None:
                    watchers.measured({**spent, "held_out": measured})
            # 3. save
            due = (totals.step in kept or totals.step == steps or time.monotonic() - saved > record.checkpoint_seconds
                   or (record.checkpoint_steps is not None and totals.step % record.checkpoint_steps == 0))
            if due or stop.asked:
                last_good = _save(job, loop)
                checkpoint.tidy(job.checkpoints, KEPT, kept)
                saved = time.monotonic()
                watchers.saved(totals.step, last_good)
            if stop.asked and totals.step < steps:
                raise BothwaysError(f"stopped by {stop.asked} at step {totals.step} of {steps}: repeat the same call "
                                    f"to go on from {last_good}", exit_code=130)
            began = time.perf_counter()


def _with_checkpoint(error: NotFinite, last_good: Path | None, when: str = "") -> NotFinite:
    good = f"the last good checkpoint is {last_good}" if last_good else "there is no earlier checkpoint"
    return NotFinite(f"{error}{when}; {good}", exit_code=1)


def _spent(job: Job, loop: Loop) -> dict[str, Any]:
    """Where the run stands, in all four currencies."""
    totals = loop.totals
    return {"step": totals.step, "tokens": totals.tokens, "flops": totals.tokens * job.flops_per_token,
            "seconds": round(totals.seconds, 4)}


def _save(job: Job, loop: Loop) -> Path:
    totals = loop.totals
    state = {"epoch": totals.place.epoch, "offset": totals.place.offset, "tokens": totals.tokens,
             "seconds": totals.seconds, "steps": loop.steps, "seed": job.config.seed, "loss": totals.loss,
             "versions": {"torch": torch.__version__}}
    tensors = {"weights": dict(loop.optimiser.masters.tensors), "optimiser": loop.optimiser.state(),
               "average": loop.average.tensors}
    return checkpoint.save(job.checkpoints, totals.step, checkpoint.Checkpoint(state, tensors))


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _settle(job: Job, loop: Loop, held_out: HeldOut, watchers: Watcher) -> dict[str, Any] | None:
    """Put the final weights (their average, if one was kept) into the network, in float32, and measure them."""
    network = loop.network.float()
    final = loop.average.tensors or loop.optimiser.masters.tensors
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter.copy_(final[name])
    network.eval()
    measured = held_out.measure(network, loop.device)
    if measured is not None:
        watchers.measured({**_spent(job, loop), "held_out": measured, "final": True})
    return measured


def _write(job: Job, loop: Loop, measured: dict[str, Any] | None) -> Run:
    """The model, then the summary: a summary says that all is there."""
    spent = _spent(job, loop)
    report = {"steps": spent.pop("step"), **spent, "loss": loop.totals.loss, "held_out": measured,
              "parameters": _parameters(loop.network), "text": text_of(job.prepared)}
    trained = families.Trained(loop.network, job.objective, job.prepared.tokenizer, report)
    families.save(trained, job.folder / "model")
    write_json(job.folder / "summary.json", report)
    return _run(job.folder, report)


def _run(folder: Path, summary: dict[str, Any]) -> Run:
    return Run(folder, *(summary[name] for name in ("steps", "tokens", "flops", "seconds", "loss", "held_out",
                                                    "parameters")))
