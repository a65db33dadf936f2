"""The scikit-learn surface: parameters survive clones, fitting answers as the task does."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from tests.evaluation.small import small
from tests.tasks.test_ways import short

from bothways.errors import BothwaysError
from bothways.tasks import folder
from bothways.tasks.classify import Row
from bothways.tasks.estimators import TextClassifier

TEXTS, LABELS = map(list, zip(*short(80), strict=True))


def test_parameters_go_round_and_clones_are_unfitted():
    model = TextClassifier(small("masked", sharp=1.0), steps=30, batch=16, learning_rate=2e-3, pooling="first")
    params = model.get_params()
    assert params["steps"] == 30 and params["pooling"] == "first" and params["head_rate"] == 5e-3
    twin = clone(model)
    assert {**twin.get_params(), "base": 0} == {**params, "base": 0} and not hasattr(twin, "task_")
    assert model.set_params(steps=40, keep=0.2) is model and model.get_params()["steps"] == 40
    assert "TextClassifier(" in repr(model)
    with pytest.raises(BothwaysError, match="no parameter is called 'step'"):
        model.set_params(step=1)
    with pytest.raises(BothwaysError, match="no parameter is called 'pool'"):
        TextClassifier(pool="mean")
    with pytest.raises(NotFittedError):
        model.predict(["x"])


def test_it_fits_answers_and_scores(tmp_path):
    model = TextClassifier(small("causal", sharp=1.0), steps=60, batch=16, learning_rate=2e-3, head_rate=1e-2, keep=0.1)
    assert model.fit(TEXTS, LABELS).score(TEXTS, LABELS) > 0.95
    assert model.classes_.tolist() == ["cat", "dog", "sees"]
    shares = model.predict_proba(TEXTS[:5])
    assert (model.classes_[shares.argmax(1)] == model.predict(TEXTS[:5])).all()
    again = folder.load(model.save(tmp_path / "out"))
    assert (again.predict_proba([Row(text) for text in TEXTS[:5]]) == shares).all()


def test_it_works_inside_a_grid_search_and_with_several_labels():
    found = GridSearchCV(TextClassifier(way="bayes"), {"way": ["bayes", "logistic"]}, cv=2).fit(TEXTS, LABELS)
    assert found.best_score_ > 0.9
    model = TextClassifier(way="svm", several=True).fit(TEXTS, [["word", label] for label in LABELS])
    assert set(model.predict(TEXTS[:1])[0]) == {"word", LABELS[0]} and np.ndim(model.predict_proba(TEXTS)) == 2
    with pytest.raises(BothwaysError, match="at least two labels"):
        TextClassifier(way="bayes").fit(["a", "b"], ["x", "x"])
