"""Every training recipe is read strictly, and trains."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from tests.training.small import prepare_small

from bothways.text.prepare import Prepared, prepare
from bothways.text.tokenizer import TokenizerConfig
from bothways.training import Record, train
from bothways.training.recipe import compose

ROOT = Path(__file__).parents[1]
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return prepare_small(tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="module")
def turns(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """Bytes of short questions and answers, for what learns answers."""
    folder = tmp_path_factory.mktemp("turns")
    rows = [{"instruction": f"{i} and {i}?", "response": str(2 * i)} for i in range(60)]
    (folder / "turns.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return prepare(folder / "turns.jsonl", folder / "text", tokenizer=TokenizerConfig("bytes"), window=32, cut="turns")


def test_there_is_one_for_every_objective() -> None:
    from bothways import objectives

    names = {compose(file).objective for file in RECIPES if isinstance(compose(file).objective, str)}
    names |= {file["name"] for file in (compose(file).objective for file in RECIPES) if isinstance(file, dict)}
    assert names == set(objectives.known())


@pytest.mark.parametrize("file", RECIPES, ids=lambda file: file.stem)
def test_a_recipe_trains(file: Path, prepared: Prepared, turns: Prepared, tmp_path: Path) -> None:
    small = {"model": {"shape": {"width": 16, "layers": 2, "heads": 2}}, "batch_tokens": 128, "budget": "3 steps"}
    recipe = compose(file, small)
    assert recipe.text.corpus is not None
    config = dataclasses.replace(recipe.training, record=Record(held_out_tokens=64))
    text = turns if recipe.text.cut == "turns" else prepared
    assert train(config, text, tmp_path / "run", show=False).steps == 3


@pytest.mark.parametrize("file", RECIPES, ids=lambda file: file.stem)
def test_a_recipe_says_how_it_is_called(file: Path) -> None:
    assert f"bothways train --recipe recipes/{file.name} " in file.read_text(encoding="utf-8")
