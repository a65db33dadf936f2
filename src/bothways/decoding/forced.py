"""Beam search with strings that must stand in the text: places in the beam are shared out by how much of them stands.

Dynamic beam allocation (Post and Vilar 2018, arXiv 1804.06609, section 3): beginnings are sorted into banks by how many
forced tokens they hold, and the beam takes from every bank in turn, so that a beginning that meets a constraint is not
lost beside likelier ones that do not.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from torch import Tensor

from bothways.decoding.sampling import BLOCKED

Phrase = tuple[int, ...]


class Forced:
    """How far each beam has come with every constraint.

    Args:
        constraints: for each, the phrases (token ids) of which one must stand in the text.
        beams: how many beginnings there are.
    """

    def __init__(self, constraints: Sequence[Sequence[Phrase]], beams: int) -> None:
        self.constraints = [list(phrases) for phrases in constraints]
        self.met: list[frozenset[int]] = [frozenset() for _ in range(beams)]
        """Of each beam, the constraints that are met."""
        self.tails: list[Phrase] = [() for _ in range(beams)]
        self._longest = max((len(phrase) for phrases in self.constraints for phrase in phrases), default=0)

    def hold_back(self, scores: Tensor, beams: Sequence[int], ends: Collection[int]) -> Tensor:
        """No text ends before all its constraints are met."""
        for row, beam in enumerate(beams):
            if len(self.met[beam]) < len(self.constraints):
                scores = scores.index_put((torch.tensor(row), torch.tensor(list(ends))), torch.tensor(BLOCKED))
        return scores

    def all_met(self, beam: int, token: int) -> bool:
        """Whether everything stands once this token does."""
        return len(self._after(beam, token)[0]) == len(self.constraints)

    def candidates(self, scores: Tensor, beams: Sequence[int], size: int, ends: Collection[int]
                   ) -> list[tuple[int, int]]:
        """Continuations (row, token): the likeliest, and all that go on with a constraint, bank by bank."""
        # 1. who is considered
        count = min(max(2, 1 + len(ends)) * size, scores.numel())
        considered = set(scores.flatten().topk(count).indices.tolist())
        vocabulary = scores.shape[-1]
        for row, beam in enumerate(beams):
            best = int(scores[row].argmax())
            considered.update(row * vocabulary + token for token in (*self._next(beam), best))
        # 2. banks by the number of forced tokens that are missing, the best of each first
        banks: dict[int, list[tuple[int, int, float]]] = {}
        for place in considered:
            row, token = place // vocabulary, place % vocabulary
            score = float(scores[row, token])
            if score > -torch.inf:
                banks.setdefault(self._missing(beams[row], token), []).append((row, token, score))
        for bank in banks.values():
            bank.sort(key=lambda one: -one[2])
        # 3. the best of every bank, then the second best, fuller banks first
        order = sorted(banks)
        ranked = [(rank, number, one) for number, bank in enumerate(order) for rank, one in enumerate(banks[bank])]
        return [one[:2] for _, _, one in sorted(ranked, key=lambda entry: entry[:2])][:count]

    def wrote(self, beam: int, token: int) -> None:
        """Hear that a beam has one token more."""
        self.met[beam], self.tails[beam] = self._after(beam, token)

    def keep(self, beams: Sequence[int]) -> None:
        """Beam i is now a copy of what was beam beams[i]."""
        self.met, self.tails = [self.met[beam] for beam in beams], [self.tails[beam] for beam in beams]

    def _after(self, beam: int, token: int) -> tuple[frozenset[int], Phrase]:
        tail = (*self.tails[beam], token)[-self._longest:]
        met = {number for number, phrases in enumerate(self.constraints)
               if any(tail[-len(phrase):] == phrase for phrase in phrases)}
        return self.met[beam] | met, tail

    def _missing(self, beam: int, token: int) -> int:
        """How many tokens must still come after this one, at least: of each open constraint its nearest phrase."""
        met, tail = self._after(beam, token)
        return sum(min(len(phrase) - _begun(phrase, tail) for phrase in phrases)
                   for number, phrases in enumerate(self.constraints) if number not in met)

    def _next(self, beam: int) -> set[int]:
        """Tokens that go on with a phrase of an open constraint, or begin one."""
        tail, found = self.tails[beam], set()
        for number, phrases in enumerate(self.constraints):
            for phrase in phrases if number not in self.met[beam] else ():
                for length in range(len(phrase)):
                    if not length or tail[-length:] == phrase[:length]:
                        found.add(phrase[length])
        return found


def _begun(phrase: Phrase, tail: Phrase) -> int:
    """How many first tokens of a phrase a text ends with."""
    return max((length for length in range(1, len(phrase)) if tail[-length:] == phrase[:length]), default=0)
