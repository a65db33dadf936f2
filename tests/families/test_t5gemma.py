"""T5Gemma: published folders and ours are one network."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.families.reference import check, ids_of, shaken

from bothways import families
from bothways.errors import BothwaysError
from bothways.model import ModelConfig, Shape
from bothways.model.cost import parameters

transformers = pytest.importorskip("transformers")
TOWER: dict[str, Any] = {
    "vocab_size": 101, "hidden_size": 32, "intermediate_size": 44, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 64, "sliding_window": 4,
    "query_pre_attn_scalar": 24, "bos_token_id": 2, "eos_token_id": 1, "pad_token_id": 0}
CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "plain": ({}, {}),
    "uneven towers, wide heads, odd vocabulary": ({"num_hidden_layers": 3, "layer_types": [
        "sliding_attention", "full_attention", "sliding_attention"]}, {"head_dim": 14, "num_key_value_heads": 1,
                                                                       "vocab_size": 83}),
    "untied, no caps, biased": ({}, {"tie_word_embeddings": False, "attn_logit_softcapping": None,
                                     "final_logit_softcapping": None, "attention_bias": True}),
}


@pytest.mark.parametrize("name", CASES)
def test_theirs_is_ours(name: str, tmp_path: Path) -> None:
    encoder, both = CASES[name]
    both = dict(both)
    tied = both.pop("tie_word_embeddings", True)
    halves = {"encoder": {**TOWER, **both, **encoder}, "decoder": {**TOWER, **both}}
    for one in halves.values():
        one["tie_word_embeddings"] = tied
    size = halves["decoder"]["vocab_size"]
    config = transformers.T5GemmaConfig(**halves, vocab_size=size, tie_word_embeddings=tied, decoder_start_token_id=2)
    theirs = shaken(transformers.T5GemmaForConditionalGeneration(config))
    check(theirs, tmp_path, source=ids_of(size, length=21, seed=5))


def test_towers_that_differ_are_named() -> None:
    family = families.KNOWN["t5gemma"]
    for entries, word in (({"intermediate_size": 40}, "shape.inner is 40"),
                          ({"layer_types": ["full_attention"] * 2}, "layer_types")):
        with pytest.raises(BothwaysError, match=word):
            family.from_config({"encoder": {**TOWER, **entries}, "decoder": TOWER}, "config.json")


def test_an_embedding_of_the_other_tower_is_counted_and_needs_that_tower() -> None:
    shared = ModelConfig(Shape(50, 32, 1, 1, 4))
    own = replace(shared, shared_embedding=False)
    assert parameters(own)["total"] - parameters(shared)["total"] == 50 * 32
    assert parameters(own)["non_embedding"] == parameters(shared)["non_embedding"]
    for given, word in (({"shared_embedding": False}, "shared_embedding false speaks"),
                        ({"source_local": 4}, "source_local speaks")):
        with pytest.raises(BothwaysError, match=word):
            ModelConfig(Shape(50, 32, 1, 0, 4), **given)
