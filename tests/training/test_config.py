from __future__ import annotations

from pathlib import Path

import pytest

from bothways.errors import BothwaysError
from bothways.training import TrainConfig, load, read
from bothways.training.recipe import Recipe, compose, setting


def test_a_config_reads_back_from_what_it_describes() -> None:
    config = TrainConfig(objective={"name": "masked", "rate": 0.3}, budget="2M tokens", betas=(0.8, 0.9), seed=3)
    assert read(TrainConfig, config.describe()) == config


def test_yaml_numbers_that_yaml_takes_for_text(tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text("matrix_rate: 3e-4\nz_loss: 1e-4\n")
    config = load(TrainConfig, file)
    assert config.matrix_rate == 3e-4 and config.z_loss == 1e-4


def test_all_mistakes_at_once_each_with_its_path(tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(
        "objectiv: masked\nmodel: {shape: {widht: 64, layers: two}, nrom: {}}\nbatch_tokens: no\n"
        "budget: 10 parsecs\nschedule: 3\ntext: {windw: 3}\n"
    )
    with pytest.raises(BothwaysError) as raised:
        load(Recipe, file)
    message = str(raised.value)
    assert raised.value.exit_code == 2 and str(file) in message
    for part in (
        "'objectiv' (did you mean 'objective'",
        "'model.shape.widht' (did you mean 'width'",
        "model.shape.layers is 'two'",
        "'model.nrom' (did you mean 'norm'",
        "batch_tokens is False",
        "parsecs",
        "schedule is 3",
        "'text.windw' (did you mean 'window'",
    ):
        assert part in message, part


def test_a_single_mistake_is_one_line() -> None:
    with pytest.raises(BothwaysError) as raised:
        read(TrainConfig, {"sed": 1})
    assert str(raised.value).startswith("unknown key 'sed' (did you mean 'seed'?") and "\n" not in str(raised.value)


def test_a_contradiction_in_the_network_is_found_by_the_same_reading() -> None:
    with pytest.raises(BothwaysError, match=r"shape\.width 65 .*shape\.heads 4"):
        read(TrainConfig, {"model": {"shape": {"width": 65}}})


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"batch_tokens": 0}, "batch_tokens"),
        ({"clip": -1.0}, "clip"),
        ({"seed": -1}, "seed"),
        ({"schedule": {"warmup": 0.7, "decay": 0.6}}, "schedule.warmup 0.7 and schedule.decay 0.6"),
        ({"averaging": {"kind": "ema", "decay": 1.5}}, "averaging.decay"),
        ({"record": {"curve": 1.0}}, "record.curve"),
        ({"optimizer": "sgd"}, "optimizer is 'sgd'"),
        ({"precision": "float16"}, "precision is 'float16'"),
    ],
)
def test_values_out_of_range(changes: dict[str, object], named: str) -> None:
    with pytest.raises(BothwaysError, match=named):
        read(TrainConfig, changes)


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"a: [1, 2", "line"),
        (b"- a\n- b\n", "list"),
        (b"\xff\xfe\x00", "byte 0"),
    ],
)
def test_a_file_that_is_no_recipe(tmp_path: Path, content: bytes, named: str) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_bytes(content)
    with pytest.raises(BothwaysError, match=named) as raised:
        load(Recipe, file)
    assert str(file) in str(raised.value)


def test_a_missing_recipe_names_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "masked.yaml").write_text("")
    with pytest.raises(BothwaysError, match=r"did you mean 'masked\.yaml'"):
        load(Recipe, tmp_path / "maskd.yaml")
    with pytest.raises(BothwaysError, match="folder"):
        load(Recipe, tmp_path)


def test_layers_of_a_recipe(tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text("objective: {name: masked, rate: 0.3}\nmodel: {shape: {width: 64}}\nbatch_tokens: 512\n")
    recipe = compose(
        file,
        {"batch_tokens": 1024},
        settings=["model.shape.layers=3", "text.corpus=notes/"],
        under={"batch_tokens": 1, "model": {"shape": {"width": 1, "heads": 2}}},
    )
    assert (recipe.batch_tokens, recipe.model.shape.width, recipe.model.shape.heads) == (1024, 64, 2)
    assert recipe.model.shape.layers == 3 and recipe.text.corpus == "notes/"
    assert recipe.training == TrainConfig(
        objective={"name": "masked", "rate": 0.3}, model=recipe.model, batch_tokens=1024
    )


def test_settings() -> None:
    assert setting("model.dropout=0.1") == {"model": {"dropout": 0.1}}
    for wrong in ("model.dropout", "=3", "a..b=3"):
        with pytest.raises(BothwaysError, match="key=value"):
            setting(wrong)
