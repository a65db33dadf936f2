"""Classification of texts and pairs of texts, into one class or several, in every way there is (`tasks.ways`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Self, get_args

import numpy as np
from torch import Tensor

from bothways.errors import BothwaysError, nearest
from bothways.evaluation.calibration import ece
from bothways.evaluation.probes import Labelled, accuracy_scores, check_labelled
from bothways.evaluation.score import Score, Stopwatch, mean_score, statistic_score
from bothways.tasks import base, rows
from bothways.tasks.rows import Role
from bothways.tasks.tuning import TuneConfig
from bothways.tasks.ways import Choices, Row, Way, WayName, way
from bothways.tasks.ways.head import Between, Pooling
from bothways.text.corpora import TEXT_FIELDS
from bothways.text.labels import LABEL_FIELDS

if TYPE_CHECKING:
    from bothways.families.trained import Trained

RATES = (5e-4, 1.5e-3, 3e-3)
"""Learning rates that fine-tuning chooses from."""
SEVERAL = 0.5
"""The probability from which one of several labels is given."""


@dataclass(frozen=True)
class Options:
    """How texts are classified."""

    way: WayName = "head"
    """The way of classifying, see `bothways.tasks.ways`."""
    several: bool = False
    """Whether a text may have several labels, or none: written as a list, or with | between them."""
    pooling: Pooling = "mean"
    """For a head: which states of a text are read."""
    visibility: str | None = None
    """For a head: native, bidirectional, causal, or a mode's name."""
    between: Between = "none"
    """For a head: a dense layer and this activation before it."""
    ends: bool = True
    """For a head: whether a text ends with its end token."""
    template: str | None = None
    """For prompt and channel: a sentence with {text} and, behind it, {label}."""
    words: tuple[str, ...] = ()
    """For ways that write labels: their words, as label=words."""
    untuned: bool = False
    """For ways that write labels: ask the network as it is."""
    neighbours: int = 10
    """For neighbours: how many vote."""
    direct: bool = False
    """For channel: add the direct model p(label's words | text), each weighed as is best on rows kept back."""
    strength: float | None = None
    """For logistic and svm how freely weights grow (C), for bayes what is added to every count (alpha)."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "words", tuple(self.words))  # a folder's JSON gives a list
        for name, known in (("way", get_args(WayName)), ("pooling", get_args(Pooling)),
                            ("between", get_args(Between))):
            if getattr(self, name) not in known:
                raise BothwaysError(f"{name} is '{getattr(self, name)}' {nearest(str(getattr(self, name)), known)}")
        if self.direct and self.way != "channel":
            raise BothwaysError(f"direct is for the way 'channel', but the way is '{self.way}': leave it out")
        if self.strength is not None and not self.strength > 0:
            raise BothwaysError(f"strength is {self.strength:g}, but must be above 0")


class Task(base.Task):
    """A tuned classifier: the labels, and a way of finding them."""

    kind = "classify"
    Options = Options
    roles = (Role("text", (*TEXT_FIELDS, "text_a", "sentence_a", "sentence1", "premise", "first")),
             Role("other", ("text_b", "sentence_b", "sentence2", "hypothesis", "second"), optional=True),
             Role("label", (*LABEL_FIELDS, "labels", "categories", "entailment"), answer=True))

    def __init__(self, way: Way, choices: Choices) -> None:
        self.way, self.choices, self.trained = way, choices, way.trained

    @property
    def labels(self) -> tuple[str, ...]:
        """Every label, in the order of `predict_proba`."""
        return self.choices.labels

    # --- 1. rows ---

    @classmethod
    def row(cls, values: Mapping[str, Any]) -> Row:
        other = values.get("other")
        found = values.get("label")
        return Row(rows.text(values.get("text")), None if other is None else rows.text(other, "other text"),
                   None if found is None else rows.labels(found, "label"))

    @classmethod
    def key(cls, row: Row) -> str:
        return row.text if row.other is None else f"{row.text}\n{row.other}"

    @classmethod
    def group(cls, row: Row) -> str:
        return "|".join(row.labels or ())

    # --- 2. to 5. tuning, answers, scores ---

    @classmethod
    def fit(cls, trained: Trained | None, train: Sequence[Row], dev: Sequence[Row], options: Any,
            config: TuneConfig, watch: base.Watch | None = None) -> Self:
        choices = Choices(labels_of(train, options.several), options.several, options)
        _check(dev, choices, "the texts kept back")
        return cls(way(options.way).fit(trained, train, dev, choices, config, watch), choices)

    def predict(self, rows: Sequence[Row]) -> list[Any]:
        """The likeliest label of each text, or a tuple of those that are likelier than not."""
        return self._chosen(self.way.log_probabilities(rows))

    def predict_proba(self, rows: Sequence[Row]) -> np.ndarray:
        """(n, labels) float64 in the order of `labels`; with several labels a text, each by itself."""
        found: np.ndarray = np.exp(self.way.log_probabilities(rows).astype(np.float64))
        return found

    def _chosen(self, logs: np.ndarray) -> list[Any]:
        if not self.choices.several:
            return [self.labels[place] for place in logs.argmax(-1)]
        return [tuple(label for label, log in zip(self.labels, line) if log > np.log(SEVERAL)) for line in logs]

    def outputs(self, rows: Sequence[Row]) -> list[dict[str, Any]]:
        """The label and its probability; of several labels each with its own."""
        logs = self.way.log_probabilities(rows)
        if self.choices.several:
            return [{"label": "|".join(found), "probabilities": {label: round(float(np.exp(log)), 4) for label, log in
                                                                 zip(self.labels, line) if label in found}}
                    for found, line in zip(self._chosen(logs), logs)]
        return [{"label": found, "probability": round(float(np.exp(line.max())), 4)}
                for found, line in zip(self._chosen(logs), logs)]

    def scores(self, rows: Sequence[Row], logs: np.ndarray | None = None) -> list[Score]:
        """"classification accuracy", "macro-F1", and of the probabilities the NLL and the calibration error (ECE).

        A label unseen in training counts as wrong. With several labels a text, accuracy is that of whole sets.

        Args:
            logs: the log-probabilities of these rows, where somebody has asked for them already.
        """
        watch = Stopwatch()
        if unlabelled := sum(row.labels is None for row in rows):
            raise BothwaysError(f"{unlabelled} of {len(rows)} rows have no label, so they cannot be scored")
        logs = self.way.log_probabilities(rows) if logs is None else logs
        guessed = ["|".join(found) if self.choices.several else found for found in self._chosen(logs)]
        truth = ["|".join(sorted(row.labels or ())) for row in rows]
        mode, how = self.way.mode, self.way.how
        scores = accuracy_scores("classification", mode, how, truth, guessed, watch.seconds)
        if self.choices.several:
            scores[1] = Score("classification macro-F1", mode, how, _macro_f1(logs, rows, self.choices), len(rows),
                              "F1")
            return scores
        known = [place for place, row in enumerate(rows) if (row.labels or ("",))[0] in self.labels]
        numbers = self.choices.numbers([rows[place] for place in known])
        scores.append(mean_score("classification NLL", mode, how, -logs[known, numbers], unit="nats",
                                 higher_is_better=False))
        sure, right = np.exp(logs.max(1)), np.array([one == other for one, other in zip(truth, guessed)], float)
        scores.append(statistic_score("classification ECE", mode, f"{how}; 15 bins of equally many texts",
                                      lambda some: ece(sure[some], right[some]), len(rows), higher_is_better=False))
        return scores

    def limits(self) -> str:
        return (f"It answers with one of the {len(self.labels)} labels it has seen, also where none of them fits"
                + (", or with several." if self.choices.several else "."))

    # --- 6. what is stored ---

    def settings(self) -> dict[str, Any]:
        return {"options": asdict(self.choices.options), "labels": list(self.labels), "several": self.choices.several,
                "way": self.choices.options.way, **self.way.settings()}

    def weights(self) -> dict[str, Tensor]:
        return self.way.weights()

    @classmethod
    def restored(cls, trained: Trained | None, settings: Mapping[str, Any], weights: Mapping[str, Tensor]) -> Self:
        choices = Choices(tuple(settings["labels"]), settings["several"], Options(**settings["options"]))
        return cls(way(settings["way"]).restored(trained, choices, settings, weights), choices)


def labels_of(train: Sequence[Row], several: bool) -> tuple[str, ...]:
    """Every label that occurs, sorted.

    Raises:
        BothwaysError: rows without a label, fewer than two labels, or several on one row where one is meant.
    """
    if not train:
        raise BothwaysError("classification needs labelled texts to learn from: give some")
    for row in train:
        if row.labels is None:
            raise BothwaysError(f"the text '{row.text[:40]}' has no label, so nothing can be learned from it")
        if not several and len(row.labels) != 1:
            raise BothwaysError(f"the text '{row.text[:40]}' has {len(row.labels)} labels ({', '.join(row.labels)}): "
                                "say --several if a text may have several")
    found = sorted({label for row in train for label in row.labels or ()})
    if len(found) < 2:
        raise BothwaysError(f"classification needs at least two labels, but all {len(train)} texts carry "
                            f"'{found[0] if found else ''}'")
    return tuple(found)


def _check(some: Sequence[Row], choices: Choices, what: str) -> None:
    """Refuse labels that training has not seen where they are learned by."""
    unseen = sorted({label for row in some for label in row.labels or ()} - set(choices.labels))
    if unseen:
        raise BothwaysError(f"{what} have labels that no training text has: {', '.join(unseen[:5])}")


def _macro_f1(logs: np.ndarray, rows: Sequence[Row], choices: Choices) -> float:
    """The mean of F1 over the labels that occur."""
    table = choices.table([row._replace(labels=tuple(set(row.labels or ()) & set(choices.labels))) for row in rows])
    said = logs > np.log(SEVERAL)
    right, both = (table * said).sum(0), table.sum(0) + said.sum(0)
    occurs = table.sum(0) > 0
    return float((2 * right[occurs] / both[occurs]).mean())


# ------------------------------------------------------------------------- the comparison that studies make

def as_rows(labelled: Labelled) -> list[Row]:
    """(text, label) pairs as rows."""
    return [Row(text, None, (label,)) for text, label in labelled]


def fine_tune(trained: Trained, train: Labelled, config: TuneConfig | None = None, *, visibility: str | None = None,
              watch: base.Watch | None = None) -> Task:
    """A classifier with a head on mean states, from a copy of a trained network.

    Args:
        train: (text, label) pairs.
        visibility: "native" (the default), "bidirectional", "causal" or a mode; two towers read with their encoder.
    """
    options = Options(visibility=visibility, ends=False)
    return Task.fit(trained, as_rows(train), [], options, config or TuneConfig(), watch)


def searched(trained: Trained, train: Labelled, config: TuneConfig, rates: Sequence[float], *,
             visibility: str | None = None) -> TuneConfig:
    """`config` with the learning rate, of `rates`, that does best on a fifth of the training texts kept back.

    Networks trained by different paradigms (and untrained ones) sit at different scales, so that one rate for all would
    favour whom it happens to fit: BERT chose its rate so for every task (arXiv 1810.04805, appendix A.3). Each trial
    takes a quarter of the steps; the head's rate keeps its ratio to the network's. The test texts play no part.
    """
    usual = config.rate(trained.parameters)
    config = replace(config, learning_rate=usual)
    if len(rates) < 2 or len(train) < 10:
        return config
    # 1. every fifth text of a random order is kept back
    order = np.random.default_rng((config.seed, 5)).permutation(len(train))
    learned = [train[place] for i, place in enumerate(order) if i % 5]
    kept = [train[place] for i, place in enumerate(order) if not i % 5]
    # 2. a trial of each rate; a tie goes to the lower one
    ratio = config.head_rate / usual
    found: dict[float, float] = {}
    for rate in sorted(rates):
        trial = replace(config, steps=max(1, config.steps // 4), learning_rate=rate, head_rate=rate * ratio)
        guessed = fine_tune(trained, learned, trial, visibility=visibility).predict(as_rows(kept))
        found[rate] = float(np.mean([guess == label for guess, (_, label) in zip(guessed, kept, strict=True)]))
    best = max(found, key=lambda rate: found[rate])
    return replace(config, learning_rate=best, head_rate=best * ratio)


def classification(trained: Trained, train: Labelled, test: Labelled, config: TuneConfig | None = None, *,
                   visibility: str | None = None, rates: Sequence[float] = RATES) -> list[Score]:
    """Fine-tune on `train`, score on `test`.

    Args:
        rates: learning rates to choose from on a part of `train` (see `searched`); the config's own when empty.
    Returns:
        "classification accuracy" (items are texts) and "classification macro-F1".
    Raises:
        BothwaysError: an empty side or a single label.
    """
    watch = Stopwatch()
    config = config or TuneConfig()
    check_labelled(train, test)
    config = searched(trained, train, config, rates, visibility=visibility)
    model = fine_tune(trained, train, config, visibility=visibility)
    guessed = model.predict(as_rows(test))
    return accuracy_scores("classification", model.way.mode, f"fine-tuned, {config.steps} steps, mean pooling",
                           [label for _, label in test], guessed, watch.seconds,
                           {"seed": float(config.seed), "train texts": float(len(train)),
                            "learning rate": config.learning_rate or 0.0})
