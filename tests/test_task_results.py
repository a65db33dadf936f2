"""The driver of docs/results.md on two tiny recipes: what is done is not done again, what fails stops nothing."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
import torch
from tests.evaluation.small import small
from tests.tasks.test_tasks import labelled, sentences

from bothways.families import folder as models

FILE = Path(__file__).parents[1] / "docs" / "task_results.py"


@pytest.fixture(scope="module")
def driver():
    spec = importlib.util.spec_from_file_location("task_results", FILE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    import sys

    sys.modules["task_results"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    """Recipes, data and a base."""
    desk = tmp_path_factory.mktemp("desk")
    (desk / "recipes").mkdir()
    (desk / "data").mkdir()
    (desk / "recipes" / "animals.yaml").write_text("task: classify\ndata: a.jsonl\nkeep: 0.25\nevaluations: 1\n"
                                                   "steps: 3\nbatch: 8\n")
    (desk / "recipes" / "copied.yaml").write_text("task: rewrite\ndata: b.jsonl\ntest: b.jsonl\nsteps: 3\n")
    for name, pairs, keys in (("a", labelled(40), ("text", "label")), ("b", sentences(20), ("source", "target"))):
        lines = [json.dumps(dict(zip(keys, pair, strict=True))) for pair in pairs]
        (desk / "data" / f"{name}.jsonl").write_text("\n".join(lines))
    models.save(small("masked"), desk / "base")
    return desk


def test_runs_are_made_once_and_a_failing_one_is_listed(driver, desk, capsys, monkeypatch):
    call = ["--data", str(desk / "data"), "--recipes", str(desk / "recipes"), "--out", str(desk / "out"),
            "--base", f"scratch={desk / 'base'}", "--threads", "1"]
    # 1. everything, from a base that does not write
    assert driver.main([*call, "--", "--longest", "16"]) == 0
    printed = capsys.readouterr()
    animals, copied = printed.out.split("## ")[1:]
    assert animals.startswith("animals\n\n30 rows to learn from, 10 tested.")
    assert [line.split(" | ")[0] for line in sorted(animals.splitlines()) if line.startswith("| ")][:3] == [
        "| ---", "| TF-IDF, linear SVM", "| TF-IDF, logistic regression"]
    assert "| scratch | " in animals and "Not from" not in animals
    assert "| the source as it is | " in copied and "Not from scratch: a model trained by 'masked' fills" in copied
    task = json.loads((desk / "out" / "animals" / "scratch" / "task.json").read_text())
    assert task["report"]["tuning"]["longest"] == 16 and task["report"]["tuning"]["learning_rate"] == 1e-3
    assert not list((desk / "out" / "animals").glob("*/*.safetensors"))
    # 2. nothing is repeated but what failed, and the table is the same
    again: list[str] = []
    monkeypatch.setattr(driver, "_tune", lambda recipe, base, folder, given: again.append(str(folder)))
    monkeypatch.setattr(driver, "_baselines", lambda recipe, folder: again.append(str(folder)))
    assert driver.main([*call, "--only", "animals"]) == 0 and again == []
    assert capsys.readouterr().out == f"## {animals}"
    assert driver.main(call) == 0
    assert again == [str(desk / "out" / "copied" / "scratch")]
    # 3. from scratch are other weights of the same network
    drawn, base = (models.load(folder).network.state_dict() for folder in (desk / "out" / "bases" / "scratch",
                                                                           desk / "base"))
    assert drawn.keys() == base.keys() and not torch.equal(drawn["embedding.weight"], base["embedding.weight"])


def test_a_run_that_another_process_makes_is_left_to_it(driver, desk, tmp_path, capsys):
    from bothways.study.locks import only_one

    recipe = driver.Recipe("animals", desk, None, ())
    with only_one(tmp_path / "locks" / "animals-x", "run"):
        driver._once(tmp_path, recipe, "x", lambda folder: pytest.fail("it is taken"))
    assert "being worked on by another process" in capsys.readouterr().err


def test_an_unknown_recipe_is_named(driver, desk, capsys):
    call = ["--data", str(desk / "data"), "--recipes", str(desk / "recipes"), "--out", str(desk / "out")]
    assert driver.main([*call, "--only", "animal"]) == 2 and "did you mean 'animals'" in capsys.readouterr().err


def test_tables_are_put_between_their_marks(driver, tmp_path):
    page = tmp_path / "page.md"
    page.write_text("a\n<!-- table x -->\nold\n<!-- end -->\nb\n<!-- table y -->\n<!-- end -->\n")
    driver.put(page, {"x": "new\n"})
    driver.put(page, {"x": "newer\n", "y": "other\n"})
    assert page.read_text() == ("a\n<!-- table x -->\n\nnewer\n\n<!-- end -->\nb\n<!-- table y -->\n\nother\n\n"
                                "<!-- end -->\n")
    with pytest.raises(driver.BothwaysError, match="no '<!-- table z -->'"):
        driver.put(page, {"x": "lost", "z": "new"})
    assert "newer" in page.read_text()


def test_a_recipe_without_runs_keeps_the_table_it_has(driver, desk, tmp_path):
    page = tmp_path / "page.md"
    page.write_text("<!-- table animals -->\nold\n<!-- end -->\n<!-- table copied -->\nolder\n<!-- end -->\n")
    call = ["--data", str(desk / "data"), "--recipes", str(desk / "recipes"), "--out", str(tmp_path / "out"),
            "--tables", "--into", str(page)]
    assert driver.main(call) == 0 and "old" in page.read_text() and "older" in page.read_text()
    recipe = driver.Recipe.read(desk / "recipes" / "animals.yaml", desk / "data", tmp_path)
    driver._once(tmp_path / "out", recipe, "baselines", lambda folder: driver._baselines(recipe, folder))
    assert driver.main(call) == 0
    found = page.read_text()
    assert "old\n" not in found and "| TF-IDF, naive Bayes |" in found and "older" in found


def test_every_recipe_has_its_place_on_the_page(driver):
    page = (driver.ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    assert [file.stem for file in driver.RECIPES.glob("*.yaml")
            if f"<!-- table {file.stem} -->\n" not in page or f"tasks/{file.name}" not in page] == []
