"""Denoising: rebuild the whole text from a noised one (BART, arXiv 1910.13461, section 2.2)."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from bothways.batch import Example, Key, Vocabulary, Window
from bothways.errors import BothwaysError
from bothways.objectives.base import Mode, Objective, Profile
from bothways.objectives.next_token import with_begin
from bothways.objectives.noise import BRONZE, collapse, infilled, permuted_sentences, rotated, runs, some, spread
from bothways.objectives.options import at_least, choice, need_tokens, share
from bothways.objectives.two_towers import MODE, before_end, begun, closed, rewritten, taught
from bothways.visibility import causal

HIDING = ("masking", "deletion", "infilling")
"""The noises that hide tokens; the others only move them."""
NOISES = (*HIDING, "sentence-permutation", "rotation")
WHICH = 17
"""Salt of the sequence that picks one of several noises for a window."""


@dataclass(frozen=True)
class Denoising(Objective):
    """Sum of -log p(x_k | x_<k, noised x) over the whole original text x.

    Options:
        noises: what is done to a text, in this order: "masking" (each hidden token becomes a `<mask>`), "deletion"
            (it goes without a trace), "infilling" (each hidden span becomes one `<mask>`, and one of length 0 inserts
            a `<mask>` where nothing is missing), "sentence-permutation", "rotation" (the text begins with a random
            token). With `|` between them one is taken for each window, all equally often.
        rate: share of the tokens that each of masking, deletion and infilling hides (0.3).
        mean_span: span lengths of infilling are Poisson with this mean (3).
        languages: names of what the texts are written in, such as ("text", "python"). The source then ends with the
            tag of its language and the decoder begins with it in place of `<bos>` (PLBART, arXiv 2103.06333, section
            2); tags are the last sentinels, the first language's the very last. Each language is a mode of its
            own, and a text of which nobody knows is taken to be in the first.

    `rate` and `mean_span` are none, and refused when given, where no noise uses them.
    """

    vocabulary: Vocabulary
    noises: str = "sentence-permutation, infilling"
    rate: float | None = None
    mean_span: float | None = None
    languages: tuple[str, ...] = ()
    name = "denoising"
    summary = "blank out spans and shuffle sentences; the decoder writes the whole text"
    source = "Lewis et al. 2019 (BART), section 2.2; arXiv 1910.13461"
    stack = "two towers"
    decoding = "infill"
    tokens = ("<bos>", "<eos>", "<mask>")

    def __post_init__(self) -> None:
        need_tokens(self.name, self.vocabulary, self.tokens)
        ways = read_noises(self.name, self.noises)
        object.__setattr__(self, "noises", " | ".join(", ".join(way) for way in ways))
        if not self.vocabulary.ends_sentence.any() and ("sentence-permutation",) in ways:
            raise BothwaysError("objective 'denoising': this tokenizer has no token that ends a sentence, so "
                                "sentence-permutation alone would change nothing: add another noise to noises")
        # 1. what no noise uses is not there
        self._settle("rate", 0.3, HIDING)
        self._settle("mean_span", 3.0, ("infilling",))
        if self.rate is not None:
            share(self.name, "rate", self.rate)
        if self.mean_span is not None:
            at_least(self.name, "mean_span", self.mean_span, 1)
        # 2. a tag for each language
        languages = (self.languages,) if isinstance(self.languages, str) else tuple(self.languages)
        object.__setattr__(self, "languages", languages)
        if not all(isinstance(language, str) and language for language in languages) or \
                len(set(languages)) < len(languages):
            raise BothwaysError(f"objective 'denoising': languages is {list(languages)!r}, but must be different "
                                "names, such as [text, python]")
        if len(languages) > len(self.vocabulary.sentinels):
            raise BothwaysError(f"objective 'denoising': languages names {len(languages)}, but the tokenizer has only "
                                f"{len(self.vocabulary.sentinels)} sentinels to tag them with: name fewer")
        # 3. where a source never holds a <mask>, there are no blanks to fill
        if not self._uses("masking", "infilling"):
            object.__setattr__(self, "decoding", "left_to_right")

    @property
    def modes(self) -> tuple[Mode, ...]:
        return tuple(replace(MODE, name=language) for language in self.languages) or (MODE,)

    @property
    def profile(self) -> Profile:
        left = [self._left(way) for way in self._ways]
        return Profile(causal, source_inputs=sum(left) / len(left))

    @property
    def needs_sentences(self) -> bool:
        return ("sentence-permutation",) in self._ways

    def corrupt(self, window: Window, key: Key) -> Example:
        ids, rng = window.ids, key.rng()
        # 1. <bos> and <eos> stay where they are
        first = int(ids[0] == self.vocabulary.bos)
        last = len(ids) - int(ids[-1] == self.vocabulary.eos)
        body = ids[first:last]
        # 2. one noise after the other
        ways = self._ways
        for noise in ways[int(len(ways) * spread(key, BRONZE, WHICH))]:
            body = self._noised(body, noise, rng)
        source = np.concatenate((ids[:first], body, ids[last:]))
        return self._example(source, ids, np.ones(len(ids), bool), self._tag(window.language))

    def _noised(self, ids: np.ndarray, noise: str, rng: np.random.Generator) -> np.ndarray:
        """The text after one noise. A `<mask>` is not hidden again."""
        mask, rate = self.vocabulary.mask, self.rate or 0.0
        if noise == "infilling":
            return infilled(ids, rate, self.mean_span or 0.0, mask, rng)
        if noise == "sentence-permutation":
            return permuted_sentences(ids, self.vocabulary.ends_sentence, rng)
        if noise == "rotation":
            return rotated(ids, rng)
        places = some(np.flatnonzero(ids != mask), rate, rng)
        if noise == "deletion":
            return np.delete(ids, places)
        marked = ids.copy()
        marked[places] = mask
        return marked

    def blank(self, ids: np.ndarray, hidden: np.ndarray, mode: Mode | None = None) -> Example:
        """Hidden tokens are missing from the source as the noises would make them: behind one `<mask>` a run with
        infilling, behind one each with masking, and without a trace otherwise."""
        if self._uses("infilling"):
            starts, ends = runs(hidden)
            source = collapse(ids, starts, ends - starts, np.full(len(starts), self.vocabulary.mask))
        elif self._uses("masking"):
            source = np.where(hidden, self.vocabulary.mask, ids)
        else:
            source = ids[~hidden]
        return self._example(source, ids, hidden, self._tag_of(mode))

    def continuation(self, ids: np.ndarray, mode: Mode | None = None) -> Example:
        """The prompt, and a `<mask>` for what follows where noises leave one; the decoder has written the prompt."""
        prompt, tag = with_begin(ids, self.vocabulary), self._tag_of(mode)
        after = [*([self.vocabulary.mask] if self._uses("masking", "infilling") else []), *tag]
        return begun(np.concatenate((prompt, np.array(after, dtype=np.int64))), [*tag, *prompt[len(tag):]])

    def infilling(self, ids: np.ndarray, mode: Mode | None = None) -> Example:
        if not self._uses("masking", "infilling"):
            raise BothwaysError(f"a model trained by 'denoising' with noises '{self.noises}' never read a <mask>, so "
                                "it fills no blanks: train one with masking or infilling among its noises")
        source, tag = closed(with_begin(ids, self.vocabulary), self.vocabulary), self._tag_of(mode)
        return begun(np.concatenate((source, np.array(tag, dtype=np.int64))), tag or [self.vocabulary.bos])

    def read_infilling(self, ids: np.ndarray, written: Sequence[int]) -> list[int]:
        """The decoder wrote the whole text, so it is the answer, up to its `<eos>`."""
        return before_end(written, self.vocabulary)

    def written_fills(self, ids: np.ndarray, fills: Sequence[Sequence[int]]) -> list[int]:
        return rewritten(ids, fills, self.vocabulary)

    @functools.cached_property
    def _ways(self) -> tuple[tuple[str, ...], ...]:
        return read_noises(self.name, self.noises)

    def _tag(self, language: str) -> list[int]:
        """The tag of a language: one token, or none where languages are not told apart."""
        if not self.languages:
            return []
        if language and language not in self.languages:
            raise BothwaysError(f"objective 'denoising': a text is written in '{language}', but languages names only "
                                f"{', '.join(self.languages)}: add it")
        return [self.vocabulary.sentinels[-1 - (self.languages.index(language) if language else 0)]]

    def _tag_of(self, mode: Mode | None) -> list[int]:
        return self._tag(mode.name if mode is not None else "")

    def _uses(self, *noises: str) -> bool:
        return any(noise in way for way in self._ways for noise in noises)

    def _settle(self, option: str, usual: float, noises: Sequence[str]) -> None:
        """Give an option its usual value where a noise uses it; refuse a value where none does."""
        if self._uses(*noises):
            if getattr(self, option) is None:
                object.__setattr__(self, option, usual)
        elif getattr(self, option) is not None:
            raise BothwaysError(f"objective 'denoising': {option} is {getattr(self, option)!r}, but the noises "
                                f"'{self.noises}' do not use it: leave {option} out, or add {' or '.join(noises)} to "
                                "noises")

    def _left(self, way: Sequence[str]) -> float:
        """Source tokens that these noises leave of one, on average: tokens of the text, and `<mask>`s."""
        text, masks, rate = 1.0, 0.0, self.rate or 0.0
        for noise in way:
            if noise == "infilling":
                text, masks = text * (1 - rate), masks * (1 - rate) + (text + masks) * rate / (self.mean_span or 1.0)
            elif noise in HIDING:
                text, masks = text * (1 - rate), masks + text * rate * (noise == "masking")
        return text + masks

    def _example(self, source: np.ndarray, target: np.ndarray, asked: np.ndarray, tag: list[int]) -> Example:
        """Decoder inputs are the target moved by one behind `<bos>`, its own if it has one, or behind the tag."""
        first = int(target[0] == self.vocabulary.bos)
        begin = tag[0] if tag else self.vocabulary.bos
        tagged = np.concatenate((source, np.array(tag, dtype=np.int64)))
        return taught(tagged, target[first:], asked[first:], begin, len(target))


def read_noises(objective: str, noises: object) -> tuple[tuple[str, ...], ...]:
    """"a, b | c" as (("a", "b"), ("c",)): the ways in which a window may be noised, each a list in order."""
    text = ", ".join(map(str, noises)) if isinstance(noises, (list, tuple)) else str(noises)
    ways = tuple(tuple(noise.strip() for noise in way.split(",")) for way in text.split("|"))
    for way in ways:
        for noise in way:
            choice(objective, "a noise in noises", noise, NOISES)
        if len(set(way)) < len(way):
            raise BothwaysError(f"objective '{objective}': noises has one twice in '{', '.join(way)}': name it once")
    return ways
