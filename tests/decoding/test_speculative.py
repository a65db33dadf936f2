"""Whatever drafts, what is written has the network's own distribution; greedy writing is the same to the token."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
import torch
from scipy.stats import chi2
from tests.decoding.small import ONE, TOKENIZER, tiny

from bothways import decoding, objectives
from bothways.decoding import GenerateConfig
from bothways.decoding.speculative import Lookup, Uniform
from bothways.errors import BothwaysError
from bothways.families.trained import Trained
from bothways.model import LanguageModel, Position
from bothways.model.config import Mixer
from bothways.text.tokenizer import Tokenizer

PROMPTS = [TOKENIZER.encode(text) for text in ("the cat sat on the cat", "", "a dog a dog")]
NARROW = replace(ONE, reach="LG", local=3)


@pytest.mark.parametrize("spec", ["next-token", "denoising"])
@pytest.mark.parametrize("draft", ["itself", "another", "narrow", "look-up"])
def test_greedy_is_plain_greedy(spec, draft):
    trained = tiny(spec, NARROW if spec == "next-token" and draft == "narrow" else None)
    other = {"itself": trained, "another": tiny("next-token", seed=4), "narrow": tiny("next-token", NARROW, seed=5)}
    config = GenerateConfig(max_new_tokens=14, stop_ids=(90, 91, 92, 100), repetition_penalty=1.1)
    plain = decoding.generate(trained, PROMPTS, config)
    options = {"config": replace(config, lookup=3 if draft == "look-up" else None), "draft": other.get(draft)}
    for cached in (True, False):
        changed = {**options, "config": replace(options["config"], cached=cached)}
        drafted = decoding.generate(trained, PROMPTS, **changed)
        assert [text.ids for text in drafted] == [text.ids for text in plain]
        assert [text.stopped_by for text in drafted] == [text.stopped_by for text in plain]
        for one, two in zip(drafted, plain):
            assert one.logprobs == pytest.approx(two.logprobs, abs=1e-4)
            assert [token for step in one.steps for token in step.tokens] == one.ids
    if draft == "itself" and spec == "next-token":
        assert all(text.network_evaluations < len(text.ids) for text in drafted if len(text.ids) > 6)


def counted(trained, config, n, draft=None):
    texts = decoding.generate(trained, [PROMPTS[0]], replace(config, samples=n), draft=draft)
    return Counter(tuple(text.ids) for text in texts)


@pytest.mark.parametrize("draft", ["model", "look-up"])
def test_drawn_texts_have_the_distribution_of_plain_drawing(draft):
    """Chi-square of all texts of three tokens, against their exact probabilities."""
    trained, n = tiny("next-token"), 1500
    config = GenerateConfig(max_new_tokens=3, temperature=1.5, top_k=3)
    # 1. what is to be expected, by the chain rule over the three likeliest tokens
    expected: dict[tuple[int, ...], float] = {}
    blocked = decoding.common.blocked_tokens(trained, [TOKENIZER.vocabulary.eos])

    def grow(ids: tuple[int, ...], share: float) -> None:
        if len(ids) == 3 or (ids and ids[-1] == TOKENIZER.vocabulary.eos):
            expected[tuple(token for token in ids if token != TOKENIZER.vocabulary.eos)] = share
            return
        example = trained.objective.continuation(torch.tensor([*PROMPTS[0], *ids]).numpy())
        with torch.no_grad():
            logits = trained.network.logits(trained.network(example).states[-1:]).masked_fill(blocked, -torch.inf)
        shares = decoding.sampling.filtered(logits, config).double().softmax(-1)[0]
        for token in shares.nonzero().flatten().tolist():
            grow((*ids, token), share * float(shares[token]))
    grow((), 1.0)
    # 2. what is drawn
    config = replace(config, lookup=3 if draft == "look-up" else None, draft_tokens=2)
    found = counted(trained, config, n, tiny("next-token", seed=8) if draft == "model" else None)
    assert set(found) <= set(expected)
    frequent = [ids for ids in expected if n * expected[ids] >= 5]
    rest = 1 - sum(expected[ids] for ids in frequent)
    pairs = [(found[ids], n * expected[ids]) for ids in frequent]
    pairs += [(n - sum(found[ids] for ids in frequent), n * rest)] if n * rest >= 1 else []
    statistic = sum((seen - wanted) ** 2 / wanted for seen, wanted in pairs)
    assert chi2.sf(statistic, len(pairs) - 1) > 1e-3, f"{statistic:.1f} over {len(pairs)} texts"


def test_a_text_is_the_same_whoever_is_written_beside_it():
    trained, draft = tiny("next-token"), tiny("next-token", seed=4)
    config = GenerateConfig(max_new_tokens=10, temperature=1.0, seed=3)
    together = decoding.generate(trained, PROMPTS, config, draft=draft)
    for i, text in enumerate(together):
        (alone,) = decoding.generate(trained, [PROMPTS[i]], replace(config, seed=3 + i), draft=draft)
        assert alone.ids == text.ids


def test_look_up_proposes_what_followed():
    drafter = Lookup([[1, 2, 3, 4, 9, 2, 3]], longest=2)
    uniform = Uniform([0])

    def proposed(count, written):
        return [token for token, _ in drafter.draft({0: count}, {0: written}, uniform)[0]]
    assert proposed(3, []) == [4, 9, 2]
    assert proposed(1, [4]) == [9]
    assert proposed(4, [4, 7]) == []
    assert proposed(2, [4, 7, 2]) == [3, 4]
    assert proposed(2, [4, 7, 2, 3]) == [4, 7]


def test_refusals():
    trained = tiny("next-token")
    other = Tokenizer.train(["another text altogether"], size=310)
    torch.manual_seed(0)
    stranger = Trained(LanguageModel(ONE).eval(), objectives.make("next-token", other.vocabulary), other)
    with pytest.raises(BothwaysError, match=r"the draft model has another vocabulary \(.* tokens, this model"):
        decoding.generate(trained, PROMPTS, draft=stranger)
    with pytest.raises(BothwaysError, match="one trained by 'masked' writes by mask_predict"):
        decoding.generate(trained, PROMPTS, draft=tiny("masked"))
    with pytest.raises(BothwaysError, match="draft model or look-up, not both"):
        decoding.generate(trained, PROMPTS, GenerateConfig(lookup=2), draft=trained)
    recurrent = replace(ONE, position=Position("none"), mixer=Mixer("mamba"), shape=replace(ONE.shape, key_heads=None))
    for spoken, draft in ((tiny("next-token", recurrent), None), (trained, tiny("next-token", recurrent))):
        with pytest.raises(BothwaysError, match=r"has recurrent layers, .* cannot be taken back"):
            decoding.generate(spoken, PROMPTS, GenerateConfig(lookup=None if draft else 2), draft=draft)
    with pytest.raises(BothwaysError, match="leave beams at 1, or the draft out"):
        decoding.generate(trained, PROMPTS, GenerateConfig(beams=2), draft=trained)
    with pytest.raises(BothwaysError, match="a draft proposes tokens from left to right"):
        decoding.generate(tiny("masked"), PROMPTS, draft=trained)
