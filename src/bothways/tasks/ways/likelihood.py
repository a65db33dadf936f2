"""Classifying by likelihood: one network, four things to ask it. The label's words, or the text's, are what is hidden.

| way | what is read | what is hidden | what is added |
| --- | --- | --- | --- |
| text-to-text | `text <sep> label <eos>` | the label and its end | nothing: p(y \\| x) (T5, arXiv 1910.10683) |
| prompt | the template, "text It is label." | the label's words | nothing (arXiv 2001.07676) |
| generative | `label <sep> text <eos>` | the text and its end | log p(y), Bayes' rule (arXiv 1703.01898) |
| channel | the template turned, "It is label. text" | the text | nothing: p(x \\| y) (arXiv 2108.04106) |
| channel, direct | both templates | text, and words | log p(y \\| x) + weight log p(x \\| y) (arXiv 1611.02554) |

With several labels a text, each label is a question by itself with the answers yes and no (`wording`), and a text that
is learned from asks all of them.

A model that reads left to right (or writes with a decoder) answers by the chain rule, exactly; one that fills places
answers by its bound, with the same draws for every label. What labels or texts have in common is read once
(`evaluation.trees`): a text before all its labels, a label before all its texts, a blank that several words may fill.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
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
from bothways.tasks.ways.wording import (
    POSTERIOR,
    Form,
    alternatives,
    checked_template,
    true_alternatives,
    words_of,
)

if TYPE_CHECKING:
    from bothways.families.trained import Trained

WEIGHTS = (0.0, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
"""Of the channel beside the direct model. A text has many tokens and a label few, so it is mostly below one."""
SAMPLES = 8
"""Draws of a bound."""
TOGETHER = 1 << 14
"""Questions that are asked together: the more, the more they have in common."""


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
        # 1. a copy of the network, and how its questions are written
        form = Form(cls.name, min(config.longest, trained.config.position.length),
                    checked_template(choices.options.template), words_of(choices))
        fills = scoring_way(trained).kind != "exact"
        form = form.checked(trained, choices, filled=fills and not choices.options.untuned)
        found = cls(replace(trained, network=copy.deepcopy(trained.network)), choices, form, _shares(train, choices))
        weighed = list(dev)
        if found.direct is not None and not dev:
            train, weighed = _apart(train)
        forms = [form] if found.direct is None else [form, found.direct]
        told = [found._true(one, train) for one in forms]
        asked, kept = told[0], found._true(form, dev)
        # 2. the loop
        def loss_of(places: list[int], step: int) -> Tensor:
            places = sorted(places, key=lambda place: len(asked[place][0]))
            # two forms count the same, although a text has more tokens than a label
            return torch.stack([loss(found.trained, questions(found.asking, [some[place] for place in places], step,
                                                              config.seed, places)) for some in told]).sum()

        def judge() -> float:
            sizes = sum(int(hidden.sum()) for _, hidden in kept)
            return -float(nats(found.trained, found.asking, kept, SAMPLES, 0, TOKENS).sum()) / sizes

        if not choices.options.untuned:
            tune(found.trained.network, None, len(asked), loss_of, config, watch,
                 lengths=[len(ids) for ids, _ in asked], judge=judge if kept else None)
        found.trained.network.eval()
        # 3. how much the channel counts beside the direct model
        if found.direct is not None:
            found.weight = found._best_weight(weighed)
        return found

    def _best_weight(self, rows: Sequence[Row]) -> float:
        """The weight of the channel under which the labels of these rows are likeliest, of equals the smallest."""
        direct, channel = (torch.from_numpy(some) for some in self._parts(rows, TOKENS, True))
        several = self.choices.several
        truth = torch.from_numpy(self.choices.table(rows)).long().flatten() if several else \
            torch.tensor(self.choices.numbers(rows))
        nll = [float(torch.nn.functional.cross_entropy(direct + weight * channel, truth)) for weight in WEIGHTS]
        return WEIGHTS[int(np.argmin(nll))]

    def log_probabilities(self, texts: Sequence[Row], tokens: int = TOKENS, shared: bool = True) -> np.ndarray:
        """Args: shared: whether what labels and texts have in common is read once; else not, for reference."""
        *direct, own = self._parts(texts, tokens, shared)
        logs = torch.from_numpy(sum(direct, self.weight * own) if direct else own).log_softmax(-1).float().numpy()
        # of a label that is asked for by itself, how likely its yes is
        return logs.reshape(len(texts), -1, 2)[..., 1] if self.choices.several else logs

    def _parts(self, texts: Sequence[Row], tokens: int, shared: bool) -> list[np.ndarray]:
        """What is added up: the direct model's log-probabilities, where there is one, and the scores, (choices, each).

        A text is one choice among the labels, or with several labels a text one choice between two for each.
        """
        own = self._scores(self.form, texts, tokens, shared)
        if self.direct is None:
            return [own]
        direct = torch.from_numpy(self._scores(self.direct, texts, tokens, shared)).log_softmax(-1).numpy()
        return [direct, own]

    def _scores(self, form: Form, texts: Sequence[Row], tokens: int, shared: bool) -> np.ndarray:
        """log p of the label given the text, or of the text given the label times its share: (choices, each)."""
        given = alternatives(self.choices)
        found = np.zeros((len(texts), len(given)), dtype=np.float64)
        each = len(given) * (1 if self.asking.kind == "exact" else SAMPLES)
        step = max(1, TOGETHER // each)
        for first in range(0, len(texts), step):
            some = texts[first:first + step]
            asked = [form.asked(self.trained, text, one) for one in given for text in some]
            # the same draws for every label: only then does their noise cancel
            numbers = [first + place for _ in given for place in range(len(some))]
            spent = nats(self.trained, self.asking, asked, SAMPLES, 0, tokens, numbers, shared)
            if form.name in POSTERIOR and self.asking.kind != "exact" and not form.filled:
                # a bound on words knows how many they are: labels of different length are compared word for word
                spent = spent / np.array([hidden.sum() for _, hidden in asked])
            found[first:first + len(some)] = -spent.reshape(len(given), -1).T
        if self.prior:
            found += np.log(np.maximum(self.shares, 1e-12))
        return found.reshape(-1, 2) if self.choices.several else found

    def _true(self, form: Form, rows: Sequence[Row]) -> list[Asked]:
        """What labelled rows ask for, in their order."""
        return [form.asked(self.trained, row, one) for row in rows for one in true_alternatives(row, self.choices)]

    @property
    def how(self) -> str:
        what = "the text given the label"
        if self.name in POSTERIOR:
            what = "yes or no to each label" if self.choices.several else "the label's words"
        if self.direct is not None:
            what = f"the label's words + {self.weight:g} x the text given them"
        tuned = "untuned, " if self.choices.options.untuned else ""
        return f"{tuned}{what}, {estimator(self.asking, SAMPLES)}" + (", times its share" if self.prior else "")

    @property
    def mode(self) -> str:
        return self.asking.name

    def settings(self) -> dict[str, Any]:
        return {"longest": self.form.longest, "template": self.form.template, "words": dict(self.form.words),
                "filled": self.form.filled,
                "shares": list(self.shares), "weight": self.weight}

    @classmethod
    def restored(cls, trained: Trained | None, choices: Choices, settings: Mapping[str, Any],
                 weights: Mapping[str, Tensor]) -> Self:
        assert trained is not None
        form = Form(cls.name, settings["longest"], settings["template"], settings["words"], settings.get("filled", 0))
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


def _apart(rows: Sequence[Row]) -> tuple[list[Row], list[Row]]:
    """Rows to learn from, and every tenth to choose by (at least one)."""
    kept = [row for place, row in enumerate(rows) if place % 10 == 9] or list(rows[:1])
    return [row for place, row in enumerate(rows) if place % 10 != 9], kept


def _shares(rows: Sequence[Row], choices: Choices) -> list[float]:
    """How often each alternative is so in training."""
    has = choices.table(rows).mean(0, dtype=np.float64)
    return [float(share) for share in (np.stack((1 - has, has), axis=1).flatten() if choices.several else has)]


FOUND: dict[str, type[Way]] = {way.name: way for way in (TextToText, Prompt, Generative, Channel)}
