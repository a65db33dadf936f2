"""Masked: some tokens are hidden and asked for where they stand (BERT, arXiv 1810.04805, section 3.1)."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bothways.batch import Example, Key, Vocabulary, Window
from bothways.errors import BothwaysError
from bothways.objectives.base import Mode, Objective, Profile, ask, example
from bothways.objectives.noise import replaced, stochastic_round
from bothways.objectives.options import flag, need_ordinary, need_tokens, share
from bothways.visibility import bidirectional

MODE = Mode("bidirectional", bidirectional, predicts="here", likelihood="pseudo")
Rate = float | tuple[float, float]
ASKED = 13
"""Salt of the lot that says which hidden tokens are asked for."""


@dataclass(frozen=True)
class Selecting(Objective):
    """What masked and masked-next share: which tokens are hidden, and which of those are asked for.

    Options:
        rate: share of the ordinary tokens selected, or (first, last) for a rate that moves evenly over training
            (arXiv 2410.24159 goes from 0.3 to 0.15).
        whole_words: select words, not tokens.
        phrases: also select as one word what a run of words with capital letters inside a sentence names, after the
            entity-level masking of ERNIE (arXiv 1904.09223, section 3.2.3). Nobody tags entities here: the rule misses
            names without capitals and joins names without anything between them; a sentence's first word is never
            part of a run.
        copies: how many corruptions a window has; epoch e reads number e modulo `copies`. None draws anew in every
            epoch (dynamic masking); BERT's preprocessing made 10 (static; RoBERTa, arXiv 1907.11692, section 4.1).
        asked: share of the selected tokens that is asked for. With less than 1 the text is damaged more than is asked
            of it: arXiv 2202.08005 tells the corruption rate (`rate`) from the prediction rate
            (`rate` * `asked`), of which the one makes the task harder and the other the signal denser.
    """

    vocabulary: Vocabulary
    rate: Rate = 0.15
    whole_words: bool = False
    asked: float = 1.0
    phrases: bool = False
    copies: int | None = None
    decoding = "mask_predict"
    tokens = ("<bos>", "<eos>", "<mask>")

    def __post_init__(self) -> None:
        need_tokens(self.name, self.vocabulary, self.tokens)
        need_ordinary(self.name, self.vocabulary)
        object.__setattr__(self, "rate", read_rate(self.name, self.rate))
        flag(self.name, "whole_words", self.whole_words)
        if flag(self.name, "phrases", self.phrases):
            if not self.whole_words:
                raise BothwaysError(f"objective '{self.name}': phrases joins whole words, and whole_words is false: "
                                    "set both to true")
            if not self.vocabulary.capital.any():
                raise BothwaysError(f"objective '{self.name}': phrases looks for words with capital letters, and this "
                                    "tokenizer has none: leave phrases out")
        if self.copies is not None:
            if type(self.copies) is not int or self.copies < 1:
                raise BothwaysError(f"objective '{self.name}': copies is {self.copies!r}, but must be a whole number "
                                    "of at least 1, such as 10 (or none, for noise of its own in every epoch)")
            if isinstance(self.rate, tuple):
                raise BothwaysError(f"objective '{self.name}': copies {self.copies} are made once, and rate "
                                    f"{self.rate} moves over training: give one rate, or leave copies out")
        if self.asked != 1 or isinstance(self.asked, bool):
            share(self.name, "asked", self.asked)

    @property
    def profile(self) -> Profile:
        return Profile(bidirectional, asked=mean_rate(self.rate) * self.asked)

    def noise(self, key: Key) -> Key:
        """The key of the noise: with `copies`, one of so many epochs."""
        return key if self.copies is None else key._replace(epoch=key.epoch % self.copies)

    def selected(self, window: Window, key: Key, rng: np.random.Generator,
                 first: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """Places to hide, none before `first`, and those among them to ask for: two int64 arrays in rising order."""
        places = select(window.ids, self.vocabulary, rate_at(self.rate, key.progress), self.whole_words, rng, first,
                        self.phrases)
        if self.asked == 1 or not len(places):
            return places, places
        own = key.rng(ASKED)
        count = max(1, stochastic_round(self.asked * len(places), own))
        return places, np.sort(own.permutation(places)[:count])


@dataclass(frozen=True)
class Masked(Selecting):
    """Mean of -log p(x_k | corrupted x) over the places k that are asked for, anew in every epoch (RoBERTa).

    Options:
        rate, whole_words, phrases, copies, asked: as for any that selects.
        replace: what stands at a selected place, as percentages `<mask>`-random-unchanged ("80-10-10" is BERT's),
            or "all" for `<mask>` at every one (arXiv 2202.08005 found it better).
    """

    replace: str = "80-10-10"
    name = "masked"
    summary = "hide some tokens, see both sides, predict the hidden ones"
    source = "Devlin et al. 2018 (BERT), section 3.1; arXiv 1810.04805"

    def __post_init__(self) -> None:
        super().__post_init__()
        read_shares(self.name, self.replace)

    @property
    def modes(self) -> tuple[Mode, ...]:
        return (MODE,)

    @functools.cached_property
    def _ordinary(self) -> np.ndarray:
        """The ids a random replacement is drawn from."""
        return np.flatnonzero(~self.vocabulary.special)

    def corrupt(self, window: Window, key: Key) -> Example:
        key = self.noise(key)
        ids, rng = window.ids, key.rng()
        places, asked = self.selected(window, key, rng)
        shares = read_shares(self.name, self.replace)
        corrupted = replaced(ids, places, shares, self.vocabulary.mask, self._ordinary, rng)
        return example(corrupted, bidirectional, [ask(asked, ids[asked])])

    def blank(self, ids: np.ndarray, hidden: np.ndarray, mode: Mode | None = None) -> Example:
        return example(np.where(hidden, self.vocabulary.mask, ids), bidirectional,
                       [ask(np.flatnonzero(hidden), ids[hidden])])


def select(ids: np.ndarray, vocabulary: Vocabulary, rate: float, whole_words: bool, rng: np.random.Generator,
           first: int = 0, phrases: bool = False) -> np.ndarray:
    """Places to hide, in rising order: (T,) int64.

    Reserved tokens and places before `first` are never selected. The mean share of the others is `rate`, and at
    least one is selected where there is one. With `phrases`, runs of capitalised words count as one word.
    """
    able = ~vocabulary.special[ids]
    able[:first] = False
    candidates = np.flatnonzero(able)
    if not len(candidates):
        return candidates
    wanted = max(1, stochastic_round(rate * len(candidates), rng))
    if not whole_words:
        return np.sort(rng.permutation(candidates)[:wanted])
    # 1. a word begins where the tokenizer says so, and after anything that cannot be hidden
    begins = vocabulary.starts_word[ids[candidates]] | (np.diff(candidates, prepend=-2) > 1)
    if phrases:
        begins = begins & ~_goes_on(ids, candidates, begins, vocabulary)
    words = np.cumsum(begins) - 1
    # 2. words in random order until enough tokens are hidden; the last is taken by lot, so that the mean is exact
    sizes = np.bincount(words)
    order = rng.permutation(len(sizes))
    ends = np.cumsum(sizes[order])
    full = int(np.searchsorted(ends, wanted, side="right"))
    short = wanted - (int(ends[full - 1]) if full else 0)
    taken = full + int(full < len(order) and (full == 0 or rng.random() < short / sizes[order[full]]))
    return candidates[np.isin(words, order[:taken])]


def _goes_on(ids: np.ndarray, candidates: np.ndarray, begins: np.ndarray, vocabulary: Vocabulary) -> np.ndarray:
    """Where a word goes on with the name that the word before it is part of: (C,) bool over the candidates."""
    starts = candidates[begins]
    before = ids[starts - 1]
    opens = (starts == 0) | vocabulary.special[before] | vocabulary.ends_sentence[before]
    names = vocabulary.capital[ids[starts]] & ~opens
    beside = np.isin(starts - 1, candidates)
    goes_on = np.zeros(len(candidates), bool)
    goes_on[begins] = names & np.append(False, names[:-1]) & beside
    return goes_on


def rate_at(rate: Rate, progress: float) -> float:
    """The rate at this progress (0 to 1) through training."""
    return rate[0] + (rate[1] - rate[0]) * min(max(progress, 0.0), 1.0) if isinstance(rate, tuple) else rate


def mean_rate(rate: Rate) -> float:
    """The rate averaged over training."""
    return sum(rate) / 2 if isinstance(rate, tuple) else rate


def read_rate(objective: str, rate: object) -> Rate:
    """A rate, or a pair of them, from what a recipe says."""
    if not isinstance(rate, (tuple, list)):
        return share(objective, "rate", rate)
    if len(rate) != 2:
        raise BothwaysError(f"objective '{objective}': rate is {rate!r}, but a schedule is two rates, the first and "
                            "the last, such as [0.3, 0.15]")
    return share(objective, "rate", rate[0]), share(objective, "rate", rate[1])


@functools.lru_cache(maxsize=64)
def read_shares(objective: str, replace: str) -> tuple[float, float, float]:
    """Shares of `<mask>`, random and unchanged from "80-10-10", or from "all"."""
    if replace == "all":
        return 1.0, 0.0, 0.0
    parts: Sequence[str] = str(replace).split("-")
    if len(parts) != 3 or not all(part.isdecimal() for part in parts) or sum(map(int, parts)) != 100:
        raise BothwaysError(f"objective '{objective}': replace is {replace!r}, but must be 'all' or three percentages "
                            "<mask>-random-unchanged that add up to 100, such as '80-10-10'")
    masked, random, kept = (int(part) / 100 for part in parts)
    return masked, random, kept
