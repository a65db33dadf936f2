"""Training that goes on from a model: its network and tokenizer, ready for another objective."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from bothways import objectives
from bothways.batch import RESERVED_TOKENS, SENTINELS, Vocabulary
from bothways.errors import BothwaysError
from bothways.families import folder as families
from bothways.families.extend import extend_vocabulary
from bothways.families.folder import fused
from bothways.model import ModelConfig
from bothways.model.fitted import fitted
from bothways.training.config import TrainConfig


def begin(folder: str | Path, objective: str | Mapping[str, object]) -> families.Trained:
    """The model in a folder, with the reserved tokens that the objective needs, and a head if it has none.

    Train it with `TrainConfig(model=begun.config, start=folder, ...)` on text prepared with `begun.tokenizer`.

    Raises:
        BothwaysError: the folder cannot be read, has no tokenizer, or its stack is not the objective's.
    """
    read = _read(folder, objective)
    return dataclasses.replace(read, network=fitted(read.network, ()))


def _read(folder: str | Path, objective: str | Mapping[str, object]) -> families.Trained:
    """`begin` with the folder's own parts alone."""
    trained = families.load(folder)
    needed = objectives.make(dict(objective) if isinstance(objective, Mapping) else objective, _any_text())
    if needed.stack != trained.config.stack:
        raise BothwaysError(f"{folder} holds {trained.config.stack}, but the objective '{needed.name}' trains "
                            f"{needed.stack}: choose another objective, or a folder with {needed.stack}")
    if not trained.readable:
        raise BothwaysError(f"{folder} has no tokenizer.json, so no text can be read for it")
    tokens = {"<pad>", *needed.tokens}
    if any(token.startswith("<extra_") for token in tokens):
        # however many spans a window has, there is a name for each
        tokens |= {f"<extra_{i}>" for i in range(SENTINELS)}
    return extend_vocabulary(trained, [token for token in RESERVED_TOKENS if token in tokens])


def weights(config: TrainConfig, masters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """First weights of a run that goes on from a model; what the folder does not hold is left as it is.

    Raises:
        BothwaysError: the folder's network is not the config's.
    """
    assert config.start is not None
    read = _read(config.start, config.objective)
    if trunk(fitted(read.network, ()).config) != trunk(config.model):
        raise BothwaysError(f"start is {config.start}, but model describes another network than lies there: "
                            "leave model out, or start")
    found = fused(read.network)
    return {name: found.get(name, master) for name, master in masters.items()}


def trunk(config: ModelConfig) -> ModelConfig:
    """A config without what objectives and runs may change in a trained network."""
    return dataclasses.replace(config, companions=(), dropout=0.0)


def _any_text() -> Vocabulary:
    plain = Vocabulary.plain(len(RESERVED_TOKENS) + 1)
    return dataclasses.replace(plain, ends_sentence=~plain.special, capital=~plain.special)
