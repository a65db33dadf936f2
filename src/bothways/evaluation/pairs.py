"""Minimal pairs: is the good sentence likelier than the bad one? By a rule that is always named.

- nll, for causal modes: log p by the chain rule.
- pll-word-l2r, for modes that see both sides: the sum over tokens, each with the later pieces of its word hidden too
  (Kauf & Ivanova 2023, arXiv 2305.10588).
- pll, for the same: each token alone hidden (Salazar et al. 2020); inflated for words of several pieces.
- bound, for diffusion and hybrids: minus the exact-k bound, with the same corruption for both members.
- word-blanks, for two towers: one blank for each word, written by the decoder.

Pseudo-likelihoods are compared only inside a pair. An encoder-decoder is never given the sentence it has to write,
since copying would win.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np

from bothways.batch import Example, Vocabulary
from bothways.errors import BothwaysError, nearest
from bothways.evaluation.answers import TOKENS, answers
from bothways.evaluation.questions import Way, ways
from bothways.evaluation.score import Score, mean_score, timed

if TYPE_CHECKING:
    from bothways.families.trained import Trained
    from bothways.text.tokenizer import Tokenizer

RULES = {
    "nll": "NLL, exact", "pll-word-l2r": "PLL-word-l2r, pseudo", "pll": "PLL plain, pseudo",
    "bound": "upper bound, {samples} common samples", "word-blanks": "word blanks, pseudo",
}
"""Rule -> the estimator's name in a Score."""


class PairLike(Protocol):
    """A minimal pair (`bothways.text.pairs.Pair`)."""

    @property
    def good(self) -> str:
        """The text that should be likelier."""
    @property
    def bad(self) -> str:
        """The text that should be less likely."""
    @property
    def kind(self) -> str:
        """The rule that tells them apart."""


def minimal_pairs(trained: Trained, pairs: Sequence[PairLike], *, rules: Sequence[str] | None = None,
                  samples: int = 16, off_mode: bool = False, seed: int = 0, tokens: int = TOKENS) -> list[Score]:
    """The share of pairs whose good member scores higher, for each way of calling the model.

    Args:
        pairs: good and bad sentences; a tie (also between members with the same tokens) counts one half.
        rules: of `RULES`; by default the one that fits each way (see `default_rule`). A rule that does not fit a
            way is left out for that way.
        samples: draws of the bound.
    Returns:
        one Score for each way and rule; items are pairs (1, 0.5 or 0), `details` the accuracy of each kind.
    Raises:
        BothwaysError: an unknown rule.
    """
    for rule in rules or ():
        if rule not in RULES:
            raise BothwaysError(f"no scoring rule for minimal pairs is called '{rule}' " + nearest(rule, RULES))
    good = [sentence(trained.tokenizer, pair.good) for pair in pairs]
    bad = [sentence(trained.tokenizer, pair.bad) for pair in pairs]
    scores: list[Score] = []
    for way in ways(trained, off_mode):
        for rule in rules or (default_rule(way),):
            if not fits(rule, way):
                continue
            with timed(scores):
                # both members in one call, so that they share batches; bounds share their corruption inside `score`
                both = score(trained, way, rule, good, bad, samples, seed, tokens)
                items = [1.0 if one > other else 0.5 if one == other else 0.0 for one, other in both]
                scores.append(mean_score("minimal pairs", way.name, RULES[rule].format(samples=samples), items,
                                         unit="accuracy", details=by_kind([pair.kind for pair in pairs], items)))
    return scores


def default_rule(way: Way) -> str:
    """nll for the chain rule, word-blanks for two towers, the bound for diffusion, else PLL-word-l2r."""
    if way.two_towers:
        return "word-blanks"
    if way.kind == "exact":
        return "nll"
    return "bound" if way.mode is not None and way.mode.likelihood == "bound" else "pll-word-l2r"


def fits(rule: str, way: Way) -> bool:
    """Whether a rule can be used with a way."""
    if way.two_towers:
        return rule == "word-blanks"
    return (rule == "nll") == (way.kind == "exact") and rule != "word-blanks"


def score(trained: Trained, way: Way, rule: str, good: Sequence[np.ndarray], bad: Sequence[np.ndarray],
          samples: int = 16, seed: int = 0, tokens: int = TOKENS) -> list[tuple[float, float]]:
    """The scores (higher is likelier) of both members of each pair, from their ids beginning with `<bos>`."""
    questions: list[Example] = []
    # (place of the question's sentence, weight, which of its targets count: all when none)
    notes: list[tuple[int, float, int | None]] = []
    for number, members in enumerate(zip(good, bad)):
        for side, ids in enumerate(members):
            other = members[1 - side]
            asked = _common_subsets(ids, other, samples, (seed, number)) if rule == "bound" else \
                _asked(ids, rule, trained.vocabulary)
            for hidden, weight, target in asked:
                questions.append(way.pose(ids, hidden))
                notes.append((2 * number + side, weight, target))
    totals = np.zeros(2 * len(good))
    for (place, weight, target), one in zip(notes, answers(trained, questions, tokens)):
        totals[place] += weight * float(one.log_probs.sum() if target is None else one.log_probs[target])
    return [(float(one), float(other)) for one, other in totals.reshape(-1, 2)]


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


def sentence(tokenizer: Tokenizer, text: str) -> np.ndarray:
    """`<bos>` and the tokens of a sentence: (L,) int64. No `<eos>`, since documents end there and sentences do not."""
    return np.array([tokenizer.vocabulary.bos, *tokenizer.encode(text, reserved=False)], dtype=np.int64)


def by_kind(kinds: Sequence[str], items: Sequence[float]) -> dict[str, float]:
    """The mean item of each kind; empty when there is only one kind."""
    groups: dict[str, list[float]] = defaultdict(list)
    for kind, item in zip(kinds, items):
        groups[kind].append(item)
    return {kind: float(np.mean(group)) for kind, group in sorted(groups.items())} if len(groups) > 1 else {}


def _asked(ids: np.ndarray, rule: str, vocabulary: Vocabulary) -> list[tuple[np.ndarray, float, int | None]]:
    """(hidden, weight, target) of every question that a rule asks about one sentence."""
    places = np.arange(len(ids))
    if rule == "nll":
        return [(~vocabulary.special[ids], 1.0, None)]
    if rule == "pll":
        return [(places == place, 1.0, None) for place in np.flatnonzero(~vocabulary.special[ids])]
    # a word's places lie side by side
    spans = [(int(word[0]), int(word[-1]) + 1) for word in words(ids, vocabulary)]
    if rule == "word-blanks":
        return [((places >= start) & (places < end), 1.0, None) for start, end in spans]
    # PLL-word-l2r: the token and the later pieces of its word are hidden, the token alone (the first target) counts
    return [((places >= piece) & (places < end), 1.0, 0) for start, end in spans for piece in range(start, end)]


def _common_subsets(ids: np.ndarray, other: np.ndarray, samples: int,
                    seed: tuple[int, ...]) -> list[tuple[np.ndarray, float, int | None]]:
    """`samples` corruptions of `ids`, as like those of `other` as can be: (hidden, L / k / samples, none) each.

    Tokens of the common beginning and of the common end carry the same random numbers in both members, those
    between carry their own, and k is the same share of either length: what differs is then the sentence.
    """
    length = len(ids) - 1                      # the first token is <bos>, never hidden
    longest = max(len(ids), len(other)) - 1
    same = min(len(ids), len(other)) - 1
    differ = np.flatnonzero(ids[1:same + 1] != other[1:same + 1])
    start = int(differ[0]) if len(differ) else same
    rng = np.random.default_rng(seed)
    numbers, offset = rng.random((samples, 2, longest)), rng.random()
    found: list[tuple[np.ndarray, float, int | None]] = []
    for sample in range(samples):
        # left-aligned numbers up to the first difference, right-aligned ones after it
        draw = np.concatenate([numbers[sample, 0, :start], numbers[sample, 1, longest - (length - start):]])
        k = min(1 + int((sample + offset) / samples * length), length)
        hidden = np.zeros(len(ids), dtype=bool)
        hidden[1 + np.argsort(draw, kind="stable")[:k]] = True
        found.append((hidden, length / k / samples, None))
    return found
