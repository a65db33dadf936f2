"""What the decodings that fill places share: asking for hidden tokens in the objective's own format."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from bothways.batch import pack
from bothways.decoding.sampling import BLOCKED, GenerateConfig, filtered, gumbel_argmax
from bothways.errors import BothwaysError
from bothways.families.trained import Trained
from bothways.objectives.base import Mode


@dataclass
class Blanks:
    """One text whose `places` are being filled. What stands at a hidden place of `ids` means nothing."""

    ids: np.ndarray
    places: np.ndarray
    generator: torch.Generator
    hidden: np.ndarray = field(init=False)
    """(L,) bool, True where nothing is written yet."""
    logprobs: np.ndarray = field(init=False)
    """(L,) log probability of what was written, when it was written."""
    evaluations: int = 0

    def __post_init__(self) -> None:
        self.ids = np.array(self.ids, dtype=np.int64)
        self.hidden = np.zeros(len(self.ids), bool)
        self.hidden[self.places] = True
        self.logprobs = np.zeros(len(self.ids))

    def write(self, places: np.ndarray, tokens: np.ndarray, logprobs: np.ndarray) -> None:
        """Put tokens in; they are hidden no more."""
        self.ids[places], self.logprobs[places], self.hidden[places] = tokens, logprobs, False


def make_blanks(texts: Sequence[Sequence[int]], blank: int, config: GenerateConfig) -> list[Blanks]:
    """Every `blank` token of each text is a place to fill; text i draws with seed + i."""
    made = []
    for i, text in enumerate(texts):
        ids = np.asarray(text, dtype=np.int64)
        made.append(Blanks(ids, np.flatnonzero(ids == blank), torch.Generator().manual_seed(config.seed + i)))
    return made


@torch.inference_mode()
def predict(trained: Trained, texts: Sequence[Blanks], mode: Mode, blocked: Tensor,
            config: GenerateConfig) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """One pass: for every text its hidden places, a token for each, and the tokens' log probabilities.

    Args:
        texts: at least one hidden place each.
        blocked: (V,) bool, True for tokens that are never written.
    """
    # 1. the question, in the objective's own format; texts lie packed in one row
    examples = []
    for text in texts:
        example = trained.objective.blank(text.ids, text.hidden, mode)
        if len(example.asks[0].where) != int(text.hidden.sum()):
            raise BothwaysError("a blank at the very beginning cannot be filled in this mode, which speaks of the next "
                                "token: begin the text with <bos>")
        examples.append(example)
        text.evaluations += 1
    (row,) = pack(examples)
    row = row.to(trained.device)
    (ask,) = row.asks
    # 2. the answers, split by text
    logits = trained.objective.logits(trained.network, trained.network(row).states[ask.where], ask.head).float()
    allowed = logits.masked_fill(blocked, BLOCKED)
    answers, first = [], 0
    for text, example in zip(texts, examples, strict=True):
        last = first + len(example.asks[0].where)
        choices = filtered(allowed[first:last], config, _seen(text, len(blocked), config, blocked.device))
        tokens = choices.argmax(-1) if config.temperature == 0 else gumbel_argmax(choices, text.generator)
        chosen = logits[first:last].gather(-1, tokens.unsqueeze(-1)).squeeze(-1)
        logprobs = chosen - logits[first:last].logsumexp(-1)
        answers.append((np.flatnonzero(text.hidden), tokens.cpu().numpy(), logprobs.double().cpu().numpy()))
        first = last
    return answers


def _seen(text: Blanks, size: int, config: GenerateConfig, device: torch.device) -> Tensor | None:
    """(1, V) bool of the tokens that stand in the text, where a penalty asks for it."""
    if config.repetition_penalty == 1:
        return None
    seen = torch.zeros(1, size, dtype=torch.bool)
    seen[0, torch.from_numpy(text.ids[~text.hidden])] = True
    return seen.to(device)
