"""What may come next beside what is likely: rules that know what a text has so far.

A rule changes the scores of the next token and hears of every token that is written. Texts have numbers; a rule keeps
what it needs to know of each, in constant work for a token.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from bothways.decoding.sampling import BLOCKED, GenerateConfig, penalise_counts, penalise_repeats
from bothways.errors import BothwaysError


class Rule(Protocol):
    """Something that has a say in the next token of each text."""

    def apply(self, logits: Tensor, texts: Sequence[int]) -> Tensor:
        """Scores (n, V) of the next token of these texts, changed."""

    def wrote(self, text: int, token: int) -> None:
        """Hear that a text has one token more."""

    def keep(self, texts: Sequence[int]) -> None:
        """Texts are numbered anew: number i is a copy of what was number texts[i]."""

    def join(self, read: Sequence[int], begun: Sequence[int]) -> None:
        """One more text, with the next number: what the writing tower reads of it, and what a penalty counts."""


class Seen:
    """Repetition, frequency and presence penalties.

    Args:
        begun: the tokens of each text that the repetition penalty counts from the start; the others count what is
            written only, as where they come from (OpenAI's API).
        size: of the vocabulary.
    """

    def __init__(self, config: GenerateConfig, begun: Sequence[Sequence[int]], size: int, device: torch.device) -> None:
        self.repetition = config.repetition_penalty
        self.frequency, self.presence = config.frequency_penalty, config.presence_penalty
        self.seen = torch.zeros(len(begun), size, dtype=torch.bool, device=device)
        self.counts = torch.zeros(len(begun), size, device=device)
        for text, tokens in enumerate(begun):
            self.seen[text, torch.as_tensor(list(tokens), dtype=torch.long, device=device)] = True

    def apply(self, logits: Tensor, texts: Sequence[int]) -> Tensor:
        chosen = torch.as_tensor(texts, device=logits.device)
        if self.repetition != 1:
            logits = penalise_repeats(logits, self.seen[chosen], self.repetition)
        return penalise_counts(logits, self.counts[chosen], self.frequency, self.presence)

    def wrote(self, text: int, token: int) -> None:
        self.seen[text, token] = True
        self.counts[text, token] += 1

    def keep(self, texts: Sequence[int]) -> None:
        chosen = torch.as_tensor(texts, device=self.seen.device)
        self.seen, self.counts = self.seen[chosen], self.counts[chosen]

    def join(self, read: Sequence[int], begun: Sequence[int]) -> None:
        self.seen = torch.cat((self.seen, torch.zeros_like(self.seen[:1])))
        self.counts = torch.cat((self.counts, torch.zeros_like(self.counts[:1])))
        self.seen[-1, torch.as_tensor(list(begun), dtype=torch.long, device=self.seen.device)] = True


class NoRepeatedGrams:
    """No sequence of n tokens stands twice in a text (arXiv 1705.04304, section 2.5).

    What the writing tower has read counts. A table from the last n - 1 tokens to those that followed them makes the
    work for a token the same wherever it stands.

    Args:
        n: 1 or more; 1 writes no token twice.
        begun: the tokens that the writing tower reads of each text.
    """

    def __init__(self, n: int, begun: Sequence[Sequence[int]]) -> None:
        self.n = n
        self.tails: list[tuple[int, ...]] = []
        self.followed: list[dict[tuple[int, ...], tuple[int, ...]]] = []
        for tokens in begun:
            self.join(tokens, tokens)

    def apply(self, logits: Tensor, texts: Sequence[int]) -> Tensor:
        blocked = [(row, token) for row, text in enumerate(texts) if len(self.tails[text]) == self.n - 1
                   for token in self.followed[text].get(self.tails[text], ())]
        if not blocked:
            return logits
        rows, tokens = torch.tensor(blocked, device=logits.device).unbind(1)
        return logits.index_put((rows, tokens), torch.full((len(blocked),), BLOCKED, device=logits.device,
                                                          dtype=logits.dtype))

    def wrote(self, text: int, token: int) -> None:
        tail = self.tails[text]
        if len(tail) == self.n - 1:
            self.followed[text][tail] = (*self.followed[text].get(tail, ()), token)
        self.tails[text] = (*tail, token)[-(self.n - 1):] if self.n > 1 else ()

    def keep(self, texts: Sequence[int]) -> None:
        self.tails = [self.tails[text] for text in texts]
        old, used = self.followed, set[int]()
        # the first to follow a text goes on with its table, others get a copy
        self.followed = []
        for text in texts:
            self.followed.append(copy.copy(old[text]) if text in used else old[text])
            used.add(text)

    def join(self, read: Sequence[int], begun: Sequence[int]) -> None:
        self.tails.append(())
        self.followed.append({})
        for token in read:
            self.wrote(len(self.tails) - 1, int(token))


class Bias:
    """What is added to the scores of some tokens."""

    def __init__(self, pairs: Sequence[tuple[int, float]], size: int, device: torch.device) -> None:
        self.terms = torch.zeros(size, device=device)
        for token, bias in pairs:
            if not 0 <= token < size:
                raise BothwaysError(f"logit_bias names the token {token}, but the vocabulary has the ids 0 to "
                                    f"{size - 1}: leave it out")
            self.terms[token] += bias

    def apply(self, logits: Tensor, texts: Sequence[int]) -> Tensor:
        return logits + self.terms

    def wrote(self, text: int, token: int) -> None:
        pass

    def keep(self, texts: Sequence[int]) -> None:
        pass

    def join(self, read: Sequence[int], begun: Sequence[int]) -> None:
        pass


def rules_of(config: GenerateConfig, read: Sequence[Sequence[int]], begun: Sequence[Sequence[int]], size: int,
             device: torch.device) -> list[Rule]:
    """The rules that a config asks for, in the order in which they speak.

    Args:
        read: what the writing tower has read of each text.
        begun: what the repetition penalty counts of each text.
    """
    rules: list[Rule] = []
    if config.logit_bias:
        rules.append(Bias(tuple(dict(config.logit_bias).items()), size, device))
    if config.repetition_penalty != 1 or config.frequency_penalty or config.presence_penalty:
        rules.append(Seen(config, begun, size, device))
    if config.no_repeat_ngram is not None:
        rules.append(NoRepeatedGrams(config.no_repeat_ngram, read))
    return rules
