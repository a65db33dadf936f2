"""Tuned tasks as scikit-learn estimators: `fit`, `predict`, `predict_proba`, `score`, `clone` and grid search.

    >>> model = TextClassifier(base="run/model", steps=200).fit(texts, labels)
    >>> model.predict(["where is my card?"])

The parameters are those of `classify.Options` and `TuneConfig`, flat, as scikit-learn wants them. Nothing is read or
trained before `fit`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin

from bothways import tasks
from bothways.errors import BothwaysError, nearest
from bothways.tasks.base import Task
from bothways.tasks.config import TuneConfig

if TYPE_CHECKING:
    from bothways.families.trained import Trained


class Estimator(BaseEstimator, ABC):  # type: ignore[misc]
    """A task as an estimator; `kind` says which.

    Args:
        base: the folder of the model to begin with, a loaded `Trained`, or none for ways without a network.
        keep: the share of the rows that is kept back to choose the best weights by.
        others: fields of the kind's Options and of TuneConfig.
    """

    kind: ClassVar[str]

    def __init__(self, base: str | Path | Trained | None = None, *, keep: float = 0.0, **others: Any) -> None:
        self.base, self.keep = base, keep
        known = self._names()
        for name, value in others.items():
            if name not in known:
                raise BothwaysError(f"no parameter is called '{name}' {nearest(name, known)}")
            setattr(self, name, value)

    @classmethod
    def _names(cls) -> list[str]:
        return [one.name for one in (*fields(tasks.kind(cls.kind).Options), *fields(TuneConfig))]

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Every parameter and its value; what was not given has its default."""
        defaults = {one.name: one.default for one in (*fields(tasks.kind(self.kind).Options), *fields(TuneConfig))}
        return {"base": self.base, "keep": self.keep,
                **{name: getattr(self, name, default) for name, default in defaults.items()}}

    def set_params(self, **params: Any) -> Self:
        """Change parameters. Raises: BothwaysError, for an unknown one."""
        known = ["base", "keep", *self._names()]
        for name, value in params.items():
            if name not in known:
                raise BothwaysError(f"no parameter is called '{name}' {nearest(name, known)}")
            setattr(self, name, value)
        return self

    def fit(self, X: Sequence[Any], y: Sequence[Any]) -> Self:
        """Tune on items (texts, or what the task reads) and their answers.

        Raises:
            BothwaysError: whatever the task refuses.
        """
        import torch

        from bothways.families.folder import load
        from bothways.tasks.rows import Rows, kept_back

        kind = tasks.kind(self.kind)
        given = self.get_params()
        options, config = (cls(**{one.name: given[one.name] for one in fields(cls)})
                           for cls in (kind.Options, TuneConfig))
        rows = Rows.of([self._row(kind, item, answer) for item, answer in zip(X, y, strict=True)])
        rest, part = rows, rows.take([])
        if self.keep:
            rest, part = kept_back(rows, self.keep, config.seed, kind.key, kind.group)
        trained = load(self.base, None, torch.float32) if isinstance(self.base, (str, Path)) else self.base
        self.task_ = kind.fit(trained, rest.items, part.items, options, config)  # type: ignore[arg-type]
        return self

    def predict(self, X: Sequence[Any]) -> np.ndarray:
        """The answer to each item."""
        return np.asarray(self._fitted().predict([self._fitted().asked(item) for item in X]), dtype=object)

    def predict_proba(self, X: Sequence[Any]) -> np.ndarray:
        """The probability of every answer to each item: (n, answers)."""
        return self._fitted().predict_proba([self._fitted().asked(item) for item in X])

    def save(self, folder: str | Path) -> Path:
        """Write what was fitted as a folder of the task."""
        from bothways.tasks.folder import save

        return save(self._fitted(), folder)

    @abstractmethod
    def _row(self, kind: type[Task], item: Any, answer: Any) -> Any:
        """An item and its answer as a row of the task. Raises: BothwaysError."""

    def _fitted(self) -> Task:
        from sklearn.exceptions import NotFittedError

        if not hasattr(self, "task_"):
            raise NotFittedError("this estimator is not fitted yet: call fit")
        return self.task_


class TextClassifier(ClassifierMixin, Estimator):  # type: ignore[misc]
    """A text classifier; items are texts or pairs of texts, answers labels or, with `several`, collections of them."""

    kind = "classify"

    def _row(self, kind: type[Task], item: Any, answer: Any) -> Any:
        from bothways.tasks.rows import BadRow, labels

        try:
            found = labels(list(answer)) if not isinstance(answer, str) and hasattr(answer, "__iter__") \
                else (str(answer),)
        except BadRow as problem:
            raise BothwaysError(f"{problem}, for {item!r}") from None
        return kind.asked(item)._replace(labels=found)

    @property
    def classes_(self) -> np.ndarray:
        """Every label, in the order of `predict_proba`."""
        return np.asarray(self._fitted().labels, dtype=object)  # type: ignore[attr-defined]


