"""Thoughts in what is written: when one may begin, when it must end, and what of it is shown."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from bothways.batch import Example

SHOWN = ("<think> ", " </think> ")
"""How the marks of a thought are printed."""


class Thoughts:
    """Which of several texts is inside a thought, and what each may write next.

    Args:
        marks: the ids that open and close a thought; none where none is ever written, and nothing then happens here.
        examples: what the texts begin from; a prompt may have opened a thought.
        blocked: (V,) bool of the tokens that are never written.
        budget: tokens of a thought, after which its end is the only token that may come; 0 lets none begin, none is no
            limit.
    """

    def __init__(self, marks: tuple[int, int] | None, examples: Sequence[Example], blocked: Tensor,
                 budget: int | None) -> None:
        self.marks, self.budget = marks, budget
        self.blocked = blocked if marks is None else blocked.repeat(len(examples), 1)
        """(B, V), or (V,) where nobody thinks: what may not be written next; it changes as tokens are written."""
        self._never = blocked
        self._inside = [False for _ in examples]
        self._written = [0 for _ in examples]
        if marks is not None:
            for row, example in enumerate(examples):
                opened, closed = (int((example.inputs == mark).sum()) for mark in marks)
                self._inside[row] = opened > closed
                self._allow(row)

    def wrote(self, row: int, token: int) -> bool:
        """Take one token of text `row`; whether it belongs to a thought, the marks included."""
        if self.marks is None:
            return False
        opens, closes = self.marks
        was = self._inside[row]
        self._inside[row] = token == opens or (was and token != closes)
        self._written[row] = self._written[row] + 1 if was else 0
        if was or token == opens:
            self._allow(row)
        return was or token == opens

    def _allow(self, row: int) -> None:
        """Set what text `row` may write next."""
        assert self.marks is not None
        opens, closes = self.marks
        if self._inside[row] and self.budget is not None and self._written[row] >= self.budget:
            self.blocked[row] = True
        else:
            self.blocked[row] = self._never
        self.blocked[row, opens] = self._inside[row] or self.budget == 0
        self.blocked[row, closes] = not self._inside[row]
