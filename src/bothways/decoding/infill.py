"""Blanks of unknown length, written by the tower that predicts (T5's sentinels, BART's whole text, GLM's spans)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from bothways.decoding.left_to_right import Writer
from bothways.decoding.sampling import GenerateConfig
from bothways.decoding.written import Step, StoppedBy
from bothways.errors import BothwaysError
from bothways.families.trained import Trained
from bothways.objectives.base import Mode


class Answer(NamedTuple):
    """The filled ids, the log probability of every token written on the way, what stopped it, the passes made, what
    each pass wrote of the filled ids, and the most that was kept of them."""

    ids: list[int]
    logprobs: list[float]
    stopped: StoppedBy
    evaluations: int
    steps: tuple[Step, ...]
    cache_bytes: int


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
    blank, first = trained.vocabulary.mask, trained.config.shape.vocabulary
    done = [Answer(list(map(int, text)), [], "length", 0, (), 0) for text in texts]
    # the same texts, where each written token stands as the number of its pass, beyond all ids: who wrote what
    marked = [answer.ids for answer in done]
    waiting, turn = list(range(len(texts))), 0
    while waiting:
        seeds = [config.seed + row + turn * TURN for row in waiting]
        turns, size = _turn(trained, [done[row].ids for row in waiting], mode, blocked, config, seeds)
        for row, (written, logprobs, stopped) in zip(list(waiting), turns, strict=True):
            before = done[row]
            passes = [token if trained.vocabulary.special[token] else first + before.evaluations + number
                      for number, token in enumerate(written)]
            marked[row] = trained.objective.read_infilling(np.asarray(marked[row], dtype=np.int64), passes)
            ids = trained.objective.read_infilling(np.asarray(before.ids, dtype=np.int64), written)
            done[row] = Answer(ids, before.logprobs + logprobs, stopped, before.evaluations + len(written), (),
                               max(before.cache_bytes, size))
            if not 0 < ids.count(blank) < before.ids.count(blank):
                waiting.remove(row)
        turn += 1
    return [answer._replace(steps=_steps(answer, places, first)) for answer, places in zip(done, marked, strict=True)]


def _steps(answer: Answer, marked: Sequence[int], first: int) -> tuple[Step, ...]:
    """What each pass wrote of the filled text, from where its number stands there."""
    places = {number - first: place for place, number in enumerate(marked) if number >= first}
    return tuple(Step((places[number],), (answer.ids[places[number]],)) if number in places else Step()
                 for number in range(answer.evaluations))


def _turn(trained: Trained, texts: Sequence[Sequence[int]], mode: Mode, blocked: torch.Tensor, config: GenerateConfig,
          seeds: Sequence[int]) -> tuple[list[tuple[list[int], list[float], StoppedBy]], int]:
    """What is written for each text (its tokens, their log probabilities, what stopped it), and what was kept."""
    objective, vocabulary = trained.objective, trained.vocabulary
    examples = [objective.infilling(np.asarray(text, dtype=np.int64), mode) for text in texts]
    # 1. an answer may speak in the sentinels that its own source (or prefix) asks with, and ends as answers do
    blocked = blocked.repeat(len(texts), 1)
    for row, example in enumerate(examples):
        told = example.source.inputs if example.source is not None else (
            example.inputs[example.fields["prefix"] == 1] if "prefix" in example.fields else example.inputs[:0])
        blocked[row, [*(set(told.tolist()) & set(vocabulary.sentinels)), objective.answer_end]] = False
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
    writer = Writer(trained.network, examples, config, blocked, max(limits), seeds=seeds,
                    never=objective.never)
    while writer.open:
        for row, token, logprob in writer.step():
            written[row].append(token)
            logprobs[row].append(logprob)
            if token == objective.answer_end:
                stopped[row] = "end"
            if token == objective.answer_end or len(written[row]) >= limits[row]:
                writer.close(row)
    return list(zip(written, logprobs, stopped, strict=True)), writer.cache_bytes
