"""Mask-Predict (arXiv 1904.09324, section 3): fill every blank at once, hide the least certain again, repeat."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from bothways.decoding.blanks import Blanks, Reader, predict
from bothways.decoding.sampling import GenerateConfig
from bothways.families.trained import Trained
from bothways.objectives.base import Mode

STEPS = 10
"""Passes when none are asked for; the paper's tables end there."""


def mask_predict(trained: Trained, texts: Sequence[Blanks], mode: Mode, blocked: Tensor,
                 config: GenerateConfig, reader: Reader | None = None) -> None:
    """Fill every text in place.

    With n blanks and T steps, the n * (T - t) / T least certain tokens are hidden again after step t, those of earlier
    steps included; a token's certainty is what it had when it was written: its probability, or by `order` "entropy" or
    "margin" how sure the network was of the place. `order` "random" hides any tokens again. More steps than blanks
    are not made.
    """
    certain = [np.zeros(len(text.ids)) for text in texts]
    turn = 0
    while open_ := [i for i, text in enumerate(texts) if text.hidden.any()]:
        turn += 1
        answers = predict(trained, [texts[i] for i in open_], mode, blocked, config, reader)
        for i, answer in zip(open_, answers, strict=True):
            text, total = texts[i], len(texts[i].places)
            certain[i][answer.places] = answer.certainty
            steps = min(config.steps or STEPS, total)
            again = _least(text, certain[i], total * (steps - turn) // steps, config)
            text.write(answer.places, answer.tokens, answer.logprobs, again)


def _least(text: Blanks, certain: np.ndarray, count: int, config: GenerateConfig) -> np.ndarray:
    """The `count` places to hide again; ties go to the earlier place, which keeps its token."""
    if config.order == "random":
        return text.places[torch.randperm(len(text.places), generator=text.generator).numpy()[:count]]
    ranked = np.argsort(-certain[text.places], kind="stable")
    return text.places[ranked[len(ranked) - count:]]
