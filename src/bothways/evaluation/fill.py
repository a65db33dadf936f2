"""Filling blanks: is the hidden token the likeliest one, and what does it cost in nats?

Every paradigm answers in its own way: who sees both sides uses both, a causal mode has only the left, an
encoder-decoder reads the text around the blank and writes it. The column says so; that difference is the finding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from bothways.batch import Vocabulary, Window
from bothways.evaluation.answers import TOKENS, answers
from bothways.evaluation.questions import Way, spread, ways
from bothways.evaluation.score import Score, mean_score, timed

if TYPE_CHECKING:
    from bothways.families.trained import Trained


def fill(trained: Trained, windows: Sequence[Window] | Sequence[np.ndarray], *, blanks: int = 256,
         spans: Sequence[int] = (1, 3), off_mode: bool = False, seed: int = 0, tokens: int = TOKENS) -> list[Score]:
    """Top-1 accuracy and NLL of hidden tokens, one blank in one window at a time.

    Args:
        windows: held-out windows; at most `blanks` of them, spread evenly, carry one blank each.
        spans: lengths of the blanks, in tokens.
    Returns:
        for each way and span length two Scores, per token; items are blanks. The places depend on (seed, number of
        the blank, span) only, so every model fills the same blanks.
    """
    scores: list[Score] = []
    for span in spans:
        asked = choose_blanks(windows, trained.vocabulary, blanks, span, seed)
        what = "single token" if span == 1 else f"span of {span}"
        for way in ways(trained, off_mode):
            with timed(scores):
                answered = answers(trained, [way.pose(*pair) for pair in asked], tokens)
                weights = [float(len(one.log_probs)) for one in answered]
                how = given(way, trained.vocabulary, span)
                scores.append(mean_score(f"fill accuracy, {what}", way.name, how,
                                         [float(one.correct.mean()) for one in answered], weights, unit="share"))
                scores.append(mean_score(f"fill NLL, {what}", way.name, how,
                                         [one.nats / max(len(one.log_probs), 1) for one in answered], weights,
                                         unit="nats per token", higher_is_better=False))
    return scores


def choose_blanks(windows: Sequence[Window] | Sequence[np.ndarray], vocabulary: Vocabulary, blanks: int, span: int,
                  seed: int = 0) -> list[tuple[np.ndarray, np.ndarray]]:
    """At most `blanks` pairs (ids (L,), hidden (L,) bool) with one blank of `span` plain tokens each.

    A blank never touches the first token or a reserved one; windows without room for one are passed over.
    """
    chosen = []
    for number, place in enumerate(spread(len(windows), blanks)):
        window = windows[place]
        ids = np.asarray(window.ids if isinstance(window, Window) else window, dtype=np.int64)
        free = ~vocabulary.special[ids]
        free[:1] = False
        starts = [start for start in range(1, len(ids) - span + 1) if free[start:start + span].all()]
        if starts and len(ids) >= 2 * span + 2:
            start = starts[int(np.random.default_rng((seed, number, span)).integers(len(starts)))]
            hidden = np.zeros(len(ids), dtype=bool)
            hidden[start:start + span] = True
            chosen.append((ids, hidden))
    return chosen


def given(way: Way, vocabulary: Vocabulary, span: int = 1) -> str:
    """What an answer had to go by: the estimator's name."""
    if way.kind == "exact":
        by = " by the decoder" if way.two_towers else ""
        return f"exact, both sides, written{by}" if reads_on(way, vocabulary) else "exact, left side only"
    return "exact, both sides" if span == 1 else "tokens of the span independent, both sides"


def reads_on(way: Way, vocabulary: Vocabulary) -> bool:
    """Whether who answers for a blank may see what stands behind it, found by posing one and looking.

    A prefix or infilling network writes from left to right and still reads a blank's both sides first, and so does
    a decoder whose encoder was shown them.
    """
    ordinary = np.flatnonzero(~vocabulary.special)[:7]
    if len(ordinary) < 2:
        return False
    ids = np.concatenate(([vocabulary.bos], np.resize(ordinary, 6)))
    other = ids.copy()
    other[-1] = ids[-2]
    hidden = np.arange(len(ids)) == 3
    one, two = way.pose(ids, hidden), way.pose(other, hidden)
    if one.source is not None and two.source is not None and not one.source.inputs.equal(two.source.inputs):
        return True
    behind = (one.inputs != two.inputs).nonzero().flatten()
    asked = one.asks[0].where
    seen = one.visibility.allows({name: fact[asked] for name, fact in one.fields.items()},
                                 {name: fact[behind] for name, fact in one.fields.items()})
    return bool(seen.any())
