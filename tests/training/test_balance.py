"""Experts even out by corrections that move behind each step, and by nothing else."""

from __future__ import annotations

import numpy as np
import torch
from tests.training.small import small_config

from bothways.batch import Key, Vocabulary, Window, pack
from bothways.model import FeedForward, LanguageModel, ModelConfig, Shape
from bothways.model.config import Experts
from bothways.objectives import make
from bothways.training.data import Batch, Place, counts
from bothways.training.loop import Loop
from bothways.training.precision import find

VOCABULARY, STEPS = Vocabulary.plain(80), 90


def trained(speed: float) -> tuple[list[float], LanguageModel]:
    """The largest share of tokens that one of six experts got in each step, where all begin with the first one."""
    experts = Experts(6, 1, inner=8, where="DE", score="sigmoid", normalised=False, correction=True, speed=speed)
    model = ModelConfig(Shape(80, 16, 2, heads=2), feed_forward=FeedForward(experts=experts))
    # weights stand nearly still, so that what moves the shares is the correction alone
    config = small_config(model=model, objective="next-token", matrix_rate=1e-6, other_rate=1e-6)
    objective = make("next-token", VOCABULARY)
    torch.manual_seed(0)
    network = LanguageModel(model)
    (router,) = network.tower.routers()
    torch.nn.init.normal_(router.weight, std=0.3)
    router.correction[0] = 1.0
    loop = Loop(config, objective, network, find("float32", "cpu"), STEPS)
    shares = []

    def heard(module: object, given: object, routing: tuple[torch.Tensor, ...]) -> None:
        shares.append(float(torch.bincount(routing[1].flatten(), minlength=6).max() / routing[1].numel()))

    router.register_forward_hook(heard)
    for step in range(1, STEPS + 1):
        ids = np.random.default_rng(step).integers(44, 80, (4, 24))
        rows = tuple(pack([objective.corrupt(Window(row, index=i), Key(0, step, i)) for i, row in enumerate(ids)]))
        loop.step(Batch(step, rows, counts(rows), ids.size, ((0, 0),), Place()))
    return shares, network


def test_loads_even_out() -> None:
    shares, network = trained(0.02)
    assert min(shares[:4]) > 0.95 and float(np.mean(shares[-15:])) < 0.35
    before = network.tower.routers()[0].correction.clone()
    # what is only read, as held-out text is, moves nothing
    network.eval()
    (row,) = pack([make("next-token", VOCABULARY).corrupt(Window(np.arange(44, 70)), Key(0, 0, 0))])
    network(row)
    assert torch.equal(network.tower.routers()[0].correction, before)


def test_without_a_speed_they_stay_as_they_are() -> None:
    shares, network = trained(0.0)
    assert min(shares) > 0.95 and network.tower.routers()[0].correction[0] == 1
