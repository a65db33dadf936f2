"""Visibilities are values: they combine, compare, hash and read as sentences; `allows` is their one meaning."""

from __future__ import annotations

import pytest
import torch

from bothways.visibility import (
    AllOf,
    Order,
    Window,
    bidirectional,
    causal,
    density,
    from_part,
    grid,
    into_part,
    make_fields,
    order,
    prefix,
    same_document,
    two_streams,
    valid,
    window,
)


def bits(text: str) -> torch.Tensor:
    """A grid as drawn: one line a query, x where it may see."""
    return torch.tensor([[c == "x" for c in line] for line in text.split()])


@pytest.mark.parametrize(("value", "sentence"), [
    (bidirectional, "bidirectional"),
    (causal, "causal"),
    (causal & same_document, "causal and inside one document"),
    (same_document & window(128, 128) & causal, "causal and within 128 tokens and inside one document"),
    (prefix & same_document, "(causal or into the prefix) and inside one document"),
    (window(3), "within 3 tokens to the left"),
    (window(3, 1) & valid, "within 3 tokens to the left and 1 tokens to the right and not into padding"),
    (order(), "in permuted order"),
    (order("query"), "strictly earlier in the permuted order"),
    (into_part(1) & causal, "causal and into part 1"),
    (from_part(0) | order(), "in permuted order or from part 0"),
    (two_streams, "(strictly earlier in the permuted order or (in permuted order and from part 0)) and into part 0"),
])
def test_a_visibility_reads_as_a_sentence(value, sentence):
    assert repr(value) == sentence


def test_equality_and_hash_forget_the_order_of_writing():
    assert causal & same_document == same_document & causal
    assert hash(causal & same_document & valid) == hash(valid & (same_document & causal))
    assert (causal | order()) == (order() | causal)
    assert causal & causal == causal
    assert bidirectional & causal == causal
    assert bidirectional | causal == bidirectional
    assert window() == bidirectional
    assert window(3, 3) == Window(3, 3) != window(3, 2)
    assert len({causal & same_document, same_document & causal, causal}) == 2


def test_conjuncts_are_what_must_all_hold():
    assert bidirectional.conjuncts() == frozenset()
    assert causal.conjuncts() == {causal}
    assert (causal & same_document).conjuncts() == {causal, same_document}
    assert prefix.conjuncts() == {prefix}


def test_drawn_grids():
    assert torch.equal(grid(causal, make_fields(3)), bits("x.. xx. xxx"))
    assert torch.equal(grid(bidirectional, make_fields(2)), bits("xx xx"))
    assert torch.equal(grid(prefix, make_fields(4, prefix=torch.tensor([1, 1, 0, 0]))), bits("xx.. xx.. xxx. xxxx"))
    assert torch.equal(grid(window(1, 0), make_fields(4)), bits("x... xx.. .xx. ..xx"))
    assert torch.equal(grid(same_document, make_fields(4, document=torch.tensor([0, 0, 1, 1]))),
                       bits("xx.. xx.. ..xx ..xx"))
    rank = torch.tensor([2, 0, 1])
    assert torch.equal(grid(order(), make_fields(3, rank=rank)), bits("xxx .x. .xx"))
    assert torch.equal(grid(order("query"), make_fields(3, rank=rank)), bits(".xx ... .x."))
    assert torch.equal(grid(valid, make_fields(2, valid=torch.tensor([1, 0]))), bits("x. x."))


def test_an_empty_prefix_is_causal():
    fields = make_fields(5, prefix=torch.zeros(5, dtype=torch.long))
    assert torch.equal(grid(prefix, fields), grid(causal, fields))


def test_queries_and_keys_may_be_different_tokens_and_batched():
    queries = {"index": torch.tensor([[2], [0]])}
    keys = {"index": torch.arange(4).expand(2, 4)}
    assert torch.equal(causal.allows(queries, keys), torch.stack((bits("xxx."), bits("x..."))))


def test_density_is_the_allowed_share():
    assert density(bidirectional, 4) == 1.0
    assert density(causal, 4) == pytest.approx(10 / 16)
    assert density(window(0, 0), 4) == pytest.approx(1 / 4)


def test_wrong_values_are_refused():
    with pytest.raises(ValueError, match="0 or more tokens"):
        window(-1, 2)
    with pytest.raises(ValueError, match="'content' and 'query'"):
        order("both")
    with pytest.raises(KeyError, match="prefix"):
        grid(prefix, make_fields(2))


def test_needs_are_gathered_from_the_parts():
    assert (prefix & same_document).needs == {"prefix", "index", "document"}
    assert Order(strict=True).needs == {"rank"}
    assert AllOf(frozenset({valid})).needs == {"valid"}


def test_parts_stand_on_the_side_they_name():
    part = torch.tensor([0, 0, 1])
    assert torch.equal(grid(into_part(0), make_fields(3, part=part)), bits("xx. xx. xx."))
    assert torch.equal(grid(from_part(0), make_fields(3, part=part)), bits("xxx xxx ..."))
    assert torch.equal(grid(into_part(1), make_fields(3, part=part)), bits("..x ..x ..x"))


def test_two_streams_content_knows_itself_and_a_query_does_not():
    """Order 1 2 0; the queries (last two rows) stand at places 2 and 0."""
    fields = make_fields(5, rank=torch.tensor([2, 0, 1, 1, 2]), part=torch.tensor([0, 0, 0, 1, 1]))
    assert torch.equal(grid(two_streams, fields), bits("xxx.. .x... .xx.. .x... .xx.."))
