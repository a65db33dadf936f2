"""Blanks of unknown length, written by the tower that predicts (T5's sentinels, BART's whole text)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from bothways.decoding.left_to_right import Writer
from bothways.decoding.sampling import GenerateConfig
from bothways.decoding.written import StoppedBy
from bothways.errors import BothwaysError
from bothways.families.trained import Trained
from bothways.objectives.base import Mode


def infill(trained: Trained, texts: Sequence[Sequence[int]], mode: Mode, blocked: torch.Tensor,
           config: GenerateConfig) -> list[tuple[list[int], list[float], StoppedBy, int]]:
    """Fill every `<mask>` of every text with as many tokens as the network writes.

    Args:
        texts: ids, each with at least one `<mask>`.
        blocked: (V,) bool of the tokens that stand in no text; those that only answers hold are let through here.
    Returns:
        for each text the filled ids, the log probability of every token written on the way, what stopped it, and
        the passes made. The answer may be as long as the text and `max_new_tokens` more.
    """
    objective, vocabulary = trained.objective, trained.vocabulary
    examples = [objective.infilling(np.asarray(text, dtype=np.int64), mode) for text in texts]
    # 1. an answer may speak in the sentinels that its own source asks with, and ends with <eos>
    blocked = blocked.repeat(len(texts), 1)
    for row, example in enumerate(examples):
        asked = set() if example.source is None else set(example.source.inputs.tolist())
        blocked[row, [*(asked & set(vocabulary.sentinels)), vocabulary.eos]] = False
    # 2. write until each text has ended
    most = trained.config.position.length
    for number, example in enumerate(examples):
        if example.source is not None and len(example.source) > most:
            raise BothwaysError(f"text {number + 1} is read as {len(example.source)} tokens, but this network has "
                                f"places for {most}: shorten it")
    limits = [min(len(text) + config.max_new_tokens, most - len(example) + 1)
              for text, example in zip(texts, examples, strict=True)]
    written: list[list[int]] = [[] for _ in texts]
    logprobs: list[list[float]] = [[] for _ in texts]
    stopped: list[StoppedBy] = ["length" for _ in texts]
    writer = Writer(trained.network, examples, config, blocked, max(limits))
    evaluations = [0 for _ in texts]
    while writer.open:
        for row, token, logprob in writer.step():
            written[row].append(token)
            logprobs[row].append(logprob)
            evaluations[row] += 1
            if token == vocabulary.eos:
                stopped[row] = "end"
            if token == vocabulary.eos or len(written[row]) >= limits[row]:
                writer.close(row)
    # 3. read the answers
    filled = [objective.read_infilling(np.asarray(text, dtype=np.int64), answer)
              for text, answer in zip(texts, written, strict=True)]
    return list(zip(filled, logprobs, stopped, evaluations, strict=True))
