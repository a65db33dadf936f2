"""`bothways train` as it is called, and every way of calling it wrongly."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from tests.decoding.small import TOKENIZER, tiny
from tests.training.small import write_corpus

from bothways.cli import main
from bothways.families.folder import save
from bothways.model import ModelConfig, Shape
from bothways.model.config import Head
from bothways.training import read_metrics

SMALL = [
    "--width",
    "16",
    "--layers",
    "2",
    "--heads",
    "2",
    "--window",
    "32",
    "--batch-tokens",
    "128",
    "--tokenizer",
    "bytes",
    "--precision",
    "float32",
    "--threads",
    "1",
    "--device",
    "cpu",
]


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    return write_corpus(tmp_path / "notes" / "corpus.txt", documents=12)


def test_from_text_to_a_model(corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call = [
        "train",
        "--corpus",
        str(corpus.parent),
        "--objective",
        "masked(rate=0.3)",
        "--budget",
        "6 steps",
        "--out",
        str(tmp_path / "run"),
        *SMALL,
    ]
    assert main(call) == 0
    captured = capsys.readouterr()
    for part in ("2 layers, 16 wide", "6 steps = ", "float32", "goes in", "is asked", "step 6/6", "held out"):
        assert part in captured.err, part
    assert "6 steps" in captured.out and str(tmp_path / "run" / "model") in captured.out
    assert (tmp_path / "run" / "model" / "model.safetensors").exists()
    # called again, nothing is left to do, and the same is said
    assert main(call) == 0
    assert capsys.readouterr().out == captured.out
    # and the model can be used
    assert main(["describe", str(tmp_path / "run" / "model")]) == 0


def test_options_stand_over_the_recipe(corpus: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"objective: next-token\nbudget: 4 steps\nmatrix_rate: 3e-4\ntext: {{corpus: {corpus}}}\n"
        "model: {dropout: 0.1}\nrecord: {log_every: 1}\n"
    )
    assert (
        main(
            [
                "train",
                "--recipe",
                str(recipe),
                "--objective",
                "diffusion",
                "--set",
                "model.norm.query_key=true",
                "seed=3",
                "--out",
                str(tmp_path / "run"),
                *SMALL,
            ]
        )
        == 0
    )
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["objective"]["name"] == "diffusion" and config["budget"] == "4 steps" and config["seed"] == 3
    assert config["matrix_rate"] == 3e-4 and config["model"]["norm"]["query_key"] and config["model"]["dropout"] == 0.1
    assert len([line for line in read_metrics(tmp_path / "run" / "metrics.jsonl") if "loss" in line]) == 4


def test_a_size_for_the_budget_where_none_is_given(corpus: Path) -> None:
    from bothways.cli.train import Options, _recipe

    small, large = (_recipe(Options(corpus=str(corpus), budget=budget, threads=1)) for budget in ("10s", "1e20 flops"))
    assert small.model.shape.width < large.model.shape.width and small.text.vocabulary < large.text.vocabulary
    assert _recipe(Options(corpus=str(corpus), budget="10s", width=48, heads=3)).model.shape.width == 48


def test_a_model_that_is_there_goes_on_at_lower_rates(corpus: Path) -> None:
    from bothways.cli.train import Options, _recipe

    new, going = (_recipe(Options(corpus=str(corpus), budget="10s", start=start)) for start in (None, "run/model"))
    assert going.matrix_rate < new.matrix_rate and going.other_rate < new.other_rate
    chosen = _recipe(Options(corpus=str(corpus), budget="10s", start="run/model", set=("other_rate=0.5",)))
    assert chosen.other_rate == 0.5 and chosen.matrix_rate == going.matrix_rate


def test_a_body_that_gives_states_alone_gets_a_head(corpus: Path, tmp_path: Path) -> None:
    import bothways

    body = tiny("masked", ModelConfig(Shape(TOKENIZER.size, 32, 2, heads=4), head=Head(scores=False)))
    save(body, tmp_path / "body", layout="bothways")
    runs = []
    for name in ("one", "two"):
        assert main(["train", "--from", str(tmp_path / "body"), "--corpus", str(corpus), "--objective", "next-token",
                     "--budget", "2 steps", "--batch-tokens", "64", "--out", str(tmp_path / name)]) == 0
        runs.append(bothways.from_pretrained(tmp_path / name))
    assert all(torch.equal(weight, runs[1].trained.network.state_dict()[part])
               for part, weight in runs[0].trained.network.state_dict().items())
    assert runs[0].generate("the cat", 2).startswith("the cat") and runs[0].config.head.scores


def refused(call: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path, code: int = 2) -> str:
    """The message of a call that must fail, and that must leave no run behind."""
    assert main(["train", *call, "--out", str(tmp_path / "run")]) == code
    error = capsys.readouterr().err
    assert "Traceback" not in error and not (tmp_path / "run" / "config.json").exists()
    return error.splitlines()[-1]


def test_without_text(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert "--corpus" in refused(["--objective", "masked"], capsys, tmp_path)
    assert not (tmp_path / "run").exists()


def test_text_that_cannot_be_read(corpus: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    call = [*SMALL, "--budget", "3 steps", "--corpus"]
    assert "corpus.txt" in refused([*call, str(corpus.with_name("corpis.txt"))], capsys, tmp_path)
    contents = {
        "empty.txt": b"",
        "binary.txt": bytes(range(256)) * 40,
        "short.txt": b"a few words",
        "latin.txt": ("Stra\xdfe " * 400).encode("latin-1"),
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        assert name in refused([*call, str(tmp_path / name)], capsys, tmp_path), name
    (tmp_path / "records.jsonl").write_text('{"body": "a text"}\n' * 50)
    message = refused([*call, str(tmp_path / "records.jsonl"), "--field", "bodi"], capsys, tmp_path)
    assert "bodi" in message and "body" in message


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (["--objective", "maskd"], "did you mean 'masked'"),
        (["--objective", "masked(rat=0.3)"], "did you mean 'rate'"),
        (["--budget", "10 parsecs"], "parsecs"),
        (["--recipe", "nowhere.yaml"], "nowhere.yaml"),
        (["--width", "65", "--heads", "4"], "shape.width 65"),
        (["--set", "model.shape.width"], "key=value"),
        (["--device", "toaster"], "toaster"),
        (["--objective", "denoising", "--layers", "1"], "two towers"),
    ],
)
def test_choices_that_do_not_exist(
    call: list[str], named: str, corpus: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert named in refused(["--corpus", str(corpus), "--budget", "3 steps", *call], capsys, tmp_path)


def test_all_mistakes_of_a_recipe_at_once(corpus: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("objectif: masked\nmodel: {shape: {widht: 3}}\nbatch_tokens: few\n")
    assert main(["train", "--recipe", str(recipe), "--corpus", str(corpus), "--out", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert "did you mean 'objective'" in error and "did you mean 'width'" in error and "batch_tokens is 'few'" in error
    assert not (tmp_path / "run").exists()


def test_a_folder_that_holds_something_else(corpus: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").write_text("")
    assert "thesis.tex" in refused(["--corpus", str(corpus), "--budget", "3 steps"], capsys, tmp_path)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["thesis.tex"]


def test_ctrl_c_and_going_on(corpus: Path, tmp_path: Path) -> None:
    """As a user does it: Ctrl-C in the middle, then the same call again."""
    call = [
        sys.executable,
        "-m",
        "bothways",
        "train",
        "--corpus",
        str(corpus),
        "--budget",
        "150 steps",
        "--out",
        str(tmp_path / "run"),
        "--set",
        "record.log_every=1",
        *SMALL,
    ]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src")}
    first = subprocess.Popen(
        call,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    metrics, until = tmp_path / "run" / "metrics.jsonl", time.monotonic() + 90
    while len(read_metrics(metrics)) < 3 and time.monotonic() < until:
        time.sleep(0.02)
    first.send_signal(signal.SIGINT)
    _, error = first.communicate(timeout=60)
    assert first.returncode == 130, error
    assert "stopped by Ctrl-C at step " in error.splitlines()[-1] and "Traceback" not in error
    again = subprocess.run(call, env=environment, capture_output=True, text=True, timeout=120)
    assert again.returncode == 0 and "resumed    at step " in again.stderr
    assert [line["step"] for line in read_metrics(metrics) if "loss" in line] == list(range(1, 151))
