"""Tiny random models of the five contenders, with weights large enough that they say different things."""

from __future__ import annotations

import torch

from bothways import objectives
from bothways.families.trained import Trained
from bothways.model import FeedForward, LanguageModel, ModelConfig, Norm, Position, Shape
from bothways.text.tokenizer import Tokenizer

TOKENIZER = Tokenizer.train(["the cat sat on the mat. a dog ran to the house, naïve façade déjà 😀 "] * 5, size=330)
V = TOKENIZER.vocabulary.size
CONTENDERS = {
    "causal": "next-token",
    "masked": "masked",
    "denoising": "denoising",
    "hybrid": "0.5 next-token + 0.5 masked-next",
    "diffusion": "diffusion",
    "spans": "span-corruption",
}
ONE = ModelConfig(Shape(V, 32, 2, 0, 4, 2), position=Position(length=96))
TWO = ModelConfig(Shape(V, 32, 2, 1, 4, 2), position=Position(length=96))
LEFT_TO_RIGHT = {
    "rotary": ("next-token", ONE),
    "local layers": ("next-token", ModelConfig(Shape(V, 32, 3, 0, 4), reach="LG", local=3)),
    "learned": ("next-token", ModelConfig(Shape(V, 32, 2, 0, 4), Position("learned", length=64))),
    "sinusoidal, norm after": (
        "next-token",
        ModelConfig(
            Shape(V, 32, 2, 0, 4), Position("sinusoidal"), Norm("layer", "after"), FeedForward("plain", "gelu")
        ),
    ),
    "relative": ("next-token", ModelConfig(Shape(V, 32, 2, 0, 4), Position("relative"))),
    "hybrid": ("0.5 next-token + 0.5 masked-next", ONE),
    "denoising": ("denoising", TWO),
    "spans, T5": ("span-corruption", ModelConfig(Shape(V, 32, 2, 2, 4), Position("relative"), scale=1.0, tied=False)),
}


def tiny(objective: str, config: ModelConfig | None = None, seed: int = 0) -> Trained:
    """A random model; `config` defaults to one that fits the objective's stack."""
    made = objectives.make(objective, TOKENIZER.vocabulary)
    torch.manual_seed(seed)
    network = LanguageModel(config or (TWO if made.stack == "two towers" else ONE))
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(torch.randn_like(weight) * 0.15)
    return Trained(network.eval(), made, TOKENIZER)
