"""What both calls need: which decoding fits, the room there is, what may be written, and text that grows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from bothways.decoding.sampling import ORDERS, WAYS, GenerateConfig
from bothways.decoding.structured import wants_form
from bothways.decoding.written import GrowingText
from bothways.errors import BothwaysError, nearest
from bothways.families.trained import Trained
from bothways.objectives.base import Mode

FILLING = (*WAYS, "block_diffusion")
"""The decodings that write into places that stand there already; the others write from left to right."""
ONLY_FILLING = ("decoding", "steps", "block", "order", "guidance", "prefix_cache", "max_blank_tokens")
"""Options that say nothing to who writes from left to right."""
ONLY_WRITING = ("beams", "beam_groups", "contrast", "lookup", "force", "regex", "json_schema", "choices", "grammar",
                "frequency_penalty", "presence_penalty", "no_repeat_ngram", "logit_bias", "cache_numbers", "truncate")
"""Options that say nothing to who fills places."""
ONLY_CONTINUING = ("beams", "beam_groups", "contrast", "lookup", "force", "regex", "json_schema", "choices", "grammar",
                   "samples", "truncate")
"""Options that say nothing to who writes blanks from left to right."""
CONTEXT = 8
"""Prompt tokens that new text is decoded after, so that spaces and half characters join up."""


def blocked_tokens(trained: Trained, allowed: Sequence[int]) -> Tensor:
    """(V,) bool on the network's device: reserved tokens and ids without a token are never written, but `allowed`."""
    vocabulary, size = trained.vocabulary, trained.config.shape.vocabulary
    blocked = torch.ones(size, dtype=torch.bool)
    blocked[:vocabulary.size] = torch.from_numpy(np.array(vocabulary.special, dtype=bool))[:size]
    blocked[list(allowed)] = False
    return blocked.to(trained.device)


def decoding_for(trained: Trained, mode: Mode, purpose: str, config: GenerateConfig) -> str:
    """The name of the decoding: the objective's own in this mode, or another that its network can be asked for.

    Raises:
        BothwaysError: one that does not fit, or an option that says nothing to it.
    """
    objective = trained.objective
    name = objective.decoding_of(mode)
    known = (*FILLING, "infill") if purpose == "fill" else (*FILLING, "left_to_right", "infill")
    # 1. the objective's own
    if name == "left_to_right" and purpose == "fill":
        ways = [other.name for other in objective.modes if objective.decoding_of(other) != "left_to_right"]
        raise BothwaysError(f"this model looks only left in its mode '{mode.name}', so it cannot fill blanks: "
                            + (f"fill in the mode '{ways[0]}'" if ways else "it can continue a prompt (generate)"))
    if name not in known:
        raise BothwaysError(f"the objective '{objective.name}' asks for the decoding '{name}' {nearest(name, known)}")
    # 2. what was asked for must fit
    if name not in FILLING:
        strange = [option for option in ONLY_FILLING if getattr(config, option) != getattr(GenerateConfig, option)]
        if strange:
            raise BothwaysError(f"{strange[0]} speaks to a decoding that fills many places at once, but this model "
                                f"writes from left to right in its mode '{mode.name}': leave it out")
        lost = [one for one in ONLY_CONTINUING if purpose == "fill"
                and getattr(config, one) != getattr(GenerateConfig, one)]
        if lost:
            raise BothwaysError(f"{lost[0]} speaks to who writes on after a prompt (generate), but not to who fills "
                                "blanks: leave it out")
        return name
    for one in ONLY_WRITING:
        if getattr(config, one) != getattr(GenerateConfig, one):
            others = "which is its only one" if name == "block_diffusion" else f"it can be asked for {', '.join(WAYS)}"
            raise BothwaysError(f"{one} speaks to a decoding from left to right, but this model writes by {name} in "
                                f"its mode '{mode.name}' ({others}): leave it out")
    if name == "block_diffusion":
        if config.decoding is not None or config.guidance or config.prefix_cache:
            wrong = "decoding" if config.decoding else "guidance" if config.guidance else "prefix_cache"
            raise BothwaysError(f"{wrong} does not fit a model of block diffusion, which reads its finished blocks as "
                                "they stand and keeps them exactly: its only decoding is block_diffusion")
        return name
    name = config.decoding or name
    # 3. orders that mean something to it
    unknown = {"gibbs": ("confidence", "entropy", "margin"), "mask_predict": ("left_to_right",)}.get(name, ())
    if config.order in unknown or (name == "mask_predict" and isinstance(config.order, tuple)):
        fit = [order for order in ORDERS if order not in unknown]
        raise BothwaysError(f"order {config.order} says nothing to the decoding '{name}' (it knows {', '.join(fit)})")
    return name


def check_steps(config: GenerateConfig, decoding: str, blanks: Sequence[int], what: str = "text") -> None:
    """Refuse a number of steps that does not fit the number of blanks of any text."""
    if config.steps is None or not len(blanks):
        return
    most = max(blanks)
    who = f"{what} {list(blanks).index(most) + 1} has {most} blank{'s' * (most != 1)}"
    if decoding == "gibbs" and config.steps < most:
        raise BothwaysError(f"steps is {config.steps}, but {who}, and each is visited at least once: give {most} or "
                            "more")
    if decoding != "gibbs" and config.steps > most:
        raise BothwaysError(f"steps is {config.steps}, but {who}, and each step writes at least one: give at most "
                            f"{most}")


def begin(trained: Trained, prompt: Sequence[int], config: GenerateConfig) -> list[int]:
    """`<bos>`, where it is wanted and not there."""
    bos = trained.vocabulary.bos
    return [bos] if config.begin and (not len(prompt) or int(prompt[0]) != bos) else []


def room(trained: Trained, length: int, what: str, blanks: int = 0) -> int:
    """How many tokens may be written after `length` read ones.

    From left to right the last one written is never read again and needs no place; at least `blanks` need one.
    """
    most = trained.config.position.length
    if length + blanks > most:
        rest = ", and what is written needs one too" if blanks else ""
        raise BothwaysError(f"{what} has {length} tokens, but this network has places for {most}{rest}: shorten it")
    return most - length + (0 if blanks else 1)


def growing_text(trained: Trained, prompt: Sequence[int], config: GenerateConfig) -> GrowingText | None:
    """The text of what comes after the prompt; none without a tokenizer."""
    if not trained.readable:
        if config.stop:
            raise BothwaysError("stop strings need a tokenizer, and this folder has none: use stop_ids")
        return None
    context = [] if trained.objective.replies else [int(token) for token in prompt[-CONTEXT:]]
    if wants_form(config) and not trained.tokenizer.decode(context):
        # a form speaks of every character, also of a space that some decoders take from where a text begins
        context = trained.tokenizer.encode("a", reserved=False)[-1:]
    return GrowingText(trained.tokenizer, config.stop, context)


def text_of(trained: Trained, ids: list[int]) -> str | None:
    """The ids as text; none without a tokenizer."""
    return trained.tokenizer.decode(ids) if trained.readable else None
