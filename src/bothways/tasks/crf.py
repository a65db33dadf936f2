"""A conditional random field over a chain of tags (Lafferty, McCallum and Pereira 2001), and the best path through one.

The score of a sequence of tags is the sum of what each word gives its tag, what each tag gives the one behind it, and
what the first and last tag get. log p(tags | words) is that score minus the log of the sum over all sequences, found
by the forward algorithm; the best sequence is found by Viterbi's.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

NEVER = -1e4
"""The score of a step that is not allowed: finite, so that gradients are."""


class CRF(nn.Module):
    """Scores of neighbouring tags.

    Args:
        first: (T,) bool, with which tags a sequence may begin.
        follows: (T, T) bool, [i, j]: whether tag j may stand behind tag i.
    """

    def __init__(self, first: np.ndarray, follows: np.ndarray) -> None:
        super().__init__()
        tags = len(first)
        self.begin, self.end = nn.Parameter(torch.zeros(tags)), nn.Parameter(torch.zeros(tags))
        self.step = nn.Parameter(torch.zeros(tags, tags))
        self.first: Tensor
        self.follows: Tensor
        self.register_buffer("first", torch.from_numpy(np.where(first, 0.0, NEVER)).float(), persistent=False)
        self.register_buffer("follows", torch.from_numpy(np.where(follows, 0.0, NEVER)).float(), persistent=False)

    def forward(self, scores: Sequence[Tensor], tags: Sequence[Tensor]) -> Tensor:
        """(texts,) -log p of the tags of each text.

        Args:
            scores: (L_i, T) of each text, L_i at least 1. tags: (L_i,) the numbers of its tags.
        """
        lengths = torch.tensor([len(one) for one in scores], device=self.begin.device)
        padded, numbers = pad_sequence(list(scores), True), pad_sequence(list(tags), True)
        return self.total(scores) - self._path(padded, numbers, lengths)

    def total(self, scores: Sequence[Tensor]) -> Tensor:
        """(texts,) the log of the sum over all sequences of tags of exp(score): the forward algorithm."""
        lengths = torch.tensor([len(one) for one in scores], device=self.begin.device)
        padded = pad_sequence(list(scores), True)
        step = self.step + self.follows
        so_far = self.begin + self.first + padded[:, 0]
        for place in range(1, padded.shape[1]):
            further = (so_far[:, :, None] + step).logsumexp(1) + padded[:, place]
            so_far = torch.where((place < lengths)[:, None], further, so_far)
        return (so_far + self.end).logsumexp(-1)

    def _path(self, scores: Tensor, tags: Tensor, lengths: Tensor) -> Tensor:
        """(texts,) the score of one sequence of tags each."""
        real = torch.arange(scores.shape[1], device=scores.device) < lengths[:, None]
        each = torch.where(real, scores.gather(-1, tags[..., None])[..., 0], 0.0).sum(1)
        steps = torch.where(real[:, 1:], (self.step + self.follows)[tags[:, :-1], tags[:, 1:]], 0.0).sum(1)
        last = tags.gather(1, (lengths - 1)[:, None])[:, 0]
        return each + steps + (self.begin + self.first)[tags[:, 0]] + self.end[last]

    def marginals(self, scores: Tensor) -> Tensor:
        """(L, T) the probability of each tag at each word: the gradient of the log of the sum by the words' scores."""
        with torch.inference_mode(False), torch.enable_grad():
            free = scores.detach().clone().requires_grad_()
            (found,) = torch.autograd.grad(self.total([free]).sum(), free)
        return found

    def best(self, scores: np.ndarray) -> list[int]:
        """The best sequence of tags for (L, T) scores."""
        begin, end, step, first, follows = (part.detach().float().cpu().numpy() for part in (
            self.begin, self.end, self.step, self.first, self.follows))
        return viterbi(scores, begin + first, step + follows, end)


def viterbi(scores: np.ndarray, begin: np.ndarray, step: np.ndarray, end: np.ndarray) -> list[int]:
    """The sequence of tags with the highest score (Viterbi 1967).

    Args:
        scores: (L, T). begin, end: (T,) of the first and last tag. step: (T, T), [i, j] of tag j behind tag i.
    Returns:
        L numbers; none for no word.
    """
    if not len(scores):
        return []
    so_far, back = begin + scores[0], []
    for line in scores[1:]:
        ways = so_far[:, None] + step
        back.append(ways.argmax(0))
        so_far = ways.max(0) + line
    path = [int((so_far + end).argmax())]
    for came_from in reversed(back):
        path.append(int(came_from[path[-1]]))
    return path[::-1]
