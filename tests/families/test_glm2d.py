"""The first GLM: its published names and config, and its function written out, since `transformers` has no class."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
import torch
from safetensors.torch import load_file, save_file
from tests.families.reference import ids_of, same
from torch import Tensor
from torch.nn import functional as F

import bothways
from bothways import families
from bothways.batch import RESERVED_TOKENS, Example, Vocabulary
from bothways.errors import BothwaysError
from bothways.families.trained import Trained
from bothways.model import FeedForward, LanguageModel, ModelConfig, Norm, Position, Shape
from bothways.objectives import make
from bothways.text.tokenizer import Tokenizer
from bothways.visibility import make_fields, prefix

SIZES = {"model_type": "glm", "architectures": ["GLMModel"], "vocab_size": 101, "hidden_size": 24, "num_layers": 2,
         "num_attention_heads": 3, "max_sequence_length": 40, "block_position_encoding": True, "pool_token": "cls",
         "attention_scale": 1.0, "relative_encoding": False, "spell_length": None, "spell_func": "lstm"}
LATER = {"model_type": "glm", "vocab_size": 101, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
         "num_key_value_heads": 2, "intermediate_size": 44, "max_position_embeddings": 64, "head_dim": 8}
CONFIGS: dict[str, dict[str, Any]] = {
    "as published": {}, "deeper, odd": {"num_layers": 3, "hidden_size": 30, "vocab_size": 77, "attention_scale": 8.0},
    "one place": {"block_position_encoding": False}}


def published(sizes: dict[str, Any], front: str = "") -> dict[str, Tensor]:
    """Random weights under the names of the published files."""
    width, rows = sizes["hidden_size"], sizes["max_sequence_length"] + sizes["block_position_encoding"]
    shapes = {"word_embeddings.weight": (sizes["vocab_size"], width),
              "transformer.position_embeddings.weight": (rows, width)}
    if sizes["block_position_encoding"]:
        shapes["transformer.block_position_embeddings.weight"] = (rows, width)
    for i in range(sizes["num_layers"]):
        for name, (out, into) in {"attention.query_key_value": (3 * width, width), "attention.dense": (width, width),
                                  "mlp.dense_h_to_4h": (4 * width, width), "mlp.dense_4h_to_h": (width, 4 * width)
                                  }.items():
            shapes[f"transformer.layers.{i}.{name}.weight"] = (out, into)
            shapes[f"transformer.layers.{i}.{name}.bias"] = (out,)
    for norm in [f"layers.{i}.{name}_layernorm" for i in range(sizes["num_layers"])
                 for name in ("input", "post_attention")] + ["final_layernorm"]:
        shapes |= {f"transformer.{norm}.weight": (width,), f"transformer.{norm}.bias": (width,)}
    generator = torch.Generator().manual_seed(3)
    return {front + name: torch.randn(shape, generator=generator) * 0.2 + name.endswith("layernorm.weight")
            for name, shape in shapes.items()}


def written_out(weights: dict[str, Tensor], sizes: dict[str, Any], ids: Tensor, places: Tensor, numbers: Tensor,
                sees: Tensor) -> Tensor:
    """Logits (L, V) of one text by the lines of docs/families-derived.md, with plain products."""
    def linear(states: Tensor, name: str) -> Tensor:
        return states @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    def normed(states: Tensor, name: str) -> Tensor:
        return F.layer_norm(states, states.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"], 1e-5)

    states = weights["word_embeddings.weight"][ids] + weights["transformer.position_embeddings.weight"][places]
    if sizes["block_position_encoding"]:
        states = states + weights["transformer.block_position_embeddings.weight"][numbers]
    heads, scale = sizes["num_attention_heads"], sizes["attention_scale"]
    for i in range(sizes["num_layers"]):
        layer = f"transformer.layers.{i}"
        queries, keys, values = (part.unflatten(-1, (heads, -1)).transpose(0, 1) for part in linear(
            normed(states, f"{layer}.input_layernorm"), f"{layer}.attention.query_key_value").chunk(3, dim=-1))
        # the published scale: divided by before the softmax's largest score is taken away, multiplied with after
        scores = queries @ keys.transpose(1, 2) / math.sqrt(keys.shape[-1]) / scale
        scores = (scores - scores.masked_fill(~sees, -torch.inf).amax(-1, keepdim=True)) * scale
        read = scores.masked_fill(~sees, -torch.inf).softmax(-1) @ values
        states = states + linear(read.transpose(0, 1).flatten(1), f"{layer}.attention.dense")
        inner = F.gelu(linear(normed(states, f"{layer}.post_attention_layernorm"), f"{layer}.mlp.dense_h_to_4h"))
        states = states + linear(inner, f"{layer}.mlp.dense_4h_to_h")
    return normed(states, "transformer.final_layernorm") @ weights["word_embeddings.weight"].T


def folder_of(folder: Path, sizes: dict[str, Any], front: str = "") -> tuple[Path, dict[str, Tensor]]:
    weights = published(sizes)
    save_file({front + name: tensor for name, tensor in weights.items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(sizes))
    return folder, weights


@pytest.mark.parametrize("front", ["", "glm."], ids=["a body", "with a head"])
@pytest.mark.parametrize("name", CONFIGS)
def test_the_function_written_out(name: str, front: str, tmp_path: Path) -> None:
    """A text as it comes, and a prefix of 7 tokens with spans of 4 and 2 behind it, in two places each."""
    sizes = {**SIZES, **CONFIGS[name]}
    folder, weights = folder_of(tmp_path, sizes, front)
    ours, ids = bothways.from_pretrained(folder), ids_of(sizes["vocab_size"], 1, 13)[0]
    places, causal = torch.arange(13), torch.ones(13, 13).tril().bool()
    with torch.no_grad():
        same(ours.logits(ids)[0], written_out(weights, sizes, ids, places, places * 0, causal))
        places = torch.tensor([0, 1, 2, 3, 4, 5, 6, 4, 4, 4, 4, 1, 1])
        numbers = torch.tensor([0] * 7 + [1, 2, 3, 4, 1, 2])
        numbers = numbers if sizes["block_position_encoding"] else numbers * 0
        fields = make_fields(13, position=places, span=numbers, prefix=(torch.arange(13) < 7).long())
        network = ours.trained.network
        mine = network.logits(network(Example(ids, prefix, fields)).states)
        same(mine, written_out(weights, sizes, ids, places, numbers, causal | (torch.arange(13) < 7)))


def test_out_and_in_again(tmp_path: Path) -> None:
    """Its own entries come back, to the bit; without a tokenizer it is a prefix model that speaks in ids."""
    (tmp_path / "first").mkdir()
    folder, weights = folder_of(tmp_path / "first", SIZES)
    ours = bothways.from_pretrained(folder)
    assert ours.objective.modes[0].visibility == prefix and "glm" in str(ours.objective.describe())
    again = ours.save_pretrained(tmp_path / "again", layout="glm-2d")
    second, config = load_file(again / "model.safetensors"), json.loads((again / "config.json").read_text())
    assert {name.removeprefix("glm.") for name in second} == weights.keys()
    assert all(torch.equal(second[f"glm.{name}"], tensor) for name, tensor in weights.items())
    assert all(config[name] == value for name, value in SIZES.items() if name != "architectures")
    ids = ids_of(101)
    assert torch.equal(bothways.from_pretrained(again).logits(ids), ours.logits(ids))
    assert "authors' own code" in (again / "README.md").read_text()
    # a plain folder of the same files is the same model
    del config["bothways"]
    (again / "config.json").write_text(json.dumps(config))
    assert torch.equal(bothways.from_pretrained(again).logits(ids), ours.logits(ids))


def test_what_is_trained_here_by_blank_infilling_has_its_names(tmp_path: Path) -> None:
    tokenizer = Tokenizer.train(["the cat sat on the mat. a dog ran to the house "] * 5, size=330)
    objective = make({"name": "glm", "longest": 31}, tokenizer.vocabulary)
    network = LanguageModel(ModelConfig(
        Shape(tokenizer.vocabulary.size, 24, 2, 0, 3), Position("learned", length=32), Norm("layer", epsilon=1e-5),
        FeedForward("plain", "gelu"), bias=True, companions=objective.companions)).eval()
    model = bothways.Model(Trained(network, objective, tokenizer))
    folder = model.save_pretrained(tmp_path / "glm", layout="glm-2d")
    config = json.loads((folder / "config.json").read_text())
    del config["bothways"]
    (folder / "config.json").write_text(json.dumps(config))
    again = bothways.from_pretrained(folder)
    assert again.objective.describe() == objective.describe()
    assert again.generate("the cat", max_new_tokens=8, temperature=0.0) == model.generate(
        "the cat", max_new_tokens=8, temperature=0.0)


def test_the_later_glm_keeps_its_model_type() -> None:
    assert families.recognised(LATER, "config.json").model_type == "glm"
    assert families.recognised(SIZES, "config.json").model_type == "glm-2d"


@pytest.mark.parametrize("options", [{"relative_encoding": True}, {"rotary_type": "1d"}, {"use_rmsnorm": True},
                                     {"num_experts": 4}, {"num_layers": None}])
def test_what_is_not_read_is_named(options: dict[str, Any]) -> None:
    with pytest.raises(BothwaysError, match=next(iter(options))):
        families.KNOWN["glm-2d"].from_config({**SIZES, **options}, "config.json")


def test_spans_begin_and_end_as_published_where_the_tokenizer_can() -> None:
    plain = Vocabulary.plain(len(RESERVED_TOKENS) + 50)
    ids = {**plain.ids, "<sop>": plain.size - 2, "<eop>": plain.size - 1}
    objective = make("glm", Vocabulary(plain.size, ids, plain.special, plain.starts_word, plain.ends_sentence,
                                       plain.n_bytes))
    text = np.arange(len(RESERVED_TOKENS), len(RESERVED_TOKENS) + 6)
    example = objective.laid_out(text, np.array([2]), np.array([2]), np.array([0]))
    assert example.inputs.tolist() == [*text[:2], plain.mask, *text[4:], plain.size - 2, *text[2:4]]
    assert example.asks[0].targets.tolist() == [*text[2:4], plain.size - 1]
    assert objective.stops == {plain.size - 1}


def test_a_published_tokenizer_s_pieces_are_known(tmp_path: Path) -> None:
    folder, _ = folder_of(tmp_path, {**SIZES, "bos_token_id": 1, "eos_token_id": 2})
    vocabulary = {"[MASK]": 5, "<|startofpiece|>": 3, "<|endofpiece|>": 4, "a": 6, "[UNK]": 7}
    core = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, "[UNK]"))
    core.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    core.add_special_tokens(["[MASK]", "<|startofpiece|>", "<|endofpiece|>"])
    core.save(str(folder / "tokenizer.json"))
    ours = bothways.from_pretrained(folder)
    assert ours.objective.name == "glm" and ours.objective.stops == {4}
    written = ours.objective.continuation(np.array([6, 6]))
    assert written.inputs.tolist() == [1, 6, 6, 5, 2, 3] and written.fields["span"].tolist() == [0] * 5 + [1]
    (filled,) = ours.fill(["a <mask> a"], max_new_tokens=3)
    assert "[MASK]" not in str(filled)
