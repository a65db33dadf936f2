"""Thoughts in what is written: when one may begin, when it must end, and what of it is shown."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from bothways.batch import Example
from bothways.decoding.sampling import BLOCKED

SHOWN = ("<think> ", " </think> ")
"""How the marks of a thought are printed."""


class Thoughts:
    """A rule: which of several texts is inside a thought, and what each may write next.

    Args:
        marks: the ids that open and close a thought; none where none is ever written, and nothing then happens here.
        examples: what the texts begin from; a prompt may have opened a thought.
        blocked: (V,) bool of the tokens that are never written; it gives the vocabulary's size and device.
        budget: tokens of a thought, after which its end is the only token that may come; 0 lets none begin, none is no
            limit.
    """

    def __init__(self, marks: tuple[int, int] | None, examples: Sequence[Example], blocked: Tensor,
                 budget: int | None) -> None:
        self.marks, self.budget = marks, budget
        self._hidden = blocked.new_zeros(0, blocked.shape[-1])
        """(B, V) what may not be written next."""
        self._inside: list[bool] = []
        self._written: list[int] = []
        self._shown: list[bool] = []
        for example in examples:
            tokens = example.inputs.tolist()
            self.join(tokens, tokens)

    def apply(self, logits: Tensor, texts: Sequence[int]) -> Tensor:
        if self.marks is None:
            return logits
        return logits.masked_fill(self._hidden[torch.tensor(texts, device=self._hidden.device)], BLOCKED)

    def wrote(self, text: int, token: int) -> None:
        if self.marks is None:
            return
        was = self._inside[text]
        self._inside[text] = token == self.marks[0] or (was and token != self.marks[1])
        self._written[text] = self._written[text] + 1 if was else 0
        if was or token == self.marks[0]:
            self._allow(text)

    def keep(self, texts: Sequence[int]) -> None:
        self._inside = [self._inside[text] for text in texts]
        self._written = [self._written[text] for text in texts]
        if self.marks is not None:
            self._hidden = self._hidden[torch.tensor(texts, device=self._hidden.device)]

    def join(self, read: Sequence[int], begun: Sequence[int]) -> None:
        opened, closed = (list(read).count(mark) for mark in self.marks or (-1, -1))
        self._inside.append(opened > closed)
        self._shown.append(opened > closed)
        self._written.append(0)
        if self.marks is not None:
            self._hidden = torch.cat((self._hidden, self._hidden.new_zeros(1, self._hidden.shape[-1])))
            self._allow(len(self._inside) - 1)

    def belongs(self, text: int, token: int) -> bool:
        """Whether the next token of a text that is shown belongs to a thought, the marks included."""
        if self.marks is None:
            return False
        was = self._shown[text]
        self._shown[text] = token == self.marks[0] or (was and token != self.marks[1])
        return was or token == self.marks[0]

    def _allow(self, row: int) -> None:
        """Set what text `row` may write next."""
        assert self.marks is not None
        opens, closes = self.marks
        self._hidden[row] = self._inside[row] and self.budget is not None and self._written[row] >= self.budget
        self._hidden[row, opens] = self._inside[row] or self.budget == 0
        self._hidden[row, closes] = not self._inside[row]
