"""What the published folders of T5, FLAN-T5 and UL2 say is read as their papers have it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.families.reference import check, ids_of, same, shaken

import bothways
from bothways import families
from bothways.model.cost import parameters

transformers = pytest.importorskip("transformers")
COMMON = {"decoder_start_token_id": 0, "eos_token_id": 1, "pad_token_id": 0, "is_encoder_decoder": True,
          "layer_norm_epsilon": 1e-6, "model_type": "t5", "n_positions": 512, "relative_attention_num_buckets": 32,
          "vocab_size": 32128}
NEWER = {**COMMON, "relative_attention_max_distance": 128, "tie_word_embeddings": False}
PUBLISHED: dict[str, tuple[dict[str, Any], tuple[str, str], bool, float]] = {
    "T5 small": ({**COMMON, "d_ff": 2048, "d_kv": 64, "d_model": 512, "num_heads": 8, "num_layers": 6,
                  "dropout_rate": 0.1}, ("plain", "relu"), True, 60.5),
    "T5 11B": ({**COMMON, "d_ff": 65536, "d_kv": 128, "d_model": 1024, "num_heads": 128, "num_layers": 24},
               ("plain", "relu"), True, 11307),
    "FLAN-T5 small": ({**NEWER, "d_ff": 1024, "d_kv": 64, "d_model": 512, "num_heads": 6, "num_layers": 8,
                       "num_decoder_layers": 8, "feed_forward_proj": "gated-gelu"}, ("gated", "gelu_tanh"), False, 77),
    "FLAN-T5 XXL": ({**NEWER, "d_ff": 10240, "d_kv": 64, "d_model": 4096, "num_heads": 64, "num_layers": 24,
                     "num_decoder_layers": 24, "feed_forward_proj": "gated-gelu"},
                    ("gated", "gelu_tanh"), False, 11135),
    "UL2": ({**NEWER, "d_ff": 16384, "d_kv": 256, "d_model": 4096, "num_heads": 16, "num_layers": 32,
             "num_decoder_layers": 32, "feed_forward_proj": "gated-silu"}, ("gated", "silu"), False, 19600),
}
"""Entries; feed-forward; whether states are scaled on their way to a head that is the embedding; million parameters."""


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_entries(name: str) -> None:
    entries, (kind, activation), first, millions = PUBLISHED[name]
    family = families.KNOWN["t5"]
    config = family.from_config(entries, "config.json")
    config = family.settled(config, () if first else ("lm_head.weight",))
    assert (config.feed_forward.kind, config.feed_forward.activation) == (kind, activation)
    assert config.tied == first
    assert config.head.scale == (pytest.approx(entries["d_model"] ** -0.5) if first else None)
    assert (config.scale, config.bias, config.position.distance, config.position.buckets) == (1.0, False, 128, 32)
    assert parameters(config)["total"] / 1e6 == pytest.approx(millions, rel=0.01)


def test_the_first_t5_with_what_its_files_repeat(tmp_path: Path) -> None:
    config = transformers.T5Config(vocab_size=103, d_model=32, d_kv=6, d_ff=44, num_layers=2, num_heads=4,
                                   decoder_start_token_id=0)
    theirs = shaken(transformers.T5ForConditionalGeneration(config))
    source, ids = ids_of(103, length=21, seed=5), ids_of(103)
    ours = check(theirs, tmp_path, source=source, ids=ids)
    assert ours.config.tied and ours.config.head.scale == pytest.approx(32 ** -0.5)
    file = tmp_path / "theirs/model.safetensors"
    weights = load_file(file)
    for name in ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight"):
        weights[name] = weights["shared.weight"].clone()
    weights["decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"] = torch.randn(32, 4)
    save_file(weights, file)
    with torch.no_grad():
        same(bothways.from_pretrained(tmp_path / "theirs").logits(ids, source=source),
             theirs(input_ids=source, decoder_input_ids=ids).logits)
