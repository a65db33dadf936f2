"""Gibbs sampling from a network that names hidden tokens (BERT has a mouth, arXiv 1902.04094, section 2.3).

What is known of its distribution. A Gibbs sampler whose conditionals come from one joint distribution has that joint as
its limit. Nothing makes a network's conditionals agree so: they are a dependency network (Heckerman et al. 2000), whose
sampler has a limit that depends on the order of the visits, and equals no distribution that the network states; the
network is no Markov random field either (arXiv 2305.15501 compares the joints one may build instead). A correction by
Metropolis-Hastings needs an energy to aim at (arXiv 2106.02736). So what is drawn here has no likelihood; the log
probability of each token is the one it had when it was last drawn, and their sum is that of no text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from bothways.decoding.blanks import Blanks, Reader, predict
from bothways.decoding.diffusion import queue
from bothways.decoding.sampling import GenerateConfig
from bothways.families.trained import Trained
from bothways.objectives.base import Mode

SWEEPS = 5
"""Visits of each blank, on average, when no number of steps is asked for."""


def gibbs(trained: Trained, texts: Sequence[Blanks], mode: Mode, blocked: Tensor, config: GenerateConfig,
          reader: Reader | None = None) -> None:
    """Fill every text in place: each step hides one place and draws it anew given everything else.

    All places begin hidden. The first visits go once through all of them; later ones go to any place (`order`
    "random", the default) or round and round in the order given. Greedy (temperature 0) each place takes the likeliest
    token, which is Besag's iterated conditional modes.

    `steps` counts visits, at least one for each blank.
    """
    config = replace(config, order=config.order or "random")
    firsts = [queue(text, config) for text in texts]
    visits = [config.steps or SWEEPS * len(text.places) for text in texts]
    for turn in range(max(visits, default=0)):
        open_ = [i for i, text in enumerate(texts) if turn < visits[i] and len(text.places)]
        places = []
        for i in open_:
            text, first = texts[i], firsts[i]
            assert first is not None
            again = config.order == "random" and turn >= len(first)
            lot = int(torch.randint(len(first), (1,), generator=text.generator)) if again else turn % len(first)
            text.hidden[first[lot]] = True
            places.append(first[lot:lot + 1])
        waiting = [texts[i] for i in open_]
        for text, answer in zip(waiting, predict(trained, waiting, mode, blocked, config, reader, places),
                                strict=True):
            text.write(answer.places, answer.tokens, answer.logprobs)
