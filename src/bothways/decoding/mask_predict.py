"""Mask-Predict (arXiv 1904.09324, section 3): fill every blank at once, hide the least certain again, repeat."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from bothways.decoding.blanks import Blanks, predict
from bothways.decoding.sampling import GenerateConfig
from bothways.families.trained import Trained
from bothways.objectives.base import Mode

STEPS = 10
"""Passes when none are asked for; the paper's tables end there."""


def mask_predict(trained: Trained, texts: Sequence[Blanks], mode: Mode, blocked: Tensor,
                 config: GenerateConfig) -> None:
    """Fill every text in place.

    With n blanks and T steps, the n * (T - t) / T least certain tokens are hidden again after step t, those of earlier
    steps included; a token's certainty is the probability it had when it was written. More steps than blanks are
    not made. `order` "random" hides any tokens again instead of the least certain.
    """
    turn = 0
    while waiting := [text for text in texts if text.hidden.any()]:
        turn += 1
        answers = predict(trained, waiting, mode, blocked, config)
        for text, (places, tokens, logprobs) in zip(waiting, answers, strict=True):
            text.write(places, tokens, logprobs)
            total = len(text.places)
            steps = min(config.steps or STEPS, total)
            again = total * (steps - turn) // steps
            text.hidden[_least(text, again, config)] = True


def _least(text: Blanks, count: int, config: GenerateConfig) -> np.ndarray:
    """The `count` places to hide again; ties go to the earlier place, which keeps its token."""
    if config.order == "random":
        return text.places[torch.randperm(len(text.places), generator=text.generator).numpy()[:count]]
    certain = np.argsort(-text.logprobs[text.places], kind="stable")
    return text.places[certain[len(certain) - count:]]
