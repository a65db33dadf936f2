"""Beam search: keep the likeliest beginnings of each text, and give the likeliest texts that were found.

Every prompt has `beams` beginnings, which are rows of one batch; the prompt is read once, its source is looked at by
all of them together, and cache rows move only where a beginning changes its place. Scores are log probabilities under
the network plus what rules change; texts are compared by score / length ** penalty (arXiv 1609.08144, section 7, in its
simple form). Groups of beams avoid what earlier groups just took (arXiv 1610.02424, equation 4).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from bothways.batch import Example
from bothways.decoding.forced import Forced
from bothways.decoding.prefixes import Prefixes
from bothways.decoding.reading import Reader
from bothways.decoding.rules import Rule, rules_of
from bothways.decoding.sampling import BLOCKED, GenerateConfig
from bothways.model import LanguageModel

NEVER = -1e9
"""The score of a beginning that does not exist."""


@dataclass(frozen=True)
class Found:
    """A text that a search found: its tokens without the one that ended it, and with it their log probabilities."""

    ids: list[int]
    logprobs: list[float]
    score: float
    ended: int | None = None
    """The token that ended it; none if there was no more room."""


@dataclass
class _Group:
    """Some beams of one prompt, and the best texts they have found."""

    places: range
    limit: int
    found: list[Found] = field(default_factory=list)
    done: bool = False


class _Beam(NamedTuple):
    """One beginning: its last token with the log probability under the network, and the beam before it."""

    score: float
    length: int = 0
    token: int = 0
    logprob: float = 0.0
    before: _Beam | None = None

    def tokens(self) -> tuple[list[int], list[float]]:
        """All its tokens and their log probabilities."""
        ids, logprobs, beam = list[int](), list[float](), self
        while beam.before is not None:
            ids.append(beam.token)
            logprobs.append(beam.logprob)
            beam = beam.before
        return ids[::-1], logprobs[::-1]


class BeamSearch:
    """Searches for the texts after several prompts at once.

    Args:
        network: in evaluation mode.
        examples: what each text begins from.
        config: beams, groups, diversity, length_penalty, early_stopping and the penalties.
        blocked: (V,) bool, tokens that are never written.
        ends: tokens that end a text.
        limits: the most tokens of each text.
        seen: as for `Writer`.
        never: ids that have no probability.
        rules: further ones; they know beams by their number, prompt by prompt.
        forced: what must stand in a text before it ends.
    """

    def __init__(self, network: LanguageModel, examples: Sequence[Example], config: GenerateConfig, blocked: Tensor,
                 ends: Collection[int], limits: Sequence[int], seen: Sequence[Sequence[int]] | None = None,
                 never: Sequence[int] = (), rules: Sequence[Rule] = (), forced: Forced | None = None,
                 prefixes: Prefixes | None = None) -> None:
        self.network, self.config, self.blocked, self.ends, self.limits = network, config, blocked, ends, limits
        self.device, self.forced = blocked.device, forced
        self.width, self.evaluations = config.beams, 0
        self._never = torch.tensor(never, dtype=torch.long, device=self.device)
        self._examples = [example for example in examples for _ in range(self.width)]
        read = [example.inputs.tolist() for example in self._examples]
        begun = read if seen is None else [tokens for tokens in seen for _ in range(self.width)]
        self.rules = [*rules_of(config, read, begun, blocked.shape[-1], self.device), *rules]
        self.reader = Reader(network, config.cached, config.cache_numbers, 0, prefixes)
        # every group begins with one beam: the others would only repeat it
        size = self.width // config.beam_groups
        self._beams = [_Beam(0.0 if place % size == 0 else NEVER) for place in range(len(self._examples))]
        self._groups = [[_Group(range(first + group * size, first + (group + 1) * size), limit)
                         for group in range(config.beam_groups)]
                        for first, limit in zip(range(0, len(self._examples), self.width), limits, strict=True)]
        self.passes = [0 for _ in examples]

    @property
    def cache_bytes(self) -> int:
        """What the cache takes; 0 without one."""
        return 0 if self.reader.cache is None else self.reader.cache.bytes

    @torch.inference_mode()
    def run(self) -> list[list[Found]]:
        """The texts found for each prompt, the best first, `beams` of them at most."""
        states, ends = self.reader.join(self._examples, max(self.limits))
        states = states[torch.tensor(ends, device=self.device)]
        open_ = list(range(len(self._groups)))
        while True:
            self.evaluations += 1
            # 1. scores of every continuation of every open beam: (open beams, V)
            rows = [place for prompt in open_ for group in self._groups[prompt] for place in group.places]
            logprobs = self._logits(states).log_softmax(-1)
            scores = logprobs.masked_fill(self.blocked, BLOCKED)
            for rule in self.rules:
                scores = rule.apply(scores, rows)
            scores += torch.tensor([self._beams[place].score for place in rows], device=self.device)[:, None]
            # 2. each prompt chooses how its beams go on
            origins = dict(zip(rows, range(len(rows)), strict=True))
            moved: dict[int, int] = {}
            for prompt in open_:
                self.passes[prompt] += 1
                moved |= self._choose(prompt, logprobs, scores, origins)
            # 3. rows follow their beams; prompts that are done leave
            open_ = [prompt for prompt in open_ if not all(group.done for group in self._groups[prompt])]
            if not open_:
                return [self._best(groups) for groups in self._groups]
            order = [moved.get(place, place) for prompt in open_ for group in self._groups[prompt]
                     for place in group.places]
            everybody = [moved.get(place, place) for place in range(len(self._beams))]
            for rule in self.rules:
                rule.keep(everybody)
            if self.forced is not None:
                self.forced.keep(everybody)
            new = [place for prompt in open_ for group in self._groups[prompt] for place in group.places]
            listeners: list[Rule | Forced] = [*self.rules, *([] if self.forced is None else [self.forced])]
            for place in new:
                for listener in listeners if self._beams[place].score > NEVER / 2 else ():
                    listener.wrote(place, self._beams[place].token)
            self.reader.keep([origins[place] for place in order])
            states = self.reader.read([[self._beams[place].token] for place in new])

    def _choose(self, prompt: int, logprobs: Tensor, scores: Tensor, origins: dict[int, int]) -> dict[int, int]:
        """How the beams of a prompt go on: where each comes from. Finished texts are put aside."""
        taken = torch.zeros(scores.shape[-1], device=self.device)
        moved: dict[int, int] = {}
        for group in self._groups[prompt]:
            if group.done:
                continue  # its rows stay in the batch until the prompt is done, but nothing comes of them
            first, size = origins[group.places[0]], len(group.places)
            own = scores[first:first + size] - self.config.diversity * taken
            if self.forced is not None:
                own = self.forced.hold_back(own, list(group.places), self.ends)
            candidates = self._candidates(own, group, size)
            # 1. a candidate that ends is put aside if it is among the best, and never goes on
            going: list[tuple[int, _Beam]] = []
            length = self._beams[group.places[0]].length + 1
            for rank, (beam, token) in enumerate(candidates):
                origin = group.places[beam]
                made = _Beam(float(scores[first + beam, token]), length, token, float(logprobs[first + beam, token]),
                             self._beams[origin])
                if token in self.ends or length >= group.limit:
                    if rank < size and made.score > NEVER / 2:
                        self._put_aside(group, made, origin, size)
                elif len(going) < size:
                    going.append((origin, made))
            # 2. the others go on; where they are too few, rows stay as they are and nothing comes of them
            spare = [(place, _Beam(NEVER, length, 0, 0.0, self._beams[place])) for place in group.places[len(going):]]
            for place, (origin, made) in zip(group.places, [*going, *spare], strict=True):
                self._beams[place] = made
                moved[place] = origin
            for _, made in going:
                taken[made.token] += 1
            best = max((made.score for _, made in going), default=NEVER)
            group.done = length >= group.limit or best <= NEVER / 2 or self._hopeless(group, best, length, size)
        return moved

    def _candidates(self, scores: Tensor, group: _Group, size: int) -> list[tuple[int, int]]:
        """The best continuations (beam, token), enough that `size` of them do not end."""
        if self.forced is not None:
            return self.forced.candidates(scores, list(group.places), size, self.ends)
        count = min(max(2, 1 + len(self.ends)) * size, scores.numel())
        values, places = scores.flatten().topk(count)
        return [(place // scores.shape[-1], place % scores.shape[-1])
                for place, value in zip(places.tolist(), values.tolist(), strict=True) if value > BLOCKED]

    def _put_aside(self, group: _Group, beam: _Beam, origin: int, size: int) -> None:
        """A finished text, if it is among the `size` best of its group and holds what it must."""
        if self.forced is not None and not self.forced.all_met(origin, beam.token):
            return
        ids, logprobs = beam.tokens()
        ended = beam.token if beam.token in self.ends else None
        if ended is not None:
            ids, logprobs = ids[:-1], logprobs[:-1]
        made = Found(ids, logprobs, beam.score / beam.length ** self.config.length_penalty, ended)
        group.found = sorted([*group.found, made], key=lambda one: -one.score)[:size]

    def _hopeless(self, group: _Group, best: float, length: int, size: int) -> bool:
        """Whether the search of a group is over: it has its texts, and none of its beams is likely to beat them."""
        if len(group.found) < size:
            return False
        if self.config.early_stopping == "yes":
            return True
        longest = group.limit if self.config.early_stopping == "never" and self.config.length_penalty > 0 else length
        return best / longest ** self.config.length_penalty <= group.found[-1].score

    def _best(self, groups: Sequence[_Group]) -> list[Found]:
        """All groups' texts; with several groups each has its best one first, as they were made to differ."""
        ranked = [sorted(group.found, key=lambda one: -one.score) for group in groups]
        longest = max(map(len, ranked), default=0)
        return [found[rank] for rank in range(longest) for found in ranked if rank < len(found)]

    def _logits(self, states: Tensor) -> Tensor:
        logits = self.network.logits(states).float()
        return logits.index_fill(-1, self._never, BLOCKED) if len(self._never) else logits
