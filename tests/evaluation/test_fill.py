"""Blanks: the same for every model, scored as the way of calling it allows."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from tests.evaluation.small import PARADIGMS, small, texts

from bothways import objectives
from bothways.batch import Vocabulary
from bothways.evaluation.fill import choose_blanks, fill, reads_on
from bothways.evaluation.known import conditionals, divergence, entropy_of
from bothways.evaluation.questions import Way


def test_blanks_are_whole_plain_and_the_same_every_time():
    trained = small("causal")
    windows = texts(trained, 30, 20)
    for span in (1, 3):
        chosen = choose_blanks(windows, trained.vocabulary, 20, span, seed=4)
        assert len(chosen) == 20
        for (ids, hidden), (_, again) in zip(chosen, choose_blanks(windows, trained.vocabulary, 20, span, seed=4)):
            where = np.flatnonzero(hidden)
            assert len(where) == span and (np.diff(where) == 1).all() and where[0] > 0
            assert not trained.vocabulary.special[ids[hidden]].any() and (hidden == again).all()


@pytest.mark.parametrize("paradigm", PARADIGMS)
def test_fill_reports_each_way_once(paradigm):
    trained = small(paradigm)
    scores = fill(trained, texts(trained, 12, 16), blanks=10, spans=(1, 3))
    modes = [mode.name for mode in trained.objective.modes]
    assert [(score.name, score.mode) for score in scores] == [
        (f"fill {kind}, {what}", mode) for what in ("single token", "span of 3") for mode in modes
        for kind in ("accuracy", "NLL")]
    assert all(len(score.items) == 10 and np.isfinite(score.items).all() for score in scores)


class Uniform:
    """A source whose tokens are independent and uniform over what is not reserved."""

    def true_conditional(self, ids, place):
        true = np.zeros(75)
        true[44:] = 1 / 31
        return true


def test_divergence_from_the_truth():
    assert divergence(np.array([0.5, 0.5, 0]), np.log([0.25, 0.5, 0.25])) == pytest.approx(0.5 * np.log(2))
    assert entropy_of(np.array([0.5, 0.5, 0])) == pytest.approx(np.log(2))


def test_a_flat_network_is_near_a_flat_source():
    trained = small("masked", sharp=0.0)
    assert trained.vocabulary.size == 75
    flat, off = conditionals(trained, Uniform(), texts(trained, 5, 16), blanks=5)
    # a network of zeros gives log(75) to every token, the truth log(31)
    assert flat.value == pytest.approx(np.log(75 / 31), abs=1e-4)
    assert flat.details["entropy"] == pytest.approx(np.log(31))
    assert (flat.estimator, off.estimator) == ("exact, both sides", "exact, left side only")


@pytest.mark.parametrize(("name", "both"), [("next-token", [False]), ("prefix", [False]), ("glm", [True]),
                                            ("masked-next", [True]), ("permuted", [True, False]),
                                            ("span-corruption", [True]), ("denoising", [True]),
                                            ("text-to-text(form=drop-tokens)", [True]),
                                            ("text-to-text(form=deshuffling)", [True]),
                                            ("text-to-text(form=prefix)", [False])])
def test_who_reads_on_behind_a_blank_is_found_by_posing_one(name, both):
    vocabulary = Vocabulary.plain(64)
    objective = objectives.make(name, vocabulary)
    posed = [Way(mode.name, "exact", partial(objective.blank, mode=mode), mode) for mode in objective.modes]
    assert [reads_on(way, vocabulary) for way in posed] == both
