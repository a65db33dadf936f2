"""Texts from left to right, from prompts to what is handed back: which writer, when each text ends, and its words."""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from bothways.batch import Example
from bothways.decoding.beam import BeamSearch
from bothways.decoding.common import blocked_tokens, growing_text, room, text_of
from bothways.decoding.contrastive import ContrastiveWriter
from bothways.decoding.forced import Forced
from bothways.decoding.left_to_right import Writer
from bothways.decoding.prefixes import Prefixes
from bothways.decoding.rules import Rule
from bothways.decoding.sampling import GenerateConfig
from bothways.decoding.speculative import Drafter, Lookup, Model, SpeculativeWriter
from bothways.decoding.structured import Grammar, wants_form
from bothways.decoding.thoughts import SHOWN, Thoughts
from bothways.decoding.written import Step, StoppedBy, Written, one_by_one
from bothways.errors import BothwaysError
from bothways.families.trained import Trained
from bothways.objectives.base import Mode, reading

PLAIN = frozenset({"index", "position", "document"})
"""The facts that every text has."""
Pieces = Generator[tuple[int, str], None, list[Written]]
"""(number of a text, certain words) as they come; returns all that was written."""


@dataclass(frozen=True)
class Begun:
    """Texts about to be written: `samples` of each prompt, one after the other.

    examples: what each begins from; the samples of a prompt share the same object.
    limits: the most tokens of each.
    seen: what a repetition penalty counts of each where another tower read the prompt; else none.
    """

    prompts: list[list[int]]
    examples: list[Example]
    limits: list[int]
    seen: list[list[int]] | None


def by_writing(trained: Trained, prompts: Sequence[Sequence[int]], config: GenerateConfig, mode: Mode,
               draft: Trained | None = None, prefixes: Prefixes | None = None) -> Pieces:
    """One tower after its prompt, or the second of two towers after reading it.

    Args:
        draft: a smaller model with the same vocabulary, which proposes tokens.
        prefixes: what earlier calls have read.
    Raises:
        BothwaysError: a prompt too long, options that do not fit each other, a draft of another vocabulary.
    """
    begun = begin(trained, prompts, config, mode)
    if config.beams > 1:
        if draft is not None:
            raise BothwaysError("a draft proposes what is drawn token by token: leave beams at 1, or the draft out")
        return (yield from _by_searching(trained, begun, config, prefixes))
    return (yield from _token_by_token(trained, begun, config, draft, prefixes))


def begin(trained: Trained, prompts: Sequence[Sequence[int]], config: GenerateConfig, mode: Mode) -> Begun:
    """What each text begins from, and how far it may go.

    Raises:
        BothwaysError: a prompt that is too long, unless `config.truncate` says where to cut it.
    """
    made = Begun([], [], [], None)
    for number, prompt in enumerate(prompts):
        ids = [int(token) for token in prompt]
        start = _start(trained, ids, config, mode)
        most = trained.config.position.length
        source = 0 if start.source is None else len(start.source)
        if max(len(start), source) > most and config.truncate is not None:
            # room is left for what is written, but never more than half of the places
            spare = min(config.max_new_tokens - 1, most // 2)
            kept = len(ids) - max(len(start) + spare - most, source - most)
            if kept < 1:
                raise BothwaysError(f"prompt {number + 1} cannot be cut to {most} places: what stands around it is as "
                                    "long as that")
            ids = ids[-kept:] if config.truncate == "left" else ids[:kept]
            start = _start(trained, ids, config, mode)
        for part in (start.source, start):
            if part is not None and len(part) > most:
                raise BothwaysError(f"prompt {number + 1} has {len(part)} tokens, but this network has places for "
                                    f"{most}: shorten it, or let it be cut (truncate is 'left' or 'right')")
        limit = min(config.max_new_tokens, room(trained, len(start), f"prompt {number + 1}"))
        made.prompts.extend([ids] * config.samples)
        made.examples.extend([start] * config.samples)
        made.limits.extend([limit] * config.samples)
    two = made.examples[0].source is not None
    return replace(made, seen=[list(prompt) for prompt in made.prompts] if two else None)


def _token_by_token(trained: Trained, begun: Begun, config: GenerateConfig, draft: Trained | None,
                    prefixes: Prefixes | None) -> Pieces:
    started, ends, count = time.perf_counter(), trained.objective.stops, len(begun.prompts)
    # 1. who writes, and who has a say
    marks = trained.objective.thought
    blocked = blocked_tokens(trained, [*ends, *config.stop_ids, *(marks or ())])
    thoughts = Thoughts(marks, begun.examples, blocked, config.think_tokens)
    rules: list[Rule] = [thoughts] if marks is not None else []
    if wants_form(config):
        rules.append(Grammar(trained, config, count, ends))
    writer = _writer(trained, begun, config, rules, draft, prefixes)
    # 2. write
    growing = [growing_text(trained, prompt, config) for prompt in begun.prompts]
    ids: list[list[int]] = [[] for _ in range(count)]
    logprobs: list[list[float]] = [[] for _ in range(count)]
    thought: list[list[int]] = [[] for _ in range(count)]
    steps: list[list[Step]] = [[] for _ in range(count)]
    stopped: list[StoppedBy] = ["length" if limit == config.max_new_tokens else "positions" for limit in begun.limits]
    size = 0
    while writer.open:
        first = {row: len(ids[row]) for row in writer.open}
        still = set(writer.open)
        for row, token, logprob in writer.step():
            if row not in still:
                continue  # drafted behind the end
            text = growing[row]
            if token in ends or token in config.stop_ids:
                stopped[row] = "end" if token in ends else "stop"
                still.remove(row)
                continue
            ids[row].append(token)
            logprobs[row].append(logprob)
            thinks = thoughts.belongs(row, token)
            thought[row] += [token] * thinks
            if text is not None and not (thinks and config.hide_thought):
                yield row, text.say(SHOWN[marks.index(token)]) if marks and token in marks else text.add(token)
            if text is not None and text.stopped:
                stopped[row] = "stop"
                still.remove(row)
            elif len(ids[row]) >= begun.limits[row]:
                still.remove(row)
        size = max(size, writer.cache_bytes)
        for row, begins in first.items():
            steps[row].append(Step(tuple(range(begins, len(ids[row]))), tuple(ids[row][begins:])))
            if row not in still:
                writer.close(row)
    # 3. what is left of the texts
    for row, text in enumerate(growing):
        if text is not None:
            yield row, text.finish()
    seconds = time.perf_counter() - started
    return [Written(ids[row], logprobs[row], stopped[row], None if text is None else text.text, tuple(steps[row]),
                    len(steps[row]), seconds, text_of(trained, thought[row]) if thought[row] else None,
                    cache_bytes=size) for row, text in enumerate(growing)]


def _writer(trained: Trained, begun: Begun, config: GenerateConfig, rules: Sequence[Rule], draft: Trained | None,
            prefixes: Prefixes | None) -> Writer:
    """Who writes token by token."""
    marks = trained.objective.thought
    blocked = blocked_tokens(trained, [*trained.objective.stops, *config.stop_ids, *(marks or ())])
    seen, never = begun.seen, trained.objective.never
    if config.contrast:
        if draft is not None:
            raise BothwaysError("a draft proposes what is drawn by its probability: leave contrast or the draft out")
        return ContrastiveWriter(trained.network, begun.examples, config, blocked, max(begun.limits), seen, never=never,
                                 rules=rules)
    if draft is None and config.lookup is None:
        return Writer(trained.network, begun.examples, config, blocked, max(begun.limits), seen, never=never,
                      rules=rules, prefixes=prefixes)
    for model, what in ((trained, "this model"), (draft, "the draft")):
        if model is not None and model.config.mixer.kind != "attention":
            raise BothwaysError(f"{what} has recurrent layers, which keep a state instead of their tokens, so drafts "
                                "that do not stand cannot be taken back: leave the draft or lookup out")
    drafter = _drafter(trained, begun, config, draft)
    return SpeculativeWriter(trained.network, begun.examples, config, blocked, begun.limits, drafter, seen=seen,
                             never=never, rules=rules, prefixes=prefixes)


def _drafter(trained: Trained, begun: Begun, config: GenerateConfig, draft: Trained | None) -> Drafter:
    """Who proposes tokens: a draft model, or what stood before."""
    if draft is None:
        assert config.lookup is not None
        return Lookup(begun.prompts, config.lookup)
    if config.lookup is not None:
        raise BothwaysError("give a draft model or look-up, not both: each proposes the next tokens")
    one, other = ((model.tokenizer.fingerprint, model.vocabulary.size) for model in (trained, draft))
    if one != other:
        raise BothwaysError(f"the draft model has another vocabulary ({other[1]} tokens, this model {one[1]}), so its "
                            "tokens mean something else here: give a draft that was trained with the same tokenizer")
    modes = [mode for mode in draft.objective.modes if draft.objective.decoding_of(mode) in ("left_to_right", "infill")]
    if not modes:
        raise BothwaysError(f"a draft writes from left to right, but one trained by '{draft.objective.name}' writes by "
                            f"{draft.objective.decoding}")
    most = draft.config.position.length
    known: dict[int, Example] = {}
    for example, prompt in zip(begun.examples, begun.prompts, strict=True):
        if id(example) not in known:
            known[id(example)] = _start(draft, prompt, config, modes[0])
            longest = max(len(known[id(example)]), len(known[id(example)].source or ()))
            if longest > most:
                raise BothwaysError(f"the draft model has places for {most} tokens, but a prompt has {longest}: give "
                                    "one with more, or shorten the prompt")
    size = draft.config.shape.vocabulary
    blocked = blocked_tokens(draft, [*draft.objective.stops, *config.stop_ids])
    if size != trained.config.shape.vocabulary:
        raise BothwaysError(f"the draft model scores {size} ids and this model {trained.config.shape.vocabulary}: give "
                            "one with as many")
    return Model(draft.network, [known[id(example)] for example in begun.examples], config, blocked, most,
                 max(begun.limits))


def _by_searching(trained: Trained, begun: Begun, config: GenerateConfig, prefixes: Prefixes | None) -> Pieces:
    """Beam search; each prompt's words come when all searches are over."""
    started, ends = time.perf_counter(), {*trained.objective.stops, *config.stop_ids}
    some = slice(0, None, config.samples)
    examples, limits, prompts = begun.examples[some], begun.limits[some], begun.prompts[some]
    count = len(examples) * config.beams
    # 1. who has a say
    marks = trained.objective.thought
    blocked = blocked_tokens(trained, [*ends, *(marks or ())])
    repeated = [example for example in examples for _ in range(config.beams)]
    rules: list[Rule] = [] if marks is None else [Thoughts(marks, repeated, blocked, config.think_tokens)]
    if wants_form(config):
        rules.append(Grammar(trained, config, count, trained.objective.stops))
    forced = Forced(_phrases(trained, config), count) if config.force else None
    # 2. search
    search = BeamSearch(trained.network, examples, config, blocked, ends, limits,
                        None if begun.seen is None else begun.seen[some], trained.objective.never, rules, forced,
                        prefixes)
    found = search.run()
    seconds = time.perf_counter() - started
    # 3. the best of each prompt as text
    written = []
    for number, (prompt, texts) in enumerate(zip(prompts, found, strict=True)):
        if not texts:
            raise BothwaysError(f"no text of {limits[number]} tokens after prompt {number + 1} holds all that was "
                                "asked for: raise max_new_tokens or beams, or ask for less")
        for rank in range(config.samples):
            best = texts[min(rank, len(texts) - 1)]
            growing = growing_text(trained, prompt, config)
            if growing is not None:
                yield number * config.samples + rank, "".join(map(growing.add, best.ids)) + growing.finish()
            stopped: StoppedBy = "length" if limits[number] == config.max_new_tokens else "positions"
            if best.ended is not None:
                stopped = "end" if best.ended in trained.objective.stops else "stop"
            if growing is not None and growing.stopped:
                stopped = "stop"
            written.append(Written(best.ids, best.logprobs, stopped, None if growing is None else growing.text,
                                   one_by_one(best.ids, best.ended is not None), search.passes[number], seconds,
                                   decoding="beam", cache_bytes=search.cache_bytes, score=best.score))
    return written


def _phrases(trained: Trained, config: GenerateConfig) -> list[list[tuple[int, ...]]]:
    """The forced strings as tokens: each as it stands, and as a word of its own behind a space."""
    if not trained.readable:
        raise BothwaysError("strings that must stand in the text need a tokenizer, and this folder has none")
    made = []
    for entry in config.force:
        options = (entry,) if isinstance(entry, str) else entry
        phrases = {tuple(trained.tokenizer.encode(form)) for text in options
                   for form in ((text,) if text.startswith(" ") else (text, " " + text))}
        if not phrases or () in phrases:
            raise BothwaysError("a string that must stand in the text is empty: leave it out")
        made.append(sorted(phrases))
    return made


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
