"""The recipes of tasks: each is read, fits its kind, and says how it is called; the rows made for two of them."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from bothways import tasks
from bothways.cli import parsing, tune
from bothways.tasks.rows import overlap, read

FOLDER = Path(__file__).parents[1] / "recipes" / "tasks"
RECIPES = sorted(FOLDER.glob("*.yaml"))


def options(file: Path, *more: str):
    arguments = ["--recipe", str(file), "--out", "x", *more]
    return parsing.parse(tune.options_for(arguments), "bothways tune", None, arguments)


@pytest.fixture(scope="module")
def by_document():
    spec = importlib.util.spec_from_file_location("by_document", FOLDER / "by_document.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("file", RECIPES, ids=lambda file: file.stem)
def test_a_recipe_fits_its_kind(file):
    found = options(file)
    assert isinstance(found.own, tasks.kind(found.task).Options)
    assert not found.data.is_absolute() and (found.test is None) == (found.keep > 0)
    # rows kept back are the test where there is no other: nothing may be chosen by them
    assert found.test is not None or (found.tuning.evaluations == 1 and found.seeds == 1)
    known = [role.name for role in tasks.kind(found.task).roles]
    assert set(tune.named_columns(found.columns)) <= set(known)


@pytest.mark.parametrize("file", RECIPES, ids=lambda file: file.stem)
def test_a_recipe_says_how_it_is_called_and_what_it_takes(file):
    text = file.read_text(encoding="utf-8")
    assert f"bothways tune --recipe BOTHWAYS/recipes/tasks/{file.name} " in text
    assert "second" in text.split("\ntask:")[0]


@pytest.mark.parametrize("file", RECIPES, ids=lambda file: file.stem)
def test_the_data_of_a_recipe_is_read_without_a_word(file, data):
    found = options(file)
    if not (data / found.data).is_file():
        pytest.skip("its rows are made")
    kind = tasks.kind(found.task)
    columns = tune.named_columns(found.columns)
    rows = [read(data / part, kind.roles, kind.row, columns=columns) for part in (found.data, found.test)
            if part is not None]
    assert all(len(one.bad) <= 0.02 * len(one) for one in rows)
    assert len(rows) == 1 or len(overlap(*rows, kind.key)) < 0.1 * len(rows[1])


def test_contracts_are_cut_into_passages_at_sentences(by_document):
    text = "One two three four.\nstill here\n\n7\n\n" + " ".join(f"w{i} is a part of this." for i in range(40))
    found = [text[start:end] for start, end in by_document.passages(text)]
    assert found[0].strip() == "One two three four.\nstill here"
    assert [len(one.split()) for one in found[1:]] == [120, 120]
    assert all(one.rstrip().endswith(".") for one in found[1:])


def test_a_passage_has_the_clauses_that_are_marked_in_it(by_document):
    text = "This is the first passage.\n\nHere stands the law of Ohio.\n\nNothing is said here."
    spans = {"Governing Law": [{"text": "law of Ohio", "start": text.index("law"), "end": text.index("Ohio") + 4}],
             "Rare": [{"text": "first", "start": 12, "end": 17}],
             "Insurance": [{"text": "?", "start": None, "end": None}]}
    contracts = [{"contract": str(i), "text": text, "spans": spans if i == 0 else {"Governing Law": spans[
        "Governing Law"]}} for i in range(10)]
    found = by_document.clauses(contracts)
    assert [row["labels"] for row in found["0"]] == [[], ["Governing Law"], []]


def test_documents_stand_on_one_side_and_rows_too(by_document):
    documents = {str(i): [{"text": f"{i} alone"}, {"text": "in all of them"}] for i in range(8)}
    train, test = by_document.parted(documents)
    assert len(train) == 12 and [row["text"] for row in test] == sorted(row["text"] for row in test)
    assert len(test) == 2 and not {row["text"] for row in test} & {row["text"] for row in train}
    assert by_document.parted(documents) == (train, test)
