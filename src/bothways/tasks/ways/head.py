"""Classifying by a head: a linear layer on pooled states, tuned together with the network.

Mean pooling is the neutral choice: the last token would flatter causal models, a class token those trained with one
(`literature.md` section 1, rule 9). The visibility is an option, since both answers are asked for: "native", as the
model was trained, and "bidirectional" for everybody.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, Self, get_args

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bothways.batch import Example
from bothways.errors import BothwaysError, nearest
from bothways.evaluation.features import pool, reading_example, states_of, visibility_named
from bothways.evaluation.rows import TOKENS, encoded, in_order, packed, reading, rows
from bothways.model.companions import Pooler
from bothways.objectives import base
from bothways.tasks.tuning import TuneConfig, class_weights, tune
from bothways.tasks.ways import Choices, Row, Way
from bothways.tasks.ways.scaling import ENOUGH, SCALES, best_scale, logits_of, nats_by_scale
from bothways.visibility import Visibility

if TYPE_CHECKING:
    from bothways.families.trained import Trained
    from bothways.model import LanguageModel

Pooling = Literal["mean", "mean-all", "first", "last"]
"""Of a text's own tokens, of all (EuroBERT), the first one's state (BERT), the last one's (causal classes)."""
Between = Literal["none", "tanh", "relu", "gelu", "gelu-norm"]
"""What lies between pooled state and linear layer: nothing, or a dense layer and an activation (BERT's pooler and
RoBERTa: tanh; DistilBERT: relu; EuroBERT: gelu; ModernBERT: gelu and a norm, no bias)."""


@dataclass(frozen=True)
class Form:
    """How a text is read: the longest, whether its end token is written, which of a pair is told by segments.

    A text is `<bos> text <eos>`, a pair `<bos> text <sep> other <eos>` (BERT's [CLS] and [SEP] where it has those).
    """

    longest: int = 256
    ends: bool = True
    segments: bool = False

    def ids(self, trained: Trained, texts: Sequence[Row]) -> list[tuple[np.ndarray, np.ndarray]]:
        """The tokens of each row, and the segment of each token."""
        known, tokenizer = trained.vocabulary.ids, trained.tokenizer
        begin, end = trained.vocabulary.bos, trained.vocabulary.eos
        between = known.get("<sep>", end)
        firsts = list(encoded(tokenizer, (row.text for row in texts), reserved=False))
        others = [None if row.other is None else tokenizer.encode(row.other, reserved=False) for row in texts]
        found = []
        for one, other in zip(firsts, others, strict=True):
            room = self.longest - 1 - self.ends
            if other is not None:
                # the longer text gives way first
                keep = max(room - 1 - len(other), (room - 1) // 2)
                one = one[:keep]
                other = other[:room - 1 - len(one)]
            tail = [end] if self.ends else []
            left = [begin, *one[:room], *([between] if other is not None else tail)]
            right = [] if other is None else [*other, *tail]
            found.append((np.array([*left, *right], dtype=np.int64), np.repeat([0, 1], [len(left), len(right)])))
        return found

    def examples(self, trained: Trained, texts: Sequence[Row], visibility: Visibility) -> list[Example]:
        """The rows as they are read."""
        if not self.segments:
            return [reading_example(ids, visibility) for ids, _ in self.ids(trained, texts)]
        return [base.reading(ids, visibility, segment=segment) for ids, segment in self.ids(trained, texts)]


class Head(nn.Module):
    """Pooled states (n, D) to logits (n, labels); the last layer starts from zero.

    `bias` is of that layer: causal classes of others have none.
    """

    def __init__(self, width: int, labels: int, between: Between = "none", dropout: float = 0.0,
                 bias: bool = True) -> None:
        super().__init__()
        self.between, self.dropout = between, dropout
        self.dense = None if between == "none" else nn.Linear(width, width, bias=between != "gelu-norm")
        self.norm = nn.LayerNorm(width, eps=1e-5, bias=False) if between == "gelu-norm" else None
        self.out = nn.Linear(width, labels, bias=bias)
        for weight in self.out.parameters():
            nn.init.zeros_(weight)

    def forward(self, pooled: Tensor) -> Tensor:
        """(n, D) to (n, labels)."""
        if self.dense is not None:
            pooled = self.dense(F.dropout(pooled, self.dropout, self.training))
            pooled = pooled.tanh() if self.between == "tanh" else pooled.relu() if self.between == "relu" \
                else F.gelu(pooled)
            pooled = pooled if self.norm is None else self.norm(pooled)
        return self.out(F.dropout(pooled, self.dropout, self.training))  # type: ignore[no-any-return]


class Classifier(nn.Module):
    """A network with a head over pooled states."""

    def __init__(self, network: LanguageModel, head: Head, pooling: Pooling, special: np.ndarray) -> None:
        super().__init__()
        self.network, self.pooling = network, pooling
        weight = next(network.parameters())
        self.head = head.to(weight.device, weight.dtype)
        self.special = torch.from_numpy(special).to(weight.device)

    def forward(self, row: Example) -> Tensor:
        """Packed texts to logits: (texts, labels)."""
        vectors = pooled(states_of(self.network, row), row, self.pooling, self.special)
        return self.head(vectors.to(self.head.out.weight.dtype))  # type: ignore[no-any-return]


def pooled(states: Tensor, row: Example, pooling: Pooling, special: Tensor) -> Tensor:
    """One vector for each document of a packed row: (N, D) to (documents, D)."""
    if pooling == "mean":
        return pool(states, row, ~special[row.inputs])
    if pooling == "mean-all":
        return pool(states, row, torch.ones_like(row.inputs, dtype=torch.bool))
    ends = torch.bincount(row.fields["document"]).cumsum(0)
    chosen = ends - 1 if pooling == "last" else ends - torch.bincount(row.fields["document"])
    return states[chosen.to(states.device)]


class ByHead(Way):
    """A tuned network with its head."""

    name = "head"
    trained: Trained

    def __init__(self, trained: Trained, head: Head, choices: Choices, form: Form, pooling: Pooling,
                 visibility: str | None) -> None:
        if pooling not in get_args(Pooling):
            raise BothwaysError(f"pooling is '{pooling}' {nearest(str(pooling), get_args(Pooling))}")
        self.trained, self.choices, self.form = trained, choices, form
        self.pooling, self.visibility = pooling, visibility
        self.sees = visibility_named(trained, visibility)
        self.model = Classifier(trained.network, head, pooling, trained.vocabulary.special)
        self.scale = 1.0
        """What the last layer was multiplied with, so that its logits fit the rows kept back."""

    @classmethod
    def fit(cls, trained: Trained | None, train: Sequence[Row], dev: Sequence[Row], choices: Choices,
            config: TuneConfig, watch: Callable[[int, float], None] | None) -> Self:
        if trained is None:
            raise BothwaysError("the way 'head' tunes a network: say which (--from)")
        # 1. a copy of the network, and a head that knows nothing
        options = choices.options
        network = copy.deepcopy(trained.network)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            head = Head(network.config.shape.width, len(choices.labels), options.between, network.config.dropout,
                        bias=options.pooling != "last")
        pooler = next((one for one in network.companions.values() if isinstance(one, Pooler)), None)
        if options.between == "tanh" and options.pooling == "first" and pooler is not None and head.dense is not None:
            head.dense.load_state_dict(pooler.dense.state_dict())  # BERT goes on from the pooler it was trained with
        known = any(one.name == "segment" for one in network.config.companions)
        longest = min(config.longest, network.config.position.length)
        found = cls(replace(trained, network=network), head, choices,
                    Form(longest, options.ends, known and any(row.other is not None for row in train)),
                    options.pooling, options.visibility)
        # 2. texts and targets
        examples = found.form.examples(trained, train, found.sees)
        device = trained.device
        loss_of_logits = found._loss(train, config, device)

        def loss_of(places: list[int], step: int) -> Tensor:
            # texts of like length side by side share an attention call
            places = sorted(places, key=lambda place: len(examples[place]))
            return loss_of_logits(found.model(packed(examples, places, device)).float(), places)

        # 3. the loop
        tune(network, found.model.head, len(train), loss_of, config, watch, lengths=[len(one) for one in examples],
             judge=(lambda: -found._nats(dev).min()) if dev else None)
        found.model.eval()
        # 4. how sure it is: few numbers that saw few texts often are too sure
        if len(dev) >= ENOUGH:
            found.scale = best_scale(found._nats(dev))
            with torch.no_grad():
                for parameter in found.model.head.out.parameters():
                    parameter.mul_(found.scale)
        return found

    def _loss(self, texts: Sequence[Row], config: TuneConfig, device: torch.device
              ) -> Callable[[Tensor, list[int]], Tensor]:
        """Cross-entropy over the labels, or of each label by itself, of (logits, places)."""
        if self.choices.several:
            table = torch.from_numpy(self.choices.table(texts)).to(device)
            more = (len(table) - table.sum(0)).clamp(min=1) / table.sum(0).clamp(min=1) if config.balanced else None
            return lambda logits, places: F.binary_cross_entropy_with_logits(logits, table[places], pos_weight=more)
        numbers = self.choices.numbers(texts)
        targets = torch.tensor(numbers, device=device)
        weights = class_weights(numbers, len(self.choices.labels)).to(device) if config.balanced else None
        return lambda logits, places: F.cross_entropy(logits, targets[places], weight=weights)

    def _nats(self, texts: Sequence[Row]) -> np.ndarray:
        """The NLL of the true labels by scale; of few texts as they are. The least judges weights: what a network has
        learned shows before how sure of it it is, which is mended at the end."""
        logits = logits_of(self.log_probabilities(texts), self.choices.several)
        found = nats_by_scale(logits, torch.from_numpy(self.choices.table(texts)), self.choices.several)
        return found if len(texts) >= ENOUGH else found[[SCALES.index(1.0)]]

    def log_probabilities(self, texts: Sequence[Row], tokens: int = TOKENS) -> np.ndarray:
        examples = self.form.examples(self.trained, texts, self.sees)

        def row_by_row() -> Iterator[tuple[list[int], np.ndarray]]:
            for numbers, _, row in rows(examples, lambda example: example, self.trained.device, tokens):
                with reading(self.model):
                    logits = self.model(row).float()
                    logs = F.logsigmoid(logits) if self.choices.several else logits.log_softmax(-1)
                yield numbers, logs.cpu().numpy()

        return np.stack([np.zeros(len(self.choices.labels), np.float32), *in_order(row_by_row())])[1:]

    @property
    def how(self) -> str:
        return f"head on {self.pooling} states" + (f", logits times {self.scale:.3g}" if self.scale != 1 else "")

    @property
    def mode(self) -> str:
        return repr(self.sees)

    def settings(self) -> dict[str, Any]:
        return {"pooling": self.pooling, "visibility": self.visibility, "between": self.model.head.between,
                "bias": self.model.head.out.bias is not None, "scale": self.scale,
                "longest": self.form.longest, "ends": self.form.ends, "segments": self.form.segments}

    def weights(self) -> dict[str, Tensor]:
        return self.model.head.state_dict()

    @classmethod
    def restored(cls, trained: Trained | None, choices: Choices, settings: Mapping[str, Any],
                 weights: Mapping[str, Tensor]) -> Self:
        assert trained is not None
        head = Head(trained.config.shape.width, len(choices.labels), settings["between"], trained.config.dropout,
                    settings["bias"])
        head.load_state_dict(dict(weights))
        found = cls(trained, head, choices, Form(settings["longest"], settings["ends"], settings["segments"]),
                    settings["pooling"], settings["visibility"])
        found.scale = settings.get("scale", 1.0)
        found.model.eval()
        return found


FOUND: dict[str, type[Way]] = {"head": ByHead}
