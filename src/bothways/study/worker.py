"""One run in a process of its own: train, then measure, then write `result.json`; or prepare the text of a source.

    python -m bothways.study.worker STUDY/runs/text/causal-seed0

The folder's `run.json` says all there is to know, so a run can be repeated or sent elsewhere alone. Called again it
goes on from its checkpoint. Exit codes: 0 done, 1 and 2 failed (`failure.json` says why), 130 stopped.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from bothways.batch import Example, Key
from bothways.errors import BothwaysError
from bothways.families.trained import Trained
from bothways.study import data, efforts, measuring, plan
from bothways.study.contenders import contender
from bothways.study.locks import only_one
from bothways.study.plan import STEPS_FILE, Source, write_json
from bothways.study.progress import STATUS_FILE
from bothways.study.results import FAILURE_FILE, RESULT_FILE
from bothways.study.sizes import Size
from bothways.training import Outlook, Watcher

PATIENCE = 120.0
"""Seconds to wait for an earlier process of the same run to end."""
SHOWN = 28
"""Tokens of the example that a report draws."""
WORTH = 0.2
"""The share of tokens that a drawn example asks for at least."""


def main(folder: Path) -> int:
    """Do the run in `folder`; returns the exit code."""
    told = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    try:
        # a run whose study was killed just now may still be writing its checkpoint
        with only_one(folder, "run", wait=PATIENCE):
            _work(folder, told)
        return 0
    except BothwaysError as error:
        if error.exit_code == 130:
            return 130
        write_json(folder / FAILURE_FILE, {"message": str(error), "exit_code": error.exit_code, "expected": True})
        traceback.print_exc()
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        message = f"{type(error).__name__}: {error}"
        write_json(folder / FAILURE_FILE, {"message": message, "exit_code": 1, "expected": False})
        traceback.print_exc()
        return 1


def child(folder: str, study: Any) -> None:
    """The same in a process that a study has made: output goes to `log.txt`, and it ends when the study's does.

    Args:
        study: the reading end of a pipe that the study's process holds open.
    """
    place = Path(folder)
    log = os.open(place / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    if hasattr(os, "setsid"):
        # Ctrl-C on the terminal reaches the study only, which then asks its runs to stop one by one
        os.setsid()
    # a study begun in a shell's background is born deaf to it, and so would be its runs
    signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.Thread(target=_watch, args=(study,), daemon=True).start()
    sys.exit(main(place))


def _watch(study: Any) -> None:
    """End as after Ctrl-C when the study's process is gone, since it would start this run again."""
    with contextlib.suppress(EOFError, OSError):
        study.recv()
    os.kill(os.getpid(), signal.SIGINT)


def _work(folder: Path, told: dict[str, Any]) -> None:
    """Prepare, count or train: what the run is for."""
    # the tokenizer's threads too keep to this run's share, or runs timed beside it would seem slow
    os.environ["RAYON_NUM_THREADS"] = str(told["threads"])
    source, size = Source(**told["source"]), Size(**{**told["size"], "until": float("inf")})
    place = Path(told["study"]) / "data" / source.key
    torch.set_num_threads(int(told["threads"]))
    if told["contender"] == "prepare":
        _status(folder, "preparing")
        data.prepare(source, size, place)
        return
    began = time.perf_counter()
    prepared, questions = data.load(place)

    def tell(what: str, share: float) -> None:
        _status(folder, "measuring", what, share)

    if told["contender"] == "timing":
        _status(folder, "timing")
        _time(told, source, size, prepared, place)
        return
    desk = measuring.Desk(source, efforts.EFFORTS[source.effort], prepared, questions, int(told["seed"]), tell)
    run = {"source": source.key, "contender": told["contender"], "seed": told["seed"]}
    result: dict[str, Any]
    if told["contender"] == "controls":
        result = {"scores": measuring.controls(desk, told["controls"])}
    elif told["contender"] == "untrained":
        result = {"scores": measuring.features_only(_untrained(size, prepared, told), desk)}
    else:
        result = _contender(folder, told, size, desk)
    took = time.perf_counter() - began
    result["seconds"] = {"all": took, "measuring": result.pop("measuring", took), "processor": time.process_time()}
    write_json(folder / RESULT_FILE, _finite({"format": 1, "run": run, "curve": [], **result}))


def _time(told: dict[str, Any], source: Source, size: Size, prepared: Any, place: Path) -> None:
    """How many steps a budget in seconds is worth to each contender, all of them timed in turns."""
    from bothways.training import steps_side_by_side

    configs = {key: train_config({**told, "contender": key}, size, source, prepared) for key in told["contenders"]}
    write_json(place / STEPS_FILE, steps_side_by_side(configs, prepared))


def _contender(folder: Path, told: dict[str, Any], size: Size, desk: measuring.Desk) -> dict[str, Any]:
    """Train, then measure what came out, and collect what a report draws."""
    from bothways.training import resolved, train

    # 1. train, or go on; the steps that seconds are worth to this contender stand for the seconds
    config = train_config(told, size, desk.source, desk.prepared)
    who = contender(told["contender"])
    _status(folder, "training")
    _, objective = resolved(config, desk.prepared)
    run = train(config, desk.prepared, folder / "training", watchers=[_Steps(folder)], show=False)
    trained = _load(run.model, told["device"])
    # 2. measure
    began = time.perf_counter()
    rows = measuring.network(trained, desk)
    desk.tell("learning curve", 0.9)
    curve = list(_curve(folder / "training" / "checkpoints", trained, desk, run))
    measured = time.perf_counter() - began
    # 3. what it cost, and what it shows
    training = {"tokens": run.tokens, "flops": run.flops, "seconds": run.seconds, "steps": run.steps,
                "tokens_per_second": run.tokens / max(run.seconds, 1e-9), "parameters": run.parameters,
                "loss": run.loss, "memory_mib": _memory(), "epochs": run.tokens / max(1, desk.prepared.train.tokens),
                "stack": config.model.stack, "budget": config.budget}
    return {"scores": rows, "curve": curve, "training": training, "samples": _samples(trained, desk),
            "example": example(trained, desk), "measuring": measured,
            "modes": [{"name": mode.name, "visibility": repr(mode.visibility), "likelihood": mode.likelihood}
                      for mode in objective.modes], "plain": who.plain}


def train_config(told: dict[str, Any], size: Size, source: Source, prepared: Any) -> Any:
    """The training config of a run: everything but objective and towers is the same for all contenders."""
    from bothways.training import Record, TrainConfig

    who = contender(told["contender"])
    matrix, other, decay = plan.rates_of(size, who.key)
    budget = f"{told['steps']} steps" if told.get("steps") else source.budget
    return TrainConfig(model=plan.model_config(size, prepared.tokenizer.vocabulary.size, who),
                       objective=dict(who.objective), budget=budget, seed=int(told["seed"]),
                       batch_tokens=size.batch_tokens, optimizer=size.optimizer, matrix_rate=matrix, other_rate=other,
                       weight_decay=decay, device=told["device"], keep_memory=True, record=Record(keep="geometric"))


class _Steps(Watcher):
    """Writes the number of planned steps where the display looks for it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def started(self, outlook: Outlook) -> None:
        _status(self.folder, "training", steps=outlook.plan.steps)


def _load(folder: Path, device: str) -> Trained:
    from bothways.families.folder import load

    return load(folder, device)


def _untrained(size: Size, prepared: Any, told: dict[str, Any]) -> Trained:
    """The masked contender's network with its first weights: the same ones that training with this seed begins with."""
    from bothways import objectives
    from bothways.model import LanguageModel

    who = contender("masked")
    torch.manual_seed(int(told["seed"]))
    vocabulary = prepared.tokenizer.vocabulary
    network = LanguageModel(plan.model_config(size, vocabulary.size, who)).to(told["device"]).eval()
    return Trained(network, objectives.make(dict(who.objective), vocabulary), prepared.tokenizer)


# -------------------------------------------------------------------------------------------- learning curve

def _curve(folder: Path, trained: Trained, desk: measuring.Desk, run: Any) -> Iterator[dict[str, Any]]:
    """The common currencies at geometric checkpoints. Earlier ones have not had their learning rate lowered."""
    from bothways.training import checkpoint

    known = checkpoint.steps(folder, resumable=False)
    chosen = known[-desk.effort.points:]
    network = trained.network
    last = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    for step in chosen:
        stored = checkpoint.load(folder / f"step-{step:08d}")
        final = step == run.steps
        network.load_state_dict(last if final else stored.tensors["weights"])
        network.eval()
        tokens = int(stored.state["tokens"])
        yield {"step": step, "tokens": tokens, "flops": run.flops * tokens / max(1, run.tokens),
               "seconds": float(stored.state["seconds"]), "scores": measuring.point(trained, desk)}
    network.load_state_dict(last)


# ------------------------------------------------------------------------------------- what a report draws

def _samples(trained: Trained, desk: measuring.Desk) -> list[dict[str, str]]:
    """What the network writes after each prompt, by its own decoding."""
    from bothways.decoding import GenerateConfig, generate

    # a little temperature: greedy text of small networks runs in circles
    how = GenerateConfig(max_new_tokens=desk.effort.written, temperature=0.7, top_p=0.95, seed=0)
    mode = trained.objective.modes[0]
    found = []
    for prompt in desk.questions.prompts:
        (written,) = generate(trained, [trained.tokenizer.encode(prompt)], how, mode=mode)
        found.append({"prompt": prompt, "text": trained.tokenizer.decode(list(written.ids))})
    return found


def example(trained: Trained, desk: measuring.Desk) -> dict[str, Any]:
    """A training example as this network was given it: tokens in, what is asked, and who sees whom.

    The window is one of the first the run reads, the one most like prose, since it reads best; the epoch is
    the first in which something worth drawing is hidden. A hybrid is given one of several kinds: one of each is shown.
    """
    from bothways.training.data import corrupted

    windows, order = desk.prepared.train, desk.prepared.train.order(desk.seed, 0)
    early = [windows[int(place)] for place in order[:200]]

    def prose(ids: Any) -> int:
        return sum(letter.islower() or letter == " " for letter in trained.tokenizer.decode(ids[:SHOWN].tolist()))

    window = max(early, key=lambda one: prose(one.ids))
    short = window if trained.objective.reads_turns else window._replace(ids=window.ids[:SHOWN])
    found: dict[object, Example] = {}
    for epoch in range(64):
        made = corrupted(trained.objective, windows, short, Key(desk.seed, epoch, short.index, 1.0))
        if sum(len(ask.targets) for ask in made.asks) >= WORTH * len(short.ids):
            found.setdefault(made.visibility, made)
        if len(found) == len({mode.visibility for mode in trained.objective.modes}):
            break
    parts = [drawn(made, trained) for made in found.values()]
    return parts[0] if len(parts) == 1 else {"several": parts}


def drawn(made: Example, trained: Trained) -> dict[str, Any]:
    """The picture of an Example as plain data: sides, and grids of 0 and 1 in the order of their sentences."""
    from bothways.pictures.visibility import of_example

    picture = of_example(made, trained.tokenizer.pieces, objective=trained.objective)
    sides = [{"name": side.name, "labels": list(side.labels), "hidden": sorted(side.hidden),
              "asked": {str(place): [one.token for one in asked] for place, asked in side.asked.items()}}
             for side in picture.sides]
    # source among itself, target among itself, target at source: the order of the sentences
    places = sorted(picture.seen, key=lambda place: (place[0] != place[1], place))
    return {"title": picture.title, "sides": sides, "sentences": list(picture.sentences),
            "grids": [["".join("1" if seen else "0" for seen in row) for row in picture.seen[place].tolist()]
                      for place in places]}


def _memory() -> float:
    from bothways.evaluation.speed import peak_memory

    return peak_memory().value


def _status(folder: Path, phase: str, detail: str = "", share: float = 0.0, steps: int | None = None) -> None:
    write_json(folder / STATUS_FILE, {"phase": phase, "detail": detail, "share": share, "steps": steps})


def _finite(value: Any) -> Any:
    """Numbers that are not finite become null: JSON has no other word for them."""
    if isinstance(value, float):
        return value if value - value == 0 else None
    if isinstance(value, dict):
        return {key: _finite(part) for key, part in value.items()}
    return [_finite(part) for part in value] if isinstance(value, (list, tuple)) else value


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
