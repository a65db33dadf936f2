"""Checks of an objective's options; each refusal is one sentence that says what to change."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from bothways.batch import Vocabulary
from bothways.errors import BothwaysError, nearest


def is_number(value: object) -> bool:
    """A plain number; `True` is not one."""
    return isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)


def share(objective: str, option: str, value: object) -> float:
    """A number strictly between 0 and 1."""
    if not is_number(value) or not 0 < float(value) < 1:  # type: ignore[arg-type]
        raise BothwaysError(f"objective '{objective}': {option} is {value!r}, but must be a number between 0 and 1, "
                            "such as 0.15")
    return float(value)  # type: ignore[arg-type]


def at_least(objective: str, option: str, value: object, least: float) -> float:
    """A number of at least `least`."""
    if not is_number(value) or not float(value) >= least:  # type: ignore[arg-type]
        raise BothwaysError(f"objective '{objective}': {option} is {value!r}, but must be a number of at least "
                            f"{least:g}")
    return float(value)  # type: ignore[arg-type]


def whole(objective: str, option: str, value: object, least: int) -> int:
    """A whole number of at least `least`."""
    if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or value < least:
        raise BothwaysError(f"objective '{objective}': {option} is {value!r}, but must be a whole number of at least "
                            f"{least}")
    return int(value)


def flag(objective: str, option: str, value: object) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise BothwaysError(f"objective '{objective}': {option} is {value!r}, but must be true or false")
    return value


def choice(objective: str, option: str, value: object, known: Sequence[str]) -> str:
    """One of the known names."""
    if value not in known:
        raise BothwaysError(f"objective '{objective}': {option} is {value!r} {nearest(str(value), known)}")
    return str(value)


def need_tokens(objective: str, vocabulary: Vocabulary, tokens: Sequence[str]) -> None:
    """Refuse a tokenizer without the reserved tokens an objective writes."""
    missing = [token for token in tokens if token not in vocabulary.ids]
    if missing:
        raise BothwaysError(f"objective '{objective}' writes {' and '.join(missing)}, which this tokenizer does not "
                            "have: add it to the tokenizer's special tokens or choose another objective")


def need_sentences(objective: str, vocabulary: Vocabulary, texts: Iterable[np.ndarray]) -> None:
    """Refuse texts (ids each) in which no sentence ends before the last token."""
    if not any(vocabulary.ends_sentence[ids[:-1]].any() for ids in texts):
        raise BothwaysError(f"objective '{objective}' works on sentences, and none ends (. ! or ?) in this text: give "
                            "it text with sentences, or choose another objective")


def need_ordinary(objective: str, vocabulary: Vocabulary) -> None:
    """Refuse a tokenizer that has nothing but reserved tokens."""
    if vocabulary.special.all():
        raise BothwaysError(f"objective '{objective}' needs a tokenizer with ordinary tokens, and this one has only "
                            "reserved ones")
