"""Tuned tasks read texts in packed rows, and answer as if each text had been read alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.evaluation.small import small

from bothways.tasks.classify import Options
from bothways.tasks.ways import Choices, Row
from bothways.tasks.ways.head import ByHead, Form, Head


@pytest.mark.parametrize("paradigm", ["masked", "causal", "denoising"])
@pytest.mark.parametrize("pooling", ["mean", "mean-all", "first", "last"])
def test_a_classifier_packed_is_as_alone(paradigm: str, pooling: str) -> None:
    trained = small(paradigm, sharp=1.0)
    head = Head(trained.config.shape.width, 2)
    with torch.no_grad():
        head.out.weight.normal_(generator=torch.Generator().manual_seed(0))
    way = ByHead(trained, head, Choices(("cat", "dog"), False, Options()), Form(), pooling, None)
    way.model.eval()
    rng = np.random.default_rng(1)
    texts = [Row(" ".join(rng.choice(["cat", "dog", "sees", "w1", "w2"], n)), None, None) for n in (4, 1, 13, 2, 2, 7)]
    alone = np.concatenate([way.log_probabilities([text]) for text in texts])
    # who looks left only knows nothing of a text at its first token
    assert len(np.unique(alone[:, 0].round(4))) > 3 or (paradigm, pooling) == ("causal", "first")
    for tokens in (1, 16, 4096):
        assert way.log_probabilities(texts, tokens) == pytest.approx(alone, abs=1e-5)
    assert way.log_probabilities([]).shape == (0, 2)
