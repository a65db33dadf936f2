"""The latent of an autoencoder: where a text lies, what is written there, and what lies between two texts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from bothways.batch import Example, pack
from bothways.decoding.common import blocked_tokens
from bothways.errors import BothwaysError
from bothways.families.trained import Trained
from bothways.model.latent import Latent
from bothways.objectives.base import example
from bothways.visibility import bidirectional, causal


def bottleneck(trained: Trained) -> Latent:
    """The latent between this network's towers.

    Raises:
        BothwaysError: there is none.
    """
    found = next((one for one in trained.network.companions.values() if isinstance(one, Latent)), None)
    if found is None:
        raise BothwaysError(f"a model trained by '{trained.objective.name}' has no latent between two towers: "
                            "train one with the objective 'variational'")
    return found


@torch.inference_mode()
def locate(trained: Trained, texts: Sequence[Sequence[int]]) -> Tensor:
    """Where texts lie: the mean of q(z | x) for each, (n, size).

    Args:
        texts: token ids; each is read between `<bos>` and `<eos>`.
    """
    found, vocabulary = bottleneck(trained), trained.vocabulary
    (row,) = pack([example(np.array([vocabulary.bos, *text, vocabulary.eos], dtype=np.int64), bidirectional)
                   for text in texts])
    row = row.to(trained.device)
    _, between = found(trained.network.encode(row).states, row.fields)
    return between["mean"]


@torch.inference_mode()
def write_from(trained: Trained, latents: Tensor, most: int = 64) -> list[list[int]]:
    """From each of the latents (n, size) the likeliest token after the likeliest token, up to an `<eos>`."""
    bottleneck(trained)
    begin, eos = trained.vocabulary.bos, trained.vocabulary.eos
    blocked = blocked_tokens(trained, [eos])
    written: list[list[int]] = [[] for _ in latents]
    going = list(range(len(latents)))
    for _ in range(min(most, trained.config.position.length)):
        if not going:
            break
        # everything is read again: a few short texts are not worth a cache
        (row,) = pack([_read(begin, written[number]) for number in going])
        ends = torch.tensor([len(written[number]) + 1 for number in going]).cumsum(0) - 1
        states = trained.network(row.to(trained.device), latent=latents[going]).states[ends.to(trained.device)]
        tokens = trained.network.logits(states).masked_fill(blocked, -torch.inf).argmax(-1).tolist()
        for number, token in zip(list(going), tokens, strict=True):
            if token == eos:
                going.remove(number)
            else:
                written[number].append(token)
    return written


def interpolate(trained: Trained, one: Sequence[int], other: Sequence[int], steps: int = 5, most: int = 64
                ) -> list[list[int]]:
    """What is written at `steps` places on the straight way from one text's latent to the other's, both included.

    Bowman et al. 2016 (arXiv 1511.06349), section 5.3, "homotopies".
    """
    if steps < 2:
        raise BothwaysError(f"steps is {steps}, but the two texts themselves are 2 already: give at least that many")
    ends = locate(trained, [one, other])
    return write_from(trained, torch.lerp(ends[:1], ends[1:], torch.linspace(0, 1, steps, device=ends.device)[:, None]),
                      most)


def _read(begin: int, written: Sequence[int]) -> Example:
    return example(np.array([begin, *written], dtype=np.int64), causal, cross=bidirectional)
