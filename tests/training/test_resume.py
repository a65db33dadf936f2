"""A run that is killed and called again does what an unbroken one does, to the bit."""

from __future__ import annotations

import dataclasses
import json
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.training import processes
from tests.training.small import small_config

from bothways.errors import BothwaysError
from bothways.text.prepare import Prepared
from bothways.training import Averaging, Record, TrainConfig, Watcher, checkpoint, read_metrics, train

STEPS = 14
RECORD = Record(log_every=1, held_out_tokens=64, checkpoint_seconds=1e9, checkpoint_steps=3)
CONFIGS = {
    "plain": small_config(budget=f"{STEPS} steps", record=RECORD),
    "everything": small_config(
        budget=f"{STEPS} steps",
        record=RECORD,
        precision="bfloat16",
        micro_batch=64,
        z_loss=1e-4,
        objective="0.5 next-token + 0.5 masked-next",
        averaging=Averaging("ema", 0.9),
    ),
    "two towers": small_config(budget=f"{STEPS} steps", record=RECORD, objective="denoising", optimizer="adamw"),
}


@pytest.fixture(scope="module", params=list(CONFIGS))
def unbroken(
    request: pytest.FixtureRequest,
    prepared: Prepared,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[TrainConfig, Path]:
    folder = tmp_path_factory.mktemp("unbroken") / "run"
    threads = torch.get_num_threads()
    train(CONFIGS[request.param], prepared, folder, threads=1, show=False)
    torch.set_num_threads(threads)
    return CONFIGS[request.param], folder


def results(folder: Path) -> list[dict[str, Any]]:
    """Every line of the metrics without what a clock says."""
    return [
        {key: value for key, value in line.items() if key not in ("seconds", "tokens_per_second")}
        for line in read_metrics(folder / "metrics.jsonl")
    ]


def assert_same(one: Path, other: Path) -> None:
    assert results(one) == results(other)
    assert (one / "model" / "model.safetensors").read_bytes() == (other / "model" / "model.safetensors").read_bytes()


def test_killed_at_random_steps(
    unbroken: tuple[TrainConfig, Path], prepared: Prepared, tmp_path: Path, server: Any
) -> None:
    config, folder = unbroken
    points = sorted(random.SystemRandom().sample(range(1, STEPS + 1), 5 if config is CONFIGS["everything"] else 2))
    for point in points:
        child = server.Process(
            target=processes.train_until_killed, args=(config, prepared.folder, tmp_path / "run", point)
        )
        child.start()
        child.join()
        assert child.exitcode == -signal.SIGKILL, f"killed at {points}, now at {point}"
    train(config, prepared, tmp_path / "run", threads=1, show=False)
    assert_same(folder, tmp_path / "run")


def test_a_line_is_there_for_every_step_once(unbroken: tuple[TrainConfig, Path]) -> None:
    lines = read_metrics(unbroken[1] / "metrics.jsonl")
    assert [line["step"] for line in lines if "loss" in line] == list(range(1, STEPS + 1))
    assert [line["step"] for line in lines if "held_out" in line] == [1, 2, 3, 4, 6, 8, 11, STEPS]


@pytest.mark.parametrize("call", [1, 3, 9, 12])
def test_killed_while_a_checkpoint_is_written(prepared: Prepared, tmp_path: Path, server: Any, call: int) -> None:
    config = CONFIGS["plain"]
    child = server.Process(target=processes.kill_while_saving, args=(config, prepared.folder, tmp_path / "run", call))
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    train(config, prepared, tmp_path / "run", threads=1, show=False)
    train(config, prepared, tmp_path / "whole", threads=1, show=False)
    assert_same(tmp_path / "run", tmp_path / "whole")
    assert not list((tmp_path / "run" / "checkpoints").glob(".*"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_writes_a_checkpoint_and_says_how_to_go_on(
    prepared: Prepared, tmp_path: Path, server: Any, number: signal.Signals
) -> None:
    config = dataclasses.replace(
        CONFIGS["plain"], budget="400 steps", record=Record(log_every=1, checkpoint_seconds=1e9, keep="last")
    )
    seen = tmp_path / "seen"
    child = server.Process(target=processes.train_slowly, args=(config, prepared.folder, tmp_path / "run", seen))
    child.start()
    until = time.monotonic() + 60
    while not seen.exists() and time.monotonic() < until:
        time.sleep(0.01)
    assert child.pid is not None
    import os

    os.kill(child.pid, number)
    child.join()
    assert child.exitcode == 130
    step = checkpoint.steps(tmp_path / "run" / "checkpoints")[-1]
    assert step >= 1 and f"at step {step} of 400" in seen.with_suffix(".error").read_text()
    assert read_metrics(tmp_path / "run" / "metrics.jsonl")[-1]["step"] == step


class Fails(Watcher):
    def stepped(self, record: Any) -> None:
        if record["step"] == 7:
            raise RuntimeError("a watcher that fails")


@pytest.fixture
def stopped(prepared: Prepared, tmp_path: Path) -> Path:
    """A run that ended at step 7 and can be resumed from step 6."""
    with pytest.raises(RuntimeError, match="a watcher"):
        train(CONFIGS["plain"], prepared, tmp_path / "run", watchers=[Fails()], show=False)
    return tmp_path / "run"


def test_a_run_ends_where_another_one_lies(prepared: Prepared, stopped: Path) -> None:
    other = dataclasses.replace(CONFIGS["plain"], seed=5, batch_tokens=64)
    with pytest.raises(
        BothwaysError, match=r"another run \(seed is 0 there and 5 here; batch_tokens is 128 there"
    ) as raised:
        train(other, prepared, stopped, show=False)
    assert raised.value.exit_code == 2
    (stopped.parent / "strange").mkdir()
    (stopped.parent / "strange" / "thesis.tex").write_text("")
    with pytest.raises(BothwaysError, match=r"other files \(thesis.tex\)"):
        train(other, prepared, stopped.parent / "strange", show=False)


def test_choices_that_came_later_are_at_their_defaults(prepared: Prepared, tmp_path: Path) -> None:
    config = small_config(budget="4 steps", record=RECORD)
    train(config, prepared, tmp_path / "run", show=False)
    file = tmp_path / "run/config.json"
    stored = json.loads(file.read_text())
    del stored["model"]["head"], stored["model"]["norm"]["first"], stored["averaging"]
    file.write_text(json.dumps(stored))
    train(config, prepared, tmp_path / "run", show=False)
    other = dataclasses.replace(config, averaging=Averaging("ema", 0.9))
    with pytest.raises(BothwaysError, match=r"another run \(averaging"):
        train(other, prepared, tmp_path / "run", show=False)


def test_what_is_recorded_may_change(prepared: Prepared, stopped: Path) -> None:
    record = dataclasses.replace(RECORD, log_every=5)
    assert (
        train(dataclasses.replace(CONFIGS["plain"], record=record, prefetch=False), prepared, stopped, show=False).steps
        == STEPS
    )


def test_a_damaged_checkpoint_stops_the_run_with_its_name(prepared: Prepared, stopped: Path) -> None:
    newest = checkpoint.newest(stopped / "checkpoints")
    assert newest is not None
    file = newest / "optimiser.safetensors"
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(BothwaysError, match=r"step-00000006/optimiser.safetensors is truncated"):
        train(CONFIGS["plain"], prepared, stopped, show=False)


def test_a_checkpoint_of_another_shape_names_both(prepared: Prepared, stopped: Path) -> None:
    newest = checkpoint.newest(stopped / "checkpoints")
    assert newest is not None
    stored = checkpoint.load(newest)
    stored.tensors["weights"]["embedding.weight"] = torch.zeros(7, 16)
    checkpoint.save(
        stopped / "checkpoints",
        6,
        checkpoint.Checkpoint(
            {key: value for key, value in stored.state.items() if key not in ("format", "step")}, stored.tensors
        ),
    )
    with pytest.raises(BothwaysError, match=r"embedding.weight' has the shape \(7, 16\), .* needs \(\d+, 16\)"):
        train(CONFIGS["plain"], prepared, stopped, show=False)
