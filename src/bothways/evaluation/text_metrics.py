"""Written texts against references: BLEU, chrF, ROUGE, F1 of spans, and SQuAD's exact match and F1, by their packages.

BLEU and chrF are sacrebleu's (its signature is part of the estimator), ROUGE is rouge-score's, spans are seqeval's; all
three come with the extra `eval`. SQuAD's rules are short and written here (Rajpurkar et al. 2016 and 2018).
"""

from __future__ import annotations

import importlib
import re
import string
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from bothways.errors import BothwaysError
from bothways.evaluation.score import Score, mean_score, statistic_score

References = Sequence[str] | Sequence[Sequence[str]]
"""One reference for each text, or several."""
ARTICLES = re.compile(r"\b(a|an|the)\b")


def bleu(written: Sequence[str], references: References, *, mode: str = "all", resamples: int = 200) -> Score:
    """Corpus BLEU in percent, with a bootstrap interval over texts.

    Raises:
        BothwaysError: sacrebleu is not installed, or numbers of texts that differ.
    """
    return _corpus("BLEU", "BLEU", written, references, mode, resamples)


def chrf(written: Sequence[str], references: References, *, mode: str = "all", resamples: int = 200) -> Score:
    """Corpus chrF2 in percent (Popović 2015), with a bootstrap interval over texts; errors as `bleu`."""
    return _corpus("chrF", "CHRF", written, references, mode, resamples)


def sentence_chrf(written: str, reference: str, longest: int = 6, beta: float = 2.0) -> float:
    """chrF2 in percent of one text (Popović 2015), spaces left out: the F-beta of mean precision and mean recall over
    character n-grams, n = 1..6, of the lengths that both texts have. Equal to sacrebleu's, and needs no package."""
    one, other = ("".join(text.split()) for text in (written, reference))
    shares = []
    for n in range(1, min(longest, len(one), len(other)) + 1):
        left, right = (Counter(text[at:at + n] for at in range(len(text) - n + 1)) for text in (one, other))
        shared = sum((left & right).values())
        shares.append((shared / sum(left.values()), shared / sum(right.values())))
    precision, recall = np.mean(shares, axis=0) if shares else (0.0, 0.0)
    if not precision or not recall:
        return 0.0
    return float(100 * (1 + beta ** 2) * precision * recall / (beta ** 2 * precision + recall))


def rouge(written: Sequence[str], references: References, *, mode: str = "all", stemmed: bool = True) -> list[Score]:
    """ROUGE-1, -2 and -L as F1; items are texts, each by its best reference; errors as `bleu`."""
    several = _several(written, references)
    kinds = ("rouge1", "rouge2", "rougeL")
    scorer = _package("rouge_score.rouge_scorer", "rouge-score").RougeScorer(list(kinds), use_stemmer=stemmed)
    items = [scorer.score_multi(list(known), text) for text, known in zip(written, several)]
    how = "rouge-score, F1" + (", stemmed" if stemmed else "")
    return [mean_score(f"ROUGE-{kind[5:]}", mode, how, [one[kind].fmeasure for one in items], unit="F1")
            for kind in kinds]


def span_f1(true: Sequence[Sequence[str]], guessed: Sequence[Sequence[str]], *, mode: str = "all",
            scheme: str | None = None, resamples: int = 100) -> list[Score]:
    """Precision, recall and F1 of whole spans in BIO tags, as conlleval counts them.

    Args:
        true, guessed: tags of each text, equally many.
        scheme: "IOB2" or another of seqeval's for its strict mode; the lenient reading of conlleval when none.
    Raises:
        BothwaysError: seqeval is not installed, or a text with another number of tags (naming it).
    """
    for number, (one, other) in enumerate(zip(true, guessed, strict=True)):
        if len(one) != len(other):
            raise BothwaysError(f"text {number} has {len(one)} true tags and {len(other)} guessed ones: give one tag "
                                "for each token")
    metrics = _package("seqeval.metrics", "seqeval")
    extra = {} if scheme is None else {"mode": "strict", "scheme": getattr(_package("seqeval.scheme"), scheme)}
    how = "seqeval, " + ("as conlleval" if scheme is None else f"strict {scheme}")

    def value(name: str, some: np.ndarray) -> float:
        sides = [[list(side[place]) for place in some] for side in (true, guessed)]
        return float(getattr(metrics, f"{name}_score")(*sides, zero_division=0, **extra))

    return [statistic_score(f"span {name}", mode, how, lambda some, name=name: value(name, some),  # type: ignore[misc]
                            len(true), resamples=resamples, unit="share") for name in ("f1", "precision", "recall")]


def answers(written: Sequence[str], references: Sequence[Sequence[str]], *, mode: str = "all") -> list[Score]:
    """SQuAD's exact match and F1: items are questions, each by its best reference.

    No references, or only empty ones, is a question without an answer (SQuAD 2): right is an empty text alone.
    """
    known = [[one for one in some if normalised(one)] or [""] for some in references]
    pairs = list(zip(written, known, strict=True))
    how = "SQuAD's rules, best of the references"
    scores = [mean_score("exact match", mode, how, [max(exact_match(text, one) for one in some)
                                                    for text, some in pairs], unit="share"),
              mean_score("answer F1", mode, how, [max(answer_f1(text, one) for one in some) for text, some in pairs],
                         unit="F1")]
    for name, wanted in (("with an answer", True), ("without an answer", False)):
        chosen = [place for place, (_, some) in enumerate(pairs) if (some != [""]) == wanted]
        if 0 < len(chosen) < len(pairs):
            scores += [mean_score(f"{score.name}, {name}", mode, how, [(score.items or [])[place] for place in chosen],
                                  unit=score.unit) for score in scores[:2]]
    return scores


def threshold(surplus: Sequence[float], right: Sequence[float], answerable: Sequence[bool]) -> tuple[float, float]:
    """The no-answer threshold with the best mean score, and that score: answer where `surplus` is above it.

    Args:
        surplus: score of the best span minus that of no answer. right: what answering earns (F1 or exact match).
        answerable: whether there is an answer; declining earns 1 where there is none.
    """
    order = np.argsort(-np.asarray(surplus), kind="stable")
    gain = np.where(np.asarray(answerable), np.asarray(right, dtype=float), -1.0)[order]
    totals = np.concatenate([[0.0], np.cumsum(gain)]) + float(np.sum(~np.asarray(answerable)))
    sorted_surplus = np.asarray(surplus, dtype=float)[order]
    # one threshold cannot part equal scores
    ends = np.concatenate([[True], sorted_surplus[1:] != sorted_surplus[:-1], [True]])
    best = int(np.argmax(np.where(ends, totals, -np.inf)))
    at = np.inf if best == 0 else -np.inf if best == len(order) else sorted_surplus[best]
    return float(at), float(totals[best] / max(len(order), 1))


def normalised(text: str) -> str:
    """Lower case, without punctuation and articles, single spaces: SQuAD's form."""
    plain = "".join(letter for letter in text.lower() if letter not in string.punctuation)
    return " ".join(ARTICLES.sub(" ", plain).split())


def exact_match(written: str, reference: str) -> float:
    """1.0 where both are equal once normalised."""
    return float(normalised(written) == normalised(reference))


def answer_f1(written: str, reference: str) -> float:
    """F1 of the multisets of normalised words; where either has none, whether both have none."""
    one, other = normalised(written).split(), normalised(reference).split()
    if not one or not other:
        return float(one == other)
    shared = sum((Counter(one) & Counter(other)).values())
    return 2 * shared / (len(one) + len(other))


def _corpus(name: str, kind: str, written: Sequence[str], references: References, mode: str, resamples: int) -> Score:
    """A corpus score of sacrebleu."""
    several = _several(written, references)
    metric: Any = getattr(_package("sacrebleu"), kind)()
    most = max((len(known) for known in several), default=0)

    def value(some: np.ndarray) -> float:
        columns = [[several[place][number] if number < len(several[place]) else None for place in some]
                   for number in range(most)]
        return float(metric.corpus_score([written[place] for place in some], columns).score)

    value(np.arange(len(written)))
    how = f"sacrebleu, {metric.get_signature()}"
    return statistic_score(name, mode, how, value, len(written), resamples=resamples, unit="percent")


def _several(written: Sequence[str], references: References) -> list[list[str]]:
    if len(written) != len(references) or not len(written):
        raise BothwaysError(f"{len(written)} texts and {len(references)} references do not fit: give one or more "
                            "references for each text")
    return [[known] if isinstance(known, str) else list(known) for known in references]


def _package(module: str, name: str | None = None) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError:
        raise BothwaysError(f"this metric is the package {name or module}'s, which is not installed: "
                            "pip install 'bothways[eval]'") from None
