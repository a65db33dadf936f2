"""Instruction tuning: every answer of a conversation is learned, no question (InstructGPT, arXiv 2203.02155, 3.5)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bothways.batch import Example, Key, Vocabulary, Window
from bothways.objectives.answers import MARKS, THOUGHT, Answering, answered, asked, need_marks, thinking
from bothways.objectives.base import Mode, Profile, ask, example
from bothways.objectives.next_token import MODE
from bothways.objectives.options import flag, need_tokens
from bothways.visibility import causal


@dataclass(frozen=True)
class Instruct(Answering):
    """Mean of -log p(x_k | x_<k) over the tokens k of the answers in `<bos> q <sep> a <eos> q <sep> a <eos> ...`.

    What a system is told and what a user says is closed by `<sep>`, an answer by `<eos>`, which is learned with it;
    a thought stands in an answer between `<think>` and `</think>` (`text.turns`).

    Options:
        thoughts: whether thoughts are learned too, their marks included; if not, they are only read.
    """

    vocabulary: Vocabulary
    thoughts: bool = True
    name = "instruct"
    summary = "read a conversation, predict each token of the answers from those before it"
    source = "Ouyang et al. 2022 (InstructGPT), section 3.5, arXiv 2203.02155; thoughts: arXiv 2501.12948"
    tokens = (*MARKS, *THOUGHT)

    def __post_init__(self) -> None:
        need_tokens(self.name, self.vocabulary, self.tokens)
        flag(self.name, "thoughts", self.thoughts)

    @property
    def modes(self) -> tuple[Mode, ...]:
        return (MODE,)

    @property
    def profile(self) -> Profile:
        """For answers as long as their questions: what a text holds is known only when it is read."""
        return Profile(causal, asked=0.5)

    def corrupt(self, window: Window, key: Key) -> Example:
        ids = window.ids
        need_marks(self.name, ids, self.vocabulary)
        wanted = answered(ids, self.vocabulary)
        if not self.thoughts:
            wanted &= ~thinking(ids, self.vocabulary)
        return self._example(ids, wanted)

    def blank(self, ids: np.ndarray, hidden: np.ndarray, mode: Mode | None = None) -> Example:
        return self._example(ids, hidden)

    def continuation(self, ids: np.ndarray, mode: Mode | None = None) -> Example:
        """The prompt is a question, or a conversation that ends with one; its `<sep>` is put behind it."""
        return example(asked(ids, self.vocabulary), causal)

    def _example(self, ids: np.ndarray, wanted: np.ndarray) -> Example:
        places = np.flatnonzero(wanted[1:])
        return example(ids, causal, [ask(places, ids[places + 1])])
