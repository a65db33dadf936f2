from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.training import processes

from bothways.errors import BothwaysError
from bothways.training import checkpoint
from bothways.training.checkpoint import Checkpoint


def some(value: float = 1.0) -> Checkpoint:
    return Checkpoint(
        {"tokens": 10}, {"weights": {"w": torch.full((4, 4), value)}, "optimiser": {"m": torch.ones(3)}, "average": {}}
    )


def test_there_and_back(tmp_path: Path) -> None:
    path = checkpoint.save(tmp_path, 12, some(2.5))
    assert path.name == "step-00000012" and checkpoint.newest(tmp_path) == path
    found = checkpoint.load(path)
    assert found.state == {"format": checkpoint.FORMAT, "step": 12, "tokens": 10}
    assert torch.equal(found.tensors["weights"]["w"], torch.full((4, 4), 2.5)) and "average" not in found.tensors
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000012"]


def test_written_again_it_is_replaced(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, 3, some(1.0))
    checkpoint.save(tmp_path, 3, some(2.0))
    assert checkpoint.load(tmp_path / "step-00000003").tensors["weights"]["w"][0, 0] == 2.0
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("after", [0, 1, 2, 3])
def test_a_disk_that_fills_up_leaves_the_checkpoint_before_intact(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    checkpoint.save(tmp_path, 1, some())
    calls = iter(range(10))

    def full(path: Path) -> None:
        if next(calls) == after:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint, "_to_disk", full)
    with pytest.raises(BothwaysError, match=r"disk is full.*last good checkpoint is .*step-00000001") as raised:
        checkpoint.save(tmp_path, 2, some())
    assert raised.value.exit_code == 1
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]
    checkpoint.load(tmp_path / "step-00000001")


def test_a_write_that_the_system_refuses(tmp_path: Path, server: Any) -> None:
    """Refused in the middle of the tensors, by a limit on the size of files instead of a full disk."""
    large = tmp_path / "checkpoints"
    child = server.Process(target=processes.save_large, args=(large,))
    child.start()
    child.join()
    assert child.exitcode == 1
    assert [path.name for path in large.iterdir()] == ["step-00000001"]


def test_another_version_is_refused_by_name(tmp_path: Path) -> None:
    path = checkpoint.save(tmp_path, 1, some())
    state = json.loads((path / "state.json").read_text())
    (path / "state.json").write_text(json.dumps({**state, "format": 99}))
    with pytest.raises(BothwaysError, match=r"step-00000001 .*format version 99.*reads version 1"):
        checkpoint.load(path)


@pytest.mark.parametrize("name", ["weights.safetensors", "optimiser.safetensors", "state.json"])
@pytest.mark.parametrize("kept", [0, 20, -4])
def test_a_truncated_file_is_named(tmp_path: Path, name: str, kept: int) -> None:
    path = checkpoint.save(tmp_path, 1, some())
    content = (path / name).read_bytes()
    (path / name).write_bytes(content[:kept])
    with pytest.raises(BothwaysError, match=name) as raised:
        checkpoint.load(path)
    assert "remove" in str(raised.value)


def test_old_ones_keep_their_weights_on_the_curve_only(tmp_path: Path) -> None:
    for step in (1, 2, 3, 4, 5, 6):
        checkpoint.save(tmp_path, step, some())
    checkpoint.tidy(tmp_path, 2, frozenset({1, 2, 4}))
    assert checkpoint.steps(tmp_path) == [5, 6]
    assert checkpoint.steps(tmp_path, resumable=False) == [1, 2, 4, 5, 6]
    assert set(checkpoint.load(tmp_path / "step-00000004").tensors) == {"weights"}


def test_what_a_killed_run_left_is_swept_away(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, 1, some())
    (tmp_path / ".step-00000002.77.part").mkdir()
    assert checkpoint.newest(tmp_path) == tmp_path / "step-00000001"
    checkpoint.sweep(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]
