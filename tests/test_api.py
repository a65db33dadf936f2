"""The public surface: the same calls for every contender, from a folder, with results of the prompt's kind."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.decoding.small import CONTENDERS, ONE, TOKENIZER, TWO, V, tiny

import bothways
from bothways.errors import BothwaysError
from bothways.objectives.base import reading
from bothways.visibility import bidirectional, causal, window

VOCABULARY = TOKENIZER.vocabulary


@pytest.fixture(params=[key for key in CONTENDERS if key != "spans"])
def model(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[bothways.Model]:
    """Each contender, saved and read again."""
    bothways.Model(tiny(CONTENDERS[request.param])).save_pretrained(tmp_path / "model")
    return bothways.from_pretrained(tmp_path / "model")


def test_the_same_calls_for_all_five_contenders(model: bothways.Model) -> None:
    for mode in model.modes:
        text = model.generate("the cat", max_new_tokens=6, visibility=mode)
        assert isinstance(text, str)
        assert text.startswith("the cat")
        texts = model.generate(["the cat", "a dog"], max_new_tokens=6, visibility=mode)
        assert texts[0] == text
        ids = torch.tensor([[VOCABULARY.bos, 60, 61], [VOCABULARY.bos, 70, 71]])
        written = model.generate(ids, max_new_tokens=6, visibility=mode)
        assert written.shape[0] == 2
        assert written.shape[1] <= 9
        assert torch.equal(written[:, :3], ids)
        one = model.generate(ids[0], max_new_tokens=6, visibility=mode)
        assert one.dim() == 1
        # the batch row may be filled up with <pad> behind its end
        assert torch.equal(written[0, : len(one)], one)
        assert (written[0, len(one) :] == VOCABULARY.pad).all()
    if "causal" in model.modes and len(model.modes) == 1:
        with pytest.raises(BothwaysError, match="cannot fill blanks: it can continue a prompt"):
            model.fill("the <mask> sat")
    else:
        filled = model.fill("the <mask> sat", max_new_tokens=4)
        assert isinstance(filled, str)
        assert "<mask>" not in filled
        assert model.fill(["the <mask> sat", "a <mask>"], max_new_tokens=4)[0] == filled


def test_embeddings_keep_the_order_whatever_they_are_packed_with(model: bothways.Model) -> None:
    texts = ["the cat sat on the mat. " * n for n in (4, 1, 3)] + ["", "a dog"]
    mode = model.modes[0]
    vectors = model.embed(texts, visibility=mode)
    assert vectors.shape == (5, 32)
    assert vectors.dtype == torch.float32
    for i, text in enumerate(texts):
        torch.testing.assert_close(model.embed(text, visibility=mode)[0], vectors[i], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(model.embed(texts, visibility=mode, batch_tokens=1), vectors, rtol=1e-4, atol=1e-5)
    layers = 1 if model.config.stack == "two towers" else 2
    assert not torch.allclose(model.embed(texts, 0, mode), model.embed(texts, layers, mode), atol=1e-2)
    with pytest.raises(BothwaysError, match=f"the layers 0 \\(embedding\\) to {layers}"):
        model.embed(texts, 9, mode)


def test_the_embedding_is_the_mean_of_the_texts_own_states() -> None:
    model = bothways.Model(tiny("masked"))
    ids = TOKENIZER.encode("a dog ran")
    with torch.no_grad():
        example = model.objective.blank(
            torch.tensor([1, *ids, 2]).numpy(), torch.zeros(len(ids) + 2, dtype=torch.bool).numpy()
        )
        states = model.trained.network(example).states
    torch.testing.assert_close(model.embed("a dog ran")[0], states[1:-1].mean(0), rtol=1e-4, atol=1e-5)


def test_logits() -> None:
    model = bothways.Model(tiny("next-token"))
    ids = torch.randint(0, V, (3, 9), generator=torch.Generator().manual_seed(0))
    logits = model.logits(ids)
    assert logits.shape == (3, 9, V)
    torch.testing.assert_close(model.logits(ids[1]), logits[1:2], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(model.logits(ids[1].tolist()), logits[1:2], rtol=1e-4, atol=1e-5)
    assert torch.equal(model.logits(ids, visibility="causal"), logits)
    assert torch.equal(model.logits(ids, visibility=causal), logits)
    # causal: what comes later changes nothing; any other visibility may be asked for by value
    changed = ids.clone()
    changed[:, 6] = (changed[:, 6] + 1) % V
    assert torch.equal(model.logits(changed)[:, :6], logits[:, :6])
    assert not torch.allclose(
        model.logits(changed, visibility=bidirectional)[:, :6], model.logits(ids, visibility=bidirectional)[:, :6]
    )
    assert torch.equal(
        model.logits(changed, visibility=window(2, 0))[:, :6], model.logits(ids, visibility=window(2, 0))[:, :6]
    )


def test_logits_of_two_towers() -> None:
    model = bothways.Model(tiny("denoising"))
    ids, source = torch.randint(44, V, (2, 5)), torch.randint(44, V, (2, 7))
    logits = model.logits(ids, source)
    assert logits.shape == (2, 5, V)
    torch.testing.assert_close(model.logits(ids[1], source[1]), logits[1:], rtol=1e-4, atol=1e-5)
    with pytest.raises(BothwaysError, match="two towers: give what the other one reads"):
        model.logits(ids)
    with pytest.raises(BothwaysError, match="ids hold 2 texts and source 1"):
        model.logits(ids, source[0])
    with pytest.raises(BothwaysError, match="one tower and reads no source"):
        bothways.Model(tiny("masked")).logits(ids, source)


def test_a_hybrid_asks_which() -> None:
    model = bothways.Model(tiny(CONTENDERS["hybrid"]))
    for call in (lambda: model.logits([1, 60]), lambda: model.generate("a"), lambda: model.embed("a")):
        with pytest.raises(
            BothwaysError, match="several visibilities, 'causal' and 'bidirectional': say which one to use"
        ):
            call()
    with pytest.raises(BothwaysError, match="did you mean 'causal'"):
        model.generate("a", visibility="casual")
    assert model.generate("a", 4, visibility=causal) == model.generate("a", 4, visibility="causal")
    assert not torch.equal(
        model.logits([1, 60, 61], visibility="causal"), model.logits([1, 60, 61], visibility="bidirectional")
    )


def test_wrong_ids_are_refused() -> None:
    model = bothways.Model(tiny("masked"))
    for ids, word in (
        ([], "ids hold no token: give at least one, such as <bos> \\(1\\)"),
        ([V], f"ids hold the token {V}, but the vocabulary has the ids 0 to {V - 1}"),
        ([-1, 3], "ids hold the token -1"),
        (torch.zeros(2, 2, 2, dtype=torch.long), "shape \\(2, 2, 2\\)"),
        (torch.zeros(3), "whole numbers"),
        ([3] * 97, "97 tokens, but this network has places for 96"),
    ):
        with pytest.raises(BothwaysError, match=word):
            model.logits(ids)


def test_streaming() -> None:
    model = bothways.Model(tiny("next-token", seed=2))
    options = {"max_new_tokens": 30, "temperature": 1.3, "seed": 4}
    text = model.generate("the cat", **options)
    pieces = model.generate("the cat", stream=True, **options)
    assert isinstance(pieces, Iterator)
    assert "the cat" + "".join(pieces) == text
    heard: list[str] = []
    assert model.generate("the cat", stream=heard.append, **options) == text
    assert "the cat" + "".join(heard) == text
    with pytest.raises(BothwaysError, match="one text is streamed at a time"):
        model.generate(["a", "b"], stream=True)


def test_stop_strings_end_the_text() -> None:
    model = bothways.Model(tiny("next-token", seed=2))
    free = model.generate("the cat", max_new_tokens=40, temperature=1.3, seed=4)
    stop = free[20:22]
    assert (
        model.generate("the cat", max_new_tokens=40, temperature=1.3, seed=4, stop=stop) == free[: free.index(stop, 7)]
    )


def test_unknown_options_are_named_with_the_nearest() -> None:
    model = bothways.Model(tiny("next-token"))
    with pytest.raises(BothwaysError, match="'temprature' \\(did you mean 'temperature'"):
        model.generate("a", temprature=1.0)
    with pytest.raises(BothwaysError, match="top_p is 0, but must lie"):
        model.generate("a", top_p=0)


def test_a_space_before_a_blank_belongs_to_the_missing_word() -> None:
    model = bothways.Model(tiny("masked"))
    assert model.fill("the <mask> sat") == model.fill("the<mask> sat")
    ids = model.fill(torch.tensor([VOCABULARY.bos, 60, VOCABULARY.mask, 70]))
    assert ids[[0, 1, 3]].tolist() == [VOCABULARY.bos, 60, 70]


def test_another_number_format() -> None:
    model = bothways.Model(tiny("next-token")).to(dtype=torch.bfloat16)
    assert len(model.generate(torch.tensor([1, 60]), max_new_tokens=5)) <= 7
    assert model.logits([1, 60]).dtype == torch.bfloat16


def test_the_folder_is_what_transformers_reads(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    model = bothways.Model(tiny("next-token", ONE))
    model.save_pretrained(tmp_path / "model")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "model")
    ids = tokenizer("the cat sat", return_tensors="pt", add_special_tokens=False)["input_ids"]
    torch.testing.assert_close(theirs(ids).logits, model.logits(ids), rtol=1e-4, atol=1e-5)


def test_describe_names_the_choice_that_prevents_export() -> None:
    text = bothways.Model(tiny("denoising", TWO)).describe()
    assert "position.kind is 'rotary', not 'relative'" in text
    assert "LlamaForCausalLM" in bothways.Model(tiny("next-token")).describe()


def test_logits_of_mixed_lengths_travel_packed_in_order_whoever_is_beside_them() -> None:
    generator = torch.Generator().manual_seed(0)
    for key in ("causal", "masked", "denoising"):
        model = bothways.Model(tiny(CONTENDERS[key]))
        texts = [torch.randint(44, V, (length,), generator=generator) for length in (9, 2, 30, 1, 9)]
        sources = None
        if key == "denoising":
            sources = [torch.randint(44, V, (length,), generator=generator) for length in (3, 8, 1, 5, 2)]
        seen: list[int] = []
        hook = model.trained.network.register_forward_hook(lambda _, call, __, seen=seen: seen.append(len(call[0])))
        together = model.logits_of_each(texts, sources)
        bounded = model.logits_of_each(texts, sources, batch_tokens=16)
        hook.remove()
        assert seen[0] == sum(map(len, texts))
        assert all(n <= 16 or n == 30 for n in seen[1:])
        for i, text in enumerate(texts):
            alone = model.logits(text, None if sources is None else sources[i])[0]
            assert together[i].shape == (len(text), V)
            torch.testing.assert_close(together[i], alone, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(bounded[i], alone, rtol=1e-4, atol=1e-5)


def watched(model: bothways.Model) -> list[int]:
    """The tokens of each pass of the network from now on."""
    seen: list[int] = []
    encode = model.trained.network.encode
    model.trained.network.encode = lambda row, **how: seen.append(len(row)) or encode(row, **how)  # type: ignore[method-assign,func-returns-value]
    return seen


def test_one_long_text_does_not_blow_the_batch_of_an_embedding() -> None:
    model = bothways.Model(tiny("masked"))
    seen = watched(model)
    model.embed(["a dog"] * 30 + ["the cat sat on the mat. " * 4] + ["a"] * 30, batch_tokens=24)
    assert sum(size > 24 for size in seen) == 1
    assert max(seen) == len(TOKENIZER.encode("the cat sat on the mat. " * 4)) + 2
    assert len(seen) < 30


@pytest.mark.parametrize("pooling", ["mean", "first"])
def test_an_embedding_in_bfloat16_is_near_the_one_in_float32(pooling: str) -> None:
    model = bothways.Model(tiny("masked"))
    texts = ["the cat sat on the mat. " * n for n in (3, 1, 4)]
    exact = model.embed(texts, pooling=pooling)  # type: ignore[call-overload]
    rough = model.to(dtype=torch.bfloat16).embed(texts, pooling=pooling)  # type: ignore[call-overload]
    assert rough.dtype == torch.float32
    assert 0 < (rough - exact).norm() / exact.norm() < 0.02


def test_a_text_longer_than_the_places_is_refused_or_cut_where_wanted() -> None:
    model = bothways.Model(tiny("masked"))
    words = "the cat sat on the mat. a dog ran to the house. " * 9
    ids = TOKENIZER.encode(words)
    with pytest.raises(BothwaysError, match=f"text 2 has {len(ids) + 2} tokens, but this network has places for 96"):
        model.embed(["a", words])
    for side, kept in (("right", ids[:94]), ("left", ids[-94:])):
        cut = model.embed(["a", words], truncate=side)[1]  # type: ignore[call-overload]
        with torch.no_grad():
            states = model.trained.network.encode(reading(np.array([1, *kept, 2]), bidirectional)).states
        torch.testing.assert_close(cut, states[1:-1].mean(0), rtol=1e-4, atol=1e-5)
    with pytest.raises(BothwaysError, match="truncate is 'middle'"):
        model.embed("a", truncate="middle")  # type: ignore[call-overload]


def test_a_stream_of_texts_is_taken_up_only_as_far_as_answers_are_asked_for() -> None:
    model = bothways.Model(tiny("masked"))
    taken = 0

    def texts() -> Iterator[str]:
        nonlocal taken
        for number in itertools.count():
            taken += 1
            yield "a dog " * (1 + number % 5)

    seen = watched(model)
    stream = model.embed(texts(), batch_tokens=256)
    assert isinstance(stream, Iterator)
    assert taken == 0
    some = torch.stack(list(itertools.islice(stream, 1000)))
    assert taken < 3000
    assert max(seen) <= 256
    torch.testing.assert_close(some, model.embed(["a dog " * (1 + number % 5) for number in range(5)]).repeat(200, 1),
                               rtol=1e-4, atol=1e-5)
    # scores too, a pass at a time: what they hold is large
    taken = 0
    ids = (torch.arange(44, 50 + taken % 3) for _ in texts())
    first = next(model.logits_of_each(ids, batch_tokens=64))
    torch.testing.assert_close(first, model.logits(torch.arange(44, 51))[0], rtol=1e-4, atol=1e-5)
    assert taken < 20


def test_a_model_is_read_with_weights_of_few_bits(model: bothways.Model, tmp_path: Path) -> None:
    light = bothways.from_pretrained(tmp_path / "model", weights="int8")
    texts = ["the cat sat", "a dog"]
    vectors, right = (one.embed(texts, visibility=one.modes[0]) for one in (light, model))
    assert 0 < (vectors - right).norm() < 0.05 * right.norm()
    assert light.generate("the cat", max_new_tokens=4, visibility=light.modes[0]).startswith("the cat")
    assert "int8" in repr(light) and "int8" in light.describe() and "int8" not in model.describe()
    with pytest.raises(BothwaysError, match="cannot be saved"):
        light.save_pretrained(tmp_path / "again")
    assert not (tmp_path / "again").exists()
    with pytest.raises(BothwaysError, match="is float32, bfloat16, int8 or int4"):
        bothways.from_pretrained(tmp_path / "model", weights="int5")
