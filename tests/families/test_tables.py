"""A family is a table: whatever survives the way to the published config and back fits, and nothing else does."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from bothways import families
from bothways.families import settings
from bothways.families.base import TRANSPOSED, Change, shapes_of, turned
from bothways.model import ModelConfig, Norm, Position, Shape

LLAMA = ModelConfig(Shape(50, 32, 2, 0, 4))


@pytest.mark.parametrize(("other", "phrase"), [
    (replace(LLAMA, parallel=True), "parallel is true, not false"),
    (replace(LLAMA, norm=Norm(place="both")), "norm.place is 'both', not 'before'"),
    (replace(LLAMA, norm=Norm(centred=True)), "norm.centred is true, not false"),
    (replace(LLAMA, shape=Shape(50, 32, 2, 0, 4, distinct=1)), "shape.distinct is 1, not 2"),
    (replace(LLAMA, soft_cap=30.0), "soft_cap is 30.0, not none"),
    (replace(LLAMA, position=Position(share=0.5)), "position.share is 0.5, not 1.0"),
    (replace(LLAMA, bias=("queries",)), "bias is queries, not queries, attention"),
])
def test_what_a_family_lacks_is_named(other: ModelConfig, phrase: str) -> None:
    assert phrase in str(families.KNOWN["llama"].obstacle(other))


@pytest.mark.parametrize("same", [
    replace(LLAMA, dropout=0.1), replace(LLAMA, local=7, chunk=3), replace(LLAMA, shape=Shape(50, 32, 2, 0, 4, 4, 8)),
    replace(LLAMA, position=Position(length=9, buckets=8, local_base=10.0)), replace(LLAMA, reach="GG"),
])
def test_what_changes_no_logit_does_not_count(same: ModelConfig) -> None:
    assert settings.choices(same) == settings.choices(LLAMA) and families.KNOWN["llama"].obstacle(same) is None


@pytest.mark.parametrize("change", [turned(True), turned(False), TRANSPOSED])
@pytest.mark.parametrize("share", [0.5, 1.0])
def test_a_change_comes_back_to_the_bit(change: Change, share: float) -> None:
    config = replace(LLAMA, position=Position(share=share))
    rows = torch.randn(32, 32)
    assert torch.equal(change.theirs(change.ours(rows, config), config), rows)
    assert torch.equal(change.ours(change.theirs(rows, config), config), rows)


def test_turned_rows_by_hand() -> None:
    config = replace(LLAMA, position=Position(share=0.5))
    rows = torch.arange(32)
    assert turned(True).ours(rows, config)[:8].tolist() == [0, 2, 4, 5, 1, 3, 6, 7]
    assert turned(False).ours(rows, config)[:8].tolist() == [0, 1, 4, 5, 2, 3, 6, 7]


def test_shared_blocks_and_narrow_embeddings_have_their_weights() -> None:
    shapes = shapes_of(ModelConfig(Shape(50, 32, 4, 0, 4, embedding=8, distinct=2), tied=False))
    assert shapes["embedding.weight"] == (50, 8) and shapes["tower.entry.weight"] == (32, 8)
    assert shapes["head.weight"] == (50, 32)
    assert {name.split(".")[2] for name in shapes if "blocks" in name} == {"0", "1"}
