"""The bound of a model with a latent: -log p(x) of whole texts is at most reconstruction plus divergence (-ELBO)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from bothways.batch import Key, Window, pack
from bothways.evaluation.likelihood import suffix_scores
from bothways.evaluation.questions import spread
from bothways.evaluation.rows import reading
from bothways.evaluation.score import Score, timed

if TYPE_CHECKING:
    from bothways.families.trained import Trained


def elbo(trained: Trained, windows: Sequence[Window] | Sequence[np.ndarray], *, limit: int = 64, samples: int = 8,
         seed: int = 0) -> list[Score]:
    """NLL of whole windows, bounded from above by draws of z (Bowman et al. 2016, arXiv 1511.06349, equation 1).

    Args:
        trained: by 'variational'; nothing is scored for another objective, or for an autoencoder without a KL part.
        limit: windows, spread evenly. samples: draws of z for each.
    Returns:
        "text NLL" (nats per token) and, where tokens have bytes, "text bits per byte".
    """
    if not any(one.kind == "latent" for one in trained.objective.companions):
        return []
    scores: list[Score] = []
    with timed(scores):
        asked = []
        for place in spread(len(windows), limit):
            window = windows[place]
            ids = np.asarray(window.ids if isinstance(window, Window) else window, dtype=np.int64)
            hidden = np.arange(len(ids)) >= int(ids[:1].tolist() == [trained.vocabulary.bos])
            if hidden.any():
                asked.append((ids, hidden))
        nats = np.array([bound(trained, ids, samples, Key(seed, 0, number)) for number, (ids, _) in enumerate(asked)])
        scores += suffix_scores("text", trained.objective.modes[0].name, f"upper bound, {samples} samples", nats, asked,
                                trained.vocabulary)
    return scores


def bound(trained: Trained, ids: np.ndarray, samples: int, key: Key) -> float:
    """-ELBO of one text (L,) in nats, averaged over draws of z: at least -log p(x) on average."""
    with reading(trained.network), torch.no_grad():
        draws = [trained.objective.corrupt(Window(ids), Key(key.seed, draw, key.index, 1.0)) for draw in range(samples)]
        (row,) = pack(draws)
        network: Any = trained.network
        parts = trained.objective.parts(network, row.to(trained.device))
    return sum(float(part.sum) for part in parts) / samples
