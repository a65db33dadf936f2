"""The one fine-tuning loop: AdamW, warm-up and linear decay over a fixed number of steps, on packed batches.

What is tuned, how fast and for how long is one frozen `TuneConfig`. A task gives the loop a trunk, a head and a
function from places to a loss, and, where it can, a function that judges the model on texts kept back.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor, nn

from bothways.errors import BothwaysError
from bothways.model import ModelConfig
from bothways.tasks import adapters
from bothways.tasks.config import Precision, TuneConfig
from bothways.training.precision import find

POOL = 32
"""Batches whose texts are sorted by length together, so that like lengths meet and the order stays random."""


@dataclass
class Tuned:
    """What the loop did: the loss of every step, what the judge said (step, value), and the step of the best weights,
    which is the last where nobody judged."""

    losses: list[float] = field(default_factory=list)
    judged: list[tuple[int, float]] = field(default_factory=list)
    best: int = -1


def tune(trunk: nn.Module, head: nn.Module | None, n: int, loss_of: Callable[[list[int], int], Tensor],
         config: TuneConfig, watch: Callable[[int, float], None] | None = None, *,
         lengths: Sequence[int] | None = None, judge: Callable[[], float] | None = None) -> Tuned:
    """Move the weights of `trunk` and `head` to lower `loss_of`; the network is left in evaluation mode.

    Args:
        n: training texts.
        loss_of: (places of the batch's texts, step) -> scalar loss.
        watch: called with step and loss after each update.
        lengths: (n,) tokens of each text, for batches by tokens or length.
        judge: how good the model is now on texts kept back, more is better; the best weights are put back at the end.
    Raises:
        BothwaysError: a loss that is not finite, naming the step; an adapter without its package.
    """
    config = config.over(n)
    highest = config.rate(sum(weight.numel() for weight in trunk.parameters()))
    done = Tuned()
    with (torch.random.fork_rng(devices=_devices(trunk)), dropping([trunk, head], config.dropout),
          adapters.attached(trunk, config.moves, config.rank)):
        torch.manual_seed(config.seed)
        groups = [*_groups(_trunk_weights(trunk, highest, config.layer_decay), config.weight_decay),
                  *_groups([] if head is None else [(weight, config.head_rate) for weight in head.parameters()],
                           config.weight_decay)]
        optimiser = torch.optim.AdamW(groups, betas=(0.9, 0.98), fused=True)
        rates = [group["lr"] for group in optimiser.param_groups]
        weights = [weight for group in optimiser.param_groups for weight in group["params"]]
        if not weights:
            raise BothwaysError(f"fine-tuning option 'moves' is '{config.moves}', which leaves nothing to train here: "
                                "say all or lora")
        looks = {math.ceil(config.steps * (k + 1) / config.evaluations) - 1 for k in range(config.evaluations)}
        rng = np.random.default_rng(config.seed)
        order = batches(n, config.batch, rng) if lengths is None or not (config.by_length or config.batch_tokens) else \
            like_lengths(lengths, config.batch, config.batch_tokens, rng)
        kept: list[Tensor] = []
        trunk.train(config.moves != "head")
        for step in range(config.steps):
            # 1. the rate of this step
            share = schedule(step, config.steps, config.warm_up)
            for group, rate in zip(optimiser.param_groups, rates):
                group["lr"] = rate * share
            # 2. one update
            optimiser.zero_grad(set_to_none=True)
            with _computing(trunk, config.precision):
                loss = loss_of(next(order), step)
            if not torch.isfinite(loss):
                raise BothwaysError(f"the loss of fine-tuning is not finite at step {step}: "
                                    f"lower learning_rate (now {highest:g})", exit_code=1)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(weights, config.clip)
            optimiser.step()
            done.losses.append(float(loss.detach()))
            if watch is not None:
                watch(step, done.losses[-1])
            # 3. a look at the texts kept back
            if judge is not None and step in looks:
                trunk.eval()
                done.judged.append((step, judge()))
                trunk.train(config.moves != "head")
                if done.judged[-1][1] > max((value for _, value in done.judged[:-1]), default=-math.inf):
                    kept, done.best = [weight.detach().clone() for weight in weights], step
                elif config.patience and sum(at > done.best for at, _ in done.judged) >= config.patience:
                    break
        # 4. the best weights
        with torch.no_grad():
            for weight, best in zip(weights, kept):
                weight.copy_(best)
    done.best = done.best if kept else len(done.losses) - 1
    trunk.eval()
    return done


@contextmanager
def dropping(parts: Sequence[nn.Module | None], rate: float | None) -> Iterator[None]:
    """Another share of dropout in all parts of these modules; afterwards their own again. None changes nothing."""
    if rate is None:
        yield
        return
    modules = [module for part in parts if part is not None for module in part.modules()]
    own = [(module, name, getattr(module, name)) for module in modules for name in ("dropout", "config")
           if isinstance(getattr(module, name, None), float | ModelConfig)]
    try:
        for module, name, value in own:
            setattr(module, name, replace(value, dropout=rate) if isinstance(value, ModelConfig) else rate)
        yield
    finally:
        for module, name, value in own:
            setattr(module, name, value)


def schedule(step: int, steps: int, warm_up: float) -> float:
    """The share of the peak rate: linear up over `warm_up` of the steps, linear down to nearly zero after."""
    rising = max(1, round(steps * warm_up))
    return (step + 1) / rising if step < rising else (steps - step) / max(1, steps - rising + 1)


def batches(n: int, size: int, rng: np.random.Generator) -> Iterator[list[int]]:
    """Places of 0..n-1 in random order, `size` at a time, again and again; every pass uses every place once."""
    waiting: list[int] = []
    while True:
        while len(waiting) < min(size, n):
            waiting += rng.permutation(n).tolist()
        yield waiting[:size]
        waiting = waiting[size:]


def like_lengths(lengths: Sequence[int], size: int, tokens: int | None, rng: np.random.Generator
                 ) -> Iterator[list[int]]:
    """As `batches`, texts of like length together: at most `size` of them, and `tokens` tokens (or one text).

    A random pool of 32 batches is sorted by length and cut; its batches come in random order.
    """
    for pool in batches(len(lengths), min(len(lengths), POOL * size), rng):
        found: list[list[int]] = []
        filled = 0
        for place in sorted(pool, key=lambda place: lengths[place]):
            full = not found or len(found[-1]) == size or (
                tokens is not None and filled + lengths[place] > tokens)
            if full:
                found.append([])
                filled = 0
            found[-1].append(place)
            filled += lengths[place]
        for i in rng.permutation(len(found)):
            yield found[i]


def class_weights(labels: Sequence[int], classes: int) -> Tensor:
    """(classes,) float32 weights under which every class that occurs counts the same; their mean over texts is 1."""
    counts = np.bincount(np.asarray(labels, dtype=np.int64), minlength=classes)
    weights = np.where(counts > 0, len(labels) / np.maximum(counts, 1) / max(1, int((counts > 0).sum())), 0.0)
    return torch.from_numpy(weights.astype(np.float32))


def _computing(trunk: nn.Module, precision: Precision) -> AbstractContextManager[object]:
    """Products in bfloat16 where that is wanted, and, with "auto", where the processor has it."""
    device = next(trunk.parameters()).device
    if precision == "float32" or find(precision, str(device)).dtype == torch.float32:
        return nullcontext()
    return torch.autocast(device.type, torch.bfloat16)


def _trunk_weights(trunk: nn.Module, highest: float, layer_decay: float) -> list[tuple[Tensor, float]]:
    """What moves in the trunk, each with its highest rate: lower for lower layers where `layer_decay` is below 1."""
    found: list[tuple[Tensor, float]] = []
    for name, weight in trunk.named_parameters():
        if weight.requires_grad:
            found.append((weight, highest * layer_decay ** _below_top(name, trunk)))
    return found


def _below_top(name: str, trunk: nn.Module) -> int:
    """How many layers lie above the one that this weight belongs to; an embedding lies below the first."""
    towers = {tower: len(getattr(part, "blocks", ())) for tower in ("tower", "source_tower")
              if (part := getattr(trunk, tower, None)) is not None}
    tower, _, rest = name.partition(".")
    if tower in towers and rest.startswith("blocks."):
        return towers[tower] - 1 - int(rest.split(".")[1])
    if "embedding" in name or rest.startswith("position"):
        return max(towers.values(), default=0)
    return 0


def _groups(weights: Sequence[tuple[Tensor, float]], decay: float) -> list[dict[str, object]]:
    """Weights of one rate together; matrices decay, norms and biases do not."""
    groups: dict[tuple[float, float], list[Tensor]] = {}
    for weight, rate in weights:
        groups.setdefault((rate, decay if weight.dim() > 1 else 0.0), []).append(weight)
    return [{"params": members, "lr": rate, "weight_decay": amount} for (rate, amount), members in groups.items()]


def _devices(trunk: nn.Module) -> list[torch.device]:
    device = next(trunk.parameters()).device
    return [device] if device.type == "cuda" else []
