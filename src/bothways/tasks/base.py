"""What every kind of task is: rows it reads, how it is tuned, what it answers, how good that is, and what it stores."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from torch import Tensor

from bothways.errors import BothwaysError, nearest
from bothways.evaluation.score import Score
from bothways.tasks.rows import BadRow, Role
from bothways.tasks.tuning import TuneConfig

if TYPE_CHECKING:
    from bothways.families.trained import Trained

Watch = Callable[[int, float], None]


class Task(ABC):
    """A tuned task of one kind. See `bothways.tasks` for how to write one.

    `trained` is the tuned network with its tokenizer, or none for a way that has no network.
    """

    kind: ClassVar[str]
    roles: ClassVar[tuple[Role, ...]]
    Options: ClassVar[type[Any]]
    recipe: ClassVar[Mapping[str, Any]] = {}
    """Options of the loop whose defaults in `bothways tune` are others for this kind."""
    trained: Trained | None

    # --- 1. rows ---

    @classmethod
    @abstractmethod
    def row(cls, values: Mapping[str, Any]) -> Any:
        """The values of one record, by role, as a row; an answer that is not there is none. Raises: BadRow."""

    @classmethod
    @abstractmethod
    def key(cls, row: Any) -> str:
        """What makes two rows the same question."""

    @classmethod
    def group(cls, row: Any) -> str:
        """What should be found on both sides of a split, such as the label."""
        return ""

    @classmethod
    def asked(cls, item: Any) -> Any:
        """A row without an answer out of memory: a text, several in the order of the roles, or a mapping by role.

        Raises:
            BothwaysError: an unknown role, or a bad row.
        """
        questions = [role.name for role in cls.roles if not role.answer]
        if isinstance(item, Mapping):
            for name in item:
                if name not in {role.name for role in cls.roles}:
                    raise BothwaysError(f"the task '{cls.kind}' reads no '{name}' {nearest(str(name), questions)}")
            values = dict(item)
        else:
            parts = [item] if isinstance(item, str) else list(item)
            values = dict(zip(questions, parts, strict=False))
        try:
            return cls.row({**dict.fromkeys(role.name for role in cls.roles), **values})
        except BadRow as problem:
            raise BothwaysError(f"{problem}, in {item!r}") from None

    # --- 2. to 5. tuning, answers, scores ---

    @classmethod
    @abstractmethod
    def fit(cls, trained: Trained, train: Sequence[Any], dev: Sequence[Any], options: Any, config: TuneConfig,
            watch: Watch | None = None) -> Self:
        """A tuned task from a copy of `trained`, which is left as it is.

        Args:
            train, dev: rows with answers; dev, which may be empty, says which weights are best.
        Raises:
            BothwaysError: rows or options from which nothing can be learned.
        """

    @classmethod
    def untuned(cls, trained: Trained | None, options: Any, config: TuneConfig) -> Self | None:
        """The task before it is tuned, to be scored beside it; none where a new head could answer nothing yet.

        Raises:
            BothwaysError: as `fit`.
        """
        return None

    @abstractmethod
    def predict(self, rows: Sequence[Any]) -> list[Any]:
        """The answer to each row."""

    def predict_proba(self, rows: Sequence[Any]) -> np.ndarray:
        """The probability of every answer to each row, (n, answers) float. Raises: BothwaysError, where it has none."""
        raise BothwaysError(f"the task '{self.kind}' gives no probabilities: call predict")

    def outputs(self, rows: Sequence[Any]) -> list[dict[str, Any]]:
        """What a line of predictions says of each row."""
        return [{"prediction": found} for found in self.predict(rows)]

    @abstractmethod
    def scores(self, rows: Sequence[Any]) -> list[Score]:
        """How good the answers to these rows are; the first score is the one by which models are compared."""

    def unmeasured(self) -> str:
        """What `scores` leaves out here for want of a package, as a sentence; empty where it leaves nothing out."""
        return ""

    @abstractmethod
    def limits(self) -> str:
        """What this task must not be used for, in sentences, for its model card."""

    # --- 6. what is stored ---

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """What the folder's task.json says: plain data."""

    def weights(self) -> dict[str, Tensor]:
        """What the folder's head.safetensors holds; nothing where empty."""
        return {}

    @property
    def parameters(self) -> int:
        """Numbers that were learned or are kept to answer with: of the network, the head, the neighbours, the words."""
        network = 0 if self.trained is None else self.trained.parameters
        return network + sum(tensor.numel() for tensor in self.weights().values() if tensor.is_floating_point())

    @classmethod
    @abstractmethod
    def restored(cls, trained: Trained | None, settings: Mapping[str, Any], weights: Mapping[str, Tensor]) -> Self:
        """The task that gave these."""
