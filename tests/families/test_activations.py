"""Every activation, plain and gated: value by formula, gradient by differences, and its names in published files."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest
import torch
from tests.families import reference

import bothways
from bothways.errors import BothwaysError
from bothways.families import family
from bothways.families.gpt2 import READ as PLAIN
from bothways.families.llama import ACTIVATIONS as PUBLISHED
from bothways.families.llama import READ
from bothways.model.choices import Activation
from bothways.model.feed_forward import ACTIVATIONS, gated

transformers = pytest.importorskip("transformers")
FORMULAS: dict[str, Callable[[float], float]] = {
    "silu": lambda x: x / (1 + math.exp(-x)), "gelu": lambda x: x * (1 + math.erf(x / math.sqrt(2))) / 2,
    "gelu_tanh": lambda x: x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2,
    "relu": lambda x: max(x, 0.0), "relu_squared": lambda x: max(x, 0.0)**2,
    "quick_gelu": lambda x: x / (1 + math.exp(-1.702 * x)), "tanh": math.tanh}


def test_all_are_here() -> None:
    assert set(get_args(Activation)) == set(ACTIVATIONS) == set(FORMULAS) == set(PUBLISHED)
    assert set(READ.values()) == set(PLAIN.values()) == set(FORMULAS)


@pytest.mark.parametrize("name", FORMULAS)
def test_value_and_gradient(name: str) -> None:
    points = torch.tensor([-3.1, -1.0, -0.2, 0.3, 1.7, 4.0], dtype=torch.float64)
    assert ACTIVATIONS[name](points).tolist() == pytest.approx([FORMULAS[name](x) for x in points.tolist()], rel=1e-12)
    fused = torch.cat([torch.linspace(-2, 2, 6, dtype=torch.float64), points]).requires_grad_()
    assert torch.autograd.gradcheck(lambda both: gated(both, name), (fused[None],))


@pytest.mark.parametrize("published", READ)
def test_published_gated(published: str, tmp_path: Path) -> None:
    theirs = transformers.LlamaForCausalLM(transformers.LlamaConfig(
        vocab_size=61, hidden_size=16, intermediate_size=20, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=32, hidden_act=published))
    _held(theirs, tmp_path)


@pytest.mark.parametrize("published", PLAIN)
def test_published_plain(published: str, tmp_path: Path) -> None:
    theirs = transformers.GPT2LMHeadModel(transformers.GPT2Config(
        vocab_size=61, n_embd=16, n_layer=2, n_head=2, n_positions=32, activation_function=published, bos_token_id=1,
        eos_token_id=2))
    _held(theirs, tmp_path)


def test_what_contradicts_itself_is_refused() -> None:
    t5 = {"vocab_size": 61, "d_model": 16, "d_kv": 8, "d_ff": 20, "num_layers": 1, "num_heads": 2}
    read = family("t5", "here").from_config
    assert read({**t5, "feed_forward_proj": "gated-gelu", "is_gated_act": True, "dense_act_fn": "gelu_new"}, "here")
    with pytest.raises(BothwaysError, match="is_gated_act to True, which contradicts feed_forward_proj 'relu'"):
        read({**t5, "is_gated_act": True}, "here")
    with pytest.raises(BothwaysError, match="dense_act_fn to silu, which contradicts"):
        read({**t5, "feed_forward_proj": "gated-gelu", "dense_act_fn": "silu"}, "here")


def _held(theirs: torch.nn.Module, folder: Path) -> None:
    theirs = reference.shaken(theirs, by=0.2)
    theirs.save_pretrained(folder)
    ours = bothways.from_pretrained(folder)
    ids = reference.ids_of(61, batch=2, length=7)
    with torch.no_grad():
        reference.same(ours.logits(ids), theirs(input_ids=ids).logits)
