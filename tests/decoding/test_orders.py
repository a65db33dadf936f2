"""Orders, Gibbs sampling, guidance and blanks of several tokens: exact on hand-made conditionals."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tests.decoding.small import CONTENDERS, TOKENIZER, tiny
from torch import nn

from bothways import decoding, objectives
from bothways.api import Model
from bothways.decoding import GenerateConfig
from bothways.decoding.blanks import make_blanks
from bothways.decoding.common import blocked_tokens
from bothways.decoding.diffusion import diffuse
from bothways.decoding.gibbs import gibbs
from bothways.decoding.kept import KeptReader
from bothways.decoding.written import HIDDEN
from bothways.errors import BothwaysError
from bothways.families.trained import Trained

VOCABULARY = TOKENIZER.vocabulary
MASK, BOS, EOS, V = VOCABULARY.mask, VOCABULARY.bos, VOCABULARY.eos, VOCABULARY.size
A, B = 60, 61


class ByHand(nn.Module):
    """A network that says what a function of the text says: probabilities {place: {token: p}} of each hidden place."""

    def __init__(self, says):  # type: ignore[no-untyped-def]
        super().__init__()
        self.weight, self.says = nn.Parameter(torch.zeros(1)), says

    def forward(self, example, only_asked=False):  # type: ignore[no-untyped-def]
        states = torch.full((len(example), V), -math.inf)
        for document in example.fields["document"].unique():
            rows = (example.fields["document"] == document).nonzero().flatten()
            for place, answer in self.says(example.inputs[rows].tolist()).items():
                for token, p in answer.items():
                    states[rows[place], token] = math.log(p)
        return SimpleNamespace(states=states)

    def logits(self, states, head="tokens"):  # type: ignore[no-untyped-def]
        return states


def by_hand(says, spec: str = "masked") -> Trained:  # type: ignore[no-untyped-def]
    return Trained(ByHand(says), objectives.make(spec, VOCABULARY), TOKENIZER)  # type: ignore[arg-type]


JOINT = {(A, A): 0.4, (A, B): 0.1, (B, A): 0.05, (B, B): 0.45}


def conditionals(ids: list[int]) -> dict[int, dict[int, float]]:
    """What a joint distribution of two places says of each that is hidden."""
    answers = {}
    for place in (0, 1):
        if ids[place] == MASK:
            fit = {pair: p for pair, p in JOINT.items() if ids[1 - place] in (MASK, pair[1 - place])}
            answers[place] = {token: sum(p for pair, p in fit.items() if pair[place] == token) / sum(fit.values())
                              for token in (A, B)}
    return answers


def drawn(filler, config: GenerateConfig, n: int = 900) -> dict[tuple[int, int], float]:  # type: ignore[no-untyped-def]
    trained = by_hand(conditionals)
    texts = make_blanks([[MASK, MASK]] * n, MASK, config)
    blocked = torch.zeros(V, dtype=torch.bool)
    filler(trained, texts, trained.objective.modes[0], blocked, config)
    counts = dict.fromkeys(JOINT, 0.0)
    for text in texts:
        counts[int(text.ids[0]), int(text.ids[1])] += 1 / n
    return counts


@pytest.mark.parametrize("filler, config", [
    (diffuse, GenerateConfig(temperature=1.0, order="random")),
    (diffuse, GenerateConfig(temperature=1.0, order="left_to_right")),
    (gibbs, GenerateConfig(temperature=1.0, steps=4)),
    (gibbs, GenerateConfig(temperature=1.0, steps=5, order="left_to_right")),
])
def test_conditionals_of_a_joint_draw_that_joint(filler, config):  # type: ignore[no-untyped-def]
    for pair, share in drawn(filler, config).items():
        assert abs(share - JOINT[pair]) < 4 * math.sqrt(JOINT[pair] / 900)


def test_two_places_in_one_step_are_drawn_as_if_independent():
    found = drawn(diffuse, GenerateConfig(temperature=1.0, steps=1))
    for (one, other), share in found.items():
        product = (sum(p for (a, _), p in JOINT.items() if a == one)
                   * sum(p for (_, b), p in JOINT.items() if b == other))
        assert abs(share - product) < 4 * math.sqrt(product / 900)
    assert abs(found[A, A] - JOINT[A, A]) > 0.1


@pytest.mark.parametrize("order, first", [("confidence", 0), ("entropy", 1), ("margin", 2), ("left_to_right", 0),
                                          ((1, 2, 0), 1)])
def test_each_order_begins_where_it_says(order, first):
    """Place 0 has the likeliest token, place 1 the least entropy, place 2 the clearest lead."""
    says = {0: {A: 0.62, B: 0.37, 65: 0.01}, 1: {A: 0.5, B: 0.5}, 2: {A: 0.61, **{80 + i: 0.013 for i in range(30)}}}
    assert says[0][A] > says[2][A] > says[1][A]
    trained = by_hand(lambda ids: {place: says[place] for place in range(3) if ids[place] == MASK})
    (text,) = make_blanks([[MASK] * 3], MASK, GenerateConfig())
    diffuse(trained, [text], trained.objective.modes[0], torch.zeros(V, dtype=torch.bool), GenerateConfig(order=order))
    assert text.steps[0].places == (first,) and len(text.steps) == 3


@pytest.mark.parametrize("spec", ["diffusion", "masked", "permuted", CONTENDERS["hybrid"]])
@pytest.mark.parametrize("order", ["left_to_right", (3, 0, 2, 1)])
def test_one_place_a_step_is_the_chain_rule_in_that_order(spec, order):
    trained = tiny(spec)
    mode = trained.objective.modes[0 if spec != CONTENDERS["hybrid"] else -1]
    text = [50, MASK, 51, MASK, MASK, 52, MASK]
    (filled,) = decoding.fill(trained, [text], GenerateConfig(decoding="diffusion", order=order,
                                                               temperature=0.7), mode)
    ids = np.array([BOS, *filled.ids, EOS])
    blanks = [place + 1 for place, token in enumerate(text) if token == MASK]
    sequence = [0, 1, 2, 3] if order == "left_to_right" else list(order)
    total = 0.0
    for step in range(4):
        hidden = np.isin(np.arange(len(ids)), [blanks[i] for i in sequence[step:]])
        asked = trained.objective.blank(ids, hidden, mode)
        which = int(np.flatnonzero(np.flatnonzero(hidden) == blanks[sequence[step]])[0])
        with torch.no_grad():
            scores = trained.network.logits(trained.network(asked).states[asked.asks[0].where]).log_softmax(-1)
        total += float(scores[which, ids[blanks[sequence[step]]]])
    assert sum(filled.logprobs) == pytest.approx(total, abs=1e-4)
    assert [step.places[0] for step in filled.steps] == [blanks[i] - 1 for i in sequence]


@pytest.mark.parametrize("spec, mode, options", [
    ("block-diffusion(block=1)", 0, {}),
    ("permuted(ordered_context=true)", 0, {"order": "left_to_right"}),
])
def test_written_left_to_right_as_scored_in_one_pass(spec, mode, options):
    """Place after place through many passes, and all places in one: the same exact likelihood."""
    trained = tiny(spec)
    (text,) = decoding.generate(trained, [[50, 51]], GenerateConfig(max_new_tokens=9, temperature=0.8, **options),
                                trained.objective.modes[mode])
    ids = np.array([BOS, 50, 51, *text.ids])
    exact = next(one for one in trained.objective.modes if one.likelihood == "exact")
    asked = trained.objective.blank(ids, np.arange(len(ids)) > 2, exact)
    with torch.no_grad():
        scores = trained.network.logits(trained.network(asked).states[asked.asks[0].where]).log_softmax(-1)
    assert len(text.ids) == 9
    assert scores[range(9), text.ids].tolist() == pytest.approx(text.logprobs, abs=1e-4)


@pytest.mark.parametrize("spec", ["masked", "diffusion", "permuted"])
def test_gibbs_visits_every_blank_and_leaves_the_rest(spec):
    trained = tiny(spec)
    text = [50, MASK, 51, MASK, MASK]
    for order in (None, "left_to_right", (2, 1, 0)):
        config = GenerateConfig(decoding="gibbs", order=order, steps=11, temperature=1.0)
        (filled,) = decoding.fill(trained, [text], config, trained.objective.modes[0])
        assert MASK not in filled.ids and filled.ids[0] == 50 and filled.ids[2] == 51
        assert len(filled.steps) == filled.network_evaluations == 11
        assert {step.places[0] for step in filled.steps[:3]} == {1, 3, 4}
        assert all(len(step.places) == 1 for step in filled.steps)
    (greedy,) = decoding.fill(trained, [text], GenerateConfig(decoding="gibbs", steps=12, order="left_to_right"),
                              trained.objective.modes[0])
    # where a whole round changes nothing, each token is the likeliest given the others
    assert greedy.decoding == "gibbs"


def test_guidance_moves_away_from_the_answer_without_the_given_tokens():
    trained = tiny("diffusion")
    ids = np.array([BOS, 60, MASK, 62, EOS])
    scores = []
    for hidden in ([2], [1, 2, 3]):
        asked = trained.objective.blank(ids, np.isin(np.arange(5), hidden))
        with torch.no_grad():
            logits = trained.network.logits(trained.network(asked).states[asked.asks[0].where])
        scores.append(logits[hidden.index(2)])
    for strength in (0.0, 1.5, 40.0):
        guided = (1 + strength) * scores[0] - strength * scores[1]
        wanted = int(guided.masked_fill(blocked_tokens(trained, ()), -math.inf).argmax())
        (filled,) = decoding.fill(trained, [[60, MASK, 62]], GenerateConfig(guidance=strength))
        assert filled.ids == [60, wanted, 62]
        assert filled.network_evaluations == (1 if strength == 0 else 2)
        assert filled.logprobs[0] == pytest.approx(float(scores[0].log_softmax(-1)[wanted]), abs=1e-4)


def test_a_blank_of_several_tokens_has_the_best_mean():
    trained, text = tiny("masked"), [50, MASK, 51, MASK]
    (filled,) = decoding.fill(trained, [text], GenerateConfig(max_blank_tokens=3))
    tries = {}
    for length in (1, 2, 3):
        (one,) = decoding.fill(trained, [[50, *[MASK] * length, 51, MASK]])
        tries[length] = np.mean(one.logprobs)
    first = max(tries, key=lambda length: tries[length])
    ends = {}
    for length in (1, 2, 3):
        (one,) = decoding.fill(trained, [[50, *[MASK] * first, 51, *[MASK] * length]])
        ends[length] = (np.mean(one.logprobs), one.ids)
    assert filled.ids == max(ends.values())[1]
    assert filled.network_evaluations > len(filled.steps)


@pytest.mark.parametrize("key", [key for key in CONTENDERS if key != "causal"])
def test_the_steps_play_the_text_again(key):
    trained = tiny(CONTENDERS[key])
    mode = trained.objective.modes[-1]
    text = [50, 51, MASK, 52, MASK, 53]
    done = [*decoding.fill(trained, [text], GenerateConfig(max_new_tokens=9, temperature=0.9), mode),
            *decoding.generate(trained, [[50], []], GenerateConfig(max_new_tokens=9, temperature=1.5), mode)]
    for written in done:
        canvases = list(written.canvases())
        assert canvases[-1][:len(written.ids)] == written.ids
        assert len(canvases) == len(written.steps) + 1 and HIDDEN not in canvases[-1][:len(written.ids)]
        assert len(written.steps) <= written.network_evaluations
        for before, after, step in zip(canvases, canvases[1:], written.steps, strict=False):
            changed = [place for place, pair in enumerate(zip(before, after, strict=True)) if pair[0] != pair[1]]
            assert set(changed) <= set(step.places)


def test_mask_never_has_a_probability_where_the_objective_says_so():
    for spec, subs in (("diffusion", False), ("diffusion(subs=true)", True),
                       ("0.5 next-token + 0.5 diffusion(subs=true)", True)):
        trained = tiny(spec)
        mode = trained.objective.modes[0].name
        logits = Model(trained).logits([BOS, 60, 61], visibility=mode)
        assert bool((logits[..., MASK] == -math.inf).all()) == subs
        for one in trained.objective.modes:
            (text,) = decoding.generate(trained, [[60]], GenerateConfig(max_new_tokens=3, steps=None), one)
            if one.name == "causal":
                row = Model(trained).logits([BOS, 60], visibility="causal")[0, -1].log_softmax(-1)
                assert text.logprobs[0] == pytest.approx(float(row[text.ids[0]]), abs=1e-4)


def test_refusals_in_one_sentence():
    masked, causal, blocks = tiny("masked"), tiny("next-token"), tiny("block-diffusion(block=4)")
    texts = [[MASK, 50], [50, MASK, MASK]]
    for options, word in (
        ({"steps": 3}, "steps is 3, but text 2 has 2 blanks, and each step writes at least one: give at most 2"),
        ({"steps": 1, "decoding": "gibbs"}, "but text 2 has 2 blanks, and each is visited at least once: give 2"),
        ({"order": (0, 1)}, "order .* says nothing to the decoding 'mask_predict'"),
        ({"order": "entropy", "decoding": "gibbs"}, "order entropy says nothing to the decoding 'gibbs'"),
        ({"order": (1, 0), "decoding": "diffusion"}, "order names 2 blanks, but text 1 has 1"),
    ):
        with pytest.raises(BothwaysError, match=word):
            decoding.fill(masked, texts, GenerateConfig(**options))
    with pytest.raises(BothwaysError, match="steps is 9, but prompt 1 has 8 blanks"):
        decoding.generate(masked, [[50]], GenerateConfig(steps=9, max_new_tokens=8))
    for option in ({"steps": 2}, {"order": "random"}, {"guidance": 1.0}, {"decoding": "gibbs"}, {"prefix_cache": True}):
        with pytest.raises(BothwaysError, match=f"{next(iter(option))} speaks to a decoding that fills many places"):
            decoding.generate(causal, [[50]], GenerateConfig(**option))
        if option.keys() & {"guidance", "decoding", "prefix_cache"}:
            with pytest.raises(BothwaysError, match="its only decoding is block_diffusion"):
                decoding.fill(blocks, texts, GenerateConfig(**option))
    for wrong, word in (({"order": (0, 2)}, "must name each blank once"), ({"order": "size"}, "order is 'size'"),
                        ({"decoding": "prayer"}, "decoding is 'prayer', but blanks are filled by mask_predict"),
                        ({"guidance": -1.0}, "guidance is -1.0"), ({"max_blank_tokens": 0}, "max_blank_tokens is 0")):
        with pytest.raises(BothwaysError, match=word):
            GenerateConfig(**wrong)


# --- what is kept ---

PROMPTS = [TOKENIZER.encode(text) for text in ("the cat sat on", "", "a dog", "the mat. a dog ran to the house, the")]


@pytest.mark.parametrize("spec", ["block-diffusion(block=4)", "block-diffusion(block=4, subs=true)",
                                  "block-diffusion(block=7)"])
@pytest.mark.parametrize("options", [{}, {"block": 5}, {"steps": 2, "order": "entropy"}])
def test_block_diffusion_cached_is_uncached(spec, options):
    trained = tiny(spec)
    config = GenerateConfig(max_new_tokens=18, temperature=1.3, seed=3, **options)
    gap = [[50, 51, MASK, 53, 54, 55, 56, MASK, MASK, 59, 60, 61, 62, 63, MASK], [MASK, 70]]
    fill = replace(config, steps=None, block=None)
    for cached, plain in zip([*decoding.generate(trained, PROMPTS, config), *decoding.fill(trained, gap, fill)],
                             [*decoding.generate(trained, PROMPTS, replace(config, cached=False)),
                              *decoding.fill(trained, gap, replace(fill, cached=False))], strict=True):
        assert cached.ids == plain.ids and cached.steps == plain.steps
        assert cached.logprobs == pytest.approx(plain.logprobs, abs=1e-4)
        assert cached.cache_bytes > 0 == plain.cache_bytes


@pytest.mark.parametrize("spec", ["diffusion", "masked", CONTENDERS["hybrid"]])
def test_a_kept_prefix_is_exact_for_one_pass_a_block_and_near_for_more(spec):
    trained = tiny(spec)
    mode = trained.objective.modes[-1]
    once = GenerateConfig(max_new_tokens=12, temperature=1.0, block=4, steps=1)
    for kept, plain in zip(decoding.generate(trained, PROMPTS, replace(once, prefix_cache=True), mode),
                           decoding.generate(trained, PROMPTS, once, mode), strict=True):
        assert kept.ids == plain.ids and kept.logprobs == pytest.approx(plain.logprobs, abs=1e-4)
    more = replace(once, steps=None, prefix_cache=True)
    together = decoding.generate(trained, PROMPTS, more, mode)
    for i, text in enumerate(together):
        (alone,) = decoding.generate(trained, PROMPTS[i:i + 1], replace(more, seed=i), mode)
        assert alone.ids == text.ids and np.isfinite(text.logprobs).all() and text.cache_bytes > 0


def test_a_kept_prefix_is_refused_where_rows_are_not_one_text():
    trained = tiny("permuted")
    with pytest.raises(BothwaysError, match="prefix_cache is for a network that reads both ways"):
        decoding.generate(trained, [[50]], GenerateConfig(prefix_cache=True, max_new_tokens=4),
                          trained.objective.modes[0])


@pytest.mark.parametrize("options", [{}, {"block": 8}])
def test_block_diffusion_keeps_nothing_of_texts_that_have_ended(options, monkeypatch):
    trained = tiny("block-diffusion(block=4)")
    config = GenerateConfig(max_new_tokens=40, temperature=1.0, seed=3, **options)
    prompts = [TOKENIZER.encode(text) for text in ("the cat", "a dog ran", "", "the mat. a", "house", "to")]
    # an end as likely as the most frequent token, so that texts end in different blocks
    written = [token for text in decoding.generate(trained, prompts, config) for token in text.ids]
    with torch.no_grad():
        weight = trained.network.embedding.weight
        weight[VOCABULARY.eos] = weight[max(set(written), key=written.count)]
    seen: list[tuple[int, int]] = []
    read = KeptReader.states

    def states(self, texts, questions):
        seen.append((len(texts), self.cache.sequences))
        return read(self, texts, questions)

    monkeypatch.setattr(KeptReader, "states", states)
    together = decoding.generate(trained, prompts, config)
    assert len({len(text.ids) for text in together}) > 2
    kept = [sequences for _, sequences in seen]
    assert kept == sorted(kept, reverse=True) and kept[0] == 6 and kept[-1] < 6
    # whoever is being written has a slot; a text whose block is full waits for the others with its own
    assert all(waiting <= sequences for waiting, sequences in seen)
    for number, (prompt, text) in enumerate(zip(prompts, together, strict=True)):
        (alone,) = decoding.generate(trained, [prompt], replace(config, seed=3 + number))
        assert alone.ids == text.ids and alone.logprobs == pytest.approx(text.logprobs, abs=1e-4)
