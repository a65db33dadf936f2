"""From logits to a token: the filters as pure functions, and the draws."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from bothways.errors import BothwaysError

BLOCKED = float("-inf")
WAYS = ("mask_predict", "diffusion", "gibbs")
"""The decodings that any network which names hidden tokens can be asked for."""
ORDERS = ("confidence", "entropy", "margin", "random", "left_to_right")


@dataclass(frozen=True)
class GenerateConfig:
    """How text is written. Temperature 0 is greedy: the likeliest token each time, and nothing is drawn.

    What speaks only to the decodings that fill many places at once begins at `decoding`.
    """

    max_new_tokens: int = 64
    temperature: float = 0.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float = 1.0
    """Above 1 makes tokens that already stand in the text less likely (arXiv 1909.05858, section 4.1)."""
    stop: tuple[str, ...] = ()
    """Strings that end the text; they are not part of it."""
    stop_ids: tuple[int, ...] = ()
    """Token ids that end the text, besides the ones the objective ends with."""
    seed: int = 0
    """Prompt number i of a call is drawn with seed + i."""
    decoding: str | None = None
    """Another way to fill than the objective's own: mask_predict, diffusion or gibbs."""
    steps: int | None = None
    """Passes over a block; more than it has blanks are refused."""
    block: int | None = None
    """How many places are written at once, block after block; all when none."""
    order: str | tuple[int, ...] | None = None
    """Which blanks come first: confidence, entropy, margin, random, left_to_right, or their numbers from 0."""
    guidance: float = 0.0
    """Above 0 moves the answers away from what they would be without the given tokens: logits + guidance * (logits -
    those with the given tokens hidden too), arXiv 2410.18514, section 4.3."""
    prefix_cache: bool = False
    """Read what stands before a block once, when it begins: an approximation for a network that reads both ways."""
    max_blank_tokens: int = 1
    """The most tokens of a `<mask>` where each stands for one: every number from 1 is tried, and the best mean log
    probability wins (arXiv 1904.09324, section 3.3)."""
    think_tokens: int | None = None
    """The most tokens of a thought, whose end is then written for the model; 0 begins none. No limit when none."""
    hide_thought: bool = False
    """Leave thoughts out of the text; the ids hold them."""
    begin: bool = True
    """Put `<bos>` before a prompt that does not begin with it."""
    cached: bool = True
    """Keep keys and values of what was read; without it every step reads the whole text again (the reference)."""

    def __post_init__(self) -> None:
        problems = [sentence for wrong, sentence in (
            (self.max_new_tokens < 1, f"max_new_tokens is {self.max_new_tokens}, but at least 1 token is written"),
            (not (self.temperature >= 0 and math.isfinite(self.temperature)),
             f"temperature is {self.temperature}, but must be 0 (greedy) or above"),
            (self.top_k is not None and self.top_k < 1, f"top_k is {self.top_k}, but at least 1 token must remain"),
            (self.top_p is not None and not 0 < self.top_p <= 1, f"top_p is {self.top_p}, but must lie in (0, 1]"),
            (self.min_p is not None and not 0 <= self.min_p <= 1, f"min_p is {self.min_p}, but must lie in [0, 1]"),
            (not self.repetition_penalty > 0,
             f"repetition_penalty is {self.repetition_penalty}, but must be above 0 (1 changes nothing)"),
            (self.steps is not None and self.steps < 1, f"steps is {self.steps}, but at least 1 is needed"),
            (self.think_tokens is not None and self.think_tokens < 0,
             f"think_tokens is {self.think_tokens}, but a thought has 0 tokens (none is begun) or more"),
            (self.block is not None and self.block < 1, f"block is {self.block}, but a block has at least 1 place"),
            (self.decoding not in (None, *WAYS),
             f"decoding is '{self.decoding}', but blanks are filled by {', '.join(WAYS)}"),
            (isinstance(self.order, str) and self.order not in ORDERS,
             f"order is '{self.order}', but blanks are written by {', '.join(ORDERS)}, or in the order of their "
             "numbers"),
            (isinstance(self.order, tuple) and sorted(self.order) != list(range(len(self.order))),
             f"order is {self.order}, but must name each blank once, by its number from 0"),
            (not (self.guidance >= 0 and math.isfinite(self.guidance)),
             f"guidance is {self.guidance}, but must be 0 (none) or above"),
            (self.max_blank_tokens < 1,
             f"max_blank_tokens is {self.max_blank_tokens}, but a blank has at least 1 token"),
        ) if wrong]
        if problems:
            raise BothwaysError("; ".join(problems))


def keep_top_k(logits: Tensor, k: int) -> Tensor:
    """Block all but the k likeliest of each row: (B, V) to (B, V). Ties at the border all stay."""
    if k >= logits.shape[-1]:
        return logits
    border = logits.topk(k, dim=-1).values[..., -1:]
    return logits.masked_fill(logits < border, BLOCKED)


def keep_top_p(logits: Tensor, p: float) -> Tensor:
    """Block all but the smallest set of likeliest tokens that together reach p (arXiv 1904.09751, section 3.1)."""
    if p >= 1:
        return logits
    ranked, places = logits.sort(dim=-1, descending=True)
    probabilities = ranked.softmax(-1)
    before = probabilities.cumsum(-1) - probabilities
    return logits.masked_fill(torch.zeros_like(logits, dtype=torch.bool).scatter(-1, places, before >= p), BLOCKED)


def keep_min_p(logits: Tensor, share: float) -> Tensor:
    """Block tokens less likely than `share` times the likeliest (arXiv 2407.01082)."""
    if share <= 0:
        return logits
    return logits.masked_fill(logits < logits.amax(-1, keepdim=True) + math.log(share), BLOCKED)


def penalise_repeats(logits: Tensor, seen: Tensor, penalty: float) -> Tensor:
    """Make seen tokens less likely (arXiv 1909.05858, section 4.1).

    Args:
        logits: (B, V).
        seen: (B, V) bool, True where the token stands in the text already.
        penalty: positive logits are divided by it, negative ones multiplied.
    """
    if penalty == 1:
        return logits
    return torch.where(seen, torch.where(logits > 0, logits / penalty, logits * penalty), logits)


def filtered(logits: Tensor, config: GenerateConfig, seen: Tensor | None = None) -> Tensor:
    """Penalty, temperature, top-k, top-p, min-p, in that order; greedy needs the penalty only.

    Args:
        logits: (B, V) floats; blocked tokens are already minus infinity.
        seen: (B, V) bool for the repetition penalty, or none.
    """
    if seen is not None:
        logits = penalise_repeats(logits, seen, config.repetition_penalty)
    if config.temperature == 0:
        return logits
    logits = logits / config.temperature
    if config.top_k is not None:
        logits = keep_top_k(logits, config.top_k)
    if config.top_p is not None:
        logits = keep_top_p(logits, config.top_p)
    if config.min_p is not None:
        logits = keep_min_p(logits, config.min_p)
    return logits


def draw(logits: Tensor, uniform: Tensor) -> Tensor:
    """One token a row, by the inverse of the distribution function in float64.

    Args:
        logits: (B, V) filtered, minus infinity where nothing may be drawn.
        uniform: (B,) float64 in [0, 1).
    Returns:
        (B,) int64; a token of probability 0 is never drawn.
    """
    reached = logits.double().softmax(-1).cumsum(-1)
    total = reached[:, -1:]
    aim = torch.minimum(uniform.to(total.device).unsqueeze(-1) * total, torch.nextafter(total, torch.zeros_like(total)))
    return torch.searchsorted(reached, aim, right=True).squeeze(-1)


def gumbel_argmax(logits: Tensor, generator: torch.Generator) -> Tensor:
    """One token a row by the Gumbel trick, in float64.

    In float32 the largest noises cannot be reached, which silently lowers the temperature (arXiv 2409.02908).

    Args:
        logits: (T, V) filtered.
        generator: on the CPU, so that every device draws the same.
    Returns:
        (T,) int64.
    """
    uniform = torch.rand(logits.shape, generator=generator, dtype=torch.float64)
    uniform.clamp_min_(torch.finfo(torch.float64).tiny)
    return (logits.double() - torch.log(-torch.log(uniform)).to(logits.device)).argmax(-1)
