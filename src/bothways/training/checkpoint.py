"""Checkpoints: safetensors and one JSON file in a folder that appears whole or not at all.

    checkpoints/step-00000128/weights.safetensors    float32 masters, by parameter name
                              optimiser.safetensors  momentum and variance (and average.safetensors)
                              state.json             step, place in the stream, totals, versions

A folder with only `weights.safetensors` and `state.json` is a point of the learning curve, not one to resume from.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from bothways.errors import BothwaysError

FORMAT = 1
"""The version of this layout; a checkpoint of another one is refused by name."""
_NAME = re.compile(r"step-(\d{8,})")
_FULL = {errno.ENOSPC, errno.EDQUOT}


@dataclass(frozen=True)
class Checkpoint:
    """What a run needs to go on: numbers in `state`, tensors in named groups ("weights", "optimiser", "average")."""

    state: dict[str, Any]
    tensors: dict[str, dict[str, Tensor]]


def save(folder: Path, step: int, checkpoint: Checkpoint) -> Path:
    """Write `folder/step-XXXXXXXX`: aside, to the disk, then renamed. Empty groups are not written.

    Raises:
        BothwaysError: the disk is full or refuses (exit code 1); what was written is removed, older ones are intact.
    """
    final = folder / f"step-{step:08d}"
    aside = folder / f".{final.name}.{os.getpid()}.part"
    try:
        aside.mkdir(parents=True)
        for group, tensors in checkpoint.tensors.items():
            if tensors:
                save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()},
                          aside / f"{group}.safetensors")
                _to_disk(aside / f"{group}.safetensors")
        state = {"format": FORMAT, "step": step, **checkpoint.state}
        (aside / "state.json").write_text(json.dumps(state, indent=1, allow_nan=False) + "\n", encoding="utf-8")
        _to_disk(aside / "state.json")
        _to_disk(aside)
        _remove(final)  # written before, by a run that then went back: the same numbers
        aside.rename(final)
        _to_disk(folder)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(aside, ignore_errors=True)
        last = newest(folder)
        kept = f"the last good checkpoint is {last}" if last else "there is no earlier checkpoint"
        raise BothwaysError(f"{final} could not be written ({_reason(error)}); {kept}: make room, then repeat the "
                            "same call to go on from there", exit_code=1) from error
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    return final


def load(path: Path) -> Checkpoint:
    """Read one checkpoint.

    Raises:
        BothwaysError: another format version, or a file that is missing, truncated or not what its name says.
    """
    state = _state(path)
    groups = sorted(file.stem for file in path.glob("*.safetensors"))
    if "weights" not in groups:
        raise BothwaysError(f"{path / 'weights.safetensors'} is missing: {_remedy(path)}")
    tensors: dict[str, dict[str, Tensor]] = {}
    for group in groups:
        file = path / f"{group}.safetensors"
        try:
            tensors[group] = load_file(file)
        except (SafetensorError, OSError) as error:
            raise BothwaysError(f"{file} is truncated or damaged ({error}): {_remedy(path)}") from error
    return Checkpoint(state, tensors)


def _state(path: Path) -> dict[str, Any]:
    file = path / "state.json"
    try:
        state = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise BothwaysError(f"{file} cannot be read ({error}): {_remedy(path)}") from error
    found = state.get("format") if isinstance(state, Mapping) else None
    if found != FORMAT:
        raise BothwaysError(f"{path} is a checkpoint of format version {found}, but this bothways reads version "
                            f"{FORMAT}: go on with the version that wrote it, or train in another folder")
    return dict(state)


def _remedy(path: Path) -> str:
    return f"remove {path} to go on from the checkpoint before it"


def steps(folder: Path, *, resumable: bool = True) -> list[int]:
    """The steps with a checkpoint, in order; with `resumable` only those that hold the optimiser too."""
    if not folder.is_dir():
        return []
    found = [(int(match[1]), path) for path in folder.iterdir() if (match := _NAME.fullmatch(path.name))]
    return sorted(step for step, path in found if not resumable or (path / "optimiser.safetensors").exists())


def newest(folder: Path) -> Path | None:
    """The last checkpoint that can be resumed from."""
    known = steps(folder)
    return folder / f"step-{known[-1]:08d}" if known else None


def tidy(folder: Path, keep: int, weights_of: frozenset[int]) -> None:
    """Keep the newest `keep` to resume from; older ones in `weights_of` keep their weights, the others go."""
    for step in steps(folder)[:-keep]:
        path = folder / f"step-{step:08d}"
        if step in weights_of:
            for group in ("optimiser", "average"):
                (path / f"{group}.safetensors").unlink(missing_ok=True)
        else:
            _remove(path)


def _remove(path: Path) -> None:
    """A checkpoint that is being removed is first renamed, so that a kill leaves no half of one."""
    if path.exists():
        going = path.with_name(f".{path.name}.{os.getpid()}.old.part")
        path.rename(going)
        shutil.rmtree(going, ignore_errors=True)


def sweep(folder: Path) -> None:
    """Remove what a killed run left half-written."""
    if folder.is_dir():
        for path in folder.glob(".step-*.part"):
            shutil.rmtree(path, ignore_errors=True)


def _to_disk(path: Path) -> None:
    """Wait until a file's bytes, or a folder's names, have reached the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some file systems cannot sync a folder
            raise
    finally:
        os.close(handle)


def _reason(error: Exception) -> str:
    """Why the disk refused; safetensors hides the number of the error in its text."""
    text = str(error)
    if getattr(error, "errno", None) in _FULL or any(f"os error {number}" in text for number in _FULL):
        return "the disk is full"
    return getattr(error, "strerror", None) or text
