"""Minimal pairs by every rule, against sums written by hand."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
import torch
from tests.evaluation.small import PARADIGMS, places, small, texts

from bothways.errors import BothwaysError
from bothways.evaluation import pairs
from bothways.evaluation.answers import answers
from bothways.evaluation.pseudo import words
from bothways.evaluation.questions import ways
from bothways.text.tokenizer import Tokenizer


class Pair(NamedTuple):
    good: str
    bad: str
    kind: str = "any"


PAIRS = [Pair("the dog near the dogs barks .", "the dog near the dogs bark .", "across"),
         Pair("the dogs bark .", "the dogs barks .", "near"), Pair("the cat sees", "the cat sees", "same")]


def pieces() -> Tokenizer:
    """A tokenizer whose words have several pieces."""
    return Tokenizer.train(["the unbelievable dogs bark", "a cat sees"] * 5, kind="bpe", size=320)


def test_words_are_runs_of_pieces():
    tokenizer = pieces()
    ids = pairs.sentence(tokenizer, "the unbelievable dogs zzz.")
    found = ["".join(tokenizer.pieces(ids[word])) for word in words(ids, tokenizer.vocabulary)]
    assert [word.strip() for word in found] == ["the", "unbelievable", "dogs", "zzz", "."]


def test_word_l2r_hides_the_later_pieces_and_plain_does_not():
    trained = small("masked", pieces(), sharp=6.0)
    ids = pairs.sentence(trained.tokenizer, "the qyx cat")
    word = next(word for word in words(ids, trained.vocabulary) if len(word) == 4)
    (way, *_) = ways(trained, off_mode=False)

    def log_p(target, *hidden):
        (one,) = answers(trained, [way.pose(ids, places(len(ids), *hidden))])
        return float(one.log_probs[sorted(hidden).index(target)])

    others = [place for place in range(1, len(ids)) if place not in word]
    rest = sum(log_p(place, place, *[later for w in words(ids, trained.vocabulary) if place in w
                                     for later in w if later > place]) for place in others)
    l2r = rest + sum(log_p(place, *word[piece:]) for piece, place in enumerate(word))
    plain = sum(log_p(place, place) for place in range(1, len(ids)))
    assert pairs.score(trained, way, "pll-word-l2r", [ids], [ids])[0] == pytest.approx((l2r, l2r), abs=1e-3)
    assert pairs.score(trained, way, "pll", [ids], [ids])[0] == pytest.approx((plain, plain), abs=1e-3)
    assert abs(l2r - plain) > 1e-2


@pytest.mark.parametrize("paradigm", PARADIGMS)
def test_each_paradigm_has_its_rule(paradigm):
    trained = small(paradigm)
    rules = {score.mode: score.estimator for score in pairs.minimal_pairs(trained, PAIRS, samples=4)}
    assert rules == {"causal": {"causal": "NLL, exact"}, "masked": {"bidirectional": "PLL-word-l2r, pseudo"},
                     "diffusion": {"bidirectional": "upper bound, 4 common samples"},
                     "hybrid": {"causal": "NLL, exact", "bidirectional": "PLL-word-l2r, pseudo"},
                     "spans": {"encoder-decoder": "word blanks, pseudo"},
                     "denoising": {"encoder-decoder": "word blanks, pseudo"}}[paradigm]
    for score in pairs.minimal_pairs(trained, PAIRS):
        assert score.items[2] == 0.5 and set(score.details) == {"across", "near", "same"}
        assert score.value == pytest.approx(np.mean(score.items))


def test_several_rules_and_an_unknown_one():
    trained = small("hybrid")
    found = pairs.minimal_pairs(trained, PAIRS, rules=("nll", "pll", "bound"))
    assert [(score.mode, score.estimator.split(",")[0]) for score in found] == [
        ("causal", "NLL"), ("bidirectional", "PLL plain"), ("bidirectional", "upper bound")]
    with pytest.raises(BothwaysError, match="did you mean 'pll'"):
        pairs.minimal_pairs(trained, PAIRS, rules=("ppl",))


def test_the_corruption_of_both_members_agrees_outside_what_differs():
    good, bad = np.array([1, 50, 51, 52, 53, 54, 55]), np.array([1, 50, 51, 60, 61, 53, 54, 55])
    one, other = pairs._common_subsets(good, bad, 200, (0, 1)), pairs._common_subsets(bad, good, 200, (0, 1))
    for (hidden, share, _), (hidden_too, share_too, _) in zip(one, other):
        assert not hidden[0] and share == pytest.approx(6 / hidden.sum() / 200)
        assert share_too == pytest.approx(7 / hidden_too.sum() / 200)
    # a shared token is almost always hidden in both or in neither
    agree = np.mean([[hidden[1] == too[1], hidden[2] == too[2], hidden[-1] == too[-1], hidden[-3] == too[-3]]
                     for (hidden, *_), (too, *_) in zip(one, other)])
    assert agree > 0.9


def test_a_tree_reads_both_members_as_they_are():
    """The shared beginning once: the same difference as two whole texts, also where one is the other's beginning."""
    trained = small("causal", sharp=6.0)
    (way,) = ways(trained, off_mode=False)
    members = [(pairs.sentence(trained.tokenizer, pair.good), pairs.sentence(trained.tokenizer, pair.bad))
               for pair in [*PAIRS, Pair("the cat sees the dog", "the cat"), Pair("dogs bark", "the dogs bark")]]
    good, bad = zip(*members)
    found = pairs.score(trained, way, "nll", good, bad)
    for (one, other), (first, second) in zip(members, found):
        whole = [answers(trained, [way.pose(ids, np.arange(len(ids)) > 0)])[0].log_probs.sum() for ids in (one, other)]
        assert first - second == pytest.approx(whole[0] - whole[1], abs=1e-4)
    both = pairs.tree([way.pose(ids, np.arange(len(ids)) >= 6) for ids in (good[0], bad[0])]).example
    assert len(both) == len(good[0]) + len(bad[0]) - 6 and len(both.asks[0].where) == len(good[0]) + len(bad[0]) - 12


def test_other_rules_by_hand():
    trained = small("masked", pieces(), sharp=6.0)
    (way, *_) = ways(trained, off_mode=False)
    good, bad = (pairs.sentence(trained.tokenizer, text) for text in ("the qyx cat", "the dogs cat"))
    word = next(word for word in words(good, trained.vocabulary) if len(word) == 4)

    def log_p(*hidden):
        return answers(trained, [way.pose(good, places(len(good), *hidden))])[0].log_probs

    expected = sum(log_p(*word[piece:])[0] for piece in range(4))
    assert pairs.score(trained, way, "difference", [good], [bad])[0][0] == pytest.approx(expected, abs=1e-3)
    whole = sum(log_p(*one).sum() for one in words(good, trained.vocabulary))
    assert pairs.score(trained, way, "pll-word", [good], [bad])[0][0] == pytest.approx(whole, abs=1e-3)


def test_parts_by_phenomenon_and_by_pieces():
    class Grouped(NamedTuple):
        good: str
        bad: str
        kind: str
        group: str

    trained = small("masked", pieces())
    some = [Grouped("the qyx cat", "the dogs cat", "a", "one"), Grouped("a cat sees", "a dogs sees", "b", "two"),
            Grouped("a cat", "a cat", "b", "two")]
    whole, *parts = pairs.minimal_pairs(trained, some, parts=True)
    assert [part.name for part in parts[:2]] == ["minimal pairs, one", "minimal pairs, two"]
    assert parts[1].items == whole.items[1:]
    counts = {part.name.split("word of ")[1]: part.n for part in parts[2:]}
    sizes = [pairs.critical_pieces(*(pairs.sentence(trained.tokenizer, text) for text in one[:2]), trained.vocabulary)
             for one in some]
    assert sizes[0] == 4 and sizes[2] == 0 and sum(counts.values()) == 2 and counts["3 or more pieces"] >= 1


@pytest.mark.parametrize("paradigm", ["masked", "causal", "spans"])
def test_answers_of_many_packed_questions_are_those_of_each_alone_in_full(paradigm):
    """Only asked places are computed in the last layer, many questions in a row: nothing of what is asked changes."""
    trained = small(paradigm)
    (way, *_) = ways(trained, False)
    asked = [(np.asarray(window.ids), np.arange(len(window.ids)) == 2 + number % 3)
             for number, window in enumerate(texts(trained, 5, 9))]
    examples = [way.pose(*one) for one in asked]
    for example, found in zip(examples, answers(trained, examples), strict=True):
        ask = example.asks[0]
        with torch.no_grad():
            logits = trained.objective.logits(trained.network, trained.network(example).states[ask.where], ask.head)
        wanted = logits.log_softmax(-1).gather(-1, ask.targets[:, None])[:, 0]
        assert found.log_probs == pytest.approx(wanted.numpy(), abs=1e-5)
