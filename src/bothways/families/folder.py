"""A trained model as a folder of the Hugging Face layout, written atomically, and back."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from bothways import objectives
from bothways.errors import BothwaysError
from bothways.families import settings
from bothways.families.trained import Trained
from bothways.model import LanguageModel
from bothways.text.tokenizer import Tokenizer

__all__ = ["FORMAT", "Trained", "load", "save"]

FORMAT = 1
"""The version of the "bothways" block in config.json; a folder of another version is refused by name."""


def save(trained: Trained, folder: str | Path) -> Path:
    """Write the model; the folder appears whole or not at all.

    Raises:
        BothwaysError: the disk is full or the place cannot be written (exit code 1).
    """
    folder = Path(folder)
    aside = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    try:
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        _write(trained, aside)
        _swap(aside, folder)
    except OSError as error:
        raise BothwaysError(f"{folder} could not be written: {error.strerror or error}", exit_code=1) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return folder


def load(folder: str | Path, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Trained:
    """Read a folder that `save` wrote.

    Raises:
        BothwaysError: a missing or truncated file, an unknown format version, a weight that is missing, unknown or
            of another shape; one sentence each.
    """
    folder = Path(folder)
    config_file = folder / "config.json"
    stored = read_json(config_file)
    block = stored.get("bothways")
    if block is None:
        raise BothwaysError(f"{config_file} has no \"bothways\" block")
    if block.get("format") != FORMAT:
        raise BothwaysError(f"{config_file} has format version {block.get('format')}, but this bothways reads "
                            f"version {FORMAT}")
    tokenizer = Tokenizer.load(folder)
    objective = objectives.make(block["objective"], tokenizer.vocabulary)
    network = LanguageModel(settings.from_data(block["model"], str(config_file)))
    fill(network, read_weights(folder / "model.safetensors"), str(folder / "model.safetensors"))
    network.to(device=device, dtype=dtype)
    return Trained(network.eval(), objective, tokenizer, block.get("report", {}))


def read_json(file: Path) -> dict[str, Any]:
    """A JSON object from a file, or one sentence saying what is wrong with it."""
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BothwaysError(f"{file} does not exist: a model folder holds one") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise BothwaysError(f"{file} is not JSON: {error}") from None
    if not isinstance(data, dict):
        raise BothwaysError(f"{file} holds a {type(data).__name__}, but an object is expected")
    return data


def read_weights(file: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file, on the CPU."""
    if not file.exists():
        raise BothwaysError(f"{file} does not exist: a model folder holds its weights there")
    try:
        return load_file(file)
    except (SafetensorError, OSError) as error:
        raise BothwaysError(f"{file} is truncated or not a safetensors file ({error}): copy it again") from None


def fill(network: LanguageModel, weights: Mapping[str, Tensor], where: str) -> None:
    """Put weights into the network; every entry on both sides must be accounted for."""
    expected = network.state_dict()
    missing, unknown = sorted(expected.keys() - weights.keys()), sorted(weights.keys() - expected.keys())
    if missing or unknown:
        sides = [f"lacks {', '.join(missing)}"] * bool(missing) + [f"has unknown {', '.join(unknown)}"] * bool(unknown)
        raise BothwaysError(f"{where} {' and '.join(sides)}")
    for name, tensor in weights.items():
        if tensor.shape != expected[name].shape:
            raise BothwaysError(f"{where}: {name} has shape {tuple(tensor.shape)}, but config.json asks for "
                                f"{tuple(expected[name].shape)}")
    network.load_state_dict(dict(weights))


def _write(trained: Trained, folder: Path) -> None:
    block = {"format": FORMAT, "model": settings.to_data(trained.config), "objective": trained.objective.describe(),
             "modes": [mode.name for mode in trained.objective.modes], "report": dict(trained.report)}
    write_json(folder / "config.json", {"model_type": "bothways", "bothways": block})
    weights = {name: tensor.detach().to("cpu").contiguous() for name, tensor in trained.network.state_dict().items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    trained.tokenizer.save(folder)


def write_json(file: Path, data: Mapping[str, Any]) -> None:
    """Indented JSON with a last line end; `data` in its own order."""
    file.write_text(json.dumps(data, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _swap(aside: Path, folder: Path) -> None:
    """Put the finished folder in its place; an older one steps aside first and goes last."""
    old = folder.with_name(f".{folder.name}.{os.getpid()}.old")
    if folder.exists():
        folder.rename(old)
    aside.rename(folder)
    shutil.rmtree(old, ignore_errors=True)
