"""Masked diffusion, run backwards (LLaDA, arXiv 2502.09992, section 2.4; MDLM, arXiv 2406.07524)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from bothways.decoding.blanks import Blanks, predict
from bothways.decoding.sampling import GenerateConfig
from bothways.families.trained import Trained
from bothways.objectives.base import Mode


def diffuse(trained: Trained, texts: Sequence[Blanks], mode: Mode, blocked: Tensor, config: GenerateConfig) -> None:
    """Fill every text in place.

    Every step predicts all hidden places and keeps an even share of the predictions, the most certain ones or, in
    "random" order, any; the others are hidden again. What is kept never changes. One token a step unless `steps`
    says fewer; more steps than blanks are not made.
    """
    turn = 0
    while waiting := [text for text in texts if text.hidden.any()]:
        turn += 1
        answers = predict(trained, waiting, mode, blocked, config)
        for text, (places, tokens, logprobs) in zip(waiting, answers, strict=True):
            total = len(text.places)
            steps = min(config.steps or total, total)
            count = total * turn // steps - total * (turn - 1) // steps
            if config.order == "random":
                kept = torch.randperm(len(places), generator=text.generator).numpy()[:count]
            else:
                kept = np.argsort(-logprobs, kind="stable")[:count]
            text.write(places[kept], tokens[kept], logprobs[kept])
