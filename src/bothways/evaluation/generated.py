"""How varied written texts are: distinct n-grams, repetition inside a text, and likeness among texts."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Sequence

import numpy as np

from bothways.evaluation.score import Score, mean_score, statistic_score

Text = Sequence[Hashable]
"""Words or token ids."""


def diversity(texts: Sequence[Text], *, mode: str = "all", longest: int = 4, seed: int = 0,
              compared: int = 50) -> list[Score]:
    """What of the texts is said once.

    Args:
        texts: as words or ids.
        compared: texts that self-BLEU is taken of, since each is compared with all others.
    Returns:
        "distinct-n" for n = 1..3 (Li et al. 2016, arXiv 1510.03055: different n-grams over all, of the whole set),
        "rep-n" for n = 2..`longest` (Welleck et al. 2020, arXiv 1908.04319: share of a text's n-grams that repeat
        one before; items are texts), "diversity" (Su et al. 2022, arXiv 2202.06417: the product of 1 - rep-n) and
        "self-BLEU" (Zhu et al. 2018, arXiv 1802.01886; lower is more varied).
    """
    scores = [statistic_score(f"distinct-{n}", mode, "different n-grams over all", lambda some, n=n: distinct(  # type: ignore[misc]
        [texts[place] for place in np.unique(some)], n), len(texts), unit="share") for n in (1, 2, 3)]
    repeated = {n: [repetition(text, n) for text in texts] for n in range(2, longest + 1)}
    scores += [mean_score(f"rep-{n}", mode, "n-grams said before in the text", items, unit="share",
                          higher_is_better=False) for n, items in repeated.items()]
    scores.append(mean_score("diversity", mode, f"product of 1 - rep-n, n = 2..{longest}",
                             np.prod([1 - np.array(items) for items in repeated.values()], axis=0), unit="share"))
    some = np.random.default_rng(seed).permutation(len(texts))[:compared]
    chosen = [texts[place] for place in some]
    if len(chosen) > 1:
        scores.append(mean_score("self-BLEU", mode, f"4-grams, {len(chosen)} texts", self_bleu(chosen), unit="share",
                                 higher_is_better=False))
    return scores


def distinct(texts: Sequence[Text], n: int) -> float:
    """Different n-grams over all n-grams of a set of texts; NaN where there is none."""
    every = [gram for text in texts for gram in grams(text, n)]
    return len(set(every)) / len(every) if every else math.nan


def repetition(text: Text, n: int) -> float:
    """The share of a text's n-grams that repeat one before; 0 for a text without any."""
    every = grams(text, n)
    return 1 - len(set(every)) / len(every) if every else 0.0


def self_bleu(texts: Sequence[Text], longest: int = 4) -> list[float]:
    """BLEU of each text with all the others as its references: (n,), smoothed by one where no n-gram fits."""
    counts = [[Counter(grams(text, n)) for n in range(1, longest + 1)] for text in texts]
    found = []
    for number, text in enumerate(texts):
        logs = []
        for n in range(longest):
            known: Counter[tuple[Hashable, ...]] = Counter()
            for other, tables in enumerate(counts):
                if other != number:
                    known |= tables[n]
            total = sum(counts[number][n].values())
            shared = sum((counts[number][n] & known).values())
            if total:
                logs.append(math.log(shared / total if shared else 1 / (2 * total)))
        lengths = [len(other) for place, other in enumerate(texts) if place != number]
        nearest = min(lengths, key=lambda length: (abs(length - len(text)), length))
        short = min(0.0, 1 - nearest / max(len(text), 1))
        found.append(math.exp(short + sum(logs) / len(logs)) if logs else 0.0)
    return found


def grams(text: Text, n: int) -> list[tuple[Hashable, ...]]:
    """The n-grams of a text in order."""
    return [tuple(text[place:place + n]) for place in range(len(text) - n + 1)]
