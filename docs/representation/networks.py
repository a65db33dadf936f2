"""The networks that are studied, and the real texts they are asked about.

Those of the known source lie in the folder of a study; those that read OpenStax prose are runs of `bothways train` in
one folder, each named by its paradigm.
"""

from __future__ import annotations

import dataclasses
import gzip
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from bothways.errors import BothwaysError
from bothways.evaluation.features import Tagged, tagged_spans
from bothways.families.folder import load
from bothways.families.trained import Trained
from bothways.model import LanguageModel
from bothways.training import checkpoint

CAUSAL, MASKED, HYBRID = "next-token", "masked(rate=0.3)", "masked-next(rate=0.3)"
DRAWN = (CAUSAL, MASKED, "diffusion", "denoising", "glm", "untrained")
"""The objectives of the known source whose curves are drawn; tables have all."""
PARADIGMS = ("causal", "masked", "denoising", "hybrid", "diffusion", "permuted", "prefix")
"""The runs on real text, in the order of the page."""
Groups = dict[str, list[Trained]]


def models(study: Path, source: str) -> Groups:
    """Objective -> its networks, in the order of their seeds; and untrained ones of the causal network's shape."""
    found: dict[str, dict[int, Trained]] = {}
    for file in sorted((study / "runs" / source).glob("*/result.json")):
        run = json.loads(file.read_text(encoding="utf-8"))["run"]
        if (file.parent / "training/model").is_dir():
            found.setdefault(run["contender"], {})[run["seed"]] = load(file.parent / "training/model")
    groups = {name: [seeds[seed] for seed in sorted(seeds)] for name, seeds in found.items()}
    return {**groups, "untrained": [untrained(one, seed) for seed, one in enumerate(groups[CAUSAL])]}


def untrained(trained: Trained, seed: int = 0, dropout: float | None = None) -> Trained:
    """The same shape and tokenizer with first weights."""
    torch.manual_seed(seed)
    config = trained.config if dropout is None else dataclasses.replace(trained.config, dropout=dropout)
    return replace(trained, network=LanguageModel(config).eval())


def run_of(runs: Path, name: str) -> Trained:
    """A run on real text, in float32.

    Raises:
        BothwaysError: it is not there, or has not come to its end.
    """
    if not (runs / name / "model").is_dir():
        raise BothwaysError(f"'{runs / name / 'model'}' is not there: train it as docs/representation.md says")
    return load(runs / name / "model", dtype=torch.float32)


def there(runs: Path) -> list[str]:
    """The runs that have come to their end, in the order of the page."""
    return [name for name in PARADIGMS if (runs / name / "model").is_dir()]


def at_step(trained: Trained, run: Path, step: int) -> Trained:
    """The network as it was at a kept step of its run.

    Raises:
        BothwaysError: the checkpoint holds other weights than the network.
    """
    network = LanguageModel(trained.config)
    weights = load_file(run / "checkpoints" / f"step-{step:08d}" / "weights.safetensors")
    if missing := set(dict(network.named_parameters())) - set(weights):
        raise BothwaysError(f"step {step} of {run} lacks the weights {', '.join(sorted(missing)[:3])}: the checkpoint "
                            "is of another network")
    network.load_state_dict({name: weights[name] for name in network.state_dict() if name in weights}, strict=False)
    return replace(trained, network=network.eval())


def kept_steps(run: Path) -> list[int]:
    """The powers of two, and the last step, at which a run's weights are kept."""
    found = checkpoint.steps(run / "checkpoints", resumable=False)
    return [step for step in found if step & (step - 1) == 0 or step == found[-1]]


# ------------------------------------------------------------------------------------------------------- real texts

def lines(file: Path) -> list[dict[str, Any]]:
    """The records of a file of JSON lines, packed or not."""
    opened = gzip.open if file.suffix == ".gz" else open
    with opened(file, "rt", encoding="utf-8") as read:  # type: ignore[operator]
        return [json.loads(line) for line in read]


def entities(trained: Trained, file: Path, messages: int, longest: int = 96) -> list[Tagged]:
    """Words of messages with their kind of entity; of words that are none, one in six, so that these are not nearly
    all."""
    found = []
    for record in lines(file)[:messages]:
        starts = np.cumsum([0, *(len(token) + 1 for token in record["tokens"])])
        spans = [(int(start), int(start) + len(token), tag.partition("-")[2] or "none") for start, token, tag in
                 zip(starts, record["tokens"], record["tags"])]
        spans = [one for number, one in enumerate(spans) if one[2] != "none" or number % 6 == 0]
        if spans:
            found.append(tagged_spans(trained.tokenizer, " ".join(record["tokens"]), spans, longest))
    return found


def prose(file: Path, most: int, shortest: int = 200) -> list[str]:
    """Paragraphs of at least so many characters, spread evenly over a packed file."""
    with gzip.open(file, "rt", encoding="utf-8") as read:
        found = [line.strip() for line in read if len(line) > shortest and not line.startswith("=")]
    return [found[place] for place in np.linspace(0, len(found) - 1, min(most, len(found))).astype(int)]


def polarity(data: Path, part: str) -> list[tuple[str, str]]:
    """Sentences of film reviews, negative or positive."""
    names = ("negative", "positive")
    return [(one["text"], names[one["label"]]) for one in lines(data / f"sentiment/sentence_polarity_{part}.jsonl.gz")]


INTENTS = {"FindRestaurants": "restaurant", "GetRide": "taxi", "SearchRoundtripFlights": "flight",
           "FindEvents": "event"}
"""What users of a service want, the four commonest of them, and a word for each."""


def intents(data: Path, shortest: int = 6) -> list[tuple[str, str]]:
    """What users say, of at least six words and once each, with what they want."""
    found: dict[str, str] = {}
    for dialogue in lines(data / "dialogue/sgd_train.jsonl.gz"):
        for turn in dialogue["turns"]:
            wanted = INTENTS.get(next(iter(turn["intents"]), "")) if turn["speaker"] == "USER" else None
            if wanted and len(turn["text"].split()) >= shortest:
                found.setdefault(turn["text"], wanted)
    return list(found.items())
