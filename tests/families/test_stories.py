"""Real weights: stories260K (MIT), read by a few lines here, writes through our network the published story."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from bothways import decoding, objectives
from bothways.batch import Vocabulary
from bothways.decoding import GenerateConfig
from bothways.families import KNOWN
from bothways.families.folder import build, fill
from bothways.families.trained import Trained
from bothways.model import ModelConfig, Norm, Position, Shape

FOLDER = Path(os.environ.get("BOTHWAYS_DATA", "")) / "weights" / "stories260K"
pytestmark = pytest.mark.skipif(
    not (FOLDER / "stories260K.bin").is_file(), reason="set BOTHWAYS_DATA to the folder that holds weights/stories260K"
)


class Pieces:
    """The 512 pieces of llama2.c's tokenizer file: a float score, a length and the bytes of each."""

    def __init__(self, file: Path) -> None:
        raw, self.pieces, place = file.read_bytes(), [], 4
        while place < len(raw):
            _, length = struct.unpack_from("<fi", raw, place)
            self.pieces.append(raw[place + 8 : place + 8 + length])
            place += 8 + length

    def decode(self, ids: list[int], skip_reserved: bool = True) -> str:
        parts = [self.pieces[i] for i in ids if i > 2]
        return b"".join(bytes([int(p[3:5], 16)]) if len(p) == 6 and p.startswith(b"<0x") else p for p in parts).decode(
            "utf-8", errors="replace"
        )


def read() -> Trained:
    """The network with the published weights; rotary pairs (2k, 2k + 1) become (k, k + half)."""
    raw = np.fromfile(FOLDER / "stories260K.bin", dtype="<f4")
    dim, inner, layers, heads, keys, size, length = raw[:7].view("<i4").tolist()
    assert size > 0, "positive: the head is the embedding"
    head = dim // heads
    config = ModelConfig(
        Shape(size, dim, layers, 0, heads, keys, inner=inner), Position(length=length), Norm(epsilon=1e-5)
    )
    shapes = {
        "model.embed_tokens": (1, size, dim),
        "input_layernorm": (layers, dim),
        "self_attn.q_proj": (layers, dim, dim),
        "self_attn.k_proj": (layers, keys * head, dim),
        "self_attn.v_proj": (layers, keys * head, dim),
        "self_attn.o_proj": (layers, dim, dim),
        "post_attention_layernorm": (layers, dim),
        "mlp.gate_proj": (layers, inner, dim),
        "mlp.down_proj": (layers, dim, inner),
        "mlp.up_proj": (layers, inner, dim),
        "model.norm": (1, dim),
    }
    weights, place = {}, 7
    for name, shape in shapes.items():
        table = torch.from_numpy(raw[place : place + int(np.prod(shape))].reshape(shape).copy())
        place += table.numel()
        for i, tensor in enumerate(table):
            if name.endswith(("q_proj", "k_proj")):
                tensor = tensor.view(-1, head // 2, 2, dim).transpose(1, 2).reshape(-1, dim)
            weights[f"{name}.weight" if name.startswith("model.") else f"model.layers.{i}.{name}.weight"] = tensor
    assert place + 2 * length * head // 2 == len(raw), "what is left are the two rotary tables"
    network = build(config)
    fill(network, KNOWN["llama"].gather(weights, {}, config, "stories260K.bin"), "stories260K.bin")
    # <bos> is 1 and also ends a story
    special = np.arange(size) < 3
    vocabulary = Vocabulary(
        size,
        {"<unk>": 0, "<bos>": 1, "<eos>": 1, "<pad>": 2},
        special,
        ~special,
        np.zeros(size, bool),
        np.ones(size, np.int64),
    )
    return Trained(network.eval(), objectives.make("next-token", vocabulary), Pieces(FOLDER / "tok512.bin"))  # type: ignore[arg-type]


@pytest.mark.parametrize("cached", [True, False])
def test_greedy_writing_is_the_published_one(cached: bool) -> None:
    steps = 200 if cached else 60
    (story,) = decoding.generate(read(), [[]], GenerateConfig(max_new_tokens=steps, cached=cached))
    published = (FOLDER / "greedy_200.txt").read_text()
    assert story.text is not None
    assert published.strip().startswith(story.text.strip())
    if cached:
        assert story.text.strip() == published.strip()
    assert np.mean(story.logprobs) > -1.5  # it knows these stories: about 1.3 nats per token on others
