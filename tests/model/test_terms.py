"""Terms that read contents are the formulas they are named after, in every kernel, layout and gradient."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from bothways.batch import Ask, Companion, Example, pack
from bothways.errors import BothwaysError
from bothways.model import LanguageModel, ModelConfig, Norm, Position, Shape, cost
from bothways.model.attention import Scoring, added, attend
from bothways.model.config import Convolution, Head
from bothways.model.neighbours import Neighbours
from bothways.model.render import render
from bothways.model.terms import ByDistance, BySegment, DistanceTable, DistanceWaves, skewed
from bothways.objectives.base import Profile
from bothways.visibility import bidirectional, causal, make_fields, order, same_document, two_streams, window

CPU = torch.device("cpu")
HEADS, SIZE, FAR = 4, 6, 300


def fields_of(*lengths, scattered=False):
    n = sum(lengths)
    index = torch.cat([torch.arange(length) for length in lengths])
    generator = torch.Generator().manual_seed(n)
    return {**make_fields(n), "index": index, "position": (index * 7) % 11 if scattered else index,
            "segment": torch.randint(2, (n,), generator=generator),
            "rank": torch.randperm(n, generator=generator),
            "document": torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths))}


def some_terms(leaves):
    keys, queries, shift, other = leaves
    row = torch.arange(-FAR, FAR + 1).clamp(-4, 4) + 4
    return ByDistance(row, keys, queries, shift), BySegment(other, shift)


def leaves_of(count=4):
    torch.manual_seed(1)
    shapes = [(9, HEADS, SIZE), (9, HEADS, SIZE), (HEADS, SIZE), (HEADS, SIZE)][:count]
    return [torch.randn(shape, dtype=torch.float64).requires_grad_() for shape in shapes]


def test_a_grid_is_skewed_without_a_copy():
    grid = torch.arange(3 * 6).view(3, 6)
    assert torch.equal(skewed(grid, 4), torch.tensor([[2, 3, 4, 5], [7, 8, 9, 10], [12, 13, 14, 15]]))
    assert skewed(grid, 4).data_ptr() == grid[0, 2:].data_ptr()
    assert torch.equal(skewed(grid[:1], 6), grid[:1])


@pytest.mark.parametrize("shared", [4, 2, 1])
@pytest.mark.parametrize("lengths", [(5, 5), (7, 2, 6, 7), (9,), (13, 13)], ids=str)
@pytest.mark.parametrize("scattered", [False, True], ids=["in order", "anywhere"])
@pytest.mark.parametrize("learned", [False, True])
def test_terms_are_their_formulas(lengths, scattered, shared, learned):
    fields = fields_of(*lengths, scattered=scattered)
    plan = render(bidirectional & same_document, fields, None, CPU)
    rows = torch.randn(len(fields["index"]), HEADS + 2 * shared, SIZE, dtype=torch.float64)
    keys, queries, shift, other = leaves = [leaf.detach() for leaf in leaves_of()]
    with torch.set_grad_enabled(learned):
        sums = added(rows, None, plan, Scoring(HEADS, 1.0, some_terms(leaves)))
    slots, real = torch.arange(len(rows)), torch.ones(plan.query_slots, dtype=torch.bool)
    if plan.queries.take is not None:
        slots, real[plan.queries.spare] = plan.queries.take, False
    for call, grid in zip(plan.calls, sums, strict=True):
        first, inside = call.first_query, (call.batch, call.queries)
        documents = slots[first:first + call.batch * call.queries].view(inside).tolist()
        there = real[first:first + call.batch * call.queries].view(inside)
        for b, document in enumerate(documents):
            for i, j in torch.cartesian_prod(*[there[b].nonzero().flatten()] * 2).tolist():
                one, two = document[i], document[j]
                row = int((fields["position"][one] - fields["position"][two]).clamp(-4, 4)) + 4
                other_segment = fields["segment"][one] != fields["segment"][two]
                q, k = rows[one, :HEADS] + shift, rows[two, HEADS:HEADS + shared].repeat_interleave(HEADS // shared, 0)
                wanted = q * keys[row] + k * queries[row] + other_segment * q * other
                torch.testing.assert_close(grid[b, :, i, j], wanted.sum(-1))


@pytest.mark.parametrize("kernel", ["explicit", "fused"])
@pytest.mark.parametrize("lengths", [(5, 5, 5), (7, 1, 3, 7, 6), (9,)], ids=str)
@pytest.mark.parametrize("visibility", [bidirectional & same_document, causal & same_document, order("query"),
                                        window(2, 1) & same_document, causal], ids=repr)
def test_every_kernel_adds_them_with_their_gradients(kernel, lengths, visibility):
    fields = fields_of(*lengths, scattered=len(lengths) == 1)
    plan = render(visibility, fields, None, CPU)
    results = []
    for name in (kernel, "dense"):
        torch.manual_seed(0)
        rows = torch.randn(len(fields["index"]), HEADS + 4, SIZE, dtype=torch.float64).requires_grad_()
        leaves = leaves_of()
        read = attend(rows, None, plan, Scoring(HEADS, 0.3, some_terms(leaves)), kernel=name)
        read.backward(torch.randn(read.shape, dtype=torch.float64))
        results.append([read.detach(), rows.grad, *(leaf.grad for leaf in leaves)])
    assert all(grad.abs().max() > 0 for grad in results[1])
    for ours, dense in zip(*results, strict=True):
        torch.testing.assert_close(ours, dense)


@pytest.mark.parametrize("asked, told, apart", [(30, 30, 0), (1, 40, 39), (5, 30, 25), (7, 30, 2), (20, 9, -3)])
def test_products_with_shared_vectors_are_spread_over_all_pairs(asked, told, apart):
    term = some_terms([leaf.detach() for leaf in leaves_of()])[0]
    queries = torch.randn(2, HEADS, asked, SIZE, dtype=torch.float64)
    keys = torch.randn(2, HEADS, told, SIZE, dtype=torch.float64)
    with torch.no_grad():
        assert term._shared(asked + told - 1) and not term._shared(17)
    assert not term._shared(asked + told - 1)
    for ours, view in zip(term._spread(queries, keys, apart), term._skewed(queries, keys, apart), strict=True):
        torch.testing.assert_close(ours, view)


def test_log_buckets_are_those_of_debertav3():
    theirs = pytest.importorskip("transformers.models.deberta_v2.modeling_deberta_v2")
    distance = torch.arange(-600, 601)
    for buckets, end in ((256, 512), (32, 128), (4, 9), (0, 20)):
        table = DistanceTable(ModelConfig(position=Position("disentangled", buckets=buckets, distance=end)))
        wanted = theirs.make_log_bucket_position(distance, buckets, end).long() if buckets else distance
        span = buckets or end
        assert torch.equal(table.bucket(distance), (wanted + span).clamp(0, 2 * span - 1))
        torch.nn.init.normal_(table.weight)
        vectors, row = table(7)
        assert torch.equal(vectors[row], table.weight[table.bucket(torch.arange(-7, 8))])
        assert len(vectors) <= 15


def test_waves_end_where_they_are_told():
    config = ModelConfig(Shape(width=8, heads=2), Position("transformer-xl", distance=3))
    vectors, row = DistanceWaves(config)(10, torch.empty(0))
    assert torch.equal(vectors[row][0], vectors[row][7]) and len(vectors) == 7
    angle = 2 * 10000 ** -0.25
    assert vectors[row][12][1].item() == pytest.approx(math.sin(angle))
    assert vectors[row][8][5].item() == pytest.approx(math.cos(angle))


# --- parts of the network ---

def network_of(config, scale=6.0):
    torch.manual_seed(0)
    network = LanguageModel(config).double().eval()
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(torch.randn_like(weight) * 0.02 * scale)
    return network


def text(length, visibility=bidirectional, seed=0, **facts):
    tokens = torch.randint(44, 64, (length,), generator=torch.Generator().manual_seed(seed))
    return Example(tokens, visibility, make_fields(length, **facts))


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("kernel", [1, 3, 5])
def test_neighbours_are_a_convolution_of_each_document(kernel, groups):
    config = ModelConfig(Shape(width=8, heads=2), norm=Norm("layer", bias=True),
                         convolution=Convolution(kernel, groups))
    part = Neighbours(config).double()
    torch.nn.init.normal_(part.weight)
    torch.nn.init.normal_(part.bias)
    row, = pack([text(n) for n in (5, 1, 3)])
    embedded, states = torch.randn(2, 9, 8, dtype=torch.float64)
    heard = part(embedded, states, row.fields, row.visibility)
    for piece, own, out in zip(embedded.split([5, 1, 3]), states.split([5, 1, 3]), heard.split([5, 1, 3]), strict=True):
        said = torch.nn.functional.conv1d(piece.T[None], part.weight, part.bias, padding=kernel // 2, groups=groups)[0]
        torch.testing.assert_close(out, part.norm(own + said.T.tanh()))
    rows = torch.tensor([0, 4, 6])
    torch.testing.assert_close(part(embedded, states[rows], row.fields, row.visibility, rows), heard[rows])
    # nobody hears a neighbour that he may not see
    changed = embedded.clone()
    changed[3] += 1
    same = part(embedded, states, row.fields, causal & same_document) == part(changed, states, row.fields,
                                                                               causal & same_document)
    assert same.all(-1).tolist() == [True, True, True, False, kernel < 3, True, True, True, True]


def test_a_bias_of_some_projections_is_a_full_one_with_zeros():
    for part, ends in (("qv", (True, False, True)), ("q", (True, False, False))):
        some = network_of(ModelConfig(Shape(64, 32, 2, heads=4, key_heads=2), bias=True, qkv_bias=part))
        full = LanguageModel(ModelConfig(Shape(64, 32, 2, heads=4, key_heads=2), bias=True)).double().eval()
        weights = {name: weight for name, weight in some.state_dict().items() if "query_bias" not in name
                   and "value_bias" not in name}
        for i, block in enumerate(some.tower.blocks):
            own = block.attention
            parts = (own.query_bias, None, own.value_bias)
            assert [one is not None for one in parts] == list(ends)
            weights[f"tower.blocks.{i}.attention.qkv.bias"] = torch.cat([
                torch.zeros(size, dtype=torch.float64) if one is None else one
                for one, size in zip(parts, own.sizes, strict=True)])
        full.load_state_dict(weights)
        torch.testing.assert_close(some(text(7)).states, full(text(7)).states)


DECODED = ModelConfig(Shape(64, 32, 2, heads=4), Position("disentangled", buckets=4, distance=9),
                      Norm("layer", "after"), head=Head(decoder=1), bias=True)


@pytest.mark.parametrize("place", ["after", "before"])
def test_a_decoder_that_learned_no_places_is_the_last_block(place):
    """I = H and n = 1 is the decoder of BERT (arXiv 2006.03654, section 3.2)."""
    config = replace(DECODED, norm=Norm("layer", place))
    decoded, plain = network_of(config), LanguageModel(replace(config, head=Head())).double().eval()
    weights = decoded.state_dict()
    weights.pop("tower.decoder_position.weight").zero_()
    plain.load_state_dict(weights)
    row, = pack([text(n, seed=n) for n in (5, 3, 9)])
    torch.testing.assert_close(decoded(row).states, plain(row).states)
    for one, other in zip(decoded(row, hidden=True).hidden, plain(row, hidden=True).hidden, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_a_decoder_asks_the_contents_before_the_last_block(steps):
    """I_0 = H + P, and each step is a block whose queries are the last I and whose keys and values are H."""
    network = network_of(replace(DECODED, head=Head(decoder=steps)))
    example, block = text(6), network.tower.blocks[-1]
    output = network(example, hidden=True)
    before = output.hidden[-2]
    asking = before + network.tower.decoder_position(torch.arange(6))
    attention = block.attention
    bucket = network.tower.distances.bucket(torch.arange(6)[:, None] - torch.arange(6)[None])
    vectors = network.tower.distances.weight
    for _ in range(steps):
        q = attention._projected(asking, 0, 1).transpose(0, 1)
        k, v = attention._projected(before, 1, 3).transpose(0, 1).chunk(2)
        to_key, to_query = (part.view(8, 4, 8)[bucket] for part in attention.placed(vectors))
        scores = (q @ k.transpose(1, 2) + torch.einsum("hid,ijhd->hij", q, to_key)
                  + torch.einsum("hjd,ijhd->hij", k, to_query)) / math.sqrt(3 * 8)
        read = attention.out((scores.softmax(-1) @ v).transpose(0, 1).flatten(1))
        asking = block.attention_norm(asking + read)
        asking = block.feed_forward_norm(asking + block.feed_forward(asking))
    torch.testing.assert_close(output.states, asking)
    row, = pack([replace(text(n, seed=n), asks=(Ask(torch.tensor([1]), torch.tensor([50])),)) for n in (9, 4)])
    torch.testing.assert_close(network(row, only_asked=True).states[[1, 10]], network(row).states[[1, 10]])


def test_a_query_knows_places_and_no_contents():
    """The rows of the second stream begin alike, whatever their token; those of contents are not touched."""
    config = ModelConfig(Shape(64, 32, 2, heads=4), Position("transformer-xl", distance=0),
                         companions=(Companion("part", "query embedding"),))
    network = network_of(config)
    part = torch.tensor([0, 0, 0, 0, 1, 1])
    place = torch.tensor([0, 1, 2, 3, 1, 3])
    rank = torch.tensor([0, 1, 0, 2])[place]
    example = text(6, two_streams, part=part, position=place, index=place, rank=rank)
    states = network(example).states
    for changed, same in ((4, [True] * 6), (1, [True, False, True, False, True, False])):
        inputs = example.inputs.clone()
        inputs[changed] = 44 + (inputs[changed] - 44 + 7) % 20
        assert (network(replace(example, inputs=inputs)).states == states).all(-1).tolist() == same
    assert not torch.allclose(states[4], states[5])


def test_segments_matter_only_where_they_differ():
    network = network_of(ModelConfig(Shape(64, 32, 1, heads=4), Position("transformer-xl", distance=0)))
    plain, one = network(text(6)).states, torch.ones(6, dtype=torch.long)
    assert torch.equal(network(text(6, segment=one)).states, plain)
    two = network(text(6, segment=torch.tensor([0, 0, 0, 1, 1, 1]))).states
    torch.testing.assert_close(two, network(text(6, segment=torch.tensor([1, 1, 1, 0, 0, 0]))).states)
    assert not torch.allclose(two, plain)


def test_terms_cost_and_count():
    config = ModelConfig(Shape(96, 32, 3, heads=4), Position("disentangled", buckets=4, distance=9))
    network = LanguageModel(config)
    assert cost.parameters(config) == cost.parameters(network)
    plain = cost.parameters(replace(config, position=Position()))
    assert cost.parameters(config)["total"] - plain["total"] == 8 * 32 + 3 * 2 * 32 * 32
    assert cost.parameters(config)["non_embedding"] - plain["non_embedding"] == 3 * 2 * 32 * 32
    for choice in (config, replace(config, position=Position("transformer-xl", distance=4)),
                   replace(config, convolution=Convolution(3, 2), head=Head(decoder=3))):
        network, example = LanguageModel(choice), text(20)
        with FlopCounterMode(display=False) as counter:
            network.logits(network(example).states)
        assert cost.flops(choice, Profile(bidirectional), 20, training=False, as_run=True) * 20 == pytest.approx(
            counter.get_total_flops(), rel=1e-6)


@pytest.mark.parametrize(("make", "words"), [
    (lambda: ModelConfig(position=Position("disentangled", terms=())), ("position.terms", "'c2p'")),
    (lambda: ModelConfig(position=Position("disentangled", terms=("p2p",))), ("position.terms is (p2p)",)),
    (lambda: ModelConfig(position=Position("disentangled", buckets=5)), ("buckets is 5", "even")),
    (lambda: ModelConfig(position=Position("disentangled", buckets=32, distance=17)), ("distance 17", "buckets 32")),
    (lambda: ModelConfig(position=Position("disentangled"), soft_cap=3.0), ("soft_cap", "disentangled")),
    (lambda: ModelConfig(position=Position("transformer-xl", distance=-1)), ("distance is -1",)),
    (lambda: ModelConfig(convolution=Convolution(4)), ("convolution.kernel is 4", "odd")),
    (lambda: ModelConfig(convolution=Convolution(3, 7)), ("convolution.groups 7",)),
    (lambda: ModelConfig(Shape(source_layers=2), head=Head(decoder=1)), ("head.decoder", "source_layers 2")),
    (lambda: ModelConfig(bias=True, qkv_bias="kv"), ("qkv_bias is 'kv'",)),
])
def test_contradictions_are_refused(make, words):
    with pytest.raises(BothwaysError) as caught:
        make()
    assert all(word in str(caught.value) for word in words)


def test_a_cache_is_refused_where_it_keeps_too_little():
    for config in (DECODED, ModelConfig(convolution=Convolution(3))):
        with pytest.raises(BothwaysError, match="a cache keeps"):
            LanguageModel(config).cache(1, 4)
