"""A folder becomes a model, and a model a folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from bothways import families, model, objectives
from bothways.api.reading import Reads
from bothways.api.writing import Writes
from bothways.errors import BothwaysError
from bothways.families import extend
from bothways.families import folder as folders
from bothways.model import ModelConfig
from bothways.model.compact import bits_of
from bothways.model.fitted import fitted
from bothways.objectives.base import Objective


def from_pretrained(folder: str | Path, device: torch.device | str | None = None,
                    dtype: torch.dtype | None = None, weights: str | None = None) -> Model:
    """The model in a folder: one that `save_pretrained` or training wrote, or a plain one of a known family.

    Args:
        device: where the weights go, the CPU when none.
        dtype: the number format to compute in, the file's when none.
        weights: float32 or bfloat16, a short way to say `dtype`; or int8 or int4, for a model that reads and writes
            faster on the CPU, approximately, and is neither trained nor saved.
    Raises:
        BothwaysError: a file that is missing, truncated, of another version or of an unknown family.
    """
    return Model(folders.load(folder, device, dtype, weights))


def extend_vocabulary(model: Model, tokens: Sequence[str] | None = None) -> Model:
    """The model with more tokens in tokenizer, embedding and head: see `families.extend.extend_vocabulary`.

    Args:
        tokens: their names; all reserved ones that are missing when none, so that it can train with any objective.
    """
    return Model(extend.extend_vocabulary(model.trained, tokens))


class Model(Reads, Writes):
    """A trained network with its tokenizer and its objective."""

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Model:
        """The same model elsewhere or in another number format; changes this one and returns it."""
        self.trained.network.to(device=device, dtype=dtype)
        return self

    def save_pretrained(self, folder: str | Path, layout: str = "auto", dtype: torch.dtype | None = None) -> Path:
        """Write the folder, whole or not at all: see `families.folder.save`."""
        return folders.save(self.trained, folder, layout, dtype)

    def with_objective(self, objective: str | Mapping[str, object]) -> Model:
        """The same network, to be trained on by another objective: with its companions, and a head if it has none.

        Args:
            objective: a spec, as for `objectives.make`.
        Raises:
            BothwaysError: an objective for another stack, or one that this tokenizer cannot serve.
        """
        made = objectives.make(objective, self.vocabulary)
        if made.stack != self.config.stack:
            raise BothwaysError(f"this network has {self.config.stack}, but the objective '{made.name}' is for "
                                f"{made.stack}")
        network = fitted(self.trained.network, made.companions)
        return Model(replace(self.trained, network=network, objective=made))

    def describe(self) -> str:
        """Sizes, costs, modes and export, as printed by `bothways describe`."""
        said = description(self.config, self.objective, layout=self.trained.layout)
        bits = bits_of(self.trained.network)
        return said if bits is None else f"{said}\nweights       {bits} in linear layers, for reading and writing only"

    def __repr__(self) -> str:
        bits = bits_of(self.trained.network)
        return (f"Model({self.objective.name}, {self.config.stack}, {self.config.shape.width} wide, "
                f"modes {', '.join(self.modes)}{'' if bits is None else f', {bits} weights'})")


def description(config: ModelConfig, objective: Objective, window: int = 128, layout: str | None = None) -> str:
    """A network and its objective in words and numbers: what `bothways describe` prints.

    Args:
        window: tokens of a text, for the costs of attention.
        layout: the family it was read from, which is named where several fit.
    """
    fits, reason = families.fitting(config, objective, layout), families.obstacle(config, objective)
    # 1. what it was trained to do
    lines = [f"objective     {objective.name}: {objective.summary}"]
    for mode in objective.modes:
        speaks = "of the token there" if mode.predicts == "here" else "of the token after it"
        lines.append(f"mode          {mode.name}: {mode.visibility!r}; a state speaks {speaks}; "
                     f"likelihood {mode.likelihood}")
    # 2. the network, and which class of `transformers` reads it; that depends on the objective too
    lines += model.describe(config, objective.profile, window).splitlines()
    lines.append(f"transformers  {fits.written(config)[0] if fits is not None else f'no class: {reason}'}")
    return "\n".join(lines)
