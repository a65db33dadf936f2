"""Count parameters, FLOPs, memory and tokens of a size and an objective, before training.

    bothways cost --width 256 --layers 6 --objective masked --budget "1e15 flops"
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from bothways.batch import Vocabulary
    from bothways.model import ModelConfig


@dataclass(frozen=True)
class Options:
    """A size, an objective, and what may be spent."""

    objective: str = "next-token"
    """An objective, with options as in 'masked(rate=0.3)'; see bothways see --list."""
    width: int = 256
    """Width of the network."""
    layers: int = 6
    """Layers; of both towers together where the objective needs two."""
    heads: int = 4
    """Attention heads."""
    vocabulary: int = 4096
    """Tokens."""
    window: int = 128
    """Tokens of a window."""
    budget: str | None = None
    """What a run may spend, such as "1e15 flops", "20M tokens" or "5000 steps"."""
    batch_tokens: int = 2048
    """Raw tokens of a step."""
    optimizer: Literal["muon", "adamw"] = "muon"
    """Muon keeps one number more for each weight of the blocks, AdamW two."""


def run(options: Options) -> int:
    """Count, print."""
    from rich.console import Console
    from rich.table import Table

    from bothways.model import cost
    from bothways.objectives import make
    from bothways.training.budget import count

    # 1. the network
    objective = make(options.objective, plain_vocabulary(options.vocabulary))
    config = replace(network(options, objective.stack), companions=objective.companions)
    parameters = cost.parameters(config)
    training = cost.flops(config, objective.profile, options.window)
    reading = cost.flops(config, objective.profile, options.window, training=False)
    # 2. its costs
    title = f"{objective.name}, {config.stack}, {options.width} wide"
    table = Table("what", "how much", title=title, show_header=False)
    table.add_row("parameters", f"{parameters['total']:,}")
    table.add_row("of them outside embedding and head", f"{parameters['non_embedding']:,}")
    table.add_row("training FLOPs per raw token", f"{count(training)}")
    table.add_row("the same by 6 x parameters", f"{count(6 * parameters['total'])}")
    table.add_row("FLOPs per raw token without training", f"{count(reading)}")
    table.add_row("memory of weights (float32)", _bytes(4 * parameters["total"]))
    table.add_row(f"memory of weights, gradients and {options.optimizer}", _bytes(_training_bytes(options, parameters)))
    table.add_row("cache of keys and values per token (float32)", _bytes(cached_bytes(config)))
    for name, value in _spent(options, training):
        table.add_row(name, value)
    Console().print(table)
    return 0


def network(options: Options, stack: str) -> ModelConfig:
    """The network of these sizes, its layers shared among two towers where the objective needs them."""
    from bothways.errors import BothwaysError
    from bothways.model import ModelConfig, Shape

    source = options.layers // 2 if stack == "two towers" else 0
    if stack == "two towers" and options.layers < 2:
        raise BothwaysError(f"--layers {options.layers}: this objective needs two towers, with a layer each at least")
    return ModelConfig(Shape(options.vocabulary, options.width, options.layers - source, source, options.heads))


def plain_vocabulary(size: int) -> Vocabulary:
    """A vocabulary of that size, for objectives that only need to know how many tokens there are."""
    from bothways.batch import RESERVED_TOKENS, Vocabulary
    from bothways.errors import BothwaysError

    if size <= len(RESERVED_TOKENS):
        raise BothwaysError(f"a vocabulary of {size} tokens leaves none for text: {len(RESERVED_TOKENS)} are reserved")
    plain = Vocabulary.plain(size)
    return replace(plain, ends_sentence=~plain.special, capital=~plain.special)


def cached_bytes(config: ModelConfig) -> int:
    """Bytes a decoding keeps for each token it has read, in float32."""
    return 4 * 2 * config.shape.layers * config.key_heads * config.head_size


def _training_bytes(options: Options, parameters: dict[str, int]) -> int:
    """Weights, gradients and the optimiser's numbers in float32; activations come on top."""
    blocks, rest = parameters["non_embedding"], parameters["total"] - parameters["non_embedding"]
    return 4 * (blocks * (3 if options.optimizer == "muon" else 4) + rest * 4)


def _spent(options: Options, flops_per_token: float) -> list[tuple[str, str]]:
    """What a budget buys; one in seconds depends on the machine."""
    if options.budget is None:
        return []
    from bothways.errors import BothwaysError
    from bothways.training.budget import Budget, Cost, count, steps_of

    budget = Budget.parse(options.budget)
    if budget.unit == "seconds":
        raise BothwaysError(f"--budget '{options.budget}': how much a machine does in a second is found by training; "
                            "give tokens, flops or steps")
    steps = steps_of(budget, options.batch_tokens, flops_per_token)
    tokens = steps * options.batch_tokens
    cost = Cost(steps, tokens, tokens * flops_per_token)
    return [("the budget in steps", f"{cost.steps:,}"), ("in tokens", count(cost.tokens)),
            ("in FLOPs", count(cost.flops))]


def _bytes(number: float) -> str:
    for size, unit in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if number >= size:
            return f"{number / size:.1f} {unit}"
    return f"{number:.0f} bytes"
