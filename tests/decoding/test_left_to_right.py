"""Cached writes as uncached, a batch as each text alone, and streamed text is the text."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tests.decoding.small import LEFT_TO_RIGHT, ONE, TOKENIZER, V, tiny

from bothways import decoding
from bothways.decoding import GenerateConfig
from bothways.decoding.common import blocked_tokens
from bothways.decoding.left_to_right import Writer
from bothways.decoding.written import GrowingText
from bothways.errors import BothwaysError

PROMPTS = [
    TOKENIZER.encode(text) for text in ("the cat sat on", "", "a dog", "the mat. a dog ran to the house, the cat")
]


def mode_of(trained):  # type: ignore[no-untyped-def]
    return trained.objective.modes[0]


@pytest.mark.parametrize("name", LEFT_TO_RIGHT)
@pytest.mark.parametrize("options", [{}, {"temperature": 0.9, "top_k": 40, "repetition_penalty": 1.3, "seed": 5}])
def test_cached_is_uncached_and_a_batch_is_each_alone(name: str, options: dict[str, float]) -> None:
    trained = tiny(*LEFT_TO_RIGHT[name])
    config = GenerateConfig(max_new_tokens=14, stop_ids=(TOKENIZER.encode("a")[0], 90, 91, 92, 100), **options)  # type: ignore[arg-type]
    cached = decoding.generate(trained, PROMPTS, config, mode_of(trained))
    plain = decoding.generate(trained, PROMPTS, replace(config, cached=False), mode_of(trained))
    assert len({tuple(text.ids) for text in cached}) > 1
    for i, (one, other) in enumerate(zip(cached, plain, strict=True)):
        alone = decoding.generate(trained, PROMPTS[i : i + 1], replace(config, seed=config.seed + i), mode_of(trained))[
            0
        ]
        for text in (other, alone):
            assert text.ids == one.ids
            assert text.stopped_by == one.stopped_by
            torch.testing.assert_close(torch.tensor(text.logprobs), torch.tensor(one.logprobs), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", LEFT_TO_RIGHT)
def test_cached_scores_are_uncached_scores_after_texts_have_left(name: str) -> None:
    trained = tiny(*LEFT_TO_RIGHT[name])
    examples = [trained.objective.continuation(prompt, mode_of(trained)) for prompt in PROMPTS]
    writers = [
        Writer(trained.network, examples, GenerateConfig(cached=cached), blocked_tokens(trained, ()), 12)
        for cached in (True, False)
    ]
    for step in range(8):
        one, other = (writer.step() for writer in writers)
        assert [new[:2] for new in one] == [new[:2] for new in other]
        torch.testing.assert_close(
            torch.tensor([new.logprob for new in one]),
            torch.tensor([new.logprob for new in other]),
            rtol=1e-4,
            atol=1e-5,
        )
        for writer in writers:
            if step in (2, 3):
                writer.close(step - 2)
            if step == 5:
                writer.close(3)


def test_log_probabilities_are_those_of_the_network() -> None:
    trained = tiny("next-token")
    (text,) = decoding.generate(trained, PROMPTS[:1], GenerateConfig(max_new_tokens=6, temperature=2.0, top_k=5))
    ids = torch.tensor([TOKENIZER.vocabulary.bos, *PROMPTS[0], *text.ids])
    example = trained.objective.continuation(ids.numpy())
    with torch.no_grad():
        scores = trained.network.logits(trained.network(example).states).log_softmax(-1)
    wanted = scores[len(PROMPTS[0]) : -1].gather(-1, torch.tensor(text.ids)[:, None]).flatten()
    torch.testing.assert_close(torch.tensor(text.logprobs), wanted, rtol=1e-4, atol=1e-5)


def test_reserved_tokens_are_never_written_and_eos_ends() -> None:
    trained = tiny("next-token", seed=3)
    texts = decoding.generate(trained, [[]] * 40, GenerateConfig(max_new_tokens=60, temperature=3.0))
    assert not any(TOKENIZER.vocabulary.special[text.ids].any() for text in texts)
    assert {text.stopped_by for text in texts} == {"end", "length"}
    assert all(len(text.ids) == 60 for text in texts if text.stopped_by == "length")
    assert len({tuple(text.ids) for text in texts}) == 40


def test_the_seed_decides() -> None:
    trained = tiny("next-token")
    config = GenerateConfig(max_new_tokens=10, temperature=1.0, seed=1)
    first, again = (decoding.generate(trained, PROMPTS, config) for _ in range(2))
    assert [text.ids for text in first] == [text.ids for text in again]
    assert [text.ids for text in first] != [
        text.ids for text in decoding.generate(trained, PROMPTS, replace(config, seed=9))
    ]


@pytest.mark.parametrize("name", ["rotary", "denoising"])
@pytest.mark.parametrize("stop", [(), ("t",), ("the", " a", "zzzz")])
def test_streamed_pieces_are_the_text(name: str, stop: tuple[str, ...]) -> None:
    trained = tiny(*LEFT_TO_RIGHT[name], seed=2)
    for seed in range(6):
        config = GenerateConfig(max_new_tokens=40, temperature=1.5, stop=stop, seed=seed)
        (text,) = decoding.generate(trained, PROMPTS[:1], config)
        pieces = list(decoding.stream(trained, PROMPTS[0], config))
        assert "".join(pieces) == text.text
        assert not any(string in text.text for string in stop)
        if not stop:
            assert text.text == TOKENIZER.decode(text.ids)


def test_growing_text_gives_whole_characters_and_holds_back_a_possible_stop() -> None:
    byte_by_byte = type(TOKENIZER).train(["x"], kind="bytes", size=300)
    growing = GrowingText(byte_by_byte, stop=("END",))
    pieces = [growing.add(token) for token in byte_by_byte.encode("déjà 😀 EN EEND more")]
    assert "".join(pieces) == "déjà 😀 EN E"
    assert "\ufffd" not in "".join(pieces)
    assert growing.stopped
    assert growing.text == "déjà 😀 EN E"
    held = GrowingText(byte_by_byte, stop=("END",))
    assert "".join(held.add(token) for token in byte_by_byte.encode("so EN")) == "so "
    assert held.finish() == "EN"
    cut = GrowingText(byte_by_byte)
    assert "".join(cut.add(token) for token in byte_by_byte.encode("é")[:1]) == ""
    assert cut.finish() == "\ufffd"


def test_growing_text_with_words_keeps_the_spaces() -> None:
    words = type(TOKENIZER).words("the cat sat on the mat")
    ids = words.encode("the cat sat on the mat")
    growing = GrowingText(words, context=ids[:2])
    assert "".join(growing.add(token) for token in ids[2:]) + growing.finish() == " sat on the mat"


def test_the_network_runs_out_of_places() -> None:
    trained = tiny("next-token")
    full = [50] * (ONE.position.length - 2)
    (text,) = decoding.generate(trained, [full], GenerateConfig(max_new_tokens=50, temperature=1.0))
    assert (len(text.ids), text.stopped_by) == (2, "positions")
    with pytest.raises(BothwaysError, match="prompt 2 has 97 tokens, but this network has places for 96"):
        decoding.generate(trained, [[50], [50] * 96])


def test_learned_places_are_enough_for_what_is_promised() -> None:
    trained = tiny(*LEFT_TO_RIGHT["learned"])
    (text,) = decoding.generate(trained, [[50] * 60], GenerateConfig(max_new_tokens=50, temperature=1.0))
    assert (len(text.ids), text.stopped_by) == (4, "positions")


def test_without_begin_a_prompt_is_read_as_it_stands() -> None:
    trained = tiny("next-token")
    with_bos = [TOKENIZER.vocabulary.bos, *PROMPTS[0]]
    added, given, raw = (
        decoding.generate(trained, [prompt], GenerateConfig(max_new_tokens=5, begin=begin))[0]
        for prompt, begin in ((PROMPTS[0], True), (with_bos, False), (PROMPTS[0], False))
    )
    assert added.ids == given.ids
    assert added.logprobs != raw.logprobs
    with pytest.raises(BothwaysError, match="an empty prompt needs a <bos>"):
        decoding.generate(trained, [[]], GenerateConfig(begin=False))


def test_ids_beyond_the_tokenizer_are_never_written() -> None:
    trained = tiny("next-token", replace(ONE, shape=replace(ONE.shape, vocabulary=V + 40)))
    texts = decoding.generate(trained, [[]] * 20, GenerateConfig(max_new_tokens=30, temperature=5.0))
    assert max(max(text.ids) for text in texts if text.ids) < V


def test_nothing_asked_nothing_written() -> None:
    assert decoding.generate(tiny("next-token"), []) == []
