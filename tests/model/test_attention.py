"""Every kernel reads what the dense reference reads, in output and in every gradient."""

from __future__ import annotations

import pytest
import torch

from bothways.batch import Example
from bothways.model import explicit
from bothways.model.attention import Kept, Scoring, attend, choose
from bothways.model.config import ModelConfig, Position, Shape
from bothways.model.position import RelativeBias, rotary_table, rotate
from bothways.model.render import Call, render
from bothways.visibility import bidirectional, causal, make_fields, order, prefix, same_document, valid, window

CPU = torch.device("cpu")
SIZE = 6


def packed(*lengths):
    n = sum(lengths)
    index = torch.cat([torch.arange(length) for length in lengths])
    generator = torch.Generator().manual_seed(n)
    return {**make_fields(n), "index": index, "position": index,
            "document": torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths)),
            "prefix": (index < 2).long(), "rank": torch.randperm(n, generator=generator),
            "valid": (torch.rand(n, generator=generator) < 0.8).long()}


VISIBILITIES = [bidirectional & same_document, causal & same_document, prefix & same_document, order("query"),
                window(2, 1) & same_document, valid & same_document & causal, causal, bidirectional,
                window(0, 0) & order("query")]
LENGTHS = [(5, 5, 5), (7, 1, 3, 7, 6), (9,), (220, 210, 3)]


def compared(kernel, plan, heads, shared, fields, with_bias=False, with_turn=False, others=None, dtype=torch.float64):
    """Output and gradients of a kernel and of the dense reference on the same random rows."""
    n = len(fields["index"])
    torch.manual_seed(0)
    queries = torch.randn(n, heads + (0 if others else 2 * shared), SIZE, dtype=dtype)
    told = torch.randn(len(others["index"]), 2 * shared, SIZE, dtype=dtype) if others else None
    upstream = torch.randn(n, heads, SIZE, dtype=dtype)
    bias = None
    if with_bias:
        position = Position("relative", buckets=8, distance=9)
        bias = RelativeBias(ModelConfig(Shape(heads=heads, width=heads * SIZE), position), both_sides=True)
        torch.nn.init.normal_(bias.weight)
        bias = bias.to(dtype)
    turn = rotary_table(fields["position"], SIZE, 100.0, queries) if with_turn else None
    results = []
    for name in (kernel, "dense"):
        leaves = [x.clone().requires_grad_() for x in (queries, told) if x is not None]
        if bias is not None:
            bias.weight.grad = None
        scoring = Scoring(heads, 0.3, () if bias is None else (bias,))
        read = attend(leaves[0], leaves[1] if others else None, plan, scoring, turn, name)
        read.backward(upstream)
        results.append([read.detach(), *(leaf.grad for leaf in leaves), *([] if bias is None else [bias.weight.grad])])
    return results


@pytest.mark.parametrize("kernel", ["explicit", "fused"])
@pytest.mark.parametrize("visibility", VISIBILITIES, ids=repr)
@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
def test_kernels_equal_the_reference(kernel, visibility, lengths):
    shared = {15: 4, 24: 2}.get(sum(lengths), 1)
    fields = packed(*lengths)
    plan = render(visibility, fields, None, CPU)
    for ours, dense in zip(*compared(kernel, plan, 4, shared, fields, with_turn=shared == 2)):
        torch.testing.assert_close(ours, dense)


@pytest.mark.parametrize("kernel", ["explicit", "fused"])
@pytest.mark.parametrize("lengths", LENGTHS[:3], ids=str)
@pytest.mark.parametrize("visibility", VISIBILITIES[:5], ids=repr)
def test_kernels_equal_the_reference_with_a_relative_term(kernel, lengths, visibility):
    fields = packed(*lengths)
    plan = render(visibility, fields, None, CPU)
    for ours, dense in zip(*compared(kernel, plan, 4, 2, fields, with_bias=True)):
        torch.testing.assert_close(ours, dense)


@pytest.mark.parametrize("kernel", ["explicit", "fused"])
@pytest.mark.parametrize("visibility", [same_document, causal & same_document, valid & same_document, bidirectional],
                         ids=repr)
def test_kernels_equal_the_reference_across_rows(kernel, visibility):
    queries, keys = packed(3, 5, 2, 4), packed(6, 0, 7, 1)
    plan = render(visibility, queries, keys, CPU)
    for ours, dense in zip(*compared(kernel, plan, 4, 2, queries, others=keys)):
        torch.testing.assert_close(ours, dense)


@pytest.mark.parametrize("kernel", ["dense", "explicit", "fused"])
def test_queries_that_see_nothing_read_zeros_with_clean_gradients(kernel):
    fields = {**packed(4, 3), "valid": torch.tensor([0, 0, 1, 1, 0, 0, 0])}
    plan = render(valid & causal & same_document, fields, None, CPU)
    read, grad = compared(kernel, plan, 2, 2, fields)[0]
    assert read[[0, 1, 4, 5, 6]].abs().max() == 0 and read[[2, 3]].abs().min() > 0
    assert torch.isfinite(grad).all()
    assert grad[[0, 1, 4, 5, 6]].abs().max() == 0


def test_a_row_nobody_may_look_in_is_zeros():
    fields = {**packed(4), "valid": torch.zeros(4, dtype=torch.long)}
    plan = render(valid, fields, None, CPU)
    rows = torch.randn(4, 6, SIZE, requires_grad=True)
    assert plan.form == "nothing"
    assert attend(rows, None, plan, Scoring(2, 1.0)).abs().max() == 0


@pytest.mark.parametrize("grid", [None, torch.tensor([[[True, False, True], [False] * 3]])], ids=["full", "blind"])
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("turned", [False, True])
def test_the_written_out_backward_is_the_derivative(grid, with_bias, turned):
    """Finite differences in float64, with grouped queries, a bias, angles and a query that sees nothing."""
    queries, keys = packed(2, 2), packed(3, 3)
    if turned:  # angles belong to the same tokens on both sides
        keys = queries
        grid = None if grid is None else grid[..., :2]
    plan = render(same_document, queries, None if turned else keys, CPU)
    call = plan.calls[0]
    plan.calls = (Call(call.batch, call.queries, call.keys, 0, 0, False, grid, grid is not None),)
    torch.manual_seed(0)
    rows = torch.randn(4, 4 + (4 if turned else 0), 2, dtype=torch.float64, requires_grad=True)
    told = None if turned else torch.randn(6, 4, 2, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(1, 4, 2, call.keys, dtype=torch.float64, requires_grad=True)
    turn = rotary_table(queries["position"], 2, 10.0, rows) if turned else None

    def look(rows, told, bias):
        return explicit.look(rows, told, 4, plan, 0.7, 0.0, turn, (bias,) if with_bias else ())
    assert torch.autograd.gradcheck(look, (rows, told, bias))


def test_dropout_of_weights_is_unbiased_and_its_backward_repeats_it():
    fields = packed(8, 8)
    plan = render(causal & same_document, fields, None, CPU)
    torch.manual_seed(0)
    rows = torch.randn(16, 6, SIZE, dtype=torch.float64, requires_grad=True)
    whole = attend(rows, None, plan, Scoring(2, 0.3))
    many = torch.stack([attend(rows, None, plan, Scoring(2, 0.3, dropout=0.5)) for _ in range(1500)])
    assert (many.mean(0) - whole).abs().max() < 0.2

    def look(rows):
        torch.manual_seed(1)
        return explicit.look(rows, None, 2, plan, 0.3, 0.5)
    assert torch.autograd.gradcheck(look, (rows,))


def test_a_soft_cap_bends_scores_in_the_reference():
    fields = packed(4)
    plan = render(bidirectional, fields, None, CPU)
    rows = torch.randn(4, 3, SIZE)
    scoring = Scoring(1, 5.0, soft_cap=2.0)
    assert choose(rows, plan, scoring, cached=False) == "dense"
    q, k, v = rows.unbind(1)
    expected = torch.softmax(2 * torch.tanh(5 * q @ k.T / 2), -1) @ v
    torch.testing.assert_close(attend(rows, None, plan, scoring)[:, 0], expected)


def test_low_precision_stays_near_the_reference():
    fields = packed(40, 33)
    plan = render(causal & same_document, fields, None, CPU)
    torch.manual_seed(0)
    rows = torch.randn(73, 8, 16)
    exact = attend(rows, None, plan, Scoring(4, 0.25), kernel="dense")
    low = attend(rows.bfloat16(), None, plan, Scoring(4, 0.25), kernel="explicit")
    assert (low.float() - exact).abs().max() < 0.05


@pytest.mark.parametrize("kernel", ["dense", "explicit", "fused"])
def test_kept_keys_read_like_rows(kernel):
    """One new token for each of two documents over three kept ones."""
    plan = render(bidirectional & same_document, packed(1, 1), packed(3, 3), CPU)
    torch.manual_seed(0)
    queries, told = torch.randn(2, 4, SIZE), torch.randn(6, 4, SIZE)
    laid = [part.unflatten(0, (2, 3)).transpose(1, 2) for part in told.chunk(2, dim=1)]
    room = [torch.nn.functional.pad(part, (0, 0, 0, 5), value=float("nan")) for part in laid]
    with torch.no_grad():
        kept_plan = render(bidirectional & same_document, packed(1, 1), packed(3, 3), CPU)
        torch.testing.assert_close(attend(queries, Kept(*room), kept_plan, Scoring(4, 0.5), kernel=kernel),
                                   attend(queries, told, plan, Scoring(4, 0.5), kernel="dense"))


def test_kernels_are_chosen_by_length_and_by_what_is_asked():
    def chosen(length, **kwargs):
        plan = render(causal, make_fields(length), None, CPU)
        return choose(torch.empty(length, 3, 2), plan, Scoring(1, 1.0, **kwargs), cached=False)
    assert chosen(100) == "explicit"
    assert chosen(2000) == "fused"
    assert chosen(100, soft_cap=3.0) == "dense"


def test_flex_attention_reads_like_the_reference_where_it_runs_uncompiled():
    from bothways.model import flex
    fields = packed(70, 60)
    plan = render(causal & same_document, fields, None, CPU)
    rows = torch.randn(130, 8, 16)
    with torch.no_grad():
        read = attend(rows, None, plan, Scoring(4, 0.25), kernel="flex")
        torch.testing.assert_close(read, attend(rows, None, plan, Scoring(4, 0.25), kernel="dense"))
    assert plan.blocks is not None
    assert not flex.fits(rows, plan, False)


def test_rotation_keeps_lengths_and_shows_only_distance():
    heads = torch.randn(3, 2, 8, dtype=torch.float64)
    far = rotate(heads, rotary_table(torch.tensor([5, 9, 105]), 8, 100.0, heads))
    near = rotate(heads, rotary_table(torch.tensor([0, 4, 100]), 8, 100.0, heads))
    torch.testing.assert_close(far.norm(dim=-1), heads.norm(dim=-1))
    torch.testing.assert_close(torch.einsum("qhd,khd->hqk", far, far), torch.einsum("qhd,khd->hqk", near, near),
                               atol=1e-5, rtol=1e-5)


def test_relative_buckets_are_those_of_t5():
    pytest.importorskip("transformers")
    from transformers.models.t5.modeling_t5 import T5Attention
    places = torch.arange(300)
    relative = places[None] - places[:, None]
    for both_sides in (True, False):
        bias = RelativeBias(ModelConfig(position=Position("relative")), both_sides)
        theirs = T5Attention._relative_position_bucket(relative, both_sides, 32, 128)
        assert torch.equal(bias.bucket(relative), theirs)


def test_an_example_of_every_kernel_survives_an_empty_row():
    example = Example(torch.empty(0, dtype=torch.long), causal & same_document)
    plan = render(example.visibility, example.fields, None, CPU)
    assert attend(torch.empty(0, 6, SIZE), None, plan, Scoring(2, 1.0)).shape == (0, 2, SIZE)
