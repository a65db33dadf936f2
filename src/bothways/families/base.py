"""What a family is: a config translation and a weight-name map, each in both directions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from bothways.batch import Vocabulary
from bothways.errors import BothwaysError
from bothways.model.config import ModelConfig

TOKEN_ENTRIES = {"pad_token_id": "<pad>", "bos_token_id": "<bos>", "eos_token_id": "<eos>", "mask_token_id": "<mask>",
                 "decoder_start_token_id": "<bos>"}
"""Entries of a published config that name special ids, and our tokens for them."""
Direction = Literal["causal", "bidirectional", "two towers"]


@dataclass(frozen=True)
class Link:
    """One of our tensors and the published ones that make it up, laid one under the other.

    `rows` are the first dimensions of the parts (sum: ours); a link of one part needs none.
    """

    ours: str
    theirs: tuple[str, ...]
    rows: tuple[int, ...] = ()


class Family(ABC):
    """A published architecture as data. One value a class of `transformers`; see `families.KNOWN`."""

    model_type: ClassVar[str]
    architecture: ClassVar[str]
    direction: ClassVar[Direction]
    objective: ClassVar[str]
    """The objective of a folder of this family that does not say its own."""

    @abstractmethod
    def obstacle(self, config: ModelConfig) -> str | None:
        """The choices in `config` that this family does not have, as phrases; none when it fits."""

    @abstractmethod
    def to_config(self, config: ModelConfig) -> dict[str, Any]:
        """The entries of the published `config.json` that describe the network."""

    @abstractmethod
    def from_config(self, stored: Mapping[str, Any], where: str) -> ModelConfig:
        """Our config for a published one.

        Raises:
            BothwaysError: the published config makes a choice we cannot follow, or lacks an entry.
        """

    @abstractmethod
    def links(self, config: ModelConfig) -> Iterator[Link]:
        """Every tensor of the network, once."""

    def export(self, weights: Mapping[str, Tensor], config: ModelConfig) -> dict[str, Tensor]:
        """Our tensors under the published names, fused ones split."""
        published: dict[str, Tensor] = {}
        for link in self.links(config):
            tensor = weights[link.ours]
            parts = [tensor] if len(link.theirs) == 1 else tensor.split(list(link.rows), dim=0)
            published.update({name: part.contiguous() for name, part in zip(link.theirs, parts, strict=True)})
        return published

    def gather(self, published: Mapping[str, Tensor], stored: Mapping[str, Any], config: ModelConfig,
               shapes: Mapping[str, torch.Size], where: str) -> dict[str, Tensor]:
        """Published tensors under our names, split ones joined; every entry is accounted for.

        Args:
            stored: the published config.
            shapes: of our tensors, by our names.
            where: the weights file, for messages.
        Raises:
            BothwaysError: missing and unknown names, all in one sentence; a tensor of another shape, with both shapes.
        """
        links = list(self.links(config))
        weights = {name: tensor for name, tensor in published.items() if not self.repeats(name)}
        account(weights, {name for link in links for name in link.theirs}, where)
        ours: dict[str, Tensor] = {}
        for link in links:
            parts = [weights[name] for name in link.theirs]
            whole = shapes[link.ours]
            for name, part, rows in zip(link.theirs, parts, link.rows or whole[:1], strict=True):
                check_shape(name, part.shape, (rows, *whole[1:]), where)
            ours[link.ours] = parts[0] if len(parts) == 1 else torch.cat(parts)
        return ours

    def repeats(self, name: str) -> bool:
        """Whether a published entry only repeats what another one or the config says, and may be passed over."""
        return False


def account(found: Iterable[str], expected: set[str], where: str) -> None:
    """Refuse a set of names that is not the expected one, naming all that is missing and all that is unknown."""
    missing, unknown = sorted(expected - set(found)), sorted(set(found) - expected)
    sides = [f"lacks {', '.join(missing)}"] * bool(missing)
    sides += [f"holds the unknown {', '.join(unknown)}"] * bool(unknown)
    if sides:
        raise BothwaysError(f"{where} does not fit config.json: it {' and '.join(sides)}")


def check_shape(name: str, found: Sequence[int], wanted: Sequence[int], where: str) -> None:
    """Refuse a tensor of another shape, naming it and both shapes."""
    if tuple(found) != tuple(wanted):
        raise BothwaysError(f"{where}: {name} has shape {tuple(found)}, but config.json asks for {tuple(wanted)}")


def token_ids(vocabulary: Vocabulary) -> dict[str, Any]:
    """The special ids of a published config."""
    return {entry: vocabulary.ids.get(token) for entry, token in TOKEN_ENTRIES.items()}


def demand(stored: Mapping[str, Any], names: Sequence[str], where: str) -> None:
    """Refuse a published config without these entries, all of them named at once."""
    missing = [name for name in names if stored.get(name) is None]
    if missing:
        raise BothwaysError(f"{where} lacks {', '.join(missing)}")


def in_the_way(*choices: tuple[bool, str]) -> str | None:
    """The phrases of all choices that stand in the way, or none."""
    return "; ".join(phrase for stands, phrase in choices if stands) or None
