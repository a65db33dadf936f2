"""Masked diffusion, run backwards (LLaDA, arXiv 2502.09992, section 2.4; MDLM, arXiv 2406.07524).

Block diffusion (BD3-LM, arXiv 2503.09573, section 3) is the same inside a block, block after block.
"""

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


def diffuse_blocks(trained: Trained, texts: Sequence[Blanks], mode: Mode, blocked: Tensor,
                   config: GenerateConfig) -> None:
    """Fill every text in place, its earliest unfinished block first; `steps` is for one block.

    What stands behind a block is not read while it is filled. Where a block ends the text, nothing more is asked and
    the places behind it become `<eos>` too.
    """
    eos = trained.vocabulary.eos
    while waiting := [text for text in texts if text.hidden.any()]:
        # 1. each text as far as the end of its block
        blocks = []
        for text in waiting:
            end = _end_of_block(trained, text, mode)
            blocks.append(Blanks(text.ids[:end], np.flatnonzero(text.hidden[:end]), text.generator))
        diffuse(trained, blocks, mode, blocked, config)
        # 2. what was written there
        for text, block in zip(waiting, blocks, strict=True):
            text.write(block.places, block.ids[block.places], block.logprobs[block.places])
            text.evaluations += block.evaluations
            if (block.ids[block.places] == eos).any():
                rest = np.flatnonzero(text.hidden)
                text.write(rest, np.full(len(rest), eos), np.zeros(len(rest)))


def _end_of_block(trained: Trained, text: Blanks, mode: Mode) -> int:
    """Where the first block with a hidden place ends, read off the objective's own question."""
    question = trained.objective.blank(text.ids, text.hidden, mode)
    blocks = question.fields["block"]
    inside = blocks == blocks[question.asks[0].where].min()
    return int(question.fields["index"][inside].max()) + 1
