"""Weights come out of every kind of file as they went in, and whatever is wrong with a file is said in one sentence."""

from __future__ import annotations

import json
import os
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from bothways.errors import BothwaysError
from bothways.families.weights import open_weights

TENSORS: dict[str, Tensor] = {
    "a.weight": torch.arange(12.0).reshape(3, 4),
    "b.weight": torch.randn(5, 2, generator=torch.Generator().manual_seed(0)).half(),
    "c": torch.tensor(3.5),
    "d": torch.tensor([[True, False]]),
    "e": torch.arange(7, dtype=torch.int64),
    "f": torch.zeros(0, 4),
    "g": torch.randn(6, generator=torch.Generator().manual_seed(1)).bfloat16(),
}


def sharded(folder: Path, tensors: dict[str, Tensor], kind: str) -> Path:
    """The tensors in two files and an index; returns the index."""
    names = sorted(tensors)
    halves = {f"part-{i}.{'bin' if kind == 'bin' else 'safetensors'}": names[i::2] for i in range(2)}
    for file, chosen in halves.items():
        write({name: tensors[name] for name in chosen}, folder / file, kind)
    index = folder / ("pytorch_model.bin.index.json" if kind == "bin" else "model.safetensors.index.json")
    index.write_text(json.dumps({"weight_map": {name: file for file, chosen in halves.items() for name in chosen}}))
    return index


def write(tensors: dict[str, Tensor], file: Path, kind: str) -> None:
    if kind == "safetensors":
        save_file(tensors, file)
    else:
        torch.save(OrderedDict(tensors), file, _use_new_zipfile_serialization=kind != "old bin")


def name_of(kind: str) -> str:
    return "model.safetensors" if kind == "safetensors" else "pytorch_model.bin"


def rename(index: Path, name: str, part: str) -> None:
    content = json.loads(index.read_text())
    content["weight_map"][name] = part
    index.write_text(json.dumps(content))


def same(found: Tensor, wanted: Tensor) -> bool:
    return found.dtype == wanted.dtype and torch.equal(found, wanted)


@pytest.mark.parametrize("kind", ["safetensors", "bin", "old bin"])
def test_one_file_gives_back_what_was_written(kind: str, tmp_path: Path) -> None:
    write(TENSORS, tmp_path / name_of(kind), kind)
    weights = open_weights(tmp_path)
    assert set(weights) == set(TENSORS)
    for name, tensor in TENSORS.items():
        assert weights.shape(name) == tuple(tensor.shape)
        assert same(weights[name], tensor), name
        target = torch.ones_like(tensor)
        weights.read_into(name, target)
        assert same(target, tensor), name
    assert weights.dtype == torch.float32


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_several_files_by_an_index(kind: str, tmp_path: Path) -> None:
    sharded(tmp_path, TENSORS, kind)
    weights = open_weights(tmp_path)
    assert set(weights) == set(TENSORS)
    assert all(same(weights[name], tensor) for name, tensor in TENSORS.items())


def test_reading_into_another_format_and_into_a_part(tmp_path: Path) -> None:
    save_file(TENSORS, tmp_path / "model.safetensors")
    weights = open_weights(tmp_path)
    whole = torch.full((6, 4), 9.0, dtype=torch.bfloat16)
    weights.read_into("a.weight", whole[1:4])
    assert torch.equal(whole[1:4].float(), TENSORS["a.weight"])
    assert bool((whole[:1] == 9).all()) and bool((whole[4:] == 9).all())
    columns = torch.zeros(3, 8)
    weights.read_into("a.weight", columns[:, ::2])
    assert torch.equal(columns[:, ::2], TENSORS["a.weight"])


def test_strided_shared_and_wrapped_tensors_of_torch(tmp_path: Path) -> None:
    base = torch.randn(4, 6)
    content = {"whole": base, "turned": base.t(), "rows": base[1:3], "columns": base[:, ::2],
               "wide": torch.ones(1).expand(3), "parameter": torch.nn.Parameter(base * 2)}
    torch.save(content, tmp_path / "pytorch_model.bin")
    weights = open_weights(tmp_path)
    for name, tensor in content.items():
        assert torch.equal(weights[name], tensor.detach()), name
        assert weights.stored[name].ready is None, "read at its place, not with the file as a whole"


@pytest.mark.parametrize("kind", ["bin", "old bin"])
def test_code_in_a_pickle_is_refused_and_not_run(kind: str, tmp_path: Path) -> None:
    trace = tmp_path / "it ran"

    class Malicious:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.system, (f"touch '{trace}'",)

    write({"a": torch.ones(2), "b": Malicious()}, tmp_path / "pytorch_model.bin", kind)  # type: ignore[dict-item]
    with pytest.raises(BothwaysError, match=r"pytorch_model.bin holds more than tensors, and nothing in it is run "
                                            r"\(.*posix.system"):
        open_weights(tmp_path)
    assert not trace.exists()
    # the file is not a dud: whoever unpickles it runs the code
    torch.load(tmp_path / "pytorch_model.bin", weights_only=False)
    assert trace.exists()


def test_safetensors_come_before_torch(tmp_path: Path) -> None:
    save_file({"a": torch.ones(1)}, tmp_path / "model.safetensors")
    torch.save({"a": torch.zeros(1)}, tmp_path / "pytorch_model.bin")
    assert float(open_weights(tmp_path)["a"]) == 1
    (tmp_path / "model.safetensors").unlink()
    assert float(open_weights(tmp_path)["a"]) == 0


def test_the_older_names_of_a_layer_norm(tmp_path: Path) -> None:
    save_file({"norm.gamma": torch.ones(1), "norm.beta": torch.zeros(1), "gamma": torch.ones(1),
               "both.gamma": torch.ones(1), "both.weight": torch.zeros(1), "gammas.x": torch.ones(1)},
              tmp_path / "model.safetensors")
    weights = open_weights(tmp_path)
    assert set(weights) == {"norm.weight", "norm.bias", "weight", "both.gamma", "both.weight", "gammas.x"}


@pytest.mark.parametrize("kind", ["safetensors", "bin", "old bin"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_truncated_files_are_refused(kind: str, share: float, tmp_path: Path) -> None:
    file = tmp_path / name_of(kind)
    write({**TENSORS, "h": torch.zeros(2000)}, file, kind)
    raw = file.read_bytes()
    file.write_bytes(raw[:int(share * len(raw))])
    with pytest.raises(BothwaysError, match=rf"{file.name} is truncated or not a (safetensors|torch) file"):
        open_weights(tmp_path)


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_garbage_is_refused(kind: str, tmp_path: Path) -> None:
    (tmp_path / name_of(kind)).write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n")
    with pytest.raises(BothwaysError, match="is truncated or not a"):
        open_weights(tmp_path)


def test_a_file_that_shrinks_after_it_was_opened(tmp_path: Path) -> None:
    save_file(TENSORS, tmp_path / "model.safetensors")
    weights = open_weights(tmp_path)
    os.truncate(tmp_path / "model.safetensors", (tmp_path / "model.safetensors").stat().st_size - 30)
    with pytest.raises(BothwaysError, match=r"it ends \d+ bytes early"):
        [weights[name] for name in weights]


def header(file: Path, entries: str, data: bytes) -> None:
    raw = entries.encode()
    file.write_bytes(len(raw).to_bytes(8, "little") + raw + data)


@pytest.mark.parametrize(
    "entries",
    [
        '{"a":{"dtype":"F32","shape":[2,2],"data_offsets":[0,0]}}',
        '{"a":{"dtype":"F32","shape":[0],"data_offsets":[0,16]}}',
        '{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]},"b":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}',
        '{"a":{"dtype":"F32","shape":[4],"data_offsets":[-16,0]}}',
        '{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"a":{"dtype":"F32","shape":[2],"data_offsets":[8,16]}}',
    ],
    ids=["no bytes for a shape", "bytes for no shape", "overlap", "before the data", "a name twice"],
)
def test_a_header_that_contradicts_itself(entries: str, tmp_path: Path) -> None:
    header(tmp_path / "model.safetensors", entries, bytes(16))
    with pytest.raises(BothwaysError, match="is truncated or not a safetensors file"):
        open_weights(tmp_path)


def test_torch_tensors_beyond_their_bytes(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(2, 2)}, tmp_path / "pytorch_model.bin")
    raw = (tmp_path / "pytorch_model.bin").read_bytes()
    shape = b"K\x02K\x02\x86"  # the tuple (2, 2) in the pickle
    assert raw.count(shape) == 1
    (tmp_path / "pytorch_model.bin").write_bytes(raw.replace(shape, b"K\x02K\x7f\x86"))
    with pytest.raises(BothwaysError, match="is truncated or not a torch file"):
        open_weights(tmp_path)


@pytest.mark.parametrize(
    ("content", "what"),
    [([torch.ones(1)], "holds a list, but tensors by name"), ({"a": 3}, "'a' is a int, but only plain tensors"),
     ({"a": torch.eye(2).to_sparse()}, "only plain tensors|truncated")],
)
def test_other_things_than_tensors(content: object, what: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "pytorch_model.bin")
    with pytest.raises(BothwaysError, match=what):
        open_weights(tmp_path)


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_an_index_that_names_a_missing_file(kind: str, tmp_path: Path) -> None:
    sharded(tmp_path, TENSORS, kind)
    next(tmp_path.glob("part-1.*")).unlink()
    with pytest.raises(BothwaysError, match=r"index.json names 'part-1.\w+', which does not exist"):
        open_weights(tmp_path)


@pytest.mark.parametrize("way", ["../away.safetensors", "sub/../../away.safetensors", "{away}", "link.safetensors"])
def test_an_index_that_climbs_out_of_the_folder(way: str, tmp_path: Path) -> None:
    folder, away = tmp_path / "folder", tmp_path / "away.safetensors"
    folder.mkdir()
    save_file(TENSORS, away)
    (folder / "link.safetensors").symlink_to(away)
    rename(sharded(folder, TENSORS, "safetensors"), "a.weight", way.format(away=away))
    with pytest.raises(BothwaysError, match="lies outside the folder: only files inside are read"):
        open_weights(folder)


def test_links_inside_the_folder_and_those_of_a_hubs_cache(tmp_path: Path) -> None:
    folder, blobs = tmp_path / "snapshots" / "0123", tmp_path / "blobs"
    folder.mkdir(parents=True)
    blobs.mkdir()
    index = sharded(folder, TENSORS, "safetensors")
    (folder / "part-0.safetensors").rename(blobs / "9f")
    (folder / "part-0.safetensors").symlink_to(blobs / "9f")
    (folder / "again.safetensors").symlink_to("part-1.safetensors")
    content = json.loads(index.read_text().replace("part-1", "again"))
    index.write_text(json.dumps(content))
    assert set(open_weights(folder)) == set(TENSORS)


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_a_name_in_two_files(kind: str, tmp_path: Path) -> None:
    sharded(tmp_path, TENSORS, kind)
    first, second = sorted(tmp_path.glob("part-*"))
    write({**open_weights(tmp_path), "x": torch.ones(1)}, second, kind)
    with pytest.raises(BothwaysError, match=rf"stands in both {first.name} and {second.name}"):
        open_weights(tmp_path)


def test_an_index_that_does_not_tell_the_truth(tmp_path: Path) -> None:
    index = sharded(tmp_path, TENSORS, "safetensors")
    rename(index, "a.weight", "part-1.safetensors")
    with pytest.raises(BothwaysError, match=r"says that a.weight is in part-1.safetensors, but it is not there"):
        open_weights(tmp_path)
    rename(index, "a.weight", "part-0.bin")
    with pytest.raises(BothwaysError, match=r"the files of this index end with .safetensors"):
        open_weights(tmp_path)
    for wrong in ({}, {"weight_map": {}}, {"weight_map": {"a": 3}}, {"weight_map": ["a"]}):
        index.write_text(json.dumps(wrong))
        with pytest.raises(BothwaysError, match="lacks a weight_map"):
            open_weights(tmp_path)


def test_no_weights_at_all(tmp_path: Path) -> None:
    with pytest.raises(BothwaysError, match=r"model.safetensors does not exist"):
        open_weights(tmp_path)


def test_an_unknown_number_format(tmp_path: Path) -> None:
    header(tmp_path / "model.safetensors", '{"a":{"dtype":"C64","shape":[2],"data_offsets":[0,16]}}', bytes(16))
    with pytest.raises(BothwaysError, match="a is of the number format C64"):
        open_weights(tmp_path)
