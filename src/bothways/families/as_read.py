"""What stands for an objective where a folder's tokenizer lacks the tokens that its own objective needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from bothways.batch import Example, Key, Vocabulary, Window
from bothways.errors import BothwaysError
from bothways.objectives.base import Mode, Objective, Profile, example
from bothways.objectives.two_towers import MODE as TWO_TOWERS
from bothways.objectives.two_towers import begun
from bothways.visibility import bidirectional, causal, prefix

Direction = Literal["causal", "bidirectional", "two towers", "prefix"]
_MODES = {"causal": Mode("causal", causal, "next", "exact"), "two towers": TWO_TOWERS,
          "bidirectional": Mode("bidirectional", bidirectional, "here", "pseudo"),
          "prefix": Mode("prefix", prefix, "next", "exact")}


@dataclass(frozen=True)
class AsRead(Objective):
    """A network as its folder says it is called: logits, states and, where it looks left, writing; no training.

    Args:
        direction: how the family is called.
        wanted: the spec of the objective that could not be made, kept for the folder this is saved to.
        why: what it lacks, as a sentence.
    """

    vocabulary: Vocabulary
    direction: Direction = "bidirectional"
    wanted: Mapping[str, object] = field(default_factory=dict)
    why: str = ""
    name = "as-read"
    summary = "called as it was published; its tokenizer lacks what training needs"
    source = "no paper"

    @property
    def stack(self) -> Literal["one tower", "two towers"]:  # type: ignore[override]
        return "two towers" if self.direction == "two towers" else "one tower"

    @property
    def decoding(self) -> str:  # type: ignore[override]
        return "mask_predict" if self.direction == "bidirectional" else "left_to_right"

    @property
    def modes(self) -> tuple[Mode, ...]:
        return (_MODES[self.direction],)

    @property
    def profile(self) -> Profile:
        return Profile(self.modes[0].visibility, source_inputs=1.0 if self.stack == "two towers" else 0.0)

    @property
    def stops(self) -> frozenset[int]:
        return frozenset({self.vocabulary.ids["<eos>"]} if "<eos>" in self.vocabulary.ids else ())

    def continuation(self, ids: np.ndarray, mode: Mode | None = None) -> Example:
        ids_of = self.vocabulary.ids
        if self.direction == "two towers":
            return begun(np.asarray(ids, dtype=np.int64), [ids_of.get("<begin>", ids_of.get("<bos>", 0))])
        return example(np.asarray(ids, dtype=np.int64), self.modes[0].visibility)

    def corrupt(self, window: Window, key: Key) -> Example:
        raise BothwaysError(self._refusal())

    def blank(self, ids: np.ndarray, hidden: np.ndarray, mode: Mode | None = None) -> Example:
        raise BothwaysError(self._refusal())

    def describe(self) -> dict[str, Any]:
        return dict(self.wanted)

    def _refusal(self) -> str:
        return (f"this model can be read and called, but not trained or asked to fill: {self.why}; "
                "`bothways convert --add-tokens` gives a copy that has them")
