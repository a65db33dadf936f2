"""GGUF: what llama.cpp would write is read back to the same logits, and a strange file is refused in one sentence."""

from __future__ import annotations

import importlib.util
import json
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import bothways
from bothways import objectives
from bothways.errors import BothwaysError
from bothways.families import KNOWN as FAMILIES
from bothways.families.base import Family
from bothways.families.folder import Trained, load
from bothways.families.gguf_file import Gguf
from bothways.families.gguf_tokenizer import tokenizer_of
from bothways.model import LanguageModel, ModelConfig, Norm, Position, Shape
from bothways.text.tokenizer import Tokenizer

TOKENIZER = Tokenizer.train(["the cat sat on the mat, and a dog ran to the house in 1999"] * 3, kind="bpe", size=340)
V = TOKENIZER.vocabulary.size
IDS = torch.randint(0, V, (2, 9), generator=torch.Generator().manual_seed(0))


def text(words: str) -> bytes:
    return struct.pack("<Q", len(words.encode())) + words.encode()


def value(one: object) -> bytes:
    """A value of a header with its type."""
    if isinstance(one, bool):
        return struct.pack("<I?", 7, one)
    if isinstance(one, int):
        return struct.pack("<II", 4, one)
    if isinstance(one, float):
        return struct.pack("<If", 6, one)
    if isinstance(one, str):
        return struct.pack("<I", 8) + text(one)
    assert isinstance(one, list)
    items = [value(item) for item in one]
    return struct.pack("<I", 9) + items[0][:4] + struct.pack("<Q", len(one)) + b"".join(item[4:] for item in items)


def write(file: Path, fields: dict[str, Any], tensors: dict[str, np.ndarray], types: dict[str, int] | None = None,
          version: int = 3) -> Path:
    """A GGUF file by the specification; quantised rows come as bytes with their type in `types`."""
    infos, data = b"", b""
    for name, rows in tensors.items():
        kind = (types or {}).get(name, {"float32": 0, "float16": 1}.get(str(rows.dtype), 0))
        shape = rows.shape if rows.dtype != np.uint8 else (*rows.shape[:-1], rows.shape[-1] // 34 * 32)
        infos += text(name) + struct.pack(f"<I{len(shape)}Q", len(shape), *shape[::-1])
        infos += struct.pack("<IQ", kind, len(data))
        data += rows.tobytes() + bytes(-rows.nbytes % 32)
    head = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(fields))
    head += b"".join(text(key) + value(one) for key, one in fields.items()) + infos
    file.write_bytes(head + bytes(-len(head) % 32) + data)
    return file


def interleaved(rows: np.ndarray, heads: int) -> np.ndarray:
    """Rows (k, k + half) of every head as the pairs (2 k, 2 k + 1)."""
    return np.ascontiguousarray(rows.reshape(heads, 2, -1, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape))


def written(trained: Trained, file: Path, half: bool = False) -> Path:
    """A Llama network as llama.cpp would write it."""
    config, family = trained.config, FAMILIES["llama"]
    assert isinstance(family, Family)
    named = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
    parts = {"input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "self_attn.q_proj": "attn_q",
             "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
             "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down"}
    named |= {f"model.layers.{i}.{theirs}": f"blk.{i}.{own}" for i in range(config.shape.layers)
              for theirs, own in parts.items()}
    tensors = {}
    for name, tensor in family.export(trained.network.state_dict(), config).items():
        rows = tensor.detach().numpy()
        if "q_proj" in name:
            rows = interleaved(rows, config.shape.heads)
        if "k_proj" in name:
            rows = interleaved(rows, config.key_heads)
        tensors[named[name.removesuffix(".weight")] + ".weight"] = rows.astype("f2") if half and rows.ndim > 1 else rows
    core = json.loads(TOKENIZER.core.to_str())["model"]
    fields = {
        "general.architecture": "llama", "llama.block_count": config.shape.layers,
        "llama.context_length": config.position.length, "llama.embedding_length": config.shape.width,
        "llama.feed_forward_length": config.inner, "llama.attention.head_count": config.shape.heads,
        "llama.attention.head_count_kv": config.key_heads, "llama.rope.freq_base": config.position.base,
        "llama.attention.layer_norm_rms_epsilon": config.norm.epsilon, "llama.attention.key_length": config.head_size,
        "tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": [TOKENIZER.core.id_to_token(i) for i in range(V)],
        "tokenizer.ggml.token_type": [3 if special else 1 for special in TOKENIZER.vocabulary.special.tolist()],
        "tokenizer.ggml.merges": [" ".join(pair) for pair in core["merges"]],
        "tokenizer.ggml.bos_token_id": 1, "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.chat_template": "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<assistant>"}
    return write(file, fields, tensors)


def trained(**choices: Any) -> Trained:
    torch.manual_seed(1)
    network = LanguageModel(ModelConfig(**{"shape": Shape(V, 32, 2, 0, 4, 2), **choices}))
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(torch.randn_like(weight) * 0.1)
    return Trained(network.eval(), objectives.make("next-token", TOKENIZER.vocabulary), TOKENIZER)


CONFIGS: dict[str, dict[str, Any]] = {
    "tied, grouped heads": {},
    "untied, another base and epsilon": {"tied": False, "position": Position(base=500.0, length=77),
                                         "norm": Norm(epsilon=1e-3)},
    "wide heads, one shared": {"shape": Shape(V, 32, 3, 0, 2, 1, head_size=20, inner=50)},
}
needs_gguf = pytest.mark.skipif(importlib.util.find_spec("gguf") is None,
                                reason="needs the package gguf (pip install 'bothways[export]')")


@needs_gguf
@pytest.mark.parametrize("name", CONFIGS)
def test_the_same_logits_and_text(name: str, tmp_path: Path) -> None:
    model = trained(**CONFIGS[name])
    file = written(model, tmp_path / "model.gguf")
    found = bothways.from_pretrained(file)
    assert torch.equal(found.logits(IDS), bothways.Model(model).logits(IDS))
    assert found.tokenizer.encode("the cat in 1999<eos>") == TOKENIZER.encode("the cat in 1999<eos>")
    assert found.tokenizer.decode(TOKENIZER.encode("a dog")) == "a dog"
    # a folder that holds it alone stands for it, and it can be written as a folder of transformers
    again = bothways.from_pretrained(found.save_pretrained(tmp_path / "folder"))
    assert torch.equal(again.logits(IDS), found.logits(IDS))
    assert again.tokenizer.encode("the cat") == TOKENIZER.encode("the cat")
    assert torch.equal(load(tmp_path).network.state_dict()["embedding.weight"], found.trained.network.embedding.weight)
    assert again.tokenizer.chat([{"role": "user", "content": "hi"}]) == "<user>hi<assistant>"  # type: ignore[attr-defined]
    assert isinstance(again.chat("hi", max_new_tokens=3), str)


@needs_gguf
def test_half_and_quantised_numbers(tmp_path: Path) -> None:
    import gguf

    model = trained()
    whole = bothways.Model(model).logits(IDS)
    half = bothways.from_pretrained(written(model, tmp_path / "half.gguf", half=True))
    assert half.trained.dtype == torch.float32
    assert torch.allclose(half.logits(IDS), whole, atol=2e-2)
    asked = bothways.from_pretrained(tmp_path / "half.gguf", dtype=torch.float16).trained.network.state_dict()
    assert torch.equal(asked["embedding.weight"].float(), half.trained.network.embedding.weight)
    # blocks of 32 numbers with a scale each: off by half a step at most
    rows = np.random.default_rng(0).normal(size=(3, 64)).astype("f4")
    blocks = gguf.quants.quantize(rows, gguf.GGMLQuantizationType.Q8_0)
    fields = {"general.architecture": "llama", "llama.block_count": 1}
    file = write(tmp_path / "blocks.gguf", fields, {"token_embd.weight": blocks}, {"token_embd.weight": 8})
    found = Gguf(file).weights(["model.embed_tokens.weight"], model.config)
    assert found.shape("model.embed_tokens.weight") == (3, 64)
    off = (found["model.embed_tokens.weight"] - torch.from_numpy(rows)).abs()
    assert float(off.max()) <= np.abs(rows).max() / 127


@needs_gguf
def test_every_tensor_is_accounted_for(tmp_path: Path) -> None:
    fields = {"general.architecture": "llama", "llama.block_count": 1, "llama.embedding_length": 4,
              "llama.feed_forward_length": 4, "llama.attention.head_count": 2}
    tensors = {"token_embd.weight": np.zeros((5, 4), "f4"), "strange.weight": np.zeros(3, "f4")}
    with pytest.raises(BothwaysError, match=r"lacks .*model.norm.weight and holds the unknown strange.weight"):
        load(write(tmp_path / "model.gguf", fields, tensors))


def test_the_package_is_named_where_it_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(BothwaysError, match="need the package 'gguf'"):
        load(written(trained(), tmp_path / "model.gguf"))


def test_a_header_tells_config_and_tokenizer(tmp_path: Path) -> None:
    content = Gguf(written(trained(), tmp_path / "model.gguf"))
    family = FAMILIES["llama"]
    assert family.to_config(family.from_config(content.config, "here")) == family.to_config(trained().config)
    core = tokenizer_of(content.fields)
    assert core is not None
    for sentence in ("the cat in 1999", " dogs'll run\n\nÜber", "<mask> the<eos>", "日本 🙂"):
        assert core.encode(sentence, add_special_tokens=False).ids == TOKENIZER.encode(sentence)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.1, 0.3, 0.6, 0.99])
def test_truncated_files_are_refused(share: float, tmp_path: Path) -> None:
    file = written(trained(), tmp_path / "model.gguf")
    raw = file.read_bytes()
    file.write_bytes(raw[:int(share * len(raw))])
    with pytest.raises(BothwaysError, match=r"is truncated or not a GGUF file|need the package 'gguf'"):
        load(file)


@pytest.mark.parametrize(
    ("raw", "what"),
    [
        (b"PK\x03\x04" + bytes(40), "does not begin with GGUF"),
        (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), r"of GGUF version 50331648, but versions 2 and 3 \(little-endian\)"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 2**60), "a text in it is longer than a gigabyte"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + text("a") + struct.pack("<IIQ", 9, 4, 2**60), "than a gigabyte"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + text("a") + struct.pack("<I", 77), "unknown type 77"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 2**62), "truncated"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + text("general.architecture") + value("lama"), "did you mean 'llama'"),
    ],
)
def test_strange_headers_are_refused(raw: bytes, what: str, tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(raw)
    with pytest.raises(BothwaysError, match=what):
        load(tmp_path / "model.gguf")


def test_a_name_twice_and_two_files(tmp_path: Path) -> None:
    fields = {"general.architecture": "llama"}
    file = write(tmp_path / "a.gguf", fields, {"one": np.zeros(3, "f4"), "two": np.zeros(3, "f4")})
    file.write_bytes(file.read_bytes().replace(text("two"), text("one")))
    with pytest.raises(BothwaysError, match="one stands in it twice"):
        load(file)
    write(tmp_path / "b.gguf", fields, {})
    with pytest.raises(BothwaysError, match="holds 2 GGUF files: name one of them"):
        load(tmp_path)


def test_a_template_stays_in_its_sandbox(tmp_path: Path) -> None:
    from bothways.families.chat import render

    turns = [{"role": "user", "content": "hi"}]
    assert render("{{ bos_token }}{{ messages[0].content }}", turns, {"bos_token": "<s>"}, "here") == "<s>hi"
    for template in ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "{{ messages.append(1) }}", "{% if %}",
                     "{{ raise_exception('only users speak') }}"):
        with pytest.raises(BothwaysError, match="the chat template of here does not take this conversation"):
            render(template, turns, {}, "here")
    with pytest.raises(BothwaysError, match="is written"):
        render("x", [{"role": "user"}], {}, "here")


PIECES = Path(os.environ.get("BOTHWAYS_DATA", "")) / "weights" / "stories260K" / "tok512.model"


@pytest.mark.skipif(not PIECES.is_file(), reason="set BOTHWAYS_DATA to the folder that holds weights/stories260K")
def test_pieces_are_those_of_sentencepiece() -> None:
    sentencepiece = pytest.importorskip("sentencepiece")
    model = sentencepiece.SentencePieceProcessor(model_file=str(PIECES))
    size = model.get_piece_size()
    types = [2 if model.is_unknown(i) else 3 if model.is_control(i) else 6 if model.is_byte(i) else 1
             for i in range(size)]
    core = tokenizer_of({"tokenizer.ggml.model": "llama", "tokenizer.ggml.token_type": types,
                         "tokenizer.ggml.tokens": [model.id_to_piece(i) for i in range(size)],
                         "tokenizer.ggml.scores": [model.get_score(i) for i in range(size)]})
    assert core is not None
    story = "Once upon a time, there was a little girl named Lily. She didn't like 3 dogs! Über, 日本."
    assert core.encode(story, add_special_tokens=False).ids == model.encode(story)
    assert core.decode(model.encode(story)) == story
