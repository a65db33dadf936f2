"""A tiny study on the known source, for real: from plan to page, stopped and killed on the way."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bothways.study import results
from bothways.training import read_metrics

STEPS = 30
LIMIT = 240.0
"""Seconds until a test gives up: a deadline for broken code, not a measure of speed."""


def call(out: Path, steps: int, *more: str) -> list[str]:
    recipe = out.with_suffix(".yaml")
    recipe.write_text(f"sources: [{{kind: known, corpus: grammar, budget: {steps} steps, seeds: 1, effort: smoke}}]\n"
                      "contenders: [causal, hybrid]\ncontrols: [majority, tfidf-svm]\n")
    return [sys.executable, "-m", "bothways", "compare", "--recipe", str(recipe), "--out", str(out), "--workers", "2",
            *more]


def environment() -> dict[str, str]:
    source = str(Path(__file__).parents[2] / "src")
    return {**os.environ, "PYTHONPATH": source, "OMP_NUM_THREADS": "1"}


def start(out: Path, steps: int, deaf: bool = False) -> subprocess.Popen[str]:
    """A study in a process of its own; a shell that starts one in its background makes it `deaf` to Ctrl-C."""
    hearing = signal.SIG_IGN if deaf else signal.default_int_handler
    return subprocess.Popen(call(out, steps), env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                            text=True, preexec_fn=lambda: signal.signal(signal.SIGINT, hearing))


def wait_for_steps(out: Path, contender: str, steps: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + LIMIT
    while last_step(out, contender) < steps:
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.05)


def last_step(out: Path, contender: str) -> int:
    lines = read_metrics(out / "runs" / "known" / f"{contender}-seed0" / "training" / "metrics.jsonl")
    return max((line["step"] for line in lines), default=0)


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> tuple[Path, str, tuple[int, int]]:
    """A study that was stopped by Ctrl-C, then killed, then finished: its folder, what it said, and what was kept."""
    out = tmp_path_factory.mktemp("study") / "out"
    # 1. Ctrl-C: both runs keep a checkpoint
    process = start(out, STEPS)
    wait_for_steps(out, "hybrid", 3, process)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=LIMIT)
    assert process.returncode == 130, said
    assert "repeat the same call to continue" in said
    kept = last_step(out, "hybrid")
    config = out / "runs" / "known" / "hybrid-seed0" / "training" / "config.json"
    written = config.stat().st_mtime_ns
    # 2. killed in a shell's background: the runs end by themselves, since nobody waits for them
    process = start(out, STEPS, deaf=True)
    wait_for_steps(out, "hybrid", min(STEPS - 1, kept + 2), process)
    process.kill()
    process.communicate()
    deadline = time.monotonic() + LIMIT
    for contender in ("causal", "hybrid"):
        while is_held(out / "runs" / "known" / f"{contender}-seed0" / ".lock"):
            assert time.monotonic() < deadline
            time.sleep(0.1)
    assert last_step(out, "hybrid") < STEPS
    # 3. to the end
    finished = subprocess.run(call(out, STEPS), env=environment(), capture_output=True, text=True, timeout=LIMIT,
                              check=False)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return out, finished.stdout + finished.stderr, (kept, written)


def is_held(lock: Path) -> bool:
    """Whether some process works in the folder of this lock."""
    with lock.open("a") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
        return False


def test_it_ends_with_a_page(study):
    out, said, _ = study
    assert (out / "report.html").stat().st_size > 1_000_000
    assert str(out / "report.html") in said
    assert results.load(out).missing == []
    assert results.load(out).failures == {}


def test_every_step_was_taken_once(study):
    out, _, _ = study
    for contender in ("causal", "hybrid"):
        lines = read_metrics(out / "runs" / "known" / f"{contender}-seed0" / "training" / "metrics.jsonl")
        assert [line["step"] for line in lines if "loss" in line] == list(range(1, STEPS + 1))


def test_it_resumed_and_did_not_begin_again(study):
    out, _, (kept, written) = study
    training = out / "runs" / "known" / "hybrid-seed0" / "training"
    assert kept >= 3
    assert (training / "config.json").stat().st_mtime_ns == written
    began = training.parent.parent / "controls-seed0" / "run.json"
    assert began.stat().st_mtime_ns < (training / "summary.json").stat().st_mtime_ns


def test_both_read_the_same_windows(study):
    out, _, _ = study
    tokens = {contender: [line["tokens"] for line in read_metrics(
        out / "runs" / "known" / f"{contender}-seed0" / "training" / "metrics.jsonl") if "loss" in line]
        for contender in ("causal", "hybrid")}
    assert tokens["causal"] == tokens["hybrid"]


def test_scores_are_named_and_controls_are_there(study):
    out, _, _ = study
    loaded = results.load(out)
    assert {"suffix-truth", "fill", "pairs-near", "pairs-across", "classify-frozen", "classify-tuned", "tag",
            "write-speed", "read-speed"} <= {row.measure for row in loaded.rows}
    assert all(row.estimator for row in loaded.rows)
    board = loaded.board("known", "classify-tuned")
    assert {"majority", "tfidf-svm"} <= {line.contender for line in board.controls}
    modes = {row.mode for row in loaded.select("known", "suffix-truth", "hybrid")}
    assert modes == {"causal", "bidirectional"}
    assert {row.mode for row in loaded.select("known", "suffix-truth", "causal")} == \
        {"causal", "bidirectional (off-mode)"}


def test_curves_go_through_the_checkpoints(study):
    out, _, _ = study
    run = results.load(out).run("known", "causal")
    assert run is not None
    steps = [point["step"] for point in run["curve"]]
    assert steps == sorted(steps)
    assert steps[-1] == STEPS
    assert all(point["scores"]["suffix-truth"] > 0 for point in run["curve"])


def test_the_drawn_example_is_one_of_each_kind(study):
    out, _, _ = study
    hybrid = results.load(out).run("known", "hybrid")
    assert hybrid is not None
    parts = hybrid["example"]["several"]
    assert {part["title"] for part in parts} == {"causal", "bidirectional"}
    for part in parts:
        size = len(part["sides"][0]["labels"])
        assert [len(row) for row in part["grids"][0]] == [size] * size


def test_called_again_it_does_nothing(study):
    out, _, _ = study
    before = {file: file.stat().st_mtime_ns for file in out.glob("runs/*/*/result.json")}
    again = subprocess.run(call(out, STEPS), env=environment(), capture_output=True, text=True, timeout=LIMIT,
                           check=False)
    assert again.returncode == 0
    assert {file: file.stat().st_mtime_ns for file in out.glob("runs/*/*/result.json")} == before
    assert "started" not in again.stderr


def test_another_budget_is_another_study(study):
    out, _, _ = study
    other = subprocess.run(call(out, STEPS + 1), env=environment(), capture_output=True, text=True, timeout=LIMIT,
                           check=False)
    assert other.returncode == 2
    assert "holds another study" in other.stderr


def test_a_run_that_fails_is_reported_and_loses_no_other(study):
    out, _, _ = study
    place = out / "runs" / "known" / "causal-seed0"
    (place / "result.json").unlink()
    config = place / "training" / "config.json"
    stored = json.loads(config.read_text())
    config.write_text(json.dumps({**stored, "seed": 7}))
    again = subprocess.run(call(out, STEPS), env=environment(), capture_output=True, text=True, timeout=LIMIT,
                           check=False)
    assert again.returncode == 0
    assert "FAILED" in again.stderr
    assert "seed is 7 there and 0 here" in (out / "report.html").read_text(encoding="utf-8")
    assert results.load(out).run("known", "hybrid") is not None


@pytest.fixture(scope="module")
def notes(tmp_path_factory) -> Path:
    """A folder of a user's own text, with labelled texts of two classes."""
    folder = tmp_path_factory.mktemp("own")
    words = "the quick reader of long letters writes a short answer to every careful question about paper and ink"
    lines = []
    for number in range(60):
        turned = words.split()[number % 7:] + words.split()[:number % 7]
        lines.append(f"Letter {number}. " + " ".join(turned * 5) + f" number {number}.")
    (folder / "notes.txt").write_text("\n\n".join(lines), encoding="utf-8")
    rows = [f"please answer the {word} question number {number},{word}" for number in range(30)
            for word in ("paper", "ink")]
    (folder / "tickets.csv").write_text("text,label\n" + "\n".join(rows) + "\n", encoding="utf-8")
    (folder / "one.csv").write_text("text,label\none,same\ntwo,same\n", encoding="utf-8")
    return folder


def own_text(notes: Path, labels: str) -> subprocess.CompletedProcess[str]:
    words = ["--corpus", str(notes / "notes.txt"), "--labels", str(notes / labels), "--budget", "4 steps", "--seeds",
             "1", "--no-known", "--contenders", "masked", "--out", str(notes / f"study-{labels}")]
    return subprocess.run([sys.executable, "-m", "bothways", "compare", *words], env=environment(),
                          capture_output=True, text=True, timeout=LIMIT, check=False)


def test_a_users_own_text_and_labels(notes):
    done = own_text(notes, "tickets.csv")
    assert done.returncode == 0, done.stderr
    loaded = results.load(notes / "study-tickets.csv")
    measured = {row.measure for row in loaded.rows if row.contender == "masked"}
    assert {"suffix-bits", "fill", "pairs", "classify-frozen", "classify-tuned"} <= measured
    assert "Classes: tickets.csv" in (notes / "study-tickets.csv" / "report.html").read_text(encoding="utf-8")


def test_labels_that_cannot_be_used_are_one_sentence(notes):
    failed = own_text(notes, "one.csv")
    assert failed.returncode == 2
    assert "one.csv" in failed.stderr.splitlines()[-1]
    assert "two classes" in failed.stderr.splitlines()[-1]
    assert "Traceback" not in failed.stderr
