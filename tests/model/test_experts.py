"""A mixture of experts: grouped equals every expert for every token, choices by hand, loads, costs and refusals."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from bothways import objectives
from bothways.batch import Ask, Example, Vocabulary, pack
from bothways.errors import BothwaysError
from bothways.model import Experts, FeedForward, LanguageModel, ModelConfig, Shape, cost
from bothways.model.experts import MixedFeedForward, Router, imbalance, rebalance
from bothways.objectives.base import Profile
from bothways.visibility import causal, same_document

SHAPE = Shape(64, 16, 3, heads=2, inner=24)
KINDS = {
    "mixtral": Experts(4, 2), "one of many": Experts(9, 1, inner=5), "all": Experts(3, 3),
    "softmax, not normalised, shared": Experts(6, 2, inner=8, shared=2, normalised=False, scale=1.5),
    "groups by their best": Experts(8, 3, groups=4, open_groups=2, normalised=False),
    "groups by two, corrected": Experts(8, 3, score="sigmoid", groups=2, open_groups=1, group_by=2, correction=True,
                                        scale=2.5, shared=1),
    "inputs": Experts(4, 1, score="sigmoid", normalised=False, weighs="inputs", shared=1),
}


def made(experts: Experts) -> MixedFeedForward:
    torch.manual_seed(0)
    layer = MixedFeedForward(ModelConfig(SHAPE, feed_forward=FeedForward(experts=experts)), experts).double()
    with torch.no_grad():
        for weight in layer.parameters():
            weight.normal_(0, 0.5)
        if experts.correction:
            layer.router.correction.normal_(0, 0.5)
    return layer


@pytest.mark.parametrize("experts", KINDS.values(), ids=KINDS.keys())
@pytest.mark.parametrize("tokens", [0, 1, 40])
def test_grouped_is_every_expert_for_every_token_with_its_gradients(experts: Experts, tokens: int) -> None:
    layer, states = made(experts), torch.randn(tokens, 16, dtype=torch.float64)
    upstream, results = torch.randn(tokens, 16, dtype=torch.float64), []
    for form in (layer, layer.everywhere):
        layer.zero_grad()
        leaf = states.clone().requires_grad_()
        out = form(leaf)
        (out * upstream).sum().backward()
        results.append((out, leaf.grad, *(torch.zeros_like(w) if w.grad is None else w.grad
                                          for w in layer.parameters())))
    for ours, dense in zip(*results, strict=True):
        torch.testing.assert_close(ours, dense)


def test_one_token_by_hand() -> None:
    """Of logits 2, 1, 0 the first two are taken, with weights 0.731 and 0.269; each is a gated feed-forward."""
    layer = made(Experts(3, 2, inner=4))
    state = torch.randn(1, 16, dtype=torch.float64)
    with torch.no_grad():
        layer.router.weight.copy_(torch.tensor([[2.0], [1.0], [0.0]]) * (state / (state * state).sum()))
    routing = layer.router(state)
    assert routing.chosen.tolist() == [[0, 1]]
    torch.testing.assert_close(routing.weights, torch.tensor([[0.7310586, 0.2689414]]))
    wanted = torch.zeros(16, dtype=torch.float64)
    for i, weight in enumerate((0.7310586, 0.2689414)):
        up, gate = layer.expert_up_gate[8 * i:8 * i + 4], layer.expert_up_gate[8 * i + 4:8 * i + 8]
        down = layer.expert_down[16 * i:16 * i + 16]
        wanted += weight * (down @ ((up @ state[0]) * F.silu(gate @ state[0])))
    torch.testing.assert_close(layer(state)[0], wanted, atol=1e-6, rtol=1e-5)


def router(logits: list[float], **choices: object) -> tuple[list[int], list[float]]:
    """What a router with these logits chooses, in order of number."""
    experts = Experts(len(logits), **choices)  # type: ignore[arg-type]
    one = Router(ModelConfig(Shape(64, 2, 1, heads=1)), experts)
    one.weight.data = torch.tensor(logits)[:, None] * torch.tensor([[1.0, 0.0]])
    if experts.correction:
        one.correction.copy_(torch.tensor([0.0, 0.0, 0.0, 9.0])[:len(logits)])
    found = one(torch.tensor([[1.0, 5.0]]))
    order = found.chosen[0].argsort()
    return found.chosen[0][order].tolist(), found.weights[0][order].tolist()


def test_choices_by_hand() -> None:
    # the best two lie in two groups, but only one group is open: the one whose best is best, or whose two are
    assert router([3.0, 0.0, 2.0, 1.9], active=2, groups=2, open_groups=1)[0] == [0, 1]
    assert router([3.0, 0.0, 2.0, 1.9], active=2, groups=2, score="sigmoid", group_by=2)[0] == [2, 3]
    # a correction changes who is chosen and not what it counts
    chosen, weights = router([3.0, 2.0, 1.0, -1.0], active=1, score="sigmoid", correction=True, normalised=False,
                             scale=2.0)
    assert chosen == [3] and weights == pytest.approx([2 * 0.2689414])


def network(experts: Experts, **rest: object) -> LanguageModel:
    torch.manual_seed(0)
    return LanguageModel(ModelConfig(SHAPE, feed_forward=FeedForward(experts=experts), **rest))  # type: ignore[arg-type]


def text(length: int, asked: int = 0) -> Example:
    ids = torch.randint(44, 64, (length,), generator=torch.Generator().manual_seed(length))
    where = torch.arange(asked)
    asks = (Ask(where, ids[:asked], None, float(asked)),) if asked else ()
    return Example(ids, causal, asks=asks)


def test_loads_are_sums_over_the_layers_that_have_experts() -> None:
    said = network(Experts(4, 2, where="DEE"))(text(9)).extras
    assert said["router_choices"].sum(1).tolist() == [18, 18] and said["router_tokens"].tolist() == [9, 9]
    torch.testing.assert_close(said["router_scores"].sum(1), torch.full((2,), 9.0))
    assert "balance" not in said and not network(Experts(4, 2, where="D"))(text(9)).extras
    # where the last layer answers for some alone, only they are sent
    few = network(Experts(4, 2))(text(9, asked=2), only_asked=True).extras
    assert few["router_tokens"].tolist() == [9, 9, 2]


def test_the_imbalance_is_one_when_all_are_equally_busy_and_grows() -> None:
    even = {"router_choices": torch.full((2, 4), 5), "router_scores": torch.full((2, 4), 2.5),
            "router_tokens": torch.tensor([10, 10])}
    assert imbalance(even).item() == pytest.approx(1.0)
    one = {"router_choices": torch.tensor([[10, 0, 0, 0]]), "router_scores": torch.tensor([[10.0, 0, 0, 0]]),
           "router_tokens": torch.tensor([10])}
    assert imbalance(one).item() == pytest.approx(4.0)


def test_the_imbalance_is_a_part_of_the_loss_with_a_gradient() -> None:
    vocabulary = Vocabulary.plain(64)
    objective, model = objectives.make("next-token", vocabulary), network(Experts(4, 2, balance=0.5))
    parts = objective.parts(model, text(9, asked=9))
    assert [part.name for part in parts] == ["loss", "balance"]
    said = model(text(9)).extras
    torch.testing.assert_close(parts[1].sum, 0.5 * imbalance(said))
    parts[1].sum.backward()
    assert model.tower.blocks[0].feed_forward.router.weight.grad.abs().sum() > 0


def test_corrections_move_against_the_load() -> None:
    model = network(Experts(4, 1, where="DEE", correction=True, speed=0.1))
    rebalance(model.tower.routers(), torch.tensor([[6, 2, 0, 0], [2, 2, 2, 2]]))
    first, second = (block.feed_forward.router.correction for block in model.tower.blocks[1:])
    torch.testing.assert_close(first, torch.tensor([-0.1, 0.0, 0.1, 0.1]))
    assert not second.any() and "tower.blocks.1.feed_forward.router.correction" in model.state_dict()


def test_a_router_that_serves_two_layers_moves_once_by_both() -> None:
    model = LanguageModel(ModelConfig(replace(SHAPE, distinct=1), feed_forward=FeedForward(
        experts=Experts(3, 1, correction=True, speed=0.1))))
    rebalance(model.tower.routers(), torch.tensor([[4, 0, 0], [0, 3, 0], [0, 0, 2]]))
    torch.testing.assert_close(model.tower.routers()[0].correction, torch.tensor([-0.1, 0.0, 0.1]))


def test_corrections_stay_in_float32() -> None:
    """A step of 0.001 is lost in bfloat16 from 0.25 upwards."""
    model = network(Experts(4, 1, correction=True))
    rebalance(model.tower.routers(), torch.tensor([[6, 2, 0, 0]] * 3))
    before = [router.correction.clone() for router in model.tower.routers()]
    model.to(torch.bfloat16)
    assert model.embedding.weight.dtype == torch.bfloat16
    for router, kept in zip(model.tower.routers(), before, strict=True):
        assert router.correction.dtype == torch.float32 and torch.equal(router.correction, kept)


@pytest.mark.parametrize("experts", KINDS.values(), ids=KINDS.keys())
def test_packed_is_alone_and_cached_is_uncached(experts: Experts) -> None:
    model, texts = network(experts).eval(), [text(5), text(8), text(2)]
    alone = torch.cat([model(one).states for one in texts])
    (packed,) = pack([replace(one, visibility=causal & same_document) for one in texts])
    torch.testing.assert_close(model(packed).states, alone, atol=1e-5, rtol=1e-4)
    cache, whole = model.cache(1, 4), text(8)
    with torch.no_grad():
        steps = [model(Example(part, causal, cache.fields(len(part))), cache).states
                 for part in whole.inputs.split([3, 1, 2, 1, 1])]
    torch.testing.assert_close(torch.cat(steps), model(whole).states, atol=1e-5, rtol=1e-4)


def test_active_parameters_and_operations() -> None:
    dense, mixed = ModelConfig(SHAPE), ModelConfig(SHAPE, feed_forward=FeedForward(experts=Experts(4, 2, where="DEE")))
    each = 3 * 16 * 24
    count, before = cost.parameters(mixed), cost.parameters(dense)
    assert before["active"] == before["total"]
    assert count["total"] - before["total"] == 2 * (3 * each + 4 * 16)
    assert count["total"] - count["active"] == 2 * 2 * each
    assert cost.block_products(mixed, 1) - cost.block_products(dense) == each + 4 * 16
    assert cost.block_products(mixed, 0) == cost.block_products(dense)
    one, other = (cost.flops(config, Profile(causal), 8, training=False) for config in (mixed, dense))
    assert one - other == 2 * 2 * (each + 4 * 16)


@pytest.mark.parametrize(("experts", "said"), [
    (Experts(4, 5), "active is 5, but a token goes through 1 to 4"), (Experts(4, where="EX"), "where is 'EX'"),
    (Experts(4, where="EEDD"), "more layers than there are"), (Experts(6, groups=4), "6 does not divide into"),
    (Experts(6, groups=2, open_groups=3), "do not fit 2 groups of 3"), (Experts(4, shared=-1), "shared -1"),
    (Experts(6, 4, groups=3, open_groups=1), "active 4 is more than the 2 experts"),
    (Experts(4, scale=0.0), "scale 0.0 must be above 0"),
])
def test_contradictions_are_named(experts: Experts, said: str) -> None:
    with pytest.raises(BothwaysError, match=said):
        ModelConfig(SHAPE, feed_forward=FeedForward(experts=experts))


def test_plain_and_biased_experts_are_refused() -> None:
    for config in ({"feed_forward": FeedForward("plain", experts=Experts())},
                   {"feed_forward": FeedForward(experts=Experts()), "bias": True}):
        with pytest.raises(BothwaysError, match="are gated and have no bias"):
            ModelConfig(SHAPE, **config)  # type: ignore[arg-type]
