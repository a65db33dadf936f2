"""Long texts in strides, continuations, source and target: against `transformers`' logits and by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from tests.evaluation.small import places, small, texts

import bothways
from bothways.errors import BothwaysError
from bothways.evaluation import likelihood
from bothways.evaluation.answers import answers
from bothways.evaluation.conditional import continuations, translations
from bothways.evaluation.pseudo import pseudo_nats
from bothways.evaluation.questions import ways
from bothways.evaluation.strided import documents, pieces, strides

transformers = pytest.importorskip("transformers")


def test_strides_ask_every_token_once_with_what_fits_before_it():
    assert strides(11, 4) == [(0, 1, 5), (4, 5, 9), (6, 9, 11)]
    assert strides(9, 4, 2) == [(0, 1, 5), (2, 5, 7), (4, 7, 9)]
    for length in range(1, 20):
        for stride in range(1, 6):
            found = strides(length, 5, stride)
            assert [place for _, first, end in found for place in range(first, end)] == list(range(1, length))
            assert all(end - 1 - start <= 5 and first > start for start, first, end in found)
    with pytest.raises(BothwaysError, match="does not fit a window"):
        strides(9, 4, 5)


def published(tmp_path, theirs):
    theirs.save_pretrained(tmp_path / "theirs")
    return bothways.from_pretrained(tmp_path / "theirs").trained


def log_softmax(theirs, **inputs):
    with torch.no_grad():
        return theirs(**inputs).logits[0].log_softmax(-1)


def test_rolling_and_continuations_equal_the_published_logits(tmp_path):
    config = transformers.GPT2Config(vocab_size=97, n_embd=32, n_layer=2, n_head=2, n_positions=16, bos_token_id=0,
                                     eos_token_id=0)
    torch.manual_seed(0)
    theirs = transformers.GPT2LMHeadModel(config).eval()
    for weight in theirs.parameters():
        weight.data.mul_(3)
    ours = published(tmp_path, theirs)
    ids = np.concatenate([[0], np.random.default_rng(0).integers(1, 97, 40)])
    # 1. a long text in windows of 8, 3 new tokens each: every token from the window that asks for it
    score = documents(ours, [ids], window=8, stride=3)[0]
    total = 0.0
    for start, first, end in strides(len(ids), 8, 3):
        rows = log_softmax(theirs, input_ids=torch.from_numpy(ids[None, start:end - 1]))
        total -= sum(float(rows[place - start - 1, ids[place]]) for place in range(first, end))
    assert score.value * 40 == pytest.approx(total, rel=1e-5)
    assert score.details["perplexity"] == pytest.approx(math.exp(total / 40), rel=1e-5)
    # 2. a continuation, and one whose context is too long
    for context, target in ((ids[1:5], ids[5:9]), (ids[:30], ids[30:35])):
        (one,) = continuations(ours, [(context, target)])
        kept = np.concatenate([[0], context[context != 0]])[-(16 - len(target)):]
        kept[0] = 0
        whole = np.concatenate([kept, target])
        rows = log_softmax(theirs, input_ids=torch.from_numpy(whole[None]))
        expected = [rows[len(kept) + number - 1, token] for number, token in enumerate(target)]
        assert one.log_prob == pytest.approx(float(sum(expected)), rel=1e-5)
        assert one.greedy == all(rows[len(kept) + number - 1].argmax() == token for number, token in enumerate(target))
        assert one.estimator == "exact" and one.tokens == len(target)


def test_pseudo_likelihoods_equal_the_published_logits(tmp_path):
    config = transformers.BertConfig(vocab_size=97, hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
                                     intermediate_size=48, max_position_embeddings=32, pad_token_id=0, mask_token_id=4,
                                     bos_token_id=1, eos_token_id=2)
    torch.manual_seed(0)
    theirs = transformers.BertForMaskedLM(config).eval()
    for weight in theirs.parameters():
        weight.data.mul_(3)
    ours = published(tmp_path, theirs)
    way = next(way for way in ways(ours, False) if way.kind == "both sides")
    mark = ours.vocabulary.mask
    ids = np.random.default_rng(0).integers(10, 97, 12)
    expected = 0.0
    for place in (3, 4, 7):
        corrupted = ids.copy()
        corrupted[place] = mark
        expected -= float(log_softmax(theirs, input_ids=torch.from_numpy(corrupted[None]))[place, ids[place]])
    assert pseudo_nats(ours, way, [(ids, places(12, 3, 4, 7))])[0] == pytest.approx(expected, rel=1e-5)


def test_source_and_target_equal_the_published_loss(tmp_path):
    config = transformers.T5Config(vocab_size=103, d_model=32, d_kv=8, d_ff=44, num_layers=2, num_heads=4,
                                   decoder_start_token_id=0, eos_token_id=1, pad_token_id=0)
    torch.manual_seed(0)
    theirs = transformers.T5ForConditionalGeneration(config).eval()
    ours = published(tmp_path, theirs)
    source, target = [11, 12, 13, 14, 1], [21, 22, 1]
    (score,) = translations(ours, [(source, target), (source[::-1], target)])
    with torch.no_grad():
        losses = [float(theirs(input_ids=torch.tensor([one]), labels=torch.tensor([target])).loss)
                  for one in (source, source[::-1])]
    assert score.items == pytest.approx(losses, rel=1e-5) and score.details["tokens"] == 6
    with pytest.raises(BothwaysError, match="one tower"):
        translations(small("causal"), [(source, target)])


def test_both_forms_of_the_bound_have_one_mean():
    trained = small("diffusion", sharp=4.0)
    ids = texts(trained, 1, 8)[0].ids
    way = ways(trained, False)[0]
    asked = (ids, places(len(ids), 2, 4, 5))
    in_full = likelihood.bound_in_full(trained, way, asked)
    for form in ("exact-k", "times"):
        sampled = likelihood.bound(trained, way, [asked], 4000, form=form)
        assert sampled[0] == pytest.approx(in_full, rel=0.05)
    spread = {form: np.std([likelihood.bound(trained, way, [asked], 8, seed, form=form)[0] for seed in range(30)])
              for form in ("exact-k", "times")}
    assert spread["exact-k"] < spread["times"]
    # common random numbers: another model is asked the same questions
    assert likelihood.bound(trained, way, [asked], 8)[0] != likelihood.bound(trained, way, [asked], 8, 1)[0]


@pytest.mark.parametrize("paradigm", ["causal", "masked", "spans", "glm", "hybrid", "denoising"])
def test_every_paradigm_scores_a_continuation_and_a_long_text(paradigm):
    trained = small(paradigm)
    window = texts(trained, 1, 40)[0].ids
    (one,) = continuations(trained, [(window[:6], window[6:9])], samples=4)
    assert one.log_prob < 0 and one.tokens == 3
    assert (one.greedy is None) == one.estimator.startswith("upper bound")
    (pseudo,) = continuations(trained, [(window[:6], window[6:9])], rule="pll") if paradigm == "masked" else (one,)
    assert pseudo.log_prob < 0
    scores = documents(trained, [window, window[:9]], window=12, stride=5, samples=2)
    assert all(score.n == 2 and "12 at once, 5 new" in score.estimator for score in scores)
    assert [len(ids) for ids, _ in pieces(window, 12, 5)][:2] == [13, 13]
    asked = pieces(window, 12, 5)
    way = ways(trained, False)[0]
    if way.kind == "exact":
        nats = sum(one.nats for one in answers(trained, [way.pose(*pair) for pair in asked]))
        assert scores[0].items[0] * 39 == pytest.approx(nats, rel=1e-5)
    with pytest.raises(BothwaysError, match="must have 1 to"):
        continuations(trained, [([], [])])
