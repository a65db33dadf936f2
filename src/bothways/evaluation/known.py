"""Against a known source: how far is each answer from the true conditional distribution?

Suffix NLLs against the truth come from `likelihood.suffix(truth=source.true_nll)`. Here single blanks are compared
with the exact distribution of the hidden token, so that a difference between paradigms cannot be the estimator's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np

from bothways.batch import Window
from bothways.evaluation.answers import TOKENS, distributions
from bothways.evaluation.fill import choose_blanks, given
from bothways.evaluation.questions import ways
from bothways.evaluation.score import Score, mean_score, timed

if TYPE_CHECKING:
    from bothways.families.trained import Trained


class Source(Protocol):
    """What is asked of a source with computable probabilities (`bothways.text.known.KnownSource`)."""

    def true_conditional(self, ids: np.ndarray, place: int) -> np.ndarray:
        """(V,) the distribution of the token at `place`, given all other tokens of `ids` (L,)."""
        ...


def conditionals(trained: Trained, source: Source, windows: Sequence[Window] | Sequence[np.ndarray], *,
                 blanks: int = 128, off_mode: bool = True, seed: int = 0, tokens: int = TOKENS) -> list[Score]:
    """KL from the true conditional of a single hidden token to the model's, in every way it can be called.

    A way that sees both sides is compared with the truth given both sides; one that sees only the left with the
    truth given the left, so 0 is within reach of everybody, and the estimator's name says which of the two it was.

    Returns:
        "KL to the true conditional" (nats) for each way; `details["entropy"]` is the mean entropy of the truth.
    """
    asked = choose_blanks(windows, trained.vocabulary, blanks, 1, seed)
    places = [int(np.flatnonzero(hidden)[0]) for _, hidden in asked]
    both = [source.true_conditional(ids, place) for (ids, _), place in zip(asked, places)]
    left = [source.true_conditional(ids[:place + 1], place) for (ids, _), place in zip(asked, places)]
    scores: list[Score] = []
    for way in ways(trained, off_mode):
        with timed(scores):
            how = given(way, trained.vocabulary)
            true = left if "left side only" in how else both
            answered = distributions(trained, [way.pose(*pair) for pair in asked], tokens)
            items = [divergence(truth, one[0]) for truth, one in zip(true, answered)]
            entropy = float(np.mean([entropy_of(truth) for truth in true])) if true else float("nan")
            scores.append(mean_score("KL to the true conditional", way.name, how, items, unit="nats",
                                     higher_is_better=False, details={"entropy": entropy}))
    return scores


def divergence(true: np.ndarray, log_probs: np.ndarray) -> float:
    """KL(true || model) in nats, for true (V,) probabilities and the model's (V,) log-probabilities."""
    some = true > 0
    return float((true[some] * (np.log(true[some]) - log_probs[some].astype(np.float64))).sum())


def entropy_of(true: np.ndarray) -> float:
    """Entropy of (V,) probabilities, in nats."""
    some = true > 0
    return float(-(true[some] * np.log(true[some])).sum())
