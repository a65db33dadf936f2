"""The two calls that work for every objective: `generate` writes on, `fill` fills blanks."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from bothways.batch import Example
from bothways.decoding.blanks import Blanks, make_blanks
from bothways.decoding.diffusion import diffuse, diffuse_blocks
from bothways.decoding.infill import infill
from bothways.decoding.left_to_right import Writer
from bothways.decoding.mask_predict import mask_predict
from bothways.decoding.sampling import GenerateConfig
from bothways.decoding.thoughts import SHOWN, Thoughts
from bothways.decoding.written import GrowingText, StoppedBy, Written
from bothways.errors import BothwaysError, nearest
from bothways.families.trained import Trained
from bothways.objectives.base import Mode, reading

Listener = Callable[[int, str], None]
"""Called with the number of a prompt and the piece of text that is now certain."""
FILLERS = {"mask_predict": mask_predict, "diffusion": diffuse, "block_diffusion": diffuse_blocks}
"""The decodings that fill places; `left_to_right` and `infill` write from left to right."""
PLAIN = frozenset({"index", "position", "document"})
"""The facts that every text has."""
CONTEXT = 8
"""Prompt tokens that new text is decoded after, so that spaces and half characters join up."""


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

    Without a mode, the first one that fills is taken. With `config.begin`, the text is read between `<bos>` and
    `<eos>`, which the answer leaves out again unless the text had them.

    Raises:
        BothwaysError: a model that only writes on, a text without a blank, a text too long for the network.
    """
    config = config or GenerateConfig()
    mode = mode or _filling_mode(trained)
    decoding = _decoding(trained, mode, "fill")
    begun = time.perf_counter()
    vocabulary = trained.vocabulary
    # 1. the texts as the network reads them
    if "<mask>" not in vocabulary.ids:
        raise BothwaysError("this model's tokenizer has no <mask>, so there are no blanks to fill")
    for number, text in enumerate(texts):
        if vocabulary.mask not in text:
            raise BothwaysError(f"text {number + 1} has no <mask>: write one wherever something is missing")
    ends = [_closing(text, trained, config, decoding) for text in texts]
    read = [[*before, *map(int, text), *after] for text, (before, after) in zip(texts, ends, strict=True)]
    for number, text in enumerate(read):
        _room(trained, len(text), f"text {number + 1}")
    blocked = blocked_tokens(trained, ())
    # 2. fill them
    if decoding == "infill":
        answers = infill(trained, read, mode, blocked, config)
        return [Written(ids, logprobs, stopped, _text(trained, ids), passes, passes, time.perf_counter() - begun)
                for ids, logprobs, stopped, passes in answers]
    blanks = make_blanks(read, vocabulary.mask, config)
    FILLERS[decoding](trained, blanks, mode, blocked, config)
    written = []
    for done, (before, after) in zip(blanks, ends, strict=True):
        ids = done.ids[len(before):len(done.ids) - len(after)].tolist()
        written.append(Written(ids, done.logprobs[done.places].tolist(), "filled", _text(trained, ids),
                               done.evaluations, done.evaluations, time.perf_counter() - begun))
    return written


def blocked_tokens(trained: Trained, allowed: Sequence[int]) -> Tensor:
    """(V,) bool on the network's device: reserved tokens and ids without a token are never written, but `allowed`."""
    vocabulary, size = trained.vocabulary, trained.config.shape.vocabulary
    blocked = torch.ones(size, dtype=torch.bool)
    blocked[:vocabulary.size] = torch.from_numpy(np.array(vocabulary.special, dtype=bool))[:size]
    blocked[list(allowed)] = False
    return blocked.to(trained.device)


def _writing(trained: Trained, prompts: Sequence[Sequence[int]], config: GenerateConfig,
             mode: Mode) -> Generator[tuple[int, str], None, list[Written]]:
    """Yields (prompt number, certain text); returns what was written."""
    if not len(prompts):
        return []
    decoding = _decoding(trained, mode, "generate")
    if trained.objective.thought is None and (config.think_tokens is not None or config.hide_thought):
        raise BothwaysError(f"a model trained by '{trained.objective.name}' writes no thoughts: leave "
                            f"{'think_tokens' if config.think_tokens is not None else 'hide_thought'} out")
    if decoding in FILLERS:
        return (yield from _by_filling(trained, prompts, config, mode, decoding))
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
            _room(trained, len(start.source), f"prompt {number + 1}")
        limits.append(min(config.max_new_tokens, _room(trained, len(start), f"prompt {number + 1}")))
    # 2. write
    marks = trained.objective.thought
    thoughts = Thoughts(marks, examples, blocked_tokens(trained, [*ends, *config.stop_ids]), config.think_tokens)
    writer = Writer(trained.network, examples, config, thoughts.blocked, max(limits),
                    seen=[list(prompt) for prompt in prompts] if examples[0].source is not None else None)
    growing = [_growing(trained, prompt, config) for prompt in prompts]
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
    return [Written(ids[row], logprobs[row], stopped[row], None if text is None else text.text, evaluations[row],
                    evaluations[row], seconds, _text(trained, thought[row]) if thought[row] else None)
            for row, text in enumerate(growing)]


def _by_filling(trained: Trained, prompts: Sequence[Sequence[int]], config: GenerateConfig, mode: Mode,
                decoding: str) -> Generator[tuple[int, str], None, list[Written]]:
    """Blanks after the prompt, all at once or block after block; what follows an `<eos>` is dropped."""
    begun, vocabulary = time.perf_counter(), trained.vocabulary
    starts = [[*_begin(trained, prompt, config), *(int(token) for token in prompt)] for prompt in prompts]
    limits = [min(config.max_new_tokens, _room(trained, len(start), f"prompt {number + 1}", blanks=1))
              for number, start in enumerate(starts)]
    blocked = blocked_tokens(trained, [vocabulary.eos, *config.stop_ids])
    ends = {vocabulary.eos, *config.stop_ids}
    texts = [Blanks(np.array(start), np.array([], dtype=np.int64), torch.Generator().manual_seed(config.seed + i))
             for i, start in enumerate(starts)]
    stopped: list[StoppedBy] = ["length" if limit == config.max_new_tokens else "positions" for limit in limits]
    logprobs: list[list[float]] = [[] for _ in prompts]
    passes = [0 for _ in prompts]
    open_ = list(range(len(prompts)))
    # 1. block after block
    while open_:
        for row in open_:
            done = len(texts[row].ids) - len(starts[row])
            size = min(config.block or limits[row], limits[row] - done)
            longer = np.concatenate((texts[row].ids, np.full(size, vocabulary.mask)))
            texts[row] = Blanks(longer, np.arange(len(texts[row].ids), len(longer)), texts[row].generator)
        FILLERS[decoding](trained, [texts[row] for row in open_], mode, blocked, config)
        # 2. an end inside the block closes the text
        for row in list(open_):
            text = texts[row]
            passes[row] += text.evaluations
            new = text.ids[text.places].tolist()
            cut = next((place for place, token in enumerate(new) if token in ends), len(new))
            logprobs[row] += text.logprobs[text.places[:cut]].tolist()
            if cut < len(new):
                stopped[row] = "end" if new[cut] == vocabulary.eos else "stop"
                text.ids = text.ids[:len(text.ids) - len(new) + cut]
            if cut < len(new) or len(text.ids) - len(starts[row]) >= limits[row]:
                open_.remove(row)
    # 3. as text, cut before a stop string
    written = []
    for row, prompt in enumerate(prompts):
        ids = texts[row].ids[len(starts[row]):].tolist()
        growing = _growing(trained, prompt, config)
        if growing is not None:
            pieces = [growing.add(token) for token in ids]
            yield row, "".join(pieces) + growing.finish()
            if growing.stopped:
                stopped[row] = "stop"
        written.append(Written(ids, logprobs[row], stopped[row], None if growing is None else growing.text,
                               passes[row], passes[row], time.perf_counter() - begun))
    return written


def _decoding(trained: Trained, mode: Mode, purpose: str) -> str:
    """The name of the decoding that fits, checked."""
    name = trained.objective.decoding_of(mode)
    known = (*FILLERS, "infill") if purpose == "fill" else (*FILLERS, "left_to_right", "infill")
    if name == "left_to_right" and purpose == "fill":
        ways = [other.name for other in trained.objective.modes
                if trained.objective.decoding_of(other) != "left_to_right"]
        raise BothwaysError(f"this model looks only left in its mode '{mode.name}', so it cannot fill blanks: "
                            + (f"fill in the mode '{ways[0]}'" if ways else "it can continue a prompt (generate)"))
    if name not in known:
        raise BothwaysError(f"the objective '{trained.objective.name}' asks for the decoding '{name}' "
                            f"{nearest(name, known)}")
    return name


def _filling_mode(trained: Trained) -> Mode:
    """The first mode whose decoding fills; the only mode when none does, so that the refusal names it."""
    modes = trained.objective.modes
    return next((mode for mode in modes if trained.objective.decoding_of(mode) != "left_to_right"), modes[0])


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


def _begin(trained: Trained, prompt: Sequence[int], config: GenerateConfig) -> list[int]:
    """`<bos>`, where it is wanted and not there."""
    bos = trained.vocabulary.bos
    return [bos] if config.begin and (not len(prompt) or int(prompt[0]) != bos) else []


def _closing(text: Sequence[int], trained: Trained, config: GenerateConfig,
             decoding: str) -> tuple[list[int], list[int]]:
    """What is read before and after a text with blanks; an objective's own `infilling` closes its texts itself."""
    if decoding == "infill" or not config.begin:
        return [], []
    eos = trained.vocabulary.eos
    return _begin(trained, text, config), [eos] if int(text[-1]) != eos else []


def _room(trained: Trained, length: int, what: str, blanks: int = 0) -> int:
    """How many tokens may be written after `length` read ones.

    From left to right the last one written is never read again and needs no place; at least `blanks` need one.
    """
    most = trained.config.position.length
    if length + blanks > most:
        rest = ", and what is written needs one too" if blanks else ""
        raise BothwaysError(f"{what} has {length} tokens, but this network has places for {most}{rest}: shorten it")
    return most - length + (0 if blanks else 1)


def _growing(trained: Trained, prompt: Sequence[int], config: GenerateConfig) -> GrowingText | None:
    """The text of what comes after the prompt; none without a tokenizer."""
    if not trained.readable:
        if config.stop:
            raise BothwaysError("stop strings need a tokenizer, and this folder has none: use stop_ids")
        return None
    context = [] if trained.objective.replies else [int(token) for token in prompt[-CONTEXT:]]
    return GrowingText(trained.tokenizer, config.stop, context)


def _text(trained: Trained, ids: list[int]) -> str | None:
    return trained.tokenizer.decode(ids) if trained.readable else None
