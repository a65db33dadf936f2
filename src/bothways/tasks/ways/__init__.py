"""The ways of classifying: each is one file, and says how it learns and what it finds likely.

| way | what it models | network |
| --- | --- | --- |
| head | p(y \\| x) by a linear head on pooled states | any |
| text-to-text | p(label's words \\| x), written out | any |
| prompt | p(label's words \\| x) in a template | any |
| generative | p(x \\| y) p(y), the label a prefix | any |
| channel | p(x \\| label's words) in a template | any |
| neighbours | the labels of the nearest training texts | any, frozen |
| logistic, svm | p(y \\| x), or what separates, over TF-IDF | none |
| bayes | p(x \\| y) p(y) over TF-IDF | none |
"""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Self

import numpy as np
from torch import Tensor

from bothways.errors import BothwaysError, nearest
from bothways.tasks.tuning import TuneConfig

if TYPE_CHECKING:
    from bothways.families.trained import Trained

WAYS: dict[str, tuple[str, str]] = {
    "head": ("head", "a linear head on pooled states: p(y | x)"),
    "text-to-text": ("likelihood", "the label written out: p(label | x)"),
    "prompt": ("likelihood", "the label's words in a template: p(words | x)"),
    "generative": ("likelihood", "Bayes' rule with a language model for each label: p(x | y) p(y)"),
    "channel": ("likelihood", "the text given a template with the label's words: p(x | words)"),
    "neighbours": ("neighbours", "the labels of the nearest training texts"),
    "logistic": ("classical", "logistic regression on TF-IDF"),
    "svm": ("classical", "a linear SVM on TF-IDF"),
    "bayes": ("classical", "naive Bayes on TF-IDF: p(x | y) p(y)"),
}
"""Every way: the module it is in, and what it does."""
WayName = Literal["head", "text-to-text", "prompt", "generative", "channel", "neighbours", "logistic", "svm", "bayes"]
WITHOUT_NETWORK = ("logistic", "svm", "bayes")


class Row(NamedTuple):
    """A text, the other text of a pair or none, and its labels, or none where they are not known."""

    text: str
    other: str | None = None
    labels: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Choices:
    """What all ways are told: the labels, whether a text may have several, and the user's options for classifying."""

    labels: tuple[str, ...]
    several: bool
    options: Any

    def numbers(self, rows: Sequence[Row]) -> list[int]:
        """The number of the one label of each row."""
        place = {label: number for number, label in enumerate(self.labels)}
        return [place[(row.labels or ("",))[0]] for row in rows]

    def table(self, rows: Sequence[Row]) -> np.ndarray:
        """(n, labels) float32: 1 where a row has the label."""
        place = {label: number for number, label in enumerate(self.labels)}
        found = np.zeros((len(rows), len(self.labels)), dtype=np.float32)
        for number, row in enumerate(rows):
            for label in row.labels or ():
                found[number, place[label]] = 1.0
        return found


class Way(ABC):
    """A tuned way of classifying."""

    name: ClassVar[str]
    trained: Trained | None

    @classmethod
    @abstractmethod
    def fit(cls, trained: Trained | None, train: Sequence[Row], dev: Sequence[Row], choices: Choices,
            config: TuneConfig, watch: Callable[[int, float], None] | None) -> Self:
        """Learn from `train`; `dev`, which may be empty, says which weights are best."""

    @abstractmethod
    def log_probabilities(self, texts: Sequence[Row]) -> np.ndarray:
        """(n, labels) float32 natural logs; with several labels a text, of each label by itself."""

    @property
    @abstractmethod
    def how(self) -> str:
        """The way in a few words, for the estimator of its scores."""

    @property
    def mode(self) -> str:
        """Who saw whom, for its scores."""
        return "no network"

    def settings(self) -> dict[str, Any]:
        """Plain data that `restored` needs."""
        return {}

    def weights(self) -> dict[str, Tensor]:
        """Tensors that `restored` needs beside the network."""
        return {}

    @classmethod
    @abstractmethod
    def restored(cls, trained: Trained | None, choices: Choices, settings: Mapping[str, Any],
                 weights: Mapping[str, Tensor]) -> Self:
        """The way that gave these."""


def way(name: str) -> type[Way]:
    """The class of that way.

    Raises:
        BothwaysError: there is none of that name.
    """
    if name not in WAYS:
        raise BothwaysError(f"there is no way of classifying called '{name}' {nearest(name, WAYS)}")
    module = importlib.import_module(f"bothways.tasks.ways.{WAYS[name][0]}")
    found: type[Way] = module.FOUND[name]
    return found
