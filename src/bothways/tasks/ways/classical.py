"""Classifying without a network: TF-IDF of words and word pairs, and a linear model of them, through scikit-learn.

Logistic regression and the linear SVM model p(y | x), or what separates the classes; naive Bayes models p(x | y) p(y).
All three are one matrix once they are fitted, and that is what is stored: no pickle.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from bothways.evaluation.controls import fitted_quietly, logistic, tfidf
from bothways.tasks.tuning import TuneConfig
from bothways.tasks.ways import Choices, Row, Way
from bothways.tasks.ways.scaling import SCALES, best_scale, nats_by_scale

if TYPE_CHECKING:
    from bothways.families.trained import Trained


PARTS = 3
"""Of the training texts, each kept back once to scale margins by."""


class Classical(Way):
    """A linear model over TF-IDF."""

    trained: Trained | None = None
    estimator: ClassVar[str]

    def __init__(self, choices: Choices, terms: Sequence[str], idf: np.ndarray, weight: Tensor, bias: Tensor) -> None:
        self.choices, self.terms, self.idf, self.weight, self.bias = choices, tuple(terms), idf, weight, bias
        self.trained = None
        self.vectoriser = tfidf(self.terms)
        self.vectoriser.idf_ = idf

    @classmethod
    def fit(cls, trained: Trained | None, train: Sequence[Row], dev: Sequence[Row], choices: Choices,
            config: TuneConfig, watch: Callable[[int, float], None] | None) -> Self:
        vectoriser = tfidf()
        features = vectoriser.fit_transform([_read(row) for row in train])
        table = choices.table(train)
        if choices.several:
            # each label by itself, against all texts without it
            parts = [cls._binary(features, has, config, choices.options.strength) for has in table.T]
            weight, bias = np.stack([part for part, _ in parts]), np.array([b for _, b in parts])
        else:
            weight, bias = cls._linear(features, np.array(choices.numbers(train)), config,
                                       choices.options.strength)
            if len(weight) == 1:
                # two classes: scikit-learn keeps the difference
                weight, bias = np.concatenate([np.zeros_like(weight), weight]), np.array([0.0, bias[0]])
        return cls(choices, vectoriser.get_feature_names_out().tolist(), vectoriser.idf_,
                   torch.from_numpy(np.asarray(weight, np.float32)), torch.from_numpy(np.asarray(bias, np.float32)))

    @classmethod
    @abstractmethod
    def _linear(cls, features: Any, numbers: np.ndarray, config: TuneConfig, strength: float | None
                ) -> tuple[np.ndarray, np.ndarray]:
        """Weights (classes, terms) and biases (classes,), of one row where there are two classes."""

    @classmethod
    def _binary(cls, features: Any, has: np.ndarray, config: TuneConfig, strength: float | None
                ) -> tuple[np.ndarray, float]:
        """One label against the rest; a label that all texts have, or none, has no words that tell."""
        if has.all() or not has.any():
            return np.zeros(features.shape[1]), 20.0 if has.all() else -20.0
        weight, bias = cls._linear(features, has.astype(int), config, strength)
        return (weight[0], float(bias[0])) if len(weight) == 1 else (weight[1] - weight[0], float(bias[1] - bias[0]))

    def log_probabilities(self, texts: Sequence[Row]) -> np.ndarray:
        features = self.vectoriser.transform([_read(row) for row in texts])
        logits = torch.from_numpy(np.asarray(features @ self.weight.numpy().T + self.bias.numpy(), np.float32))
        found: np.ndarray = (F.logsigmoid(logits) if self.choices.several else logits.log_softmax(-1)).numpy()
        return found

    @property
    def how(self) -> str:
        return f"TF-IDF, {self.estimator}"

    def weights(self) -> dict[str, Tensor]:
        terms = np.frombuffer("\n".join(self.terms).encode(), dtype=np.uint8).copy()
        return {"terms": torch.from_numpy(terms), "idf": torch.from_numpy(np.asarray(self.idf, np.float64)),
                "weight": self.weight, "bias": self.bias}

    @classmethod
    def restored(cls, trained: Trained | None, choices: Choices, settings: Mapping[str, Any],
                 weights: Mapping[str, Tensor]) -> Self:
        terms = weights["terms"].numpy().tobytes().decode().split("\n")
        return cls(choices, terms, weights["idf"].numpy(), weights["weight"], weights["bias"])


class Discriminative(Classical):
    """A linear model of p(y | x), or of what separates the classes, as scikit-learn fits it."""

    @classmethod
    def _linear(cls, features: Any, numbers: np.ndarray, config: TuneConfig, strength: float | None
                ) -> tuple[np.ndarray, np.ndarray]:
        model = cls._model(features.shape[0], config)
        if strength is not None:
            model.set_params(C=strength)
        fitted_quietly(model, features, numbers)
        return model.coef_, model.intercept_

    @classmethod
    @abstractmethod
    def _model(cls, texts: int, config: TuneConfig) -> Any:
        """What is fitted to so many texts."""


class Logistic(Discriminative):
    """Logistic regression."""

    name, estimator = "logistic", "logistic regression"

    @classmethod
    def _model(cls, texts: int, config: TuneConfig) -> Any:
        model = logistic(texts, config.seed)
        return model.set_params(class_weight="balanced" if config.balanced else None)


class LinearSvm(Discriminative):
    """A linear support vector machine. Its margins are no probabilities: they are scaled until they are likeliest on
    thirds of the training texts that were kept back in turn (Platt's way, with one number for all classes)."""

    name, estimator = "svm", "linear SVM, softmax of scaled margins"

    @classmethod
    def _linear(cls, features: Any, numbers: np.ndarray, config: TuneConfig, strength: float | None
                ) -> tuple[np.ndarray, np.ndarray]:
        scale = _scale(super()._linear, features, numbers, config, strength)
        weight, bias = super()._linear(features, numbers, config, strength)
        return scale * weight, scale * bias

    @classmethod
    def _model(cls, texts: int, config: TuneConfig) -> Any:
        from sklearn.svm import LinearSVC

        return LinearSVC(random_state=config.seed, class_weight="balanced" if config.balanced else None)


class NaiveBayes(Classical):
    """Multinomial naive Bayes: words given the label, times the label's share."""

    name, estimator = "bayes", "multinomial naive Bayes"

    @classmethod
    def _linear(cls, features: Any, numbers: np.ndarray, config: TuneConfig, strength: float | None
                ) -> tuple[np.ndarray, np.ndarray]:
        from sklearn.naive_bayes import MultinomialNB

        model = MultinomialNB(alpha=strength or 0.1, fit_prior=not config.balanced).fit(features, numbers)
        return model.feature_log_prob_, model.class_log_prior_


def _scale(fit: Callable[..., tuple[np.ndarray, np.ndarray]], features: Any, numbers: np.ndarray, *how: Any) -> float:
    """The factor of margins under which the labels of texts that were not learned from are likeliest."""
    nats = np.zeros(len(SCALES))
    part = np.arange(len(numbers)) % PARTS
    for kept in range(PARTS):
        known = np.unique(numbers[part != kept])
        some = np.flatnonzero((part == kept) & np.isin(numbers, known))
        if len(known) < 2 or not len(some):
            continue
        weight, bias = fit(features[np.flatnonzero(part != kept)], numbers[part != kept], *how)
        margins = torch.from_numpy(np.asarray(features[some] @ weight.T + bias))
        if margins.shape[1] == 1:
            margins = torch.cat((torch.zeros_like(margins), margins), 1)
        truth = F.one_hot(torch.from_numpy(np.searchsorted(known, numbers[some])), len(known))
        nats += nats_by_scale(margins, truth, several=False)
    return best_scale(nats)


def _read(row: Row) -> str:
    return row.text if row.other is None else f"{row.text}\n{row.other}"


FOUND: dict[str, type[Way]] = {way.name: way for way in (Logistic, LinearSvm, NaiveBayes)}
