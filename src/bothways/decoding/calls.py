"""The two calls that work for every objective: `generate` writes on, `fill` fills blanks."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Sequence

import numpy as np

from bothways.batch import Example
from bothways.decoding.common import FILLING, blocked_tokens, decoding_for, growing_text, room, text_of
from bothways.decoding.filling import by_filling, fill_texts
from bothways.decoding.left_to_right import Writer
from bothways.decoding.sampling import GenerateConfig
from bothways.decoding.thoughts import SHOWN, Thoughts
from bothways.decoding.written import StoppedBy, Written, one_by_one
from bothways.errors import BothwaysError
from bothways.families.trained import Trained
from bothways.objectives.base import Mode, reading

Listener = Callable[[int, str], None]
"""Called with the number of a prompt and the piece of text that is now certain."""
PLAIN = frozenset({"index", "position", "document"})
"""The facts that every text has."""


def generate(trained: Trained, prompts: Sequence[Sequence[int]], config: GenerateConfig | None = None,
             mode: Mode | None = None, listen: Listener | None = None) -> list[Written]:
    """Write on after each prompt, with the decoding that fits the objective in this mode.

    Args:
        prompts: token ids, without `<bos>` or with; an empty prompt begins a text.
        mode: one of the objective's; needed when there are several.
        listen: hears text as it becomes certain; a decoding that fills places speaks once, at the end.
    Raises:
        BothwaysError: a prompt too long for the network, several modes and none named, an unknown decoding.
    """
    config = config or GenerateConfig()
    work = _writing(trained, prompts, config, mode or trained.mode())
    while True:
        try:
            row, piece = next(work)
        except StopIteration as done:
            return list(done.value)
        if listen is not None and piece:
            listen(row, piece)


def stream(trained: Trained, prompt: Sequence[int], config: GenerateConfig | None = None,
           mode: Mode | None = None) -> Iterator[str]:
    """The text that `generate` writes after one prompt, in pieces of whole characters as they become certain."""
    for _, piece in _writing(trained, [prompt], config or GenerateConfig(), mode or trained.mode()):
        if piece:
            yield piece


def fill(trained: Trained, texts: Sequence[Sequence[int]], config: GenerateConfig | None = None,
         mode: Mode | None = None) -> list[Written]:
    """Fill every `<mask>` in each text: one token each, or a span each where the objective writes spans.

    With `config.samples`, so many fillings of each text come one after the other, where blanks are one token each.

    Without a mode, the first one that fills is taken. With `config.begin`, the text is read between `<bos>` and
    `<eos>`, which the answer leaves out again unless the text had them.

    Raises:
        BothwaysError: a model that only writes on, a text without a blank, a text too long for the network.
    """
    return fill_texts(trained, texts, config or GenerateConfig(), mode)


def _writing(trained: Trained, prompts: Sequence[Sequence[int]], config: GenerateConfig,
             mode: Mode) -> Generator[tuple[int, str], None, list[Written]]:
    """Yields (prompt number, certain text); returns what was written."""
    if not len(prompts):
        return []
    decoding = decoding_for(trained, mode, "generate", config)
    if trained.objective.thought is None and (config.think_tokens is not None or config.hide_thought):
        raise BothwaysError(f"a model trained by '{trained.objective.name}' writes no thoughts: leave "
                            f"{'think_tokens' if config.think_tokens is not None else 'hide_thought'} out")
    if decoding in FILLING:
        return (yield from by_filling(trained, prompts, config, mode, decoding))
    return (yield from _by_writing(trained, prompts, config, mode))


def _by_writing(trained: Trained, prompts: Sequence[Sequence[int]], config: GenerateConfig,
                mode: Mode) -> Generator[tuple[int, str], None, list[Written]]:
    """From left to right: one tower after its prompt, or the second of two towers after reading it."""
    begun, ends = time.perf_counter(), trained.objective.stops
    # 1. what each text begins from, and how far it may go
    examples = [_start(trained, prompt, config, mode) for prompt in prompts]
    limits = []
    for number, start in enumerate(examples):
        if start.source is not None:
            room(trained, len(start.source), f"prompt {number + 1}")
        limits.append(min(config.max_new_tokens, room(trained, len(start), f"prompt {number + 1}")))
    # 2. write
    marks = trained.objective.thought
    thoughts = Thoughts(marks, examples, blocked_tokens(trained, [*ends, *config.stop_ids]), config.think_tokens)
    writer = Writer(trained.network, examples, config, thoughts.blocked, max(limits),
                    seen=[list(prompt) for prompt in prompts] if examples[0].source is not None else None,
                    never=trained.objective.never)
    growing = [growing_text(trained, prompt, config) for prompt in prompts]
    ids: list[list[int]] = [[] for _ in prompts]
    logprobs: list[list[float]] = [[] for _ in prompts]
    thought: list[list[int]] = [[] for _ in prompts]
    stopped: list[StoppedBy] = ["length" if limit == config.max_new_tokens else "positions" for limit in limits]
    evaluations = [0 for _ in prompts]
    while writer.open:
        for row, token, logprob in writer.step():
            evaluations[row] += 1
            text = growing[row]
            if token in ends or token in config.stop_ids:
                stopped[row] = "end" if token in ends else "stop"
                writer.close(row)
                continue
            ids[row].append(token)
            logprobs[row].append(logprob)
            thinks = thoughts.wrote(row, token)
            thought[row] += [token] * thinks
            if text is not None and not (thinks and config.hide_thought):
                yield row, text.say(SHOWN[marks.index(token)]) if marks and token in marks else text.add(token)
            if text is not None and text.stopped:
                stopped[row] = "stop"
                writer.close(row)
            elif len(ids[row]) >= limits[row]:
                writer.close(row)
    # 3. what is left of the texts
    for row, text in enumerate(growing):
        if text is not None:
            yield row, text.finish()
    seconds = time.perf_counter() - begun
    return [Written(ids[row], logprobs[row], stopped[row], None if text is None else text.text,
                    one_by_one(ids[row], ended=evaluations[row] > len(ids[row])), evaluations[row], seconds,
                    text_of(trained, thought[row]) if thought[row] else None, cache_bytes=writer.cache_bytes)
            for row, text in enumerate(growing)]


def _start(trained: Trained, prompt: Sequence[int], config: GenerateConfig, mode: Mode) -> Example:
    """What writing begins from.

    One tower without `begin` reads the prompt exactly as it stands (where it matters, as a prefix), unless the
    objective writes behind a text of its own format.
    """
    ids = np.asarray(prompt, dtype=np.int64)
    if trained.objective.stack == "one tower" and not config.begin:
        if not len(ids):
            raise BothwaysError("an empty prompt needs a <bos> to begin from: leave `begin` on, or give one token")
        if mode.visibility.needs <= PLAIN or trained.objective.decoding_of(mode) == "left_to_right":
            return reading(ids, mode.visibility)
    return trained.objective.continuation(ids, mode)
