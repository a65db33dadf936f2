from __future__ import annotations

import dataclasses
import io
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.training.small import small_config

from bothways.errors import BothwaysError
from bothways.model import LanguageModel
from bothways.model.config import ModelConfig, Shape
from bothways.text.prepare import Prepared
from bothways.training import (
    Averaging,
    Console,
    JsonLines,
    Record,
    TensorBoard,
    Watcher,
    checkpoint,
    find,
    read_metrics,
    resolved,
    tokens_per_step,
    train,
)
from bothways.training.budget import Budget
from bothways.training.calibration import calibrate
from bothways.training.held_out import HeldOut
from bothways.training.loop import Loop


@pytest.mark.parametrize(
    "objective",
    [
        "next-token",
        "masked",
        "span-corruption",
        "diffusion",
        "0.5 next-token + 0.5 masked-next",
        "0.5 next-token then 0.5 masked",
    ],
)
def test_a_run_leaves_a_folder_that_says_everything(prepared: Prepared, tmp_path: Path, objective: str) -> None:
    run = train(small_config(objective=objective), prepared, tmp_path / "run", show=False)
    assert {path.name for path in run.folder.iterdir()} == {
        "config.json",
        "environment.json",
        "metrics.jsonl",
        "checkpoints",
        "model",
        "summary.json",
    }
    lines = [line for line in read_metrics(run.folder / "metrics.jsonl") if "loss" in line]
    assert len(lines) == run.steps == 12
    assert {"step", "tokens", "flops", "seconds", "loss", "parts", "learning_rate", "tokens_per_second"} <= set(
        lines[-1]
    )
    assert lines[-1]["tokens"] == run.tokens and lines[-1]["loss"] == run.loss
    assert run.flops > 0 and run.parameters["total"] > run.parameters["non_embedding"]
    assert run.held_out is not None and math.isfinite(run.held_out["loss"])
    stored = json.loads((run.folder / "config.json").read_text())
    assert stored["objective"]["name"] and stored["model"]["shape"]["vocabulary"] == prepared.tokenizer.vocabulary.size
    assert json.loads((run.folder / "environment.json").read_text())["dtype"] == "float32"
    trained = run.load()
    assert trained.objective.describe() == resolved(small_config(objective=objective), prepared)[1].describe()


def test_a_network_learns(prepared: Prepared, tmp_path: Path) -> None:
    config = small_config(
        objective="next-token",
        budget="80 steps",
        batch_tokens=256,
        model=ModelConfig(shape=Shape(width=32, layers=2, heads=2)),
    )
    run = train(config, prepared, tmp_path / "run", show=False)
    first = read_metrics(run.folder / "metrics.jsonl")[0]["loss"]
    assert first > 5.5 and run.held_out is not None and run.held_out["loss"] < 2.9, "letters of two dozen words"


def test_accumulation_changes_nothing_but_rounding(prepared: Prepared, tmp_path: Path) -> None:
    """Rows of one window each, or all windows in one row: the losses agree."""
    model = ModelConfig(shape=Shape(width=16, layers=2, heads=2))
    losses = []
    for micro in (None, 32):
        config = small_config(
            objective="0.5 next-token + 0.5 masked-next", micro_batch=micro, model=model, optimizer="adamw"
        )
        train(config, prepared, tmp_path / str(micro), show=False)
        losses.append(
            [line["loss"] for line in read_metrics(tmp_path / str(micro) / "metrics.jsonl") if "loss" in line]
        )
    assert losses[0] == pytest.approx(losses[1], abs=2e-4)


def test_one_seed_gives_contenders_the_same_text_and_other_seeds_other_weights(
    prepared: Prepared, tmp_path: Path
) -> None:
    runs_ = [
        train(small_config(seed=seed), prepared, tmp_path / f"{i}", show=False) for i, seed in enumerate((0, 0, 1))
    ]
    assert runs_[0].loss == runs_[1].loss != runs_[2].loss


@pytest.mark.parametrize(
    ("budget", "check"),
    [
        ("1500 tokens", lambda run: abs(run.tokens - 1500) < 128),
        ("3 steps", lambda run: run.steps == 3),
        ("60 MFLOPs", lambda run: abs(run.flops - 6e7) < 0.3e7 or run.steps == 1),
    ],
)
def test_the_budget_is_what_is_spent(prepared: Prepared, tmp_path: Path, budget: str, check: Any) -> None:
    assert check(train(small_config(budget=budget), prepared, tmp_path / "run", show=False))


def test_seconds_become_steps_once(prepared: Prepared, tmp_path: Path) -> None:
    run = train(small_config(budget="1s"), prepared, tmp_path / "run", show=False)
    record = json.loads((run.folder / "calibration.json").read_text())
    assert record["steps"] == run.steps == max(1, round(1 / record["seconds_per_step"]))
    # once measured, the number stands: nothing is timed again, on whatever machine
    again = calibrate(run.folder / "calibration.json", Budget(1, "seconds"), lambda steps: pytest.fail("timed again"))
    assert again == record
    with pytest.raises(BothwaysError, match="made for a budget of 1"):
        calibrate(run.folder / "calibration.json", Budget(2, "seconds"), lambda steps: pytest.fail("timed again"))


def test_calibration_leaves_no_trace_in_the_result(
    prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bothways.training.calibration._times", lambda make, seconds: [make(5)[0] and 0.1])
    timed = train(small_config(budget="1s"), prepared, tmp_path / "timed", show=False)
    plain = train(small_config(budget="10 steps"), prepared, tmp_path / "plain", show=False)
    assert timed.steps == 10 and timed.loss == plain.loss


def test_a_run_that_is_done_is_not_done_again(
    prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = train(small_config(), prepared, tmp_path / "run", show=False)
    monkeypatch.setattr(Loop, "step", lambda *_: pytest.fail("a finished run took a step"))
    assert train(small_config(), prepared, tmp_path / "run", show=False) == first


@pytest.mark.parametrize(
    ("poisoned", "said"),
    [(5, "the loss is nan at step 6 (epoch 0, windows "), (6, "the held-out loss is nan after step 6")],
)
def test_a_loss_that_is_not_finite_names_step_batch_and_checkpoint(
    prepared: Prepared, tmp_path: Path, poisoned: int, said: str
) -> None:
    class Poison(Watcher):
        def started(self, outlook: Any) -> None:
            self.network = outlook.network

        def stepped(self, record: Mapping[str, Any]) -> None:
            if record["step"] == poisoned:
                with torch.no_grad():
                    self.network.tower.norm.weight.fill_(float("nan"))

    record = Record(log_every=1, checkpoint_seconds=1e9)
    with pytest.raises(BothwaysError) as raised:
        train(small_config(record=record), prepared, tmp_path / "run", watchers=[Poison()], show=False)
    message = str(raised.value)
    assert raised.value.exit_code == 1
    assert said in message and "the last good checkpoint is " in message and "step-00000004" in message
    assert read_metrics(tmp_path / "run" / "metrics.jsonl")[-1]["step"] == poisoned


def test_a_full_disk_ends_the_run_with_a_sentence(
    prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    to_disk = checkpoint._to_disk

    def full(path: Path) -> None:
        if "step-00000008" in str(path):
            raise OSError(28, "No space left on device")
        to_disk(path)

    monkeypatch.setattr(checkpoint, "_to_disk", full)
    with pytest.raises(BothwaysError, match=r"disk is full.*step-00000004") as raised:
        train(small_config(), prepared, tmp_path / "run", show=False)
    assert raised.value.exit_code == 1
    monkeypatch.undo()
    assert train(small_config(), prepared, tmp_path / "run", show=False).steps == 12


def test_an_average_is_what_is_saved(prepared: Prepared, tmp_path: Path) -> None:
    plain = train(small_config(), prepared, tmp_path / "plain", show=False)
    mean = train(small_config(averaging=Averaging("last", share=0.25)), prepared, tmp_path / "mean", show=False)
    assert plain.loss == mean.loss, "the average is not what is trained"
    weights = [
        checkpoint.load(plain.folder / "checkpoints" / f"step-{step:08d}").tensors["weights"] for step in (8, 12)
    ]
    saved = dict(mean.load().network.named_parameters())["embedding.weight"]
    assert not torch.equal(saved, weights[1]["embedding.weight"])
    assert plain.held_out != mean.held_out


def test_two_towers_share_the_layers_of_one(prepared: Prepared) -> None:
    model = ModelConfig(shape=Shape(width=16, layers=5, heads=2))
    shape = resolved(small_config(objective="denoising", model=model), prepared)[0].model.shape
    assert (shape.source_layers, shape.layers) == (2, 3)


def test_an_objective_and_a_stack_that_do_not_fit(prepared: Prepared) -> None:
    two = ModelConfig(shape=Shape(width=16, layers=2, heads=2, source_layers=1))
    with pytest.raises(BothwaysError, match=r"'masked' trains one tower, but model.shape.source_layers is 1"):
        resolved(small_config(model=two), prepared)
    one = ModelConfig(shape=Shape(width=16, layers=1, heads=2))
    with pytest.raises(BothwaysError, match=r"'denoising' needs two towers, but model.shape.layers is 1"):
        resolved(small_config(model=one, objective="denoising"), prepared)


def test_precision_is_found_and_reported() -> None:
    assert find("float32", "cpu").dtype == torch.float32 and find("bfloat16", "cpu").dtype == torch.bfloat16
    assert "processor" in str(find("auto", "cpu"))
    with pytest.raises(BothwaysError, match="none that torch knows"):
        find("auto", "toaster")
    if not torch.cuda.is_available():
        with pytest.raises(BothwaysError, match="no accelerator"):
            find("auto", "cuda")


def test_the_console_says_what_happens(prepared: Prepared, tmp_path: Path) -> None:
    stream = io.StringIO()
    train(small_config(), prepared, tmp_path / "run", watchers=[Console(stream, every_seconds=0.0)], show=False)
    text = stream.getvalue()
    for part in (
        "2 layers, 16 wide",
        "masked: ",
        "12 steps = ",
        "float32 on cpu (as asked)",
        "step 12/12",
        "tokens/s",
        "left",
    ):
        assert part in text, part


def test_metrics_are_cut_where_a_run_goes_on(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    file.write_text('{"step": 1, "tokens": 5, "seconds": 1.0, "loss": 2}\n{"step": 2, "loss": 1}\n{"step": 3, "lo')

    class Outlook:
        done = 1

    watcher = JsonLines(file, 1)
    watcher.started(Outlook())  # type: ignore[arg-type]
    watcher.closed(False)
    assert file.read_text() == '{"step": 1, "tokens": 5, "seconds": 1.0, "loss": 2}\n'


def test_tensorboard(prepared: Prepared, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    train(small_config(), prepared, tmp_path / "run", watchers=[TensorBoard(tmp_path / "events")], show=False)
    assert any((tmp_path / "events").iterdir())


def test_the_mean_step_is_what_steps_read(prepared: Prepared, tmp_path: Path) -> None:
    run = train(small_config(budget="40 steps"), prepared, tmp_path / "run", show=False)
    assert run.tokens / run.steps == pytest.approx(tokens_per_step(prepared.train, 128), rel=0.02)


def test_held_out_loss_is_measured_without_dropout_and_noise_of_its_own(prepared: Prepared) -> None:
    config, objective = resolved(small_config(), prepared)
    network = LanguageModel(dataclasses.replace(config.model, dropout=0.5)).train()
    held_out = HeldOut(prepared.valid, objective, tokens=300, micro=64)
    first, second = (held_out.measure(network, torch.device("cpu")) for _ in range(2))
    assert first == second and first is not None and network.training
    whole = HeldOut(prepared.valid, objective, tokens=300).measure(network, torch.device("cpu"))
    assert whole is not None and whole["loss"] == pytest.approx(first["loss"], rel=1e-5)
    assert HeldOut(prepared.valid, objective, tokens=300).rows[0].inputs.shape == (first["tokens"],)
