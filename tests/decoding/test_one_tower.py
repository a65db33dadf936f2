"""Objectives that read both ways in one tower: they write, fill, score, embed and are stored like all others."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.decoding.small import ONE, TOKENIZER, TWO, tiny

from bothways import decoding, objectives
from bothways.api import Model
from bothways.decoding import GenerateConfig
from bothways.errors import BothwaysError
from bothways.evaluation.likelihood import suffix
from bothways.evaluation.score import Score
from bothways.families.trained import Trained
from bothways.objectives.base import reading

MASK, BOS, EOS = TOKENIZER.vocabulary.mask, TOKENIZER.vocabulary.bos, TOKENIZER.vocabulary.eos
WRITERS = ["prefix", "ul2", "ul2(towers=2)", "glm", "glm(places=one)", "fim"]
FILLERS = ["ul2", "ul2(towers=2)", "glm", "glm(places=one)", "fim"]
ALL = [*WRITERS, "permuted", "permuted(ordered_context=true)"]
PROMPTS = [TOKENIZER.encode("the cat"), [], TOKENIZER.encode("a dog ran to")]


def model(spec: str) -> Trained:
    made = objectives.make(spec, TOKENIZER.vocabulary)
    base = TWO if made.stack == "two towers" else ONE
    return tiny(spec, replace(base, companions=made.companions))


@pytest.mark.parametrize("spec", WRITERS)
def test_writing_on_cached_uncached_and_alone(spec):
    trained = model(spec)
    config = GenerateConfig(max_new_tokens=8, temperature=0.9, seed=2)
    together = decoding.generate(trained, PROMPTS, config)
    uncached = decoding.generate(trained, PROMPTS, replace(config, cached=False))
    for i, (one, other) in enumerate(zip(together, uncached, strict=True)):
        assert one.ids == other.ids and one.logprobs == pytest.approx(other.logprobs, abs=1e-4)
        (alone,) = decoding.generate(trained, PROMPTS[i:i + 1], replace(config, seed=2 + i))
        assert alone.ids == one.ids
        assert not TOKENIZER.vocabulary.special[one.ids].any()


@pytest.mark.parametrize("spec", ["prefix", "fim", "glm(places=one)"])
def test_what_is_written_has_the_probability_that_a_question_gives_it(spec):
    """The writer goes through a cache, the question through one pass: the same numbers, so both are the chain rule."""
    trained = model(spec)
    (written,) = decoding.generate(trained, PROMPTS[:1], GenerateConfig(max_new_tokens=8, temperature=0.7))
    ids = np.array([BOS, *PROMPTS[0], *written.ids, *([EOS] if spec.startswith("glm") else [])])
    hidden = (np.arange(len(ids)) > len(PROMPTS[0])) & (np.arange(len(ids)) <= len(PROMPTS[0]) + len(written.ids))
    question = trained.objective.blank(ids, hidden)
    with torch.no_grad():
        logits = trained.network.logits(trained.network(question).states[question.asks[0].where])
    scores = logits.log_softmax(-1)[range(len(written.ids)), written.ids]
    assert scores.tolist() == pytest.approx(written.logprobs, abs=1e-4)


@pytest.mark.parametrize("spec", FILLERS)
def test_blanks_of_any_length_keep_the_text_around_them(spec):
    trained = model(spec)
    texts = [TOKENIZER.encode("the<mask> sat on the mat"), TOKENIZER.encode("<mask> dog")]
    if spec != "fim":
        texts.append(TOKENIZER.encode("a<mask> cat<mask> on<mask>"))
    config = GenerateConfig(max_new_tokens=3, temperature=0.9, seed=5)
    for i, (text, filled) in enumerate(zip(texts, decoding.fill(trained, texts, config), strict=True)):
        rest = iter(filled.ids)
        assert MASK not in filled.ids and all(token in rest for token in text if token != MASK)
        assert not TOKENIZER.vocabulary.special[filled.ids].any()
        (alone,) = decoding.fill(trained, [text], replace(config, seed=5 + i))
        assert alone.ids == filled.ids


def test_permuted_fills_in_any_order_and_says_what_it_cannot():
    trained = model("permuted")
    text = TOKENIZER.encode("the<mask> sat on<mask><mask> mat")
    (filled,) = decoding.fill(trained, [text])
    assert [a for a, b in zip(filled.ids, text, strict=True) if b != MASK] == [b for b in text if b != MASK]
    assert filled.network_evaluations == 3 and not TOKENIZER.vocabulary.special[filled.ids].any()
    any_order, left_to_right = trained.objective.modes
    (written,) = decoding.generate(trained, PROMPTS[:1], GenerateConfig(max_new_tokens=5), any_order)
    assert written.network_evaluations == 5
    with pytest.raises(BothwaysError, match="does not write from left to right"):
        decoding.generate(trained, PROMPTS[:1], mode=left_to_right)
    with pytest.raises(BothwaysError, match="fill in the mode 'any-order'"):
        decoding.fill(trained, [text], mode=left_to_right)


def test_two_blanks_are_too_many_for_the_middle():
    with pytest.raises(BothwaysError, match="one <mask> of any length, and this text has 2"):
        decoding.fill(model("fim"), [TOKENIZER.encode("a<mask> cat<mask>")])


def halves(scores: list[Score]) -> dict[str, tuple[str, float]]:
    return {score.mode: (score.estimator, score.value) for score in scores if score.name == "suffix NLL"}


@pytest.mark.parametrize("spec", ALL)
def test_second_halves_are_scored_exactly(spec):
    trained = model(spec)
    rng = np.random.default_rng(0)
    windows = [np.concatenate(([BOS], rng.integers(50, 300, 30))) for _ in range(3)]
    found = halves(suffix(trained, windows, samples=2, off_mode=False))
    exact = [value for estimator, value in found.values() if estimator == "exact"]
    assert len(exact) == 1 and np.isfinite(exact[0])
    assert len(found) == len(trained.objective.modes)


def test_scoring_left_to_right_is_the_sum_over_queries_asked_one_by_one():
    """Permuted: the exact score of a suffix equals asking for each token with everything before it shown."""
    trained, ids = model("permuted(ordered_context=true)"), np.array([BOS, *TOKENIZER.encode("the cat sat on the mat")])
    exact = trained.objective.mode("left-to-right")
    together = trained.objective.blank(ids, np.arange(len(ids)) >= 3, exact)
    scores = []
    with torch.no_grad():
        logits = trained.network.logits(trained.network(together).states[together.asks[0].where]).log_softmax(-1)
        for place in range(3, len(ids)):
            alone = trained.objective.blank(ids[:place + 1], np.arange(place + 1) == place, exact)
            state = trained.network(alone).states[alone.asks[0].where]
            scores.append(float(trained.network.logits(state).log_softmax(-1)[0, ids[place]]))
    assert logits[range(len(scores)), ids[3:]].tolist() == pytest.approx(scores, abs=1e-4)


@pytest.mark.parametrize("spec", ALL)
def test_texts_are_embedded_stored_and_loaded(spec, tmp_path):
    trained = model(spec)
    own = Model(trained)
    mode = trained.objective.modes[0].name
    vectors = own.embed(["the cat sat", "a dog"], visibility=None if trained.objective.stack == "two towers" else mode)
    assert vectors.shape == (2, 32) and bool(vectors.isfinite().all())
    own.save_pretrained(tmp_path / "model")
    from bothways.api import from_pretrained

    again = from_pretrained(tmp_path / "model")
    assert again.objective.describe() == trained.objective.describe()
    hidden = np.arange(5) > 2
    question = trained.objective.blank(np.array([BOS, 60, 61, 62, EOS]), hidden)
    with torch.no_grad():
        assert torch.allclose(again.trained.network(question).states, trained.network(question).states, atol=1e-6)


def test_a_prefix_model_reads_a_text_both_ways_but_predicts_it_from_left_to_right():
    own = Model(model("prefix"))
    ids = torch.tensor([BOS, 60, 61, 62])
    one, other = own.logits(ids), own.logits(torch.tensor([BOS, 60, 61, 99]))
    assert torch.equal(one[0, :3], other[0, :3])
    assert not torch.equal(own.embed("the cat sat"), own.embed("the cat sat", visibility=objectives.make(
        "next-token", TOKENIZER.vocabulary).modes[0].visibility))
    # ids exactly as they stand are the prefix, without a <bos>
    written = own.generate(torch.tensor([60, 61]), max_new_tokens=1)
    with torch.no_grad():
        state = own.trained.network(reading(np.array([60, 61]), own.objective.modes[0].visibility)).states[-1]
    scores = own.trained.network.logits(state)
    scores[torch.from_numpy(TOKENIZER.vocabulary.special)] = -torch.inf
    assert written.tolist() in ([60, 61, int(scores.argmax())], [60, 61])


@pytest.mark.parametrize("spec", ["ul2", "ul2(towers=2)"])
def test_ul2_writes_on_and_fills_behind_each_mode_token(spec):
    own = Model(model(spec))
    ids = np.array([BOS, *PROMPTS[0]])
    for kind in ("R", "S", "X"):
        mode = own.objective.mode(kind)
        token = TOKENIZER.vocabulary.ids[f"<{kind}>"]
        for posed in (own.objective.continuation(ids, mode), own.objective.infilling(np.append(ids, MASK), mode)):
            read = posed if posed.source is None else posed.source
            assert int(read.inputs[0]) == token
        assert own.generate("the cat", max_new_tokens=3, visibility=kind).startswith("the cat")
        assert "<mask>" not in own.fill("the <mask> sat", max_new_tokens=3, visibility=kind)
    assert int((own.objective.continuation(ids).source or own.objective.continuation(ids)).inputs[0]) == \
        TOKENIZER.vocabulary.ids["<S>"]
    with pytest.raises(BothwaysError, match="not trained with the visibility 'Y'"):
        own.generate("the cat", visibility="Y")
