"""What a task is worth without a network: the rows that a tuned network has to beat, by the same scores.

| kind | baselines |
| --- | --- |
| classify | the most frequent label; logistic regression, a linear SVM and naive Bayes on TF-IDF |
| tag | the most frequent tag of each word |
| answer | the first words of the context; its sentence that shares most with the question |
| similarity | the cosine of TF-IDF; the share of common words |
| rewrite | the source as it is |
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from torch import Tensor

from bothways.evaluation import spans, text_metrics
from bothways.evaluation.score import Score
from bothways.tasks import answer, classify, rewrite, similarity, tag
from bothways.tasks.config import TuneConfig
from bothways.tasks.ways import WITHOUT_NETWORK, Choices, Row, Way

if TYPE_CHECKING:
    from bothways.families.trained import Trained

MODE = "no network"


@dataclass(frozen=True)
class Baseline:
    """What one of them reached on the tested rows, the numbers it keeps, and the processor seconds it took to learn."""

    name: str
    scores: tuple[Score, ...]
    parameters: int
    learning: float


def baselines(kind: str, train: Sequence[Any], test: Sequence[Any], options: Any = None) -> list[Baseline]:
    """Every baseline of a kind of task on the same rows; none for a kind that has none.

    Args:
        train, test: rows of the kind, with answers.
        options: the kind's own, of which `several` (classify) counts.
    Raises:
        BothwaysError: rows from which nothing can be learned, as the task itself says.
    """
    return MADE[kind](train, test, options) if kind in MADE else []


# ------------------------------------------------------------------------------------------------ classify

class Majority(Way):
    """The share of each label among the training texts, whatever a text says."""

    name = "majority"

    def __init__(self, choices: Choices, shares: np.ndarray) -> None:
        self.choices, self.shares, self.trained = choices, shares, None

    @classmethod
    def fit(cls, trained: Trained | None, train: Sequence[Row], dev: Sequence[Row], choices: Choices,
            config: TuneConfig, watch: Callable[[int, float], None] | None) -> Self:
        return cls(choices, choices.table(train).mean(0))

    def log_probabilities(self, texts: Sequence[Row]) -> np.ndarray:
        return np.tile(np.log(np.maximum(self.shares, 1e-12)), (len(texts), 1))

    @property
    def how(self) -> str:
        return "shares of labels"

    def settings(self) -> dict[str, Any]:
        return {"shares": self.shares.tolist()}

    @classmethod
    def restored(cls, trained: Trained | None, choices: Choices, settings: Mapping[str, Any],
                 weights: Mapping[str, Tensor]) -> Self:
        return cls(choices, np.array(settings["shares"]))


def _classify(train: Sequence[Row], test: Sequence[Row], options: Any) -> list[Baseline]:
    told = classify.Options(several=bool(options is not None and options.several))
    names = {"logistic": "TF-IDF, logistic regression", "svm": "TF-IDF, linear SVM", "bayes": "TF-IDF, naive Bayes"}
    choices = Choices(classify.labels_of(train, told.several), told.several, told)
    # 1. the most frequent label
    common = classify.Task(Majority.fit(None, train, (), choices, TuneConfig(), None), choices)
    found = [Baseline("the most frequent label", tuple(common.scores(test)), len(choices.labels), 0.0)]
    # 2. the classical ways
    for way in WITHOUT_NETWORK:
        began = time.process_time()
        task = classify.Task.fit(None, train, (), replace(told, way=way), TuneConfig())  # type: ignore[arg-type]
        learning = time.process_time() - began
        found.append(Baseline(names[way], tuple(task.scores(test)), task.parameters, learning))
    return found


# ------------------------------------------------------------------------------------------------ tag

def lexicon(train: Sequence[tag.Row]) -> dict[str, str]:
    """The most frequent tag of every word, in BIO where tags are of entities; of equally frequent ones the first in
    the alphabet, O before all."""
    entities = _entities(train)
    counts: dict[str, Counter[str]] = {}
    for row in train:
        for (start, end), name in zip(row.words, tag.learned(row, entities), strict=True):
            counts.setdefault(row.text[start:end], Counter())[name] += 1
    return {word: min(seen, key=lambda name: (-seen[name], name != "O", name)) for word, seen in counts.items()}


def _entities(train: Sequence[tag.Row]) -> bool:
    return any(name.startswith("B-") for name in tag.tags_of(train))


def _tag(train: Sequence[tag.Row], test: Sequence[tag.Row], options: Any) -> list[Baseline]:
    began = time.process_time()
    known, entities = lexicon(train), _entities(train)
    learning = time.process_time() - began
    common = "O" if entities else Counter(known.values()).most_common(1)[0][0]
    guessed = [tuple(known.get(row.text[start:end], common) for start, end in row.words) for row in test]
    # a tag that goes on where nothing is open begins an entity, as everywhere else
    guessed = [spans.as_bio(tags) if entities else tags for tags in guessed]
    name = "the most frequent tag of each word"
    scores = tag.tag_scores([tag.learned(row, entities) for row in test], guessed, MODE, name, entities)
    return [Baseline(name, tuple(scores), len(known), learning)]


# ------------------------------------------------------------------------------------------------ answer

def first_words(row: answer.Row, number: int) -> str:
    """The first `number` words of the context."""
    return " ".join(row.context.split()[:number])


def nearest_sentence(row: answer.Row) -> str:
    """The sentence of the context with the largest share of the question's words; of equal ones the first."""
    asked = set(text_metrics.normalised(row.question).split())
    sentences = [one for one in _sentences(row.context) if one.strip()]
    return max(sentences, key=lambda one: len(asked & set(text_metrics.normalised(one).split())), default="").strip()


def _sentences(text: str) -> list[str]:
    return re.split(r"(?<=[.!?;])\s+", text)


def _answer(train: Sequence[answer.Row], test: Sequence[answer.Row], options: Any) -> list[Baseline]:
    lengths = [len(text.split()) for row in train for _, text in (row.answers or ())[:1]]
    number = max(1, int(np.median(lengths))) if lengths else 1
    ways: list[tuple[str, Callable[[answer.Row], str]]] = [
        (f"the first {number} words", lambda row: first_words(row, number)),
        ("the sentence that shares most with the question", nearest_sentence)]
    found = []
    for name, way in ways:
        exact, f1, *parts = text_metrics.answers([way(row) for row in test],
                                                 [[text for _, text in row.answers or ()] for row in test], mode=MODE)
        found.append(Baseline(name, tuple(replace(score, estimator=name) for score in (f1, exact, *parts)), 0, 0.0))
    return found


# ------------------------------------------------------------------------------------------------ similarity

def common_words(one: str, other: str) -> float:
    """Words in both over words in either, case and punctuation aside (Jaccard)."""
    first, second = (set(text_metrics.normalised(text).split()) for text in (one, other))
    return len(first & second) / max(1, len(first | second))


def _similarity(train: Sequence[similarity.Row], test: Sequence[similarity.Row], options: Any) -> list[Baseline]:
    if any(row.score is None for row in test):
        return []  # pairs that belong together are searched for among all texts, not scored
    from bothways.evaluation.controls import tfidf

    truth = np.array([row.score for row in test], dtype=np.float64)
    began = time.process_time()
    vectoriser = tfidf().fit([text for row in train for text in (row.text, row.other)])
    learning = time.process_time() - began
    left, right = (vectoriser.transform(texts) for texts in ([row.text for row in test], [row.other for row in test]))
    cosines = np.asarray(left.multiply(right).sum(1)).ravel()
    shares = np.array([common_words(row.text, row.other) for row in test])
    return [Baseline(name, tuple(similarity.pair_scores(found, truth, MODE, name)), kept, seconds)
            for name, found, kept, seconds in (("TF-IDF, cosine", cosines, len(vectoriser.vocabulary_), learning),
                                               ("common words", shares, 0, 0.0))]


# ------------------------------------------------------------------------------------------------ rewrite

def _rewrite(train: Sequence[rewrite.Row], test: Sequence[rewrite.Row], options: Any) -> list[Baseline]:
    scored = (options or rewrite.Options()).scored
    pairs = rewrite.pairs_of(test)[:scored]
    name = "the source as it is"
    scores = rewrite.written_scores([source for source, _ in pairs], [target for _, target in pairs], MODE, name)
    return [Baseline(name, tuple(scores), 0, 0.0)]


MADE: dict[str, Callable[[Sequence[Any], Sequence[Any], Any], list[Baseline]]] = {
    "classify": _classify, "tag": _tag, "answer": _answer, "similarity": _similarity, "rewrite": _rewrite}
"""What makes the baselines of each kind that has some."""
