"""A tuned task as a folder: the network in its usual layout, task.json, head.safetensors and a model card.

Nothing in it is code, and nothing is pickled: a classical classifier is arrays and a list of words. An adapter is
merged into the network. The folder is written aside and then renamed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from bothways import tasks
from bothways.aside import replacing
from bothways.errors import BothwaysError
from bothways.evaluation.score import Score
from bothways.families import folder as folders
from bothways.families.files import read_json, write_json
from bothways.tasks.base import Task
from bothways.tasks.card import task_card

FORMAT = 1
"""The version of task.json; a folder of another version is refused by name."""
FILE, HEAD = "task.json", "head.safetensors"


def save(task: Task, folder: str | Path, report: Mapping[str, Any] | None = None,
         scores: Sequence[Score] = ()) -> Path:
    """Write a tuned task; the folder appears whole or not at all, and replaces an older one.

    Args:
        report: what is known of base, data and tuning, as plain data: for task.json and the model card.
        scores: on which data is said in their names; stored with their intervals, without their items.
    Raises:
        BothwaysError: the place cannot be written (exit code 1).
    """
    folder = Path(folder)
    data = {"format": FORMAT, "kind": task.kind, "network": task.trained is not None, "settings": task.settings(),
            "report": dict(report or {}), "scores": [stored(score) for score in scores]}
    with replacing(folder) as aside:
        if task.trained is not None:
            folders.save(task.trained, aside)
        else:
            aside.mkdir()
        if weights := {name: tensor.detach().cpu().contiguous() for name, tensor in task.weights().items()}:
            save_file(weights, aside / HEAD, metadata={"format": "pt"})
        write_json(aside / FILE, data)
        (aside / "README.md").write_text(task_card(task, data), encoding="utf-8")
    return folder


def vacant(folder: Path) -> None:
    """Whether a task may be written here: nothing is there yet, or an older task.

    Raises:
        BothwaysError: it is a file, or there are files in it, but no task.
    """
    if file := next((place for place in (folder, *folder.parents) if place.exists() and not place.is_dir()), None):
        raise BothwaysError(f"{file} is a file, but a tuned task is a folder: choose another place")
    others = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    if others and FILE not in others:
        raise BothwaysError(f"{folder} holds other files ({', '.join(others[:3])}) and no tuned task: choose a new or "
                            "empty folder")


def load(folder: str | Path, kind: str | None = None, device: torch.device | str | None = None) -> Task:
    """The task in a folder that `save` wrote, or a classifier that somebody else published.

    Args:
        kind: the kind it must be of; any when none.
    Raises:
        BothwaysError: a missing or damaged file, another version, another kind.
    """
    from bothways.tasks import published

    folder = Path(folder)
    if kind in (None, "classify") and published.is_published(folder):
        return published.load(folder, device)
    if not (folder / FILE).is_file() and (folder / "config.json").is_file():
        raise BothwaysError(f"{folder} holds a model that was tuned for no task: make one of it with "
                            f"`bothways tune --task {kind or 'classify'} --from {folder} --data ... --out ...`")
    data = read_json(folder / FILE)
    if data.get("format") != FORMAT:
        raise BothwaysError(f"{folder / FILE} is of format version {data.get('format')}, but this bothways reads "
                            f"version {FORMAT}: tune again, or install the other version")
    if missing := [name for name in ("kind", "settings") if name not in data]:
        raise BothwaysError(f"{folder / FILE} lacks {', '.join(missing)}")
    if kind is not None and data["kind"] != kind:
        raise BothwaysError(f"{folder} was tuned to {data['kind']}, not to {kind}: call `bothways {data['kind']}`")
    trained = folders.load(folder, device) if data.get("network", True) else None
    weights = _weights(folder / HEAD, device)
    try:
        return tasks.kind(data["kind"]).restored(trained, data["settings"], weights)
    except (KeyError, TypeError) as error:
        raise BothwaysError(f"{folder / FILE} and {HEAD} do not fit together ({error}): tune again") from error


def stored(score: Score) -> dict[str, Any]:
    """A score without its items, with its interval."""
    low, high = interval(score)
    data = {name: value for name, value in score.to_dict().items() if name not in ("items", "weights")}
    numbers = {"value": score.value, "low": low, "high": high}
    return {**data, **{name: value if value == value else None for name, value in numbers.items()}}


def interval(score: Score) -> tuple[float, float]:
    """The 95% interval over items; that of a number which is no mean stands in its details."""
    low, high = score.interval()
    return (low, high) if low == low else (score.details.get("low", low), score.details.get("high", high))


def _weights(file: Path, device: torch.device | str | None) -> dict[str, Tensor]:
    if not file.is_file():
        return {}
    try:
        with safe_open(file, "pt", device=str(device or "cpu")) as found:
            return {name: found.get_tensor(name) for name in found.keys()}  # noqa: SIM118 - no mapping
    except (SafetensorError, OSError) as error:
        raise BothwaysError(f"{file} is damaged ({error}): copy it again") from error
