"""Every training recipe is read strictly, and trains."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from tests.training.small import prepare_small

from bothways.text.prepare import Prepared
from bothways.training import Record, train
from bothways.training.recipe import compose

ROOT = Path(__file__).parents[1]
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return prepare_small(tmp_path_factory.mktemp("small"))


def test_there_is_one_for_every_objective() -> None:
    from bothways import objectives

    names = {compose(file).objective for file in RECIPES if isinstance(compose(file).objective, str)}
    names |= {file["name"] for file in (compose(file).objective for file in RECIPES) if isinstance(file, dict)}
    assert names == set(objectives.known())


@pytest.mark.parametrize("file", RECIPES, ids=lambda file: file.stem)
def test_a_recipe_trains(file: Path, prepared: Prepared, tmp_path: Path) -> None:
    small = {"model": {"shape": {"width": 16, "layers": 2, "heads": 2}}, "batch_tokens": 128, "budget": "3 steps"}
    recipe = compose(file, small)
    assert recipe.text.corpus is not None
    config = dataclasses.replace(recipe.training, record=Record(held_out_tokens=64))
    assert train(config, prepared, tmp_path / "run", show=False).steps == 3


@pytest.mark.parametrize("file", RECIPES, ids=lambda file: file.stem)
def test_a_recipe_says_how_it_is_called(file: Path) -> None:
    assert f"bothways train --recipe recipes/{file.name} " in file.read_text(encoding="utf-8")
