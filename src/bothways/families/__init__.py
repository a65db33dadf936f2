"""Published architectures as data: a config translation and a weight-name map each, both directions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bothways.errors import BothwaysError, nearest
from bothways.families.albert import Albert
from bothways.families.bart import Bart, PlBart
from bothways.families.base import Direction, Family
from bothways.families.bert import Bert
from bothways.families.cohere import Cohere
from bothways.families.deberta import Deberta, DebertaV2
from bothways.families.deepseek import DeepSeekV2, DeepSeekV3
from bothways.families.distilbert import DistilBert
from bothways.families.electra import Electra
from bothways.families.eurobert import EuroBert
from bothways.families.gemma import Gemma2, Gemma3
from bothways.families.glm import Glm, Glm4
from bothways.families.glm2d import Glm2D
from bothways.families.gpt2 import Gpt, Gpt2
from bothways.families.gpt_neo import GptNeo
from bothways.families.gptj import GptJ
from bothways.families.llada import Llada
from bothways.families.llama import Llama
from bothways.families.llama4 import Llama4
from bothways.families.mamba import Mamba
from bothways.families.mamba2 import Mamba2
from bothways.families.mistral import Mistral
from bothways.families.mixtral import Mixtral
from bothways.families.modernbert import ModernBert
from bothways.families.nanochat import NanoChat
from bothways.families.qwen2 import Qwen2
from bothways.families.qwen3 import Qwen3
from bothways.families.qwen3_moe import Qwen3Moe
from bothways.families.roberta import Roberta, XlmRoberta
from bothways.families.t5 import T5, T5Encoder
from bothways.families.t5gemma import T5Gemma
from bothways.families.xlnet import XLNet
from bothways.model.config import ModelConfig
from bothways.objectives.base import Objective
from bothways.visibility import bidirectional, causal

__all__ = ["KNOWN", "Family", "family", "fitting", "obstacle", "recognised"]

KNOWN: dict[str, Family] = {family.model_type: family for family in (
    Llama(), Qwen3(), EuroBert(), T5Encoder(), T5(),
    Mistral(), Qwen2(), Mixtral(), Qwen3Moe(), DeepSeekV2(), DeepSeekV3(), Llama4(),
    Gpt2(), Gpt(), GptNeo(), Gemma2(), Gemma3(), Glm2D(), Glm(), Glm4(), NanoChat(), Cohere(), GptJ(),
    Llada(), Bart(), PlBart(), T5Gemma(),
    Mamba(), Mamba2(),
    Bert(), Roberta(), XlmRoberta(), DistilBert(), Albert(), Electra(), ModernBert(),
    DebertaV2(), Deberta(), XLNet(),
)}
"""Every family by what it is called here, in an order that counts: of those for one direction the first that fits is
taken, and of those that read one `model_type` the first that says a config is its own."""


def family(name: str, where: str) -> Family:
    """The family of that `model_type`.

    Raises:
        BothwaysError: no such family; the message begins with `where`, the file or option that named it.
    """
    if name not in KNOWN:
        raise BothwaysError(f"{where} names the family '{name}', which is not known here {nearest(name, KNOWN)}")
    return KNOWN[name]


def recognised(stored: Mapping[str, Any], where: str) -> Family:
    """The family of a published config.

    Raises:
        BothwaysError: none that is known here; the message begins with `where`, the file.
    """
    found = next((one for one in KNOWN.values() if one.reads(stored)), None)
    return family(str(stored.get("model_type")), where) if found is None else found


def direction(objective: Objective) -> Direction:
    """Which classes of `transformers` serve this objective's principal mode.

    A mode that speaks of the next token goes to a causal class, even where it also looked to the right.
    """
    if objective.stack == "two towers":
        return "two towers"
    return "causal" if objective.modes[0].predicts == "next" else "bidirectional"


def fitting(config: ModelConfig, objective: Objective, first: str | None = None) -> Family | None:
    """The family whose class gives this network's logits in the principal mode, or none.

    Args:
        first: the family that is taken where several fit: the one the network was read from.
    """
    if _unseen(objective) is not None:
        return None
    ordered = sorted(_candidates(objective), key=lambda family: family.model_type != first)
    return next((family for family in ordered if family.obstacle(config) is None), None)


def obstacle(config: ModelConfig, objective: Objective) -> str | None:
    """The choices that keep this network out of `transformers`, as a sentence; none when a family fits.

    Of the families that read this way, the one with the fewest differences is named.
    """
    if fitting(config, objective) is not None:
        return None
    if (why := _unseen(objective)) is not None:
        return f"no class does: {why}"
    near = min(_candidates(objective), key=lambda family: len(family.differences(config)))
    return f"{near.architecture} does not fit because {near.obstacle(config)}"


def _candidates(objective: Objective) -> list[Family]:
    """The families of `transformers` that read in the direction of this objective."""
    return [family for family in KNOWN.values() if family.direction == direction(objective) and not family.own_code]


def _unseen(objective: Objective) -> str | None:
    """A principal visibility that no class of `transformers` has, as a phrase."""
    seen = objective.modes[0].visibility
    if objective.stack == "one tower" and seen not in (causal, bidirectional):
        return f"it reads {seen!r}, and they read causal or bidirectional"
    return None
