"""LLaDA is LLaMA that looks both ways: a LLaMA's weights under its names give the LLaMA's logits without a triangle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.families.reference import ids_of, same, shaken

import bothways
from bothways import families
from bothways.cli import main
from bothways.errors import BothwaysError

transformers = pytest.importorskip("transformers")
PUBLISHED = {"self_attn.q_proj": "q_proj", "self_attn.k_proj": "k_proj", "self_attn.v_proj": "v_proj",
             "self_attn.o_proj": "attn_out", "mlp.gate_proj": "ff_proj", "mlp.up_proj": "up_proj",
             "mlp.down_proj": "ff_out", "input_layernorm": "attn_norm", "post_attention_layernorm": "ff_norm"}
SIZES: dict[str, Any] = {
    "vocab_size": 103, "hidden_size": 32, "intermediate_size": 44, "num_hidden_layers": 2, "num_attention_heads": 4,
    "rope_parameters": {"rope_type": "default", "rope_theta": 500.0}}
CASES = {"plain": {}, "grouped, odd vocabulary": {"num_key_value_heads": 2, "vocab_size": 83, "rms_norm_eps": 1e-3},
         "tied, one layer": {"tie_word_embeddings": True, "num_hidden_layers": 1}}


def llada(folder: Path, **options: Any) -> Any:
    """A random LLaMA, and a folder with its weights under LLaDA's names."""
    theirs = shaken(transformers.LlamaForCausalLM(transformers.LlamaConfig(**{**SIZES, **options})))
    config, weights = theirs.config, {}
    for name, tensor in theirs.state_dict().items():
        stem, _, kind = name.rpartition(".")
        outer = {"model.embed_tokens": "wte", "model.norm": "ln_f", "lm_head": "ff_out"}
        if stem in outer:
            new = outer[stem]
        else:
            _, _, layer, part = stem.split(".", 3)
            new = f"blocks.{layer}.{PUBLISHED[part]}"
        weights[f"model.transformer.{new}.{kind}"] = tensor.clone()
    if config.tie_word_embeddings:
        weights.pop("model.transformer.ff_out.weight")
    folder.mkdir()
    save_file(weights, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({
        "model_type": "llada", "architectures": ["LLaDAModelLM"], "d_model": config.hidden_size,
        "n_layers": config.num_hidden_layers, "n_heads": config.num_attention_heads,
        "n_kv_heads": config.num_key_value_heads, "mlp_hidden_size": config.intermediate_size,
        "vocab_size": config.vocab_size - 3, "embedding_size": config.vocab_size, "max_sequence_length": 64,
        "rms_norm_eps": config.rms_norm_eps, "rope_theta": 500.0, "weight_tying": config.tie_word_embeddings,
        "block_type": "llama", "layer_norm_type": "rms", "activation_type": "silu", "include_bias": False,
        "include_qkv_bias": False, "alibi": False, "rope": True, "mask_token_id": 5, "bos_token_id": 1,
        "eos_token_id": 2, "pad_token_id": 2}))
    return theirs


@pytest.mark.parametrize("name", CASES)
def test_its_logits_are_those_of_a_llama_without_a_triangle(name: str, tmp_path: Path) -> None:
    theirs = llada(tmp_path / "llada", **CASES[name])
    ours, ids = bothways.from_pretrained(tmp_path / "llada"), ids_of(theirs.config.vocab_size)
    assert ours.objective.name == "diffusion" and ours.vocabulary.ids["<mask>"] == 5
    everywhere = torch.zeros(len(ids), 1, ids.shape[1], ids.shape[1])
    with torch.no_grad():
        reference = theirs(ids, attention_mask=everywhere).logits
        assert (reference - theirs(ids).logits).abs().max() > 1e-2
    same(ours.logits(ids), reference)
    # and back, to the bit
    ours.save_pretrained(tmp_path / "again", layout="llada")
    first, second = (load_file(tmp_path / one / "model.safetensors") for one in ("llada", "again"))
    assert {name for name in second if name not in first} <= {"model.transformer.ff_out.weight"}
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())
    assert torch.equal(bothways.from_pretrained(tmp_path / "again").logits(ids), ours.logits(ids))


def test_it_is_no_class_of_transformers(tmp_path: Path) -> None:
    llada(tmp_path / "llada")
    ours = bothways.from_pretrained(tmp_path / "llada")
    fits = families.fitting(ours.config, ours.objective)
    assert fits is not None and fits.model_type == "eurobert"


@pytest.mark.parametrize(("entries", "word"), [
    ({"block_type": "sequential"}, "block_type to 'sequential'"), ({"alibi": True}, "alibi"),
    ({"include_bias": True}, "include_bias"), ({"activation_type": "swiglu"}, "activation_type 'swiglu'")])
def test_what_is_not_read_is_named(entries: dict[str, object], word: str) -> None:
    stored = {"vocab_size": 83, "d_model": 32, "n_layers": 1, "n_heads": 2, "mlp_hidden_size": 44, **entries}
    with pytest.raises(BothwaysError, match=word):
        families.KNOWN["llada"].from_config(stored, "config.json")


def test_the_commands_describe_and_convert_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    llada(tmp_path / "llada")
    assert main(["describe", str(tmp_path / "llada")]) == 0
    assert "diffusion" in capsys.readouterr().out
    assert main(["convert", str(tmp_path / "llada"), str(tmp_path / "out"), "--layout", "llada"]) == 0
    assert "LLaDAModelLM" in capsys.readouterr().out
