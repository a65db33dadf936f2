"""Penalties, blocked n-grams and typical sampling: exact by hand, and as the processors of `transformers`."""

from __future__ import annotations

import math

import pytest
import torch

from bothways.decoding import GenerateConfig, sampling
from bothways.decoding.rules import NoRepeatedGrams, Seen, rules_of
from bothways.errors import BothwaysError

transformers = pytest.importorskip("transformers")
CPU = torch.device("cpu")
SCORES = torch.randn(3, 40, generator=torch.Generator().manual_seed(0)) * 3
TEXTS = [[1, 2, 3, 1, 2], [7, 7, 7, 7, 7], [4, 5, 6, 8, 9]]


def said(processor, scores=SCORES):
    return processor(torch.tensor(TEXTS), scores.clone())


def spoken(config: GenerateConfig) -> torch.Tensor:
    scores = SCORES.clone()
    for rule in rules_of(config, TEXTS, TEXTS, 40, CPU):
        scores = rule.apply(scores, [0, 1, 2])
    return scores


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9, 1.0])
def test_typical_is_that_of_transformers(p):
    if p < 1:
        torch.testing.assert_close(sampling.keep_typical(SCORES, p), said(transformers.TypicalLogitsWarper(mass=p)))
    else:
        assert sampling.keep_typical(SCORES, p) is SCORES


def test_typical_by_hand():
    # surprises in bits 1, 2, 3, 3; entropy 1.75: the nearest is 2 (a quarter), then 1
    logits = torch.tensor([[0.5, 0.25, 0.125, 0.125]]).log()
    kept = [sampling.keep_typical(logits, p).isfinite().tolist()[0] for p in (0.2, 0.26, 0.76)]
    assert kept == [[False, True, False, False], [True, True, False, False], [True, True, True, False]]


@pytest.mark.parametrize("penalty", [0.7, 1.4])
def test_repetition_is_that_of_transformers(penalty):
    torch.testing.assert_close(spoken(GenerateConfig(repetition_penalty=penalty)),
                               said(transformers.RepetitionPenaltyLogitsProcessor(penalty)))


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_no_repeated_ngrams_is_that_of_transformers(n):
    torch.testing.assert_close(spoken(GenerateConfig(no_repeat_ngram=n)),
                               said(transformers.NoRepeatNGramLogitsProcessor(n)))


def test_bias_is_that_of_transformers():
    bias = {3: 2.5, 7: -4.0, 9: float("-inf")}
    theirs = said(transformers.SequenceBiasLogitsProcessor([[[token], value] for token, value in bias.items()
                                                            if math.isfinite(value)]))
    theirs[:, 9] = float("-inf")
    torch.testing.assert_close(spoken(GenerateConfig(logit_bias=bias)), theirs)


def test_filters_in_a_row_are_those_of_transformers():
    config = GenerateConfig(temperature=0.7, top_k=20, top_p=0.9, min_p=0.01, typical_p=0.8)
    theirs = SCORES.clone()
    for one in (transformers.TemperatureLogitsWarper(0.7), transformers.TopKLogitsWarper(20),
                transformers.TopPLogitsWarper(0.9), transformers.MinPLogitsWarper(0.01),
                transformers.TypicalLogitsWarper(mass=0.8)):
        theirs = said(one, theirs)
    torch.testing.assert_close(sampling.filtered(SCORES, config), theirs)


def test_counts_are_of_what_was_written():
    rule = Seen(GenerateConfig(frequency_penalty=0.5, presence_penalty=2.0), [[1], []], 5, CPU)
    for token in (3, 3, 4):
        rule.wrote(0, token)
    zeros = torch.zeros(2, 5)
    assert rule.apply(zeros, [0, 1]).tolist() == [[0, 0, 0, -3.0, -2.5], [0, 0, 0, 0, 0]]
    rule.keep([1, 0, 0])
    rule.wrote(1, 4)
    assert rule.apply(zeros, [1, 2]).tolist() == [[0, 0, 0, -3.0, -3.0], [0, 0, 0, -3.0, -2.5]]


def test_ngrams_of_copies_grow_apart():
    rule = NoRepeatedGrams(2, [[1, 2]])
    rule.keep([0, 0])
    rule.wrote(0, 1)
    rule.wrote(1, 3)
    rule.wrote(1, 1)
    rule.keep([1, 0, 1])
    rule.wrote(0, 4)
    rule.wrote(0, 1)
    blocked = [row.isinf().nonzero().flatten().tolist() for row in rule.apply(torch.zeros(3, 6), [0, 1, 2])]
    assert blocked == [[2, 4], [2], [2]]


@pytest.mark.parametrize(("options", "word"), [
    ({"typical_p": 0.0}, "typical_p is 0.0, but must lie in (0, 1]"),
    ({"no_repeat_ngram": 0}, "no_repeat_ngram is 0"),
    ({"frequency_penalty": math.inf}, "must be finite"),
    ({"samples": 0}, "samples is 0"),
    ({"beams": 0}, "beams is 0"),
    ({"beams": 4, "beam_groups": 3}, "4 beams must divide"),
    ({"beams": 2, "temperature": 1.0}, "beams search for the likeliest text and draw nothing"),
    ({"beams": 2, "samples": 3}, "finds 2 texts at most"),
    ({"contrast": 0.5}, "set top_k to 2 or more"),
    ({"contrast": 1.5, "top_k": 4}, "contrast is 1.5"),
    ({"force": ("a",)}, "set beams above 1"),
    ({"diversity": 1.0, "beams": 4}, "set beam_groups above 1"),
    ({"lookup": 2, "beams": 2}, "look-up drafts"),
    ({"regex": "a", "choices": ("b",)}, "give one of them"),
    ({"truncate": "middle"}, "on the 'left' or on the 'right'"),
    ({"cache_numbers": "int3"}, "'exact' or 'int8'"),
])
def test_impossible_options_are_refused(options, word):
    with pytest.raises(BothwaysError) as caught:
        GenerateConfig(**options)
    assert word in str(caught.value)
