"""BERT and its kin against the published classes: with and without their heads, and what a file may look like."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
import torch
from safetensors.torch import load_file, save_file
from tests.families.reference import check, ids_of, same, shaken

import bothways
from bothways.batch import Key, Window, pack
from bothways.cli import main
from bothways.errors import BothwaysError
from bothways.objectives.base import example
from bothways.text.tokenizer import Tokenizer
from bothways.visibility import bidirectional

transformers = pytest.importorskip("transformers")
PLAIN: dict[str, Any] = {
    "vocab_size": 101, "hidden_size": 32, "intermediate_size": 44, "num_hidden_layers": 2, "num_attention_heads": 4,
    "max_position_embeddings": 40, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "mask_token_id": 5}
SEGMENTS = torch.arange(17).expand(3, -1).gt(6).long()
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "masked": ("BertForMaskedLM", {}),
    "pretraining, odd vocabulary": ("BertForPreTraining", {"vocab_size": 97, "layer_norm_eps": 1e-3}),
    "pretraining, untied, three types": ("BertForPreTraining", {"tie_word_embeddings": False, "type_vocab_size": 3,
                                                                "hidden_act": "relu"}),
    "masked, untied, odd heads": ("BertForMaskedLM", {"tie_word_embeddings": False, "hidden_size": 35,
                                                      "num_attention_heads": 5, "hidden_act": "gelu_new"}),
    "body": ("BertModel", {"num_hidden_layers": 3}),
}


@pytest.mark.parametrize("name", CASES)
def test_theirs_is_ours(name: str, tmp_path: Path) -> None:
    architecture, options = CASES[name]
    kind = getattr(transformers, architecture)
    check(shaken(kind(kind.config_class(**{**PLAIN, **options}))), tmp_path, segments=SEGMENTS)


def made(architecture: str, folder: Path, **options: Any) -> Any:
    """A tiny random class, written to a folder."""
    kind = getattr(transformers, architecture)
    theirs = shaken(kind(kind.config_class(**{**PLAIN, **options})))
    theirs.save_pretrained(folder)
    return theirs


def test_the_pooler_and_the_question_are_theirs(tmp_path: Path) -> None:
    ids = ids_of(101)
    body, pretraining = made("BertModel", tmp_path / "body"), made("BertForPreTraining", tmp_path / "pretraining")
    made("BertForNextSentencePrediction", tmp_path / "sentences")
    with torch.no_grad():
        for name, wanted in (("body", body(input_ids=ids, token_type_ids=SEGMENTS).pooler_output),
                             ("pretraining", pretraining.bert(input_ids=ids, token_type_ids=SEGMENTS).pooler_output)):
            ours = bothways.from_pretrained(tmp_path / name).trained.network
            first = ours(flat(ids, SEGMENTS)).states[::17]
            same(ours.pooled(first), wanted)
        same(ours.logits(first, "next-sentence"),
             pretraining(input_ids=ids, token_type_ids=SEGMENTS).seq_relationship_logits)
        sentences = bothways.from_pretrained(tmp_path / "sentences")
        again = sentences.save_pretrained(tmp_path / "again")
        kind = transformers.AutoModelForNextSentencePrediction.from_pretrained(again).eval()
        network = sentences.trained.network
        same(network.logits(network(flat(ids, SEGMENTS)).states[::17], "next-sentence"),
             kind(input_ids=ids, token_type_ids=SEGMENTS).logits)


def flat(ids: torch.Tensor, segments: torch.Tensor) -> Any:
    """Texts of one length as one packed Example, segments told."""
    (packed,) = pack([example(row.numpy(), bidirectional, segment=of.numpy())
                      for row, of in zip(ids, segments, strict=True)])
    return packed


def test_segments(tmp_path: Path) -> None:
    theirs, ids = made("BertForMaskedLM", tmp_path), ids_of(101)
    ours = bothways.from_pretrained(tmp_path)
    with torch.no_grad():
        same(ours.logits(ids, segments=SEGMENTS), theirs(input_ids=ids, token_type_ids=SEGMENTS).logits)
        same(ours.logits(ids[0], segments=SEGMENTS[0]), theirs(input_ids=ids[:1], token_type_ids=SEGMENTS[:1]).logits)
        assert not torch.allclose(ours.logits(ids, segments=SEGMENTS), ours.logits(ids))
    with pytest.raises(BothwaysError, match=r"segments have the shape \(1, 17\), but there are 3 texts of 17 tokens"):
        ours.logits(ids, segments=SEGMENTS[0])
    with pytest.raises(BothwaysError, match="holds 2, but this network has learned its values 0 to 1"):
        ours.logits(ids, segments=2 * SEGMENTS)


def test_files_of_all_ages_are_read(tmp_path: Path) -> None:
    """A prefix too many or too few, names of TensorFlow, numbers of places, a head that repeats the embedding."""
    theirs = made("BertForMaskedLM", tmp_path / "masked")
    weights = load_file(tmp_path / "masked/model.safetensors")
    old = {name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): one
           for name, one in weights.items()}
    old["bert.embeddings.position_ids"] = torch.arange(40)[None]
    old["cls.predictions.decoder.weight"] = weights["bert.embeddings.word_embeddings.weight"].clone()
    old["cls.predictions.decoder.bias"] = weights["cls.predictions.bias"].clone()
    save_file(old, tmp_path / "masked/model.safetensors")
    ids = ids_of(101)
    with torch.no_grad():
        same(bothways.from_pretrained(tmp_path / "masked").logits(ids), theirs(ids).logits)
    # the body alone, its prefix kept
    inner = {name: one for name, one in weights.items() if name.startswith("bert.")}
    save_file(inner, tmp_path / "masked/model.safetensors")
    body = bothways.from_pretrained(tmp_path / "masked")
    assert not body.config.head.scores
    written = body.save_pretrained(tmp_path / "body")
    assert set(load_file(written / "model.safetensors")) == {name.removeprefix("bert.") for name in inner}
    with pytest.raises(BothwaysError, match="has no head over the vocabulary"):
        body.logits(ids)
    # and a head whose body has none
    save_file({name.removeprefix("bert."): one for name, one in weights.items()}, tmp_path / "masked/model.safetensors")
    with torch.no_grad():
        same(bothways.from_pretrained(tmp_path / "masked").logits(ids), theirs(ids).logits)
    save_file({**weights, "classifier.weight": torch.zeros(2, 32)}, tmp_path / "masked/model.safetensors")
    with pytest.raises(BothwaysError, match=r"holds the unknown classifier\.weight"):
        bothways.from_pretrained(tmp_path / "masked")


@pytest.mark.parametrize(("options", "phrase"), [
    ({"is_decoder": True}, "sets is_decoder"), ({"hidden_act": "mish"}, "the unknown hidden_act 'mish'"),
    ({"position_embedding_type": "relative_key"}, "position_embedding_type 'relative_key'")])
def test_what_is_not_read_is_refused(options: dict[str, Any], phrase: str, tmp_path: Path) -> None:
    made("BertForMaskedLM", tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, **options}))
    with pytest.raises(BothwaysError, match=phrase):
        bothways.from_pretrained(tmp_path)


TOKENIZER = Tokenizer.train(["the cat sat on the mat. a dog ran to the house."], kind="bytes", size=300)
TEXT = "the cat sat on the mat. a dog ran to the house."


@pytest.mark.parametrize(("architecture", "objective"), [
    ("BertForPreTraining", None), ("BertForMaskedLM", None), ("BertForMaskedLM", "sentence-pairs"),
    ("BertModel", "masked"), ("BertForPreTraining", "diffusion"), ("BertForMaskedLM", "replaced-token")])
def test_it_trains_on_and_goes_back(architecture: str, objective: str | None, tmp_path: Path) -> None:
    made(architecture, tmp_path / "theirs", vocab_size=TOKENIZER.vocabulary.size, max_position_embeddings=64,
         hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    TOKENIZER.save(tmp_path / "theirs")
    ours = bothways.from_pretrained(tmp_path / "theirs")
    ours = ours if objective is None else ours.with_objective(objective)
    wanted = {"BertForPreTraining": "sentence-pairs"}.get(architecture, "masked") if objective is None else objective
    assert ours.objective.name == wanted
    network, losses = ours.trained.network.train(), []
    ids = np.array([1, *TOKENIZER.encode(TEXT), 2])
    window = Window(ids, other=Window(ids[::-1].copy(), document=1))
    row = ours.objective.corrupt(window, Key(0, 0, 0))
    optimiser = torch.optim.Adam(network.parameters(), 3e-3)
    for _ in range(20):
        optimiser.zero_grad()
        parts = ours.objective.parts(network, row)
        loss = sum(part.coefficient * part.sum / part.count for part in parts)
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] - 0.1
    folder = ours.save_pretrained(tmp_path / "again")
    if wanted == "replaced-token":
        assert "'generator'" in (folder / "README.md").read_text()
        return
    network.eval()
    kind = {"BertModel": "BertForMaskedLM"}.get(architecture, architecture)
    kind = "BertForPreTraining" if objective == "sentence-pairs" else kind
    theirs, info = getattr(transformers, kind).from_pretrained(folder, output_loading_info=True)
    assert not info["missing_keys"] and not info["mismatched_keys"]
    # a pooler that nothing asks is kept in the file, and its class for masked tokens has none
    assert all("pooler" in name for name in info["unexpected_keys"])
    assert theirs.config.architectures == [kind]
    (packed,) = pack([row])
    with torch.no_grad():
        said = theirs.eval()(input_ids=row.inputs[None], token_type_ids=row.fields.get(
            "segment", torch.zeros_like(row.inputs))[None])
        same(network.logits(network(packed).states), getattr(said, "prediction_logits", said.get("logits"))[0])


def test_embeddings_by_every_pooling(tmp_path: Path) -> None:
    theirs = made("BertModel", tmp_path, vocab_size=TOKENIZER.vocabulary.size)
    TOKENIZER.save(tmp_path)
    ours, texts = bothways.from_pretrained(tmp_path), ["the cat", "a dog ran to"]
    rows = [torch.tensor([[1, *TOKENIZER.encode(text), 2]]) for text in texts]
    with torch.no_grad():
        said = [theirs(row) for row in rows]
    same(ours.embed(texts), torch.stack([one.last_hidden_state[0, 1:-1].mean(0) for one in said]))
    same(ours.embed(texts, pooling="first"), torch.stack([one.last_hidden_state[0, 0] for one in said]))
    same(ours.embed(texts, pooling="pooled"), torch.cat([one.pooler_output for one in said]))
    with pytest.raises(BothwaysError, match="pooling is 'max'"):
        ours.embed(texts, pooling="max")  # type: ignore[arg-type]
    made("BertForMaskedLM", tmp_path, vocab_size=TOKENIZER.vocabulary.size)
    with pytest.raises(BothwaysError, match="has no pooler"):
        bothways.from_pretrained(tmp_path).embed(texts, pooling="pooled")


def test_the_commands_read_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for architecture in ("BertForPreTraining", "BertModel"):
        made(architecture, tmp_path / architecture)
        assert main(["describe", str(tmp_path / architecture)]) == 0
        assert main(["convert", str(tmp_path / architecture), str(tmp_path / f"{architecture}2")]) == 0
        printed = capsys.readouterr().out
        assert f"transformers  {architecture}" in printed and f"2: {architecture}, float32" in printed


def test_the_first_configs_do_not_say_their_family(tmp_path: Path) -> None:
    theirs = made("BertForPreTraining", tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({name: config[name] for name in config if name != "model_type"}))
    with torch.no_grad():
        same(bothways.from_pretrained(tmp_path).logits(ids_of(101)), theirs(ids_of(101)).prediction_logits)
    made("GPT2LMHeadModel", tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(BothwaysError, match=r'does not say of which family .* "model_type": "llama"'):
        bothways.from_pretrained(tmp_path)


def test_a_tokenizer_that_pads_or_cuts_does_neither_here(tmp_path: Path) -> None:
    made("BertModel", tmp_path)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "sat"]
    core = tokenizers.Tokenizer(tokenizers.models.WordLevel({word: i for i, word in enumerate(words)}, "[UNK]"))
    core.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    core.add_special_tokens(words[:5])
    core.enable_padding(length=8)
    core.enable_truncation(2)
    core.save(str(tmp_path / "tokenizer.json"))
    config = json.loads((tmp_path / "config.json").read_text())
    for name in ("bos_token_id", "eos_token_id", "mask_token_id"):
        config.pop(name)
    (tmp_path / "config.json").write_text(json.dumps(config))
    ours = bothways.from_pretrained(tmp_path)
    assert ours.tokenizer.encode("the cat sat <mask>") == [5, 6, 7, 4]
    vocabulary = ours.vocabulary
    assert (vocabulary.cls, vocabulary.sep, vocabulary.bos, vocabulary.eos, vocabulary.mask) == (2, 3, 2, 3, 4)
    assert ours.objective.name == "masked"
