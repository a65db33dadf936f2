"""The chain of tags against brute force over every sequence."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from bothways.tasks.crf import CRF, NEVER, viterbi


def random_crf(tags: int, seed: int, free: bool = False) -> CRF:
    generator = torch.Generator().manual_seed(seed)
    follows = np.ones((tags, tags), bool)
    first = np.ones(tags, bool)
    if not free:
        first[1] = follows[0, 1] = False
    crf = CRF(first, follows)
    with torch.no_grad():
        for weight in crf.parameters():
            weight.copy_(torch.randn(weight.shape, generator=generator))
    return crf


@torch.no_grad()
def score(crf: CRF, scores: torch.Tensor, path: tuple[int, ...]) -> float:
    found = float(crf.begin[path[0]] + crf.first[path[0]] + crf.end[path[-1]])
    found += sum(float(scores[place, tag]) for place, tag in enumerate(path))
    return found + sum(float(crf.step[i, j] + crf.follows[i, j]) for i, j in itertools.pairwise(path))


@pytest.mark.parametrize("free", [True, False])
def test_forward_viterbi_and_marginals_are_those_of_all_sequences(free):
    crf = random_crf(3, 0, free)
    texts = [torch.randn(length, 3, generator=torch.Generator().manual_seed(length)) * 2 for length in (1, 4, 3)]
    totals = crf.total(texts).detach()
    for text, total in zip(texts, totals):
        every = list(itertools.product(range(3), repeat=len(text)))
        found = torch.tensor([score(crf, text, path) for path in every])
        assert float(total) == pytest.approx(float(found.logsumexp(0)), abs=1e-4)
        assert crf.best(text.numpy()) == list(every[int(found.argmax())])
        shares = found.softmax(0)
        for place in range(len(text)):
            for tag in range(3):
                wanted = sum(float(share) for share, path in zip(shares, every) if path[place] == tag)
                assert float(crf.marginals(text)[place, tag]) == pytest.approx(wanted, abs=1e-4)
    # the loss of texts of several lengths together is that of each alone
    tags = [torch.tensor([2]), torch.tensor([0, 2, 1, 1]), torch.tensor([2, 2, 0])]
    wanted = [float(total) - score(crf, text, tuple(path.tolist())) for text, total, path in zip(texts, totals, tags)]
    assert crf(texts, tags).tolist() == pytest.approx(wanted, abs=1e-4)


def test_what_may_not_be_is_never_best():
    crf = random_crf(3, 1)
    scores = np.zeros((5, 3), np.float32)
    scores[:, 1] = 50.0
    assert crf.best(scores) == [2, 1, 1, 1, 1]
    assert viterbi(np.zeros((0, 3)), np.zeros(3), np.zeros((3, 3)), np.zeros(3)) == []
    assert float(crf([torch.from_numpy(scores)], [torch.tensor([0, 1, 1, 1, 1])])[0]) > -NEVER / 2
