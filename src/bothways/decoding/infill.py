"""Blanks of unknown length, written by the tower that predicts (T5's sentinels, BART's whole text, GLM's spans)."""

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

Answer = tuple[list[int], list[float], StoppedBy, int]
"""The filled ids, the log probability of every token written on the way, what stopped it, and the passes made."""
TURN = 1_000_003
"""What a later turn adds to the seed of a text."""


def infill(trained: Trained, texts: Sequence[Sequence[int]], mode: Mode, blocked: torch.Tensor,
           config: GenerateConfig) -> list[Answer]:
    """Fill every `<mask>` of every text with as many tokens as the network writes.

    An objective that writes one blank at a time is asked again until none is left; an answer's tokens and passes are
    then those of all turns together.

    Args:
        texts: ids, each with at least one `<mask>`.
        blocked: (V,) bool of the tokens that stand in no text; those that only answers hold are let through here.
    Returns:
        an Answer for each text, which in each turn may become `max_new_tokens` longer than twice its length.
    """
    blank = trained.vocabulary.mask
    done: list[Answer] = [(list(map(int, text)), [], "length", 0) for text in texts]
    waiting, turn = list(range(len(texts))), 0
    while waiting:
        seeds = [config.seed + row + turn * TURN for row in waiting]
        answers = _turn(trained, [done[row][0] for row in waiting], mode, blocked, config, seeds)
        for row, (ids, logprobs, stopped, passes) in zip(list(waiting), answers, strict=True):
            before, so_far, _, others = done[row]
            done[row] = ids, so_far + logprobs, stopped, others + passes
            if not 0 < ids.count(blank) < before.count(blank):
                waiting.remove(row)
        turn += 1
    return done


def _turn(trained: Trained, texts: Sequence[Sequence[int]], mode: Mode, blocked: torch.Tensor, config: GenerateConfig,
          seeds: Sequence[int]) -> list[Answer]:
    """What the objective fills at once."""
    objective, vocabulary = trained.objective, trained.vocabulary
    examples = [objective.infilling(np.asarray(text, dtype=np.int64), mode) for text in texts]
    # 1. an answer may speak in the sentinels that its own source (or prefix) asks with, and ends with <eos>
    blocked = blocked.repeat(len(texts), 1)
    for row, example in enumerate(examples):
        told = example.source.inputs if example.source is not None else (
            example.inputs[example.fields["prefix"] == 1] if "prefix" in example.fields else example.inputs[:0])
        blocked[row, [*(set(told.tolist()) & set(vocabulary.sentinels)), vocabulary.eos]] = False
    # 2. write until each text has ended
    most = trained.config.position.length
    for number, example in enumerate(examples):
        read = len(example) if example.source is None else len(example.source)
        if read > most:
            raise BothwaysError(f"text {number + 1} is read as {read} tokens, but this network has places for {most}: "
                                "shorten it")
    limits = [min(len(text) + config.max_new_tokens, most - len(example) + 1)
              for text, example in zip(texts, examples, strict=True)]
    written: list[list[int]] = [[] for _ in texts]
    logprobs: list[list[float]] = [[] for _ in texts]
    stopped: list[StoppedBy] = ["length" for _ in texts]
    writer = Writer(trained.network, examples, config, blocked, max(limits), seeds=seeds)
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
