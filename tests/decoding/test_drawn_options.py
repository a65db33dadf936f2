"""Options drawn at random for every paradigm: the same call gives the same text, whole or in pieces, alone or in a
batch, and what does not go together is refused in one sentence."""

from __future__ import annotations

import random
from typing import Any

import pytest
from tests.decoding.small import tiny
from tests.draws import many

import bothways
from bothways.errors import BothwaysError

OBJECTIVES = ("next-token", "masked", "denoising", "0.5 next-token + 0.5 masked-next", "diffusion", "span-corruption",
              "prefix", "permuted", "glm", "ul2", "fim", "block-diffusion")
POOL: dict[str, tuple[Any, ...]] = {
    "temperature": (0, 0.7, 1.0, 1.5), "top_k": (1, 3, 50), "top_p": (0.3, 0.9, 1.0), "min_p": (0.05, 0.2),
    "typical_p": (0.5, 0.9), "repetition_penalty": (1.2,), "frequency_penalty": (0.5,), "presence_penalty": (0.5,),
    "no_repeat_ngram": (2, 3), "logit_bias": ({60: 4.0},), "stop": ("the", "a"), "samples": (1, 2, 3), "seed": (1, 2),
    "beams": (2, 4), "beam_groups": (2,), "contrast": (0.3,), "lookup": (3,), "cache_numbers": ("int8",),
    "steps": (1, 4, 8), "block": (4, 8), "guidance": (1.0,), "prefix_cache": (True,), "max_blank_tokens": (1, 4),
    "order": ("confidence", "random", "entropy", "left_to_right", "margin"),
    "decoding": ("mask_predict", "gibbs", "diffusion"), "regex": ("[a-z]+ [a-z]+",)}
PROMPTS = ["the cat", "a dog ran to the house", "a"]
BLANKS = ["the <mask> sat on the <mask>", "<mask>", "a dog <mask> to the <mask> house"]
TOKENS = 8


@pytest.fixture(scope="module", params=OBJECTIVES)
def model(request: pytest.FixtureRequest) -> bothways.Model:
    return bothways.Model(tiny(request.param))


def drawn(rng: random.Random) -> dict[str, Any]:
    """Up to three options; a seed always."""
    return {"seed": 3, **{name: rng.choice(POOL[name]) for name in rng.sample(list(POOL), rng.choice([0, 1, 1, 2, 3]))}}


def judged(model: bothways.Model, seed: int) -> list[str]:
    """What is wrong with one draw, each thing as a sentence."""
    rng = random.Random(f"{model.objective.name}{seed}")
    options, mode = drawn(rng), rng.choice(list(model.modes))
    call, check = rng.choice([("generate", _writes), ("generate", _writes), ("fill", _fills)])
    try:
        return [f"{call} {mode} {options}: {wrong}" for wrong in check(model, mode, options)]
    except BothwaysError as error:
        return [] if "\n" not in str(error) else [f"{call} {mode} {options}: refused in several lines"]


def _fixed(options: dict[str, Any]) -> bool:
    """Whether nothing is drawn, so that a batch, whose texts have a seed each, says the same."""
    return options.get("temperature", 0) == 0 and options.get("order") != "random" and (
        options.get("decoding") != "gibbs")


def _writes(model: bothways.Model, mode: str, options: dict[str, Any]) -> list[str]:
    def write(prompt: Any, **more: Any) -> Any:
        return model.generate(prompt, TOKENS, visibility=mode, **options, **more)

    alone, single = [write(prompt) for prompt in PROMPTS], options.get("samples", 1) == 1
    wrong = ["another text the second time"] * (write(PROMPTS[0]) != alone[0])
    if _fixed(options) and single and write(PROMPTS) != alone:
        wrong.append("another text in a batch")
    if single and not options.get("beams"):
        begun = "" if model.objective.replies else PROMPTS[0]
        streamed = begun + "".join(write(PROMPTS[0], stream=True))
        wrong += [f"{streamed!r} in pieces, {alone[0]!r} at once"] * (streamed != alone[0])
    return wrong


def _fills(model: bothways.Model, mode: str, options: dict[str, Any]) -> list[str]:
    def fill(text: Any) -> Any:
        return model.fill(text, TOKENS, visibility=mode, **options)

    alone, single = [fill(text) for text in BLANKS], options.get("samples", 1) == 1
    found = [text for one in alone for text in ([one] if isinstance(one, str) else one)]
    wrong = [f"a blank is left in {text!r}" for text in found if "<mask>" in text]
    wrong += ["another text the second time"] * (fill(BLANKS[0]) != alone[0])
    if _fixed(options) and single and fill(BLANKS) != alone:
        wrong.append("another text in a batch")
    return wrong


@pytest.mark.parametrize("seed", range(2))
def test_drawn_options_agree_or_are_refused(model: bothways.Model, seed: int) -> None:
    assert judged(model, seed) == []


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_many_drawn_options_agree_or_are_refused(model: bothways.Model) -> None:
    assert [wrong for seed in many() for wrong in judged(model, seed)] == []
