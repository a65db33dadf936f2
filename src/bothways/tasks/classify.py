"""Text classification: a linear head on mean-pooled states, fine-tuned together with the network.

Mean pooling is the neutral choice: the last token would flatter causal models, a class token those trained with one
(`literature.md` section 1, rule 9). The visibility at fine-tuning is an option, since both answers are asked for:
"native", as the model was trained, and "bidirectional" for everybody.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bothways.batch import Example
from bothways.evaluation.features import ids_of_each, pool, reading_example, states_of, visibility_named
from bothways.evaluation.probes import Labelled, accuracy_scores, check_labelled
from bothways.evaluation.rows import TOKENS, in_order, packed, reading, rows
from bothways.evaluation.score import Score, Stopwatch
from bothways.tasks.tuning import TuneConfig, tune
from bothways.visibility import Visibility

if TYPE_CHECKING:
    from bothways.families.trained import Trained
    from bothways.model import LanguageModel
    from bothways.text.tokenizer import Tokenizer


RATES = (5e-4, 1.5e-3, 3e-3)
"""Learning rates that fine-tuning chooses from."""


class Classifier(nn.Module):
    """A network with a pooled linear head over `labels`."""

    def __init__(self, network: LanguageModel, tokenizer: Tokenizer, labels: Sequence[str], visibility: Visibility,
                 longest: int = 256) -> None:
        super().__init__()
        self.network, self.tokenizer = network, tokenizer
        self.labels, self.visibility = tuple(labels), visibility
        self.longest = min(longest, network.config.position.length)
        weight = next(network.parameters())
        self.head = nn.Linear(network.config.shape.width, len(self.labels), device=weight.device, dtype=weight.dtype)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, row: Example) -> Tensor:
        """Packed texts to logits: (texts, labels)."""
        special = torch.from_numpy(self.tokenizer.vocabulary.special).to(row.inputs.device)
        pooled = pool(states_of(self.network, row), row, ~special[row.inputs])
        return self.head(pooled.to(self.head.weight.dtype))

    def examples(self, texts: Iterable[str]) -> Iterator[Example]:
        """Texts as they are read."""
        return (reading_example(ids, self.visibility) for ids in ids_of_each(self.tokenizer, texts, self.longest))

    def log_probabilities(self, texts: Sequence[str], tokens: int = TOKENS) -> np.ndarray:
        """(n, labels) float32, in the order of `texts`."""
        return np.stack([*self.each(texts, tokens)]) if texts else np.zeros((0, len(self.labels)), np.float32)

    def each(self, texts: Iterable[str], tokens: int = TOKENS) -> Iterator[np.ndarray]:
        """The log probabilities (labels,) of each text of a stream, which is packed `tokens` a pass and taken up only
        as answers are asked for."""
        def row_by_row() -> Iterator[tuple[list[int], np.ndarray]]:
            for numbers, _, row in rows(self.examples(texts), lambda example: example, self.head.weight.device, tokens):
                with reading(self):
                    found = self(row).float().log_softmax(-1).cpu()
                yield numbers, found.numpy()

        return in_order(row_by_row())

    def predict(self, texts: Sequence[str]) -> list[str]:
        """The likeliest label of each text."""
        return [self.labels[place] for place in self.log_probabilities(texts).argmax(-1)]


def fine_tune(trained: Trained, train: Labelled, config: TuneConfig | None = None, *, visibility: str | None = None,
              watch: Callable[[int, float], None] | None = None) -> Classifier:
    """A classifier from a copy of a trained network; `trained` itself is left as it is.

    Args:
        train: (text, label) pairs.
        visibility: "native" (the default), "bidirectional", "causal" or a mode; two towers read with their encoder.
    """
    config = config or TuneConfig()
    labels = sorted({label for _, label in train})
    model = Classifier(copy.deepcopy(trained.network), trained.tokenizer, labels,
                       visibility_named(trained, visibility), config.longest)
    examples = list(model.examples(text for text, _ in train))
    device = model.head.weight.device
    targets = torch.tensor([labels.index(label) for _, label in train], device=device)

    def loss_of(places: list[int], step: int) -> Tensor:
        # texts of like length side by side share an attention call
        places = sorted(places, key=lambda place: len(examples[place]))
        return F.cross_entropy(model(packed(examples, places, device)).float(), targets[places])

    tune(model.network, model.head, len(train), loss_of, config, watch)
    return model.eval()


def searched(trained: Trained, train: Labelled, config: TuneConfig, rates: Sequence[float], *,
             visibility: str | None = None) -> TuneConfig:
    """`config` with the learning rate, of `rates`, that does best on a fifth of the training texts kept back.

    Networks trained by different paradigms (and untrained ones) sit at different scales, so that one rate for all would
    favour whom it happens to fit: BERT chose its rate so for every task (arXiv 1810.04805, appendix A.3). Each trial
    takes a quarter of the steps; the head's rate keeps its ratio to the network's. The test texts play no part.
    """
    if len(rates) < 2 or len(train) < 10:
        return config
    # 1. every fifth text of a random order is kept back
    order = np.random.default_rng((config.seed, 5)).permutation(len(train))
    learned = [train[place] for i, place in enumerate(order) if i % 5]
    kept = [train[place] for i, place in enumerate(order) if not i % 5]
    # 2. a trial of each rate; a tie goes to the lower one
    ratio = config.head_rate / config.learning_rate
    found: dict[float, float] = {}
    for rate in sorted(rates):
        trial = replace(config, steps=max(1, config.steps // 4), learning_rate=rate, head_rate=rate * ratio)
        guessed = fine_tune(trained, learned, trial, visibility=visibility).predict([text for text, _ in kept])
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
    guessed = model.predict([text for text, _ in test])
    return accuracy_scores("classification", repr(model.visibility), f"fine-tuned, {config.steps} steps, mean pooling",
                           [label for _, label in test], guessed, watch.seconds,
                           {"seed": float(config.seed), "train texts": float(len(train)),
                            "learning rate": config.learning_rate})
