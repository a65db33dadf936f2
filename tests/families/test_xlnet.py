"""XLNet of `transformers` and ours: one stream, and two with the published perm_mask and target_mapping."""

from __future__ import annotations

import pytest
import torch
from tests.families.reference import ids_of, same, shaken

import bothways
from bothways.batch import Example
from bothways.errors import BothwaysError
from bothways.families import KNOWN
from bothways.visibility import bidirectional, make_fields, two_streams

transformers = pytest.importorskip("transformers")

SIZES = {"vocab_size": 99, "d_model": 24, "n_layer": 2, "n_head": 3, "d_inner": 40, "mem_len": None}
CONFIGS = {"plain": {}, "distances end": {"clamp_len": 5, "ff_activation": "relu", "layer_norm_eps": 1e-5},
           "wide heads, deep, odd": {"n_head": 2, "n_layer": 3, "d_inner": 31, "vocab_size": 101}}


@pytest.mark.parametrize("name", CONFIGS)
def test_one_stream_and_two(name, tmp_path):
    theirs = shaken(transformers.XLNetLMHeadModel(transformers.XLNetConfig(**{**SIZES, **CONFIGS[name]})))
    theirs.save_pretrained(tmp_path / "theirs")
    ours, ids = bothways.from_pretrained(tmp_path / "theirs"), ids_of(99, 2, 12)
    network, length = ours.trained.network, ids.shape[1]
    segments = (torch.arange(length) > 6).long()
    place = torch.arange(length)
    ranks = torch.tensor([0, 0, 3, 0, 5, 1, 0, 4, 0, 0, 2, 6])
    asked = (ranks > 3).nonzero().flatten()
    with torch.no_grad():
        # 1. one stream, everything seen
        same(ours.logits(ids, visibility=bidirectional), theirs(ids).logits)
        for row in ids:
            example = Example(row, bidirectional, make_fields(length, segment=segments))
            output = network(example, hidden=True)
            reference = theirs(row[None], token_type_ids=segments[None], output_hidden_states=True)
            same(network.logits(output.states), reference.logits[0])
            for mine, published in zip(output.hidden, reference.hidden_states, strict=True):
                same(mine, published[0])
            # 2. two: contents, then a query for each place that is asked for
            both = torch.cat((place, asked))
            part = (torch.arange(len(both)) >= length).long()
            fields = make_fields(len(both), index=both, position=both, rank=ranks[both], part=part,
                                 segment=segments[both])
            inputs = row[both]
            states = network(Example(inputs, two_streams, fields)).states
            hidden_ranks = ranks[None] >= ranks[:, None]
            context = (ranks[None] == 0) & (ranks[:, None] == 0)
            mapping = torch.nn.functional.one_hot(asked, length).float()
            reference = theirs(row[None], perm_mask=(hidden_ranks & ~context).float()[None],
                               target_mapping=mapping[None], token_type_ids=segments[None]).logits[0]
            same(network.logits(states[length:]), reference)
    # 3. the gradients of two streams
    theirs.zero_grad()
    theirs(row[None], perm_mask=(hidden_ranks & ~context).float()[None], target_mapping=mapping[None],
           token_type_ids=segments[None]).logits.square().mean().backward()
    network.zero_grad()
    network.logits(network(Example(inputs, two_streams, fields)).states[length:]).square().mean().backward()
    family, grads = KNOWN["xlnet"], {name: weight.grad for name, weight in network.named_parameters()}
    exported = family.export(grads, ours.config)
    largest = max(weight.grad.abs().max().item() for weight in theirs.parameters())
    for published, weight in theirs.named_parameters():
        same(exported[published], weight.grad, 1e-4, published, 1e-3 * largest)
    # 4. and back
    ours.save_pretrained(tmp_path / "again", layout="xlnet")
    again = bothways.from_pretrained(tmp_path / "again")
    assert torch.equal(again.logits(ids, visibility=bidirectional), ours.logits(ids, visibility=bidirectional))
    loaded, info = transformers.XLNetLMHeadModel.from_pretrained(tmp_path / "again", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"], info
    for name, weight in theirs.named_parameters():
        assert torch.equal(weight, dict(loaded.named_parameters())[name]), name
    assert family.obstacle(ours.config) is None


def test_what_is_refused():
    for entry, word in (({"attn_type": "uni"}, "attn_type 'uni'"), ({"bi_data": True}, "bi_data"),
                        ({"ff_activation": "swosh"}, "'swosh'")):
        with pytest.raises(BothwaysError, match=word):
            KNOWN["xlnet"].from_config({**SIZES, **entry}, "config.json")


def test_greedy_writing_is_theirs(tmp_path):
    """Each published step lets contents see each other, and one query behind them sees all: what it says, we say."""
    theirs = shaken(transformers.XLNetLMHeadModel(transformers.XLNetConfig(**SIZES)))
    theirs.save_pretrained(tmp_path)
    network, text = bothways.from_pretrained(tmp_path).trained.network, ids_of(99, 1, 5)[0]
    for _ in range(32):
        query = (torch.arange(len(text) + 1) == len(text)).long()
        fields = make_fields(len(query), rank=query, part=query)
        with torch.no_grad():
            states = network(Example(torch.cat((text, text[:1])), two_streams, fields)).states[-1:]
            mine = network.logits(states)[0]
            wanted = theirs(**theirs.prepare_inputs_for_generation(text[None])).logits[0, -1]
        same(mine, wanted, 1e-4)
        best = wanted.topk(2).values
        assert best[0] - best[1] <= 1e-4 or mine.argmax() == wanted.argmax()
        text = torch.cat((text, wanted.argmax()[None]))


def test_padding_on_the_left_is_nothing_here(tmp_path):
    """XLNet pads before a text and knows distances alone, so a text reads as it does by itself."""
    theirs = shaken(transformers.XLNetLMHeadModel(transformers.XLNetConfig(**SIZES)))
    theirs.save_pretrained(tmp_path)
    ours, ids = bothways.from_pretrained(tmp_path), ids_of(99, 1, 9)
    padded = torch.nn.functional.pad(ids, (4, 0), value=5)
    with torch.no_grad():
        wanted = theirs(padded, attention_mask=(torch.arange(13) >= 4).long()[None]).logits[:, 4:]
        same(ours.logits(ids, visibility=bidirectional), wanted)
