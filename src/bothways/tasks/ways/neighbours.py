"""Classifying by nearest neighbours: the labels of the training texts whose vectors point the same way.

Nothing is tuned. Each of the k nearest votes with exp(cosine / temperature); every label gets a small vote of its own,
so that none is impossible.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from torch import Tensor

from bothways.errors import BothwaysError
from bothways.evaluation.features import Pooling, vectors, visibility_named
from bothways.tasks.tuning import TuneConfig
from bothways.tasks.ways import Choices, Row, Way
from bothways.tasks.ways.head import Form

if TYPE_CHECKING:
    from bothways.families.trained import Trained

TEMPERATURE, OWN = 0.05, 1e-3


class Neighbours(Way):
    """The training texts' vectors and labels."""

    name = "neighbours"
    trained: Trained

    def __init__(self, trained: Trained, choices: Choices, form: Form, known: Tensor, table: Tensor, k: int) -> None:
        self.trained, self.choices, self.form, self.known, self.table, self.k = trained, choices, form, known, table, k

    @classmethod
    def fit(cls, trained: Trained | None, train: Sequence[Row], dev: Sequence[Row], choices: Choices,
            config: TuneConfig, watch: Callable[[int, float], None] | None) -> Self:
        if trained is None:
            raise BothwaysError("the way 'neighbours' reads with a network: say which (--from)")
        if not 1 <= choices.options.neighbours <= len(train):
            raise BothwaysError(f"neighbours is {choices.options.neighbours}, but there are {len(train)} texts: "
                                f"take 1 to {len(train)}")
        form = Form(min(config.longest, trained.config.position.length), choices.options.ends)
        empty = torch.zeros(0)
        found = cls(trained, choices, form, empty, torch.from_numpy(choices.table(train)), choices.options.neighbours)
        found.known = torch.from_numpy(found._vectors(train))
        return found

    def log_probabilities(self, texts: Sequence[Row]) -> np.ndarray:
        near, places = (torch.from_numpy(self._vectors(texts)) @ self.known.T).topk(self.k, dim=1)
        # relative to the nearest, so that an outlying text is judged by its neighbours all the same
        weights = ((near - near[:, :1]) / TEMPERATURE).exp()
        votes = (weights[:, :, None] * self.table[places]).sum(1)
        total = weights.sum(1, keepdim=True)
        if self.choices.several:
            return ((votes + OWN) / (total + 2 * OWN)).log().numpy()
        return ((votes + OWN) / (total + OWN * len(self.choices.labels))).log().numpy()

    def _vectors(self, texts: Sequence[Row]) -> np.ndarray:
        """(n, D) float32 of length one."""
        sees = visibility_named(self.trained, self.choices.options.visibility)
        ids = (ids for ids, _ in self.form.ids(self.trained, texts))
        pooling: Pooling = "first" if self.choices.options.pooling == "first" else "mean"
        found = np.stack([*vectors(self.trained, ids, sees, pooling=pooling)])
        return found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12)

    @property
    def how(self) -> str:
        return f"{self.k} nearest neighbours by cosine"

    @property
    def mode(self) -> str:
        return repr(visibility_named(self.trained, self.choices.options.visibility))

    def settings(self) -> dict[str, Any]:
        return {"longest": self.form.longest, "ends": self.form.ends, "neighbours": self.k}

    def weights(self) -> dict[str, Tensor]:
        return {"known": self.known, "table": self.table}

    @classmethod
    def restored(cls, trained: Trained | None, choices: Choices, settings: Mapping[str, Any],
                 weights: Mapping[str, Tensor]) -> Self:
        assert trained is not None
        return cls(trained, choices, Form(settings["longest"], settings["ends"]), weights["known"], weights["table"],
                   settings["neighbours"])


FOUND: dict[str, type[Way]] = {"neighbours": Neighbours}
