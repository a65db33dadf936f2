"""The filters keep what the papers say, and draws follow the probabilities."""

from __future__ import annotations

import math

import pytest
import torch

from bothways.decoding import GenerateConfig, sampling
from bothways.errors import BothwaysError

LOGITS = torch.tensor([[0.4, 0.3, 0.2, 0.1], [0.05, 0.05, 0.1, 0.8]]).log()


def kept(logits: torch.Tensor) -> list[list[int]]:
    return [row.nonzero().flatten().tolist() for row in logits.isfinite()]


def test_top_k() -> None:
    assert kept(sampling.keep_top_k(LOGITS, 2)) == [[0, 1], [2, 3]]
    assert torch.equal(sampling.keep_top_k(LOGITS, 9), LOGITS)


def test_top_p_keeps_the_token_that_reaches_p() -> None:
    assert kept(sampling.keep_top_p(LOGITS, 0.5)) == [[0, 1], [3]]
    assert kept(sampling.keep_top_p(LOGITS, 0.69)) == [[0, 1], [3]]
    assert kept(sampling.keep_top_p(LOGITS, 0.71)) == [[0, 1, 2], [3]]
    assert kept(sampling.keep_top_p(LOGITS, 1e-9)) == [[0], [3]]
    assert torch.equal(sampling.keep_top_p(LOGITS, 1.0), LOGITS)


def test_min_p_is_relative_to_the_likeliest() -> None:
    assert kept(sampling.keep_min_p(LOGITS, 0.6)) == [[0, 1], [3]]
    assert kept(sampling.keep_min_p(LOGITS, 0.1)) == [[0, 1, 2, 3], [2, 3]]


def test_repetition_penalty_lowers_both_signs() -> None:
    seen = torch.tensor([[True, True, False]])
    assert sampling.penalise_repeats(torch.tensor([[2.0, -2.0, 1.0]]), seen, 2.0).tolist() == [[1.0, -4.0, 1.0]]


def test_draws_follow_the_probabilities_and_never_take_a_blocked_token() -> None:
    logits = LOGITS.clone()
    logits[0, 1] = sampling.BLOCKED
    n = 20_000
    uniform = torch.rand(n, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    drawn = sampling.draw(logits[:1].expand(n, -1), uniform)
    counts = torch.bincount(drawn, minlength=4) / n
    wanted = torch.tensor([0.4, 0.0, 0.2, 0.1]) / 0.7
    assert counts[1] == 0
    assert (counts - wanted).abs().max() < 4 * math.sqrt(0.25 / n)
    edges = torch.tensor([0.0, 1 - 2**-53], dtype=torch.float64)
    last_blocked = torch.tensor([[sampling.BLOCKED, 0.0, 0.0, sampling.BLOCKED]]).expand(2, -1)
    assert sampling.draw(last_blocked, edges).tolist() == [1, 2]


def test_gumbel_draws_follow_the_probabilities_in_the_tail() -> None:
    # float32 noise cannot lift a token of probability 1e-5 as often as it should
    n = 400_000
    logits = torch.tensor([[0.0, math.log(1e-4)]]).expand(n, -1)
    drawn = sampling.gumbel_argmax(logits, torch.Generator().manual_seed(0))
    assert abs(int(drawn.sum()) - n * 1e-4) < 4 * math.sqrt(n * 1e-4)
    blocked = torch.tensor([[sampling.BLOCKED, 0.0]]).expand(1000, -1)
    assert int(sampling.gumbel_argmax(blocked, torch.Generator().manual_seed(0)).min()) == 1


@pytest.mark.parametrize(
    ("option", "value", "word"),
    [
        ("top_p", 0.0, "top_p is 0.0, but must lie in (0, 1]"),
        ("top_p", 1.5, "top_p is 1.5"),
        ("temperature", -1.0, "temperature is -1.0, but must be 0 (greedy) or above"),
        ("temperature", math.nan, "temperature is nan"),
        ("top_k", 0, "top_k is 0"),
        ("min_p", 2.0, "min_p is 2.0"),
        ("max_new_tokens", 0, "max_new_tokens is 0"),
        ("repetition_penalty", 0.0, "repetition_penalty is 0.0"),
        ("steps", 0, "steps is 0"),
        ("block", 0, "block is 0"),
        ("order", "alphabet", "order is 'alphabet'"),
    ],
)
def test_impossible_options_are_refused(option: str, value: float, word: str) -> None:
    with pytest.raises(BothwaysError) as caught:
        GenerateConfig(**{option: value})
    assert word in str(caught.value)


def test_gumbel_noise_keeps_its_far_tail(monkeypatch: pytest.MonkeyPatch) -> None:
    # 1 - 2^-40 is 1 in float32, whose noise would be infinite there and 17 at most anywhere else
    def rand(shape: tuple[int, ...], generator: torch.Generator, dtype: torch.dtype) -> torch.Tensor:
        return torch.tensor([[0.5, 1 - 2**-40]], dtype=dtype)

    monkeypatch.setattr(torch, "rand", rand)
    noise = math.log(2**40)
    for logit, wanted in ((-noise - 2, 0), (-noise + 2, 1)):
        assert sampling.gumbel_argmax(torch.tensor([[0.0, logit]]), torch.Generator()).tolist() == [wanted]
