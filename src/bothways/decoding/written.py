"""What a decoding gives back, and text that grows by whole characters."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

StoppedBy = Literal["end", "stop", "length", "positions", "filled"]
"""end: the model ended the text; stop: a stop string or id; length: max_new_tokens; positions: the network has no
more places; filled: every blank is filled."""


HIDDEN = -1
"""What stands at a place where nothing is written yet, or no more."""


class Step(NamedTuple):
    """What one network evaluation wrote: a token at each of these places of `Written.ids`.

    The token HIDDEN takes a place back. A place at or behind the end of `ids` was written and then dropped, as what
    follows an end is; an evaluation that wrote nothing of the text (its end, a sentinel) has no places.
    """

    places: tuple[int, ...] = ()
    tokens: tuple[int, ...] = ()


def one_by_one(ids: Sequence[int], ended: bool = False, first: int = 0) -> tuple[Step, ...]:
    """The steps of what was written from left to right, a token each; with `ended` one more, for the end.

    Args:
        first: the place of the first token.
    """
    return (*(Step((first + place,), (int(token),)) for place, token in enumerate(ids)), *([Step()] if ended else []))


@dataclass(frozen=True)
class Written:
    """What was written for one prompt.

    ids: the new tokens (for `fill`: the whole text with its blanks filled), without the one that ended them.
    logprobs: natural log probability of each new token under the network, before temperature and filters.
    text: the ids as text, cut before a stop string; none without a tokenizer.
    steps: what each network evaluation wrote, in order: `canvases` plays it again.
    network_evaluations: passes in all (a shared pass counts for each prompt); at least as many as steps.
    decoding: the name of the decoding that wrote it.
    cache_bytes: what the cache of the whole call took at its largest; 0 without one.
    thought: what was thought on the way, if anything was; part of `text` too unless thoughts are hidden.
    score: of a beam search, by which its texts are compared: log probability / length ** length_penalty.
    seconds: wall clock of the whole call, which writes all its prompts together.
    """

    ids: list[int]
    logprobs: list[float]
    stopped_by: StoppedBy
    text: str | None = None
    steps: tuple[Step, ...] = ()
    network_evaluations: int = 0
    seconds: float = 0.0
    thought: str | None = None
    decoding: str = "left_to_right"
    cache_bytes: int = 0
    score: float | None = None

    def canvases(self) -> Iterator[list[int]]:
        """How the ids came to be: one list before the first step and one after each, HIDDEN where nothing stands.

        A place that no step wrote was given and stands there from the start. The last list begins with `ids`; what was
        dropped stands behind.
        """
        touched = {place for step in self.steps for place in step.places}
        length = max(len(self.ids), 1 + max(touched, default=-1))
        canvas = [HIDDEN if place in touched else self.ids[place] for place in range(length)]
        yield list(canvas)
        for step in self.steps:
            for place, token in zip(step.places, step.tokens, strict=True):
                canvas[place] = token
            yield list(canvas)


class Decodes(Protocol):
    """The one thing that is needed of a tokenizer here."""

    def decode(self, ids: list[int], skip_reserved: bool = True) -> str: ...


class GrowingText:
    """Text from tokens as they come: only whole characters, and nothing that may become a stop string.

    A token may end inside a character; its bytes wait for the next one. Decoding looks at a few last tokens only, so
    the work per token does not grow with the text.
    """

    def __init__(self, tokenizer: Decodes, stop: Sequence[str] = (), context: Sequence[int] = ()) -> None:
        self.tokenizer = tokenizer
        self.stop = tuple(string for string in stop if string)
        self.text = ""
        self.stopped = False
        self._given = 0
        # tokens from `_start` to `_read` are context, what they say is not part of `text`; later ones are not read yet
        self._ids: list[int] = list(context)
        self._start, self._read = 0, len(self._ids)

    def add(self, token: int) -> str:
        """Take one token; returns the text that is now certain, often a few characters, none after a stop string."""
        if self.stopped:
            return ""
        self._ids.append(token)
        known = self.tokenizer.decode(self._ids[self._start:self._read])
        grown = self.tokenizer.decode(self._ids[self._start:])
        if len(grown) > len(known) and not grown.endswith("\ufffd"):
            self._take(grown[len(known):])
        return self._give(final=False)

    def say(self, words: str) -> str:
        """Take words that stand for a mark; the text before them ends here."""
        if self.stopped:
            return ""
        known = self.tokenizer.decode(self._ids[self._start:self._read])
        self._take(self.tokenizer.decode(self._ids[self._start:])[len(known):])
        if not self.stopped:
            self._take(words)
            self._start = self._read
        return self._give(final=False)

    def finish(self) -> str:
        """The rest, once no token comes any more."""
        if not self.stopped:
            known = self.tokenizer.decode(self._ids[self._start:self._read])
            self._take(self.tokenizer.decode(self._ids[self._start:])[len(known):])
        return self._give(final=True)

    def _take(self, new: str) -> None:
        longest = max(map(len, self.stop), default=0)
        begin = max(0, len(self.text) - longest)
        self.text += new
        self._start, self._read = self._read, len(self._ids)
        found = [place for string in self.stop if (place := self.text.find(string, begin)) >= 0]
        if found:
            self.text, self.stopped = self.text[:min(found)], True

    def _give(self, final: bool) -> str:
        """What has not been given yet, less a tail that may be the beginning of a stop string."""
        end = len(self.text)
        if not (final or self.stopped):
            end -= max((k for string in self.stop for k in range(1, len(string)) if self.text.endswith(string[:k])),
                       default=0)
        piece = self.text[self._given:end]
        self._given = max(self._given, end)
        return piece
