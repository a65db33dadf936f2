"""Likelihood of texts longer than the model: windows with new tokens and as many of those before as fit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from bothways.errors import BothwaysError
from bothways.evaluation.answers import TOKENS
from bothways.evaluation.likelihood import Asked, bound, estimator, exact, suffix_scores
from bothways.evaluation.pseudo import RULES, pseudo_nats
from bothways.evaluation.questions import Way, ways
from bothways.evaluation.score import Score, timed

if TYPE_CHECKING:
    from bothways.families.trained import Trained


def strides(length: int, window: int, stride: int | None = None) -> list[tuple[int, int, int]]:
    """(start, first, end) of each window of a text of `length` tokens: ids[start:end] are read, first..end asked for.

    The token before every asked one is read too, so a window holds `window` + 1 tokens, of which the last is only
    asked for. The first window asks for all but the first token, the others for `stride` new ones, each with
    at least `window` - `stride` + 1 before it. A stride of the window is the disjoint scheme with one token of context.

    Raises:
        BothwaysError: a stride that is not between 1 and the window.
    """
    stride = window if stride is None else stride
    if not 1 <= stride <= window:
        raise BothwaysError(f"a stride of {stride} does not fit a window of {window} tokens: choose 1 to {window}")
    found, first = [], 1
    while first < length:
        end = min(length, first + (window if first == 1 else stride))
        found.append((max(0, end - 1 - window), first, end))
        first = end
    return found


def pieces(ids: np.ndarray, window: int, stride: int | None = None) -> list[Asked]:
    """The questions of one text that begins with `<bos>`: (ids (W,), hidden (W,) bool) for each window."""
    return [(ids[start:end], np.arange(start, end) >= first) for start, first, end in
            strides(len(ids), window, stride)]


def documents(trained: Trained, texts: Sequence[np.ndarray], *, window: int | None = None, stride: int | None = None,
              samples: int = 16, rule: str | None = None, off_mode: bool = False, seed: int = 0,
              tokens: int = TOKENS) -> list[Score]:
    """NLL of whole texts of any length.

    Args:
        texts: (L,) ids that begin with `<bos>`, which is given and not asked for.
        window: tokens read at once; the longest the model was made for when none.
        stride: new tokens in each window after the first; the whole window when none.
        rule: a pseudo-likelihood of `pseudo.RULES` instead of the bound, where both sides are seen.
    Returns:
        "document NLL" (nats per token) and "document bits per byte" for each way; items are texts. `details` has the
        perplexity per token and per byte of an exact way.
    """
    vocabulary = trained.vocabulary
    size = window or trained.config.position.length
    cut = [pieces(np.asarray(text, dtype=np.int64), size, stride) for text in texts]
    owner = np.repeat(np.arange(len(cut)), [len(parts) for parts in cut])
    asked = [part for parts in cut for part in parts]
    whole = [(np.asarray(text), np.arange(len(text)) > 0) for text in texts]
    scores: list[Score] = []
    for way in ways(trained, off_mode):
        with timed(scores):
            nats = np.bincount(owner, _nats(trained, way, asked, samples, rule, seed, tokens), minlength=len(cut))
            how = RULES[rule] if rule and way.kind == "both sides" else estimator(way, samples)
            how += f", {size} at once, {stride or size} new"
            scores += suffix_scores("document", way.name, how, nats, whole, vocabulary)
            if way.kind == "exact" and len(cut):
                last = scores[-1]
                last.details["perplexity"] = math.exp(nats.sum() / last.details["tokens"])
    return scores


def _nats(trained: Trained, way: Way, asked: Sequence[Asked], samples: int, rule: str | None, seed: int,
          tokens: int) -> np.ndarray:
    """-log p of each window's hidden tokens, by the estimator that fits the way."""
    if way.kind == "exact":
        return exact(trained, way, asked, tokens)
    return pseudo_nats(trained, way, asked, rule, tokens) if rule else bound(trained, way, asked, samples, seed, tokens)
