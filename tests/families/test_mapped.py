"""Large tensors stay in their file: the same numbers as when they are read, written to without touching the file."""

from __future__ import annotations

import gc
import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from bothways import objectives
from bothways.batch import Example
from bothways.errors import BothwaysError
from bothways.families import mapped as module
from bothways.families.folder import Trained, load, save
from bothways.families.mapped import mapped
from bothways.families.stored import Stored, safetensors_of
from bothways.model import LanguageModel, ModelConfig, Shape
from bothways.text.tokenizer import Tokenizer
from bothways.visibility import causal

pytestmark = pytest.mark.skipif(module._placing() is None, reason="this system has no such maps")
TOKENIZER = Tokenizer.train(["the cat sat on the mat"], kind="bytes", size=300)
CONFIG = ModelConfig(Shape(TOKENIZER.vocabulary.size, 64, 2, 0, 4, 2))
IDS = torch.arange(20) + 10


def all_sizes(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(module, "SMALLEST", 1)
    patch.setattr(module, "ALIGNED", {})


def written(folder: Path, dtype: torch.dtype = torch.float32) -> Path:
    torch.manual_seed(0)
    network = LanguageModel(CONFIG).eval()
    return save(Trained(network, objectives.make("next-token", TOKENIZER.vocabulary), TOKENIZER), folder, dtype=dtype)


def from_file(parameter: Tensor) -> bool:
    """Whether a tensor's first number lies in a page that belongs to a weights file."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        begin, end = (int(bound, 16) for bound in line.split()[0].split("-"))
        if begin <= parameter.data_ptr() < end:
            return "model" in line
    return False


@pytest.mark.parametrize("sizes", [(100_000,), (40_960, 8_192), (8_192, 40_960, 4_096), (3, 4_093, 50_000),
                                   (100, 100, 3_896, 9_000)])
@pytest.mark.parametrize("lead", [0, 8, 4_090])
def test_pieces_at_the_same_place_within_a_page_need_no_copy(tmp_path: Path, sizes: tuple[int, ...], lead: int,
                                                              monkeypatch: pytest.MonkeyPatch) -> None:
    all_sizes(monkeypatch)
    file, generator = tmp_path / "bytes", torch.Generator().manual_seed(1)
    content = torch.randint(0, 256, (300_000,), generator=generator).to(torch.uint8)
    file.write_bytes(content.numpy().tobytes())
    pieces, at = [], lead
    for i, size in enumerate(sizes):
        offset = at % 4096 + (60_000 * (len(sizes) - i) // 4096) * 4096  # in the file they lie the other way round
        pieces.append(Stored(file, (size,), torch.uint8, offset, size))
        at += size
    expected = torch.cat([content[piece.offset:piece.offset + piece.size] for piece in pieces])
    found = mapped(pieces, (sum(sizes),), torch.uint8)
    assert found is not None and torch.equal(found, expected)
    found.mul_(2)
    assert torch.equal(found, expected * 2) and file.read_bytes() == content.numpy().tobytes()


def test_what_cannot_be_mapped_is_left_to_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "model.safetensors"
    save_file({"a": torch.ones(1024, 1024), "b": torch.ones(7), "c": torch.ones(1024, 1024)}, file)
    stored = safetensors_of(file)
    a, b, c = (stored[name] for name in "abc")
    monkeypatch.setattr(module, "ALIGNED", {})
    assert mapped([a], (1024, 1024), torch.float32) is not None
    assert mapped([a], (1024, 1024), torch.bfloat16) is None
    assert mapped([b], (7,), torch.float32) is None
    assert mapped([a, c], (2048, 1024), torch.float32) is None  # 28 bytes between them move the second within its page
    assert mapped([], (0,), torch.float32) is None
    assert mapped([Stored(file, (1 << 20,), torch.float32, 8, 1 << 22, stride=(1,))], (1 << 20,), torch.float32) is None
    beyond = Stored(file, (1 << 22,), torch.float32, 8, 1 << 24)
    assert mapped([beyond], (1 << 22,), torch.float32) is None
    monkeypatch.setattr(module, "ALIGNED", {torch.float32: 16})
    for offset in (8, 16):
        found = mapped([Stored(file, (1 << 20,), torch.float32, offset, 1 << 22)], (1 << 20,), torch.float32)
        assert (found is None) == (offset == 8)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_mapped_network_is_the_one_that_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                   dtype: torch.dtype) -> None:
    folder = written(tmp_path / "model", dtype)
    read = load(folder).network
    assert not any(from_file(one) for one in read.parameters())
    all_sizes(monkeypatch)
    network = load(folder).network
    assert list(network.state_dict()) == list(read.state_dict())
    assert all(torch.equal(one, read.state_dict()[name]) for name, one in network.state_dict().items())
    block = network.tower.blocks[0]
    # q, k and v lie in the order k, o, q, v in the file, up and gate in the order gate, up: still no copy
    assert all(from_file(one.weight) for one in (block.attention.qkv, block.feed_forward.up_gate, network.embedding))
    with torch.no_grad():
        one, other = (net.logits(net(Example(IDS, causal)).states) for net in (network, read))
    torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)
    half = load(folder, dtype=torch.float16).network
    assert all(torch.equal(one, read.state_dict()[name].half()) for name, one in half.state_dict().items())


def test_it_trains_on_and_is_saved_over_the_folder_it_came_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch
                                                                 ) -> None:
    all_sizes(monkeypatch)
    folder = written(tmp_path / "model")
    before = (folder / "model.safetensors").read_bytes()
    trained = load(folder)
    network = trained.network.train()
    optimiser = torch.optim.AdamW(network.parameters(), lr=0.01)
    losses = []
    for _ in range(3):
        optimiser.zero_grad()
        logits = network.logits(network(Example(IDS, causal)).states)
        loss = torch.nn.functional.cross_entropy(logits[:-1], IDS[1:])
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[2] < losses[0]
    assert (folder / "model.safetensors").read_bytes() == before
    # some pages are the file's still, some the process's own: the folder is replaced under both
    with torch.no_grad():
        expected = {name: one.clone() for name, one in network.state_dict().items()}
    save(trained, folder)
    again = load(folder).network.state_dict()
    for name, one in expected.items():
        assert torch.equal(network.state_dict()[name], one) and torch.equal(again[name], one)


def test_a_tensor_outlives_its_file_and_gives_its_addresses_back(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    content = {"a": torch.randn(512, 1024), "b": torch.randn(512, 1024)}
    save_file({name: one.bfloat16() for name, one in content.items()}, file)
    stored, opened = safetensors_of(file), len(os.listdir("/proc/self/fd"))
    found = mapped([stored["b"], stored["a"]], (1024, 1024), torch.bfloat16)
    assert found is not None and len(os.listdir("/proc/self/fd")) == opened
    file.unlink()
    part = found[600:]
    del found
    gc.collect()
    assert torch.equal(part, content["a"][88:].bfloat16())
    assert str(file) in Path("/proc/self/maps").read_text()
    del part
    gc.collect()
    assert str(file) not in Path("/proc/self/maps").read_text()


def test_a_file_that_was_cut_off_is_refused_in_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    all_sizes(monkeypatch)
    folder = written(tmp_path / "model")
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-4096])
    with pytest.raises(BothwaysError, match="truncated"):
        load(folder)


def test_shards_in_which_the_pieces_lie_apart_are_the_same_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch
                                                                    ) -> None:
    folder = written(tmp_path / "model")
    wanted = load(folder).network.state_dict()
    file = folder / "model.safetensors"
    stored = load_file(file)
    file.unlink()
    index = {}
    for i in range(3):
        names = sorted(stored)[i::3]
        save_file({name: stored[name] for name in names}, folder / f"model-{i}.safetensors")
        index |= dict.fromkeys(names, f"model-{i}.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    all_sizes(monkeypatch)
    found = load(folder).network.state_dict()
    assert all(torch.equal(found[name], one) for name, one in wanted.items())
