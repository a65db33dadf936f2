"""T5's span corruption at its edges: lengths, sentinels, short texts. Its laws are tested in `test_corruption`."""

from __future__ import annotations

import collections
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from bothways.batch import RESERVED_TOKENS, Key, Vocabulary, Window
from bothways.errors import BothwaysError
from bothways.objectives import make

RESERVED = len(RESERVED_TOKENS)
PLAIN = Vocabulary.plain(RESERVED + 900)


def text(length: int) -> np.ndarray:
    return np.arange(RESERVED, RESERVED + length)


def with_sentinels(count: int) -> Vocabulary:
    return replace(PLAIN, ids={name: i for name, i in PLAIN.ids.items() if i not in PLAIN.sentinels[count:]})


@pytest.mark.parametrize("raw, inputs, targets, spans", [(568, 512, 114, 28), (284, 256, 58, 14), (141, 128, 29, 7)])
def test_raw_tokens_are_chosen_so_that_inputs_fill_a_window(raw, inputs, targets, spans):
    """literature.md 4.1, point 6: at density 0.15 and mean span 3."""
    for index in range(20):
        example = make("span-corruption", PLAIN).corrupt(Window(text(raw)), Key(0, 0, index))
        source, target = example.source.inputs.numpy(), example.asks[0].targets.numpy()
        assert (len(source), len(target)) == (inputs, targets)
        assert np.isin(source, PLAIN.sentinels).sum() == np.isin(target, PLAIN.sentinels).sum() == spans


def test_spans_of_a_window_are_a_uniform_composition():
    """12 tokens at rate 0.5 and mean 3: 6 hidden in 2 spans and 6 kept in 2 parts, 5 times 5 ways, equally likely."""
    objective = make("span-corruption(rate=0.5)", PLAIN)
    counts = collections.Counter()
    for index in range(5000):
        source = objective.corrupt(Window(text(12)), Key(0, 0, index)).source.inputs.numpy()
        first, second = np.flatnonzero(np.isin(source, PLAIN.sentinels))
        kept = int(first), int(second - first - 1)
        hidden = int(source[first + 1]) - RESERVED - kept[0]
        assert sum(kept) == 6 and 1 <= hidden <= 5
        counts[kept, hidden] += 1
    assert len(counts) == 25 and stats.chisquare(list(counts.values())).pvalue > 1e-3


@pytest.mark.parametrize("length", [2, 3, 4, 5])
@pytest.mark.parametrize("mean_span", [1, 3, 40])
def test_a_text_shorter_than_a_span_hides_at_least_one_token_and_keeps_one(length, mean_span):
    objective = make(f"span-corruption(mean_span={mean_span})", PLAIN)
    for rate in (0.01, 0.15, 0.99):
        example = replace(objective, rate=rate).corrupt(Window(text(length)), Key(0, 0, 0))
        kept = [token for token in example.source.inputs.tolist()[:-1] if token not in PLAIN.sentinels]
        hidden = [token for token in example.asks[0].targets.tolist()[:-1] if token not in PLAIN.sentinels]
        assert kept and hidden and sorted(kept + hidden) == text(length).tolist() and kept[0] == RESERVED


@pytest.mark.parametrize("ids", [text(1), np.array([PLAIN.bos, PLAIN.eos]), np.array([RESERVED, PLAIN.eos])])
def test_a_text_of_one_token_is_refused(ids):
    with pytest.raises(BothwaysError, match="at least 2 tokens, not 1: use longer texts"):
        make("span-corruption", PLAIN).corrupt(Window(ids), Key(0, 0, 0))


def test_more_spans_than_sentinels_are_refused_with_what_to_change():
    few = with_sentinels(7)
    assert len(make("span-corruption", few).corrupt(Window(text(141)), Key(0, 0, 0)).source) == 128
    with pytest.raises(BothwaysError, match="a window of 160 tokens has 8 spans, but the tokenizer has only 7 "
                                            r"sentinels: use shorter windows, a lower rate \(now 0\.15\) or a "
                                            r"longer mean_span \(now 3\)"):
        make("span-corruption", few).corrupt(Window(text(160)), Key(0, 0, 0))


def test_a_rolled_span_that_is_cut_needs_a_sentinel_and_is_refused_before_it_happens():
    """Every key is refused alike, not only those whose span is cut."""
    objective = make("span-corruption(roll=true)", with_sentinels(7))
    for index in range(30):
        with pytest.raises(BothwaysError, match="with one span cut by its end, has 8 spans"):
            objective.corrupt(Window(text(141)), Key(0, 0, index))
        assert len(make("span-corruption(roll=true)", with_sentinels(8)).corrupt(Window(text(141)), Key(0, 0, index)))
