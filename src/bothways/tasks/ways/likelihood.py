"""Classifying by likelihood: one network, four things to ask it. The label's words, or the text's, are what is hidden.

| way | what is read | what is hidden | what is added |
| --- | --- | --- | --- |
| text-to-text | `text <sep> label <eos>` | the label and its end | nothing: p(y \\| x) (T5, arXiv 1910.10683) |
| prompt | the template, "text It is label." | the label's words | nothing (arXiv 2001.07676) |
| generative | `label <sep> text <eos>` | the text and its end | log p(y), Bayes' rule (arXiv 1703.01898) |
| channel | the template turned, "It is label. text" | the text | nothing: p(x \\| y) (arXiv 2108.04106) |
| channel, direct | both templates | text, and words | log p(y \\| x) + weight log p(x \\| y) (arXiv 1611.02554) |

A model that reads left to right (or writes with a decoder) answers by the chain rule, exactly; one that fills places
answers by its bound, with the same draws for every label. What labels or texts have in common is read once
(`evaluation.trees`): a text before all its labels, a label before all its texts, a blank that several words may fill.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from bothways.errors import BothwaysError
from bothways.evaluation.likelihood import estimator
from bothways.evaluation.rows import TOKENS
from bothways.tasks.asking import Asked, loss, nats, questions, scoring_way
from bothways.tasks.tuning import TuneConfig, tune
from bothways.tasks.ways import Choices, Row, Way

if TYPE_CHECKING:
    from bothways.families.trained import Trained
    from bothways.text.tokenizer import Tokenizer

TEMPLATE = "{text} It is about {label}."
"""How a prompt is written where the user says nothing."""
POSTERIOR = ("text-to-text", "prompt")
"""The forms in which the label is hidden; in the others the text is."""
WEIGHTS = (0.0, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
"""Of the channel beside the direct model. A text has many tokens and a label few, so it is mostly below one."""
SAMPLES = 8
"""Draws of a bound."""
TOGETHER = 1 << 14
"""Questions that are asked together: the more, the more they have in common."""


@dataclass(frozen=True)
class Form:
    """How a text and a label become tokens. `longest` counts them all; the text is cut, the label never."""

    name: str
    longest: int
    template: str
    words: Mapping[str, str]

    def asked(self, trained: Trained, text: Row, label: str) -> Asked:
        """The tokens, and which of them are hidden."""
        vocabulary = trained.vocabulary
        sep = [vocabulary.ids["<sep>"]] if "<sep>" in vocabulary.ids else self._ids(trained, "\n")
        read = text.text if text.other is None else f"{text.text} {text.other}"
        words = self._ids(trained, self._spaced(trained, self.words.get(label, label)))
        if self.name in ("text-to-text", "generative"):
            room = self.longest - len(words) - len(sep) - 2
            x, end = self._ids(trained, read)[:room], [vocabulary.eos]
            one, two = (x, [*words, *end]) if self.name == "text-to-text" else (words, [*x, *end])
            return _hidden(trained, [*one, *sep], two, [])
        # templates: what stands before the text, between and behind
        before, between, behind = self._parts()
        fixed = [self._ids(trained, part) for part in (before, between, behind)]
        room = self.longest - 1 - len(words) - sum(map(len, fixed))
        x = self._ids(trained, self._spaced(trained, read) if before else read)[:room]
        if self.name == "prompt":
            return _hidden(trained, [*fixed[0], *x, *fixed[1]], words, fixed[2])
        # the channel: what the template says behind the text comes first
        return _hidden(trained, [*self._ids(trained, between.lstrip()), *words, *fixed[2]],
                       self._ids(trained, self._spaced(trained, read))[:room], [])

    def _parts(self) -> tuple[str, str, str]:
        before, _, rest = self.template.partition("{text}")
        between, _, behind = rest.partition("{label}")
        # the space before a word belongs to its first token
        return before.rstrip(), between.rstrip(), behind

    @staticmethod
    def _ids(trained: Trained, words: str) -> list[int]:
        return list(_encoded(trained.tokenizer, words)) if words else []

    @staticmethod
    def _spaced(trained: Trained, words: str) -> str:
        """With the space that stands before a word inside a text, where pieces have it in them."""
        return words if getattr(trained.tokenizer, "kind", "") in ("words", "bytes") else " " + words


@functools.lru_cache(maxsize=4096)
def _encoded(tokenizer: Tokenizer, words: str) -> tuple[int, ...]:
    """The same labels come with every text, and the same texts with every label."""
    return tuple(tokenizer.encode(words, reserved=False))


def _hidden(trained: Trained, before: Sequence[int], asked: Sequence[int], behind: Sequence[int]) -> Asked:
    ids = np.array([trained.vocabulary.bos, *before, *asked, *behind], dtype=np.int64)
    places = np.arange(len(ids))
    return ids, (places > len(before)) & (places <= len(before) + len(asked))


class ByLikelihood(Way):
    """A tuned network that says how likely label or text are."""

    trained: Trained
    prior: ClassVar[bool] = False
    """Whether labels count by how often they came in training."""

    def __init__(self, trained: Trained, choices: Choices, form: Form, shares: Sequence[float],
                 weight: float = 1.0) -> None:
        self.trained, self.choices, self.form, self.shares = trained, choices, form, tuple(shares)
        self.asking, self.weight = scoring_way(trained), weight
        self.direct = replace(form, name="prompt") if choices.options.direct else None
        """How the direct model beside a channel is asked; `weight` is the channel's then."""

    @classmethod
    def fit(cls, trained: Trained | None, train: Sequence[Row], dev: Sequence[Row], choices: Choices,
            config: TuneConfig, watch: Callable[[int, float], None] | None) -> Self:
        if trained is None:
            raise BothwaysError(f"the way '{cls.name}' tunes a network: say which (--from)")
        if choices.several:
            raise BothwaysError(f"the way '{cls.name}' gives one label a text: for several take the way head, "
                                "neighbours, logistic, svm or bayes, which judge each label by itself")
        # 1. a copy of the network, and how its questions are written
        form = Form(cls.name, min(config.longest, trained.config.position.length),
                    checked_template(choices.options.template), words_of(choices))
        found = cls(replace(trained, network=copy.deepcopy(trained.network)), choices, form, _shares(train, choices))
        weighed = list(dev)
        if found.direct is not None and not dev:
            train, weighed = _apart(train)
        forms = [form] if found.direct is None else [form, found.direct]
        told = [[one.asked(found.trained, row, (row.labels or ("",))[0]) for row in train] for one in forms]
        asked, kept = told[0], [form.asked(found.trained, row, (row.labels or ("",))[0]) for row in dev]
        # 2. the loop
        fixed = [questions(found.asking, some, 0, 0, range(len(some))) for some in told] \
            if found.asking.kind == "exact" else None

        def loss_of(places: list[int], step: int) -> Tensor:
            places = sorted(places, key=lambda place: len(asked[place][0]))
            # two forms count the same, although a text has more tokens than a label
            return torch.stack([loss(found.trained, [fixed[number][place] for place in places] if fixed is not None
                                     else questions(found.asking, [some[place] for place in places], step, config.seed,
                                                    places)) for number, some in enumerate(told)]).sum()

        def judge() -> float:
            sizes = sum(int(hidden.sum()) for _, hidden in kept)
            return -float(nats(found.trained, found.asking, kept, SAMPLES, 0, TOKENS).sum()) / sizes

        if not choices.options.untuned:
            tune(found.trained.network, None, len(train), loss_of, config, watch,
                 lengths=[len(ids) for ids, _ in asked], judge=judge if kept else None)
        found.trained.network.eval()
        # 3. how much the channel counts beside the direct model
        if found.direct is not None:
            found.weight = found._best_weight(weighed)
        return found

    def _best_weight(self, rows: Sequence[Row]) -> float:
        """The weight of the channel under which the labels of these rows are likeliest, of equals the smallest."""
        direct, channel = (torch.from_numpy(some) for some in self._parts(rows, TOKENS, True))
        truth = torch.tensor(self.choices.numbers(rows))
        nll = [float(torch.nn.functional.cross_entropy(direct + weight * channel, truth)) for weight in WEIGHTS]
        return WEIGHTS[int(np.argmin(nll))]

    def log_probabilities(self, texts: Sequence[Row], tokens: int = TOKENS, shared: bool = True) -> np.ndarray:
        """Args: shared: whether what labels and texts have in common is read once; else not, for reference."""
        *direct, own = self._parts(texts, tokens, shared)
        scores = torch.from_numpy(sum(direct, self.weight * own) if direct else own)
        return scores.log_softmax(-1).float().numpy()

    def _parts(self, texts: Sequence[Row], tokens: int, shared: bool) -> list[np.ndarray]:
        """What is added up: the direct model's log-probabilities of the labels, where there is one, and the scores."""
        own = self._scores(self.form, texts, tokens, shared)
        if self.direct is None:
            return [own]
        direct = torch.from_numpy(self._scores(self.direct, texts, tokens, shared)).log_softmax(-1).numpy()
        return [direct, own]

    def _scores(self, form: Form, texts: Sequence[Row], tokens: int, shared: bool) -> np.ndarray:
        """log p of the label given the text, or of the text given the label times its share: (n, labels)."""
        labels = self.choices.labels
        found = np.zeros((len(texts), len(labels)), dtype=np.float64)
        each = len(labels) * (1 if self.asking.kind == "exact" else SAMPLES)
        step = max(1, TOGETHER // each)
        for first in range(0, len(texts), step):
            some = texts[first:first + step]
            asked = [form.asked(self.trained, text, label) for label in labels for text in some]
            # the same draws for every label: only then does their noise cancel
            numbers = [first + place for _ in labels for place in range(len(some))]
            spent = nats(self.trained, self.asking, asked, SAMPLES, 0, tokens, numbers, shared)
            if form.name in POSTERIOR and self.asking.kind != "exact":
                # a bound on words knows how many they are: labels of different length are compared word for word
                spent = spent / np.array([hidden.sum() for _, hidden in asked])
            found[first:first + len(some)] = -spent.reshape(len(labels), -1).T
        if self.prior:
            found += np.log(np.maximum(self.shares, 1e-12))
        return found

    @property
    def how(self) -> str:
        what = "the label's words" if self.name in POSTERIOR else "the text given the label"
        if self.direct is not None:
            what = f"the label's words + {self.weight:g} x the text given them"
        tuned = "untuned, " if self.choices.options.untuned else ""
        return f"{tuned}{what}, {estimator(self.asking, SAMPLES)}" + (", times its share" if self.prior else "")

    @property
    def mode(self) -> str:
        return self.asking.name

    def settings(self) -> dict[str, Any]:
        return {"longest": self.form.longest, "template": self.form.template, "words": dict(self.form.words),
                "shares": list(self.shares), "weight": self.weight}

    @classmethod
    def restored(cls, trained: Trained | None, choices: Choices, settings: Mapping[str, Any],
                 weights: Mapping[str, Tensor]) -> Self:
        assert trained is not None
        form = Form(cls.name, settings["longest"], settings["template"], settings["words"])
        return cls(trained, choices, form, settings["shares"], settings.get("weight", 1.0))


class TextToText(ByLikelihood):
    """p(label | text), the label written out."""

    name = "text-to-text"


class Prompt(ByLikelihood):
    """p(label's words | text), in the words of a template."""

    name = "prompt"


class Generative(ByLikelihood):
    """p(text | label) p(label): Bayes' rule with class-conditional language models, the label being a prefix."""

    name, prior = "generative", True


class Channel(ByLikelihood):
    """p(text | label's words), in the words of a template; every label is as likely as another beforehand.

    With `direct` one network learns both ways of reading the template, and answers by both (the noisy channel).
    """

    name = "channel"


def checked_template(template: str | None) -> str:
    """A template with one {text} and, behind it, one {label}. Raises: BothwaysError."""
    template = template or TEMPLATE
    if template.count("{text}") != 1 or template.count("{label}") != 1 or \
            template.index("{text}") > template.index("{label}"):
        raise BothwaysError(f"the template '{template}' must hold {{text}} once and, behind it, {{label}} once")
    return template


def words_of(choices: Choices) -> dict[str, str]:
    """The words of each label: those given as label=words, else its name with spaces.

    Raises:
        BothwaysError: words for a label there is not, or the same words for two.
    """
    found = {label: label.replace("_", " ").replace("-", " ").strip() or label for label in choices.labels}
    for one in choices.options.words:
        label, equals, words = one.partition("=")
        if not equals or label not in found or not words.strip():
            raise BothwaysError(f"words '{one}': write label=words, with one of the labels {', '.join(choices.labels)}")
        found[label] = words
    if len(set(found.values())) < len(found):
        raise BothwaysError("two labels have the same words: give them others with --words label=words")
    return found


def _apart(rows: Sequence[Row]) -> tuple[list[Row], list[Row]]:
    """Rows to learn from, and every tenth to choose by (at least one)."""
    kept = [row for place, row in enumerate(rows) if place % 10 == 9] or list(rows[:1])
    return [row for place, row in enumerate(rows) if place % 10 != 9], kept


def _shares(rows: Sequence[Row], choices: Choices) -> list[float]:
    counts = np.bincount(choices.numbers(rows), minlength=len(choices.labels))
    return [float(share) for share in counts / counts.sum()]


FOUND: dict[str, type[Way]] = {way.name: way for way in (TextToText, Prompt, Generative, Channel)}
