"""Pseudo-likelihoods: each token given what stands around it, by a rule that says what else is hidden with it.

They are no probabilities of the text: compare them only within a pair, or between models on the same tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from bothways.batch import Example, Vocabulary
from bothways.errors import BothwaysError, nearest
from bothways.evaluation.answers import TOKENS, answers

if TYPE_CHECKING:
    from bothways.evaluation.questions import Way
    from bothways.families.trained import Trained

RULES = {
    "pll": "pseudo, one token at a time",
    "pll-word": "pseudo, one word at a time",
    "pll-word-l2r": "pseudo, within words left to right",
}
"""Rule -> its estimator's name. pll: each token alone hidden (Salazar et al. 2020, arXiv 1910.14659, eq. 1), inflated
for words of several pieces, which tell each other; pll-word: with all pieces of its word; pll-word-l2r: with the later
pieces of its word (both Kauf & Ivanova 2023, arXiv 2305.10588)."""


def pseudo_nats(trained: Trained, way: Way, asked: Sequence[tuple[np.ndarray, np.ndarray]], rule: str = "pll",
                tokens: int = TOKENS) -> np.ndarray:
    """-sum over the hidden tokens of log p(token | what the rule leaves): (n,) nats.

    Args:
        asked: (ids (L,), hidden (L,) bool): whose tokens are summed; all others are always seen.
    Raises:
        BothwaysError: an unknown rule.
    """
    questions: list[Example] = []
    notes: list[tuple[int, int | None]] = []
    for number, (ids, hidden) in enumerate(asked):
        for away, target in turns(ids, hidden, rule, trained.vocabulary):
            questions.append(way.pose(ids, away))
            notes.append((number, target))
    total = np.zeros(len(asked))
    for (number, target), one in zip(notes, answers(trained, questions, tokens)):
        total[number] += one.nats if target is None else -float(one.log_probs[target])
    return total


def turns(ids: np.ndarray, hidden: np.ndarray, rule: str,
          vocabulary: Vocabulary) -> list[tuple[np.ndarray, int | None]]:
    """The questions of one text: (what is hidden (L,) bool, which of its targets counts: all when none)."""
    if rule not in RULES:
        raise BothwaysError(f"no pseudo-likelihood is called '{rule}' " + nearest(rule, RULES))
    places = np.arange(len(ids))
    if rule == "pll":
        return [(places == place, None) for place in np.flatnonzero(hidden)]
    # a word's places lie side by side; of a word that is asked for in part, that part
    parts = [word[hidden[word]] for word in words(ids, vocabulary)]
    spans = [(int(part[0]), int(part[-1]) + 1) for part in parts if len(part)]
    if rule == "pll-word":
        return [((places >= start) & (places < end), None) for start, end in spans]
    return [((places >= piece) & (places < end), 0) for start, end in spans for piece in range(start, end)]


def words(ids: np.ndarray, vocabulary: Vocabulary) -> list[np.ndarray]:
    """The places of each word of `ids` (L,), reserved tokens left out: a word begins where its first piece does."""
    found: list[list[int]] = []
    for place, token in enumerate(ids):
        if vocabulary.special[token]:
            found.append([])
        elif not found or not found[-1] or vocabulary.starts_word[token]:
            found.append([place])
        else:
            found[-1].append(place)
    return [np.array(word) for word in found if word]
