"""Companions: what an objective declares is built, trained, saved and counted with the trunk."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from bothways.batch import Companion, Example, Key, Vocabulary, Window, pack
from bothways.errors import BothwaysError
from bothways.families import fitting, obstacle, settings
from bothways.model import LanguageModel, ModelConfig, Shape
from bothways.model.cost import parameters
from bothways.objectives.base import Mode, Objective, Profile, ask, example
from bothways.objectives.mixture import Member, Mixture
from bothways.objectives.next_token import NextToken
from bothways.visibility import bidirectional

PLAIN = Vocabulary.plain(64)
SMALL = Shape(64, 16, 2, heads=2)


@dataclass(frozen=True)
class Parity(Objective):
    """Is the last token's id even? A head for two classes, asked at the first place."""

    vocabulary: Vocabulary
    name = "parity"
    summary = "even or odd"
    source = "a test"
    decoding = "mask_predict"

    @property
    def modes(self) -> tuple[Mode, ...]:
        return (Mode("bidirectional", bidirectional, "here", "pseudo"),)

    @property
    def profile(self) -> Profile:
        return Profile(bidirectional)

    @property
    def companions(self) -> tuple[Companion, ...]:
        return (Companion("parity", "classes", 2),)

    def corrupt(self, window: Window, key: Key) -> Example:
        return example(window.ids, bidirectional,
                       [ask(np.array([0]), window.ids[-1:] % 2, part="parity", head="parity")])

    def blank(self, ids: np.ndarray, hidden: np.ndarray, mode: Mode | None = None) -> Example:
        raise NotImplementedError


def test_a_head_for_classes_is_asked_and_trained() -> None:
    objective = Parity(PLAIN)
    torch.manual_seed(0)
    network = LanguageModel(ModelConfig(SMALL, companions=objective.companions))
    row, = pack(objective.corrupt(Window(np.array([1, 50 + i, 45 + i])), Key(0, 0, i)) for i in range(4))
    part, = objective.parts(network, row)
    assert part.name == "parity"
    assert part.count == 4
    assert float(part.sum / 4) == pytest.approx(np.log(2), abs=0.05)
    part.sum.backward()
    assert all(weight.grad is not None and bool(weight.grad.any())
               for weight in network.companions["parity"].classes.parameters())


def test_a_companion_is_counted_and_survives_the_folder() -> None:
    config = ModelConfig(SMALL, companions=(Companion("parity", "classes", 3),))
    trunk = dataclasses.replace(config, companions=())
    assert parameters(config)["total"] - parameters(trunk)["total"] == 16 * 16 + 16 + 3 * 16 + 3
    assert settings.from_data(settings.to_data(config), "here") == config


def test_a_field_has_an_embedding_of_its_own() -> None:
    """What it adds is the row of each token's value; a text without the field has its value 0 everywhere."""
    torch.manual_seed(0)
    network = LanguageModel(ModelConfig(SMALL, companions=(Companion("segment", "embedding", 2),))).eval()
    table = network.companions["segment"].weight
    ids = np.array([1, 50, 51, 52])
    halves = example(ids, bidirectional, segment=np.array([0, 0, 1, 1]))
    with torch.no_grad():
        table.normal_()
        without = LanguageModel.__dict__["_embed"](network, halves) - network.embedding(halves.inputs)
        assert torch.allclose(without, table[[0, 0, 1, 1]], atol=1e-6)
        plain, zeros = (network(one).states for one in (example(ids, bidirectional),
                                                        example(ids, bidirectional, segment=np.zeros(4))))
        assert torch.equal(plain, zeros) and not torch.allclose(plain, network(halves).states, atol=1e-3)
    with pytest.raises(BothwaysError, match="the field 'segment' holds 2, but this network has learned its values 0"):
        network(example(ids, bidirectional, segment=np.array([0, 0, 1, 2])))
    with pytest.raises(BothwaysError, match="needs at least 1"):
        LanguageModel(ModelConfig(SMALL, companions=(Companion("segment", "embedding"),)))


def test_no_published_class_holds_companions() -> None:
    """Neither a head nor a field's embedding has a place there, so the folder is written with our own names."""
    for companion in (Companion("parity", "classes", 2), Companion("segment", "embedding", 2)):
        config = ModelConfig(SMALL, companions=(companion,))
        assert fitting(dataclasses.replace(config, companions=()), NextToken(PLAIN)) is not None
        assert fitting(config, NextToken(PLAIN)) is None
        assert companion.name in str(obstacle(config, NextToken(PLAIN)))


def test_a_mixture_needs_what_its_members_need() -> None:
    mixture = Mixture(PLAIN, (Member(Parity(PLAIN)), Member(NextToken(PLAIN)), Member(Parity(PLAIN))))
    assert mixture.companions == (Companion("parity", "classes", 2),)


def test_what_cannot_be_built_is_refused() -> None:
    for wrong, word in ((Companion("a", "clases", 2), "classes"), (Companion("tokens", "classes", 2), "taken"),
                        (Companion("a", "classes", 1), "at least 2")):
        with pytest.raises(BothwaysError, match=word):
            LanguageModel(ModelConfig(SMALL, companions=(wrong,)))
    with pytest.raises(BothwaysError, match="no head 'parity'"):
        LanguageModel(ModelConfig(SMALL)).logits(torch.zeros(1, 16), "parity")
