"""From logits to a token: the filters as pure functions, and the draws."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

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
    typical_p: float | None = None
    """Draw from the tokens whose surprise is nearest to the expected one, up to this probability (arXiv 2202.00666)."""
    repetition_penalty: float = 1.0
    """Above 1 makes tokens that already stand in the text less likely (arXiv 1909.05858, section 4.1)."""
    frequency_penalty: float = 0.0
    """Taken from a token's score for each time it was written."""
    presence_penalty: float = 0.0
    """Taken from a token's score once it was written."""
    no_repeat_ngram: int | None = None
    """No sequence of so many tokens is written twice (arXiv 1705.04304, section 2.5)."""
    logit_bias: Mapping[int, float] | tuple[tuple[int, float], ...] = ()
    """Token ids and what is added to their scores; -inf never lets one be written."""
    samples: int = 1
    """Texts for each prompt, which is read once; they come one after the other, and beams give their best ones."""
    stop: tuple[str, ...] = ()
    """Strings that end the text; they are not part of it."""
    stop_ids: tuple[int, ...] = ()
    """Token ids that end the text, besides the ones the objective ends with."""
    seed: int = 0
    """Text number i of a call (its samples counted one by one) is drawn with seed + i."""
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
    cache_numbers: Literal["exact", "int8"] = "exact"
    """How a cache keeps them; int8 is an approximation in about a quarter of float32's memory."""
    truncate: Literal["left", "right"] | None = None
    """Which side of a prompt is cut when it has more tokens than the network has places; refused when none."""
    beams: int = 1
    """Above 1 keeps so many beginnings and writes the likeliest text found (beam search); nothing is drawn."""
    beam_groups: int = 1
    """Beams in so many groups that avoid each other's tokens (arXiv 1610.02424)."""
    diversity: float = 0.0
    """Taken from a token's score for each beam of earlier groups that takes it in the same step."""
    length_penalty: float = 1.0
    """Texts are compared by log probability / length ** length_penalty; above 0 favours long ones."""
    early_stopping: Literal["yes", "no", "never"] = "no"
    """When a beam search ends: once it has `beams` texts; or when no beam is likely to beat them (no); or when none
    can, however long it grows (never)."""
    force: tuple[str | tuple[str, ...], ...] = ()
    """Strings that must stand in the text; of several in a tuple one is enough (beam search)."""
    contrast: float = 0.0
    """Above 0 takes, of the top_k likeliest tokens, one whose state is unlike those before (arXiv 2202.06417)."""
    draft_tokens: int = 4
    """Tokens that are drafted at a time, by a draft model or by look-up."""
    lookup: int | None = None
    """Draft what followed the last tokens, at most so many, where they stood before in the text; the text's
    distribution stays the network's."""
    regex: str | None = None
    """What is written matches this regular expression."""
    json_schema: str | None = None
    """What is written is a JSON value that fits this schema (itself JSON)."""
    choices: tuple[str, ...] = ()
    """What is written is one of these."""
    grammar: str | None = None
    """What is written belongs to this grammar, in Lark's notation."""

    def __post_init__(self) -> None:
        if isinstance(self.logit_bias, Mapping):
            object.__setattr__(self, "logit_bias", tuple(self.logit_bias.items()))
        problems = [*self._problems_of_beams(), *(sentence for wrong, sentence in (
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
            (self.typical_p is not None and not 0 < self.typical_p <= 1,
             f"typical_p is {self.typical_p}, but must lie in (0, 1]"),
            (not all(map(math.isfinite, (self.frequency_penalty, self.presence_penalty))),
             "frequency_penalty and presence_penalty must be finite numbers"),
            (self.no_repeat_ngram is not None and self.no_repeat_ngram < 1,
             f"no_repeat_ngram is {self.no_repeat_ngram}, but a sequence has at least 1 token"),
            (self.samples < 1, f"samples is {self.samples}, but at least 1 text is written"),
            (self.cache_numbers not in ("exact", "int8"),
             f"cache_numbers is '{self.cache_numbers}', but a cache is 'exact' or 'int8'"),
            (self.truncate not in (None, "left", "right"),
             f"truncate is '{self.truncate}', but a prompt is cut on the 'left' or on the 'right'"),
            (self.draft_tokens < 1, f"draft_tokens is {self.draft_tokens}, but at least 1 is drafted"),
            (self.lookup is not None and self.lookup < 1,
             f"lookup is {self.lookup}, but at least 1 token is looked up"),
            (len([one for one in (self.regex, self.json_schema, self.choices or None, self.grammar)
                  if one is not None]) > 1, "regex, json_schema, choices and grammar each say all of what is written: "
             "give one of them"),
        ) if wrong)]
        if problems:
            raise BothwaysError("; ".join(problems))


    def _problems_of_beams(self) -> Iterator[str]:
        """Contradictions among the ways to search."""
        if self.beams < 1:
            yield f"beams is {self.beams}, but at least 1 beginning is kept"
        if self.beam_groups < 1 or self.beams % max(self.beam_groups, 1):
            yield f"beam_groups is {self.beam_groups}, but {self.beams} beams must divide into them"
        if self.early_stopping not in ("yes", "no", "never"):
            yield f"early_stopping is '{self.early_stopping}', but is 'yes', 'no' or 'never'"
        if self.diversity < 0:
            yield f"diversity is {self.diversity}, but must be 0 or above"
        if not 0 <= self.contrast <= 1:
            yield f"contrast is {self.contrast}, but must lie in [0, 1]"
        searching = self.beams > 1
        if searching and self.temperature > 0:
            yield "beams search for the likeliest text and draw nothing: leave temperature at 0, or beams at 1"
        if searching and self.samples > self.beams:
            yield f"samples is {self.samples}, but a search with {self.beams} beams finds {self.beams} texts at most"
        if self.force and not searching:
            yield "strings that must stand in the text need a search: set beams above 1"
        if self.force and self.beam_groups > 1:
            yield "strings that must stand in the text are searched for by one group of beams: leave beam_groups at 1"
        if self.diversity and self.beam_groups == 1:
            yield "diversity keeps groups of beams apart: set beam_groups above 1"
        if self.contrast and (self.top_k is None or self.top_k < 2):
            yield "contrast chooses among the top_k likeliest tokens: set top_k to 2 or more (4 to 8 in the paper)"
        if self.contrast and (self.temperature > 0 or searching):
            yield "contrast chooses by itself: leave temperature at 0 and beams at 1"
        if self.lookup is not None and (searching or self.contrast):
            yield "look-up drafts what is drawn token by token: leave beams at 1 and contrast at 0"


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


def keep_typical(logits: Tensor, p: float) -> Tensor:
    """Block all but the smallest set that reaches p of the tokens whose surprise -log q is nearest to the entropy.

    Locally typical sampling (arXiv 2202.00666, equation 7). (B, V) to (B, V).
    """
    if p >= 1:
        return logits
    logged = logits.log_softmax(-1)
    probabilities = logged.exp()
    entropy = -torch.where(probabilities > 0, probabilities * logged, 0.0).sum(-1, keepdim=True)
    places = (-logged - entropy).abs().argsort(dim=-1, stable=True)
    ranked = probabilities.gather(-1, places)
    before = ranked.cumsum(-1) - ranked
    return logits.masked_fill(torch.zeros_like(logits, dtype=torch.bool).scatter(-1, places, before >= p), BLOCKED)


def penalise_counts(logits: Tensor, counts: Tensor, frequency: float, presence: float) -> Tensor:
    """Take `frequency` from a token's score for each time it was written, and `presence` once.

    Args:
        logits: (B, V).
        counts: (B, V) how often each token was written.
    """
    if not frequency and not presence:
        return logits
    return logits - frequency * counts - presence * (counts > 0)


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
    """Penalty, temperature, top-k, top-p, min-p, typical, in that order; greedy needs the penalty only.

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
    if config.typical_p is not None:
        logits = keep_typical(logits, config.typical_p)
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
