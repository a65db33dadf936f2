"""A folder appears whole or not at all, and whatever is wrong with one is said in one sentence."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tokenizers
import torch
from safetensors.torch import load_file, save_file
from tests.evaluation.small import small

from bothways import objectives
from bothways.batch import Companion
from bothways.errors import BothwaysError
from bothways.families import folder as folders
from bothways.families import settings
from bothways.families.folder import Trained, load, save
from bothways.model import FeedForward, LanguageModel, ModelConfig, Norm, Position, Shape
from bothways.objectives import make
from bothways.text.tokenizer import Tokenizer

TOKENIZER = Tokenizer.train(["the cat sat on the mat"], kind="bytes", size=300)
V = TOKENIZER.vocabulary.size


@pytest.fixture
def trained() -> Trained:
    torch.manual_seed(0)
    network = LanguageModel(ModelConfig(Shape(V, 16, 2, 0, 2)))
    return Trained(network.eval(), objectives.make("masked(rate=0.3)", TOKENIZER.vocabulary), TOKENIZER, {"tokens": 12})


@pytest.fixture
def folder(trained: Trained, tmp_path: Path) -> Path:
    return save(trained, tmp_path / "model")


def change(folder: Path, **entries: object) -> None:
    stored = json.loads((folder / "config.json").read_text())
    stored["bothways"].update(entries)
    (folder / "config.json").write_text(json.dumps(stored))


def test_everything_comes_back(trained: Trained, folder: Path) -> None:
    again = load(folder)
    assert again.config == trained.config
    assert again.objective.describe() == trained.objective.describe()
    assert again.objective.modes == trained.objective.modes
    assert again.tokenizer.fingerprint == trained.tokenizer.fingerprint
    assert again.report == {"tokens": 12}
    for name, weight in trained.network.state_dict().items():
        assert torch.equal(weight, again.network.state_dict()[name])
    assert not again.network.training


def test_an_older_folder_is_replaced_and_nothing_is_left_beside_it(trained: Trained, folder: Path) -> None:
    (folder / "leftover").write_text("old")
    save(trained, folder)
    assert [path.name for path in folder.parent.iterdir()] == ["model"]
    assert not (folder / "leftover").exists()


def test_a_full_disk_leaves_the_older_folder(trained: Trained, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = (folder / "config.json").read_bytes()

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(folders, "_save_weights", full)
    with pytest.raises(BothwaysError, match="could not be written: No space left on device") as caught:
        save(trained, folder)
    assert caught.value.exit_code == 1
    assert [path.name for path in folder.parent.iterdir()] == ["model"]
    assert (folder / "config.json").read_bytes() == before


def test_split_projections_are_written_fused(trained: Trained, folder: Path, tmp_path: Path) -> None:
    trained.network.split_projections()
    save(trained, tmp_path / "split")
    assert (tmp_path / "split" / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()


def test_another_dtype_and_another_layout(trained: Trained, tmp_path: Path) -> None:
    save(trained, tmp_path / "small", layout="bothways", dtype=torch.bfloat16)
    stored = load_file(tmp_path / "small" / "model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.bfloat16}
    assert "tower.blocks.0.attention.qkv.weight" in stored
    assert load(tmp_path / "small").dtype == torch.bfloat16
    assert load(tmp_path / "small", dtype=torch.float32).dtype == torch.float32
    save(trained, tmp_path / "llama", layout="llama")
    assert json.loads((tmp_path / "llama" / "config.json").read_text())["architectures"] == ["LlamaForCausalLM"]
    assert "its logits there are not those it was trained for" in (tmp_path / "llama" / "README.md").read_text()
    with pytest.raises(
        BothwaysError, match=r"cannot be written as T5ForConditionalGeneration: .*source_layers is 0"
    ):
        save(trained, tmp_path / "t5", layout="t5")
    with pytest.raises(BothwaysError, match=r"the family 'lama', .*did you mean 'llama'"):
        save(trained, tmp_path / "t5", layout="lama")


def test_rope_is_spelled_both_ways(folder: Path) -> None:
    stored = json.loads((folder / "config.json").read_text())
    assert stored["rope_theta"] == stored["rope_parameters"]["rope_theta"] == 10000.0
    assert stored["torch_dtype"] == stored["dtype"] == "float32"
    assert (stored["pad_token_id"], stored["bos_token_id"], stored["eos_token_id"], stored["mask_token_id"]) == (
        0,
        1,
        2,
        6,
    )


def test_another_version_is_refused(folder: Path) -> None:
    change(folder, format=99)
    with pytest.raises(BothwaysError, match=r"config.json is of format version 99, but this bothways reads version 1"):
        load(folder)


def test_a_truncated_file_is_refused(folder: Path) -> None:
    raw = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(raw[: len(raw) // 2])
    with pytest.raises(BothwaysError, match=r"model.safetensors is truncated"):
        load(folder)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(BothwaysError, match=name.split(".")[0]):
        load(folder)


def test_a_runs_folder_stands_for_its_model(folder: Path) -> None:
    (folder.parent / "config.json").write_text("{}")
    assert load(folder.parent).objective.name == "masked"


def test_no_folder_at_all(tmp_path: Path) -> None:
    with pytest.raises(BothwaysError, match=r"nowhere/config.json does not exist"):
        load(tmp_path / "nowhere")


def test_missing_and_unknown_weights_stand_in_one_sentence(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights["model.layers.7.extra"] = weights.pop("model.norm.weight")
    del weights["model.layers.0.self_attn.k_proj.weight"]
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(BothwaysError) as caught:
        load(folder)
    assert str(caught.value).endswith(
        "does not fit config.json: it lacks model.layers.0.self_attn.k_proj.weight, "
        "model.norm.weight and holds the unknown model.layers.7.extra"
    )


@pytest.mark.parametrize(
    ("name", "shape", "wanted"),
    [
        ("model.layers.1.self_attn.v_proj.weight", (8, 16), r"\(8, 16\), but config.json asks for \(16, 16\)"),
        ("model.norm.weight", (17,), r"\(17,\), but config.json asks for \(16,\)"),
    ],
)
def test_a_wrong_shape_is_named_with_both_shapes(folder: Path, name: str, shape: tuple[int, ...], wanted: str) -> None:
    weights = load_file(folder / "model.safetensors")
    weights[name] = torch.zeros(shape)
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(BothwaysError, match=f"{name} has shape {wanted}"):
        load(folder)


def test_unknown_choices_are_all_named(folder: Path) -> None:
    model = json.loads((folder / "config.json").read_text())["bothways"]["model"]
    change(folder, model={**model, "tyed": True, "shape": {**model["shape"], "widht": 3}})
    with pytest.raises(BothwaysError, match=r"'tyed' \(did you mean 'tied'.*'shape.widht' \(did you mean 'width'"):
        load(folder)


def test_an_unknown_family_is_refused(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps({"model_type": "gpt9"}))
    with pytest.raises(BothwaysError, match=r"names the family 'gpt9', which is not known here"):
        load(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(BothwaysError, match=r"config.json is not JSON"):
        load(folder)


@pytest.mark.parametrize(
    ("entry", "value", "what"),
    [
        ("hidden_size", "wide", "hidden_size 'wide', which is of another kind than LlamaForCausalLM takes"),
        ("num_hidden_layers", [2], r"num_hidden_layers \[2\], which is of another kind"),
        ("rms_norm_eps", {"a": 1}, "rms_norm_eps {'a': 1}, which is of another kind"),
        ("rope_parameters", [1], r"rope_parameters \[1\], which is of another kind"),
        ("hidden_size", float("inf"), "cannot convert float infinity to integer"),
        ("hidden_size", 32.5, r"config.json has hidden_size 32.5, but LlamaForCausalLM takes a whole number there"),
        ("rope_parameters", {"rope_type": "yarn", "rope_theta": 500.0, "factor": 4.0,
                             "original_max_position_embeddings": 16.5},
         r"rope_parameters.original_max_position_embeddings 16.5, but LlamaForCausalLM takes a whole number there"),
        ("model_type", None, 'does not say of which family the model is: write its name there, such as "model_type"'),
        ("num_attention_heads", 0, "another kind|heads"),
        ("num_hidden_layers", 10**9, "shape.layers is 1,000,000,000, but must be at most 10,000"),
        ("rms_norm_eps", float("nan"), "norm.epsilon is nan, but must be a number that ends"),
        ("model_type", ["llama"], "which is not known here"),
    ],
)
def test_entries_of_another_kind(trained: Trained, tmp_path: Path, entry: str, value: object, what: str) -> None:
    folder = save(trained, tmp_path / "model", layout="llama")
    stored = json.loads((folder / "config.json").read_text())
    del stored["bothways"]
    (folder / "config.json").write_text(json.dumps({**stored, entry: value}))
    with pytest.raises(BothwaysError, match=what):
        load(folder)


def test_an_endless_base_of_places(trained: Trained, tmp_path: Path) -> None:
    folder = save(trained, tmp_path / "model", layout="llama")
    stored = json.loads((folder / "config.json").read_text())
    del stored["bothways"]
    for base, why in ((float("nan"), "must be a number that ends"), (-1.0, "must be above 0")):
        plain = {**stored, "rope_theta": base, "rope_parameters": None}
        (folder / "config.json").write_text(json.dumps(plain))
        with pytest.raises(BothwaysError, match=f"position.base is {base}, but {why}"):
            load(folder)


@pytest.mark.parametrize(
    ("path", "value", "what"),
    [
        ("shape.vocabulary", "x", "'shape.vocabulary' is \"x\", not a whole number"),
        ("shape.width", True, "'shape.width' is true, not a whole number"),
        ("shape.key_heads", 1.5, "'shape.key_heads' is 1.5, not a whole number or null"),
        ("shape", [1, 2], r"'shape' is \[1, 2\], not a group of choices"),
        ("shape", None, "'shape' is null, not a group of choices"),
        ("norm.epsilon", "small", "'norm.epsilon' is \"small\", not a number"),
        ("norm.kind", ["rms"], r"'norm.kind' is \[.rms.\], not 'rms' or 'layer'"),
        ("norm.query_key", 1, "'norm.query_key' is 1, not true or false or 'turned'"),
        ("bias", [1], r"'bias' is \[1\], not true or false or a list of which each is a text"),
        ("position.scaling", {"kind": "linear", "factor": "2"}, "'position.scaling.factor' is \"2\", not a number"),
        ("companions", {"name": "segment"}, "'companions' is .*not a list of which each is a group of choices"),
        ("companions", [{"name": "x", "kind": "x", "size": "2"}], r"'companions\[\].size' is \"2\", not a whole"),
        ("companions", [{"kind": "x"}], r"'companions\[\].name' is missing"),
        ("tied", None, "'tied' is null, not true or false"),
    ],
)
def test_choices_of_another_kind(folder: Path, path: str, value: object, what: str) -> None:
    stored = json.loads((folder / "config.json").read_text())
    *groups, name = path.split(".")
    place = stored["bothways"]["model"]
    for group in groups:
        place = place[group]
    place[name] = value
    (folder / "config.json").write_text(json.dumps(stored))
    with pytest.raises(BothwaysError, match=f"config.json describes the network with values .*{what}"):
        load(folder)


def test_sizes_beyond_all_tensors(folder: Path) -> None:
    stored = json.loads((folder / "config.json").read_text())
    stored["bothways"]["model"]["shape"] |= {"width": 10**9, "heads": 1}
    (folder / "config.json").write_text(json.dumps(stored))
    with pytest.raises(BothwaysError, match="a network of these sizes cannot be built"):
        load(folder)


def test_a_tokenizer_of_another_network(trained: Trained, tmp_path: Path) -> None:
    folder = save(trained, tmp_path / "model", layout="llama")
    stored = json.loads((folder / "config.json").read_text())
    del stored["bothways"]
    (folder / "config.json").write_text(json.dumps(stored))
    core = tokenizers.Tokenizer(tokenizers.models.WordLevel({f"w{i}": i for i in range(V)}, unk_token="w0"))
    core.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    # a special token beyond the network's is one that texts may not hold
    core.add_special_tokens(["<image>"])
    core.save(str(folder / "tokenizer.json"))
    tokenizer = load(folder).tokenizer
    assert tokenizer.encode("w3 w1") == [3, 1]
    with pytest.raises(BothwaysError, match="the text holds '<image>', but the network knows no such token"):
        tokenizer.encode("w3 <image>")
    # one of plain text says that the tokenizer is another's
    core.add_tokens(["more"])
    core.save(str(folder / "tokenizer.json"))
    with pytest.raises(BothwaysError, match=f"the tokenizer gives 'more' the id {V + 1}, but the network has only {V}"):
        load(folder)


def test_an_objective_for_another_stack_is_refused(folder: Path) -> None:
    change(folder, objective={"name": "denoising"})
    with pytest.raises(BothwaysError, match="describes one tower, but the objective 'denoising' is for two towers"):
        load(folder)


@pytest.mark.parametrize(
    "config",
    [
        ModelConfig(),
        ModelConfig(
            Shape(99, 30, 2, 3, 5, 1, 6, 7),
            Position("relative", 300.0, 5, 8, 50),
            Norm("layer", "after", 1e-3),
            FeedForward("plain", "relu"),
            reach="LGC",
            local=3,
            chunk=5,
            bias=True,
            tied=False,
            dropout=0.1,
            scale=1.0,
            embedding_scale=2.0,
            companions=(Companion("order", "classes", 2),),
        ),
    ],
)
def test_a_config_survives_json(config: ModelConfig) -> None:
    assert settings.from_data(json.loads(json.dumps(settings.to_data(config))), "here") == config


OWN = """
from dataclasses import dataclass
from pathlib import Path
from bothways.objectives.next_token import NextToken

Path(__file__).with_name("it ran").touch()

@dataclass(frozen=True)
class Mine(NextToken):
    name = "mine"
"""


@pytest.mark.parametrize("mixed", [False, True])
def test_a_folder_runs_no_file_that_its_user_has_not_named(mixed: bool, tmp_path: Path,
                                                           monkeypatch: pytest.MonkeyPatch) -> None:
    trained = small("causal")
    folders.save(trained, tmp_path / "model")
    mine = tmp_path / "mine.py"
    mine.write_text(OWN)
    file = tmp_path / "model/config.json"
    told = json.loads(file.read_text())
    named = {"name": f"{mine}:Mine"}
    told["bothways"]["objective"] = named if not mixed else {
        "name": "mixture", "members": [{**named, "share": 1.0}, {"name": "masked-next", "share": 1.0}]}
    file.write_text(json.dumps(told))
    with pytest.raises(BothwaysError, match=r"names an objective in a file of its own.*set BOTHWAYS_TRUST="):
        folders.load(tmp_path / "model")
    assert not (tmp_path / "it ran").exists()
    monkeypatch.setenv("BOTHWAYS_TRUST", str(mine))
    assert folders.load(tmp_path / "model")
    assert (tmp_path / "it ran").exists()
    # whoever makes it by name has named it
    monkeypatch.delenv("BOTHWAYS_TRUST")
    make(f"{mine}:Mine", trained.vocabulary)
    assert folders.load(tmp_path / "model")
