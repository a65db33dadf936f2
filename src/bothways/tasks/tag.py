"""Tagging: a linear head on the mean state of each span of tokens, fine-tuned together with the network."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bothways.batch import Example
from bothways.evaluation.features import (
    Tagged,
    bounds_of,
    mean_of_spans,
    reading_example,
    states_of,
    visibility_named,
)
from bothways.evaluation.probes import accuracy_scores, check_labelled, tags_of
from bothways.evaluation.rows import TOKENS, in_order, packed, reading, rows
from bothways.evaluation.score import Score, Stopwatch
from bothways.tasks.tuning import TuneConfig, tune
from bothways.visibility import Visibility

if TYPE_CHECKING:
    from bothways.families.trained import Trained
    from bothways.model import LanguageModel


class Tagger(nn.Module):
    """A network with a linear head over `tags` for each span."""

    def __init__(self, network: LanguageModel, tags: Sequence[str], visibility: Visibility) -> None:
        super().__init__()
        self.network, self.tags, self.visibility = network, tuple(tags), visibility
        weight = next(network.parameters())
        self.head = nn.Linear(network.config.shape.width, len(self.tags), device=weight.device, dtype=weight.dtype)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, row: Example, bounds: Sequence[tuple[int, int]]) -> Tensor:
        """A packed row and the spans in it to logits: (spans, tags)."""
        return self.head(mean_of_spans(states_of(self.network, row), bounds).to(self.head.weight.dtype))

    def predict(self, texts: Iterable[Tagged], tokens: int = TOKENS) -> list[list[str]]:
        """The likeliest tag of each span of each text (the texts' own tags are not looked at)."""
        return list(self.each(texts, tokens))

    def each(self, texts: Iterable[Tagged], tokens: int = TOKENS) -> Iterator[list[str]]:
        """As `predict`, for a stream: texts are taken up, packed `tokens` a pass, only as answers are asked for.

        Raises:
            BothwaysError: a text of more tokens than the network has places.
        """
        places = self.network.config.position.length

        def as_read(text: Tagged) -> Example:
            return reading_example(text.ids, self.visibility)

        def row_by_row() -> Iterator[tuple[list[int], Iterator[list[str]]]]:
            for numbers, some, row in rows(texts, as_read, self.head.weight.device, tokens, places=places):
                with reading(self):
                    tags = iter(self(row, bounds_of(some)).argmax(-1).tolist())
                yield numbers, ([self.tags[next(tags)] for _ in text.spans] for text in some)

        return in_order(row_by_row())


def fine_tune(trained: Trained, train: Sequence[Tagged], config: TuneConfig | None = None, *,
              visibility: str | None = None, watch: Callable[[int, float], None] | None = None) -> Tagger:
    """A tagger from a copy of a trained network; `visibility` as in `classify.fine_tune`."""
    config = config or TuneConfig()
    train = [text for text in train if text.spans]
    tags = sorted(set(tags_of(train)))
    model = Tagger(copy.deepcopy(trained.network), tags, visibility_named(trained, visibility))
    examples = [reading_example(text.ids, model.visibility) for text in train]
    number = {tag: place for place, tag in enumerate(tags)}
    device = model.head.weight.device

    def loss_of(places: list[int], step: int) -> Tensor:
        targets = [number[tag] for place in places for _, _, tag in train[place].spans]
        logits = model(packed(examples, places, device), bounds_of([train[place] for place in places]))
        return F.cross_entropy(logits.float(), torch.tensor(targets, device=device))

    tune(model.network, model.head, len(train), loss_of, config, watch)
    return model.eval()


def tagging(trained: Trained, train: Sequence[Tagged], test: Sequence[Tagged], config: TuneConfig | None = None, *,
            visibility: str | None = None) -> list[Score]:
    """Fine-tune on `train`, score on `test`: "tagging accuracy" (items are spans) and "tagging macro-F1"."""
    watch = Stopwatch()
    config = config or TuneConfig()
    check_labelled([("", tag) for tag in tags_of(train)], [("", tag) for tag in tags_of(test)])
    model = fine_tune(trained, train, config, visibility=visibility)
    guessed = [tag for tags in model.predict(test) for tag in tags]
    return accuracy_scores("tagging", repr(model.visibility), f"fine-tuned, {config.steps} steps, mean of each span",
                           tags_of(test), guessed, watch.seconds,
                           {"seed": float(config.seed), "train texts": float(len(train))})
