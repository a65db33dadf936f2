"""What of a network moves in fine-tuning: all of it, nothing, or a small adapter of `peft` beside its projections."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

from torch import nn

from bothways.errors import BothwaysError

PROJECTIONS = ("q", "k", "v", "kv", "out", "up", "gate", "down")
"""The names of linear layers of a block, once fused ones are split."""


@contextmanager
def attached(network: nn.Module, moves: str, rank: int) -> Iterator[None]:
    """Let only what `moves` says have gradients; afterwards all weights may move again, and an adapter is merged in.

    Merged, it costs nothing more when the network is called, and a folder with it is like any other.

    Args:
        moves: "all", "head" (nothing of the network), "lora" (arXiv 2106.09685), "dora" (arXiv 2402.09353) or "ia3"
            (arXiv 2205.05638).
    Raises:
        BothwaysError: `peft` is not installed, or the network has no projection to put an adapter beside.
    """
    before = {weight: weight.requires_grad for weight in network.parameters()}
    if moves != "all":
        for weight in network.parameters():
            weight.requires_grad_(False)
    if moves not in ("all", "head"):
        _attach(network, moves, rank)
    try:
        yield
    finally:
        _merge(network)
        for weight in network.parameters():
            weight.requires_grad_(before.get(weight, True))


def _attach(network: nn.Module, kind: str, rank: int) -> None:
    """Adapters beside every projection of every block."""
    try:
        import peft
    except ImportError:
        raise BothwaysError(f"moves '{kind}' needs the package 'peft': pip install 'bothways[peft]'",
                            exit_code=1) from None
    if hasattr(network, "split_projections"):
        cast(Any, network).split_projections()
    wanted = [name for name, part in network.named_modules()
              if isinstance(part, nn.Linear) and ".blocks." in f".{name}" and name.rpartition(".")[2] in PROJECTIONS]
    if not wanted:
        raise BothwaysError(f"moves '{kind}' puts adapters beside the linear projections of attention and "
                            "feed-forward, and this network has none: say all")
    if kind == "ia3":
        scaled = [name for name in wanted if name.rpartition(".")[2] in ("k", "v", "down")]
        config = peft.IA3Config(target_modules=scaled,
                                feedforward_modules=[name for name in scaled if name.endswith("down")])
    else:
        config = peft.LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=wanted, use_dora=kind == "dora")
    peft.inject_adapter_in_model(config, network)


def _merge(network: nn.Module) -> None:
    """Put each adapter into the projection beside it, and the projection in the adapter's place."""
    for name, part in list(network.named_modules()):
        if hasattr(part, "merge") and hasattr(part, "base_layer"):
            part.merge()
            parent, _, last = name.rpartition(".")
            setattr(network.get_submodule(parent), last, part.base_layer)
