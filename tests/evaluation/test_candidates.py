"""Candidates of a blank: the score is what writing them would have cost, or what the estimator's name says."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.decoding.small import TOKENIZER
from tests.decoding.test_one_tower import model

from bothways.api import Model
from bothways.errors import BothwaysError
from bothways.evaluation.answers import answers
from bothways.evaluation.candidates import score_fills

MASK, BOS, EOS = TOKENIZER.vocabulary.mask, TOKENIZER.vocabulary.bos, TOKENIZER.vocabulary.eos
LEFT, RIGHT = TOKENIZER.encode("the cat"), TOKENIZER.encode(" on the mat")
TEXT = [*LEFT, MASK, *RIGHT]
CANDIDATES = [[[60]], [[61, 62]], [[63]]]
NAMES = ["a", "bc", "d"]


def scores(spec: str, candidates=CANDIDATES, text=TEXT):  # type: ignore[no-untyped-def]
    trained = model(spec)
    found = score_fills(trained, text, candidates, NAMES[:len(candidates)])
    return trained, {score.candidate: score for score in found}


@pytest.mark.parametrize("spec, estimator", [
    ("span-corruption", "exact, both sides given"), ("ul2", "exact, both sides given"),
    ("ul2(towers=2)", "exact, both sides given"), ("glm", "exact, both sides given"),
    ("glm(places=one)", "exact, both sides given"), ("fim", "exact, both sides given"),
    ("denoising", "exact, the whole text written again"),
    ("text-to-text(form=iid)", "exact, both sides given"),
])
def test_what_an_infilling_model_would_write(spec, estimator):
    """Token after token as the writer reads, each question posed anew: the sum is the score; reading it back fills."""
    trained, found = scores(spec)
    assert sum(one.share for one in found.values()) == pytest.approx(1)
    ids = np.array([BOS, *TEXT, EOS])
    for name, candidate in zip(NAMES, CANDIDATES, strict=True):
        stream = trained.objective.written_fills(ids, candidate)
        back = [token for token in trained.objective.read_infilling(ids, stream) if token not in (BOS, EOS)]
        assert back == [*LEFT, *candidate[0], *RIGHT]
        from bothways.decoding.reading import extended
        total = 0.0
        begun = trained.objective.infilling(ids)
        for step, token in enumerate(stream):
            with torch.no_grad():
                state = trained.network(extended(begun, stream[:step])).states[-1]
                total += float(trained.network.logits(state).log_softmax(-1)[token])
        assert found[name].log_prob == pytest.approx(total, abs=1e-3)
        assert found[name].estimator == estimator and found[name].tokens == len(stream)


@pytest.mark.parametrize("spec", ["next-token", "prefix"])
def test_the_chain_rule_with_all_that_follows(spec):
    trained, found = scores(spec)
    for name, candidate in zip(NAMES, CANDIDATES, strict=True):
        ids = np.array([BOS, *LEFT, *candidate[0], *RIGHT, EOS])
        (one,) = answers(trained, [trained.objective.blank(ids, np.arange(len(ids)) > len(LEFT))])
        assert found[name].log_prob == pytest.approx(-one.nats, abs=1e-4)
        assert found[name].estimator == "exact, with all that follows"


@pytest.mark.parametrize("spec", ["masked", "diffusion", "permuted"])
def test_a_network_that_names_hidden_tokens(spec):
    trained, found = scores(spec, [CANDIDATES[0], CANDIDATES[2]])
    assert {one.estimator for one in found.values()} == {"one place, both sides given"}
    ids = np.array([BOS, *LEFT, 60, *RIGHT, EOS])
    (one,) = answers(trained, [trained.objective.blank(ids, np.arange(len(ids)) == len(LEFT) + 1)])
    assert found["a"].log_prob == pytest.approx(-one.nats, abs=1e-4)
    # with another length among them: by the mean, without shares
    trained, mixed = scores(spec)
    assert {one.estimator for one in mixed.values()} == {"pseudo, place by place from left to right"}
    assert all(one.share is None for one in mixed.values())
    means = [one.log_prob / one.tokens for one in score_fills(trained, TEXT, CANDIDATES, NAMES)]
    assert means == sorted(means, reverse=True)


def test_candidates_of_one_length_are_a_distribution():
    """Over all second tokens the scores of two places add up to the probability of the first."""
    trained = model("masked")
    every = [[[60, second]] for second in range(TOKENIZER.vocabulary.size)]
    found = score_fills(trained, TEXT, every, [str(i) for i in range(len(every))])
    ids = np.array([BOS, *LEFT, 60, 60, *RIGHT, EOS])
    (one,) = answers(trained, [trained.objective.blank(ids, np.isin(np.arange(len(ids)), [len(LEFT) + 1,
                                                                                            len(LEFT) + 2]))])
    assert np.exp([score.log_prob for score in found]).sum() == pytest.approx(np.exp(one.log_probs[0]), rel=1e-4)
    assert sum(score.share for score in found) == pytest.approx(1)


def test_several_blanks_and_texts():
    own = Model(model("glm"))
    found = own.score_fills("the <mask> sat on <mask>", [("cat", "the mat"), ("dog", "a house")])
    assert len(found) == 2 and found[0].log_prob >= found[1].log_prob
    assert {one.candidate for one in found} == {"cat … the mat", "dog … a house"}
    for text, words, complaint in (("the cat", ["a"], "the text has no <mask>"), ("a <mask>", [], "no candidates"),
                                   ("a <mask>", [("b", "c")], "words for 2 blanks, but the text has 1"),
                                   ("a<mask>", [""], "words for 0 blanks")):
        with pytest.raises(BothwaysError, match=complaint):
            own.score_fills(text, words)
