"""Adapters of `peft`: only they move, and merged in they answer as they did beside the network."""

from __future__ import annotations

import sys
from dataclasses import replace

import pytest
import torch
from tests.evaluation.small import small
from tests.tasks.test_ways import short

from bothways.errors import BothwaysError
from bothways.tasks import adapters, folder
from bothways.tasks.classify import Options, Task, as_rows
from bothways.tasks.tuning import TuneConfig

CONFIG = TuneConfig(steps=40, batch=16, learning_rate=1e-2, head_rate=1e-2, moves="lora", rank=4)


@pytest.mark.parametrize("moves", ["lora", "dora", "ia3"])
def test_an_adapter_learns_and_is_merged_into_an_ordinary_folder(moves, tmp_path):
    pytest.importorskip("peft")
    trained = small("masked", sharp=1.0)
    before = {name: weight.clone() for name, weight in trained.network.state_dict().items()}
    task = Task.fit(trained, as_rows(short(80)), [], Options(), replace(CONFIG, moves=moves))
    assert all(torch.equal(weight, before[name]) for name, weight in trained.network.state_dict().items())
    weights = task.trained.network.state_dict()
    assert torch.equal(weights["embedding.weight"], before["embedding.weight"]), "only projections have an adapter"
    assert not [name for name in weights if "lora" in name or "ia3" in name], "merged"
    query = before["tower.blocks.0.attention.qkv.weight"].split(32)[1]
    assert not torch.equal(weights["tower.blocks.0.attention.k.weight"], query)
    rows = as_rows(short(20, 1))
    assert task.scores(rows)[0].value > 0.9
    again = folder.load(folder.save(task, tmp_path / "out"))
    assert again.predict_proba(rows) == pytest.approx(task.predict_proba(rows), abs=1e-5)


def test_beside_and_merged_give_the_same_function():
    pytest.importorskip("peft")
    trained = small("causal", sharp=1.0)
    network, ids = trained.network, torch.tensor([1, 44, 45, 46])
    from bothways.evaluation.features import reading_example, states_of

    row = reading_example(ids.numpy(), trained.objective.modes[0].visibility)
    with torch.no_grad(), adapters.attached(network, "lora", 4):
        moving = [name for name, weight in network.named_parameters() if weight.requires_grad]
        assert moving and all("lora" in name for name in moving)
        for name, weight in network.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.1)
        beside = states_of(network, row)
    with torch.no_grad():
        assert torch.allclose(states_of(network, row), beside, atol=1e-5)
    assert all(weight.requires_grad for weight in network.parameters())


def test_without_the_package_one_sentence_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(BothwaysError, match=r"pip install 'bothways\[peft\]'"):
        Task.fit(small("masked"), as_rows(short(20)), [], Options(), CONFIG)
