"""The kin of BERT, and ModernBERT, against the published classes: each with its head and as a body alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.families.reference import check, ids_of, same, shaken

import bothways
from bothways.batch import pack
from bothways.cli import main
from bothways.errors import BothwaysError
from bothways.objectives.base import example
from bothways.visibility import bidirectional

transformers = pytest.importorskip("transformers")
PLAIN: dict[str, Any] = {
    "vocab_size": 101, "hidden_size": 32, "intermediate_size": 44, "num_hidden_layers": 2, "num_attention_heads": 4,
    "max_position_embeddings": 40, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "mask_token_id": 5}
DISTIL = {"dim": 32, "hidden_dim": 44, "n_layers": 2, "n_heads": 4}
MODERN = {"num_hidden_layers": 4, "local_attention": 6, "cls_token_id": 1, "sep_token_id": 2}
ROTARY = {"full_attention": {"rope_type": "default", "rope_theta": 300.0},
          "sliding_attention": {"rope_type": "default", "rope_theta": 20.0}}
SEGMENTS = torch.arange(17).expand(3, -1).gt(6).long()
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "roberta": ("RobertaForMaskedLM", {"pad_token_id": 1, "bos_token_id": 0}),
    "roberta, untied, relu": ("RobertaForMaskedLM", {"tie_word_embeddings": False, "hidden_act": "relu",
                                                     "vocab_size": 97}),
    "roberta, body, odd heads": ("RobertaModel", {"type_vocab_size": 1, "hidden_size": 35, "num_attention_heads": 5}),
    "xlm-roberta": ("XLMRobertaForMaskedLM", {"type_vocab_size": 1, "layer_norm_eps": 1e-3}),
    "distilbert": ("DistilBertForMaskedLM", DISTIL),
    "distilbert, untied, relu": ("DistilBertForMaskedLM", {**DISTIL, "tie_word_embeddings": False, "activation": "relu",
                                                           "vocab_size": 97}),
    "distilbert, body, odd heads": ("DistilBertModel", {**DISTIL, "dim": 35, "n_heads": 5}),
    "albert": ("AlbertForMaskedLM", {"embedding_size": 10}),
    "albert, pretraining, groups": ("AlbertForPreTraining", {"embedding_size": 12, "num_hidden_layers": 4,
                                                             "num_hidden_groups": 2, "vocab_size": 97}),
    "albert, untied, no sharing": ("AlbertForMaskedLM", {"embedding_size": 7, "num_hidden_groups": 2,
                                                         "tie_word_embeddings": False, "hidden_act": "gelu"}),
    "albert, groups of several layers": ("AlbertForPreTraining", {
        "embedding_size": 12, "num_hidden_layers": 4, "num_hidden_groups": 2, "inner_group_num": 3}),
    "albert, three groups, odd": ("AlbertForMaskedLM", {"embedding_size": 9, "num_hidden_layers": 3,
                                                        "num_hidden_groups": 3, "inner_group_num": 2}),
    "albert, body": ("AlbertModel", {"embedding_size": 10, "num_hidden_layers": 3}),
    "electra, generator": ("ElectraForMaskedLM", {"embedding_size": 10, "hidden_act": "relu"}),
    "electra, generator, untied, as wide": ("ElectraForMaskedLM", {"embedding_size": 32, "vocab_size": 97,
                                                                   "tie_word_embeddings": False}),
    "electra, discriminator": ("ElectraForPreTraining", {"embedding_size": 10, "type_vocab_size": 3}),
    "electra, discriminator, as wide": ("ElectraForPreTraining", {"embedding_size": 32, "hidden_act": "gelu_new"}),
    "electra, body": ("ElectraModel", {"embedding_size": 10}),
    "modernbert": ("ModernBertForMaskedLM", MODERN),
    "modernbert, biased, untied": ("ModernBertForMaskedLM", {
        **MODERN, "attention_bias": True, "mlp_bias": True, "norm_bias": True, "classifier_bias": True,
        "tie_word_embeddings": False, "rope_parameters": ROTARY, "vocab_size": 97}),
    "modernbert, own layers, no bias": ("ModernBertForMaskedLM", {
        **MODERN, "layer_types": ["sliding_attention", "full_attention", "sliding_attention", "sliding_attention"],
        "decoder_bias": False, "attention_bias": True, "classifier_activation": "silu", "rope_parameters": ROTARY,
        "hidden_activation": "gelu_pytorch_tanh", "local_attention": 9}),
    "modernbert, body": ("ModernBertModel", {**MODERN, "rope_parameters": ROTARY}),
}


def made(architecture: str, **options: Any) -> Any:
    kind = getattr(transformers, architecture)
    return shaken(kind(kind.config_class(**{**PLAIN, **options})))


@pytest.mark.parametrize("name", CASES)
def test_theirs_is_ours(name: str, tmp_path: Path) -> None:
    architecture, options = CASES[name]
    typed = architecture.startswith(("Albert", "Electra")) or ("type_vocab_size" in options and \
        options["type_vocab_size"] > 1)
    check(made(architecture, **options), tmp_path, segments=SEGMENTS if typed else None)


def test_the_question_of_order_is_theirs(tmp_path: Path) -> None:
    theirs, ids = made("AlbertForPreTraining", embedding_size=10), ids_of(101)
    theirs.save_pretrained(tmp_path / "theirs")
    network = bothways.from_pretrained(tmp_path / "theirs").trained.network
    (packed,) = pack([example(row.numpy(), bidirectional, segment=of.numpy())
                      for row, of in zip(ids, SEGMENTS, strict=True)])
    with torch.no_grad():
        said, first = theirs(input_ids=ids, token_type_ids=SEGMENTS), network(packed).states[::17]
        same(network.logits(first, "sentence-order"), said.sop_logits)
        same(network.pooled(first), theirs.albert(input_ids=ids, token_type_ids=SEGMENTS).pooler_output)


def test_places_of_roberta_follow_its_padding(tmp_path: Path) -> None:
    made("RobertaForMaskedLM", pad_token_id=3).save_pretrained(tmp_path)
    ours = bothways.from_pretrained(tmp_path)
    assert (ours.config.position.offset, ours.config.position.length) == (4, 36)
    written = json.loads((ours.save_pretrained(tmp_path / "again") / "config.json").read_text())
    assert written["pad_token_id"] == 3 and written["max_position_embeddings"] == 40


def test_older_configs_of_modernbert(tmp_path: Path) -> None:
    """They say the bases and every how many layers one is wide."""
    theirs = made("ModernBertForMaskedLM", **{**MODERN, "rope_parameters": ROTARY})
    theirs.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    for name in ("layer_types", "rope_parameters"):
        config.pop(name)
    config |= {"global_attn_every_n_layers": 3, "global_rope_theta": 300.0, "local_rope_theta": 20.0}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with torch.no_grad():
        same(bothways.from_pretrained(tmp_path).logits(ids_of(101)), theirs(ids_of(101)).logits)


@pytest.mark.parametrize(("architecture", "options", "phrase"), [
    ("AlbertForMaskedLM", {"num_hidden_layers": 18, "num_hidden_groups": 14}, "rounds otherwise|otherwise than this"),
    ("AlbertForMaskedLM", {"embedding_size": 32}, "an embedding_size that is its hidden_size"),
    ("ModernBertForMaskedLM", {"layer_types": ["full_attention"]}, "names the layer_types full_attention"),
    ("ModernBertForMaskedLM", {"rope_scaling": {"type": "linear"}}, "rope_scaling, but only 'default'"),
    ("ModernBertForMaskedLM", {"classifier_activation": "gelo"}, "unknown classifier_activation 'gelo'"),
    ("ElectraForMaskedLM", {"hidden_size": None}, "lacks hidden_size"),
])
def test_what_is_not_read_is_refused(architecture: str, options: dict[str, Any], phrase: str, tmp_path: Path) -> None:
    made(architecture).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, **options}))
    with pytest.raises(BothwaysError, match=phrase):
        bothways.from_pretrained(tmp_path)


@pytest.mark.parametrize("name", ["roberta", "distilbert", "albert, body", "electra, discriminator", "modernbert"])
def test_the_commands_read_it(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    architecture, options = CASES[name]
    made(architecture, **options).save_pretrained(tmp_path / "theirs")
    assert main(["describe", str(tmp_path / "theirs")]) == 0
    assert main(["convert", str(tmp_path / "theirs"), str(tmp_path / "ours")]) == 0
    printed = capsys.readouterr().out
    assert f"transformers  {architecture}" in printed and f"ours: {architecture}, float32" in printed


def test_an_electra_is_made_of_a_discriminator(tmp_path: Path) -> None:
    """Its verdict is kept and trained on; a generator is added beside it."""
    made("ElectraForPreTraining", embedding_size=10).save_pretrained(tmp_path)
    ours = bothways.from_pretrained(tmp_path).with_objective("replaced-token")
    assert {one.name: one.kind for one in ours.config.companions} == {
        "segment": "embedding", "replaced": "verdict", "generator": "generator"}
