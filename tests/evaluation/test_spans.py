"""Entities and their F1, by hand and as seqeval counts them."""

from __future__ import annotations

import numpy as np
import pytest

from bothways.evaluation.spans import Entity, as_bio, bio_faults, counts, entities, f1, span_f1


@pytest.mark.parametrize(("tags", "found"), [
    ("O B-a I-a O B-b", [(1, 3, "a"), (4, 5, "b")]),
    ("B-a B-a I-b", [(0, 1, "a"), (1, 2, "a"), (2, 3, "b")]),
    ("I-a I-a O I-b", [(0, 2, "a"), (3, 4, "b")]),
    ("B-a I-a E-a S-b S-b O", [(0, 3, "a"), (3, 4, "b"), (4, 5, "b")]),
    ("B-a L-a U-a I-a", [(0, 2, "a"), (2, 3, "a"), (3, 4, "a")]),
    ("B-creative-work I-creative-work", [(0, 2, "creative-work")]),
    ("NOUN X-ray O", []), ("", [])])
def test_entities_by_hand(tags, found):
    assert entities(tags.split()) == [Entity(*one) for one in found]


def test_bio_is_made_of_other_schemes_and_its_faults_are_found():
    assert as_bio(["I-a", "I-a", "I-b", "S-b", "B-c", "E-c", "O"]) == ("B-a", "I-a", "B-b", "B-b", "B-c", "I-c", "O")
    assert bio_faults(["I-a", "B-a", "I-a", "I-b", "O", "I-b"]) == [0, 3, 5]


def test_f1_by_hand():
    truth = [["B-a", "I-a", "O", "B-b"], ["O", "B-b", "I-b", "O"], ["O"]]
    guessed = [["B-a", "I-a", "O", "B-a"], ["O", "B-b", "O", "O"], ["B-a"]]
    tables = counts(truth, guessed)
    assert tables["a"].sum(0).tolist() == [1, 1, 3] and tables["b"].sum(0).tolist() == [0, 2, 1]
    assert span_f1(truth, guessed) == pytest.approx(2 * 1 / (3 + 4)) and f1(0, 0, 0) == 0.0
    assert span_f1(truth, truth) == 1.0 and span_f1([["O"]], [["O"]]) == 0.0


def test_f1_is_that_of_seqeval():
    metrics = pytest.importorskip("seqeval.metrics")
    rng = np.random.default_rng(0)
    names = ["O", "B-a", "I-a", "B-b", "I-b", "S-a", "E-b"]
    truth, guessed = ([[names[i] for i in rng.integers(0, 7, 9)] for _ in range(60)] for _ in range(2))
    assert span_f1(truth, guessed) == pytest.approx(metrics.f1_score(truth, guessed))
    report = metrics.classification_report(truth, guessed, output_dict=True)
    for name, table in counts(truth, guessed).items():
        assert f1(*table.sum(0)) == pytest.approx(report[name]["f1-score"])
