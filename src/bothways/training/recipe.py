"""A recipe: one YAML file that says what text to read and how to train on it.

    objective: {name: masked, rate: 0.3}
    budget: 2min
    model: {shape: {width: 192, layers: 4}}
    text: {corpus: notes/, window: 128}

Its keys are those of `TrainConfig`, and `text`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bothways.errors import BothwaysError
from bothways.text.windows import Cut
from bothways.training.config import TrainConfig, load_mapping, merge, read


@dataclass(frozen=True)
class Text:
    """What is read, and how it is cut."""

    corpus: str | None = None
    """A file, folder or glob, "-" for standard input, "python-library", or "hf:NAME"."""
    field: str | None = None
    """The field of records that holds the text."""
    tokenizer: str = "bpe"
    """Trained on the corpus as "bpe", "wordpiece" or "unigram", plain "bytes", or a folder that holds one."""
    vocabulary: int = 4096
    """Tokens of a tokenizer that is trained."""
    window: int = 128
    """Tokens of a window."""
    held_out: float = 0.05
    """Share of the documents that is not trained on."""
    limit_bytes: int | None = None
    """Read no more than this."""
    smoothing: float = 1.0
    """Each language is read in proportion to its share of the tokens to this power: 1 as they are, 0 all equally."""
    cut: Cut = "tokens"
    """Where windows end: "tokens" wherever they are full, "doc-sentences" with a sentence, "full-sentences" with a
    sentence but going on into the next document; "turns" has each record of questions and answers in a window."""


@dataclass(frozen=True)
class Recipe(TrainConfig):
    """A `TrainConfig`, and the text it is for."""

    text: Text = field(default_factory=Text)

    @property
    def training(self) -> TrainConfig:
        """Without the text."""
        names = [one.name for one in dataclasses.fields(TrainConfig)]
        return TrainConfig(**{name: getattr(self, name) for name in names})

    def _problems(self) -> Iterator[str]:
        yield from super()._problems()
        if self.text.window < 8:
            yield f"text.window is {self.text.window}, but a window has at least 8 tokens"
        if not 0 < self.text.held_out < 1:
            yield f"text.held_out is {self.text.held_out}, but is a share between 0 and 1"
        if not 0 <= self.text.smoothing <= 1:
            yield f"text.smoothing is {self.text.smoothing}, but lies between 0 and 1"


def compose(file: str | Path | None, *layers: Mapping[str, Any], settings: Sequence[str] = (),
            under: Mapping[str, Any] | None = None) -> Recipe:
    """A recipe from its file, changed by what stands above it.

    Args:
        file: YAML; none for an empty one.
        layers: plain data laid over it, the last on top.
        settings: "model.shape.width=256", laid over everything; values as YAML.
        under: plain data below the file.
    Raises:
        BothwaysError: every unknown key and wrong value at once.
    """
    data = merge(under or {}, {} if file is None else load_mapping(file))
    for layer in (*layers, *map(setting, settings)):
        data = merge(data, layer)
    return read(Recipe, data, "" if file is None else str(file))


def setting(text: str) -> dict[str, Any]:
    """"model.shape.width=256" as nested data. Raises: BothwaysError when it is not written so."""
    import yaml

    path, equals, written = text.partition("=")
    names = path.strip().split(".")
    if not equals or not all(names):
        raise BothwaysError(f"--set '{text}' is not written as key=value, such as model.shape.width=256")
    try:
        value: Any = yaml.safe_load(written)
    except yaml.YAMLError as error:
        raise BothwaysError(f"--set '{text}': the value is not YAML") from error
    for name in reversed(names):
        value = {name: value}
    return dict(value)
