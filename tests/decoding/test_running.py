"""A batch that texts join and leave, prefixes read once, samples of one prompt, an abort, prompts that are too long."""

from __future__ import annotations

import gc
import weakref
from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.decoding.small import LEFT_TO_RIGHT, ONE, TOKENIZER, tiny

from bothways import decoding
from bothways.decoding import GenerateConfig, Prefixes
from bothways.decoding.common import blocked_tokens
from bothways.decoding.left_to_right import Writer
from bothways.decoding.reading import Reader
from bothways.decoding.structured import Grammar
from bothways.decoding.thoughts import Thoughts
from bothways.errors import BothwaysError
from bothways.model import LanguageModel
from bothways.objectives.base import reading
from bothways.visibility import causal

PROMPTS = [TOKENIZER.encode(text) for text in ("the cat sat on", "", "a dog", "the mat. a dog ran to the house")]


def plain(trained, prompt, config, seed):
    return decoding.generate(trained, [prompt], replace(config, seed=seed), trained.objective.modes[0])[0]


PENALTIES = {"repetition_penalty": 1.6, "frequency_penalty": 0.9, "presence_penalty": 0.7, "no_repeat_ngram": 2,
             "logit_bias": {60: 2.0, 70: float("-inf")}}


@pytest.mark.parametrize("penalties", [{}, PENALTIES], ids=["plain", "penalties"])
@pytest.mark.parametrize("name", LEFT_TO_RIGHT)
def test_texts_join_and_leave_a_running_batch(name, penalties):
    trained = tiny(*LEFT_TO_RIGHT[name])
    mode = trained.objective.modes[0]
    config = GenerateConfig(max_new_tokens=10, temperature=0.8, **penalties)
    examples = [trained.objective.continuation(torch.tensor(prompt, dtype=torch.long).numpy(), mode)
                for prompt in PROMPTS]
    blocked = blocked_tokens(trained, trained.objective.stops)
    # where another tower reads the prompt, penalties count that one's tokens
    seen = [None if example.source is None else prompt for example, prompt in zip(examples, PROMPTS)]
    writer = Writer(trained.network, examples[:2], config, blocked, 10, None if seen[0] is None else seen[:2],
                    seeds=[5, 6])
    written, arrivals = {0: [], 1: []}, {3: 2, 5: 3}
    for turn in range(30):
        if turn in arrivals:
            new = arrivals[turn]
            written[writer.join(examples[new], 5 + new, seen[new])] = []
        for row, token, _ in writer.step():
            written[row].append(token)
            if len(written[row]) == 10 or token in trained.objective.stops:
                writer.close(row)
        if not writer.open and turn > 5:
            break
    for row, prompt in enumerate(PROMPTS):
        alone = plain(trained, prompt, config, 5 + row)
        assert [token for token in written[row] if token not in trained.objective.stops] == alone.ids


def test_forms_and_thoughts_join_too():
    pytest.importorskip("llguidance")
    trained = tiny("next-token")
    config = GenerateConfig(max_new_tokens=12, temperature=1.0, regex="[a-d]{4,8}")
    ends = trained.objective.stops
    blocked = blocked_tokens(trained, ends)
    examples = [trained.objective.continuation(np.array(prompt, dtype=np.int64), trained.objective.modes[0])
                for prompt in PROMPTS[:2]]
    writer = Writer(trained.network, examples[:1], config, blocked, 12, rules=[Grammar(trained, config, 1, ends)])
    written = {0: [new.token for new in writer.step()]}
    written[writer.join(examples[1], 1)] = []
    while writer.open:
        for row, token, _ in writer.step():
            written[row].append(token)
            if token in ends:
                writer.close(row)
    for row, prompt in enumerate(PROMPTS[:2]):
        assert written[row][:-1] == plain(trained, prompt, config, row).ids
    # a text that joins in the middle of its thought is inside one, with a budget of its own
    thoughts = Thoughts((10, 11), [reading(np.array([5]), causal)], torch.zeros(20, dtype=torch.bool), 1)
    thoughts.join([5, 10], [5])
    open_ = (thoughts.apply(torch.zeros(2, 20), [0, 1]) == 0).tolist()
    assert open_[0][10] and not open_[0][11] and open_[1][11] and not open_[1][10] and open_[1][3]
    thoughts.wrote(1, 3)
    assert (thoughts.apply(torch.zeros(1, 20), [1]) == 0).nonzero()[:, 1].tolist() == [11]


@pytest.mark.parametrize("name", ["rotary", "local layers", "denoising", "relative"])
def test_a_beginning_that_prompts_share_is_read_once(name):
    trained = tiny(*LEFT_TO_RIGHT[name])
    config, kept = GenerateConfig(max_new_tokens=6), Prefixes()
    story = TOKENIZER.encode("the cat sat on the mat. a dog ran")
    (first,) = decoding.generate(trained, [story], config, prefixes=kept)
    assert kept.read == 0 and kept.bytes > 0
    turns = [[*story, *first.ids, 70, 71], story, [*story, 80]] if name != "denoising" else [story, story]
    for prompt in turns:
        before = kept.read
        (again,) = decoding.generate(trained, [prompt], config, prefixes=kept)
        (fresh,) = decoding.generate(trained, [prompt], config)
        assert again.ids == fresh.ids and again.logprobs == pytest.approx(fresh.logprobs, abs=1e-4)
        assert name in ("local layers", "denoising") or kept.read - before >= len(story)
    assert name == "denoising" or kept.read > 0
    mixed = [story, PROMPTS[2], [*story, 90]]
    ids = [text.ids for text in decoding.generate(trained, mixed, config, prefixes=kept)]
    assert ids == [text.ids for text in decoding.generate(trained, mixed, config)]


def test_prefixes_forget_what_other_weights_read_and_what_there_is_no_room_for():
    trained, kept = tiny("next-token"), Prefixes()
    decoding.generate(trained, PROMPTS[:1], GenerateConfig(4), prefixes=kept)
    with torch.no_grad():
        trained.network.embedding.weight.mul_(1.5)
    (changed,) = decoding.generate(trained, PROMPTS[:1], GenerateConfig(4), prefixes=kept)
    assert kept.read == 0
    assert changed.ids == decoding.generate(trained, PROMPTS[:1], GenerateConfig(4))[0].ids
    small = Prefixes(most=1)
    decoding.generate(trained, PROMPTS[:1], GenerateConfig(4), prefixes=small)
    assert small.bytes == 0


@pytest.mark.parametrize("spec", ["next-token", "denoising", "diffusion"])
def test_samples_of_a_prompt_are_texts_with_seeds_in_a_row(spec, monkeypatch):
    trained, joined = tiny(spec), []
    join = Reader.join
    monkeypatch.setattr(Reader, "join", lambda self, examples, most: (joined.append(len({*map(id, examples)})),
                                                                     join(self, examples, most))[1])
    config = GenerateConfig(max_new_tokens=6, temperature=1.0, seed=4, samples=3)
    texts = decoding.generate(trained, PROMPTS[:2], config)
    assert len(texts) == 6 and (spec == "diffusion" or joined[0] == 2)
    for number, text in enumerate(texts):
        (alone,) = decoding.generate(trained, [PROMPTS[number // 3]], replace(config, seed=4 + number, samples=1))
        assert alone.ids == text.ids


def test_an_abort_gives_the_memory_back(monkeypatch):
    trained, caches = tiny("next-token"), []
    made = Reader.new_cache
    monkeypatch.setattr(Reader, "new_cache", lambda self, *a: (cache := made(self, *a),
                                                              caches.append(weakref.ref(cache)))[0])
    words = decoding.stream(trained, PROMPTS[0], GenerateConfig(max_new_tokens=60, temperature=1.0))
    next(words)
    assert caches[0]() is not None
    words.close()
    gc.collect()
    assert caches[0]() is None


def test_int8_is_named_and_near():
    trained = tiny("next-token")
    config = GenerateConfig(max_new_tokens=12)
    exact, near = (decoding.generate(trained, PROMPTS, replace(config, cache_numbers=numbers))
                   for numbers in ("exact", "int8"))
    off = [abs(a - b) for one, two in zip(exact, near) if one.ids == two.ids
           for a, b in zip(one.logprobs, two.logprobs)]
    assert off and 0 < max(off) < 0.2 and near[0].cache_bytes < exact[0].cache_bytes


@pytest.mark.parametrize("spec", ["next-token", "denoising"])
def test_a_prompt_that_is_too_long_is_cut_where_it_is_asked(spec):
    trained, most = tiny(spec), ONE.position.length
    long = [50 + place % 200 for place in range(150)]
    with pytest.raises(BothwaysError, match=rf"prompt 1 has 15\d tokens, but this network has places for {most}: "
                       r"shorten it, or let it be cut \(truncate is 'left' or 'right'\)"):
        decoding.generate(trained, [long])
    read = []
    forward = LanguageModel.forward
    config = GenerateConfig(max_new_tokens=8)
    for side in ("left", "right"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(LanguageModel, "forward", lambda self, example, *a, **k: (
                read.append(example), forward(self, example, *a, **k))[1])
            (text,) = decoding.generate(trained, [long], replace(config, truncate=side))
        first = read[0] if read[0].source is None else read[0].source
        read.clear()
        own = [token for token in first.inputs.tolist() if token >= 50]
        assert own == (long[-len(own):] if side == "left" else long[:len(own)])
        assert most - 12 < len(first) <= most
        assert len(text.ids) == 8 or text.stopped_by == "end"
