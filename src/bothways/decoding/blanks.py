"""What the decodings that fill places share: asking for hidden tokens in the objective's own format."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from bothways.batch import Example, groups, pack
from bothways.decoding.sampling import BLOCKED, GenerateConfig, filtered, gumbel_argmax
from bothways.decoding.written import HIDDEN, Step
from bothways.errors import BothwaysError
from bothways.families.trained import Trained
from bothways.objectives.base import Mode

ROW = 8192
"""Tokens read in one pass, unless one text alone has more."""
LOGITS = 1 << 24
"""Logits held at one time."""


@dataclass
class Blanks:
    """One text whose `places` are being filled. What stands at a hidden place of `ids` means nothing.

    `row` is its number among the texts of the call, by which a cache knows it.
    """

    ids: np.ndarray
    places: np.ndarray
    generator: torch.Generator
    row: int = 0
    hidden: np.ndarray = field(init=False)
    """(L,) bool, True where nothing is written yet."""
    logprobs: np.ndarray = field(init=False)
    """(L,) log probability of what was written, when it was written."""
    evaluations: int = 0
    steps: list[Step] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.ids = np.array(self.ids, dtype=np.int64)
        self.hidden = np.zeros(len(self.ids), bool)
        self.hidden[self.places] = True
        self.logprobs = np.zeros(len(self.ids))

    def write(self, places: np.ndarray, tokens: np.ndarray, logprobs: np.ndarray,
              again: np.ndarray | None = None) -> None:
        """Put tokens in: they are hidden no more, but for the places that are hidden `again`. This is one step."""
        self.ids[places], self.logprobs[places], self.hidden[places] = tokens, logprobs, False
        step = dict(zip(places.tolist(), tokens.tolist(), strict=True))
        if again is not None:
            self.hidden[again] = True
            step |= dict.fromkeys(again.tolist(), HIDDEN)
        self.steps.append(Step(tuple(step), tuple(step.values())))


class Prediction(NamedTuple):
    """For places of a text (T,): a token each, its log probability, and how certain the network is of that place."""

    places: np.ndarray
    tokens: np.ndarray
    logprobs: np.ndarray
    certainty: np.ndarray


class Reader:
    """Questions are read anew each time, packed under a token budget."""

    bytes = 0
    """What is kept between calls."""

    def __init__(self, trained: Trained) -> None:
        self.trained = trained

    def states(self, texts: Sequence[Blanks], questions: Sequence[Example]) -> list[Tensor]:
        """Of each question the states (T, D) that its Ask points at."""
        found: list[Tensor] = []
        for group in groups([len(question) for question in questions], ROW):
            (row,) = pack([questions[i] for i in group])
            row = row.to(self.trained.device)
            states = self.trained.network(row, only_asked=True).states[row.asks[0].where]
            found += states.split([len(questions[i].asks[0].where) for i in group])
        return found

    def only(self, texts: Sequence[Blanks]) -> None:
        """The other texts are finished for good."""


def make_blanks(texts: Sequence[Sequence[int]], blank: int, config: GenerateConfig) -> list[Blanks]:
    """Every `blank` token of each text is a place to fill; text i draws with seed + i."""
    made = []
    for i, text in enumerate(texts):
        ids = np.asarray(text, dtype=np.int64)
        made.append(Blanks(ids, np.flatnonzero(ids == blank), torch.Generator().manual_seed(config.seed + i), i))
    return made


@torch.inference_mode()
def predict(trained: Trained, texts: Sequence[Blanks], mode: Mode, blocked: Tensor, config: GenerateConfig,
            reader: Reader | None = None, only: Sequence[np.ndarray] | None = None) -> list[Prediction]:
    """One pass (two with guidance): for every text a token at each of its hidden places.

    Args:
        texts: at least one hidden place each.
        blocked: (V,) bool, True for tokens that are never written.
        reader: who calls the network; from scratch when none.
        only: for each text the hidden places (rising) that are wanted, so that no logits are computed elsewhere.
    """
    reader = reader or Reader(trained)
    wanted = [np.flatnonzero(text.hidden) for text in texts] if only is None else only
    # 1. the question, in the objective's own format, and the same without what was given
    questions = [question(trained, text, text.hidden, places, mode)
                 for text, places in zip(texts, wanted, strict=True)]
    states, head = reader.states(texts, questions), questions[0].asks[0].head
    without: list[Tensor] = []
    if config.guidance:
        without = Reader(trained).states(texts, [question(trained, text, text.hidden | _given(trained, text), places,
                                                          mode) for text, places in zip(texts, wanted, strict=True)])
    for text in texts:
        text.evaluations += 1 + bool(config.guidance)
    # 2. the answers, a few texts at a time
    answers: list[Prediction] = []
    for group in groups([len(places) * len(blocked) for places in wanted], LOGITS):
        ends = np.cumsum([len(wanted[i]) for i in group])[:-1].tolist()
        logits = trained.objective.logits(trained.network, torch.cat([states[i] for i in group]), head).float()
        guided = logits
        if without:
            other = trained.objective.logits(trained.network, torch.cat([without[i] for i in group]),
                                             head).float()
            guided = logits + config.guidance * (logits - other).nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
        for i, own, one in zip(group, logits.tensor_split(ends), guided.tensor_split(ends), strict=True):
            answers.append(_answer(texts[i], wanted[i], own, one, blocked, config))
    return answers


def question(trained: Trained, text: Blanks, hidden: np.ndarray, places: np.ndarray, mode: Mode) -> Example:
    """What the objective asks for the hidden tokens of a text, of which only `places` are answered."""
    asked = trained.objective.blank(text.ids, hidden, mode)
    (ask,) = asked.asks
    every = np.flatnonzero(hidden)
    if len(ask.where) < len(every):
        # whoever speaks of the next token is not asked for the first
        every = every[1:]
        if 0 in places:
            raise BothwaysError("a blank at the very beginning cannot be filled in this mode, which speaks of the next "
                                "token: begin the text with <bos>")
    if len(every) == len(places):
        return asked
    chosen = torch.from_numpy(np.isin(every, places))
    return replace(asked, asks=(replace(ask, where=ask.where[chosen], targets=ask.targets[chosen]),))


def _answer(text: Blanks, places: np.ndarray, logits: Tensor, guided: Tensor, blocked: Tensor,
            config: GenerateConfig) -> Prediction:
    """A token for each place of one text."""
    choices = filtered(guided.masked_fill(blocked, BLOCKED), config,
                       _seen(text, len(blocked), config, blocked.device))
    tokens = choices.argmax(-1) if config.temperature == 0 else gumbel_argmax(choices, text.generator)
    scores = logits.log_softmax(-1)
    logprobs = scores.gather(-1, tokens.unsqueeze(-1)).squeeze(-1).double().cpu().numpy()
    return Prediction(places, tokens.cpu().numpy(), logprobs, _certainty(scores, logprobs, config.order))


def _certainty(scores: Tensor, logprobs: np.ndarray, order: object) -> np.ndarray:
    """How sure the network is of each place, by its own distribution (T, V): the larger the surer, (T,) float64."""
    if order == "entropy":
        return (scores.exp() * scores.masked_fill(scores == BLOCKED, 0)).sum(-1).double().cpu().numpy()
    if order == "margin":
        likeliest = scores.exp().topk(2, dim=-1).values
        return (likeliest[:, 0] - likeliest[:, 1]).double().cpu().numpy()
    return logprobs


def _given(trained: Trained, text: Blanks) -> np.ndarray:
    """(L,) bool of the ordinary tokens that were given, not written."""
    given = ~trained.vocabulary.special[text.ids]
    given[text.places] = False
    return given


def _seen(text: Blanks, size: int, config: GenerateConfig, device: torch.device) -> Tensor | None:
    """(1, V) bool of the tokens that stand in the text, where a penalty asks for it."""
    if config.repetition_penalty == 1:
        return None
    seen = torch.zeros(1, size, dtype=torch.bool)
    seen[0, torch.from_numpy(text.ids[~text.hidden])] = True
    return seen.to(device)
