"""Published architectures as data: a config translation and a weight-name map each, both directions."""

from __future__ import annotations

from bothways.errors import BothwaysError, nearest
from bothways.families.base import Direction, Family
from bothways.families.eurobert import EuroBert
from bothways.families.llama import Llama
from bothways.families.qwen3 import Qwen3
from bothways.families.t5 import T5
from bothways.model.config import ModelConfig
from bothways.objectives.base import Objective
from bothways.visibility import bidirectional, causal

__all__ = ["KNOWN", "Family", "family", "fitting", "obstacle"]

KNOWN: dict[str, Family] = {family.model_type: family for family in (Llama(), Qwen3(), EuroBert(), T5())}
"""Every family by the `model_type` of its config.json; of those for one direction, the first that fits is taken."""


def family(name: str, where: str) -> Family:
    """The family of that `model_type`.

    Raises:
        BothwaysError: no such family; the message begins with `where`, the file or option that named it.
    """
    if name not in KNOWN:
        raise BothwaysError(f"{where} names the family '{name}', which is not known here {nearest(name, KNOWN)}")
    return KNOWN[name]


def direction(objective: Objective) -> Direction:
    """Which classes of `transformers` serve this objective's principal mode.

    A mode that speaks of the next token goes to a causal class, even where it also looked to the right.
    """
    if objective.stack == "two towers":
        return "two towers"
    return "causal" if objective.modes[0].predicts == "next" else "bidirectional"


def fitting(config: ModelConfig, objective: Objective) -> Family | None:
    """The family whose class gives this network's logits in the principal mode, or none."""
    if _elsewhere(config, objective) is not None:
        return None
    wanted = [family for family in KNOWN.values() if family.direction == direction(objective)]
    return next((family for family in wanted if family.obstacle(config) is None), None)


def _elsewhere(config: ModelConfig, objective: Objective) -> str | None:
    """What no class of `transformers` has at all: companions, or a principal visibility of another shape."""
    if config.companions:
        named = " and ".join(f"'{companion.name}'" for companion in config.companions)
        return f"{named} beside the trunk would be lost"
    seen = objective.modes[0].visibility
    if objective.stack == "one tower" and seen not in (causal, bidirectional):
        return f"it reads {seen!r}, and they read causal or bidirectional"
    return None


def obstacle(config: ModelConfig, objective: Objective) -> str | None:
    """The choices that keep this network out of `transformers`, as a sentence; none when a family fits."""
    if fitting(config, objective) is not None:
        return None
    if (why := _elsewhere(config, objective)) is not None:
        return f"no class does: {why}"
    near = next(family for family in KNOWN.values() if family.direction == direction(objective))
    return f"{near.architecture} does not fit because {near.obstacle(config)}"
