"""What a family is: a config translation and a weight-name map, each in both directions."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from bothways.batch import Vocabulary
from bothways.errors import BothwaysError
from bothways.families import settings
from bothways.families.blank import shapes_of
from bothways.families.weights import Joined, Part, Weights
from bothways.model.config import Head, ModelConfig

TOKEN_ENTRIES = {"pad_token_id": "<pad>", "bos_token_id": "<bos>", "eos_token_id": "<eos>", "mask_token_id": "<mask>",
                 "decoder_start_token_id": "<begin>"}
"""Entries of a published config that name special ids, and our tokens for them; a decoder begins with `<bos>` where
there is no `<begin>` (BART has both)."""
Direction = Literal["causal", "bidirectional", "two towers", "prefix"]


@dataclass(frozen=True)
class Change:
    """How a published tensor is laid out otherwise than ours: both ways, exact to the bit.

    `ours` makes our tensor of theirs, `theirs` the other way; each takes the config too.
    """

    ours: Callable[[Tensor, ModelConfig], Tensor]
    theirs: Callable[[Tensor, ModelConfig], Tensor]

    def bound(self, config: ModelConfig) -> Callable[[Tensor], Tensor]:
        """`ours` for one network."""
        return lambda theirs: self.ours(theirs, config)


@dataclass(frozen=True)
class Names:
    """The published tensors that make up one of ours, laid one under the other, and what is changed in each."""

    theirs: tuple[str, ...]
    changes: tuple[Change | None, ...] = ()

    def change(self, part: int) -> Change | None:
        """What is changed in that part; nothing where nothing is said."""
        return self.changes[part] if self.changes else None


Table = Mapping[str, "str | tuple[str, ...] | Names"]
"""Our names and theirs. `{i}` stands for a layer; an entry without `.weight` or `.bias` at its end names both."""


@dataclass(frozen=True)
class Link:
    """One of our tensors and its published parts; `rows` are the parts' first dimensions in ours (sum: ours)."""

    ours: str
    names: Names
    rows: tuple[int, ...]


class Family(ABC):
    """A published architecture as data: a config translation and a table of names. See `families.KNOWN`.

    A family fits a network whose config survives the way there and back, so it need not say what it lacks.
    """

    model_type: ClassVar[str]
    """What it is called here, and in the config.json of its folders unless they say otherwise."""
    stored_type: ClassVar[str] = ""
    """The `model_type` in its folders' config.json, where another family has it too."""
    architecture: ClassVar[str]
    auto: ClassVar[str]
    """The class of `transformers` that finds the architecture by its config."""
    direction: ClassVar[Direction]
    objective: ClassVar[str]
    """The objective of a folder of this family that does not say its own."""
    names: ClassVar[Table]
    ignorable: ClassVar[tuple[str, ...]] = ()
    """Patterns of published entries that repeat another one or the config, and are passed over."""
    head: ClassVar[str] = "lm_head.weight"
    """The entry of the table that scores, which a tied network may repeat in its file."""
    special: ClassVar[Mapping[str, int]] = {}
    """Special ids of a folder that does not name them, as the published class has them: {entry of config.json: id}."""
    own_code: ClassVar[bool] = False
    """Whether a folder brings code of its own, `transformers` having no class: written only where it is asked for."""
    prefix: ClassVar[str] = ""
    """What the names of a body begin with in a class with a head; a file of a body alone leaves it out everywhere."""

    def reads(self, stored: Mapping[str, Any]) -> bool:
        """Whether a published config is of this family."""
        return stored.get("model_type") == (self.stored_type or self.model_type)

    @abstractmethod
    def to_config(self, config: ModelConfig) -> dict[str, Any]:
        """The entries of the published `config.json` that describe the network; what it cannot say is left out."""

    @abstractmethod
    def from_config(self, stored: Mapping[str, Any], where: str) -> ModelConfig:
        """Our config for a published one.

        Raises:
            BothwaysError: the published config makes a choice we cannot follow, or lacks an entry.
        """

    def settled(self, config: ModelConfig, names: Collection[str]) -> ModelConfig:
        """The config once the names in the weights file are known: some say there alone whether a part is there.

        A file whose names lack `prefix` is that of a body: it scores only where the embedding is the whole head.
        """
        own = not config.tied or config.head.bias
        if not self.prefix or not own or any(name.startswith(self.prefix) for name in names):
            return config
        return replace(config, head=Head(scores=False), tied=True)

    def bare(self, config: ModelConfig) -> bool:
        """Whether this network is written as a body, without a head and without `prefix`."""
        return bool(self.prefix) and not config.head.scores

    def written(self, config: ModelConfig) -> tuple[str, str]:
        """The published class of this network, and the class of `transformers` that finds it."""
        if self.bare(config):
            return re.sub(r"(For[A-Z]\w*|LMHeadModel)$", "Model", self.architecture), "AutoModel"
        return self.architecture, self.auto

    def entries(self, config: ModelConfig) -> dict[str, Any]:
        """`to_config`, which for a body does not tell of a head."""
        return {**self.to_config(config), **({"tie_word_embeddings": False} if self.bare(config) else {})}

    def objectives_of(self, config: ModelConfig) -> Sequence[Mapping[str, object]]:
        """Specs of the objective of a folder that does not say its own; the first that its tokenizer can serve."""
        return ({"name": self.objective},)

    def returned(self, config: ModelConfig) -> ModelConfig:
        """A config after the way to the published one and back."""
        read = self.from_config(self.to_config(config), self.architecture)
        return replace(read, head=Head(scores=False), tied=True) if self.bare(config) else read

    def differences(self, config: ModelConfig) -> list[str]:
        """Each choice in `config` that this family does not have, as a phrase."""
        if (config.stack == "two towers") != (self.direction == "two towers"):
            has = "two towers" if self.direction == "two towers" else "one tower"
            return [f"shape.source_layers is {config.shape.source_layers}, but it has {has}"]
        try:
            read = self.returned(config)
        except BothwaysError as error:
            return [str(error)]
        if found := list(settings.differences(config, read)):
            return found
        return [f"it has no place for {name}" for name in shapes_of(config) if self.named(name, config) is None]

    def obstacle(self, config: ModelConfig) -> str | None:
        """The choices in `config` that this family does not have, as phrases; none when it fits."""
        return "; ".join(self.differences(config)) or None

    def table(self, config: ModelConfig) -> Table:
        """The names for a network of this config."""
        return self.names

    def named(self, ours: str, config: ModelConfig) -> Names | None:
        """The published names of one of our tensors, or none."""
        table, stem, kind = self.table(config), *ours.rpartition(".")[::2]
        layer = next((part for part in ours.split(".") if part.isdigit()), "")
        for pattern, suffix in ((ours, ""), (stem, f".{kind}")):
            found = table.get(re.sub(r"\.\d+\.", ".{i}.", pattern + ".").rstrip("."))
            if found is not None:
                names = found if isinstance(found, Names) else Names((found,) if isinstance(found, str) else found)
                front = self.prefix if self.bare(config) else ""
                return Names(tuple(name.replace("{i}", layer).removeprefix(front) + suffix for name in names.theirs),
                             names.changes)
        return None

    def links(self, config: ModelConfig) -> list[Link]:
        """Every tensor of the network, once."""
        links = []
        for ours, shape in shapes_of(config).items():
            names = self.named(ours, config)
            if names is None:
                raise BothwaysError(f"{self.architecture} has no place for {ours}")
            links.append(Link(ours, names, rows_of(ours, shape, config, len(names.theirs))))
        return links

    def export(self, weights: Mapping[str, Tensor], config: ModelConfig) -> dict[str, Tensor]:
        """Our tensors under the published names, fused ones split."""
        published: dict[str, Tensor] = {}
        for link in self.links(config):
            for i, part in enumerate(weights[link.ours].split(list(link.rows))):
                change = link.names.change(i)
                part = part if change is None else change.theirs(part, config)
                published[link.names.theirs[i]] = part.contiguous()
        return published

    def gather(self, published: Mapping[str, Tensor], stored: Mapping[str, Any], config: ModelConfig, where: str
               ) -> Mapping[str, Tensor]:
        """Published tensors under our names, split ones joined, each read when it is asked for.

        Every entry is accounted for before one is read.

        Args:
            published: tensors in memory, or a file's `Weights`.
            stored: the published config.
            where: the weights file, for messages.
        Raises:
            BothwaysError: missing and unknown names, all in one sentence; a tensor of another shape, with both shapes.
        """
        links, shapes = self.links(config), shapes_of(config)
        weights = Weights.of(published) if self.bare(config) else self._prefixed(Weights.of(published))
        expected = {name for link in links for name in link.names.theirs}
        found = {name for name in weights if name in expected or not self.repeats(name, config)}
        account(found, expected, where)
        ours: dict[str, list[Part]] = {}
        for link in links:
            parts = ours.setdefault(link.ours, [])
            for i, (name, rows) in enumerate(zip(link.names.theirs, link.rows, strict=True)):
                change, wanted = link.names.change(i), (rows, *shapes[link.ours][1:])
                theirs = wanted if change is None else change.theirs(torch.empty(wanted, device="meta"), config).shape
                check_shape(name, weights.shape(name), theirs, where)
                parts.append(Part(name, rows, None if change is None else change.bound(config)))
        return Joined(weights, ours, shapes)

    def _prefixed(self, weights: Weights) -> Weights:
        """The entries as the table names them, also where the file holds a body alone."""
        if not self.prefix or any(name.startswith(self.prefix) for name in weights):
            return weights
        return Weights({self.prefix + name: entry for name, entry in weights.stored.items()}, weights.where)

    def repeats(self, name: str, config: ModelConfig) -> bool:
        """Whether a published entry only repeats what another one or the config says, and may be passed over."""
        return (config.tied and name == self.head) or any(re.fullmatch(one, name) for one in self.ignorable)


TRANSPOSED = Change(lambda theirs, config: theirs.T.contiguous(), lambda ours, config: ours.T.contiguous())
"""A linear layer stored as (inputs, outputs), as GPT-2's "Conv1D" is."""


def turned(interleaved: bool) -> Change:
    """Rows of a query or key projection (or its bias) whose turned pairs lie elsewhere in a head.

    Ours are (k, k + size / 2). Theirs turn the first `position.share` of a head: `interleaved` as (2 k, 2 k + 1)
    (GPT-J, GLM, Llama before its conversion), else as (k, k + turned / 2) (GPT-NeoX).
    """
    def places(config: ModelConfig) -> Tensor:
        size = config.head_size
        count = round(size * config.position.share)
        pairs = torch.arange(count).view(-1, 2).T if interleaved else torch.arange(count).view(2, -1)
        rest = torch.arange(count, size).view(2, -1)
        return torch.cat((pairs, rest), dim=1).flatten()

    def moved(rows: Tensor, config: ModelConfig, order: Tensor) -> Tensor:
        return rows.unflatten(0, (-1, config.head_size))[:, order].flatten(0, 1)

    return Change(lambda theirs, config: moved(theirs, config, places(config)),
                  lambda ours, config: moved(ours, config, places(config).argsort()))


def rows_of(ours: str, shape: Sequence[int], config: ModelConfig, parts: int) -> tuple[int, ...]:
    """How many rows each of so many parts of a tensor has."""
    if ".qkv." in ours and parts == 3:
        keys = config.key_heads * config.head_size
        return config.shape.heads * config.head_size, keys, keys
    return (shape[0] // parts,) * parts


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
    ids = {"<begin>": vocabulary.ids.get("<bos>"), **vocabulary.ids}
    return {entry: ids.get(token) for entry, token in TOKEN_ENTRIES.items()}


def demand(stored: Mapping[str, Any], names: Sequence[str], where: str) -> None:
    """Refuse a published config without these entries, all of them named at once."""
    missing = [name for name in names if stored.get(name) is None]
    if missing:
        raise BothwaysError(f"{where} lacks {', '.join(missing)}")
