"""The two calls that work for every objective: `generate` writes on, `fill` fills blanks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from bothways.decoding.common import FILLING, decoding_for
from bothways.decoding.filling import by_filling, fill_texts
from bothways.decoding.prefixes import Prefixes
from bothways.decoding.sampling import GenerateConfig
from bothways.decoding.writing import Pieces, by_writing
from bothways.decoding.written import Written
from bothways.errors import BothwaysError
from bothways.families.trained import Trained
from bothways.objectives.base import Mode

Listener = Callable[[int, str], None]
"""Called with the number of a prompt and the piece of text that is now certain."""


def generate(trained: Trained, prompts: Sequence[Sequence[int]], config: GenerateConfig | None = None,
             mode: Mode | None = None, listen: Listener | None = None, draft: Trained | None = None,
             prefixes: Prefixes | None = None) -> list[Written]:
    """Write on after each prompt, with the decoding that fits the objective in this mode.

    With `config.samples`, so many texts of each prompt come one after the other.

    Args:
        prompts: token ids, without `<bos>` or with; an empty prompt begins a text.
        mode: one of the objective's; needed when there are several.
        listen: hears text as it becomes certain; a decoding that fills places speaks once, at the end, and so does a
            beam search.
        draft: a smaller model with the same vocabulary, whose proposals make writing from left to right faster without
            changing what is written.
        prefixes: what earlier calls have read, so that a beginning that prompts share is read once.
    Raises:
        BothwaysError: a prompt too long for the network, several modes and none named, an unknown decoding.
    """
    config = config or GenerateConfig()
    work = _writing(trained, prompts, config, mode or trained.mode(), draft, prefixes)
    while True:
        try:
            row, piece = next(work)
        except StopIteration as done:
            return list(done.value)
        if listen is not None and piece:
            listen(row, piece)


def stream(trained: Trained, prompt: Sequence[int], config: GenerateConfig | None = None,
           mode: Mode | None = None, draft: Trained | None = None, prefixes: Prefixes | None = None) -> Iterator[str]:
    """The text that `generate` writes after one prompt, in pieces of whole characters as they become certain.

    Whoever stops listening (`close`, or the last reference gone) gives the cache's memory back.
    """
    config = config or GenerateConfig()
    if config.samples > 1:
        raise BothwaysError("one text is streamed at a time: leave samples at 1")
    for _, piece in _writing(trained, [prompt], config, mode or trained.mode(), draft, prefixes):
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
             mode: Mode, draft: Trained | None = None, prefixes: Prefixes | None = None) -> Pieces:
    """Yields (prompt number, certain text); returns what was written."""
    if not len(prompts):
        return []
    decoding = decoding_for(trained, mode, "generate", config)
    if trained.objective.thought is None and (config.think_tokens is not None or config.hide_thought):
        raise BothwaysError(f"a model trained by '{trained.objective.name}' writes no thoughts: leave "
                            f"{'think_tokens' if config.think_tokens is not None else 'hide_thought'} out")
    if decoding not in FILLING:
        return (yield from by_writing(trained, prompts, config, mode, draft, prefixes))
    if draft is not None:
        raise BothwaysError(f"a draft proposes tokens from left to right, but this model writes by {decoding} in its "
                            f"mode '{mode.name}': leave it out")
    every = [prompt for prompt in prompts for _ in range(config.samples)]
    return (yield from by_filling(trained, every, replace(config, samples=1), mode, decoding))
