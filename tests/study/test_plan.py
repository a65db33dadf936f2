"""A plan is data: the same call finds it again, another one is refused, and mistakes are one sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from bothways.cli.compare import Options, study_of
from bothways.errors import BothwaysError
from bothways.pictures.curves import PALETTE
from bothways.study import plan as plans
from bothways.study import sizes
from bothways.study.contenders import CONTENDERS, colour, contender, is_contender, slug, split, title
from bothways.study.describe import plan_lines
from bothways.study.plan import Job, Plan, Source, Study
from bothways.study.recipes import DEMO, known_budget, read

RECIPES = sorted((Path(__file__).parents[2] / "recipes" / "studies").glob("*.yaml"))


def test_a_plan_survives_its_file(tmp_path):
    plan = plans.make(DEMO)
    assert plans.open_folder(tmp_path / "new", plan) == plan
    assert plans.load(tmp_path / "new") == plan
    assert plans.open_folder(tmp_path / "new", plan) == plan


def test_another_study_in_the_folder_is_refused_by_name(tmp_path):
    plans.open_folder(tmp_path, plans.make(Study(sources=(Source(budget="10min"),))))
    with pytest.raises(BothwaysError, match="budget 10min there, 4min here"):
        plans.open_folder(tmp_path, plans.make(Study(sources=(Source(budget="4min"),))))


def test_a_folder_of_other_files_is_refused(tmp_path):
    (tmp_path / "letters.txt").write_text("dear")
    with pytest.raises(BothwaysError, match="holds other files and no study"):
        plans.open_folder(tmp_path, plans.make(DEMO))


def test_another_share_of_the_machine_is_no_other_study(tmp_path):
    plans.open_folder(tmp_path, plans.make(Study(workers=1, threads=2)))
    again = plans.open_folder(tmp_path, plans.make(Study(workers=2, threads=1)))
    assert (again.study.workers, again.study.threads) == (2, 1)


def test_a_study_of_another_version_is_refused(tmp_path):
    plans.write_json(tmp_path / "study.json", {"format": 99})
    with pytest.raises(BothwaysError, match="another version"):
        plans.load(tmp_path)


@pytest.mark.parametrize(("study", "sentence"), [
    (Study(contenders=("causal", "maskd")), "did you mean 'masked'"),
    (Study(sources=(Source(seeds=0),)), "--seeds is 0"),
    (Study(sources=(Source(budget="soon"),)), "budget 'soon' cannot be read"),
    (Study(sources=(Source(labels="nowhere.csv"),)), "--labels names 'nowhere.csv', which is not a file"),
    (Study(sizes={"text": {"widht": 64}}), "did you mean 'width'"),
    (Study(workers=-1), "--workers"),
])
def test_mistakes_are_one_sentence(study, sentence):
    with pytest.raises(BothwaysError, match=sentence):
        plans.make(study)


def test_jobs_are_seed_by_seed_and_controls_once():
    names = [job.name for job in plans.make(Study(sources=(Source(seeds=2),), contenders=("causal", "masked"))).jobs()]
    assert names == ["text/controls-seed0", "text/causal-seed0", "text/masked-seed0", "text/untrained-seed0",
                     "text/causal-seed1", "text/masked-seed1", "text/untrained-seed1"]


def test_two_towers_share_the_blocks_of_one():
    for row in (*sizes.TEXT, *sizes.KNOWN):
        for who in CONTENDERS.values():
            shape = plans.model_config(row, 500, who).shape
            assert shape.layers + shape.source_layers == row.layers
            assert (shape.source_layers > 0) == (who.stack == "two towers")
            assert shape.width == row.width


def test_larger_budgets_take_larger_networks():
    parameters = [row.width ** 2 * row.layers for row in sizes.TEXT]
    assert parameters == sorted(parameters)
    assert [row.until for row in sizes.TEXT] == sorted(row.until for row in sizes.TEXT)
    assert sizes.choose("text", 1e30) == sizes.TEXT[-1]


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_every_shipped_study_can_be_planned(recipe, tmp_path):
    study, _ = study_of(Options(recipe=recipe))
    plan = plans.make(study)
    assert Plan.from_dict(plan.to_dict()) == plan
    assert plan_lines(plan, tmp_path)


def test_the_demo_and_its_recipe_are_the_same():
    assert read(RECIPES[[path.stem for path in RECIPES].index("demo")]) == DEMO


def test_all_wrong_keys_of_a_recipe_at_once(tmp_path):
    file = tmp_path / "wrong.yaml"
    file.write_text("contendrs: [causal]\nworkrs: 2\n")
    with pytest.raises(BothwaysError) as raised:
        read(file)
    assert "did you mean 'contenders'" in str(raised.value)
    assert "did you mean 'workers'" in str(raised.value)


def test_options_that_contradict_each_other_are_refused():
    with pytest.raises(BothwaysError, match="--recipe says everything"):
        study_of(Options(recipe=RECIPES[0], budget="1min"))
    with pytest.raises(BothwaysError, match="--demo has a budget"):
        study_of(Options(demo=True, seeds=5))


def test_the_known_source_gets_no_more_than_it_needs():
    assert known_budget("20s") == "20s"
    assert known_budget("10min") == "30 seconds"
    assert known_budget("1e15 flops") == "2500000000000 flops"


def test_the_machine_is_shared_out():
    assert plans.share(3, 2, "cpu") == (3, 2)
    workers, threads = plans.share(0, 0, "cpu")
    assert workers >= 1
    assert threads >= 1
    assert plans.share(0, 4, "cuda") == (1, 4)


def test_any_objective_may_compete():
    named = split("causal, masked(rate=0.15, replace='all'), 0.5 next-token + 0.5 masked-next ,causal")
    assert named == ("causal", "masked(rate=0.15, replace='all')", "0.5 next-token + 0.5 masked-next")
    who = contender(named[1])
    assert who.objective["rate"] == 0.15
    assert who.stack == "one tower"
    assert contender("span-corruption").stack == "two towers"
    assert title(named[1]) == named[1]
    assert colour(named[1]) in PALETTE
    assert is_contender(named[2])
    assert not is_contender("tfidf-svm")
    # a folder's name that any file system takes, and that tells two contenders apart
    folders = {Job("known", key, 0).name for key in named}
    assert len(folders) == 3
    assert all(set(folder) <= set("abcdefghijklmnopqrstuvwxyz0123456789/._=-") for folder in folders)
    assert slug("causal") == "causal"
    assert slug("masked(rate=0.1)") != slug("masked[rate=0.1]")


def test_what_is_neither_a_contender_nor_an_objective_is_refused():
    with pytest.raises(BothwaysError, match="causal"):
        plans.make(Study(contenders=("cusal",)))
    with pytest.raises(BothwaysError, match="rate"):
        plans.make(Study(contenders=("masked(rte=0.1)",)))
