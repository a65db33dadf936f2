"""Text to text: the denoising forms that T5's authors compared (arXiv 1910.10683, Tables 3 to 5)."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bothways.batch import Example, Key, Vocabulary, Window
from bothways.errors import BothwaysError
from bothways.objectives.base import Mode, Objective, Profile
from bothways.objectives.masked import read_shares
from bothways.objectives.next_token import with_begin
from bothways.objectives.noise import replaced, runs
from bothways.objectives.options import choice, need_ordinary, need_tokens, share
from bothways.objectives.two_towers import (
    MODE,
    before_end,
    begun,
    behind_sentinels,
    closed,
    into_blanks,
    rewritten,
    sentinels,
    spelled_out,
    taught,
)
from bothways.visibility import causal

HIDING = ("iid", "drop-tokens", "mass", "bert")
"""The forms that hide a share of the tokens, each one independently of the others."""
WHOLE = ("mass", "bert", "deshuffling")
"""The forms whose target is the whole text."""
FORMS = (*HIDING, "deshuffling", "prefix")
RARE = 4.0
"""A text whose spans would exceed the sentinels by less than this many standard deviations is refused."""


@dataclass(frozen=True)
class TextToText(Objective):
    """Sum of -log p(y_k | y_<k, source) over the target y, whose source and target are those of one form.

    Options:
        form: "iid" (runs of hidden tokens become sentinels, the target is each sentinel and its run: T5's baseline),
            "drop-tokens" (hidden tokens are left out, the target is these), "mass" (each hidden token becomes a
            `<mask>`, the target is the whole text), "bert" (as mass, but by `replace` some become a random token or
            stay), "deshuffling" (the tokens in random order, the target is the text) or "prefix" (the source is the
            text up to a random place, the target the rest).
        rate: share of the tokens hidden (0.15), for the first four.
        replace: percentages `<mask>`-random-unchanged, for "bert" ("90-10-0", as T5's section 3.3.1 has it;
            "80-10-10" is BERT's own).

    `<bos>` is never hidden, and source and target both close with `<eos>`.
    """

    vocabulary: Vocabulary
    form: str = "iid"
    rate: float | None = None
    replace: str | None = None
    name = "text-to-text"
    summary = "hide, drop or shuffle tokens of the source; the decoder writes what is missing or the whole text"
    source = "Raffel et al. 2020 (T5), sections 3.3.1 and 3.3.2, Tables 3 to 5; arXiv 1910.10683"
    stack = "two towers"
    decoding = "infill"
    tokens = ("<bos>", "<eos>", "<mask>", "<extra_0>")

    def __post_init__(self) -> None:
        need_tokens(self.name, self.vocabulary, self.tokens)
        choice(self.name, "form", self.form, FORMS)
        self._settle("rate", 0.15, HIDING)
        self._settle("replace", "90-10-0", ("bert",))
        if self.rate is not None:
            share(self.name, "rate", self.rate)
        if self.replace is not None:
            need_ordinary(self.name, self.vocabulary)
            read_shares(self.name, self.replace)
        if self.form in ("deshuffling", "prefix"):  # nothing in their sources stands for a blank
            object.__setattr__(self, "decoding", "left_to_right")

    @property
    def modes(self) -> tuple[Mode, ...]:
        return (MODE,)

    @property
    def profile(self) -> Profile:
        rate = self.rate or 0.0
        marks = rate * (1 - rate)
        if self.form == "iid":
            return Profile(causal, inputs=rate + marks, asked=rate + marks, source_inputs=1 - rate + marks)
        if self.form == "drop-tokens":
            return Profile(causal, inputs=rate, asked=rate, source_inputs=1 - rate)
        half = 0.5 if self.form == "prefix" else 1.0
        return Profile(causal, inputs=half, asked=half, source_inputs=half)

    def corrupt(self, window: Window, key: Key) -> Example:
        # 1. the text without its closing
        rng, raw = key.rng(), len(window.ids)
        ids = window.ids[:-1] if window.ids[-1] == self.vocabulary.eos else window.ids
        first = int(len(ids) > 0 and ids[0] == self.vocabulary.bos)
        # 2. source and target
        if self.form == "prefix":
            if len(ids) - first < 2:
                raise BothwaysError("text-to-text: form 'prefix' cuts a text in two, so it needs one of at least 2 "
                                    f"tokens, not {len(ids) - first}: use longer texts")
            cut = first + int(rng.integers(1, len(ids) - first))
            return self._told(ids[:cut], ids[cut:], raw)
        if self.form == "deshuffling":
            return self._told(self._shuffled(ids, rng), ids[first:], raw)
        hidden = self._hidden(len(ids), first, rng)
        if self.form == "iid":
            return self._spelled_out(ids, hidden, f"a window of {raw} tokens", raw)
        if self.form == "drop-tokens":
            return self._told(ids[~hidden], ids[hidden], raw)
        shares = read_shares(self.name, self.replace or "all")
        source = replaced(ids, np.flatnonzero(hidden), shares, self.vocabulary.mask, self._ordinary, rng)
        return self._told(source, ids[first:], raw)

    def blank(self, ids: np.ndarray, hidden: np.ndarray, mode: Mode | None = None) -> Example:
        """In the form's own format, with `<mask>` at every hidden token of "mass" and "bert".

        A prefix ends before the first hidden token; the decoder reads what is not hidden after it, up to each place.
        """
        if self.form == "iid":
            return self._spelled_out(ids, hidden, "the question", len(ids), contents_only=True)
        # 1. the source: the closing is no part of the text
        open_ = ids[:-1] if len(ids) and ids[-1] == self.vocabulary.eos else ids
        shown = ~hidden[:len(open_)]
        if self.form in ("mass", "bert"):
            source = np.where(shown, open_, self.vocabulary.mask)
        elif self.form == "prefix":
            source = open_[:len(open_) if shown.all() else int(np.argmin(shown))]
        else:
            source = open_[shown]
            if self.form == "deshuffling":
                source = self._shuffled(source, np.random.default_rng(len(source)))
        source = closed(source, self.vocabulary)
        # 2. the target, and which of it was hidden
        if self.form in WHOLE:
            first = int(ids[0] == self.vocabulary.bos)
            target, asked = ids[first:], hidden[first:]
        elif self.form == "prefix":
            target, asked = ids[len(source) - 1:], hidden[len(source) - 1:]
        else:
            target, asked = ids[hidden], np.ones(int(hidden.sum()), bool)
        return taught(source, target, asked, self.vocabulary.bos, len(ids))

    def continuation(self, ids: np.ndarray, mode: Mode | None = None) -> Example:
        """The source that a text has whose end is hidden, and what the decoder wrote of the target before it."""
        prompt, bos = with_begin(ids, self.vocabulary), self.vocabulary.bos
        if self.form == "iid":
            first = self.vocabulary.sentinels[0]
            return begun(closed(np.append(prompt, first), self.vocabulary), [bos, first])
        if self.form in ("mass", "bert"):
            return begun(closed(np.append(prompt, self.vocabulary.mask), self.vocabulary), prompt)
        if self.form == "deshuffling":
            shuffled = self._shuffled(prompt, np.random.default_rng(len(prompt)))
            return begun(closed(shuffled, self.vocabulary), prompt)
        return begun(closed(prompt, self.vocabulary), [bos])

    @property
    def stops(self) -> frozenset[int]:
        return frozenset({self.vocabulary.eos, *(self.vocabulary.sentinels[1:2] if self.form == "iid" else ())})

    def infilling(self, ids: np.ndarray, mode: Mode | None = None) -> Example:
        source = closed(with_begin(ids, self.vocabulary), self.vocabulary)
        blanks = np.flatnonzero(source == self.vocabulary.mask)
        if self.form in ("deshuffling", "prefix"):
            raise BothwaysError(f"a model trained by 'text-to-text' in the form '{self.form}' never read a blank, so "
                                "it fills none: train one in the form iid, drop-tokens, mass or bert")
        if self.form == "drop-tokens":
            if len(blanks) > 1:
                raise BothwaysError(f"the text has {len(blanks)} blanks, but a model trained by 'text-to-text' in the "
                                    "form 'drop-tokens' does not say which of them its words belong to: leave one "
                                    "<mask>, or train in the form iid")
            source = np.delete(source, blanks)
        if self.form == "iid":
            source[blanks] = self._sentinels(len(blanks), "the text")
        return begun(source, [self.vocabulary.bos])

    def read_infilling(self, ids: np.ndarray, written: Sequence[int]) -> list[int]:
        """What was written after a sentinel, in the only blank, or as the whole text, by the form."""
        if self.form == "iid":
            return into_blanks(ids, written, self.vocabulary)
        answer = before_end(written, self.vocabulary)
        if self.form in WHOLE:
            return answer
        return [token for place in ids for token in (answer if place == self.vocabulary.mask else [int(place)])]

    def written_fills(self, ids: np.ndarray, fills: Sequence[Sequence[int]]) -> list[int]:
        if self.form == "iid":
            return behind_sentinels(fills, self.vocabulary)
        return rewritten(ids, fills, self.vocabulary) if self.form in WHOLE else [*map(int, fills[0]),
                                                                                  self.vocabulary.eos]

    # --- pieces ---

    @functools.cached_property
    def _ordinary(self) -> np.ndarray:
        """The ids a random replacement is drawn from."""
        return np.flatnonzero(~self.vocabulary.special)

    def _hidden(self, length: int, first: int, rng: np.random.Generator) -> np.ndarray:
        """Each token but the first `first`, independently with probability `rate`: (L,) bool.

        Where runs become sentinels, a draw with more runs than there are sentinels is drawn again. That happens to
        one text in ten thousand at most: a longer one is refused.
        """
        rate, most = self.rate or 0.0, len(self.vocabulary.sentinels)
        count = length - first
        if self.form == "iid":
            # a run begins at the first token with chance p, at any other with p (1 - p); the variance is that of
            # a sum in which neighbours exclude each other
            begin = rate * (1 - rate)
            usual = rate + (count - 1) * begin + RARE * (count * begin * (1 - 3 * begin)) ** 0.5
            if usual > most and (count + 1) // 2 > most:
                raise BothwaysError(f"text-to-text: a window of {length} tokens may have {usual:.1f} spans in the form "
                                    f"'iid', but the tokenizer has only {most} sentinels: use shorter windows, another "
                                    f"rate (now {rate:g}), or span-corruption, whose spans are longer and fewer")
        while True:
            hidden = rng.random(length) < rate
            hidden[:first] = False
            if self.form != "iid" or len(runs(hidden)[0]) <= most:
                return hidden

    def _shuffled(self, ids: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """The tokens in random order; a `<bos>` stays in front."""
        first = int(len(ids) > 0 and ids[0] == self.vocabulary.bos)
        return np.concatenate((ids[:first], rng.permutation(ids[first:])))

    def _told(self, source: np.ndarray, target: np.ndarray, raw: int) -> Example:
        """Both closed by `<eos>`, and all of the target asked for."""
        target = closed(target, self.vocabulary)
        return taught(closed(source, self.vocabulary), target, np.ones(len(target), bool), self.vocabulary.bos, raw)

    def _spelled_out(self, ids: np.ndarray, hidden: np.ndarray, what: str, raw: int,
                     contents_only: bool = False) -> Example:
        starts, ends = runs(hidden)
        marks = self._sentinels(len(starts), what)
        return spelled_out(ids, starts, ends - starts, marks, self.vocabulary, raw, contents_only)

    def _sentinels(self, spans: int, what: str) -> np.ndarray:
        return sentinels(spans, self.vocabulary, self.name, what, "use a shorter text, or hide less of it")

    def _settle(self, option: str, usual: float | str, forms: Sequence[str]) -> None:
        """Give an option its usual value where the form uses it; refuse a value where it does not."""
        if self.form in forms:
            if getattr(self, option) is None:
                object.__setattr__(self, option, usual)
        elif getattr(self, option) is not None:
            raise BothwaysError(f"objective 'text-to-text': {option} is {getattr(self, option)!r}, but the form "
                                f"'{self.form}' does not use it: leave {option} out, or choose the form "
                                f"{' or '.join(forms)}")
