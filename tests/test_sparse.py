"""Sparse patterns: by hand on small grids, and what holds of them at any length."""

from __future__ import annotations

import pytest
import torch

from bothways.sparse import global_tokens, random_links, strided
from bothways.visibility import (
    bidirectional,
    block_causal,
    by_blocks,
    causal,
    chunked,
    grid,
    make_fields,
    same_block,
    window,
)


def bits(text: str) -> torch.Tensor:
    """A grid as drawn: one line a query, x where it may see."""
    return torch.tensor([[c == "x" for c in line] for line in text.split()])


@pytest.mark.parametrize(("value", "drawn"), [
    (chunked(2), "xx... xx... ..xx. ..xx. ....x"),
    (causal & chunked(2), "x.... xx... ..x.. ..xx. ....x"),
    (block_causal(2), "xx... xx... xxxx. xxxx. xxxxx"),
    (strided(2), "x.x.x .x.x. x.x.x .x.x. x.x.x"),
    (causal & (window(1, 0) | strided(3)), "x.... xx... .xx.. x.xx. .x.xx"),
    (global_tokens(1), ".x... xxxxx .x... .x... .x..."),
    (window(0, 0) | global_tokens(0, 4), "xxxxx xx..x x.x.x x..xx xxxxx"),
])
def test_patterns_by_hand(value, drawn):
    assert torch.equal(grid(value, make_fields(5)), bits(drawn))


def test_blocks_and_global_tokens_from_fields():
    fields = make_fields(4, block=torch.tensor([1, 0, 0, 2]), **{"global": torch.tensor([0, 0, 1, 0])})
    assert torch.equal(grid(same_block, fields), bits("x... .xx. .xx. ...x"))
    assert torch.equal(grid(by_blocks, fields), bits("xxx. .xx. .xx. xxxx"))
    assert torch.equal(grid(global_tokens(), fields), bits("..x. ..x. xxxx ..x."))
    assert (same_block.needs, block_causal(2).needs, global_tokens().needs, global_tokens(0).needs) == \
        ({"block"}, {"index"}, {"global"}, {"index"})


@pytest.mark.parametrize(("value", "sentence"), [
    (chunked(4) & causal, "causal and inside one chunk of 4 tokens"),
    (same_block, "inside one block"), (by_blocks, "causal by blocks"),
    (block_causal(4), "causal by blocks of 4 tokens"),
    (window(2, 2) | global_tokens(0), "within 2 tokens or from and to the global token at 0"),
    (global_tokens(), "from and to the global tokens"),
    (random_links(2, 3), "along 2 random links a token (seed 3)"),
    (strided(3), "at multiples of 3 tokens"),
])
def test_they_read_as_sentences(value, sentence):
    assert repr(value) == sentence


def test_blocks_and_chunks_of_one_size_are_different_values():
    assert chunked(3) != block_causal(3) and len({chunked(3), block_causal(3), chunked(3)}) == 2


def test_a_chunk_as_long_as_the_text_is_bidirectional_and_blocks_of_one_are_causal():
    fields = make_fields(9)
    assert torch.equal(grid(chunked(9), fields), grid(bidirectional, fields))
    assert torch.equal(grid(block_causal(1), fields), grid(causal, fields))
    assert torch.equal(grid(block_causal(9), fields), grid(bidirectional, fields))


# --- random links --------------------------------------------------------------------------------------------

def test_random_links_go_to_so_many_earlier_tokens_and_are_seen_from_both_ends():
    seen = grid(random_links(3), make_fields(600))
    assert torch.equal(seen, seen.T) and not seen.diagonal().any()
    earlier = seen.tril().sum(-1)
    assert int(earlier.max()) == 3 and not earlier[0] and int(earlier[1]) == 1
    # 3 draws among i places fall together seldom
    assert float(earlier[100:].float().mean()) == pytest.approx(3, abs=0.05)


def test_a_longer_text_keeps_its_links_and_a_place_in_it_does_not_matter():
    long, short = grid(random_links(2, 5), make_fields(200)), grid(random_links(2, 5), make_fields(90))
    assert torch.equal(long[:90, :90], short)
    queries = {"index": torch.tensor([[150, 7], [3, 80]])}
    assert torch.equal(random_links(2, 5).allows(queries, {"index": torch.arange(200).expand(2, 200)}),
                       long[queries["index"]])


def test_random_links_are_spread_evenly_and_change_with_the_seed():
    from scipy import stats

    n = 1200
    counts = torch.zeros(10)
    for seed in range(8):
        queries, keys = grid(random_links(1, seed), make_fields(n)).tril().nonzero().unbind(-1)
        share = (keys.double() + 0.5) / queries
        counts += torch.histc(share[queries >= 200], 10, 0, 1)
    assert stats.chisquare(counts.numpy()).pvalue > 1e-3
    one, other = (grid(random_links(2, seed), make_fields(n)).tril() for seed in (0, 1))
    both = float((one & other).sum()) / float(one.sum())
    assert both < 0.05  # by chance about sum(4 / i) / sum(2)
    # the links of one token are not those of its neighbour, moved along
    first = torch.stack([row.nonzero()[0, 0] for row in one[2:]])
    assert abs(float(torch.corrcoef(torch.stack((first[1:] / torch.arange(3, n), first[:-1] / torch.arange(2, n - 1))))
                     [0, 1])) < 0.1


@pytest.mark.parametrize(("build", "says"), [
    (lambda: chunked(0), "a chunk is a whole number"),
    (lambda: block_causal(None), "needs a size"), (lambda: strided(0), "a stride is"),
    (lambda: random_links(0), "links is a whole number"), (lambda: random_links(1, -1), "a seed is a whole number"),
    (lambda: global_tokens(-2), "named by their indexes"),
])
def test_wrong_sizes_are_refused(build, says):
    with pytest.raises(ValueError, match=says):
        build()
