"""The plan of a study: who runs, on what, with which budget, what is matched and what cannot be.

A plan is data and is written into the study's folder before anything runs. Calling the same comparison again finds
the same plan there and continues; another one is refused, since two studies in one folder would mix their numbers.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from bothways.aside import replacing
from bothways.errors import BothwaysError
from bothways.study import sizes
from bothways.study.contenders import CONTENDERS, CONTROLS, MASK_RATE, Contender, contender, is_contender, slug
from bothways.study.sizes import Size

FORMAT = 1
PLAN_FILE = "study.json"
STEPS_FILE = "steps.json"
EMBEDDED = "python-library"


@dataclass(frozen=True)
class Source:
    """One source of text and what is measured on it.

    kind: "known" (the grammar whose true probabilities can be computed) or "text".
    corpus, field: what `bothways.text` reads; the known source ignores them.
    labels: a CSV of texts and labels to classify; none takes what the corpus itself offers.
    pairs: JSON lines of minimal pairs; none makes pairs by exchanging two words of held-out text.
    budget: of one run, as text ("10min", "2M tokens", "1e14 flops", "500 steps").
    seeds: how many runs of each contender.
    effort: how many items are measured: "smoke" (tests), "quick" (the demo) or "full".
    """

    kind: Literal["known", "text"] = "text"
    corpus: str = EMBEDDED
    field: str | None = None
    labels: str | None = None
    pairs: str | None = None
    budget: str = "10min"
    seeds: int = 3
    effort: Literal["smoke", "quick", "full"] = "full"
    limit_bytes: int | None = None

    @property
    def key(self) -> str:
        """The name of its folder."""
        return self.kind

    @property
    def title(self) -> str:
        """What the report calls it."""
        return "the known source" if self.kind == "known" else f"real text ({self.corpus})"


@dataclass(frozen=True)
class Study:
    """Everything a study is told. `workers` runs go on at once, each on `threads` threads."""

    sources: tuple[Source, ...] = (Source("known", "grammar", budget="30s"), Source())
    contenders: tuple[str, ...] = tuple(CONTENDERS)
    controls: tuple[str, ...] = tuple(CONTROLS)
    workers: int = 0
    threads: int = 0
    device: str = "cpu"
    sizes: dict[str, dict[str, Any]] = field(default_factory=dict)
    """source kind -> changed fields of its `Size` (`{"text": {"width": 256}}`)."""


@dataclass(frozen=True)
class Job:
    """One run: a contender on a source with a seed, or the controls that need no training."""

    source: str
    contender: str
    seed: int

    @property
    def name(self) -> str:
        """Its folder below `runs/`."""
        return f"{self.source}/{slug(self.contender)}-seed{self.seed}"

    @property
    def trains(self) -> bool:
        """Whether there is a network to train."""
        return is_contender(self.contender)


@dataclass(frozen=True)
class Plan:
    """A study with every choice made: what `study.json` holds."""

    study: Study
    chosen: dict[str, Size]
    flops: dict[str, float]
    """source -> the budget of one run in FLOPs, as far as it can be said beforehand."""

    def source(self, key: str) -> Source:
        """The source of that key."""
        return next(source for source in self.study.sources if source.key == key)

    def jobs(self) -> list[Job]:
        """Every run in the order they start: one seed of all contenders before the next seed.

        The known source comes first, since its answers come soonest.
        """
        return [job for source in self.study.sources for job in self._jobs_of(source)]

    def _jobs_of(self, source: Source) -> Iterator[Job]:
        if set(self.study.controls) - {"untrained", "shuffled"}:
            yield Job(source.key, "controls", 0)
        for seed in range(source.seeds):
            yield from (Job(source.key, key, seed) for key in self.study.contenders)
            if "untrained" in self.study.controls:
                yield Job(source.key, "untrained", seed)

    def to_dict(self) -> dict[str, Any]:
        """As plain data for JSON."""
        sizes_ = {key: {name: None if value == float("inf") else value for name, value in asdict(size).items()}
                  for key, size in self.chosen.items()}
        return {"format": FORMAT, "study": json.loads(json.dumps(asdict(self.study))), "sizes": sizes_,
                "flops": self.flops}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Plan:
        """What `to_dict` wrote."""
        study = dict(data["study"])
        study["sources"] = tuple(Source(**source) for source in study["sources"])
        study["contenders"], study["controls"] = tuple(study["contenders"]), tuple(study["controls"])
        chosen = {key: Size(**{**size, "until": float("inf") if size["until"] is None else size["until"]})
                  for key, size in data["sizes"].items()}
        return cls(Study(**study), chosen, data["flops"])


def make(study: Study) -> Plan:
    """Check a study and choose what it leaves open: sizes for each budget, workers and threads for the machine.

    Raises:
        BothwaysError: an unknown contender, a budget that cannot be read, no seeds, files that do not exist.
    """
    from bothways.training import Budget

    # 1. names and counts
    for key in study.contenders:
        contender(key)
    if not study.contenders:
        raise BothwaysError(f"a comparison needs at least one contender: {', '.join(CONTENDERS)}")
    for source in study.sources:
        if source.seeds < 1:
            raise BothwaysError(f"--seeds is {source.seeds}, but must be at least 1")
        for option, path in (("--labels", source.labels), ("--pairs", source.pairs)):
            if path is not None and not Path(path).is_file():
                raise BothwaysError(f"{option} names '{path}', which is not a file")
    # 2. the machine
    workers, threads = share(study.workers, study.threads, study.device)
    # 3. a network for every budget
    chosen, flops = {}, {}
    for source in study.sources:
        amount = flops_of(Budget.parse(source.budget), threads, study.device)
        size = sizes.choose(source.kind, amount)
        flops[source.key] = amount
        chosen[source.key] = _changed(size, study.sizes.get(source.kind, {}))
    return Plan(replace(study, workers=workers, threads=threads), chosen, flops)


def _changed(size: Size, changes: dict[str, Any]) -> Size:
    from bothways.errors import nearest

    known = set(Size.__dataclass_fields__) - {"until"}
    for name in changes:
        if name not in known:
            raise BothwaysError(f"sizes has no field '{name}' {nearest(name, known)}")
    return replace(size, **changes)


def share(workers: int, threads: int, device: str) -> tuple[int, int]:
    """How many runs at once, and threads for each: one thread a run on a CPU, since small networks use a second one
    badly; one run at a time on an accelerator."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if workers < 0 or threads < 0:
        raise BothwaysError("--workers and --threads must be at least 1, or 0 to choose for this machine")
    if device != "cpu":
        return workers or 1, threads or max(1, cores // (workers or 1))
    chosen = workers or (max(1, cores // threads) if threads else cores)
    return chosen, threads or max(1, cores // chosen)


def flops_of(budget: Any, threads: int, device: str) -> float:
    """A budget in FLOPs as far as it can be said before anything has run: the row of `sizes` hangs on it.

    Tokens and steps are taken at the cost of a middling network (1 million parameters).
    """
    rate = sizes.CPU_THREAD_FLOPS * threads if device == "cpu" else sizes.ACCELERATOR_FLOPS
    cost = 8e6
    return {"seconds": rate, "flops": 1.0, "tokens": cost, "steps": cost * 2048}[budget.unit] * float(budget.amount)


# -------------------------------------------------------------------------------------------- folder

def open_folder(folder: Path, plan: Plan) -> Plan:
    """The plan of a study's folder: written there if it is new, and the same as `plan` if it is not.

    Workers, threads and device may differ from the first call, as may nothing else.

    Raises:
        BothwaysError: the folder holds another study, or files that are no study.
    """
    path = folder / PLAN_FILE
    if not path.exists():
        if folder.is_dir() and any(folder.iterdir()):
            raise BothwaysError(f"'{folder}' holds other files and no study: choose an empty or new folder with --out")
        folder.mkdir(parents=True, exist_ok=True)
        write_json(path, plan.to_dict())
        return plan
    stored = load(folder)
    here = plan.study
    if replace(stored.study, workers=here.workers, threads=here.threads, device=here.device) != here:
        changes = ", ".join(_differences(stored.study, plan.study))
        raise BothwaysError(f"'{folder}' holds another study ({changes}): choose another --out, or repeat the call "
                            "that made it to continue it")
    # sizes were chosen when the study began, and a share of the machine that changed since does not change them
    return replace(stored, study=plan.study)


def load(folder: Path) -> Plan:
    """The plan that a study's folder holds.

    Raises:
        BothwaysError: there is none, or it was written by another version.
    """
    path = folder / PLAN_FILE
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BothwaysError(f"'{folder}' is no study: it has no {PLAN_FILE}") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise BothwaysError(f"'{path}' cannot be read ({error})") from error
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise BothwaysError(f"'{path}' was written by another version of bothways (format "
                            f"{data.get('format') if isinstance(data, dict) else None}, not {FORMAT})")
    return Plan.from_dict(data)


def _differences(one: Study, other: Study) -> Iterator[str]:
    """What differs, in words: "budget 10min there, 4min here"."""
    theirs, ours = asdict(one), asdict(other)
    if len(one.sources) != len(other.sources):
        yield f"{len(one.sources)} sources there, {len(other.sources)} here"
    for left, right in zip(theirs["sources"], ours["sources"]):
        for name in left:
            if left[name] != right[name]:
                yield f"{name} {left[name]} there, {right[name]} here"
    for name in ("contenders", "controls", "sizes"):
        if theirs[name] != ours[name]:
            yield f"other {name}"


def write_json(path: Path, data: object) -> None:
    """Data as JSON, written aside and then renamed, so that it is there whole or not at all."""
    with replacing(path) as aside:
        aside.write_text(json.dumps(data, indent=1, allow_nan=False, default=str) + "\n", encoding="utf-8")


# --------------------------------------------------------------------------------- what a run is told

def model_config(size: Size, vocabulary: int, who: Contender) -> Any:
    """The network of a contender: the same trunk for all; two towers share the trunk's blocks between them.

    A two-tower network gets the encoder half of the blocks and the decoder the other half (rounded up), of the same
    width, so that blocks, and nearly parameters and FLOPs, are those of one tower; cross-attention comes on top.
    """
    from bothways.model.config import ModelConfig, Position, Shape

    encoder = size.layers // 2 if who.stack == "two towers" else 0
    shape = Shape(vocabulary=vocabulary, width=size.width, layers=size.layers - encoder, source_layers=encoder,
                  heads=size.heads)
    return ModelConfig(shape=shape, position=Position(length=max(1024, 2 * size.window)))


def rates_of(size: Size, key: str) -> tuple[float, float, float]:
    """(rate of the matrices, rate of everything else, weight decay) of a contender."""
    factor = sizes.RATES.get(key, 1.0)
    return size.matrix_rate * factor, size.other_rate * factor, sizes.DECAYS.get(key, size.weight_decay)


MATCHED: tuple[str, ...] = (
    "the tokenizer, the training windows and the order they come in (runs of one seed share it)",
    "the trunk: width, depth, heads, norm, rotary positions, gated feed-forward, tied embeddings",
    "the optimiser, the schedule's shape, tokens in a batch, clipping and precision",
    "the budget of every run, in the unit you gave; tokens, FLOPs, seconds and steps are reported for all",
    "held-out windows, minimal pairs, labelled texts and their splits, to the item",
)

UNMATCHED: tuple[str, ...] = (
    "the two towers of the encoder-decoder share the blocks of one trunk between them; its cross-attention adds "
    "parameters that the others do not have",
    f"how many tokens are asked for: all of them (causal), {MASK_RATE:.0%} of them (masked), about half of them "
    "(diffusion); logits are computed only there, so a FLOP or a second buys a different number of steps",
    "likelihoods: exact when read left to right, only an upper bound (≤) for those that see both sides; the "
    "estimator's name stands beside every number",
    "learning rates were searched for these sizes, with the same few trials for each contender, and not for your text",
)
