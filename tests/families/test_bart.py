"""BART and PLBART: published folders and ours are one network."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tests.families.reference import check, ids_of, same, shaken

import bothways
from bothways import families
from bothways.errors import BothwaysError

transformers = pytest.importorskip("transformers")
SIZES = {"vocab_size": 101, "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
         "decoder_attention_heads": 4, "encoder_ffn_dim": 44, "decoder_ffn_dim": 44, "max_position_embeddings": 64,
         "bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 2}
CASES = {
    "bart": ("Bart", {}),
    "bart, scaled, uneven towers, odd vocabulary": ("Bart", {"scale_embedding": True, "decoder_layers": 1,
                                                             "encoder_layers": 3, "vocab_size": 83}),
    "bart, relu, one head": ("Bart", {"activation_function": "relu", "encoder_attention_heads": 1,
                                      "decoder_attention_heads": 1, "d_model": 20}),
    "plbart": ("PLBart", {}),
    "plbart, unscaled, one layer": ("PLBart", {"scale_embedding": False, "encoder_layers": 1}),
    "plbart, tanh gelu, odd vocabulary": ("PLBart", {"activation_function": "gelu_new", "vocab_size": 83}),
}


@pytest.mark.parametrize("name", CASES)
def test_theirs_is_ours(name: str, tmp_path: Path) -> None:
    stem, options = CASES[name]
    config = getattr(transformers, f"{stem}Config")(**{**SIZES, **options})
    theirs = shaken(getattr(transformers, f"{stem}ForConditionalGeneration")(config))
    theirs.final_logits_bias += torch.randn(theirs.final_logits_bias.shape,
                                            generator=torch.Generator().manual_seed(3)) * 0.1
    check(theirs, tmp_path, source=ids_of(config.vocab_size, length=21, seed=5))


def test_a_body_alone_is_read(tmp_path: Path) -> None:
    theirs = shaken(transformers.BartForConditionalGeneration(transformers.BartConfig(**SIZES)))
    theirs.model.save_pretrained(tmp_path / "body")
    ours = bothways.from_pretrained(tmp_path / "body")
    assert not ours.config.head.bias
    source, ids = ids_of(101, length=9), ids_of(101, seed=4)
    with torch.no_grad():
        same(ours.logits(ids, source=source), theirs(input_ids=source, decoder_input_ids=ids).logits)
    ours.save_pretrained(tmp_path / "again", layout="bart")
    again = transformers.BartForConditionalGeneration.from_pretrained(tmp_path / "again").eval()
    with torch.no_grad():
        same(again(input_ids=source, decoder_input_ids=ids).logits, ours.logits(ids, source=source))


def test_what_the_decoder_begins_with_is_kept(tmp_path: Path) -> None:
    theirs = shaken(transformers.BartForConditionalGeneration(transformers.BartConfig(**SIZES)))
    theirs.save_pretrained(tmp_path / "theirs")
    ours = bothways.from_pretrained(tmp_path / "theirs")
    assert ours.objective.continuation(ids_of(101)[0].numpy()).inputs.tolist() == [2]
    ours.save_pretrained(tmp_path / "again", layout="bart")
    stored = json.loads((tmp_path / "again/config.json").read_text())
    assert (stored["decoder_start_token_id"], stored["bos_token_id"]) == (2, 0)


def test_what_a_config_leaves_out_is_as_their_class_has_it(tmp_path: Path) -> None:
    theirs = shaken(transformers.BartModel(transformers.BartConfig(**SIZES)))
    theirs.save_pretrained(tmp_path / "theirs")
    file = tmp_path / "theirs/config.json"
    file.write_text(json.dumps({name: value for name, value in json.loads(file.read_text()).items()
                                if not name.endswith("_token_id")}))
    bothways.from_pretrained(tmp_path / "theirs").save_pretrained(tmp_path / "again", layout="bart")
    again = transformers.BartModel.from_pretrained(tmp_path / "again").eval()
    ids = ids_of(101, length=9)
    with torch.no_grad():
        same(again(input_ids=ids).last_hidden_state, theirs(input_ids=ids).last_hidden_state)


@pytest.mark.parametrize(("entries", "word"), [
    ({"decoder_ffn_dim": 40}, "encoder_ffn_dim 44 and decoder_ffn_dim 40"),
    ({"decoder_attention_heads": 2}, "decoder_attention_heads 2"),
    ({"tie_word_embeddings": False}, "tie_word_embeddings"),
    ({"normalize_before": True}, "normalize_before"),
    ({"encoder_layers": 0}, "two towers"),
])
def test_what_is_not_read_is_named(entries: dict[str, object], word: str) -> None:
    with pytest.raises(BothwaysError, match=word):
        families.KNOWN["bart"].from_config({**SIZES, **entries}, "config.json")
