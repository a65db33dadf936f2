"""Text classification: a linear head on mean-pooled states, fine-tuned together with the network.

Mean pooling is the neutral choice: the last token would flatter causal models, a class token those trained with one
(`literature.md` section 1, rule 9). The visibility at fine-tuning is an option, since both answers are asked for:
"native", as the model was trained, and "bidirectional" for everybody.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bothways.batch import Example
from bothways.evaluation.answers import TOKENS, packed, reading
from bothways.evaluation.features import (
    batches_by_length,
    pool,
    reading_example,
    states_of,
    text_ids,
    visibility_named,
)
from bothways.evaluation.probes import Labelled, accuracy_scores, check_labelled
from bothways.evaluation.score import Score, Stopwatch
from bothways.tasks.tuning import TuneConfig, tune
from bothways.visibility import Visibility

if TYPE_CHECKING:
    from bothways.families.trained import Trained
    from bothways.model import LanguageModel
    from bothways.text.tokenizer import Tokenizer


class Classifier(nn.Module):
    """A network with a pooled linear head over `labels`."""

    def __init__(self, network: LanguageModel, tokenizer: Tokenizer, labels: Sequence[str], visibility: Visibility,
                 longest: int = 256) -> None:
        super().__init__()
        self.network, self.tokenizer = network, tokenizer
        self.labels, self.visibility, self.longest = tuple(labels), visibility, longest
        weight = next(network.parameters())
        self.head = nn.Linear(network.config.shape.width, len(self.labels), device=weight.device, dtype=weight.dtype)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, row: Example) -> Tensor:
        """Packed texts to logits: (texts, labels)."""
        special = torch.from_numpy(self.tokenizer.vocabulary.special).to(row.inputs.device)
        return self.head(pool(states_of(self.network, row), row, ~special[row.inputs]))

    def examples(self, texts: Sequence[str]) -> list[Example]:
        """Texts as they are read."""
        return [reading_example(ids, self.visibility) for ids in text_ids(self.tokenizer, texts, self.longest)]

    def log_probabilities(self, texts: Sequence[str], tokens: int = TOKENS) -> np.ndarray:
        """(n, labels) float32, in the order of `texts`."""
        examples = self.examples(texts)
        found = np.zeros((len(texts), len(self.labels)), dtype=np.float32)
        with reading(self):
            for places in batches_by_length(examples, tokens):
                row = packed(examples, places, self.head.weight.device)
                found[places] = self(row).float().log_softmax(-1).cpu().numpy()
        return found

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
    examples = model.examples([text for text, _ in train])
    device = model.head.weight.device
    targets = torch.tensor([labels.index(label) for _, label in train], device=device)

    def loss_of(places: list[int], step: int) -> Tensor:
        # texts of like length side by side share an attention call
        places = sorted(places, key=lambda place: len(examples[place]))
        return F.cross_entropy(model(packed(examples, places, device)).float(), targets[places])

    tune(model.network, model.head, len(train), loss_of, config, watch)
    return model.eval()


def classification(trained: Trained, train: Labelled, test: Labelled, config: TuneConfig | None = None, *,
                   visibility: str | None = None) -> list[Score]:
    """Fine-tune on `train`, score on `test`.

    Returns:
        "classification accuracy" (items are texts) and "classification macro-F1".
    Raises:
        BothwaysError: an empty side or a single label.
    """
    watch = Stopwatch()
    config = config or TuneConfig()
    check_labelled(train, test)
    model = fine_tune(trained, train, config, visibility=visibility)
    guessed = model.predict([text for text, _ in test])
    return accuracy_scores("classification", repr(model.visibility), f"fine-tuned, {config.steps} steps, mean pooling",
                           [label for _, label in test], guessed, watch.seconds,
                           {"seed": float(config.seed), "train texts": float(len(train))})
