"""Prefix language model: the split, what is asked behind it, and the identity with next-token where it is empty."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats
from tests.objectives.shaken import shaken

from bothways.batch import RESERVED_TOKENS, Key, Vocabulary, Window, pack
from bothways.errors import BothwaysError
from bothways.model import LanguageModel, ModelConfig, Shape
from bothways.objectives import make
from bothways.visibility import grid

RESERVED = len(RESERVED_TOKENS)
PLAIN = Vocabulary.plain(RESERVED + 60)
IDS = np.array([PLAIN.bos, *range(RESERVED, RESERVED + 6), PLAIN.eos])


def network() -> LanguageModel:
    return shaken(ModelConfig(Shape(PLAIN.size, 16, layers=2, heads=2)))


@torch.no_grad()
def logits(model: LanguageModel, example) -> torch.Tensor:
    return model.logits(model(example).states[example.asks[0].where])


def test_a_small_example_by_hand():
    example = make("prefix(share=0.4)", PLAIN).corrupt(Window(IDS), Key(0, 0, 0))
    assert example.inputs.tolist() == IDS.tolist()
    assert example.fields["prefix"].tolist() == [1, 1, 1, 0, 0, 0, 0, 0]
    assert example.asks[0].where.tolist() == [2, 3, 4, 5, 6]
    assert example.asks[0].targets.tolist() == IDS[3:].tolist()
    assert example.asks[0].count == 5 and example.raw == 8
    seen = grid(example.visibility, example.fields)
    assert seen[0].tolist() == [True] * 3 + [False] * 5  # the first token sees all of the prefix, and nothing more
    assert seen[4].tolist() == [True] * 5 + [False] * 3


def test_an_empty_prefix_is_next_token():
    """The same Asks and the same logits to the last bit, packed and alone."""
    windows = [Window(np.concatenate(([PLAIN.bos], np.random.default_rng(i).integers(RESERVED, PLAIN.size, 9 + i))),
                      index=i) for i in range(3)]
    empty, causal, model = make("prefix(share=0)", PLAIN), make("next-token", PLAIN), network()
    pairs = [(empty.corrupt(window, Key(0, 0, window.index)), causal.corrupt(window, Key(0, 0, window.index)))
             for window in windows]
    for one, other in [*pairs, tuple(pack(side)[0] for side in zip(*pairs, strict=True))]:
        assert one.asks[0].where.tolist() == other.asks[0].where.tolist()
        assert one.asks[0].targets.tolist() == other.asks[0].targets.tolist()
        assert one.asks[0].count == other.asks[0].count
        assert torch.equal(logits(model, one), logits(model, other))


def test_a_question_about_everything_is_the_causal_likelihood():
    model, hidden = network(), np.arange(8) > 0
    assert torch.equal(logits(model, make("prefix", PLAIN).blank(IDS, hidden)),
                       logits(model, make("next-token", PLAIN).blank(IDS, hidden)))


@pytest.mark.parametrize("length", [2, 5, 64])
def test_splits_are_uniform_over_all_that_leave_something_to_ask(length):
    objective = make("prefix", PLAIN)
    drawn = np.array([objective.split(length, Key(3, 0, i)) for i in range(64 * (length - 1))])
    counts = np.bincount(drawn, minlength=length)
    assert counts[0] == 0 and len(counts) == length
    # a low-discrepancy sequence: independent draws would miss by about 8
    assert np.abs(counts[1:] - 64).max() <= 3


def test_each_split_alone_is_uniform_over_seeds():
    objective = make("prefix", PLAIN)
    counts = np.bincount([objective.split(11, Key(seed, 0, 5)) for seed in range(3000)], minlength=11)[1:]
    assert stats.chisquare(counts).pvalue > 1e-3


def test_half_of_the_tokens_are_asked_for():
    asked = raw = 0
    for i in range(400):
        ids = np.random.default_rng(i).integers(RESERVED, PLAIN.size, 128)
        example = make("prefix", PLAIN).corrupt(Window(ids, index=i), Key(0, 0, i))
        asked, raw = asked + len(example.asks[0].where), raw + example.raw
    assert asked / raw == pytest.approx(make("prefix", PLAIN).profile.asked, abs=0.01)


@pytest.mark.parametrize("share", ["uniform", 0, 0.25, 0.99])
@pytest.mark.parametrize("length", [1, 2, 3, 9])
def test_only_what_stands_behind_the_prefix_is_asked_and_none_of_it_is_seen(share, length):
    for i in range(5):
        example = make({"name": "prefix", "share": share}, PLAIN).corrupt(Window(IDS[1:1 + length]), Key(0, 0, i))
        seen = grid(example.visibility, example.fields).numpy()
        assert len(example.asks[0].where) >= (length > 1)
        for place, target in zip(example.asks[0].where.tolist(), example.asks[0].targets.tolist(), strict=True):
            assert example.fields["prefix"][place + 1] == 0
            assert target not in example.inputs.numpy()[seen[place]]


def test_a_question_reads_what_stands_before_it_from_both_sides():
    question = make("prefix", PLAIN).blank(IDS, np.isin(np.arange(8), [3, 5]))
    assert question.fields["prefix"].tolist() == [1, 1, 1, 0, 0, 0, 0, 0]
    assert question.asks[0].where.tolist() == [2, 4]
    assert question.asks[0].targets.tolist() == IDS[[3, 5]].tolist()


def test_a_prompt_is_the_prefix():
    example = make("prefix", PLAIN).continuation(IDS[1:4])
    assert example.inputs.tolist() == IDS[:4].tolist() and example.fields["prefix"].tolist() == [1] * 4


@pytest.mark.parametrize("share", [1, -0.1, True, "half", None])
def test_impossible_shares_are_refused(share):
    with pytest.raises(BothwaysError, match=r"objective 'prefix': share is .* 'uniform' or a number"):
        make({"name": "prefix", "share": share}, PLAIN)
