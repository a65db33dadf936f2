"""Tiny random models of every paradigm, and an exact reference to hold them against."""

from __future__ import annotations

import numpy as np
import torch

from bothways.batch import Window
from bothways.families.trained import Trained
from bothways.model import LanguageModel, ModelConfig, Shape
from bothways.objectives import make
from bothways.text.tokenizer import Tokenizer

WORDS = " ".join(f"w{i}" for i in range(20)) + " the dog dogs cat sees barks bark near . by often"
PARADIGMS = {
    "causal": "next-token", "masked": "masked", "diffusion": "diffusion", "spans": "span-corruption",
    "denoising": "denoising", "hybrid": "0.5 next-token + 0.5 masked-next",
}


def small(paradigm: str, tokenizer: Tokenizer | None = None, seed: int = 0, sharp: float = 3.0,
          **shape: int) -> Trained:
    """A random network; `sharp` scales its weights so that its answers differ from place to place."""
    torch.manual_seed(seed)
    tokenizer = tokenizer or Tokenizer.words(WORDS)
    objective = make(PARADIGMS.get(paradigm, paradigm), tokenizer.vocabulary)
    sizes = {"width": 32, "layers": 2, "heads": 2, **shape}
    two = {"source_layers": 2} if objective.stack == "two towers" else {}
    network = LanguageModel(ModelConfig(Shape(vocabulary=tokenizer.size, **sizes, **two)))
    with torch.no_grad():
        for weight in network.parameters():
            if weight.dim() > 1:
                weight.mul_(sharp)
    return Trained(network, objective, tokenizer)


def texts(trained: Trained, n: int, length: int, seed: int = 1) -> list[Window]:
    """Random windows that begin with <bos>, of `length` tokens and fewer."""
    rng = np.random.default_rng(seed)
    first = int(np.flatnonzero(~trained.vocabulary.special)[0])
    return [Window(np.concatenate([[trained.vocabulary.bos],
                                   rng.integers(first, trained.vocabulary.size, length - 1 - number % 3)]), number, 0,
                   number) for number in range(n)]


def places(length: int, *chosen: int) -> np.ndarray:
    """(length,) bool with the chosen places True."""
    return np.isin(np.arange(length), chosen)
