"""Suffix likelihoods: the second half of each held-out window given its first half, the same tokens for everybody.

Three estimators that never share a column without their names (`literature.md` section 1, rules 6 and 7):

- exact: the chain rule, left to right;
- upper bound: the exact-k form of the masked-diffusion bound (arXiv 2502.09992): hide k
  of the L tokens, k uniform in 1..L, and weigh their loss by L / k. It bounds -log p of the any-order model that
  the network's conditionals define, so it holds for masked, diffusion and hybrid networks alike;
- pseudo: one token hidden at a time, everything else of the window seen. Neither a bound nor a probability.

Corruption is a function of (seed, window, sample) only: every model is asked the same questions.

Who sees both sides also sees how many places are hidden, and where a window ends with its text that is how long the
text is: knowledge that a causal model has to pay for. Such a bound is "given the length"; of a known source the true
price of that knowledge is known, is added, and the estimator says so.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from bothways.batch import Example, Vocabulary, Window
from bothways.evaluation.answers import TOKENS, answers
from bothways.evaluation.lengths import length_nll
from bothways.evaluation.questions import Way, halves, ways, with_end
from bothways.evaluation.score import Score, mean_score, timed

if TYPE_CHECKING:
    from bothways.families.trained import Trained
    from bothways.text.known import KnownSource

Asked = tuple[np.ndarray, np.ndarray]
"""(ids (L,) int64, hidden (L,) bool): the tokens whose likelihood is wanted, given the others."""
TrueNLL = Callable[[np.ndarray], np.ndarray]
"""ids (L,) -> (L,) true -log p(token | left), in nats."""


def suffix(trained: Trained, windows: Sequence[Window] | Sequence[np.ndarray], *, limit: int = 64, samples: int = 16,
           pseudo: int = 0, off_mode: bool = True, truth: KnownSource | TrueNLL | None = None, seed: int = 0,
           tokens: int = TOKENS) -> list[Score]:
    """NLL of second halves given first halves, in every way the model can be called.

    Args:
        windows: held-out windows; `limit` of them, spread evenly, are used.
        samples: draws of k and of the hidden places for the bound.
        pseudo: windows for the one-token-at-a-time pseudo-likelihood (0 leaves it out; it costs L passes each).
        off_mode: also call a one-tower model in the direction it was not trained in.
        truth: the source where it is known: adds the distance to the truth. Its method `true_nll` alone will do,
            but then the length is not paid for.
    Returns:
        for each way and estimator "suffix NLL" (nats per token), "suffix bits per byte" where tokens have bytes,
        and "suffix NLL above the truth" where that is known; items are windows, weights their tokens or bytes.
    """
    vocabulary = trained.vocabulary
    asked = halves(windows, vocabulary, limit)
    source = None if truth is None or callable(truth) else truth
    true_nll = true_nll_of(truth)
    ends = any(with_end(ids, vocabulary) for ids, _ in asked)
    scores: list[Score] = []
    for way in ways(trained, off_mode):
        with timed(scores):
            if way.kind == "exact":
                nats = exact(trained, way, asked, tokens)
            else:
                nats = bound(trained, way, asked, samples, seed, tokens)
                if source is not None and ends:
                    nats = nats + np.array([length_price(source, *pair, vocabulary) for pair in asked])
            how = estimator(way, samples, "" if not ends else "given" if source is None else "paid")
            scores += suffix_scores("suffix", way.name, how, nats, asked, vocabulary, true_nll)
        if pseudo and way.kind == "both sides" and way.trained:
            with timed(scores):
                some = asked[:pseudo]
                scores += suffix_scores("suffix", way.name, "pseudo, one token at a time",
                                        one_at_a_time(trained, way, some, tokens), some, vocabulary)
    return scores


def true_nll_of(truth: KnownSource | TrueNLL | None) -> TrueNLL | None:
    """The function that gives true -log p, from a source or from itself."""
    return truth if truth is None or callable(truth) else truth.true_nll


def length_price(source: KnownSource, ids: np.ndarray, hidden: np.ndarray, vocabulary: Vocabulary) -> float:
    """What knowing the number of hidden places is worth, in nats: a bound given the length, and this, bound the tokens.

    p(tokens | left) = p(tokens | left, length) p(length | left) / p(end | left, tokens).
    """
    if not with_end(ids, vocabulary):
        return 0.0
    return length_nll(source, ids, int(np.flatnonzero(hidden)[0])) - float(source.true_nll(ids)[-1])


def estimator(way: Way, samples: int, length: str = "") -> str:
    """The name of the estimator that `suffix` uses for a way; `length` is "given", "paid" or "" if not known to it."""
    if way.kind == "exact":
        return "exact"
    notes = {"": "", "given": " given the length", "paid": " and the length's true price"}
    return f"upper bound{notes[length]}, {samples} samples"


def exact(trained: Trained, way: Way, asked: Sequence[Asked], tokens: int = TOKENS) -> np.ndarray:
    """-log p of the hidden tokens by the chain rule: (n,) nats."""
    return np.array([one.nats for one in answers(trained, [way.pose(*pair) for pair in asked], tokens)])


def bound(trained: Trained, way: Way, asked: Sequence[Asked], samples: int, seed: int = 0,
          tokens: int = TOKENS) -> np.ndarray:
    """The exact-k upper bound on -log p of the hidden tokens, averaged over `samples` draws: (n,) nats."""
    total = np.zeros(len(asked))
    questions: list[Example] = []
    shares: list[tuple[int, float]] = []
    for number, (ids, hidden) in enumerate(asked):
        for subset in subsets(int(hidden.sum()), samples, np.random.default_rng((seed, number))):
            questions.append(way.pose(ids, _within(hidden, subset)))
            shares.append((number, len(subset) / subset.sum() / samples))
    for (number, weight), one in zip(shares, answers(trained, questions, tokens)):
        total[number] += weight * one.nats
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


def one_at_a_time(trained: Trained, way: Way, asked: Sequence[Asked], tokens: int = TOKENS) -> np.ndarray:
    """Pseudo-likelihood: -sum of log p(token | all others), one question for each hidden token: (n,) nats."""
    questions, owner = [], []
    for number, (ids, hidden) in enumerate(asked):
        for place in np.flatnonzero(hidden):
            questions.append(way.pose(ids, np.arange(len(ids)) == place))
            owner.append(number)
    nats = np.array([one.nats for one in answers(trained, questions, tokens)])
    return np.bincount(np.array(owner, dtype=np.int64), weights=nats, minlength=len(asked)) if owner else \
        np.zeros(len(asked))


def subsets(length: int, samples: int, rng: np.random.Generator) -> list[np.ndarray]:
    """`samples` random subsets of `length` places, (length,) bool each, with sizes k spread evenly over 1..length.

    Each k alone is uniform; together they are stratified, which lowers the variance of their mean.
    """
    if length == 0:
        return []
    sizes = 1 + np.floor((np.arange(samples) + rng.random()) / samples * length).astype(int)
    return [rng.permutation(length) < min(size, length) for size in sizes]


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
