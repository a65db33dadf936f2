"""What an objective is: what is hidden, what is asked, how it is scored, and which decoding fits it."""

from __future__ import annotations

import dataclasses
import functools
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from bothways.batch import Ask, Companion, Example, Key, Vocabulary, Window
from bothways.errors import BothwaysError, nearest
from bothways.objectives.loss import Part, cross_entropy
from bothways.visibility import Visibility, make_fields


class Output(Protocol):
    """What a loss needs of a network's output: the state of each input, (N, D)."""

    @property
    def states(self) -> Tensor:
        """The state of each input: (N, D)."""


class Heads(Protocol):
    """What scoring needs of a network: its heads."""

    def logits(self, states: Tensor, head: str = "tokens") -> Tensor:
        """Scores of states (T, D) by a head."""


class Network(Heads, Protocol):
    """What a loss needs of a network: a call, its heads, and the companions the objective declared, by name."""

    def __call__(self, example: Example, *, only_asked: bool = False) -> Output: ...

    @property
    def companions(self) -> Mapping[str, Any]: ...


@dataclass(frozen=True)
class Mode:
    """One way a network trained by an objective may be called.

    `predicts` says what the state at place k speaks of: the token `here` (k) or the `next` one (k + 1).
    `likelihood` names the estimator that scoring in this mode gives: "exact", "bound" or "pseudo". `head` is what reads
    the state: the trunk's own "tokens", or a companion that answers in the trunk's stead.
    """

    name: str
    visibility: Visibility
    predicts: Literal["here", "next"]
    likelihood: Literal["exact", "bound", "pseudo"]
    head: str = "tokens"


@dataclass(frozen=True)
class Profile:
    """What costs depend on, for one raw token: used by `model` to count FLOPs without knowing the objective.

    `inputs` and `source_inputs` are the tokens each tower reads per raw token, `asked` the share of the raw
    tokens whose logits are computed. A mixture lists its members' (share, profile) in `mixed`, and the other
    numbers are then averages over them. `companions` lists what runs beside the trunk, each with the tokens it reads
    and the states it answers for per raw token.
    """

    visibility: Visibility
    inputs: float = 1.0
    asked: float = 1.0
    source_inputs: float = 0.0
    mixed: tuple[tuple[float, Profile], ...] = ()
    companions: tuple[tuple[Companion, float, float], ...] = ()


class Objective(ABC):
    """One training signal. Subclasses are frozen dataclasses whose fields are the options of the paper.

    An objective turns one window into one Example (`corrupt`), says the modes the trained network may be called
    in, and can pose one question for evaluation in its own format (`blank`). Nothing is shifted anywhere else.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    source: ClassVar[str]
    stack: ClassVar[Literal["one tower", "two towers"]] = "one tower"
    decoding: ClassVar[str]
    """The decoding that fits: left_to_right, mask_predict, diffusion or infill."""
    tokens: ClassVar[tuple[str, ...]] = ("<bos>", "<eos>")
    """The reserved tokens it cannot do without."""
    reads_turns: ClassVar[bool] = False
    """Whether it learns answers to questions (`text.turns`), which lie in windows that nobody may cut."""
    loaded_from: ClassVar[str | None] = None
    """`file.py:Class` for an objective of a user's own, which is then its name in `describe`."""

    vocabulary: Vocabulary

    @property
    @abstractmethod
    def modes(self) -> tuple[Mode, ...]:
        """The modes this objective trains, the principal one first."""

    @property
    @abstractmethod
    def profile(self) -> Profile:
        """What one raw token costs."""

    @abstractmethod
    def corrupt(self, window: Window, key: Key) -> Example:
        """One window into one Example; a pure function of its arguments."""

    @abstractmethod
    def blank(self, ids: np.ndarray, hidden: np.ndarray, mode: Mode | None = None) -> Example:
        """An Example that asks exactly for the tokens at `hidden`, in this objective's own format.

        Whoever may not see a hidden token does not see it; a causal mode sees what stands before it (hidden
        tokens included: that is the chain rule), a bidirectional one the tokens that are not hidden.

        Args:
            ids: (L,) int64 token ids of one text.
            hidden: (L,) bool, True where the token is asked for. A hidden `<eos>` at the end is the text's end; a
                format that writes spans is asked for it where it closes the last one.
            mode: one of `modes` (default: the first).
        Returns:
            an Example with one Ask, its targets `ids[hidden]` in order of place. A mode that predicts the next
            token leaves out place 0, since nothing precedes it; so texts begin with `<bos>`.
        """

    def continuation(self, ids: np.ndarray, mode: Mode | None = None) -> Example:
        """An Example without Asks whose last place predicts the token that comes after the prompt `ids`.

        Raises:
            BothwaysError: this objective does not write from left to right.
        """
        raise BothwaysError(f"a model trained by '{self.name}' does not write from left to right: "
                            f"its decoding is {self.decoding}")

    @property
    def stops(self) -> frozenset[int]:
        """The ids that end writing from left to right."""
        return frozenset({self.vocabulary.eos})

    @property
    def answer_end(self) -> int:
        """The id that ends what is written for blanks of unknown length."""
        return self.vocabulary.eos

    def infilling(self, ids: np.ndarray, mode: Mode | None = None) -> Example:
        """An Example without Asks from which blanks of unknown length, each one `<mask>` in `ids`, are written.

        Raises:
            BothwaysError: this objective does not write blanks of unknown length.
        """
        raise BothwaysError(f"a model trained by '{self.name}' fills blanks of known length, one <mask> for each "
                            "token; blanks of unknown length need span-corruption or denoising")

    def read_infilling(self, ids: np.ndarray, written: Sequence[int]) -> list[int]:
        """The filled text, from the `ids` given to `infilling` and the tokens written after its inputs."""
        raise BothwaysError(f"a model trained by '{self.name}' does not write blanks of unknown length")

    def written_fills(self, ids: np.ndarray, fills: Sequence[Sequence[int]]) -> list[int]:
        """What is written after the inputs of `infilling(ids)` where the blanks become these `fills`, its end included.

        The other way round than `read_infilling`; an objective that writes one blank at a time takes the first.

        Raises:
            BothwaysError: this objective does not write blanks of unknown length.
        """
        raise BothwaysError(f"a model trained by '{self.name}' does not write blanks of unknown length")

    def decoding_of(self, mode: Mode | None = None) -> str:
        """The decoding that fits in that mode: a mixture has one for each member."""
        return self.decoding

    @property
    def companions(self) -> tuple[Companion, ...]:
        """What must be trained beside the trunk (a head for classes, a generator, a latent); none by default."""
        return ()

    @property
    def thought(self) -> tuple[int, int] | None:
        """The ids that open and close a thought in what it writes; none where it writes none."""
        return None

    @property
    def replies(self) -> bool:
        """Whether what it writes answers the prompt, instead of going on with it."""
        return False

    @property
    def cycle(self) -> int:
        """After so many epochs it goes on as from the first; what is measured on held-out text covers them all."""
        return 1

    @property
    def reads_another(self) -> bool:
        """Whether a window must come with one of another document (`Window.other`)."""
        return False

    @property
    def needs_sentences(self) -> bool:
        """Whether it has nothing to learn in a text whose sentences have no ends (`options.need_sentences`)."""
        return False

    def parts(self, network: Network, example: Example, z_loss: float = 0.0) -> list[Part]:
        """The parts of the loss from weights and a packed Example: one pass of the trunk, then `loss`.

        An objective that runs a companion first (a generator that writes what the trunk then reads) has its own.
        """
        output = network(example, only_asked=True)
        parts = self.loss(network, output, example, z_loss)
        # what the network asks for itself, already times its coefficient: experts that are equally busy
        wanted: Mapping[str, Tensor] = getattr(output, "extras", {})
        if parts and "balance" in wanted:
            parts.append(Part("balance", wanted["balance"], 1.0))
        return parts

    def loss(self, network: Network, output: Output, example: Example, z_loss: float = 0.0) -> list[Part]:
        """The named parts of the loss of one packed Example; none where nothing is asked."""
        return cross_entropy(functools.partial(self.logits, network), output.states, example, z_loss)

    @property
    def never(self) -> tuple[int, ...]:
        """Ids that are no token of any text, and have no probability: -inf in the loss, in scores and in decoding."""
        return ()

    def logits(self, network: Heads, states: Tensor, head: str = "tokens") -> Tensor:
        """The network's logits (T, V) of states (T, D), without the ids that `never` come."""
        found = network.logits(states, head)
        if head != "tokens" or not self.never:
            return found
        return found.index_fill(-1, torch.tensor(self.never, device=found.device), float("-inf"))

    def describe(self) -> dict[str, object]:
        """Name and options, as stored in a run: `make(describe(), vocabulary)` gives this objective back."""
        options = {name: getattr(self, name) for name in self.option_names()}
        return {"name": self.loaded_from or self.name, **options}

    @classmethod
    def option_names(cls) -> tuple[str, ...]:
        """The options this objective takes, in order."""
        return tuple(field.name for field in dataclasses.fields(cls)  # type: ignore[arg-type]
                     if field.init and field.name != "vocabulary")

    def mode(self, name: str | None) -> Mode:
        """The mode of that name; with several and none named, an error that lists them."""
        if name is None and len(self.modes) == 1:
            return self.modes[0]
        if name is None:
            known = " and ".join(f"'{mode.name}'" for mode in self.modes)
            raise BothwaysError(f"this model was trained with several visibilities, {known}: say which one to use")
        for mode in self.modes:
            if mode.name == name:
                return mode
        raise BothwaysError(f"this model was not trained with the visibility '{name}' "
                            + nearest(name, [mode.name for mode in self.modes]))


def ask(where: np.ndarray, targets: np.ndarray, weights: np.ndarray | None = None, count: float | None = None,
        part: str = "loss", coefficient: float = 1.0, head: str = "tokens") -> Ask:
    """An Ask from numpy arrays; `count` defaults to the number of targets."""
    return Ask(torch.from_numpy(np.ascontiguousarray(where, dtype=np.int64)),
               torch.from_numpy(np.ascontiguousarray(targets, dtype=np.int64)),
               None if weights is None else torch.from_numpy(np.ascontiguousarray(weights, dtype=np.float32)),
               float(len(targets) if count is None else count), head, part, coefficient)


def reading(ids: np.ndarray, visibility: Visibility, prefix: bool = True, **told: np.ndarray) -> Example:
    """A text as it is read, nothing asked: one part and one rank where those matter.

    Args:
        prefix: whether all of it is prefix where that matters (seen from both sides), or nothing (left to right).
        told: what else is known of each token, such as its segment.
    """
    known = {"prefix": int(prefix), "valid": 1}
    facts = {name: np.full(len(ids), known.get(name, 0)) for name in visibility.needs - make_fields(0).keys()}
    return example(ids, visibility, **{**facts, **told})  # type: ignore[arg-type]


def example(ids: np.ndarray, visibility: Visibility, asks: Sequence[Ask] = (), source: Example | None = None,
            cross: Visibility | None = None, raw: int | None = None, **facts: np.ndarray) -> Example:
    """An Example of one document from numpy arrays, with the usual fields."""
    tensors = {name: torch.from_numpy(np.ascontiguousarray(fact, dtype=np.int64)) for name, fact in facts.items()}
    inputs = torch.from_numpy(np.ascontiguousarray(ids, dtype=np.int64))
    return Example(inputs, visibility, {**make_fields(len(inputs)), **tensors}, tuple(asks), source, cross,
                   len(ids) if raw is None else raw)
