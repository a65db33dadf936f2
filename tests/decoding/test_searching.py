"""Beam search as `transformers` and as trying everything; groups and forced strings; contrastive search."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch
from tests.decoding.small import ONE, TOKENIZER, V, tiny

from bothways import decoding
from bothways.batch import Example
from bothways.decoding import GenerateConfig
from bothways.decoding.beam import BeamSearch
from bothways.decoding.common import blocked_tokens
from bothways.decoding.left_to_right import Writer
from bothways.errors import BothwaysError
from bothways.families.folder import save
from bothways.model import FeedForward, LanguageModel, ModelConfig, Position, Shape
from bothways.visibility import causal

BOS, EOS = TOKENIZER.vocabulary.bos, TOKENIZER.vocabulary.eos
NOTHING = torch.zeros(V, dtype=torch.bool)
PROMPTS = [TOKENIZER.encode(text) for text in ("the cat sat on", "", "a dog")]
T5 = ModelConfig(Shape(V, 32, 2, 2, 4), Position("relative"), tied=False, scale=1.0,
                 feed_forward=FeedForward(activation="gelu_tanh"))


def theirs(trained, folder, loader):
    transformers = pytest.importorskip("transformers")
    save(trained, folder)
    return getattr(transformers, loader).from_pretrained(folder).eval()


def sharp(trained, end=2.0):
    """The same model with likelier ends, so that texts of many lengths compete."""
    with torch.no_grad():
        weight = trained.network.embedding.weight if trained.network.head is None else trained.network.head.weight
        weight[EOS] += end * weight.mean(0)
    return trained


@pytest.mark.parametrize("stack", ["one tower", "two towers"])
def test_beams_are_those_of_transformers(stack, tmp_path):
    two = stack == "two towers"
    trained = sharp(tiny("span-corruption", T5) if two else tiny("next-token"))
    peer = theirs(trained, tmp_path, "AutoModelForSeq2SeqLM" if two else "AutoModelForCausalLM")
    ends = [EOS, *range(50, V, 5)]  # many tokens end a text, or a random network hardly ever would
    lengths = set()
    for penalty, early in ((1.0, "no"), (0.0, "never"), (2.0, "never"), (-0.5, "no"), (1.0, "yes")):
        config = GenerateConfig(beams=4, length_penalty=penalty, early_stopping=early)
        for prompt in PROMPTS[:2]:
            example = trained.objective.continuation(torch.tensor(prompt, dtype=torch.long).numpy())
            found = BeamSearch(trained.network, [example], config, NOTHING, set(ends), [9]).run()[0]
            given = {"input_ids": example.source.inputs[None], "decoder_input_ids": example.inputs[None]} if two else \
                {"input_ids": example.inputs[None]}
            stopping = {"no": False, "yes": True, "never": "never"}[early]
            answer = peer.generate(**given, num_beams=4, num_return_sequences=4, max_new_tokens=9, do_sample=False,
                                   length_penalty=penalty, early_stopping=stopping, eos_token_id=ends, pad_token_id=3,
                                   return_dict_in_generate=True, output_scores=True)
            for one, sequence, score in zip(found, answer.sequences[:, len(example):].tolist(),
                                            answer.sequences_scores):
                whole = one.ids + ([] if one.ended is None else [one.ended])
                assert sequence[:len(whole)] == whole and set(sequence[len(whole):]) <= {3}
                assert one.score == pytest.approx(float(score), abs=1e-4)
                lengths.add(len(whole))
    assert len(lengths) > 2


@pytest.mark.parametrize("penalty", [0.0, 1.0])
def test_enough_beams_find_what_trying_everything_finds(penalty):
    torch.manual_seed(3)
    network = LanguageModel(ModelConfig(Shape(5, 16, 1, heads=2))).eval()
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(torch.randn_like(weight) * 0.5)
    end, most = 4, 3
    scores = {}
    for length in range(1, most + 1):
        for ids in itertools.product(range(5), repeat=length):
            if end in ids[:-1] or (ids[-1] != end and length < most):
                continue
            with torch.no_grad():
                states = network(Example(torch.tensor([0, *ids]), causal)).states
                logged = network.logits(states).log_softmax(-1)
            scores[ids] = float(logged[range(length), list(ids)].sum()) / length ** penalty
    best = sorted(scores, key=lambda ids: -scores[ids])[:3]
    config = GenerateConfig(beams=60, length_penalty=penalty, early_stopping="never")
    found = BeamSearch(network, [Example(torch.tensor([0]), causal)], config, torch.zeros(5, dtype=torch.bool), {end},
                       [most]).run()[0]
    assert [tuple(one.ids) + (() if one.ended is None else (end,)) for one in found[:3]] == best
    assert [one.score for one in found[:3]] == pytest.approx([scores[ids] for ids in best], abs=1e-4)


@pytest.mark.parametrize("spec", ["next-token", "denoising", "prefix"])
@pytest.mark.parametrize("options", [{"beams": 3}, {"beams": 4, "beam_groups": 2, "diversity": 0.7, "samples": 4},
                                     {"beams": 3, "no_repeat_ngram": 2, "repetition_penalty": 1.2},
                                     {"contrast": 0.6, "top_k": 5}])
def test_cached_is_uncached_and_a_batch_is_each_alone(spec, options):
    trained = tiny(spec)
    config = GenerateConfig(max_new_tokens=8, stop_ids=(90, 91, 92, 100), **options)
    together = decoding.generate(trained, PROMPTS, config)
    plain = decoding.generate(trained, PROMPTS, replace(config, cached=False))
    alone = [text for prompt in PROMPTS for text in decoding.generate(trained, [prompt], config)]
    assert [text.ids for text in together] == [text.ids for text in plain] == [text.ids for text in alone]
    assert len(together) == len(PROMPTS) * config.samples
    for one, other in zip(together, plain):
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-4)
        assert one.score is None or one.score == pytest.approx(other.score, abs=1e-4)


def test_groups_differ_where_diversity_is_high_and_agree_without():
    trained = tiny("next-token")
    agree = decoding.generate(trained, PROMPTS[:1], GenerateConfig(8, beams=4, beam_groups=4, samples=4))
    assert len({tuple(text.ids) for text in agree}) == 1
    (greedy,) = decoding.generate(trained, PROMPTS[:1], GenerateConfig(8))
    assert agree[0].ids == greedy.ids
    config = GenerateConfig(8, beams=4, beam_groups=4, diversity=50.0, samples=4)
    differ = decoding.generate(trained, PROMPTS[:1], config)
    assert all(len({text.ids[place] for text in differ}) == 4 for place in range(8))


@pytest.mark.parametrize("spec", ["next-token", "denoising"])
def test_forced_strings_stand_in_the_text(spec):
    config = GenerateConfig(max_new_tokens=14, beams=6, force=("dog", ("mat", "house")))
    for text in decoding.generate(tiny(spec), PROMPTS, config):
        assert "dog" in text.text and ("mat" in text.text or "house" in text.text)
    with pytest.raises(BothwaysError, match="no text of 2 tokens after prompt 1 holds all"):
        decoding.generate(tiny(spec), PROMPTS[:1], replace(config, max_new_tokens=2))


def test_contrastive_search_is_its_equation():
    trained = tiny("next-token")
    config = GenerateConfig(max_new_tokens=7, contrast=0.6, top_k=4)
    blocked = blocked_tokens(trained, [EOS])
    ids = [BOS, *PROMPTS[0]]
    for _ in range(7):
        with torch.no_grad():
            states = trained.network(Example(torch.tensor(ids), causal)).states
            likely = trained.network.logits(states[-1]).masked_fill(blocked, -torch.inf).softmax(-1).topk(4)
            scores = []
            for share, token in zip(likely.values, likely.indices):
                state = trained.network(Example(torch.tensor([*ids, int(token)]), causal)).states[-1]
                alike = torch.cosine_similarity(state[None], states).max()
                scores.append(float(0.4 * share - 0.6 * alike))
        ids.append(int(likely.indices[max(range(4), key=scores.__getitem__)]))
        if ids[-1] == EOS:
            break
    (text,) = decoding.generate(trained, PROMPTS[:1], config)
    assert [BOS, *PROMPTS[0], *text.ids] == [token for token in ids if token != EOS]
    (plain,) = decoding.generate(trained, PROMPTS[:1], GenerateConfig(7))
    assert text.ids != plain.ids


def test_what_other_decodings_cannot_do_is_said():
    for options, word in (({"beams": 3}, "beams"), ({"regex": "a"}, "regex"), ({"lookup": 2}, "lookup")):
        with pytest.raises(BothwaysError, match=f"{word} speaks to a decoding from left to right, but this model "
                           r"writes by mask_predict in its mode .* \(it can be asked for mask_predict, diffusion"):
            decoding.generate(tiny("masked"), PROMPTS, GenerateConfig(**options))
    with pytest.raises(BothwaysError, match="beams speaks to who writes on after a prompt"):
        decoding.fill(tiny("denoising"), [TOKENIZER.encode("a<mask>")], GenerateConfig(beams=2))


def test_the_prompt_is_read_once_for_all_beams(monkeypatch):
    trained, read = tiny("denoising"), []
    forward = LanguageModel.forward
    monkeypatch.setattr(LanguageModel, "forward", lambda self, example, *a, **k: (
        read.append((len(example), 0 if example.source is None else len(example.source))),
        forward(self, example, *a, **k))[1])
    decoding.generate(trained, PROMPTS[:1], GenerateConfig(4, beams=5))
    example = trained.objective.continuation(torch.tensor(PROMPTS[0]).numpy())
    assert read[0] == (len(example), len(example.source)) and read[1:] == [(5, 0)] * 3
    assert isinstance(Writer(trained.network, [example] * 3, GenerateConfig(), NOTHING, 3).step(), list)
    assert read[4] == read[0]


def test_the_cache_of_a_search_is_that_of_its_beams():
    trained = tiny("next-token", ONE)
    one, four = (decoding.generate(trained, PROMPTS[:1], GenerateConfig(8, beams=beams))[0] for beams in (2, 4))
    assert four.cache_bytes == 2 * one.cache_bytes
