"""Contrastive search: of the likeliest tokens the one whose state is least like those before (arXiv 2202.06417, eq. 5).

score(v) = (1 - contrast) p(v) - contrast max over earlier places j of cos(state of v, state of j). Each step reads all
`top_k` candidates of every text at once, as rows that share what was read before them.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from bothways.decoding.left_to_right import NewToken, Writer


class ContrastiveWriter(Writer):
    """A `Writer` that chooses by contrast. `config.contrast` and `config.top_k` say how."""

    _states: Tensor | None = None
    """(open texts, D) of each last token."""
    _before: Tensor | None = None
    """(open texts, capacity, D) directions of all states so far, zeros behind."""
    _lengths: Tensor = torch.zeros(0, dtype=torch.long)
    """(open texts,) how many of them."""

    @torch.inference_mode()
    def step(self) -> list[NewToken]:
        """One more token for every open text."""
        self.evaluations += 1
        if self._states is None:
            self._read_prompts()
        assert self._states is not None and self._before is not None
        self._drop()
        # 1. candidates
        logits = self._logits(self._states)
        allowed = self._allowed(logits, self.open)
        count = min(self.config.top_k or 1, allowed.shape[-1])
        likely = allowed.softmax(-1).topk(count)
        # 2. their states, all read at once beside each other
        texts = len(self.open)
        self.reader.keep([text for text in range(texts) for _ in range(count)])
        states = self.reader.read([[token] for token in likely.indices.flatten().tolist()])
        directions = F.normalize(states.float(), dim=-1).unflatten(0, (texts, count))
        known = self._before[:, :int(self._lengths.max())]
        alike = (directions @ known.transpose(1, 2)).masked_fill(
            (torch.arange(known.shape[1]) >= self._lengths[:, None]).to(self.device)[:, None], -torch.inf).amax(-1)
        # 3. the best goes on
        weight = self.config.contrast
        scores = (1 - weight) * likely.values - weight * alike
        chosen = scores.masked_fill(likely.values == 0, -torch.inf).argmax(-1)
        places = torch.arange(texts, device=self.device)
        self.reader.keep((places * count + chosen).tolist())
        self._states = states.unflatten(0, (texts, count))[places, chosen]
        self._before[places, self._lengths.to(self.device)] = directions[places, chosen]
        self._lengths = self._lengths + 1
        tokens = likely.indices[places, chosen]
        logprobs = logits.gather(-1, tokens.unsqueeze(-1)).squeeze(-1) - logits.logsumexp(-1)
        return [self._wrote(*new) for new in zip(list(self.open), tokens.tolist(), logprobs.tolist(), strict=True)]

    def _read_prompts(self) -> None:
        rows, examples = zip(*self._waiting, strict=True)
        self._waiting, self._stay = [], list(rows)
        states, ends = self.reader.join(examples, self.most + 1)
        lengths = [len(example) for example in examples]
        self._lengths = torch.tensor(lengths)
        self._before = torch.zeros(len(rows), max(lengths) + self.most + 1, states.shape[-1], device=self.device)
        for row, (end, length) in enumerate(zip(ends, lengths, strict=True)):
            self._before[row, :length] = F.normalize(states[end + 1 - length:end + 1].float(), dim=-1)
        self._states = states[torch.tensor(ends, device=self.device)]

    def _drop(self) -> None:
        """Texts that have ended leave."""
        places = [place for place, row in enumerate(self._stay) if row in self.open]
        if len(places) == len(self._stay):
            return
        assert self._states is not None and self._before is not None
        self._leave()
        chosen = torch.tensor(places)
        self._states, self._before = self._states[chosen.to(self.device)], self._before[chosen.to(self.device)]
        self._lengths = self._lengths[chosen]
