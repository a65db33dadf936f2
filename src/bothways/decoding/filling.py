"""Texts with blanks, and texts written by filling blanks behind a prompt."""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from bothways.decoding.blanks import Blanks, Reader, make_blanks
from bothways.decoding.common import begin, blocked_tokens, check_steps, decoding_for, growing_text, room, text_of
from bothways.decoding.diffusion import diffuse, diffuse_blocks
from bothways.decoding.gibbs import gibbs
from bothways.decoding.infill import infill
from bothways.decoding.kept import KeptReader, StaleReader
from bothways.decoding.mask_predict import mask_predict
from bothways.decoding.sampling import GenerateConfig
from bothways.decoding.written import Step, StoppedBy, Written
from bothways.errors import BothwaysError
from bothways.families.trained import Trained
from bothways.objectives.base import Mode


class Filler(Protocol):
    """Fills every place of every text in place."""

    def __call__(self, trained: Trained, texts: Sequence[Blanks], mode: Mode, blocked: Tensor, config: GenerateConfig,
                 reader: Reader | None = None) -> None: ...


FILLERS: dict[str, Filler] = {"mask_predict": mask_predict, "diffusion": diffuse, "gibbs": gibbs,
                              "block_diffusion": diffuse_blocks}


def fill_texts(trained: Trained, texts: Sequence[Sequence[int]], config: GenerateConfig,
               mode: Mode | None) -> list[Written]:
    """What `decoding.fill` promises."""
    begun, vocabulary = time.perf_counter(), trained.vocabulary
    mode = mode or _filling_mode(trained)
    decoding = decoding_for(trained, mode, "fill", config)
    if decoding != "infill":
        texts = [text for text in texts for _ in range(config.samples)]
    # 1. the texts as the network reads them
    if "<mask>" not in vocabulary.ids:
        raise BothwaysError("this model's tokenizer has no <mask>, so there are no blanks to fill")
    for number, text in enumerate(texts):
        if vocabulary.mask not in text:
            raise BothwaysError(f"text {number + 1} has no <mask>: write one wherever something is missing")
    ends = [_closing(text, trained, config, decoding) for text in texts]
    read = [[*before, *map(int, text), *after] for text, (before, after) in zip(texts, ends, strict=True)]
    counts = [text.count(vocabulary.mask) for text in read]
    for number, (text, count) in enumerate(zip(read, counts, strict=True)):
        room(trained, len(text) + count * (config.max_blank_tokens - 1), f"text {number + 1}")
    blocked = blocked_tokens(trained, ())
    # 2. fill them
    if decoding == "infill":
        return [Written(one.ids, one.logprobs, one.stopped, text_of(trained, one.ids), one.steps, one.evaluations,
                        time.perf_counter() - begun, decoding=decoding, cache_bytes=one.cache_bytes)
                for one in infill(trained, read, mode, blocked, config)]
    check_steps(config, decoding, [count * config.max_blank_tokens for count in counts])
    reader = reader_for(trained, decoding, config, len(read), max(map(len, read), default=0))
    if config.max_blank_tokens > 1:
        blanks = [_of_any_length(trained, text, row, mode, decoding, blocked, config) for row, text in enumerate(read)]
    else:
        blanks = make_blanks(read, vocabulary.mask, config)
        FILLERS[decoding](trained, blanks, mode, blocked, config, reader)
    written = []
    for done, (before, after) in zip(blanks, ends, strict=True):
        ids = done.ids[len(before):len(done.ids) - len(after)].tolist()
        written.append(Written(ids, done.logprobs[done.places].tolist(), "filled", text_of(trained, ids),
                               _moved(done.steps, len(before)), done.evaluations, time.perf_counter() - begun,
                               decoding=decoding, cache_bytes=reader.bytes))
    return written


def by_filling(trained: Trained, prompts: Sequence[Sequence[int]], config: GenerateConfig, mode: Mode,
               decoding: str) -> Generator[tuple[int, str], None, list[Written]]:
    """Blanks after the prompt, all at once or block after block; what follows an `<eos>` is dropped.

    Yields (prompt number, text), once for each; returns what was written.
    """
    begun, vocabulary = time.perf_counter(), trained.vocabulary
    starts = [[*begin(trained, prompt, config), *(int(token) for token in prompt)] for prompt in prompts]
    limits = [min(config.max_new_tokens, room(trained, len(start), f"prompt {number + 1}", blanks=1))
              for number, start in enumerate(starts)]
    check_steps(config, decoding, [min(config.block or limit, limit) for limit in limits], "prompt")
    blocked = blocked_tokens(trained, [vocabulary.eos, *config.stop_ids])
    ends = {vocabulary.eos, *config.stop_ids}
    texts = [Blanks(np.array(start), np.array([], dtype=np.int64), torch.Generator().manual_seed(config.seed + i), i)
             for i, start in enumerate(starts)]
    stopped: list[StoppedBy] = ["length" if limit == config.max_new_tokens else "positions" for limit in limits]
    logprobs: list[list[float]] = [[] for _ in prompts]
    steps: list[tuple[Step, ...]] = [() for _ in prompts]
    passes = [0 for _ in prompts]
    reader = reader_for(trained, decoding, config, len(prompts), max(map(len, starts)) + max(limits))
    open_ = list(range(len(prompts)))
    # 1. block after block
    while open_:
        for row in open_:
            done = len(texts[row].ids) - len(starts[row])
            size = min(config.block or limits[row], limits[row] - done)
            longer = np.concatenate((texts[row].ids, np.full(size, vocabulary.mask)))
            texts[row] = Blanks(longer, np.arange(len(texts[row].ids), len(longer)), texts[row].generator, row)
        FILLERS[decoding](trained, [texts[row] for row in open_], mode, blocked, config, reader)
        # 2. an end inside the block closes the text
        for row in list(open_):
            text = texts[row]
            passes[row] += text.evaluations
            steps[row] += _moved(text.steps, len(starts[row]))
            new = text.ids[text.places].tolist()
            cut = next((place for place, token in enumerate(new) if token in ends), len(new))
            logprobs[row] += text.logprobs[text.places[:cut]].tolist()
            if cut < len(new):
                stopped[row] = "end" if new[cut] == vocabulary.eos else "stop"
                text.ids = text.ids[:len(text.ids) - len(new) + cut]
            if cut < len(new) or len(text.ids) - len(starts[row]) >= limits[row]:
                open_.remove(row)
        if open_:
            reader.only([texts[row] for row in open_])
    # 3. as text, cut before a stop string
    written = []
    for row, prompt in enumerate(prompts):
        ids = texts[row].ids[len(starts[row]):].tolist()
        growing = growing_text(trained, prompt, config)
        if growing is not None:
            pieces = [growing.add(token) for token in ids]
            yield row, "".join(pieces) + growing.finish()
            if growing.stopped:
                stopped[row] = "stop"
        written.append(Written(ids, logprobs[row], stopped[row], None if growing is None else growing.text,
                               steps[row], passes[row], time.perf_counter() - begun, decoding=decoding,
                               cache_bytes=reader.bytes))
    return written


def reader_for(trained: Trained, decoding: str, config: GenerateConfig, count: int, longest: int) -> Reader:
    """Who calls the network: with what is exact to keep, or is asked to be kept, or from scratch."""
    if decoding == "block_diffusion" and config.cached:
        return KeptReader(trained, count, longest)
    if config.prefix_cache:
        return StaleReader(trained, count, longest)
    return Reader(trained)


def _of_any_length(trained: Trained, text: Sequence[int], row: int, mode: Mode, decoding: str, blocked: Tensor,
                   config: GenerateConfig) -> Blanks:
    """The filling of one text whose blanks have as many tokens as suits each, up to `max_blank_tokens`.

    Blank after blank, every length is filled together with all other blanks as they are by then, and the length whose
    tokens have the best mean log probability stays. A choice by score, not by a probability of lengths: this network
    has none.
    """
    mark = trained.vocabulary.mask
    lengths = [1] * list(text).count(mark)
    best: Blanks | None = None
    passes = 0
    for blank in range(len(lengths)):
        tries = []
        for length in range(1, config.max_blank_tokens + 1):
            sizes = iter([*lengths[:blank], length, *lengths[blank + 1:]])
            ids = np.array([token for one in text for token in ([mark] * next(sizes) if one == mark else [one])])
            tries.append(Blanks(ids, np.flatnonzero(ids == mark),
                                torch.Generator().manual_seed(config.seed + row), length - 1))
        FILLERS[decoding](trained, tries, mode, blocked, config,
                          reader_for(trained, decoding, config, len(tries), len(tries[-1].ids)))
        passes += sum(one.evaluations for one in tries)
        best = max(tries, key=lambda one: float(one.logprobs[one.places].mean()))
        lengths[blank] = best.row + 1
    assert best is not None
    best.evaluations = passes
    return best


def _moved(steps: Sequence[Step], first: int) -> tuple[Step, ...]:
    """Steps whose places are counted from `first`."""
    return tuple(Step(tuple(place - first for place in step.places), step.tokens) for step in steps)


def _filling_mode(trained: Trained) -> Mode:
    """The first mode whose decoding fills; the only mode when none does, so that the refusal names it."""
    modes = trained.objective.modes
    return next((mode for mode in modes if trained.objective.decoding_of(mode) != "left_to_right"), modes[0])


def _closing(text: Sequence[int], trained: Trained, config: GenerateConfig,
             decoding: str) -> tuple[list[int], list[int]]:
    """What is read before and after a text with blanks; an objective's own `infilling` closes its texts itself."""
    if decoding == "infill" or not config.begin:
        return [], []
    eos = trained.vocabulary.eos
    return begin(trained, text, config), [eos] if int(text[-1]) != eos else []
