"""Cached equals uncached, for ragged prefills and steps, one tower and two; what cannot be cached is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from bothways.batch import Example, pack
from bothways.errors import BothwaysError
from bothways.model import Cache, LanguageModel, ModelConfig, Norm, Position, Shape
from bothways.model.config import Temperature
from bothways.sparse import global_tokens, random_links, strided
from bothways.visibility import (
    bidirectional,
    block_causal,
    causal,
    chunked,
    prefix,
    same_block,
    same_document,
    valid,
    window,
)

SMALL = Shape(64, 32, 3, heads=4, key_heads=2)
CONFIGS = {
    "llama": ModelConfig(SMALL),
    "windows": ModelConfig(SMALL, reach="LG", local=3),
    "chunks": ModelConfig(SMALL, reach="CCG", chunk=3),
    "query-key norm": ModelConfig(SMALL, norm=Norm(query_key=True)),
    "soft cap": ModelConfig(SMALL, soft_cap=10.0),
    "learned": ModelConfig(SMALL, Position("learned", length=64)),
    "relative": ModelConfig(SMALL, Position("relative", buckets=8, distance=20)),
    "disentangled": ModelConfig(SMALL, Position("disentangled", buckets=4, distance=9)),
    "transformer-xl": ModelConfig(SMALL, Position("transformer-xl", distance=5)),
    "unturned layers": ModelConfig(SMALL, Position(where="RN", temperature=Temperature(0.5, 2)), reach="CG", chunk=3),
}
STEPS = {
    "even": [(5, 5, 5), (1, 1, 1), (1, 1, 1), (3, 3, 3), (1, 1, 1)],
    "ragged": [(2, 6, 1), (1, 1, 1), (0, 1, 2), (4, 0, 0), (1, 1, 1)],
    "late": [(0, 3, 0), (2, 0, 1), (1, 1, 1)],
}


def build(config):
    torch.manual_seed(0)
    network = LanguageModel(config).eval()
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if "norm" not in name:
                weight.mul_(6)
    return network


def read_in_steps(network, whole, steps, cache, source=None, **facts):
    """States of each text (in one row each), read a few tokens at a time."""
    texts = [whole.inputs[whole.fields["document"] == document] for document in range(cache.sequences)]
    read = [[] for _ in texts]
    for counts in steps:
        fields = cache.fields(counts)

        def now(parts, counts=counts):
            starts = cache.lengths.tolist()
            return torch.cat([part[start:start + n] for part, start, n in zip(parts, starts, counts)])
        fields |= {name: now(parts) for name, parts in facts.items()}
        inputs = now(texts)
        step = Example(inputs, whole.visibility, fields, source=source, cross=whole.cross)
        with torch.no_grad():
            states = network(step, cache).states
        source = None
        for document, part in enumerate(states.split(list(counts))):
            read[document].append(part)
    return torch.cat([torch.cat(parts) for parts in read])


def row(steps, visibility=causal & same_document, seed=0):
    lengths = torch.tensor(steps).sum(0)
    n = int(lengths.sum())
    index = torch.cat([torch.arange(int(length)) for length in lengths])
    tokens = torch.randint(44, 64, (n,), generator=torch.Generator().manual_seed(seed))
    return Example(tokens, visibility, {"index": index, "position": index,
                                        "document": torch.arange(len(lengths)).repeat_interleave(lengths)})


@pytest.mark.parametrize("steps", STEPS.values(), ids=STEPS.keys())
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
@pytest.mark.parametrize("visibility", [causal, causal & window(4, 4)], ids=repr)
def test_cached_is_uncached(config, steps, visibility):
    network, whole = build(config), row(steps, visibility & same_document)
    cache = network.cache(3, 4)  # too small at first: it grows
    cached = read_in_steps(network, whole, steps, cache)
    torch.testing.assert_close(cached, network(whole).states, atol=3e-5, rtol=1e-4)
    assert cache.lengths.tolist() == torch.tensor(steps).sum(0).tolist()


@pytest.mark.parametrize("steps", STEPS.values(), ids=STEPS.keys())
@pytest.mark.parametrize("visibility", [
    causal & chunked(3), causal & (window(1) | strided(3)), causal & (window(1) | global_tokens(0)),
    causal & (window(1) | random_links(2)), causal & block_causal(2)], ids=repr)
def test_sparse_patterns_cached_are_uncached(steps, visibility):
    network, whole = build(CONFIGS["llama"]), row(steps, visibility & same_document)
    torch.testing.assert_close(read_in_steps(network, whole, steps, network.cache(3, 4)), network(whole).states,
                               atol=3e-5, rtol=1e-4)


def test_blocks_are_cached_whole():
    """Block after block nothing earlier sees what comes, though inside a block everybody sees everybody."""
    network, steps = build(CONFIGS["llama"]), [(4, 4), (2, 2), (4, 2)]
    whole = row(steps, block_causal(2) & same_document)
    torch.testing.assert_close(read_in_steps(network, whole, steps, network.cache(2, 4)), network(whole).states,
                               atol=3e-5, rtol=1e-4)
    with pytest.raises(BothwaysError, match="no token sees a later one"):
        read_in_steps(network, whole, [(4, 4), (1, 1), (1, 1)], network.cache(2, 4))


def test_one_text_needs_no_documents():
    network = build(CONFIGS["llama"])
    steps = [(4,), (1,), (2,)]
    whole = row(steps, causal)
    torch.testing.assert_close(read_in_steps(network, whole, steps, network.cache(1, 16)), network(whole).states,
                               atol=3e-5, rtol=1e-4)


def test_a_prefix_is_read_both_ways_and_then_continued():
    network = build(CONFIGS["llama"])
    steps = [(3, 4), (1, 1), (2, 1)]
    whole = row(steps, prefix & same_document)
    belongs = [torch.tensor([1, 1, 1, 0, 0, 0]), torch.tensor([1, 1, 1, 1, 0, 0])]
    whole = replace(whole, fields={**whole.fields, "prefix": torch.cat(belongs)})
    cached = read_in_steps(network, whole, steps, network.cache(2, 8), prefix=belongs)
    torch.testing.assert_close(cached, network(whole).states, atol=3e-5, rtol=1e-4)


def test_hidden_tokens_stay_hidden_in_the_cache():
    network = build(CONFIGS["llama"])
    steps = [(3, 3), (1, 1), (1, 1)]
    real = [torch.tensor([0, 1, 1, 1, 1]), torch.tensor([1, 1, 0, 1, 1])]
    whole = row(steps, causal & valid & same_document)
    whole = replace(whole, fields={**whole.fields, "valid": torch.cat(real)})
    cached = read_in_steps(network, whole, steps, network.cache(2, 8), valid=real)
    torch.testing.assert_close(cached, network(whole).states, atol=3e-5, rtol=1e-4)


@pytest.mark.parametrize("sources", [(5, 5, 5), (4, 0, 7)], ids=["even", "ragged"])
@pytest.mark.parametrize("steps", STEPS.values(), ids=STEPS.keys())
@pytest.mark.parametrize("position", [Position(), Position("relative", buckets=8, distance=20)],
                         ids=["rotary", "bias"])
def test_cached_is_uncached_with_two_towers(sources, steps, position):
    network = build(ModelConfig(Shape(64, 32, 2, source_layers=2, heads=4, key_heads=2), position))
    source = row([sources], bidirectional & same_document, seed=9)
    whole = replace(row(steps), source=source, cross=bidirectional & same_document)
    cached = read_in_steps(network, whole, steps, network.cache(3, 4), source)
    torch.testing.assert_close(cached, network(whole).states, atol=3e-5, rtol=1e-4)


def test_beams_are_kept_repeated_and_reordered():
    network = build(ModelConfig(Shape(64, 32, 2, source_layers=1, heads=4)))

    def text(n, m):
        source = Example(torch.randint(44, 64, (m,)), bidirectional)
        return Example(torch.randint(44, 64, (n,)), causal, source=source, cross=bidirectional)
    one, two = [text(3, 4), text(5, 2)], [text(1, 0), text(1, 0), text(1, 0)]
    cache = network.cache(2, 8)
    with torch.no_grad():
        network(pack(one)[0], cache)
        cache.keep([1, 0, 1])
        step = Example(torch.cat([t.inputs for t in two]), causal & same_document, cache.fields(1), cross=same_document)
        cached = network(step, cache).states
        for place, text in enumerate((1, 0, 1)):
            whole = replace(one[text], inputs=torch.cat((one[text].inputs, two[place].inputs)), fields={})
            torch.testing.assert_close(cached[place], network(whole).states[-1], atol=3e-5, rtol=1e-4)


@pytest.mark.parametrize("visibility", [bidirectional, window(2, 2), causal | window(0, 1), valid, chunked(6),
                                        same_block, causal | global_tokens(3), window(0) | random_links(3),
                                        block_causal(6)],
                         ids=repr)
def test_a_cache_is_refused_where_an_earlier_token_could_see_a_later_one(visibility):
    network = build(CONFIGS["llama"])
    cache = network.cache(2, 8)

    def call(count):
        fields = cache.fields(count)
        fields["valid"] = fields["block"] = torch.ones(2 * count, dtype=torch.long)
        network(Example(torch.full((2 * count,), 50), visibility & same_document, fields), cache)
    call(3)  # reading at once is fine: nothing came before
    with pytest.raises(BothwaysError, match="no token sees a later one"):
        call(1)


def test_wrong_calls_of_a_cache_say_what_to_change():
    network = build(CONFIGS["llama"])
    cache = network.cache(2, 8)
    with pytest.raises(BothwaysError, match="keeps its documents apart"):
        network(Example(torch.full((2,), 50), causal, cache.fields(1)), cache)
    with pytest.raises(BothwaysError, match="holds 2 documents, but the example numbers one 2"):
        network(row([(1, 1, 1)]), cache)
    network(row([(2, 2)]), cache)
    fields = {**cache.fields(1), "prefix": torch.tensor([0, 0])}
    with pytest.raises(BothwaysError, match="without the field 'prefix'"):
        network(Example(torch.full((2,), 50), prefix & same_document, fields), cache)


def test_a_step_writes_in_place_and_keeps_no_graph():
    network = build(CONFIGS["llama"])
    cache = network.cache(2, 16)
    network(row([(3, 3)]), cache)
    before = [store.keys.data_ptr() for store in cache.stores]
    network(Example(torch.full((2,), 50), causal & same_document, cache.fields(1)), cache)
    assert before == [store.keys.data_ptr() for store in cache.stores]
    assert not any(store.keys.requires_grad for store in cache.stores)
    assert cache.stores[0].keys.shape == (2, 2, 16, 8)


RINGS = {"windows": 4, "chunks": 3}


def rings(network, sequences, capacity, slack=0, numbers="exact"):
    return Cache(network.config, sequences, capacity, slack=slack, numbers=numbers)


@pytest.mark.parametrize("slack", [0, 2])
@pytest.mark.parametrize("steps", [*STEPS.values(), [(9, 9, 9), *[(1, 1, 1)] * 9],
                                   [(7, 2, 0), *[(1, 1, 1)] * 6, (5, 1, 9)]])
@pytest.mark.parametrize("config", RINGS)
def test_a_ring_keeps_what_its_layer_reaches_and_no_more(config, steps, slack):
    network, whole = build(CONFIGS[config]), row(steps)
    cache = rings(network, 3, 2, slack)
    torch.testing.assert_close(read_in_steps(network, whole, steps, cache), network(whole).states, atol=3e-5, rtol=1e-4)
    for layer, store in enumerate(cache.stores):
        narrow = network.config.reach[layer % len(network.config.reach)] != "G"
        assert (store.keys.shape[2] <= RINGS[config] + slack) if narrow else store.keys.shape[2] == cache.capacity


def test_a_ring_needs_indexes_that_rise():
    network = build(CONFIGS["windows"])
    cache = rings(network, 1, 8)
    network(row([(4,)]), cache)
    with pytest.raises(BothwaysError, match="indexes that rise"):
        network(replace(row([(2,)]), fields={**cache.fields(2), "index": torch.tensor([3, 4])}), cache)


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("slack", [None, 3])
def test_tokens_are_taken_back(config, slack):
    """Read six tokens too many or too few, take some back, read others: as if never read."""
    network, steps = build(CONFIGS[config]), [(9, 6), (3, 3), (1, 1)]
    wrong, whole = row([(3, 3)], seed=5), row(steps)
    cache = rings(network, 2, 30, slack)
    with torch.no_grad():
        texts = [whole.inputs[whole.fields["document"] == document] for document in range(2)]
        network(Example(torch.cat([texts[0][:9], texts[1][:6]]), whole.visibility, cache.fields((9, 6))), cache)
        network(replace(wrong, fields=cache.fields(3)), cache)
        cache.shorten([9, 7])
        cache.shorten([9, 6])
        network(Example(torch.cat([texts[0][9:12], texts[1][6:9]]), whole.visibility, cache.fields(3)), cache)
        step = Example(torch.stack([texts[0][12], texts[1][9]]), whole.visibility, cache.fields(1))
        last = network(step, cache).states
    full = network(whole).states
    torch.testing.assert_close(last, full[[12, 22]], atol=3e-5, rtol=1e-4)
    if slack is not None and config in RINGS:
        with pytest.raises(BothwaysError, match="at most 3 can be taken back"):
            cache.shorten([2, 2])


@pytest.mark.parametrize("two", [False, True])
@pytest.mark.parametrize("config", ["llama", "windows", "relative"])
def test_documents_come_and_go_while_others_are_read(config, two):
    """Every text reads the same whether it came first or later, and whoever left or was repeated meanwhile."""
    shape = Shape(64, 32, 3, source_layers=1 if two else 0, heads=4, key_heads=2)
    network = build(replace(CONFIGS[config], shape=shape))

    def text(n, m, seed):
        made = torch.Generator().manual_seed(seed)
        source = Example(torch.randint(44, 64, (m,), generator=made), bidirectional) if two else None
        return Example(torch.randint(44, 64, (n,), generator=made), causal, source=source,
                       cross=bidirectional if two else None)
    texts = [text(9, 4, 0), text(12, 2, 1), text(7, 5, 2)]

    def beginning(number, length):
        return replace(texts[number], inputs=texts[number].inputs[:length], fields={})

    def step(cache, rows):
        tokens = torch.stack([texts[i].inputs[int(length)] for i, length in zip(rows, cache.lengths)])
        example = Example(tokens, causal & same_document, cache.fields(1), cross=same_document if two else None)
        states, places = network(example, cache).states, (cache.lengths - 1).tolist()
        for i, state, place in zip(rows, states, places):
            whole = network(replace(texts[i], fields={})).states
            torch.testing.assert_close(state, whole[place], atol=3e-5, rtol=1e-4)
    with torch.no_grad():
        cache, later = rings(network, 2, 3), rings(network, 1, 1)
        network(pack([beginning(0, 3), beginning(1, 5)])[0], cache)
        step(cache, [0, 1])
        network(pack([beginning(2, 2)])[0], later)
        cache.join(later)
        step(cache, [0, 1, 2])
        cache.keep([2, 1, 1])
        step(cache, [2, 1, 1])
        copied = cache.copy([1, 0])
        step(copied, [1, 2])
        cache.keep([1])
        step(cache, [1])
        again = rings(network, 2, 3)
        network(pack([beginning(0, 4), beginning(2, 2)])[0], again)
        cache.join(again)
        step(cache, [1, 0, 2])
        assert cache.sequences == 3 and (len(cache.source_lengths) == 3)


def test_documents_of_one_source_share_it():
    network = build(ModelConfig(Shape(64, 32, 2, source_layers=1, heads=4)))
    source = Example(torch.randint(44, 64, (6,)), bidirectional)
    with torch.no_grad():
        cache = network.cache(1, 8)
        network(pack([Example(torch.tensor([50, 51]), causal, source=source, cross=bidirectional)])[0], cache)
        cache.keep([0, 0, 0])
        tokens = torch.tensor([45, 46, 47])
        states = network(Example(tokens, causal & same_document, cache.fields(1), cross=same_document), cache).states
        assert cache.cross[0].keys.shape[0] == 1
        for token, state in zip(tokens, states):
            whole = Example(torch.tensor([50, 51, int(token)]), causal, source=source, cross=bidirectional)
            torch.testing.assert_close(state, network(whole).states[-1], atol=3e-5, rtol=1e-4)


@pytest.mark.parametrize("config", ["llama", "windows", "relative"])
def test_int8_is_near_and_small(config):
    """The approximation's error on random networks: states move by less than 2 percent of their size."""
    network, steps = build(CONFIGS[config]), [(5, 9, 2), *[(1, 1, 1)] * 8, (2, 2, 2)]
    whole = row(steps)
    exact, near = rings(network, 3, 40), rings(network, 3, 40, numbers="int8")
    states, rounded = (read_in_steps(network, whole, steps, cache) for cache in (exact, near))
    error = ((states - rounded).norm() / states.norm()).item()
    assert 1e-5 < error < 0.02
    assert near.bytes < 0.4 * exact.bytes  # one number of 8 bits for each of 32, and a scale for each vector of 8
