"""Attention by way of latents: its formula, both forms of decoding, what is cached, and what it cannot go with."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from bothways.batch import Example, pack
from bothways.errors import BothwaysError
from bothways.model import Cache, LanguageModel, LatentHeads, ModelConfig, Norm, Position, Shape, cost
from bothways.model.latent_attention import LatentAttention
from bothways.visibility import causal, same_document

SHAPE = Shape(64, 32, 2, heads=4, head_size=11)
CONFIGS = {"queries of a latent": ModelConfig(SHAPE, latent=LatentHeads(10, 12, 4, 6)),
           "wide values": ModelConfig(SHAPE, latent=LatentHeads(8, None, 6, 13)),
           "windows": ModelConfig(SHAPE, latent=LatentHeads(9, None, 2), reach="LG", local=3, scale=0.2)}


def build(config: ModelConfig) -> LanguageModel:
    torch.manual_seed(0)
    network = LanguageModel(config).eval()
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if "norm" not in name:
                weight.mul_(6)
    return network


def text(length: int) -> Example:
    return Example(torch.randint(44, 64, (length,), generator=torch.Generator().manual_seed(length)), causal)


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
@pytest.mark.parametrize("absorbs", [True, False])
@pytest.mark.parametrize("slack", [None, 0])
def test_cached_is_uncached_in_both_forms(config: ModelConfig, absorbs: bool, slack: int | None) -> None:
    network, whole = build(config), text(11)
    for part in network.modules():
        if isinstance(part, LatentAttention):
            part.absorbs = absorbs
    cache = Cache(config, 1, 3, slack=slack)
    with torch.no_grad():
        steps = [network(Example(part, causal, cache.fields(len(part))), cache).states
                 for part in whole.inputs.split([4, 1, 3, 1, 1, 1])]
    torch.testing.assert_close(torch.cat(steps), network(whole).states, atol=3e-5, rtol=1e-4)


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
def test_packed_is_alone_and_rows_are_those_of_all(config: ModelConfig) -> None:
    network, texts = build(config), [text(5), text(8)]
    (packed,) = pack([replace(one, visibility=causal & same_document) for one in texts])
    torch.testing.assert_close(network(packed).states, torch.cat([network(one).states for one in texts]),
                               atol=3e-5, rtol=1e-4)


def test_only_the_latent_and_its_rotary_key_are_kept() -> None:
    network = build(CONFIGS["queries of a latent"])
    cache = network.cache(3, 16)
    assert [len(store.kept) for store in cache.stores] == [1, 1]
    assert cache.bytes == 2 * 3 * 16 * (10 + 4) * 4


def test_parameters_are_products_and_pairs_count_both_widths() -> None:
    config = CONFIGS["queries of a latent"]
    block = build(config).tower.blocks[0]
    weights = sum(weight.numel() for name, weight in block.named_parameters() if "norm" not in name)
    assert cost.block_products(config) == weights
    assert cost._pairs(config, 1.0) == 2 * 4 * (11 + 6)


@pytest.mark.parametrize(("choices", "said"), [
    ({"position": Position("none")}, r"turned part of their own"), ({"norm": Norm(query_key=True)}, r"norm\.query_key"),
    ({"shape": replace(SHAPE, key_heads=2)}, r"shape\.key_heads is 2"),
    ({"latent": LatentHeads(8, None, 12)}, "is more than"), ({"latent": LatentHeads(0, None, 4)}, r"latent\.keys is 0"),
])
def test_contradictions_are_named(choices: dict[str, object], said: str) -> None:
    with pytest.raises(BothwaysError, match=said):
        replace(CONFIGS["wide values"], **choices)  # type: ignore[arg-type]
