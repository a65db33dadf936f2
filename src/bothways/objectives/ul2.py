"""UL2: a mixture of denoisers, told apart by a mode token (Tay et al. 2022, arXiv 2205.05131, section 3.1)."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from bothways.batch import Example, Key, Vocabulary, Window
from bothways.errors import BothwaysError
from bothways.objectives.base import Mode, Objective, Profile, example
from bothways.objectives.noise import BRONZE, runs, spread
from bothways.objectives.options import choice, flag, is_number, need_tokens
from bothways.objectives.span_corruption import SpanCorruption
from bothways.visibility import bidirectional, causal, prefix

Denoiser = tuple[str, float | None, float]
"""Kind (R, S or X), mean length of a span (none for S), share of the tokens in spans."""
PAPER: tuple[Denoiser, ...] = (("R", 3.0, 0.15), ("R", 8.0, 0.15), ("S", None, 0.25), ("X", 3.0, 0.5), ("X", 8.0, 0.5),
                               ("X", 64.0, 0.15), ("X", 64.0, 0.5))
"""The paper's seven (table 1): regular, sequential and extreme ones."""
KINDS = ("R", "S", "X")
LONG, MUCH = 12, 0.3
"""From this span length or this share on the paper calls a denoiser extreme."""
ALL = float("inf")
"""The mean length that makes one span of all that is hidden."""
DENOISER = 19
"""Salt of the sequence that picks denoisers."""


@dataclass(frozen=True)
class UL2(Objective):
    """Span corruption, each window by one of several denoisers: -log p(y | mode token, source) as in span-corruption.

    In one tower the source is a prefix and the target is written behind it; in two the encoder reads the source.

    Options:
        denoisers: (kind, mean span, rate) of each; all get as many windows. R and X draw spans as span-corruption
            does, S hides one suffix of that share and has no mean span.
        towers: 1 (the prefix decoder) or 2.
        mode_tokens: begin with <R>, <S> or <X>.
        roll: as in span-corruption, for R and X. Without it a window too short for two spans of the mean length
            hides only its end.
    """

    vocabulary: Vocabulary
    denoisers: tuple[Denoiser, ...] = PAPER
    towers: int = 1
    mode_tokens: bool = True
    roll: bool = False
    name = "ul2"
    summary = "one of several span corruptions, named by a mode token; the spans are written behind the text"
    source = "Tay et al. 2022 (UL2), section 3.1 and table 1; arXiv 2205.05131"
    decoding = "infill"
    tokens = ("<bos>", "<eos>", "<extra_0>", "<extra_1>", "<R>", "<S>", "<X>")

    def __post_init__(self) -> None:
        need_tokens(self.name, self.vocabulary, self.tokens)
        flag(self.name, "mode_tokens", self.mode_tokens)
        flag(self.name, "roll", self.roll)
        if self.towers not in (1, 2) or isinstance(self.towers, bool):
            raise BothwaysError(f"objective '{self.name}': towers is {self.towers!r}, but must be 1 or 2")
        object.__setattr__(self, "denoisers", tuple(_read(entry) for entry in _listed(self.denoisers)))
        object.__setattr__(self, "stack", "two towers" if self.towers == 2 else "one tower")

    @property
    def modes(self) -> tuple[Mode, ...]:
        return (Mode("encoder-decoder", causal, predicts="next", likelihood="exact") if self.towers == 2
                else Mode("prefix", prefix, predicts="next", likelihood="exact"),)

    @property
    def profile(self) -> Profile:
        marks = np.array([0.0 if mean is None else rate / mean for _, mean, rate in self.denoisers])
        rates = np.array([rate for _, _, rate in self.denoisers])
        told, written = float((1 - rates + marks).mean()), float((rates + marks).mean())
        return (Profile(causal, inputs=written, asked=written, source_inputs=told) if self.towers == 2
                else Profile(prefix, inputs=told + written, asked=written))

    def mode(self, name: str | None) -> Mode:
        """Its mode; "R", "S" or "X" name the same with that mode token in front of what is written on or filled.

        Scoring knows the one mode: its questions choose their token themselves.
        """
        if self.mode_tokens and name in KINDS:
            return replace(self.modes[0], name=name)
        return super().mode(name)

    def chosen(self, key: Key) -> Denoiser:
        """Which denoiser this window goes to: each has the same share, evenly spread over an epoch."""
        return self.denoisers[int(spread(key, BRONZE, DENOISER) * len(self.denoisers))]

    def corrupt(self, window: Window, key: Key) -> Example:
        denoiser = self.chosen(key)
        try:
            told = self._hiding[denoiser].corrupt(window, key)
        except BothwaysError as error:
            raise BothwaysError(f"objective '{self.name}': among its denoisers {denoiser!r} does not suit this text: "
                                f"{error}") from None
        return self._laid(told, denoiser[0])

    def blank(self, ids: np.ndarray, hidden: np.ndarray, mode: Mode | None = None) -> Example:
        """The question as spans, in the mode that hides as much: <S> for one suffix, <X> from 12 tokens a span or 30%
        on, <R> otherwise."""
        return self._laid(self._spans.blank(ids, hidden), _kind(hidden))

    def continuation(self, ids: np.ndarray, mode: Mode | None = None) -> Example:
        return self._laid(self._spans.continuation(ids), _named(mode) or "S")

    @property
    def stops(self) -> frozenset[int]:
        return self._spans.stops

    def infilling(self, ids: np.ndarray, mode: Mode | None = None) -> Example:
        return self._laid(self._spans.infilling(ids), _named(mode) or "R")

    def read_infilling(self, ids: np.ndarray, written: Sequence[int]) -> list[int]:
        return self._spans.read_infilling(ids, written)

    def written_fills(self, ids: np.ndarray, fills: Sequence[Sequence[int]]) -> list[int]:
        return self._spans.written_fills(ids, fills)

    @functools.cached_property
    def _spans(self) -> SpanCorruption:
        """Who knows the format."""
        return SpanCorruption(self.vocabulary)

    @functools.cached_property
    def _hiding(self) -> dict[Denoiser, SpanCorruption]:
        """The span corruption behind each denoiser. S has one span, which always stands at the end."""
        return {(kind, mean, rate): replace(self._spans, rate=rate, mean_span=ALL if mean is None else mean,
                                            roll=self.roll and mean is not None)
                for kind, mean, rate in self.denoisers}

    def _laid(self, told: Example, kind: str) -> Example:
        """Span corruption's Example with the mode token; for one tower with the target laid behind the source."""
        assert told.source is not None
        begin = [self.vocabulary.ids[f"<{kind}>"]] if self.mode_tokens else []
        source = np.concatenate((np.array(begin, dtype=np.int64), told.source.inputs.numpy()))
        if self.towers == 2:
            return replace(told, source=example(source, bidirectional))
        # the source's closing <eos> predicts the first sentinel: it stands where the decoder's <bos> stood
        inputs = np.concatenate((source, told.inputs.numpy()[1:]))
        asks = [replace(one, where=one.where + (len(source) - 1)) for one in told.asks]
        return example(inputs, prefix, asks, raw=told.raw, prefix=np.arange(len(inputs)) < len(source))


def _named(mode: Mode | None) -> str:
    """The kind of denoiser that a call names; none where it does not."""
    return mode.name if mode is not None and mode.name in KINDS else ""


def _kind(hidden: np.ndarray) -> str:
    """The kind of denoiser that hides as a question does."""
    starts, ends = runs(hidden)
    if not len(starts):
        return "R"
    if len(starts) == 1 and starts[0] > 0 and ends[0] == len(hidden):
        return "S"
    return "X" if (ends - starts).mean() >= LONG or hidden.mean() >= MUCH else "R"


def _listed(denoisers: object) -> Sequence[object]:
    if not isinstance(denoisers, (list, tuple)) or not denoisers:
        raise BothwaysError("objective 'ul2': denoisers is a list of (kind, mean span, rate), such as "
                            "[[R, 3, 0.15], [S, null, 0.25]]")
    return denoisers


def _read(entry: object) -> Denoiser:
    """One denoiser, checked."""
    if not isinstance(entry, (list, tuple)) or len(entry) != 3:
        raise BothwaysError(f"objective 'ul2': {entry!r} among the denoisers must be (kind, mean span, rate), such as "
                            "(R, 3, 0.15)")
    kind, mean, rate = entry
    choice("ul2", "a denoiser's kind", kind, KINDS)
    if not is_number(rate) or not 0 < rate < 1:
        raise BothwaysError(f"objective 'ul2': the rate of {entry!r} among the denoisers is {rate!r}, but must be a "
                            "number between 0 and 1, such as 0.15")
    if kind == "S":
        if mean is not None:
            raise BothwaysError(f"objective 'ul2': {entry!r} among the denoisers has a mean span, but S hides one "
                                "suffix as long as its rate says: write none (null) for it")
        return "S", None, float(rate)
    if not is_number(mean) or mean < 1:
        raise BothwaysError(f"objective 'ul2': the mean span of {entry!r} among the denoisers is {mean!r}, but must be "
                            "a number of at least 1")
    return str(kind), float(mean), float(rate)
