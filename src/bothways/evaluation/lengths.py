"""How long a text of the known source is: exactly, by the forward algorithm without looking at the words.

A network that fills places knows how many there are, which a network that writes from left to right has to predict
(the end of the text is a token for it). To compare the two, that knowledge is given its true price.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bothways.text.grammar import STOPS

if TYPE_CHECKING:
    from bothways.text.known import KnownSource


def length_nll(source: KnownSource, ids: np.ndarray, start: int) -> float:
    """-log p(the document has `len(ids)` tokens | ids[:start]), in nats, exactly.

    Args:
        ids: (L,) a whole document, `<bos> ... <eos>`; only `ids[:start]` and L matter.
        start: how many tokens are known, at least the `<bos>`.
    """
    from bothways.text.known import SENTENCES

    says, moves = source.grammar.says, source.grammar.moves
    first = source.tokenizer.size - len(source.grammar.words)
    stop_words = np.isin(source.grammar.words, STOPS)
    stops = says[:, stop_words].sum(axis=1)
    # 1. what the known words say of the state, and how many sentences they finish
    state, finished, after_stop = source.grammar.starts, 0, False
    for token in ids[1:start]:
        joint = state * says[:, token - first]
        state = joint / joint.sum() @ moves
        after_stop = bool(stop_words[token - first])
        finished += after_stop
    # 2. from there on only: has a sentence ended here? `going` and `paused` are (sentences, S) masses of documents
    # in the middle of a sentence and behind a stop
    most = max(SENTENCES)
    going, paused = np.zeros((most + 1, len(state))), np.zeros((most + 1, len(state)))
    (paused if after_stop else going)[finished] = state
    for place in range(start, len(ids)):
        ending = _ends(SENTENCES)[:, None] * paused
        if place == len(ids) - 1:
            return -float(np.log(max(ending.sum(), 1e-300)))
        said = going + paused - ending
        going = (said * (1 - stops)) @ moves
        paused = np.vstack([np.zeros(len(state)), (said * stops)[:-1] @ moves])
    return 0.0


def _ends(sentences: dict[int, float]) -> np.ndarray:
    """(n,) the probability that a document ends behind its n-th sentence, given that it has come so far."""
    shares = np.array([sentences.get(n, 0.0) for n in range(max(sentences) + 1)])
    left = np.cumsum(shares[::-1])[::-1]
    return np.divide(shares, left, out=np.zeros_like(shares), where=left > 0)
