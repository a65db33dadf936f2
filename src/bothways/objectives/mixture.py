"""A mixture: one network trained by several objectives, side by side (GPT-BERT) or one after the other (AntLM)."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from bothways.batch import Companion, Example, Key, Vocabulary, Window
from bothways.errors import BothwaysError
from bothways.objectives.base import Mode, Network, Objective, Output, Part, Profile
from bothways.objectives.noise import SILVER, spread
from bothways.objectives.options import choice, is_number
from bothways.visibility import Visibility

MEMBER = 13
"""Salt of the sequence that picks members."""


@dataclass(frozen=True)
class Member:
    """An objective and its share, relative to the other members' shares."""

    objective: Objective
    share: float = 1.0

    def __post_init__(self) -> None:
        if not is_number(self.share) or self.share <= 0:
            raise BothwaysError(f"objective 'mixture': the share of '{self.objective.name}' is {self.share!r}, but "
                                "must be a number above 0")


@dataclass(frozen=True)
class Mixture(Objective):
    """Total = sum over members of share * (member's loss over its own windows).

    Options:
        members: the objectives and their shares, all for one stack.
        by: "proportion" gives every window to one member, evenly spread over an epoch (arXiv 2410.24159); "phase"
            gives each member its share of the training in turn, in the order written (arXiv 2507.00994); "epoch"
            gives each as many whole epochs as its share says, in turn and again from the first (AntLM, arXiv
            2412.03275).

    Each member's loss is a part named after it, with its share as coefficient (1 by phase and by epoch). A mixture of
    one member is that member.
    """

    vocabulary: Vocabulary
    members: tuple[Member, ...] = ()
    by: Literal["proportion", "phase", "epoch"] = "proportion"
    name = "mixture"
    summary = "several objectives train one network, by proportion, by phase or by epoch"
    source = "Charpentier and Samuel 2024 (GPT-BERT), arXiv 2410.24159; AntLM, arXiv 2412.03275"

    def __post_init__(self) -> None:
        object.__setattr__(self, "members", tuple(self.members))
        choice(self.name, "by", self.by, ("proportion", "phase", "epoch"))
        if not self.members:
            raise BothwaysError("objective 'mixture' has no members: name at least one, such as "
                                "'next-token + masked-next'")
        for member in self.members:
            if isinstance(member.objective, Mixture):
                raise BothwaysError("objective 'mixture' holds another mixture: write all members in one list")
            if self.by == "epoch" and member.share != int(member.share):
                raise BothwaysError(f"objective 'mixture': by epoch, the share of '{member.objective.name}' is a whole "
                                    f"number of epochs, such as 4, not {member.share}")
        first = self.members[0].objective
        for member in self.members:
            if len(self.members) > 1 and type(member.objective).parts is not Objective.parts:
                raise BothwaysError(f"objective 'mixture': '{member.objective.name}' runs the network in a way of its "
                                    "own, so it cannot share a batch: train it alone")
        for member in self.members[1:]:
            if member.objective.stack != first.stack:
                raise BothwaysError(f"a mixture trains one network, but '{first.name}' is for {first.stack} and "
                                    f"'{member.objective.name}' for {member.objective.stack}: choose members of one "
                                    "stack")
        # what the other objectives say in their class, a mixture takes from its first member
        object.__setattr__(self, "stack", first.stack)
        object.__setattr__(self, "decoding", first.decoding)
        object.__setattr__(self, "reads_turns", any(member.objective.reads_turns for member in self.members))
        object.__setattr__(self, "tokens", tuple(dict.fromkeys(token for member in self.members
                                                               for token in member.objective.tokens)))

    @property
    def shares(self) -> tuple[float, ...]:
        """The members' shares, which add up to 1."""
        total = sum(member.share for member in self.members)
        return tuple(member.share / total for member in self.members)

    @property
    def names(self) -> tuple[str, ...]:
        """The members' names, unique: a second `masked` is `masked-2`."""
        names = [member.objective.name for member in self.members]
        return tuple(name if not (before := names[:i].count(name)) else f"{name}-{before + 1}"
                     for i, name in enumerate(names))

    @property
    def modes(self) -> tuple[Mode, ...]:
        return tuple(mode for mode, _, _ in self._dispatch())

    @property
    def profile(self) -> Profile:
        mixed = tuple(zip(self.shares, (member.objective.profile for member in self.members), strict=True))

        def mean(number: str) -> float:
            return sum(part * float(getattr(profile, number)) for part, profile in mixed)
        if len(mixed) == 1:
            return mixed[0][1]
        beside = tuple((one, part * read, part * asked) for part, profile in mixed
                       for one, read, asked in profile.companions)
        return Profile(self._commonest(mixed), mean("inputs"), mean("asked"), mean("source_inputs"), mixed, beside)

    @property
    def cycle(self) -> int:
        return int(sum(member.share for member in self.members)) if self.by == "epoch" else 1

    def chosen(self, key: Key) -> int:
        """Which member this window goes to."""
        ends = list(itertools.accumulate(self.shares))
        if self.by == "epoch":
            place = (key.epoch % self.cycle + 0.5) / self.cycle
        else:
            place = key.progress if self.by == "phase" else spread(key, SILVER, MEMBER)
        return min(int(np.searchsorted(ends, place, side="right")), len(ends) - 1)

    def corrupt(self, window: Window, key: Key) -> Example:
        chosen = self.chosen(key)
        example = self.members[chosen].objective.corrupt(window, key)
        if len(self.members) == 1:
            return example
        name, coefficient = self.names[chosen], self.shares[chosen] if self.by == "proportion" else 1.0
        asks = tuple(replace(ask, part=name if ask.part == "loss" else f"{name}/{ask.part}",
                             coefficient=ask.coefficient * coefficient) for ask in example.asks)
        return replace(example, asks=asks)

    @property
    def never(self) -> tuple[int, ...]:
        """What one member forbids: no member asks for it, so all may be scored without it."""
        return tuple(dict.fromkeys(token for member in self.members for token in member.objective.never))

    @property
    def thought(self) -> tuple[int, int] | None:
        return self._writer(None, "left_to_right", "infill").thought

    @property
    def replies(self) -> bool:
        return self._writer(None, "left_to_right", "infill").replies

    @property
    def reads_another(self) -> bool:
        return any(member.objective.reads_another for member in self.members)

    @property
    def needs_sentences(self) -> bool:
        return any(member.objective.needs_sentences for member in self.members)

    @property
    def companions(self) -> tuple[Companion, ...]:
        """Everything the members need; two that agree in all share one."""
        return tuple(dict.fromkeys(one for member in self.members for one in member.objective.companions))

    def parts(self, network: Network, example: Example, z_loss: float = 0.0) -> list[Part]:
        only = self.members[0].objective
        alone = len(self.members) == 1
        return only.parts(network, example, z_loss) if alone else super().parts(network, example, z_loss)

    def loss(self, network: Network, output: Output, example: Example, z_loss: float = 0.0) -> list[Part]:
        """Each member scores its own Asks, since a packed row may hold those of several."""
        if len(self.members) == 1:
            return self.members[0].objective.loss(network, output, example, z_loss)
        parts: list[Part] = []
        for name, member in zip(self.names, self.members, strict=True):
            asks = tuple(ask for ask in example.asks if ask.part.split("/")[0] == name)
            if asks:
                parts += member.objective.loss(network, output, replace(example, asks=asks), z_loss)
        return parts

    def blank(self, ids: np.ndarray, hidden: np.ndarray, mode: Mode | None = None) -> Example:
        objective, own = self._of(mode)
        return objective.blank(ids, hidden, own)

    def continuation(self, ids: np.ndarray, mode: Mode | None = None) -> Example:
        own = None if mode is None else self._of(mode)[1]
        return self._writer(mode, "left_to_right", "infill").continuation(ids, own)

    @property
    def stops(self) -> frozenset[int]:
        return self._writer(None, "left_to_right", "infill").stops

    @property
    def answer_end(self) -> int:
        return self._writer(None, "left_to_right", "infill").answer_end

    def infilling(self, ids: np.ndarray, mode: Mode | None = None) -> Example:
        own = None if mode is None else self._of(mode)[1]
        return self._writer(mode, "infill").infilling(ids, own)

    def read_infilling(self, ids: np.ndarray, written: Sequence[int]) -> list[int]:
        return self._writer(None, "infill").read_infilling(ids, written)

    def written_fills(self, ids: np.ndarray, fills: Sequence[Sequence[int]]) -> list[int]:
        return self._writer(None, "infill").written_fills(ids, fills)

    def decoding_of(self, mode: Mode | None = None) -> str:
        return self._of(mode)[0].decoding

    def describe(self) -> dict[str, object]:
        members = [{**member.objective.describe(), "share": member.share} for member in self.members]
        return {"name": self.name, "members": members, "by": self.by}

    def _dispatch(self) -> list[tuple[Mode, Mode, Objective]]:
        """Each mode once: as it is called here, as its member calls it, and that member.

        Members that share a mode share one entry, the first's; a name in use is made unique by the member's.
        """
        found: list[tuple[Mode, Mode, Objective]] = []
        for name, member in zip(self.names, self.members, strict=True):
            for mode in member.objective.modes:
                if any(mode == own for _, own, _ in found):
                    continue
                taken = any(mode.name == here.name for here, _, _ in found)
                here = replace(mode, name=f"{mode.name} ({name})") if taken else mode
                found.append((here, mode, member.objective))
        return found

    def _of(self, mode: Mode | None) -> tuple[Objective, Mode]:
        """The member behind a mode, and the mode by the name it has there; the first one when none is given."""
        wanted = self.modes[0] if mode is None else self.mode(mode.name)
        return next((objective, own) for here, own, objective in self._dispatch() if here == wanted)

    def _writer(self, mode: Mode | None, *decodings: str) -> Objective:
        """The member that writes in this way; without a mode, the first that does."""
        if mode is not None:
            return self._of(mode)[0]
        objectives = [member.objective for member in self.members]
        return next((objective for objective in objectives if objective.decoding in decodings), objectives[0])

    @staticmethod
    def _commonest(mixed: Sequence[tuple[float, Profile]]) -> Visibility:
        """The visibility with the largest share."""
        shares: dict[Visibility, float] = {}
        for part, profile in mixed:
            shares[profile.visibility] = shares.get(profile.visibility, 0.0) + part
        return max(shares, key=lambda visibility: shares[visibility])


def described_members(members: object) -> list[Mapping[str, object]]:
    """The members of a recipe as mappings, or one sentence about what is wrong with them."""
    if not isinstance(members, (list, tuple)) or not members:
        raise BothwaysError("objective 'mixture': members is a list of objectives, each with a share, such as "
                            "[{name: next-token, share: 0.5}, {name: masked-next, share: 0.5}]")
    described: list[Mapping[str, object]] = []
    for member in members:
        if not isinstance(member, (str, Mapping)):
            raise BothwaysError(f"objective 'mixture': a member is {member!r}, but must be a name or a mapping with "
                                "name, share and options")
        described.append({"name": member} if isinstance(member, str) else member)
    return described
