"""Suffix likelihoods: the second half of each held-out window given its first half, the same tokens for everybody.

Three estimators that never share a column without their names (`literature.md` section 1, rules 6 and 7):

- exact: the chain rule, left to right;
- upper bound: the masked-diffusion bound, in its exact-k form (arXiv 2502.09992): hide k of the L tokens, k uniform in
  1..L, and weigh their loss by L / k; or over times t (eq. 3 and 4): hide each token with chance t and weigh by 1 / t.
  Both bound -log p of the any-order model that the network's conditionals define, so they hold for masked, diffusion
  and hybrid networks alike, and have the same mean; the exact-k form varies less;
- pseudo: tokens hidden one at a time or word by word, everything else of the window seen (`pseudo.RULES`). Neither a
  bound nor a probability.

Corruption is a function of (seed, window, sample) only: every model is asked the same questions.

Who sees both sides also sees how many places are hidden, and where a window ends with its text that is how long the
text is: knowledge that a causal model has to pay for. Of text such a bound is "given the length", and ends are not
asked for. Of a known source whole texts are taken (`questions.rests`), everybody is asked for the end as well, and who
was told the length pays its true price: then the truth is a lower bound for all.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from bothways.batch import Example, Vocabulary, Window
from bothways.evaluation.answers import TOKENS, Answers, answers
from bothways.evaluation.lengths import length_nll
from bothways.evaluation.pseudo import RULES, pseudo_nats
from bothways.evaluation.questions import Way, halves, rests, tells_length, ways, with_end
from bothways.evaluation.score import Score, mean_score, timed

if TYPE_CHECKING:
    from bothways.families.trained import Trained
    from bothways.text.known import KnownSource

Asked = tuple[np.ndarray, np.ndarray]
"""(ids (L,) int64, hidden (L,) bool): the tokens whose likelihood is wanted, given the others."""
TrueNLL = Callable[[np.ndarray], np.ndarray]
"""ids (L,) -> (L,) true -log p(token | left), in nats."""
Answer = Callable[["Trained", Sequence[Example], int], list[Answers]]
"""How a network is asked: `answers`, or `trees.answers_together`."""
Form = Literal["exact-k", "times"]
"""Of the bound: k hidden tokens, or each hidden with chance t."""


def suffix(trained: Trained, windows: Sequence[Window] | Sequence[np.ndarray], *, limit: int = 64, samples: int = 16,
           pseudo: int = 0, rules: Sequence[str] = ("pll",), off_mode: bool = True,
           truth: KnownSource | TrueNLL | None = None, seed: int = 0, tokens: int = TOKENS) -> list[Score]:
    """NLL of second halves given first halves, in every way the model can be called.

    Args:
        windows: held-out windows; `limit` of them, spread evenly, are used.
        samples: draws of k and of the hidden places for the bound.
        pseudo: windows for pseudo-likelihoods by `rules` of `pseudo.RULES` (0 leaves them out; each costs about L
            passes a window).
        off_mode: also call a one-tower model in the direction it was not trained in.
        truth: the source where it is known: whole texts are asked from one place on, their ends included, and the
            distance to the truth is added. Its method `true_nll` alone will do, but then halves are asked, without
            ends, and the length is not paid for.
    Returns:
        for each way and estimator "suffix NLL" (nats per token), "suffix bits per byte" where tokens have bytes,
        and "suffix NLL above the truth" where that is known; items are windows, weights their tokens or bytes.
    """
    vocabulary = trained.vocabulary
    source = None if truth is None or callable(truth) else truth
    asked = halves(windows, vocabulary, limit) if source is None else rests(windows, vocabulary, limit)
    true_nll = true_nll_of(truth)
    ends = any(with_end(ids, vocabulary) for ids, _ in asked)
    scores: list[Score] = []
    for way in ways(trained, off_mode):
        with timed(scores):
            told = ends and tells_length(way, vocabulary)
            if way.kind == "exact":
                nats = exact(trained, way, asked, tokens)
            else:
                nats = bound(trained, way, without_ends(asked, vocabulary), samples, seed, tokens)
            if told and source is not None:
                nats = nats + np.array([length_price(source, *pair) for pair in asked])
            how = estimator(way, samples, "" if not told else "given" if source is None else "paid")
            scores += suffix_scores("suffix", way.name, how, nats, asked, vocabulary, true_nll)
        if pseudo and way.kind == "both sides" and way.trained:
            some = without_ends(asked[:pseudo], vocabulary)
            for rule in rules:
                with timed(scores):
                    scores += suffix_scores("suffix", way.name, RULES[rule],
                                            pseudo_nats(trained, way, some, rule, tokens), some, vocabulary)
    return scores


def without_ends(asked: Sequence[Asked], vocabulary: Vocabulary) -> list[Asked]:
    """The same questions with every reserved token left standing: who knows the length is not asked for the end."""
    return [(ids, hidden & ~vocabulary.special[ids]) for ids, hidden in asked]


def true_nll_of(truth: KnownSource | TrueNLL | None) -> TrueNLL | None:
    """The function that gives true -log p, from a source or from itself."""
    return truth if truth is None or callable(truth) else truth.true_nll


def length_price(source: KnownSource, ids: np.ndarray, hidden: np.ndarray) -> float:
    """What knowing the number of hidden places is worth, in nats: with it a bound given the length bounds them all.

    p(tokens, end | left) = p(tokens | left, length) p(length | left).
    """
    return length_nll(source, ids, int(np.flatnonzero(hidden)[0]))


def estimator(way: Way, samples: int, length: str = "", form: Form = "exact-k") -> str:
    """The name of the estimator that `suffix` uses for a way; `length` is "given", "paid" or "" if not known to it."""
    notes = {"": "", "given": " given the length", "paid": " and the length's true price"}
    if way.kind == "exact":
        return f"exact{notes[length]}"
    return f"upper bound{' over times' if form == 'times' else ''}{notes[length]}, {samples} samples"


def exact(trained: Trained, way: Way, asked: Sequence[Asked], tokens: int = TOKENS,
          answer: Answer = answers) -> np.ndarray:
    """-log p of the hidden tokens by the chain rule: (n,) nats."""
    return np.array([one.nats for one in answer(trained, [way.pose(*pair) for pair in asked], tokens)])


def bound(trained: Trained, way: Way, asked: Sequence[Asked], samples: int, seed: int = 0,
          tokens: int = TOKENS, form: Form = "exact-k", answer: Answer = answers,
          numbers: Sequence[int] | None = None) -> np.ndarray:
    """The upper bound on -log p of the hidden tokens, averaged over `samples` draws: (n,) nats; 0 where none is hidden.

    The draws are a function of (seed, number of the question): common random numbers for all models.

    Args:
        answer: how the network is asked: each question by itself, or `trees.answers_together`.
        numbers: of the questions, where it is not their place: those of one number have the same draws.
    """
    total = np.zeros(len(asked))
    questions: list[Example] = []
    shares: list[tuple[int, float]] = []
    draw = subsets if form == "exact-k" else timed_subsets
    for place, (ids, hidden) in enumerate(asked):
        number = place if numbers is None else numbers[place]
        for subset, weight in draw(int(hidden.sum()), samples, np.random.default_rng((seed, number))):
            if subset.any():
                questions.append(way.pose(ids, _within(hidden, subset)))
                shares.append((place, weight))
    for (place, weight), one in zip(shares, answer(trained, questions, tokens)):
        total[place] += weight * one.nats
    return total


def bound_in_full(trained: Trained, way: Way, asked: Asked, tokens: int = TOKENS) -> float:
    """The same bound without sampling: every subset of every size, for short texts (2^L questions)."""
    ids, hidden = asked
    length = int(hidden.sum())
    every = [np.isin(np.arange(length), chosen) for k in range(1, length + 1)
             for chosen in itertools.combinations(range(length), k)]
    answered = answers(trained, [way.pose(ids, _within(hidden, subset)) for subset in every], tokens)
    # E over k uniform in 1..L and over subsets of size k of (L / k) * loss
    return sum(one.nats / subset.sum() / math.comb(length, int(subset.sum()))
               for one, subset in zip(answered, every))


def over_orders(trained: Trained, way: Way, asked: Asked, tokens: int = TOKENS) -> float:
    """The mean over all orders of the chain-rule NLL: for short texts (L! orders, L questions each).

    For a one-stream network that answers each hidden token from the visible ones alone this equals
    `bound_in_full` (`literature.md` section 1, rule 18).
    """
    ids, hidden = asked
    places = np.flatnonzero(hidden)
    orders = list(itertools.permutations(places))
    questions: list[Example] = []
    first: list[int] = []
    for order in orders:
        for step, place in enumerate(order):
            still = np.isin(np.arange(len(ids)), order[step:])
            questions.append(way.pose(ids, still))
            first.append(int(np.searchsorted(np.flatnonzero(still), place)))
    answered = answers(trained, questions, tokens)
    return -sum(float(one.log_probs[place]) for one, place in zip(answered, first)) / len(orders)


def subsets(length: int, samples: int, rng: np.random.Generator) -> list[tuple[np.ndarray, float]]:
    """`samples` random subsets of `length` places, (length,) bool each, with sizes k spread evenly over 1..length, and
    their weights length / k / samples.

    Each k alone is uniform; together they are stratified, which lowers the variance of their mean.
    """
    if length == 0:
        return []
    sizes = np.minimum(1 + np.floor((np.arange(samples) + rng.random()) / samples * length).astype(int), length)
    return [(rng.permutation(length) < size, length / int(size) / samples) for size in sizes]


def timed_subsets(length: int, samples: int, rng: np.random.Generator) -> list[tuple[np.ndarray, float]]:
    """`samples` random subsets: each place in with chance t, t spread evenly over (0, 1], weighed 1 / t / samples."""
    times = (np.arange(samples) + 1 - rng.random()) / samples
    return [(rng.random(length) < time, 1 / float(time) / samples) for time in times]


def suffix_scores(name: str, mode: str, how: str, nats: np.ndarray, asked: Sequence[Asked], vocabulary: Vocabulary,
                  truth: TrueNLL | None = None) -> list[Score]:
    """The Scores of `nats` (n,) spent on the hidden tokens of `asked`: per token, per byte, and above the truth."""
    n_tokens = np.array([hidden.sum() for _, hidden in asked], dtype=float)
    n_bytes = np.array([vocabulary.n_bytes[ids[hidden]].sum() for ids, hidden in asked], dtype=float)
    details = {"tokens": float(n_tokens.sum()), "bytes": float(n_bytes.sum())}
    scores = [mean_score(f"{name} NLL", mode, how, nats / n_tokens, n_tokens, unit="nats per token",
                         higher_is_better=False, details=details)]
    if (n_bytes > 0).all() and len(n_bytes):
        scores.append(mean_score(f"{name} bits per byte", mode, how, nats / n_bytes / math.log(2), n_bytes,
                                 unit="bits per byte", higher_is_better=False, details=details))
    if truth is not None:
        true = np.array([truth(ids)[hidden].sum() for ids, hidden in asked])
        scores.append(mean_score(f"{name} NLL above the truth", mode, how, (nats - true) / n_tokens, n_tokens,
                                 unit="nats per token", higher_is_better=False,
                                 details={**details, "true NLL": float(true.sum() / n_tokens.sum())}))
    return scores


def _within(hidden: np.ndarray, subset: np.ndarray) -> np.ndarray:
    """The places of `hidden` (L,) that `subset` (hidden.sum(),) keeps."""
    chosen = np.zeros_like(hidden)
    chosen[np.flatnonzero(hidden)[subset]] = True
    return chosen
