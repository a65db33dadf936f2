"""How alike two representations of the same tokens are, and what shape one has.

Similarities are of states (n, D) and (n, E) of the same n tokens. Set them beside the same objective from another seed:
no similarity between objectives can be expected to exceed that one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def cka(one: np.ndarray, other: np.ndarray) -> float:
    """Linear CKA with the unbiased estimate of HSIC (Kornblith et al. 2019, arXiv 1905.00414; Song et al. 2012, eq. 5).

    1 for equal geometries, about 0 for unrelated ones however many dimensions they have (a biased estimate is not).
    Needs n of at least 4; computed in feature space, so n may be large.
    """
    own, others = hsic(one, one), hsic(other, other)
    return hsic(one, other) / float(np.sqrt(own * others)) if own > 0 and others > 0 else float("nan")


def hsic(one: np.ndarray, other: np.ndarray) -> float:
    """The unbiased estimate of HSIC between linear kernels of (n, D) and (n, E), without any (n, n) matrix."""
    x, y = (np.asarray(side, dtype=np.float64) - side.mean(0, dtype=np.float64) for side in (one, other))
    n = len(x)
    # kernels K = x x', L = y y' with zeros on the diagonal
    k, l_ = (x ** 2).sum(1), (y ** 2).sum(1)
    product = float(((x.T @ y) ** 2).sum() - k @ l_)
    k_rows, l_rows = x @ x.sum(0) - k, y @ y.sum(0) - l_
    k_sum, l_sum = float(k_rows.sum()), float(l_rows.sum())
    return (product + k_sum * l_sum / ((n - 1) * (n - 2)) - 2 / (n - 2) * float(k_rows @ l_rows)) / (n * (n - 3))


def svcca(one: np.ndarray, other: np.ndarray, kept: float = 0.99) -> float:
    """The mean canonical correlation of the directions that hold `kept` of either variance (Raghu et al. 2017,
    arXiv 1706.05806)."""
    bases = []
    for side in (one, other):
        centred = np.asarray(side, dtype=np.float64) - side.mean(0, dtype=np.float64)
        # left singular vectors by the small side: n may be large
        squares, right = np.linalg.eigh(centred.T @ centred)
        squares, right = np.maximum(squares[::-1], 0.0), right[:, ::-1]
        share = np.cumsum(squares) / max(float(squares.sum()), 1e-300)
        some = slice(0, int(np.searchsorted(share, kept)) + 1)
        bases.append(centred @ right[:, some] / np.sqrt(np.maximum(squares[some], 1e-300)))
    return float(np.linalg.svd(bases[0].T @ bases[1], compute_uv=False).clip(0, 1).mean())


def neighbours(states: np.ndarray, k: int = 10) -> np.ndarray:
    """The k nearest others of each row by cosine, after the mean is taken away: (n, k)."""
    centred = states - states.mean(0)
    unit = centred / (np.linalg.norm(centred, axis=1, keepdims=True) + 1e-12)
    near = unit @ unit.T
    np.fill_diagonal(near, -np.inf)
    return np.argpartition(-near, k - 1, axis=1)[:, :k]


def neighbour_overlap(one: np.ndarray, other: np.ndarray) -> float:
    """The mean share of neighbours that two lists (n, k) of `neighbours` have in common (Huh et al. 2024, arXiv
    2405.07987, section 2)."""
    return float(np.mean([len(np.intersect1d(*rows)) / len(rows[0]) for rows in zip(one, other)]))


def anisotropy(states: np.ndarray, centred: bool = True, pairs: int = 10_000, seed: int = 0) -> float:
    """The mean cosine of random pairs of rows (Ethayarajh 2019, arXiv 1909.00512), by default with the mean removed.

    What a mean or a few large dimensions make of it says nothing about use: read it beside `iso_score`.
    """
    some = states - states.mean(0) if centred else states
    unit = some / (np.linalg.norm(some, axis=1, keepdims=True) + 1e-12)
    first, second = np.random.default_rng(seed).integers(0, len(states), (2, pairs))
    apart = first != second
    return float((unit[first[apart]] * unit[second[apart]]).sum(1).mean())


def iso_score(states: np.ndarray) -> float:
    """How evenly the variance fills the dimensions, 0 (one direction) to 1 (Rudman et al. 2022, arXiv 2108.07344,
    algorithm 1)."""
    n = states.shape[1]
    variance = np.linalg.eigvalsh(np.cov(states.T.astype(np.float64)))
    even = np.sqrt(n) * variance / np.linalg.norm(variance)
    defect = np.linalg.norm(even - 1) / np.sqrt(2 * (n - np.sqrt(n)))
    share = (n - defect ** 2 * (n - np.sqrt(n))) ** 2 / n ** 2
    return float((n * share - 1) / (n - 1))


def token_identity(states: np.ndarray, tokens: np.ndarray, clusters: int = 100, seed: int = 0) -> float:
    """How much of the tokens' identity the states keep: mutual information with their clusters, over the entropy.

    As in Voita, Sennrich & Titov 2019 (arXiv 1909.01380, section 4): states are clustered by k-means, and I(token;
    cluster) is taken. The share of H(token), 0 to 1, makes vocabularies comparable.

    Args:
        states: (n, D). tokens: (n,) ids read at those places, the commonest ones only if there are many.
    """
    from sklearn.cluster import MiniBatchKMeans

    found = MiniBatchKMeans(min(clusters, len(states)), n_init=1, batch_size=1024, random_state=seed).fit_predict(
        np.asarray(states, dtype=np.float64))
    return information(tokens, found) / max(information(tokens, tokens), 1e-12)


def information(one: np.ndarray, other: np.ndarray) -> float:
    """Mutual information of two labellings (n,) in nats, from their counts."""
    _, first = np.unique(one, return_inverse=True)
    _, second = np.unique(other, return_inverse=True)
    joint = np.zeros((first.max() + 1, second.max() + 1))
    np.add.at(joint, (first, second), 1.0 / len(first))
    apart = np.outer(joint.sum(1), joint.sum(0))
    some = joint > 0
    return float((joint[some] * np.log(joint[some] / apart[some])).sum())


def similarities(groups: Sequence[Sequence[np.ndarray]], measure: str = "cka") -> np.ndarray:
    """The mean similarity of every two groups of models, (G, G), over pairs of different seeds.

    Args:
        groups: for each objective the states of its seeds, all of the same tokens. On the diagonal stands the same
            objective from another seed, the ceiling; NaN where there is one seed only.
        measure: "cka", "svcca" or "neighbours" (for the last, lists of `neighbours`).
    """
    compare = {"cka": cka, "svcca": svcca, "neighbours": neighbour_overlap}[measure]
    found = np.full((len(groups), len(groups)), np.nan)
    for row, left in enumerate(groups):
        for column in range(row, len(groups)):
            values = [compare(one, other) for a, one in enumerate(left) for b, other in enumerate(groups[column])
                      if a != b and (row != column or a < b)]
            if not values and row != column:
                values = [compare(one, other) for one, other in zip(left, groups[column])]
            if values:
                found[row, column] = found[column, row] = float(np.mean(values))
    return found
