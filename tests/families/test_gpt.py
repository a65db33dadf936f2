"""GPT, GPT-2 and GPT-Neo: published folders and ours are one network."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.families.reference import check, ids_of, same, shaken

import bothways
from bothways import families
from bothways.errors import BothwaysError
from bothways.model import ModelConfig, Position, Shape

transformers = pytest.importorskip("transformers")
SIZES = {"vocab_size": 101, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "bos_token_id": 1,
         "eos_token_id": 2}
GPT2 = {
    "plain": {},
    "odd vocabulary, narrow inside, unscaled": {"vocab_size": 83, "n_inner": 44, "scale_attn_weights": False,
                                                "layer_norm_epsilon": 1e-3},
    "untied, exact gelu, one layer, wide heads": {"tie_word_embeddings": False, "activation_function": "gelu",
                                                  "n_layer": 1, "n_head": 1},
}
GPT = {
    "plain": {},
    "odd vocabulary, relu": {"vocab_size": 83, "afn": "relu", "layer_norm_epsilon": 1e-3},
    "untied, three layers, odd heads": {"tie_word_embeddings": False, "n_layer": 3, "n_embd": 30, "n_head": 2,
                                        "afn": "swish"},
}
NEO = {
    "global and local": {"attention_types": [[["global", "local"], 1]], "window_size": 5},
    "local first, uneven, narrow inside": {"attention_types": [[["local"], 2], [["global"], 1]], "num_layers": 3,
                                           "window_size": 3, "intermediate_size": 44, "vocab_size": 83},
    "global alone, untied, relu": {"attention_types": [[["global"], 2]], "tie_word_embeddings": False,
                                   "activation_function": "relu", "layer_norm_epsilon": 1e-3},
}


@pytest.mark.parametrize("name", GPT2)
def test_gpt2(name: str, tmp_path: Path) -> None:
    check(shaken(transformers.GPT2LMHeadModel(transformers.GPT2Config(**{**SIZES, **GPT2[name]}))), tmp_path)


@pytest.mark.parametrize("name", GPT)
def test_gpt(name: str, tmp_path: Path) -> None:
    check(shaken(transformers.OpenAIGPTLMHeadModel(transformers.OpenAIGPTConfig(**{**SIZES, **GPT[name]}))), tmp_path)


@pytest.mark.parametrize("name", NEO)
def test_gpt_neo(name: str, tmp_path: Path) -> None:
    sizes = {"vocab_size": 101, "hidden_size": 32, "num_layers": 2, "num_heads": 4, "max_position_embeddings": 64,
             "bos_token_id": 1, "eos_token_id": 2}
    theirs = transformers.GPTNeoForCausalLM(transformers.GPTNeoConfig(**{**sizes, **NEO[name]}))
    check(shaken(theirs), tmp_path)


def test_a_body_alone_and_old_entries_are_read(tmp_path: Path) -> None:
    theirs = shaken(transformers.GPT2LMHeadModel(transformers.GPT2Config(**SIZES)))
    theirs.transformer.save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    weights = load_file(file)
    assert "wte.weight" in weights
    weights["h.0.attn.bias"] = torch.ones(1, 1, 64, 64).tril()
    weights["h.1.attn.masked_bias"] = torch.tensor(-1e4)
    save_file(weights, file)
    ids = ids_of(101)
    with torch.no_grad():
        same(bothways.from_pretrained(tmp_path).logits(ids), theirs(ids).logits)


def test_an_unknown_entry_is_named(tmp_path: Path) -> None:
    theirs = transformers.GPT2LMHeadModel(transformers.GPT2Config(**SIZES))
    theirs.save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    weights = load_file(file)
    weights["transformer.h.0.attn.extra"] = weights.pop("transformer.h.1.mlp.c_fc.bias")
    save_file(weights, file)
    with pytest.raises(BothwaysError, match=r"lacks transformer\.h\.1\.mlp\.c_fc\.bias.*unknown transformer\.h\.0"):
        bothways.from_pretrained(tmp_path)


@pytest.mark.parametrize(("model_type", "entries", "word"), [
    ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx"),
    ("gpt2", {"activation_function": "mish"}, "activation_function 'mish'"),
    ("openai-gpt", {"afn": "gelu_new"}, "afn 'gelu_new'"),
])
def test_what_is_not_read_is_named(model_type: str, entries: dict[str, object], word: str) -> None:
    with pytest.raises(BothwaysError, match=word):
        families.KNOWN[model_type].from_config({**SIZES, **entries}, "config.json")


@pytest.mark.parametrize(("entries", "word"), [
    ({"attention_types": [[["global"], 3]]}, "3 layers, but num_layers is 2"),
    ({"attention_types": [[["strided"], 2]]}, "'strided'"),
    ({"window_size": 1}, "window_size 1"),
])
def test_layers_that_do_not_add_up_are_named(entries: dict[str, object], word: str) -> None:
    stored = {"vocab_size": 101, "hidden_size": 32, "num_layers": 2, "num_heads": 4, **entries}
    with pytest.raises(BothwaysError, match=word):
        families.KNOWN["gpt_neo"].from_config(stored, "config.json")


def test_what_does_not_fit_is_named() -> None:
    gpt2 = ModelConfig(Shape(50, 32, 2, 0, 4), Position("learned"), **{
        name: getattr(families.KNOWN["gpt2"].from_config(SIZES, ""), name)
        for name in ("norm", "feed_forward", "bias", "tied")})
    assert families.KNOWN["gpt2"].obstacle(gpt2) is None
    assert "shape.key_heads is 2" in str(families.KNOWN["gpt2"].obstacle(
        replace(gpt2, shape=Shape(50, 32, 2, 0, 4, 2))))
    assert "norm.place is 'before', not 'after'" in str(families.KNOWN["openai-gpt"].obstacle(gpt2))
    assert "scale is" in str(families.KNOWN["gpt_neo"].obstacle(gpt2))
