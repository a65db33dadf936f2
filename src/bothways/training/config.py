"""A training run as a few choices, read strictly: every bad key of a recipe is reported at once.

YAML reads `3e-4` as text and `no` as False; values are therefore checked against the field's own type (pydantic),
never merely passed on.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import TypeAdapter, ValidationError

from bothways.errors import BothwaysError, nearest
from bothways.model.config import ModelConfig
from bothways.training.budget import Budget

T = TypeVar("T")


@dataclass(frozen=True)
class Schedule:
    """Warm-up, stable, decay (WSD): linear up, flat, then 1 - sqrt down to `floor` (arXiv 2405.18392).

    `warmup` and `decay` are shares of all steps.
    """

    warmup: float = 0.03
    decay: float = 0.3
    floor: float = 0.0


@dataclass(frozen=True)
class Averaging:
    """The mean of the weights along the way, used in place of the last weights when the run ends.

    `ema` forgets with `decay`; `last` is the plain mean over the last `share` of the steps.
    """

    kind: Literal["none", "ema", "last"] = "none"
    decay: float = 0.999
    share: float = 0.1


@dataclass(frozen=True)
class Record:
    """What a run writes while it goes. None of it changes the weights."""

    log_every: int | None = None
    """Steps between lines of metrics.jsonl; about 1,000 lines a run when none."""
    curve: float = 2 ** 0.5
    """Held-out loss is measured at steps 1, curve, curve^2, ... and at the last."""
    held_out_tokens: int = 8192
    """Raw tokens of held-out text in each measurement; always the same windows with the same noise."""
    checkpoint_seconds: float = 60.0
    """Time between checkpoints to resume from; two are kept."""
    checkpoint_steps: int | None = None
    """Steps between checkpoints to resume from, besides those by time."""
    keep: Literal["geometric", "last"] = "geometric"
    """Whether the weights at steps 1, 2, 4, 8, ... are kept."""


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides the weights of a run, beside the text.

    Batches, noise and dropout are functions of `seed` and the step alone, so that a run can be repeated and resumed.
    """

    model: ModelConfig = field(default_factory=ModelConfig)
    start: str | None = None
    """A model folder whose weights the run begins with; `model` is then its network (see `training.begin`)."""
    objective: str | dict[str, Any] = "next-token"
    """A name, "masked(rate=0.3)", {"name": "masked", "rate": 0.3}, or "mine.py:Mine"."""
    budget: str = "1min"
    """For instance "10min", "2M tokens", "1e14 flops", "500 steps"."""
    seed: int = 0
    batch_tokens: int = 2048
    """Raw tokens a step reads at most, the same windows for every objective."""
    micro_batch: int | None = None
    """Raw tokens of one forward pass; smaller ones are accumulated. The whole step at once when none."""
    optimizer: Literal["muon", "adamw"] = "muon"
    matrix_rate: float = 0.02
    """Muon's learning rate for the matrices of the blocks; not used by adamw."""
    other_rate: float = 3e-3
    """AdamW's learning rate, for embeddings, head and norms beside muon, for everything with adamw."""
    weight_decay: float = 0.1
    """Decoupled, on the matrices of the blocks; embeddings, norms and biases do not decay."""
    momentum: float = 0.95
    """Muon's (Nesterov)."""
    betas: tuple[float, float] = (0.9, 0.95)
    """AdamW's."""
    clip: float = 1.0
    """The largest norm of the whole gradient; 0 is no clipping."""
    z_loss: float = 0.0
    """Weight of the squared log-partition (arXiv 2204.02311); 1e-4 is usual."""
    schedule: Schedule = field(default_factory=Schedule)
    averaging: Averaging = field(default_factory=Averaging)
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of the weights the network computes with; the optimiser always works on float32 masters."""
    device: str = "auto"
    """"cpu", "cuda", "cuda:1"; "auto" is cuda where there is one."""
    keep_memory: bool = False
    """Have the C allocator keep freed memory for the next step: up to 1.3 times faster, for the whole process."""
    prefetch: bool = True
    """Prepare the next step's batch in a thread of its own."""
    record: Record = field(default_factory=Record)

    def __post_init__(self) -> None:
        if isinstance(self.budget, Budget):
            object.__setattr__(self, "budget", str(self.budget))
        problems = list(self._problems())
        if problems:
            raise BothwaysError("; ".join(problems))

    @property
    def allowance(self) -> Budget:
        """The budget, read."""
        return Budget.parse(self.budget)

    def describe(self) -> dict[str, Any]:
        """As stored in a run's config.json: `read(TrainConfig, describe())` gives this value back."""
        return dataclasses.asdict(self)

    def _problems(self) -> typing.Iterator[str]:
        try:
            Budget.parse(self.budget)
        except BothwaysError as error:
            yield str(error)
        for name in ("batch_tokens", "matrix_rate", "other_rate", "micro_batch"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                yield f"{name} is {value}, but must be above 0"
        for name in ("weight_decay", "clip", "z_loss"):
            if not getattr(self, name) >= 0:
                yield f"{name} is {getattr(self, name)}, but cannot be negative"
        shares = {"schedule.warmup": self.schedule.warmup, "schedule.decay": self.schedule.decay,
                  "schedule.floor": self.schedule.floor, "averaging.share": self.averaging.share,
                  "averaging.decay": self.averaging.decay, "momentum": self.momentum}
        for name, share in shares.items():
            if not 0 <= share <= 1:
                yield f"{name} is {share}, but is a share and lies between 0 and 1"
        if self.schedule.warmup + self.schedule.decay > 1:
            yield (f"schedule.warmup {self.schedule.warmup} and schedule.decay {self.schedule.decay} "
                   "take more than the whole run: lower one of them")
        if not self.record.curve > 1:
            yield f"record.curve is {self.record.curve}, but steps only grow by a factor above 1"
        if not 0 <= self.seed < 2 ** 31:
            yield f"seed is {self.seed}, but must be between 0 and 2147483647"


def read(kind: type[T], data: object, origin: str = "", path: str = "") -> T:
    """A frozen dataclass from plain data, strictly.

    Args:
        kind: the dataclass; nested ones are read the same way.
        data: mappings of plain values, as YAML or JSON gives them.
        origin: the file, named in the message.
    Raises:
        BothwaysError: every unknown key (with the nearest right name) and every wrong value, by path.
    """
    problems: list[str] = []
    value = _read(kind, data, path, problems)
    if problems:
        where = f"{origin}: " if origin else ""
        listed = "".join(f"\n  {problem}" for problem in problems)
        raise BothwaysError(where + (problems[0] if len(problems) == 1 else f"{len(problems)} mistakes{listed}"))
    return typing.cast(T, value)


def load(kind: type[T], file: str | Path) -> T:
    """A frozen dataclass from a YAML or JSON file. Raises: BothwaysError, one sentence."""
    return read(kind, load_mapping(file), str(file))


def load_mapping(file: str | Path) -> dict[str, Any]:
    """The mapping a YAML or JSON file holds, unchecked. Raises: BothwaysError naming file and line."""
    import yaml

    file = Path(file)
    try:
        data = yaml.safe_load(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        near = [path.name for path in file.parent.glob("*.y*ml")] if file.parent.is_dir() else []
        hint = f" {nearest(file.name, near)}" if near else ""
        raise BothwaysError(f"{file}: there is no such recipe{hint}") from error
    except IsADirectoryError as error:
        raise BothwaysError(f"{file} is a folder, but a recipe is one YAML file") from error
    except UnicodeDecodeError as error:
        raise BothwaysError(f"{file}: byte {error.start} is not UTF-8, so this is not a recipe") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise BothwaysError(f"{file}{line}: not YAML ({getattr(error, 'problem', None) or error})") from error
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise BothwaysError(f"{file}: a recipe is a mapping of keys to values, not a {type(data).__name__}")
    return data


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with the values of `over`, mapping by mapping."""
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        merged[key] = merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


_WRONG = object()
"""Stands for a value that could not be read."""


def _read(kind: Any, data: object, path: str, problems: list[str]) -> object:
    """One dataclass; what is wrong is added to `problems`, and the value is then not to be used."""
    # 1. a mapping whose keys are fields
    if isinstance(data, kind):
        return data
    if not isinstance(data, Mapping):
        problems.append(f"{path or kind.__name__} is {_shown(data)}, but must hold the keys "
                        f"{', '.join(one.name for one in fields(kind))}")
        return _WRONG
    # a field that would be a word of Python's is named with an underscore behind it, and its key without
    known = {one.name.rstrip("_"): one for one in fields(kind) if one.init}
    hints = typing.get_type_hints(kind)
    dot = f"{path}." if path else ""
    unknown = [f"unknown key '{dot}{key}' {nearest(str(key), known)}" for key in data if key not in known]
    # 2. each value by its field's type
    values: dict[str, object] = {}
    found: list[str] = []
    for name in known:
        if name in data:
            values[name] = _value(hints[known[name].name], data[name], dot + name, found)
        elif known[name].default is dataclasses.MISSING and known[name].default_factory is dataclasses.MISSING:
            found.append(f"the key '{dot}{name}' is missing")
    problems += unknown + found
    # 3. what the dataclass itself refuses; beside wrong values only if it does not speak of them
    wrong = {name for name in known if name in data and values[name] is _WRONG}
    try:
        value = kind(**{known[name].name: value for name, value in values.items() if name not in wrong})
        return _WRONG if found else value
    except BothwaysError as error:
        if not any(name in str(error) for name in wrong):
            problems.append(f"{path}: {error}" if path else str(error))
    except TypeError:  # a key without a default is missing, and has been reported
        pass
    return _WRONG


def _value(hint: Any, data: object, path: str, problems: list[str]) -> object:
    if is_dataclass(hint):
        return _read(hint, data, path, problems)
    if isinstance(data, bool) and hint is not bool and bool not in typing.get_args(hint):
        problems.append(f"{path} is {data}, but must be {getattr(hint, '__name__', hint)} "
                        "(YAML reads a bare yes or no as true or false: put a word in quotes)")
        return _WRONG
    try:
        return typing.cast(object, TypeAdapter(hint).validate_python(data))
    except ValidationError as error:
        reasons = {one["msg"][0].lower() + one["msg"][1:] for one in error.errors()}
        problems.append(f"{path} is {_shown(data)}: {' or '.join(sorted(reasons))}")
        return _WRONG


def _shown(data: object) -> str:
    text = repr(data)
    return text if len(text) <= 60 else text[:57] + "..."
