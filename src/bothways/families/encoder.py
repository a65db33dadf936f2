"""What published encoders share: a body of blocks, and heads that a file may have or lack."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

from torch import Tensor

from bothways.batch import Companion
from bothways.families.base import Direction, Family, Table, shapes_of
from bothways.families.weights import Weights
from bothways.model.config import Head, ModelConfig
from bothways.objectives.sentence_pairs import QUESTIONS

SEGMENT = "segment"
"""The companion that embeds token types."""
POOLED = Companion("pooled", "pooler")
"""A pooler without a question about what it pools."""


class Encoder(Family):
    """An encoder whose file alone says which heads it has.

    Classes with a head put `body` before the body's names; the body's own class leaves it out, and either is read.
    """

    auto: ClassVar[str] = "AutoModelForMaskedLM"
    direction: ClassVar[Direction] = "bidirectional"
    objective: ClassVar[str] = "masked"
    body: ClassVar[str]
    """What stands before the body's names in classes with a head."""
    classes: ClassVar[Mapping[tuple[bool, str], tuple[str, str]]]
    """The class, and that of `transformers` which finds it, by whether there is a head over the vocabulary and the name
    of a companion that answers a question, empty for none."""
    beside: ClassVar[Mapping[Companion, str]] = {}
    """Companions that a file may have, and the entry of the table that shows it; the first one found is there."""
    ignorable: ClassVar[tuple[str, ...]] = (r".*embeddings\.(position|token_type)_ids",)
    """Numbers from 0 upwards, which older files repeat."""

    def settled(self, config: ModelConfig, names: Collection[str]) -> ModelConfig:
        """Which heads there are shows in the names alone."""
        there = {*names, *(self.body + name for name in names)}
        shown = [one for one, entry in self.beside.items() if f"{self.names[entry]}.weight" in there]
        if f"{self.names['head_transform.dense']}.weight" not in there:
            config = replace(config, head=Head(scores=False), tied=True)
        return replace(config, companions=(*config.companions, *shown[:1]))

    def returned(self, config: ModelConfig) -> ModelConfig:
        """As every family; the heads are those that the names of its own tensors show."""
        names = {name for ours in self.tensors(config) for name in ours}
        return self.settled(super().returned(config), names)

    def tensors(self, config: ModelConfig) -> list[tuple[str, ...]]:
        """The published names of each tensor that the family has a place for."""
        found = (self.named(ours, config) for ours in shapes_of(config))
        return [names.theirs for names in found if names is not None]

    def differences(self, config: ModelConfig) -> list[str]:
        if found := super().differences(config):
            return found
        scores, question = self.kind(config)
        if (scores, question) in self.classes:
            return []
        return [f"it asks '{question}' only beside a head over the vocabulary, and head.scores is false"]

    def kind(self, config: ModelConfig) -> tuple[bool, str]:
        """Whether there is a head over the vocabulary, and the companion that answers a question."""
        known = {question for _, question in self.classes}
        asked = (one.name for one in config.companions if one.name in known)
        return config.head.scores, next(asked, "")

    def written(self, config: ModelConfig) -> tuple[str, str]:
        return self.classes.get(self.kind(config), (self.architecture, self.auto))

    def objectives_of(self, config: ModelConfig) -> Sequence[Mapping[str, object]]:
        """With a question about two sentences beside the head, masked tokens and that question."""
        scores, question = self.kind(config)
        pairs = ({"name": "sentence-pairs", "asks": question},) if scores and question in QUESTIONS else ()
        return *pairs, *super().objectives_of(config)

    def table(self, config: ModelConfig) -> Table:
        table = dict(self.names)
        if not config.tied and self.twin:
            # a head of its own has its own bias; the entry that a tied one shares is left over
            table["head_bias"] = self.head.replace(".weight", ".bias")
        if self.kind(config) != (False, ""):
            return table
        return {ours: _without(theirs, self.body) for ours, theirs in table.items()}

    @property
    def twin(self) -> str | None:
        """The entry that holds the head's bias again, where there is one."""
        bias = self.names.get("head_bias")
        return bias if isinstance(bias, str) and bias != self.head.replace(".weight", ".bias") else None

    def repeats(self, name: str, config: ModelConfig) -> bool:
        again = self.head.replace(".weight", ".bias") if config.tied else self.twin
        return name == again or super().repeats(name, config)

    def export(self, weights: Mapping[str, Tensor], config: ModelConfig) -> dict[str, Tensor]:
        published = super().export(weights, config)
        if not config.tied and self.twin and (bias := self.head.replace(".weight", ".bias")) in published:
            published[self.twin] = published[bias].clone()
        return published

    def gather(self, published: Mapping[str, Tensor], stored: Mapping[str, Any], config: ModelConfig, where: str
               ) -> Mapping[str, Tensor]:
        """As every family; a body with or without its prefix is read."""
        expected = {name for link in self.links(config) for name in link.names.theirs}

        def known(name: str) -> str:
            spelled = (name, name.removeprefix(self.body), self.body + name)
            return next((one for one in spelled if one in expected), name)

        return super().gather(Weights.of(published).renamed(known), stored, config, where)


def _without(theirs: Any, prefix: str) -> Any:
    """Names (one, several, or `Names`) without that prefix."""
    if isinstance(theirs, str):
        return theirs.removeprefix(prefix)
    if isinstance(theirs, tuple):
        return tuple(name.removeprefix(prefix) for name in theirs)
    return replace(theirs, theirs=_without(theirs.theirs, prefix))
