"""PaLM has no published weights: its block is held against its formula, and the class that shares its design."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.families.reference import same
from torch import Tensor
from torch.nn import functional as F

import bothways
from bothways import families, objectives
from bothways.batch import pack
from bothways.families.folder import Trained, save
from bothways.families.sizes import palm
from bothways.model import LanguageModel, ModelConfig
from bothways.objectives.base import ask, reading
from bothways.text.tokenizer import Tokenizer
from bothways.visibility import causal

TOKENIZER = Tokenizer.train(["the cat sat on the mat, and a dog ran to the house"], kind="bytes", size=300)
V = TOKENIZER.vocabulary.size
TINY = palm(2, 32, 4)
TINY = replace(TINY, shape=replace(TINY.shape, vocabulary=V, head_size=10))
CASES = {
    "as published": TINY,
    "two key heads, odd vocabulary, one layer": replace(TINY, shape=replace(TINY.shape, key_heads=2, vocabulary=V + 3,
                                                                            layers=1)),
    "untied, unscaled, another base": replace(TINY, tied=False, head=replace(TINY.head, scale=None),
                                              position=replace(TINY.position, base=300.0)),
}
IDS = torch.randint(45, V, (3, 17), generator=torch.Generator().manual_seed(0))


def network(config: ModelConfig) -> LanguageModel:
    torch.manual_seed(1)
    built = LanguageModel(config)
    with torch.no_grad():
        for weight in built.parameters():
            weight.add_(torch.randn_like(weight) * 0.1)
    return built.eval()


def turn(heads: Tensor, base: float) -> Tensor:
    """Each pair (k, k + size / 2) of (L, H, size) by its place."""
    half = heads.shape[-1] // 2
    places = torch.arange(len(heads))[:, None] * base ** (-torch.arange(half) / half)
    pairs = torch.complex(heads[..., :half], heads[..., half:]) * torch.polar(torch.ones(()), places)[:, None]
    return torch.cat((pairs.real, pairs.imag), dim=-1)


def formula(built: LanguageModel, ids: Tensor) -> Tensor:
    """The lines of docs/families-derived.md for one text, in plain products."""
    config, weights = built.config, dict(built.named_parameters())
    size, heads, shared = config.head_size, config.shape.heads, config.key_heads
    states = weights["embedding.weight"][ids]
    seen = torch.ones(len(ids), len(ids)).tril().bool()
    for i in range(config.shape.layers):
        block = {name.removeprefix(f"tower.blocks.{i}."): weight for name, weight in weights.items()}
        normed = F.layer_norm(states, states.shape[-1:], block["attention_norm.weight"], None, 1e-6)
        made = (normed @ block["attention.qkv.weight"].T).unflatten(-1, (-1, size))
        queries, keys, values = made.split([heads, shared, shared], dim=1)
        queries, keys = turn(queries, config.position.base), turn(keys, config.position.base)
        read = []
        for head in range(heads):
            kept = head // (heads // shared)
            scores = (queries[:, head] @ keys[:, kept].T / size ** 0.5).masked_fill(~seen, -torch.inf)
            read.append(scores.softmax(-1) @ values[:, kept])
        up, gate = (normed @ block["feed_forward.up_gate.weight"].T).chunk(2, dim=-1)
        states = (states + torch.cat(read, -1) @ block["attention.out.weight"].T
                  + (F.silu(gate) * up) @ block["feed_forward.down.weight"].T)
    states = F.layer_norm(states, states.shape[-1:], weights["tower.norm.weight"], None, 1e-6)
    scored = states @ weights.get("head.weight", weights["embedding.weight"]).T
    return scored if config.head.scale is None else scored * config.head.scale


@pytest.mark.parametrize("name", CASES)
def test_the_block_is_its_formula_with_its_gradients(name: str) -> None:
    built = network(CASES[name])
    (packed,) = pack([reading(row.numpy(), causal, prefix=False) for row in IDS])
    results = []
    for mine in (True, False):
        built.zero_grad()
        scores = (built.logits(built(packed).states).unflatten(0, IDS.shape) if mine
                  else torch.stack([formula(built, row) for row in IDS]))
        (scores * scores.detach().cos()).sum().backward()
        results.append((scores.detach(), *(weight.grad.clone() for weight in built.parameters())))
    for ours, written in zip(*results, strict=True):
        same(ours, written)


def test_one_key_head_is_all_heads_with_it_copied() -> None:
    built = network(TINY)
    copied = LanguageModel(replace(TINY, shape=replace(TINY.shape, key_heads=4))).eval()
    size, weights = TINY.head_size, built.state_dict()
    for name, weight in weights.items():
        if name.endswith("qkv.weight"):
            queries, keys, values = weight.split([4 * size, size, size])
            weights[name] = torch.cat((queries, *[keys] * 4, *[values] * 4))
    copied.load_state_dict(weights)
    (packed,) = pack([reading(row.numpy(), causal, prefix=False) for row in IDS])
    same(copied.logits(copied(packed).states), built.logits(built(packed).states))


def test_cached_and_asked_alone_are_the_whole() -> None:
    built, row = network(TINY), reading(IDS[0].numpy(), causal, prefix=False)
    with torch.no_grad():
        whole = built(row).states
        cache = built.cache(1, len(row))
        for place, token in enumerate(IDS[0].tolist()):
            here = replace(reading(np.array([token]), causal, prefix=False), fields=cache.fields(1))
            same(built(here, cache).states[0], whole[place])
        where = np.array([3, 9])
        asked = replace(row, asks=(ask(where, IDS[0].numpy()[where]),))
        same(built(asked, only_asked=True).states[where], whole[where])


@pytest.mark.parametrize("name", CASES)
def test_it_is_exported_as_the_class_that_shares_its_block(name: str, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    built = network(CASES[name])
    model = Trained(built, objectives.make("next-token", TOKENIZER.vocabulary), TOKENIZER)
    assert families.fitting(built.config, model.objective) is families.KNOWN["cohere"]
    save(model, tmp_path / "model")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "model").eval()
    assert type(theirs).__name__ == "CohereForCausalLM"
    with torch.no_grad():
        same(bothways.Model(model).logits(IDS), theirs(IDS).logits)
