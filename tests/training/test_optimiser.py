from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from bothways.batch import Companion
from bothways.errors import BothwaysError
from bothways.model import LanguageModel
from bothways.model.config import ModelConfig, Position, Shape
from bothways.training.config import Averaging, TrainConfig
from bothways.training.masters import Average, Masters
from bothways.training.muon import Muon, orthogonal
from bothways.training.optimiser import Optimiser, _pieces


def network(dtype: torch.dtype = torch.float32, **shape: int) -> LanguageModel:
    torch.manual_seed(0)
    sizes = {"vocabulary": 50, "width": 16, "layers": 2, "heads": 2, **shape}
    return LanguageModel(ModelConfig(shape=Shape(**sizes), position=Position(length=32))).to(dtype)


def give_gradients(model: nn.Module, seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=draw).to(parameter.dtype)


@pytest.mark.parametrize("shape", [(24, 24), (12, 40), (40, 12)])
def test_muon_is_the_reference_on_stacked_matrices(shape: tuple[int, int]) -> None:
    """`torch.optim.Muon` is the reference: the same matrices after five steps, up to bfloat16's rounding."""
    draw = torch.Generator().manual_seed(1)
    ours = {f"m{i}": torch.randn(shape, generator=draw) for i in range(3)}
    theirs = {name: nn.Parameter(tensor.clone()) for name, tensor in ours.items()}
    reference = torch.optim.Muon(list(theirs.values()), lr=0.02, momentum=0.9, weight_decay=0.1)
    muon = Muon(ours, {}, momentum=0.9, weight_decay=0.1, compute=torch.bfloat16)
    start = {name: tensor.clone() for name, tensor in ours.items()}
    for _ in range(5):
        gradients = {name: torch.randn(shape, generator=draw) for name in ours}
        for name, gradient in gradients.items():
            theirs[name].grad = gradient.clone()
        reference.step()
        muon.step(gradients, 0.02)
    for name, tensor in ours.items():
        moved, moved_there = tensor - start[name], theirs[name].detach() - start[name]
        assert (moved - moved_there).norm() < 0.03 * moved_there.norm()


def test_orthogonal_brings_singular_values_near_one() -> None:
    values = torch.linalg.svdvals(orthogonal(torch.randn(3, 20, 30), torch.float32))
    assert values.min() > 0.4 and values.max() < 1.4


def test_fused_projections_are_moved_piece_by_piece() -> None:
    """Three stacked maps with one piece's gradient much larger: each still gets an update of full size."""
    masters = {"qkv": torch.zeros(24, 8)}
    muon = Muon(masters, {"qkv": (8, 8, 8)}, momentum=0.0, weight_decay=0.0, compute=torch.float32)
    muon.step({"qkv": torch.cat([torch.randn(8, 8) * size for size in (100.0, 1.0, 0.01)])}, 1.0)
    for piece in masters["qkv"].split(8):
        assert 0.3 * 8 < piece.square().sum() < 2.0 * 8


def test_what_muon_moves_and_what_adamw() -> None:
    optimiser = Optimiser(network(source_layers=1), TrainConfig())
    assert optimiser.muon is not None
    muon = set(optimiser.muon.masters)
    assert all(".blocks." in name and name.endswith("weight") for name in muon)
    assert {
        "tower.blocks.0.attention.qkv.weight",
        "tower.blocks.1.cross.kv.weight",
        "source_tower.blocks.0.feed_forward.up_gate.weight",
    } <= muon
    rest = set(optimiser.masters.tensors) - muon
    assert "embedding.weight" in rest and all("norm" in name or "embedding" in name for name in rest)
    shapes = {
        (last - first, optimiser.muon.masters[name].shape[1])
        for stack in optimiser.muon.stacks
        for name, first, last in stack.places
    }
    assert (48, 16) not in shapes and (16, 16) in shapes, "queries, keys and values are maps of their own"


def test_adamw_alone_is_torch_adamw() -> None:
    ours, theirs = network(), network()
    optimiser = Optimiser(ours, TrainConfig(optimizer="adamw", other_rate=1e-2, clip=0.0))
    decayed = [p for n, p in theirs.named_parameters() if ".blocks." in n and p.ndim == 2]
    plain = [p for n, p in theirs.named_parameters() if not (".blocks." in n and p.ndim == 2)]
    reference = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.1}, {"params": plain, "weight_decay": 0.0}], lr=1e-2, betas=(0.9, 0.95)
    )
    for seed in range(3):
        give_gradients(ours, seed)
        give_gradients(theirs, seed)
        optimiser.masters.gather()
        optimiser.step(1.0)
        reference.step()
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_bfloat16_weights_follow_float32_masters() -> None:
    """Updates far below bfloat16's resolution add up in the masters and arrive in the weights."""
    model = network(torch.bfloat16)
    optimiser = Optimiser(model, TrainConfig(optimizer="adamw", other_rate=1e-5, weight_decay=0.0))
    before = model.tower.norm.weight.detach().clone()
    for _ in range(1000):
        model.tower.norm.weight.grad = torch.ones_like(model.tower.norm.weight)
        optimiser.masters.gather()
        optimiser.step(1.0)
    assert optimiser.masters.tensors["tower.norm.weight"].dtype == torch.float32
    assert torch.allclose(model.tower.norm.weight.float(), before.float() - 0.01, atol=0.004)
    assert not torch.equal(model.tower.norm.weight, before)


def test_gradients_of_several_passes_are_added_in_float32() -> None:
    model = network(torch.bfloat16)
    masters = Masters(model)
    for _ in range(3):
        model.tower.norm.weight.grad = torch.full_like(model.tower.norm.weight, 1.0)
        masters.gather()
        model.tower.norm.weight.grad = torch.full_like(model.tower.norm.weight, 2.0**-10)
        masters.gather()
    gradients, _ = masters.take(0.0)
    assert gradients["tower.norm.weight"][0].item() == 3 + 3 * 2.0**-10


def test_the_whole_gradient_is_clipped() -> None:
    model = network()
    masters = Masters(model)
    give_gradients(model, 0)
    masters.gather()
    gradients, norm = masters.take(1.0)
    assert norm > 1
    assert torch.stack([gradient.norm() for gradient in gradients.values()]).norm().item() == pytest.approx(
        1.0, rel=1e-4
    )


def test_a_gradient_that_is_not_finite_changes_nothing() -> None:
    model = network()
    optimiser = Optimiser(model, TrainConfig())
    give_gradients(model, 0)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    model.embedding.weight.grad[3, 3] = float("nan")  # type: ignore[index]
    optimiser.masters.gather()
    assert not math.isfinite(optimiser.step(1.0))
    assert all(torch.equal(parameter, before[name]) for name, parameter in model.named_parameters())


def test_a_state_that_is_taken_over_goes_on_to_the_bit() -> None:
    one, other = network(), network()
    config = TrainConfig()
    first, second = Optimiser(one, config), Optimiser(other, config)
    for seed in range(4):
        give_gradients(one, seed)
        first.masters.gather()
        first.step(0.7)
        if seed == 1:
            weights = {name: tensor.clone() for name, tensor in first.masters.tensors.items()}
            state = {name: tensor.clone() for name, tensor in first.state().items()}
    second.masters.load(weights, "weights")
    second.load(state, "optimiser")
    for seed in (2, 3):
        give_gradients(other, seed)
        second.masters.gather()
        second.step(0.7)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_stored_tensors_that_do_not_fit_are_named() -> None:
    optimiser = Optimiser(network(), TrainConfig())
    weights = dict(optimiser.masters.tensors)
    with pytest.raises(BothwaysError, match=r"file: 'embedding.weight' has the shape \(50, 8\).*needs \(50, 16\)"):
        optimiser.masters.load({**weights, "embedding.weight": torch.zeros(50, 8)}, "file")
    with pytest.raises(BothwaysError, match="file has the unknown tensor 'extra'"):
        optimiser.masters.load({**weights, "extra": torch.zeros(1)}, "file")
    del weights["embedding.weight"]
    with pytest.raises(BothwaysError, match=r"file lacks the tensor 'embedding\.weight'"):
        optimiser.masters.load(weights, "file")


def test_the_last_average_is_the_plain_mean_of_the_end() -> None:
    model = network()
    masters = Masters(model)
    average = Average(TrainConfig(averaging=Averaging("last", share=0.3)), masters, 10)
    seen = []
    for step in range(1, 11):
        masters.tensors["tower.norm.weight"].fill_(float(step))
        average.update(step)
        seen.append(step)
    assert average.tensors["tower.norm.weight"][0].item() == pytest.approx((8 + 9 + 10) / 3)


def test_an_exponential_average_trails_behind() -> None:
    masters = Masters(network())
    average = Average(TrainConfig(averaging=Averaging("ema", decay=0.5)), masters, 20)
    for step in range(1, 21):
        masters.tensors["tower.norm.weight"].fill_(float(step))
        average.update(step)
    assert average.tensors["tower.norm.weight"][0].item() == pytest.approx(19.0, abs=0.01)


def test_a_narrow_companions_projection_is_cut_by_its_own_sizes():
    companion = Companion("generator", "generator", share=0.5)
    model = LanguageModel(ModelConfig(Shape(64, 32, 2, heads=4), companions=(companion,)))
    pieces = _pieces(model)
    assert pieces["tower.blocks.0.attention.qkv.weight"] == (32, 32, 32)
    assert pieces["companions.generator.tower.blocks.0.attention.qkv.weight"] == (16, 16, 16)
    gated = [name for name in pieces if name.endswith("up_gate.weight")]
    assert len(gated) == 4
    assert all(pieces[name][0] == pieces[name][1] for name in gated)
