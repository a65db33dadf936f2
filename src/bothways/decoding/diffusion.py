"""Masked diffusion, run backwards (LLaDA, arXiv 2502.09992, section 2.4; MDLM, arXiv 2406.07524).

Block diffusion (BD3-LM, arXiv 2503.09573, section 3) is the same inside a block, block after block.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from bothways.decoding.blanks import Blanks, Reader, predict
from bothways.decoding.sampling import GenerateConfig
from bothways.errors import BothwaysError
from bothways.families.trained import Trained
from bothways.objectives.base import Mode


def diffuse(trained: Trained, texts: Sequence[Blanks], mode: Mode, blocked: Tensor, config: GenerateConfig,
            reader: Reader | None = None) -> None:
    """Fill every text in place.

    Every step writes an even share of the places, and what is written never changes. One token a step unless `steps`
    says fewer; more steps than blanks are not made. Which places come first `order` says:

    - confidence (the default): where the predicted token is most probable (LLaDA);
    - entropy: where the predicted distribution has the least (Dream, arXiv 2508.15487);
    - margin: where the likeliest token is furthest ahead of the second (arXiv 2502.06768, section 4.1);
    - random, left_to_right, or the blanks' numbers in a tuple: known beforehand, so nothing else is asked for. With
      one place a step these are the chain rule in that order: the log probabilities add up to that of the text.
    """
    queues = [queue(text, config) for text in texts]
    turns = [0 for _ in texts]
    while open_ := [i for i, text in enumerate(texts) if text.hidden.any()]:
        counts = []
        for i in open_:
            total = len(texts[i].places)
            steps = min(config.steps or total, total)
            turns[i] += 1
            counts.append(total * turns[i] // steps - total * (turns[i] - 1) // steps)
        # 1. places whose turn it is, where that is known
        waiting = [texts[i] for i in open_]
        only = None
        if queues[open_[0]] is not None:
            only = [np.sort(queues[i][:count]) for i, count in zip(open_, counts, strict=True)]  # type: ignore[index]
            for i, count in zip(open_, counts, strict=True):
                queues[i] = queues[i][count:]  # type: ignore[index]
        # 2. ask, and write the surest of the answers
        for text, count, answer in zip(waiting, counts, predict(trained, waiting, mode, blocked, config, reader, only),
                                       strict=True):
            kept = np.argsort(-answer.certainty, kind="stable")[:count]
            text.write(answer.places[kept], answer.tokens[kept], answer.logprobs[kept])


def queue(text: Blanks, config: GenerateConfig) -> np.ndarray | None:
    """The places of a text in the order in which they are written; none where the network's certainty decides.

    Raises:
        BothwaysError: an order of another number of blanks than the text has.
    """
    if config.order == "random":
        return text.places[torch.randperm(len(text.places), generator=text.generator).numpy()]
    if config.order == "left_to_right":
        return np.array(text.places)
    if isinstance(config.order, tuple):
        if len(config.order) != len(text.places):
            raise BothwaysError(f"order names {len(config.order)} blanks, but text {text.row + 1} has "
                                f"{len(text.places)}: name each once, from 0")
        return text.places[list(config.order)]
    return None


def diffuse_blocks(trained: Trained, texts: Sequence[Blanks], mode: Mode, blocked: Tensor,
                   config: GenerateConfig, reader: Reader | None = None) -> None:
    """Fill every text in place, its earliest unfinished block first; `steps` is for one block.

    What stands behind a block is not read while it is filled. Where a block ends the text, nothing more is asked and
    the places behind it become `<eos>` too.
    """
    eos = trained.vocabulary.eos
    ended: set[int] = set()
    while waiting := [text for text in texts if text.hidden.any()]:
        # 1. each text as far as the end of its block
        blocks = []
        for text in waiting:
            end = _end_of_block(trained, text, mode)
            blocks.append(Blanks(text.ids[:end], np.flatnonzero(text.hidden[:end]), text.generator, text.row))
        diffuse(trained, blocks, mode, blocked, config, reader)
        # 2. what was written there
        for text, block in zip(waiting, blocks, strict=True):
            new = block.places
            text.ids[new], text.logprobs[new], text.hidden[new] = block.ids[new], block.logprobs[new], False
            text.steps += block.steps
            text.evaluations += block.evaluations
            if (block.ids[new] == eos).any():
                rest = np.flatnonzero(text.hidden)
                text.ids[rest], text.hidden[rest] = eos, False
                ended.add(text.row)
        # 3. nothing is kept any more of those that are over; with `block` the caller may go on with a full one
        going = [text for text in texts if text.row not in ended and (config.block or text.hidden.any())]
        if reader is not None and 0 < len(going) < len(texts):
            reader.only(going)


def _end_of_block(trained: Trained, text: Blanks, mode: Mode) -> int:
    """Where the first block with a hidden place ends, read off the objective's own question."""
    question = trained.objective.blank(text.ids, text.hidden, mode)
    blocks = question.fields["block"]
    inside = blocks == blocks[question.asks[0].where].min()
    return int(question.fields["index"][inside].max()) + 1
