"""Minimal pairs: is the good sentence likelier than the bad one? By a rule that is always named.

- nll, for causal modes: log p by the chain rule.
- pll-word-l2r, for modes that see both sides: the sum over tokens, each with the later pieces of its word hidden too
  (Kauf & Ivanova 2023, arXiv 2305.10588).
- pll, for the same: each token alone hidden (Salazar et al. 2020); inflated for words of several pieces.
- pll-word, for the same: all pieces of a word hidden together.
- difference, for the same: only the words in which the two differ, within words left to right: one or a few questions a
  pair instead of one a token, and another rule.
- bound, for diffusion and hybrids: minus the exact-k bound, with the same corruption for both members.
- word-blanks, for two towers: one blank for each word, written by the decoder.

Pseudo-likelihoods are compared only inside a pair. An encoder-decoder is never given the sentence it has to write,
since copying would win. Members are laid as a tree for a purely causal network: what both begin with is read once, and
its likelihood, which is the same, is left out of both scores.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np

from bothways.batch import Example, Vocabulary
from bothways.errors import BothwaysError, nearest
from bothways.evaluation.answers import TOKENS, Answers, answers
from bothways.evaluation.pseudo import turns, words
from bothways.evaluation.questions import Way, ways
from bothways.evaluation.score import Score, mean_score, timed
from bothways.evaluation.trees import looks_left, shared_beginning, tree
from bothways.visibility import causal

if TYPE_CHECKING:
    from bothways.families.trained import Trained
    from bothways.text.tokenizer import Tokenizer

RULES = {
    "nll": "NLL, exact", "pll-word-l2r": "PLL-word-l2r, pseudo", "pll": "PLL plain, pseudo",
    "pll-word": "PLL-word, pseudo", "difference": "differing words only, pseudo",
    "bound": "upper bound, {samples} common samples", "word-blanks": "word blanks, pseudo",
}
"""Rule -> the estimator's name in a Score."""
CHUNK = 256
"""Pairs whose questions are laid out at one time."""
LEVELS = ("1 piece", "2 pieces", "3 or more pieces")


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
                  samples: int = 16, off_mode: bool = False, seed: int = 0, tokens: int = TOKENS,
                  parts: bool = False, tell: Callable[[str, int, int], None] | None = None) -> list[Score]:
    """The share of pairs whose good member scores higher, for each way of calling the model.

    Args:
        pairs: good and bad sentences; a tie (also between members with the same tokens) counts one half.
        rules: of `RULES`; by default the one that fits each way (see `default_rule`). A rule that does not fit a
            way is left out for that way.
        samples: draws of the bound.
        parts: also a Score for each phenomenon (the pairs' `group`, where they have one) and for each number of
            pieces of the critical word (`critical_pieces`).
        tell: called with (way, pairs done, pairs) as it goes.
    Returns:
        one Score for each way and rule; items are pairs (1, 0.5 or 0), `details` the accuracy of each kind. With
        `parts` it is followed by "minimal pairs, PART".
    Raises:
        BothwaysError: an unknown rule.
    """
    for rule in rules or ():
        if rule not in RULES:
            raise BothwaysError(f"no scoring rule for minimal pairs is called '{rule}' " + nearest(rule, RULES))
    good = sentences(trained.tokenizer, [pair.good for pair in pairs])
    bad = sentences(trained.tokenizer, [pair.bad for pair in pairs])
    scores: list[Score] = []
    for way in ways(trained, off_mode):
        for rule in rules or (default_rule(way),):
            if not fits(rule, way):
                continue
            found: list[Score] = []
            with timed(found):
                both: list[tuple[float, float]] = []
                for start in range(0, len(good), CHUNK):
                    some = slice(start, start + CHUNK)
                    both += score(trained, way, rule, good[some], bad[some], samples, seed, tokens, start)
                    if tell is not None:
                        tell(way.name, len(both), len(good))
                items = [1.0 if one > other else 0.5 if one == other else 0.0 for one, other in both]
                found.append(mean_score("minimal pairs", way.name, RULES[rule].format(samples=samples), items,
                                        unit="accuracy", details=by_kind([pair.kind for pair in pairs], items)))
            scores += found
            if parts:
                scores += by_part(found[0], pairs, good, bad, trained.vocabulary)
    return scores


def by_part(whole: Score, pairs: Sequence[PairLike], good: Sequence[np.ndarray], bad: Sequence[np.ndarray],
            vocabulary: Vocabulary) -> list[Score]:
    """The items of a Score again, by phenomenon and by the pieces of the critical word."""
    groups: dict[str, list[float]] = defaultdict(list)
    items = whole.items or []
    for name in sorted({getattr(pair, "group", "") for pair in pairs} - {""}):
        groups[name] = [item for pair, item in zip(pairs, items) if getattr(pair, "group", "") == name]
    pieces = [critical_pieces(*members, vocabulary) for members in zip(good, bad)]
    for level, name in enumerate(LEVELS, start=1):
        some = [item for count, item in zip(pieces, items) if count and min(count, 3) == level]
        if some:
            groups["critical word of " + name] = some
    return [mean_score(f"{whole.name}, {name}", whole.mode, whole.estimator, some, unit=whole.unit)
            for name, some in groups.items()]


def critical_pieces(good: np.ndarray, bad: np.ndarray, vocabulary: Vocabulary) -> int:
    """How many pieces the word has in which two members first differ, in the member that has more; 0 if in none.

    A member that is the beginning of the other differs from it in the other's next word.
    """
    start = shared_beginning(good, bad)
    sizes = [len(word) for ids in (good, bad) for word in words(ids, vocabulary) if start in word]
    return max(sizes, default=0)


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
          samples: int = 16, seed: int = 0, tokens: int = TOKENS, first: int = 0) -> list[tuple[float, float]]:
    """The scores (higher is likelier) of both members of each pair, from their ids beginning with `<bos>`.

    `first` is the number of the first pair among all, on which the corruption of a bound depends.
    """
    if rule == "nll" and _reads_plainly(way, trained):
        return _by_trees(trained, way, good, bad, tokens)
    questions: list[Example] = []
    # (place of the question's sentence, weight, which of its targets count: all when none)
    notes: list[tuple[int, float, int | None]] = []
    for number, members in enumerate(zip(good, bad)):
        for side, ids in enumerate(members):
            other = members[1 - side]
            asked = _common_subsets(ids, other, samples, (seed, first + number)) if rule == "bound" else \
                _asked(ids, other, rule, trained.vocabulary)
            for hidden, weight, target in asked:
                questions.append(way.pose(ids, hidden))
                notes.append((2 * number + side, weight, target))
    totals = np.zeros(2 * len(good))
    for (place, weight, target), one in zip(notes, _answered(trained, questions, tokens)):
        totals[place] += weight * float(one.log_probs.sum() if target is None else one.log_probs[target])
    return [(float(one), float(other)) for one, other in totals.reshape(-1, 2)]


def _answered(trained: Trained, questions: Sequence[Example], tokens: int) -> list[Answers]:
    """`answers` with questions of one length side by side, which share one call of attention."""
    order = sorted(range(len(questions)), key=lambda place: len(questions[place]))
    found: list[Answers | None] = [None] * len(questions)
    for place, one in zip(order, answers(trained, [questions[place] for place in order], tokens)):
        found[place] = one
    return [one for one in found if one is not None]


def _reads_plainly(way: Way, trained: Trained) -> bool:
    """Whether a way reads a text as it stands, left to right, each place naming the next: two can then be a tree."""
    if way.two_towers or way.mode is None or way.mode.predicts != "next":
        return False
    ids = np.array([trained.vocabulary.bos, *np.flatnonzero(~trained.vocabulary.special)[:3]], dtype=np.int64)
    posed = way.pose(ids, np.arange(len(ids)) > 0)
    return posed.visibility == causal and posed.inputs.tolist() == ids.tolist() and looks_left(posed, trained.config)


def _by_trees(trained: Trained, way: Way, good: Sequence[np.ndarray], bad: Sequence[np.ndarray],
              tokens: int) -> list[tuple[float, float]]:
    """log p of what differs in each pair, the shared beginning read once."""
    trees = []
    for members in zip(good, bad):
        start = max(1, shared_beginning(*members))
        trees.append(tree([way.pose(ids, np.arange(len(ids)) >= start) for ids in members]))
    found = []
    for (_, (one, other)), answered in zip(trees, _answered(trained, [asked for asked, _ in trees], tokens)):
        found.append((float(answered.log_probs[one].sum()), float(answered.log_probs[other].sum())))
    return found


def sentence(tokenizer: Tokenizer, text: str) -> np.ndarray:
    """`<bos>` and the tokens of a sentence: (L,) int64. No `<eos>`, since documents end there and sentences do not."""
    return np.array([tokenizer.vocabulary.bos, *tokenizer.encode(text, reserved=False)], dtype=np.int64)


def sentences(tokenizer: Tokenizer, texts: Sequence[str]) -> list[np.ndarray]:
    """`sentence` of each, in one call of the tokenizer."""
    begin = tokenizer.vocabulary.bos
    return [np.array([begin, *ids], dtype=np.int64) for ids in tokenizer.encode_batch(list(texts), reserved=False)]


def by_kind(kinds: Sequence[str], items: Sequence[float]) -> dict[str, float]:
    """The mean item of each kind; empty when there is only one kind."""
    groups: dict[str, list[float]] = defaultdict(list)
    for kind, item in zip(kinds, items):
        groups[kind].append(item)
    return {kind: float(np.mean(group)) for kind, group in sorted(groups.items())} if len(groups) > 1 else {}


def _asked(ids: np.ndarray, other: np.ndarray, rule: str,
           vocabulary: Vocabulary) -> list[tuple[np.ndarray, float, int | None]]:
    """(hidden, weight, target) of every question that a rule asks about one sentence, given the other of the pair."""
    places, plain = np.arange(len(ids)), ~vocabulary.special[ids]
    if rule == "nll":
        return [(plain, 1.0, None)]
    if rule == "word-blanks":
        return [((places >= word[0]) & (places <= word[-1]), 1.0, None) for word in words(ids, vocabulary)]
    if rule == "difference":
        first, last = shared_beginning(ids, other), len(ids) - shared_beginning(ids[::-1], other[::-1])
        inside = (places >= first) & (places < last)
        hidden = np.isin(places, [place for word in words(ids, vocabulary) if inside[word].any() for place in word])
        # all that differs is hidden together, and comes back from left to right
        return [(hidden & (places >= place), 1.0, 0) for place in np.flatnonzero(hidden)]
    return [(hidden, 1.0, target) for hidden, target in turns(ids, plain, rule, vocabulary)]


def _common_subsets(ids: np.ndarray, other: np.ndarray, samples: int,
                    seed: tuple[int, ...]) -> list[tuple[np.ndarray, float, int | None]]:
    """`samples` corruptions of `ids`, as like those of `other` as can be: (hidden, L / k / samples, none) each.

    Tokens of the common beginning and of the common end carry the same random numbers in both members, those
    between carry their own, and k is the same share of either length: what differs is then the sentence.
    """
    length = len(ids) - 1                      # the first token is <bos>, never hidden
    longest = max(len(ids), len(other)) - 1
    start = max(shared_beginning(ids, other) - 1, 0)
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
