"""A network keeps what it had and gets what an objective needs; a body has no scores, a verdict is a sigmoid."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from bothways.batch import Companion
from bothways.errors import BothwaysError
from bothways.model import FeedForward, LanguageModel, ModelConfig, Norm, Position, Shape
from bothways.model.config import Head, Temperature
from bothways.model.cost import head_products
from bothways.model.fitted import fitted
from bothways.model.render import Planner
from bothways.objectives.base import example
from bothways.visibility import bidirectional

BODY = ModelConfig(Shape(40, 16, 2, 0, 2, embedding=6), Position("learned", length=12), Norm("layer", "after"),
                   FeedForward("plain", "gelu"), bias=True, head=Head(scores=False),
                   companions=(Companion("pooled", "pooler"), Companion("replaced", "verdict", 2)))
ROW = example(torch.arange(9).numpy(), bidirectional)


def test_a_body_has_states_and_no_scores() -> None:
    network = LanguageModel(BODY)
    states = network(ROW).states
    with pytest.raises(BothwaysError, match="has no head over the vocabulary"):
        network.logits(states)
    assert head_products(BODY) == 0
    verdict, pooler = network.companions["replaced"], network.companions["pooled"]
    score = verdict.score(torch.nn.functional.gelu(verdict.dense(states)))[:, 0]
    torch.testing.assert_close(network.logits(states, "replaced").softmax(-1)[:, 1], score.sigmoid())
    torch.testing.assert_close(network.pooled(states), (states @ pooler.dense.weight.T + pooler.dense.bias).tanh())


def test_what_is_new_is_added_and_the_rest_stays() -> None:
    network = LanguageModel(BODY)
    grown = fitted(network, (Companion("order", "classes", 2), Companion("replaced", "classes", 2)))
    assert [one.name for one in grown.config.companions] == ["pooled", "replaced", "order"]
    assert grown.config.companions[1].kind == "verdict" and grown.config.head.scores
    assert torch.equal(grown(ROW).states, network(ROW).states)
    assert grown.logits(grown(ROW).states).shape == (9, 40)
    assert fitted(grown, grown.config.companions) is grown
    with pytest.raises(BothwaysError, match="'replaced' beside this network has 2 values, but the objective needs 3"):
        fitted(network, (Companion("replaced", "classes", 3),))


def test_a_first_block_without_its_norm() -> None:
    config = ModelConfig(Shape(40, 16, 2, 0, 2), norm=Norm("layer", "before", embedding=True, first=False))
    network = LanguageModel(config)
    assert "tower.blocks.0.attention_norm.weight" not in network.state_dict()
    assert "tower.blocks.1.attention_norm.weight" in network.state_dict()
    block, states = network.tower.blocks[0], torch.randn(9, 16)
    seen: list[torch.Tensor] = []
    block.attention.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    network.tower(states, ROW.fields, bidirectional, Planner(ROW.fields, None, states.device))
    assert network.tower.embedding_norm is not None
    torch.testing.assert_close(seen[0], network.tower.embedding_norm(states))


def test_a_head_has_its_own_activation_and_bias() -> None:
    config = replace(BODY, head=Head(transform=True, activation="relu", dense_bias=False), companions=())
    network, states = LanguageModel(config), torch.randn(5, 16)
    transform = network.head_transform
    assert transform is not None and transform.dense.bias is None
    wanted = transform.norm((states @ transform.dense.weight.T).relu()) @ network.embedding.weight.T
    torch.testing.assert_close(network.logits(states), wanted)


@pytest.mark.parametrize(("change", "phrase"), [
    ({"tied": False, "head": Head(scores=False)}, "head.scores is false, so there is no head"),
    ({"head": Head(scores=False, bias=True)}, "head.scores is false"),
    ({"head": Head(bias=True, activation="relu"), "shape": Shape(40, 16, 2, 0, 2)}, "head.transform, which is false"),
    ({"head": Head(transform=True, activation="mish")}, "head.activation is 'mish'"),
    ({"norm": Norm("layer", "after", first=False)}, "norm.first is false"),
    ({"norm": Norm("layer", "before", first=False), "shape": Shape(40, 16, 2, 0, 2, distinct=1)}, "shape.distinct"),
    ({"position": Position(where="X")}, "written with the letters R"),
    ({"position": Position(where="RNRNR")}, "more layers than there are"),
    ({"position": Position("learned", where="N")}, "leaves rotary places out"),
    ({"position": Position(where="RN"), "shape": Shape(40, 16, 2, 0, 2, distinct=1)}, "differs between layers"),
    ({"norm": Norm(query_key="turned")}, "but all do"), ({"norm": Norm(query_key_weight=False)}, "norms no queries"),
    ({"position": Position(temperature=Temperature())}, "has no N"),
    ({"position": Position(where="N", temperature=Temperature(0.1, 0))}, "a step of at least 1"),
])
def test_contradictions(change: dict[str, object], phrase: str) -> None:
    with pytest.raises(BothwaysError, match=phrase):
        replace(BODY, **change)  # type: ignore[arg-type]
