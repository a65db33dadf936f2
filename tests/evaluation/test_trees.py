"""Questions that share what they read: by hand, and the same answers as each by itself."""

from __future__ import annotations

import numpy as np
import pytest
from tests.evaluation.small import small

from bothways.evaluation.answers import answers
from bothways.evaluation.questions import ways
from bothways.evaluation.trees import Ancestors, answers_together, shared_beginning, tree
from bothways.model import LanguageModel
from bothways.objectives import base
from bothways.visibility import causal


def asked(ids, *where):
    ids = np.array(ids)
    return base.example(ids, causal, [base.ask(np.array(where), ids[np.array(where) + 1])])


def test_a_tree_by_hand():
    """1 2 3 4 / 1 2 5 / 1 2 5 6 / 1 7: six more tokens than the first text has would be ten."""
    made, places = tree([asked([1, 2, 3, 4], 1, 2), asked([1, 2, 5], 1), asked([1, 2, 5, 6], 1, 2), asked([1, 7], 0)])
    assert made.inputs.tolist() == [1, 2, 3, 4, 5, 6, 7]
    assert made.fields["position"].tolist() == made.fields["index"].tolist() == [0, 1, 2, 3, 2, 3, 1]
    sees = made.visibility.allows(made.fields, made.fields).int().tolist()
    assert sees == [[1, 0, 0, 0, 0, 0, 0], [1, 1, 0, 0, 0, 0, 0], [1, 1, 1, 0, 0, 0, 0], [1, 1, 1, 1, 0, 0, 0],
                    [1, 1, 0, 0, 1, 0, 0], [1, 1, 0, 0, 1, 1, 0], [1, 0, 0, 0, 0, 0, 1]]
    # the same target at the same place is asked for once
    ask = made.asks[0]
    assert list(zip(ask.where.tolist(), ask.targets.tolist())) == [(0, 7), (1, 3), (1, 5), (2, 4), (4, 6)]
    assert [one.tolist() for one in places] == [[1, 3], [2], [2, 4], [0]]


def test_one_path_stays_what_it_was():
    made, places = tree([asked([1, 2, 3], 1), asked([1, 2, 3, 4], 2), asked([1, 2], 0)])
    assert made.visibility == causal and made.inputs.tolist() == [1, 2, 3, 4]
    assert [one.tolist() for one in places] == [[1], [2], [0]]
    assert shared_beginning(np.array([1, 2]), np.array([1, 2, 3])) == 2


def questions(trained, way, n=60):
    """Texts with few beginnings and few ends, each asked from some place on."""
    rng = np.random.default_rng(0)
    known = np.flatnonzero(~trained.vocabulary.special)
    heads = [rng.choice(known, size) for size in (3, 6, 9)]
    found = []
    for _ in range(n):
        head, tail = heads[rng.integers(3)], rng.choice(known[:3], rng.integers(1, 5))
        ids = np.array([trained.vocabulary.bos, *head, *tail])
        found.append(way.pose(ids, (np.arange(len(ids)) > len(head)) & (np.arange(len(ids)) <= len(head) + 2)))
    return found


@pytest.mark.parametrize("paradigm", ["causal", "hybrid", "prefix", "spans", "denoising", "masked", "diffusion", "glm",
                                      "permuted"])
def test_together_as_each_alone(paradigm):
    trained = small(paradigm)
    way, *_ = ways(trained, off_mode=False)
    posed = questions(trained, way)
    for one, other in zip(answers(trained, posed), answers_together(trained, posed), strict=True):
        assert one.log_probs == pytest.approx(other.log_probs, abs=1e-5)
        assert (one.correct == other.correct).all()


@pytest.mark.parametrize(("paradigm", "least"), [("causal", 2.0), ("hybrid", 2.0), ("prefix", 2.0), ("spans", 2.5),
                                                 ("denoising", 2.0)])
def test_what_is_shared_is_read_once(paradigm, least, monkeypatch):
    trained = small(paradigm)
    way, *_ = ways(trained, off_mode=False)
    posed = questions(trained, way)
    read, forward = [], LanguageModel.forward

    def counting(self, example, **more):
        read.append(len(example) + (0 if example.source is None else len(example.source)))
        return forward(self, example, **more)

    monkeypatch.setattr(LanguageModel, "forward", counting)
    answers(trained, posed)
    plain = sum(read)
    answers_together(trained, posed)
    assert plain > least * (sum(read) - plain)


def test_a_place_is_scored_once_for_all_its_targets(monkeypatch):
    """A masked network asked for ten words in one blank: one text, one row of logits."""
    trained = small("masked")
    way, *_ = ways(trained, off_mode=False)
    known = np.flatnonzero(~trained.vocabulary.special)
    posed = [way.pose(np.array([trained.vocabulary.bos, known[0], word, known[1]]), np.arange(4) == 2)
             for word in known[:10]]
    rows, logits = [], LanguageModel.logits
    monkeypatch.setattr(LanguageModel, "logits",
                        lambda self, states, *more: rows.append(len(states)) or logits(self, states, *more))
    found = answers_together(trained, posed)
    assert rows == [1] and len({float(one.log_probs[0]) for one in found}) == 10


def test_the_order_of_a_tree_is_its_own():
    assert repr(Ancestors()) == "up the tree"
