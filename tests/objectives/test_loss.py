"""The loss is the textbook's, whatever is packed beside it, and only the asked places get logits."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as functional

from bothways.batch import Key, Vocabulary, Window, pack
from bothways.objectives import cross_entropy, make
from bothways.objectives import loss as loss_module
from bothways.objectives.loss import token_losses

PLAIN = Vocabulary.plain(90)


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(loss_module, "CHUNK", 200)


def reference(logits, targets, weights):
    nll = functional.cross_entropy(logits, targets, reduction="none")
    return (nll * weights).sum(), torch.logsumexp(logits, -1).square().sum()


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("with_z", [False, True])
def test_values_and_gradients(with_z):
    torch.manual_seed(0)
    logits = torch.randn(13, 90, dtype=torch.float64, requires_grad=True)
    targets, weights = torch.randint(90, (13,)), torch.rand(13)
    nll, z = token_losses(logits, targets, weights, with_z)
    expected_nll, expected_z = reference(logits, targets, weights)
    assert nll.item() == pytest.approx(expected_nll.item(), rel=1e-12)
    (2 * nll + 0.3 * z).backward()
    own, logits.grad = logits.grad, None
    (2 * expected_nll + (0.3 * expected_z if with_z else 0)).backward()
    assert torch.allclose(own, logits.grad, atol=1e-12)
    assert z.item() == pytest.approx(expected_z.item() if with_z else 0.0)


def test_sums_are_float32_whatever_the_logits_are():
    logits = (torch.randn(300, 90) * 3).bfloat16().requires_grad_()
    targets = torch.randint(90, (300,))
    nll, _ = token_losses(logits, targets)
    assert nll.dtype == torch.float32
    assert nll.item() == pytest.approx(reference(logits.float(), targets, torch.ones(300))[0].item(), rel=1e-5)
    nll.backward()
    assert logits.grad is not None and logits.grad.dtype == torch.bfloat16


def test_no_targets_give_a_zero_with_a_gradient():
    logits = torch.randn(0, 90, requires_grad=True)
    nll, _ = token_losses(logits, torch.zeros(0, dtype=torch.long))
    nll.backward()
    assert nll.item() == 0 and logits.grad is not None


class Heads(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.head = torch.nn.Linear(6, 90)
        self.rows = []

    def logits(self, states, head="tokens"):
        self.rows.append(len(states))
        return self.head(states)


class Output:
    def __init__(self, states):
        self.states = states


@pytest.mark.parametrize("spec", ["next-token", "masked", "masked-next", "diffusion", "span-corruption", "denoising",
                                  "next-token + masked-next", "masked + diffusion", "prefix", "ul2", "glm", "fim",
                                  "permuted", "glm + permuted"])
def test_packing_changes_no_sum_and_logits_exist_only_where_asked(spec):
    torch.manual_seed(1)
    objective, network = make(spec, PLAIN), Heads()
    table = torch.randn(90, 6)
    examples = [objective.corrupt(Window(np.random.default_rng(i).integers(44, 90, size=20), index=i), Key(0, 0, i))
                for i in range(9)]
    totals = []
    for rows in (examples, pack(examples)):
        network.rows.clear()
        parts: dict[str, list[float]] = {}
        for row in rows:
            for part in objective.loss(network, Output(table[row.inputs]), row, z_loss=1e-4):
                entry = parts.setdefault(part.name, [0.0, 0.0, part.coefficient])
                entry[0] += part.sum.item()
                entry[1] += part.count
        assert sum(network.rows) == sum(len(ask.where) for row in rows for ask in row.asks)
        totals.append(parts)
    one, other = totals
    assert one.keys() == other.keys()
    for name in one:
        assert one[name] == pytest.approx(other[name], rel=1e-4)
    if spec == "masked + diffusion":
        assert set(one) == {"masked", "masked/z", "diffusion", "diffusion/z"}


def test_an_example_without_asks_has_no_parts():
    example = make("next-token", PLAIN).continuation(np.array([50]))
    assert cross_entropy(Heads().logits, torch.randn(2, 6), example) == []


def test_the_diffusion_loss_is_the_bound_it_claims_to_be():
    """For independent tokens the bound is the entropy itself: E[(1/t) sum over hidden] / tokens = mean -log p."""
    objective = make("diffusion(smallest_time=0.01)", PLAIN)
    logits = torch.randn(90)
    rng = np.random.default_rng(0)
    total, count, truth, tokens = 0.0, 0.0, 0.0, 0
    for i in range(3000):
        ids = rng.integers(44, 90, size=24)
        example = objective.corrupt(Window(ids, index=i), Key(0, 0, i))
        (part,) = cross_entropy(lambda states, head: logits.expand(len(states), 90), torch.zeros(24, 1), example)
        total, count = total + part.sum.item(), count + part.count
        truth += -torch.log_softmax(logits, -1)[torch.from_numpy(ids)].sum().item()
        tokens += 24
    assert total / count == pytest.approx(truth / tokens, rel=0.02)
