"""Every plan the planner makes says exactly what `allows` says, whatever it skips."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bothways.batch import Example
from bothways.model import flex
from bothways.model.cache import Cache
from bothways.model.config import ModelConfig, Shape
from bothways.model.looking_back import CachedPlanner
from bothways.model.render import Plan, Planner, render, simplify
from bothways.sparse import global_tokens, random_links, strided
from bothways.visibility import (
    bidirectional,
    block_causal,
    by_blocks,
    causal,
    chunked,
    from_part,
    into_part,
    make_fields,
    order,
    prefix,
    same_block,
    same_document,
    two_streams,
    valid,
    window,
)

CPU = torch.device("cpu")

atoms = st.sampled_from([bidirectional, causal, prefix, same_document, valid, order(), order("query"), window(2, 2),
                         window(0, None), window(None, 1), window(40, 40), chunked(2), chunked(3), chunked(50),
                         same_block, by_blocks, block_causal(3), global_tokens(), global_tokens(0, 3), strided(2),
                         random_links(1), random_links(2, 5), into_part(0), from_part(1), two_streams])
visibilities = st.recursive(atoms, lambda inner: st.builds(
    lambda a, b, both: a & b if both else a | b, inner, inner, st.booleans()), max_leaves=4)


def seen_by(plan: Plan, n_queries: int, n_keys: int) -> torch.Tensor:
    """The plan as a grid over rows, by doing what kernels do with it."""
    seen = torch.zeros(plan.query_slots, max(plan.key_slots, 1), dtype=torch.bool)
    for call in plan.calls:
        inside = call.seen(CPU)
        inside = torch.ones(1, 1, 1, dtype=torch.bool) if inside is None else inside
        inside = inside.expand(call.batch, call.queries, call.keys)
        for b in range(call.batch):
            q, k = call.first_query + b * call.queries, call.first_key + b * call.keys
            assert not seen[q:q + call.queries].any(), "two calls cover one query"
            seen[q:q + call.queries, k:k + call.keys] = inside[b]
    if plan.queries.back is not None:
        seen = seen[plan.queries.back]
    if plan.keys.back is not None:
        seen = seen[:, plan.keys.back]
    return seen[:n_queries, :n_keys]


@st.composite
def rows(draw, documents=None):
    """Fields of a packed row, with every field a visibility may ask for; sometimes the documents are scattered."""
    lengths = draw(st.lists(st.integers(0, 7), min_size=1, max_size=6)) if documents is None else documents
    n = sum(lengths)
    facts = [make_fields(length) for length in lengths]
    fields = {"index": torch.cat([f["index"] for f in facts]), "position": torch.cat([f["position"] for f in facts]),
              "document": torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths))}
    bits = st.lists(st.integers(0, 1), min_size=n, max_size=n)
    everywhere = draw(st.sampled_from(["ones", "zeros", "any"]))
    for name in ("prefix", "valid", "part", "global"):
        chosen = {"ones": [1] * n, "zeros": [0] * n}.get(everywhere) or draw(bits)
        fields[name] = torch.tensor(chosen, dtype=torch.long)
    scattered = torch.tensor(draw(st.lists(st.integers(0, 2), min_size=n, max_size=n)), dtype=torch.long)
    fields["block"] = fields["index"] // 2 if draw(st.booleans()) else scattered
    fields["rank"] = torch.tensor(draw(st.permutations(range(n))), dtype=torch.long)
    if draw(st.integers(0, 4)) == 0:
        shuffled = torch.tensor(draw(st.permutations(range(n))), dtype=torch.long)
        fields = {name: fact[shuffled] for name, fact in fields.items()}
    return fields


@given(visibilities, rows())
@settings(max_examples=300, deadline=None)
def test_a_plan_of_a_row_is_its_visibility(visibility, fields):
    n = len(fields["index"])
    plan = render(visibility, fields, None, CPU)
    assert torch.equal(seen_by(plan, n, n), visibility.allows(fields, fields))


@given(visibilities, rows(), rows())
@settings(max_examples=200, deadline=None)
def test_a_plan_across_two_rows_is_its_visibility(visibility, queries, keys):
    plan = render(visibility, queries, keys, CPU)
    seen = seen_by(plan, len(queries["index"]), len(keys["index"]))
    assert torch.equal(seen, visibility.allows(queries, keys))


@given(visibilities, rows())
@settings(max_examples=100, deadline=None)
def test_what_simplify_decides_is_decided(visibility, fields):
    left = simplify(visibility, fields, fields)
    truth = visibility.allows(fields, fields)
    if isinstance(left, bool):
        assert bool((truth == left).all())
    else:
        assert torch.equal(left.allows(fields, fields), truth)


@given(visibilities, st.lists(st.integers(0, 5), min_size=1, max_size=4), st.data())
@settings(max_examples=150, deadline=None)
def test_a_cached_plan_is_its_visibility(visibility, kept, data):
    """New tokens of some documents look at kept ones, laid out by document with spare room behind."""
    fresh = [data.draw(st.integers(0, 3)) for _ in kept]
    lengths = torch.tensor(kept) + torch.tensor(fresh)
    keys = data.draw(rows(documents=lengths.tolist()))
    starts = lengths.cumsum(0) - lengths
    if not torch.equal(keys["document"], torch.arange(len(kept)).repeat_interleave(lengths)):
        return  # a cache never holds scattered documents
    laid = {name: torch.stack([torch.nn.functional.pad(fact[s:s + n], (0, int(lengths.max()) - int(n)))
                               for s, n in zip(starts, lengths)]) for name, fact in keys.items()}
    new = torch.cat([torch.arange(s + k, s + n) for s, k, n in zip(starts, torch.tensor(kept), lengths)])
    queries = {name: fact[new] for name, fact in keys.items()}
    slots = torch.full((len(kept), max(*fresh, 0)), -1)
    for document, count in enumerate(fresh):
        slots[document, :count] = torch.arange(count) + sum(fresh[:document])
    real = torch.arange(int(lengths.max())) < lengths[:, None]
    in_order = torch.equal(laid["index"][real], torch.arange(int(lengths.max())).expand_as(real)[real])
    plan = CachedPlanner(queries, slots, laid, None if bool(real.all()) else real, CPU, in_order,
                         newest=set(fresh) == {1} and in_order).plan(visibility & same_document)
    seen = torch.zeros(len(new), len(keys["index"]), dtype=torch.bool)
    for call in plan.calls:
        inside = call.seen(CPU)
        inside = torch.ones(1, 1, 1, dtype=torch.bool) if inside is None else inside
        inside = inside.expand(call.batch, call.queries, call.keys)
        for document, row in enumerate(slots.tolist()):
            for i, query in enumerate(row):
                if query >= 0:
                    last = min(int(lengths[document]), call.first_key + call.keys)
                    first = int(starts[document]) + call.first_key
                    seen[query, first:int(starts[document]) + last] = inside[document, i, :last - call.first_key]
                    assert not inside[document, i, max(last - call.first_key, 0):].any(), "a query sees spare room"
    assert torch.equal(seen, (visibility & same_document).allows(queries, keys))


@pytest.mark.parametrize(("visibility", "form"), [
    (bidirectional & same_document, "full"),
    (valid & same_document, "full"),
    (causal & same_document, "causal"),
    (prefix & same_document, "causal"),
    (causal & same_document & window(100, 100), "causal"),
    (causal & same_document & window(None, 2), "causal"),
    (window(100, 100) & same_document, "full"),
    (causal & same_document & window(2, 2), "grid"),
    (causal & same_document & chunked(2), "causal"),
    (same_document & chunked(2), "full"),
    (same_document & chunked(3), "grid"),
    (causal & same_document & chunked(100), "causal"),
    (same_document & block_causal(100), "full"),
    (same_document & block_causal(2), "grid"),
    (same_document & (global_tokens(9) | causal), "causal"),
    (same_document & (global_tokens(2) | causal), "grid"),
    (causal, "grid"),
    (bidirectional, "full"),
])
def test_the_cheapest_form_is_chosen(visibility, form):
    fields = {**make_fields(12), "index": torch.arange(4).repeat(3), "document": torch.arange(3).repeat_interleave(4),
              "valid": torch.ones(12, dtype=torch.long), "prefix": torch.zeros(12, dtype=torch.long)}
    assert render(visibility, fields, None, CPU).form == form


def test_equal_documents_in_order_move_nothing():
    fields = {**make_fields(12), "index": torch.arange(4).repeat(3), "document": torch.arange(3).repeat_interleave(4)}
    plan = render(causal & same_document, fields, None, CPU)
    assert plan.queries.take is None and plan.keys.take is None
    assert [(call.batch, call.queries, call.keys) for call in plan.calls] == [(3, 4, 4)]


def test_a_chunk_is_attended_as_if_it_were_a_document():
    """Llama 4's chunked layer: two texts of 8 tokens in chunks of 4 are one call of four, without a grid."""
    fields = {**make_fields(16), "index": torch.arange(8).repeat(2), "document": torch.arange(2).repeat_interleave(8)}
    plan = render(causal & chunked(4) & same_document, fields, None, CPU)
    assert [(call.batch, call.queries, call.keys, call.causal, call.grid) for call in plan.calls] == \
        [(4, 4, 4, True, None)]
    assert plan.queries.take is None and plan.keys.take is None


def test_documents_of_like_lengths_share_a_call_and_unlike_ones_do_not():
    lengths = [900, 4, 899, 5, 3]
    fields = {**make_fields(sum(lengths)), "index": torch.cat([torch.arange(n) for n in lengths]),
              "document": torch.arange(5).repeat_interleave(torch.tensor(lengths))}
    plan = render(causal & same_document, fields, None, CPU)
    assert [(call.batch, call.keys, call.grid) for call in plan.calls] == [(2, 900, None), (3, 5, None)]


def test_a_value_is_rendered_once_for_a_batch():
    planner = Planner(make_fields(4), None, CPU)
    assert planner.plan(causal & same_document) is planner.plan(same_document & causal)


@given(visibilities, rows())
@settings(max_examples=60, deadline=None)
def test_a_block_mask_asks_the_same_question(visibility, fields):
    n = len(fields["index"])
    if not n:
        return
    may_see = flex.looks(visibility, fields, fields)
    over_keys = torch.vmap(may_see, in_dims=(None, None, None, 0))
    over_both = torch.vmap(over_keys, in_dims=(None, None, 0, None))
    zero = torch.tensor(0)
    asked = over_both(zero, zero, torch.arange(n), torch.arange(n))
    assert torch.equal(asked, visibility.allows(fields, fields))


def test_a_window_over_a_cache_looks_at_a_slice():
    config = ModelConfig(Shape(64, 16, 1, heads=2))
    cache = Cache(config, 2, 32)
    visibility = causal & same_document & window(3, 3)
    cache.begin(Example(torch.zeros(20, dtype=torch.long), visibility, cache.fields(10)))
    cache.finish()
    cache.begin(Example(torch.zeros(2, dtype=torch.long), visibility, cache.fields(1)))
    plan = cache.plan(0, visibility)
    call, = plan.calls
    assert (call.first_key, call.keys, call.grid) == (7, 4, None)


def test_a_chunk_over_a_cache_looks_at_itself_only():
    config = ModelConfig(Shape(64, 16, 1, heads=2))
    cache = Cache(config, 2, 32)
    visibility = causal & same_document & chunked(4)
    cache.begin(Example(torch.zeros(20, dtype=torch.long), visibility, cache.fields(10)))
    cache.finish()
    cache.begin(Example(torch.zeros(2, dtype=torch.long), visibility, cache.fields(1)))
    call, = cache.plan(0, visibility).calls
    assert (call.first_key, call.keys, call.grid) == (8, 3, None)
