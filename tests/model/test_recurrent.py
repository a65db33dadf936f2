"""Recurrences against the formula written out step by step: values, gradients, lanes, caches, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from bothways.batch import pack
from bothways.errors import BothwaysError
from bothways.model import LanguageModel, ModelConfig, Position, Shape, recurrent
from bothways.model.config import FeedForward, Mixer
from bothways.model.cost import parameters
from bothways.model.mamba import chunked_scan
from bothways.model.recurrent import make_lanes, recur, scanned
from bothways.objectives.base import example
from bothways.visibility import bidirectional, causal, same_document

KINDS = {"mamba": Mixer("mamba", state=5, rank=3), "mamba2": Mixer("mamba2", state=6, head_size=8, groups=2)}


def network(kind: str) -> LanguageModel:
    torch.manual_seed(0)
    made = LanguageModel(ModelConfig(Shape(40, 16, 2, heads=1), Position("none"), feed_forward=FeedForward("none"),
                                     mixer=KINDS[kind]))
    with torch.no_grad():
        for weight in made.parameters():
            weight.add_(torch.randn_like(weight) * 0.2)
    return made.eval()


def step_by_step(decay: Tensor, added: Tensor, first: Tensor) -> Tensor:
    states = []
    for t in range(len(added)):
        first = decay[t] * first + added[t]
        states.append(first)
    return torch.stack(states)


def test_the_recurrence_and_its_gradient_are_the_formula() -> None:
    generator = torch.Generator().manual_seed(0)
    decay = torch.rand(7, 2, 3, 1, generator=generator, dtype=torch.float64).requires_grad_()
    added, first = (torch.randn(*size, generator=generator, dtype=torch.float64).requires_grad_()
                    for size in ((7, 2, 3, 4), (2, 3, 4)))
    assert torch.allclose(recur(decay, added, first), step_by_step(decay, added, first), atol=1e-14)
    assert torch.autograd.gradcheck(recur, (decay, added, first))


@pytest.mark.parametrize("length", [1, 7, 16])
@pytest.mark.parametrize("span", [1, 100, 1000])
def test_states_that_are_not_kept_say_the_same(length: int, span: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recurrent, "SPAN", span)  # one, four or all of the steps at a time
    generator = torch.Generator().manual_seed(2)
    step, inputs = (torch.rand(length, 2, 3, generator=generator, dtype=torch.float64) for _ in range(2))
    write, read = (torch.randn(2, length, 4, generator=generator, dtype=torch.float64).transpose(0, 1)
                   for _ in range(2))
    rates, first = -torch.rand(3, 4, dtype=torch.float64) * 3, torch.randn(2, 3, 4, dtype=torch.float64)
    y, last = scanned(step, rates, inputs, write, read, first)
    states = step_by_step(torch.exp(step.unsqueeze(-1) * rates), inputs.unsqueeze(-1) * write.unsqueeze(-2), first)
    torch.testing.assert_close(y, (states @ read.unsqueeze(-1)).squeeze(-1))
    torch.testing.assert_close(last, states[-1])


@pytest.mark.parametrize("kind", KINDS)
def test_a_call_without_gradients_says_the_same(kind: str) -> None:
    made, text = network(kind), example(range(30), causal)
    learning = made(text).states
    with torch.no_grad():
        torch.testing.assert_close(made(text).states, learning)


@pytest.mark.parametrize("length", [1, 5, 8, 19])
@pytest.mark.parametrize("begun", [False, True])
def test_chunks_are_the_steps(length: int, begun: bool) -> None:
    generator = torch.Generator().manual_seed(1)
    added = torch.randn(2, length, 3, 4, generator=generator, dtype=torch.float64)
    log = -torch.rand(2, length, 3, generator=generator, dtype=torch.float64) * 3
    write, read = (torch.randn(2, length, 3, 5, generator=generator, dtype=torch.float64) for _ in range(2))
    first = torch.randn(2, 3, 4, 5, generator=generator, dtype=torch.float64) if begun else None
    y, last = chunked_scan(added, log, write, read, first, chunk=4)
    outer = (added.unsqueeze(-1) * write.unsqueeze(-2)).transpose(0, 1)
    zero = torch.zeros(2, 3, 4, 5, dtype=torch.float64)
    states = step_by_step(log.exp().transpose(0, 1)[..., None, None], outer, zero if first is None else first)
    assert torch.allclose(y, (states @ read.transpose(0, 1).unsqueeze(-1)).squeeze(-1).transpose(0, 1), atol=1e-12)
    assert torch.allclose(last, states[-1], atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_packed_is_alone_and_later_tokens_change_nothing(kind: str) -> None:
    model = network(kind)
    texts = [torch.arange(3, 3 + length).numpy() % 40 for length in (9, 1, 5)]
    (packed,) = pack([example(text, causal) for text in texts])
    with torch.no_grad():
        together = model(packed).states.split([9, 1, 5])
        for text, states in zip(texts, together, strict=True):
            assert torch.allclose(model(example(text, causal)).states, states, atol=1e-6)
        changed = texts[0].copy()
        changed[6] = 39
        moved = model(example(changed, causal)).states
    assert torch.equal(moved[:6], model(example(texts[0], causal)).states[:6])
    assert not torch.allclose(moved[6:], together[0][6:], atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_cached_is_uncached_in_ragged_steps_and_after_leaving(kind: str) -> None:
    model = network(kind)
    ids = torch.randint(0, 40, (2, 12), generator=torch.Generator().manual_seed(2))
    sees = causal & same_document
    with torch.no_grad():
        whole = [model(example(row.numpy(), causal)).states for row in ids]
        cache = model.cache(2, 4)
        done = [0, 0]
        for counts in ((3, 5), (1, 1), (4, 2), (2, 2)):
            new = torch.cat([ids[i, done[i]:done[i] + counts[i]] for i in range(2)])
            here = replace(example(new.numpy(), sees), fields=cache.fields(counts))
            parts = model(here, cache).states.split(counts)
            for i in range(2):
                assert torch.allclose(parts[i], whole[i][done[i]:done[i] + counts[i]], atol=1e-5)
                done[i] += counts[i]
        cache.keep([1])
        here = replace(example(ids[1, 10:12].numpy(), sees), fields=cache.fields(2))
        assert torch.allclose(model(here, cache).states, whole[1][10:12], atol=1e-5)
        with pytest.raises(BothwaysError, match="none can be taken back"):
            cache.shorten([3])


@pytest.mark.parametrize("kind", KINDS)
def test_every_weight_learns_and_counts(kind: str) -> None:
    model = network(kind)
    states = model(example(torch.arange(9).numpy(), causal)).states
    model.logits(states).logsumexp(-1).sum().backward()
    assert all(weight.grad is not None and bool(weight.grad.any()) for weight in model.parameters())
    assert parameters(model.config)["total"] == sum(weight.numel() for weight in model.parameters())


def test_what_a_recurrence_cannot_read_is_refused() -> None:
    model = network("mamba")
    with pytest.raises(BothwaysError, match="reads causally inside each document, not by 'bidirectional'"):
        model(example(torch.arange(4).numpy(), bidirectional))
    fields = {"document": torch.tensor([0, 0]), "index": torch.tensor([1, 0])}
    with pytest.raises(BothwaysError, match="do not rise"):
        make_lanes(fields, causal, torch.device("cpu"))
    for wrong, reach, phrase in ((Position(), "G", "position.kind 'rotary' has no place"),
                                 (Position("none"), "L", "reach is 'L'")):
        with pytest.raises(BothwaysError, match=phrase):
            ModelConfig(Shape(40, 16, 2, heads=1), wrong, mixer=Mixer("mamba"), reach=reach)
