"""What the objectives for two towers share: the decoder's side, and T5's way of hiding spans behind sentinels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bothways.batch import Example, Vocabulary
from bothways.errors import BothwaysError
from bothways.objectives.base import Mode, ask, example
from bothways.objectives.noise import collapse, inserted, inside
from bothways.visibility import bidirectional, causal

MODE = Mode("encoder-decoder", causal, predicts="next", likelihood="exact")


def taught(source: np.ndarray, target: np.ndarray, asked: np.ndarray, begin: int, raw: int) -> Example:
    """The encoder reads `source`; the decoder reads `begin` and the target moved by one.

    Args:
        source: (M,) int64 ids. target: (T,) int64 ids. asked: (T,) bool, True where the target is asked for.
        begin: the id the decoder begins with.
        raw: text tokens this was made from.
    """
    inputs = np.concatenate(([begin], target[:-1]))
    where = np.flatnonzero(asked)
    return example(inputs, causal, [ask(where, target[where])], example(source, bidirectional), bidirectional, raw)


def begun(source: np.ndarray, written: Sequence[int] | np.ndarray) -> Example:
    """What writing goes on from: the source, and what the decoder has written already (at least one token)."""
    return example(np.asarray(written, dtype=np.int64), causal, source=example(source, bidirectional),
                   cross=bidirectional)


def closed(ids: np.ndarray, vocabulary: Vocabulary) -> np.ndarray:
    """A copy that ends in `<eos>`."""
    return ids.copy() if len(ids) and ids[-1] == vocabulary.eos else np.concatenate((ids, [vocabulary.eos]))


def before_end(written: Sequence[int], vocabulary: Vocabulary) -> list[int]:
    """What was written, up to its `<eos>`."""
    tokens = [int(token) for token in written]
    return tokens[:tokens.index(vocabulary.eos)] if vocabulary.eos in tokens else tokens


# --- spans behind sentinels ---

def sentinels(spans: int, vocabulary: Vocabulary, objective: str, what: str, change: str) -> np.ndarray:
    """The first `spans` sentinels: (spans,) int64.

    Args:
        what, change: the text that has so many spans, and what makes them fewer, for the complaint.
    Raises:
        BothwaysError: the tokenizer has not so many.
    """
    if spans > len(vocabulary.sentinels):
        raise BothwaysError(f"{objective}: {what} has {spans} spans, but the tokenizer has only "
                            f"{len(vocabulary.sentinels)} sentinels: {change}")
    return np.array(vocabulary.sentinels[:spans], dtype=np.int64)


def spelled_out(ids: np.ndarray, starts: np.ndarray, lengths: np.ndarray, marks: np.ndarray, vocabulary: Vocabulary,
                raw: int, contents_only: bool = False) -> Example:
    """T5's format: the source with a mark for each span, the target each mark and its span, both closed by `<eos>`.

    Args:
        starts, lengths, marks: (S,) of the spans, in rising order, and the sentinels that stand for them.
        contents_only: ask for the contents of the spans alone, without sentinels and closing.
    """
    source = closed(collapse(ids, starts, lengths, marks), vocabulary)
    # 1. the target: each sentinel before its span
    offsets = np.cumsum(lengths) - lengths
    target = np.concatenate((inserted(ids[inside(starts, lengths)], offsets, marks), [vocabulary.eos]))
    # 2. what is asked: all of it, or the contents
    asked = np.ones(len(target), bool)
    if contents_only:
        asked[offsets + np.arange(len(marks))] = False
        asked[-1] = False
    return taught(source, target, asked, vocabulary.bos, raw)


def behind_sentinels(fills: Sequence[Sequence[int]], vocabulary: Vocabulary) -> list[int]:
    """Each fill after its sentinel, then `<eos>`: what `into_blanks` reads."""
    marked = zip(vocabulary.sentinels, fills, strict=False)
    return [*(int(token) for mark, fill in marked for token in (mark, *fill)), vocabulary.eos]


def rewritten(ids: np.ndarray, fills: Sequence[Sequence[int]], vocabulary: Vocabulary) -> list[int]:
    """The whole text with its blanks filled, without `<bos>` and closed by `<eos>`."""
    left = iter(fills)
    text = [int(token) for one in ids for token in (next(left) if one == vocabulary.mask else [one])]
    return [*text[int(text[0] == vocabulary.bos):], *([] if text[-1] == vocabulary.eos else [vocabulary.eos])]


def into_blanks(ids: np.ndarray, written: Sequence[int], vocabulary: Vocabulary) -> list[int]:
    """Each `<mask>` of `ids` takes what was written after its sentinel; one that was not written stays empty."""
    places = {token: i for i, token in enumerate(vocabulary.sentinels)}
    fills: dict[int, list[int]] = {}
    current: list[int] = []
    for token in before_end(written, vocabulary):
        if token in places:
            current = fills.setdefault(places[token], [])
        else:
            current.append(token)
    filled: list[int] = []
    blank = 0
    for token in ids:
        if token == vocabulary.mask:
            filled += fills.get(blank, [])
            blank += 1
        else:
            filled.append(int(token))
    return filled
