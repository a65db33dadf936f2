"""Weights go straight from a file to their place in the network: nothing is read twice, copied, or read in vain."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from bothways import objectives
from bothways.families import KNOWN
from bothways.families.folder import Trained, build, fill, load, save
from bothways.families.stored import Stored
from bothways.families.weights import open_weights
from bothways.model import LanguageModel, ModelConfig, Shape
from bothways.text.tokenizer import Tokenizer

TOKENIZER = Tokenizer.train(["the cat sat on the mat"], kind="bytes", size=300)
CONFIG = ModelConfig(Shape(TOKENIZER.vocabulary.size, 16, 2, 0, 4, 2))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    network = LanguageModel(CONFIG).eval()
    return save(Trained(network, objectives.make("next-token", TOKENIZER.vocabulary), TOKENIZER), tmp_path / "model")


def test_every_tensor_is_read_once_straight_to_its_place(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    original = Stored._bytes_into

    def counted(self: Stored, raw: object) -> None:
        read.append(self.offset)
        original(self, raw)  # type: ignore[arg-type]

    def copied(self: Stored) -> torch.Tensor:
        raise AssertionError("a tensor was read beside its place")

    monkeypatch.setattr(Stored, "_bytes_into", counted)
    monkeypatch.setattr(Stored, "read", copied)
    load(folder)
    assert len(read) == len(set(read)) == len(load_file(folder / "model.safetensors"))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_stays_half_unless_asked(folder: Path, dtype: torch.dtype) -> None:
    file = folder / "model.safetensors"
    stored = load_file(file)
    # norms in float32 beside halves: the network has one format, that of most of the numbers
    save_file({name: one if "norm" in name else one.to(dtype) for name, one in stored.items()}, file)
    assert {weight.dtype for weight in load(folder).network.parameters()} == {dtype}
    full = load(folder, dtype=torch.float32).network
    assert {weight.dtype for weight in full.parameters()} == {torch.float32}
    name = "model.layers.0.self_attn.o_proj.weight"
    assert torch.equal(full.state_dict()["tower.blocks.0.attention.out.weight"], stored[name].to(dtype).float())


def test_shards_and_torch_files_give_the_same_network(folder: Path) -> None:
    import json

    wanted, stored = load(folder).network.state_dict(), load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(stored, folder / "pytorch_model.bin")
    found = load(folder).network.state_dict()
    assert all(torch.equal(found[name], one) for name, one in wanted.items())
    (folder / "pytorch_model.bin").unlink()
    names = {f"model-{i}.safetensors": sorted(stored)[i::3] for i in range(3)}
    for file, chosen in names.items():
        save_file({name: stored[name] for name in chosen}, folder / file)
    index = {name: file for file, chosen in names.items() for name in chosen}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    found = load(folder).network.state_dict()
    assert all(torch.equal(found[name], one) for name, one in wanted.items())


def test_a_family_gathers_without_reading(folder: Path) -> None:
    weights = open_weights(folder)
    (folder / "model.safetensors").write_bytes(b"")
    joined = KNOWN["llama"].gather(weights, {}, CONFIG, "here")
    shape = CONFIG.shape
    rows = (shape.heads + 2 * (shape.key_heads or 0)) * CONFIG.head_size
    assert joined.shape("tower.blocks.0.attention.qkv.weight") == (rows, shape.width)  # type: ignore[attr-defined]


def test_what_modules_share_stays_shared() -> None:
    network = build(CONFIG)
    network.tower.blocks[1] = network.tower.blocks[0]
    weights = {name: torch.randn(one.shape) for name, one in network.state_dict().items()}
    weights.update({name: weights[name.replace("blocks.1.", "blocks.0.")] for name in weights})
    fill(network, weights, "here")
    first, second = (network.tower.blocks[i].attention.qkv.weight for i in range(2))
    assert first is second
    assert torch.equal(first, weights["tower.blocks.0.attention.qkv.weight"])


def test_plain_tensors_fill_a_network_too() -> None:
    network = LanguageModel(CONFIG)
    twin = build(CONFIG)
    fill(twin, network.state_dict(), "here")
    for name, one in network.state_dict().items():
        assert torch.equal(twin.state_dict()[name], one)
        assert twin.state_dict()[name].data_ptr() != one.data_ptr()
