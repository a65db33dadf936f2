"""DeBERTa v2, v3 and v1 of `transformers` and ours: everything that `reference.check` looks at."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.families.reference import check, flat, ids_of, same, shaken

import bothways
from bothways.errors import BothwaysError
from bothways.families import KNOWN
from bothways.model.config import Head

transformers = pytest.importorskip("transformers")

SIZES = {"vocab_size": 99, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3,
         "intermediate_size": 40, "max_position_embeddings": 32, "pad_token_id": 0}
BOTH = ["p2c", "c2p"]
V2 = {
    "v3": {"relative_attention": True, "pos_att_type": BOTH, "position_buckets": 8, "share_att_key": True,
           "norm_rel_ebd": "layer_norm", "position_biased_input": False, "max_relative_positions": -1},
    "v2 with a convolution": {"relative_attention": True, "pos_att_type": "c2p|p2c", "position_buckets": 4,
                              "norm_rel_ebd": "layer_norm", "conv_kernel_size": 3, "conv_act": "gelu",
                              "conv_groups": 2, "max_relative_positions": 12, "position_biased_input": False},
    "positions to contents alone, types, narrow embedding": {
        "relative_attention": True, "pos_att_type": ["p2c"], "position_buckets": -1, "max_relative_positions": 5,
        "type_vocab_size": 2, "embedding_size": 16, "hidden_act": "relu"},
    "contents to positions alone, one layer with a wide convolution": {
        "relative_attention": True, "pos_att_type": ["c2p"], "share_att_key": True, "position_buckets": 6,
        "conv_kernel_size": 5, "num_hidden_layers": 1, "layer_norm_eps": 1e-5},
    "untied, no distances": {"tie_word_embeddings": False, "pos_att_type": BOTH},
}
V1 = {
    "base": {"relative_attention": True, "pos_att_type": ["c2p", "p2c"], "position_biased_input": False},
    "cut short, absolute places too": {"relative_attention": True, "pos_att_type": ["p2c"],
                                       "max_relative_positions": 4, "type_vocab_size": 3},
    "p2p in the scale alone": {"relative_attention": True, "pos_att_type": "c2p|p2p", "embedding_size": 10,
                               "position_biased_input": False},
}


@pytest.mark.parametrize("name", V2)
def test_v2_and_v3(name, tmp_path):
    theirs = shaken(transformers.DebertaV2ForMaskedLM(transformers.DebertaV2Config(**{**SIZES, **V2[name]})))
    ids = ids_of(99)
    segments = (torch.arange(17) > 6).long().expand(3, -1) if V2[name].get("type_vocab_size") else None
    ours = check(theirs, tmp_path, ids=ids, segments=segments)
    assert KNOWN["deberta-v2"].obstacle(ours.config) is None
    assert "DebertaV2ForMaskedLM" in ours.describe()


@pytest.mark.parametrize("name", V1)
def test_v1(name, tmp_path):
    theirs = shaken(transformers.DebertaForMaskedLM(transformers.DebertaConfig(**{**SIZES, **V1[name]})))
    ours = check(theirs, tmp_path)
    assert KNOWN["deberta"].obstacle(ours.config) is None


def test_far_apart(tmp_path):
    """Past the end of near buckets, and of all buckets."""
    config = transformers.DebertaV2Config(**{**SIZES, **V2["v3"], "max_relative_positions": 20})
    theirs = shaken(transformers.DebertaV2ForMaskedLM(config))
    theirs.save_pretrained(tmp_path / "theirs")
    ids = ids_of(99, 2, 31)
    with torch.no_grad():
        same(bothways.from_pretrained(tmp_path / "theirs").logits(ids), theirs(ids).logits)


def test_the_newer_head_and_what_else_files_hold(tmp_path):
    theirs = shaken(transformers.DebertaV2ForMaskedLM(transformers.DebertaV2Config(
        **{**SIZES, **V2["v3"], "legacy": False})))
    theirs.save_pretrained(tmp_path / "theirs")
    file = tmp_path / "theirs/model.safetensors"
    more = {"mask_predictions.dense.weight": torch.zeros(3), "mask_predictions.dense.bias": torch.zeros(3),
            "deberta.embeddings.position_embeddings.weight": torch.zeros(32, 24)}
    save_file({**load_file(file), **more}, file)
    ours, ids = bothways.from_pretrained(tmp_path / "theirs"), ids_of(99)
    with torch.no_grad():
        reference = theirs(ids).logits
        same(ours.logits(ids), reference)
        ours.save_pretrained(tmp_path / "again")
        same(transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / "again").eval()(ids).logits, reference)
    assert torch.equal(bothways.from_pretrained(tmp_path / "again").logits(ids), ours.logits(ids))


@pytest.mark.parametrize("kind", ["DebertaV2", "Deberta"])
def test_a_body_alone(kind, tmp_path):
    config = {**SIZES, **(V2["v3"] if kind == "DebertaV2" else V1["base"])}
    check(shaken(getattr(transformers, f"{kind}Model")(getattr(transformers, f"{kind}Config")(**config))), tmp_path)


def test_what_is_refused():
    family, stored = KNOWN["deberta"], {**SIZES, "relative_attention": True, "pos_att_type": ["p2p"]}
    with pytest.raises(BothwaysError, match="neither c2p nor p2c"):
        family.from_config(stored, "config.json")
    with pytest.raises(BothwaysError, match="talking_head"):
        family.from_config({**stored, "talking_head": True}, "config.json")
    config = family.from_config({**stored, "pos_att_type": BOTH}, "config.json")
    for choice, word in ((replace(config, head=replace(config.head, decoder=2)), "head.decoder is 2"),
                         (replace(config, qkv_bias="qkv"), "qkv_bias is 'qkv'"),
                         (replace(config, scale=0.3), "scale is 0.3")):
        assert word in str(family.obstacle(choice))
    assert Head(decoder=2).decoder == 2


def test_a_pooler_is_read_and_written(tmp_path):
    """Files tuned on whole texts have one, bent by gelu where BERT's is by tanh."""
    theirs = shaken(transformers.DebertaV2ForSequenceClassification(transformers.DebertaV2Config(**SIZES, **V2["v3"])))
    theirs.save_pretrained(tmp_path / "theirs")
    file = tmp_path / "theirs/model.safetensors"
    weights = {name: tensor for name, tensor in load_file(file).items() if not name.startswith("classifier.")}
    save_file(weights, file)
    ours, ids = bothways.from_pretrained(tmp_path / "theirs"), ids_of(99, 2, 8)
    with torch.no_grad():
        states = ours.trained.network(flat(ours, ids)).states.view(2, 8, -1)
        same(ours.trained.network.pooled(states[:, 0]), theirs.pooler(theirs.deberta(ids).last_hidden_state))
    ours.save_pretrained(tmp_path / "again")
    again = load_file(tmp_path / "again/model.safetensors")
    assert all(torch.equal(again[name], weights[name]) for name in ("pooler.dense.weight", "pooler.dense.bias"))
    assert torch.equal(bothways.from_pretrained(tmp_path / "again").trained.network.companions["pooled"].dense.weight,
                       weights["pooler.dense.weight"])
