"""Who competes: five paradigms, any other objective by its spec, and the controls they must beat, as data.

A contender is an objective and a stack; everything else (tokenizer, token stream and its order, trunk sizes,
optimiser, schedule, seeds, budget) is the same for all of them and stands in the plan.
"""

from __future__ import annotations

import functools
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from bothways.errors import BothwaysError, nearest

MASK_RATE = 0.3
"""The share of tokens hidden by the masked contenders (arXiv 2202.08005 finds more than 15% better; F2 uses 30%)."""


@dataclass(frozen=True)
class Contender:
    """One paradigm: how it is called, what it is trained on, and in plain words what it does.

    `colour` names a colour of the report's palette; a contender keeps it in every picture.
    """

    key: str
    title: str
    objective: Mapping[str, object]
    stack: Literal["one tower", "two towers"]
    plain: str
    colour: str


@dataclass(frozen=True)
class Control:
    """Something simple that a contender has to beat before its number means anything."""

    key: str
    title: str
    plain: str
    colour: str = "grey"
    per_seed: bool = field(default=False)


CONTENDERS: dict[str, Contender] = {contender.key: contender for contender in (
    Contender("causal", "Causal decoder", {"name": "next-token"}, "one tower",
              "reads left to right and predicts the next token (GPT, Llama)", "blue"),
    Contender("masked", "Masked encoder", {"name": "masked", "rate": MASK_RATE}, "one tower",
              "sees both sides and predicts hidden tokens (BERT)", "orange"),
    Contender("denoising", "Denoising encoder-decoder", {"name": "denoising"}, "two towers",
              "one tower reads a damaged text, the other writes it whole (BART)", "green"),
    Contender("hybrid", "Hybrid", {"name": "mixture", "by": "proportion", "members": [
        {"name": "next-token", "share": 0.5}, {"name": "masked-next", "rate": MASK_RATE, "share": 0.5}]}, "one tower",
              "one network trained half the time each way, and called either way (GPT-BERT)", "red"),
    Contender("diffusion", "Masked diffusion", {"name": "diffusion"}, "one tower",
              "sees both sides and fills in any share of hidden tokens, all of them included (LLaDA)", "purple"),
)}

CONTROLS: dict[str, Control] = {control.key: control for control in (
    Control("untrained", "Untrained network", "the same network with its random first weights", per_seed=True),
    Control("ngram", "N-gram model", "counts of up to four tokens in a row on the same training tokens"),
    Control("majority", "Most frequent answer", "always gives the commonest answer"),
    Control("tfidf-logistic", "TF-IDF + logistic regression", "counts words, no network"),
    Control("tfidf-svm", "TF-IDF + linear SVM", "counts words, no network"),
    Control("shuffled", "Shuffled labels", "the same features with the training labels shuffled: what chance gives"),
)}


OTHER_COLOURS = ("teal", "brown", "pink", "olive", "blue", "orange", "green", "red", "purple")
"""Colours of contenders named by an objective, given out by their name."""
NOT_TRAINED = frozenset(("controls", "prepare", "timing", *CONTROLS))
"""Runs of a study that are no contender's."""


@functools.lru_cache(maxsize=256)
def contender(key: str) -> Contender:
    """The contender of that key: one of the five, or any objective by its spec, such as "ul2" or "masked(rate=0.15)".

    Raises:
        BothwaysError: neither a contender nor an objective, with the nearest names; a wrong option of an objective.
    """
    if key in CONTENDERS:
        return CONTENDERS[key]
    from bothways import objectives
    from bothways.batch import Vocabulary

    bare = key.split("(")[0].strip()
    if bare.isidentifier() and bare not in objectives.known() and not key.endswith(".yaml"):
        known = [*CONTENDERS, *objectives.known()]
        raise BothwaysError(f"there is no contender or objective '{bare}' {nearest(bare, known)}")
    objective = objectives.make(key, Vocabulary.plain(4096))
    shade = OTHER_COLOURS[zlib.crc32(key.encode()) % len(OTHER_COLOURS)]
    return Contender(key, key, objective.describe(), objective.stack, objective.summary, shade)


def is_contender(key: str) -> bool:
    """Whether a run of this name trains a network (and is no control, and no preparation)."""
    return key not in NOT_TRAINED


def slug(key: str) -> str:
    """A contender's name as a folder: what a file system may not like becomes a dash."""
    plain = re.sub(r"[^A-Za-z0-9._=-]+", "-", key).strip("-")
    return key if plain == key else f"{plain[:60]}-{zlib.crc32(key.encode()):08x}"


def split(text: str) -> tuple[str, ...]:
    """Names from a list with commas; a comma inside an objective's parentheses is its own."""
    found = re.findall(r"(?:[^,(]|\([^)]*\))+", text)
    return tuple(dict.fromkeys(name.strip() for name in found if name.strip()))


def title(key: str) -> str:
    """What a contender or control is called in the report."""
    known: Contender | Control | None = CONTENDERS.get(key) or CONTROLS.get(key)
    return key if known is None else known.title


def colour(key: str) -> str:
    """The name of the colour it has in every picture."""
    return contender(key).colour if is_contender(key) else "grey"
