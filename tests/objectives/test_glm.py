"""GLM: the paper's figure, the two places of every token, span lengths by the numbers, and writing through a cache."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy import stats

from bothways import objectives
from bothways.batch import RESERVED_TOKENS, Companion, Key, Vocabulary, Window
from bothways.decoding import GenerateConfig, fill, generate
from bothways.decoding.left_to_right import Writer
from bothways.errors import BothwaysError
from bothways.families.trained import Trained
from bothways.model import LanguageModel, ModelConfig, Position, Shape
from bothways.objectives import make
from bothways.objectives.glm import LEVELS
from bothways.text.tokenizer import Tokenizer
from bothways.training import TrainConfig
from bothways.training.job import resolved
from bothways.visibility import grid, prefix

RESERVED = len(RESERVED_TOKENS)
PLAIN = Vocabulary.plain(RESERVED + 400)
SENTENCES = replace(PLAIN, ends_sentence=~PLAIN.special & (np.arange(PLAIN.size) % 10 == 0))
MASK, BEGIN, END = PLAIN.mask, PLAIN.sep, PLAIN.eos
IDS = np.array([PLAIN.bos, *range(RESERVED, RESERVED + 10), PLAIN.eos])
TOKENIZER = Tokenizer.train(["the cat sat on the mat. a dog ran to the house, naïve façade déjà "] * 5, size=330)


def text(length: int, index: int = 0, vocabulary: Vocabulary = PLAIN) -> Window:
    return Window(np.random.default_rng((7, index)).integers(RESERVED, vocabulary.size, length), index=index)


def figure(**options):
    """Figure 2 of the paper: x1 to x6, x3 and x5 x6 hidden, the second span written first."""
    ids = np.arange(RESERVED, RESERVED + 6)
    objective = make({"name": "glm", **options}, PLAIN)
    return ids.tolist(), objective.laid_out(ids, np.array([2, 4]), np.array([1, 2]), np.array([1, 0]))


def test_the_paper_s_figure():
    (x1, x2, x3, x4, x5, x6), example = figure()
    assert example.inputs.tolist() == [x1, x2, MASK, x4, MASK, BEGIN, x5, x6, BEGIN, x3]
    assert (example.fields["position"] + 1).tolist() == [1, 2, 3, 4, 5, 5, 5, 5, 3, 3]
    assert example.fields["span"].tolist() == [0, 0, 0, 0, 0, 1, 2, 3, 1, 2]
    assert example.asks[0].where.tolist() == [5, 6, 7, 8, 9]
    assert example.asks[0].targets.tolist() == [x5, x6, END, x3, END]
    assert (example.visibility, example.raw) == (prefix, 6)
    rows = ["xxxxx....."] * 5 + ["xxxxxx....", "xxxxxxx...", "xxxxxxxx..", "xxxxxxxxx.", "xxxxxxxxxx"]
    assert grid(example.visibility, example.fields).tolist() == [[c == "x" for c in row] for row in rows]


def test_with_one_place_spans_go_on_from_their_mask():
    _, example = figure(places="one")
    assert example.fields["position"].tolist() == [0, 1, 2, 3, 4, 4, 5, 6, 2, 3]
    assert "span" not in example.fields


@pytest.mark.parametrize("level", LEVELS)
def test_the_parts_rebuild_the_window(level):
    objective = make({"name": "glm", "levels": [level]}, SENTENCES)
    orders = set()
    for index in range(150):
        body = text(60, index).ids
        ids = np.concatenate(([PLAIN.bos] * (index % 2), body, [PLAIN.eos] * (index % 3 == 0))).astype(np.int64)
        example = objective.corrupt(Window(ids, index=index), Key(0, 0, index))
        inputs, asked = example.inputs.tolist(), example.asks[0]
        part_a = int((example.fields["prefix"] == 1).sum())
        place, number = example.fields["position"].tolist(), example.fields["span"].tolist()
        # every token of part B is asked for, and teacher forcing has no gap
        assert asked.where.tolist() == list(range(part_a, len(inputs)))
        spans: dict[int, list[int]] = {}
        for i, target in zip(range(part_a, len(inputs)), asked.targets.tolist(), strict=True):
            assert inputs[place[i]] == MASK
            assert (inputs[i] == BEGIN) == (number[i] == 1)
            if number[i] > 1:
                assert inputs[i] == spans[place[i]][-1] and number[i] == len(spans[place[i]]) + 1
            spans.setdefault(place[i], []).append(target)
        assert all(span[-1] == END and END not in span[:-1] for span in spans.values())
        assert number[:part_a] == [0] * part_a and place[:part_a] == list(range(part_a))
        rebuilt = [t for i, token in enumerate(inputs[:part_a]) for t in (spans[i][:-1] if token == MASK else [token])]
        assert rebuilt == ids.tolist()
        orders.add(tuple(sorted(range(len(spans)), key=list(spans).__getitem__)))
    assert level == "document" or len(orders) > 10  # spans come in any order


def test_spans_of_tokens_are_poisson_without_zeros_up_to_the_rate():
    objective, rng = make({"name": "glm", "levels": "token"}, PLAIN), np.random.default_rng(0)
    hidden, lengths = 0, []
    for _ in range(400):
        starts, sizes = objective.spans(np.zeros(1000, np.int64), "token", rng)
        assert (starts[1:] > (starts + sizes)[:-1]).all()  # they never touch
        hidden += int(sizes.sum())
        lengths += sizes.tolist()
    assert hidden / 400_000 == pytest.approx(0.15, abs=0.0005)
    # the one that is cut to fit is one of about 48
    counts = np.bincount(np.minimum(lengths, 9), minlength=10)[1:] / len(lengths)
    expected = np.append(stats.poisson.pmf(np.arange(1, 9), 3), stats.poisson.sf(8, 3)) / (1 - np.exp(-3))
    assert np.abs(counts - expected).max() < 0.012


def test_spans_are_written_in_any_order():
    """With three spans all six orders are as likely."""
    objective = make({"name": "glm", "levels": "token", "rate": 0.2}, PLAIN)
    counts: dict[tuple[int, ...], int] = {}
    for index in range(8000):
        example = objective.corrupt(text(60, index), Key(0, 0, index))
        places = example.fields["position"][example.inputs == BEGIN].tolist()
        if len(places) == 3:
            order = tuple(np.argsort(places).tolist())
            counts[order] = counts.get(order, 0) + 1
    assert len(counts) == 6 and sum(counts.values()) > 1000
    assert stats.chisquare(list(counts.values())).pvalue > 1e-3


def test_a_document_s_span_is_half_to_all_of_it_and_lies_anywhere():
    objective, rng = make("glm", PLAIN), np.random.default_rng(0)
    drawn = np.array([np.concatenate(objective.spans(np.zeros(200, np.int64), "document", rng)) for _ in range(6000)])
    starts, lengths = drawn.T
    assert (lengths.min(), lengths.max()) == (100, 200) and (starts + lengths).max() <= 200
    assert stats.kstest((lengths - 100 + rng.random(6000) - 0.5) / 100, "uniform").pvalue > 1e-3
    inside = lengths < 200
    assert (starts[inside] / (200 - lengths[inside])).mean() == pytest.approx(0.5, abs=0.02)


def test_sentences_are_hidden_whole_up_to_the_rate():
    objective, rng, hidden = make("glm", SENTENCES), np.random.default_rng(0), 0
    for index in range(300):
        ids = text(400, index).ids
        starts, lengths = objective.spans(ids, "sentence", rng)
        hidden += int(lengths.sum())
        for start, end in zip(starts, starts + lengths, strict=True):
            assert start == 0 or SENTENCES.ends_sentence[ids[start - 1]]
            assert end == len(ids) or SENTENCES.ends_sentence[ids[end - 1]]
            assert not SENTENCES.ends_sentence[ids[start:end - 1]].any()
        # the last sentence taken is the one that reaches the share
        assert lengths.sum() >= 60 > lengths.sum() - lengths.max()
    assert 0.15 < hidden / 120_000 < 0.20


def test_levels_get_the_same_share_of_an_epoch():
    objective = make({"name": "glm", "levels": list(LEVELS)}, SENTENCES)
    counts = {level: sum(objective.level(Key(1, 0, i)) == level for i in range(3000)) for level in LEVELS}
    assert max(abs(count - 1000) for count in counts.values()) <= 3


@pytest.mark.parametrize("levels", ["token", "document", ["token", "document"]])
def test_the_profile_is_what_examples_measure(levels):
    objective = make({"name": "glm", "levels": levels}, PLAIN)
    read = asked = raw = 0
    for index in range(300):
        example = objective.corrupt(text(256, index), Key(0, 0, index))
        read, asked, raw = read + len(example), asked + len(example.asks[0].where), raw + example.raw
    assert read / raw == pytest.approx(objective.profile.inputs, abs=0.02)
    assert asked / raw == pytest.approx(objective.profile.asked, abs=0.02)


# --- questions and writing -----------------------------------------------------------------------------------

def test_a_question_by_hand():
    a, hidden = IDS.tolist(), np.isin(np.arange(12), [3, 4, 8])
    question = make("glm", PLAIN).blank(IDS, hidden)
    assert question.inputs.tolist() == [*a[:3], MASK, *a[5:8], MASK, *a[9:], BEGIN, a[3], a[4], BEGIN, a[8]]
    assert question.asks[0].targets.tolist() == IDS[hidden].tolist()
    # the ends of spans are not asked for
    assert question.asks[0].where.tolist() == [11, 12, 14]
    assert question.fields["position"][11:].tolist() == [3, 3, 3, 7, 7]


@pytest.mark.parametrize("places", [[9], [4, 5, 6], [1, 10], list(range(6, 12)), list(range(1, 12)), []])
def test_a_question_never_shows_what_it_hides(places):
    hidden = np.isin(np.arange(12), places)
    question = make("glm", PLAIN).blank(IDS, hidden)
    assert question.asks[0].targets.tolist() == IDS[hidden].tolist()
    seen = grid(question.visibility, question.fields).numpy()
    for place, target in zip(question.asks[0].where.tolist(), question.asks[0].targets.tolist(), strict=True):
        # the end of the text stays in part A, as in training, and says nothing of where a span ends
        assert target == PLAIN.eos or target not in question.inputs.numpy()[seen[place]]


def test_blanks_are_written_one_after_another():
    objective, (a, b) = make("glm", PLAIN), (int(token) for token in IDS[1:3])
    ids = np.array([a, MASK, b, MASK])
    example = objective.infilling(ids)
    assert example.inputs.tolist() == [PLAIN.bos, a, MASK, b, MASK, PLAIN.eos, BEGIN]
    assert example.fields["position"].tolist() == [0, 1, 2, 3, 4, 5, 2]
    assert example.fields["span"].tolist() == [0, 0, 0, 0, 0, 0, 1]
    assert objective.read_infilling(ids, [60, 61, END]) == [a, 60, 61, b, MASK]
    assert objective.read_infilling(ids, []) == [a, b, MASK]
    example = objective.continuation(IDS[1:3])
    assert example.inputs.tolist() == [PLAIN.bos, a, b, MASK, PLAIN.eos, BEGIN]
    assert example.fields["position"][-1] == 3


def tiny(places: str, longest: int = 64) -> Trained:
    objective = objectives.make({"name": "glm", "places": places, "longest": longest}, TOKENIZER.vocabulary)
    torch.manual_seed(0)
    network = LanguageModel(ModelConfig(Shape(TOKENIZER.vocabulary.size, 32, 2, heads=4), Position(length=64),
                                        companions=objective.companions))
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(torch.randn_like(weight) * 0.15)
    return Trained(network.eval(), objective, TOKENIZER)


@pytest.mark.parametrize("places", ["two", "one"])
def test_writing_with_a_cache_is_writing_without_and_its_scores_are_the_question_s(places):
    trained = tiny(places)
    prompts = [TOKENIZER.encode("the cat"), TOKENIZER.encode("a dog ran to")]
    with_, without = (generate(trained, prompts, GenerateConfig(max_new_tokens=9, temperature=0.9, cached=cached))
                      for cached in (True, False))
    for one, other, prompt in zip(with_, without, prompts, strict=True):
        assert one.ids == other.ids and len(one.ids) > 2
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-4)
        # the places the writer counts out are those that training gives
        ids = np.array([TOKENIZER.vocabulary.bos, *prompt, *one.ids, TOKENIZER.vocabulary.eos])
        hidden = np.zeros(len(ids), bool)
        hidden[len(prompt) + 1:-1] = True
        question = trained.objective.blank(ids, hidden)
        with torch.no_grad():
            scores = trained.network.logits(trained.network(question).states[question.asks[0].where]).log_softmax(-1)
        assert scores[range(len(one.ids)), one.ids].tolist() == pytest.approx(one.logprobs, abs=1e-4)


def test_filling_several_blanks_reads_those_before_as_text():
    trained, mask = tiny("two"), TOKENIZER.vocabulary.mask
    texts = [TOKENIZER.encode("the<mask> sat on<mask> mat"), TOKENIZER.encode("a<mask>")]
    config = GenerateConfig(max_new_tokens=3, temperature=0.9, seed=3)
    together = fill(trained, texts, config)
    for i, (text_ids, filled) in enumerate(zip(texts, together, strict=True)):
        rest = iter(filled.ids)
        assert mask not in filled.ids
        assert all(token in rest for token in text_ids if token != mask)
        assert len(filled.logprobs) >= text_ids.count(mask) and filled.network_evaluations == len(filled.logprobs)
        alone = fill(trained, [text_ids], replace(config, seed=3 + i))[0]
        assert alone.ids == filled.ids


def test_writing_more_than_the_numbers_is_refused():
    with pytest.raises(BothwaysError, match="field 'span' holds 6, but this network has learned its values 0 to 5"):
        generate(tiny("two", longest=5), [TOKENIZER.encode("the")], GenerateConfig(max_new_tokens=9, temperature=0.9))


def test_the_second_place_tells_the_tokens_of_a_span_apart():
    """Without the table, tokens of a span differ by order alone; with it each has a vector of its own."""
    _, example = figure()
    trained = tiny("two")
    states = trained.network(example).states
    other = replace(example, fields={**example.fields, "span": example.fields["span"] * 2})
    assert not torch.allclose(trained.network(other).states[5:], states[5:], atol=1e-3)
    plain = LanguageModel(ModelConfig(Shape(PLAIN.size, 32, 2, heads=4)))
    assert torch.equal(plain(other).states, plain(example).states)
    # a text without spans is part A
    ids = make("next-token", PLAIN).continuation(IDS)
    zeros = replace(ids, fields={**ids.fields, "span": torch.zeros(len(ids), dtype=torch.long)})
    assert torch.equal(trained.network(ids).states, trained.network(zeros).states)


def test_the_writer_counts_the_span_and_keeps_the_place():
    trained = tiny("two")
    example = trained.objective.continuation(np.array(TOKENIZER.encode("the cat")))
    writer = Writer(trained.network, [example], GenerateConfig(), torch.zeros(TOKENIZER.vocabulary.size, dtype=bool), 4)
    for _ in range(3):
        writer.step()
    facts = {name: int(fact[0]) for name, fact in writer.reader._fields.items()}
    assert facts["span"] == 3 and facts["position"] == int(example.fields["position"][-1])
    assert facts["index"] == len(example) + 1 and facts["prefix"] == 0


# --- refusals ------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("options", "words"), [
    ({"levels": []}, "must name each level once"), ({"levels": ["token", "token"]}, "must name each level once"),
    ({"levels": ["word"]}, "levels is 'word'"), ({"rate": 1}, "rate is 1"), ({"mean_span": 0.5}, "mean_span is 0.5"),
    ({"places": "three"}, "places is 'three'"),
    ({"longest": 1}, "longest is 1"), ({"longest": True}, "longest is True"),
])
def test_bad_options_are_refused(options, words):
    with pytest.raises(BothwaysError, match=words):
        make({"name": "glm", **options}, PLAIN)


@pytest.mark.parametrize("ids", [[PLAIN.bos, PLAIN.eos], [PLAIN.bos], [PLAIN.eos]])
def test_a_text_without_tokens_is_refused(ids):
    with pytest.raises(BothwaysError, match="at least 1 token besides"):
        make("glm", PLAIN).corrupt(Window(np.array(ids)), Key(0, 0, 0))


@pytest.mark.parametrize("level", LEVELS)
def test_one_token_is_enough(level):
    example = make({"name": "glm", "levels": level}, SENTENCES).corrupt(Window(IDS[:2]), Key(0, 0, 0))
    assert example.inputs.tolist() == [PLAIN.bos, MASK, BEGIN, IDS[1]]


def test_training_gives_the_network_vectors_where_spans_are_numbered_and_nowhere_else():
    prepared = SimpleNamespace(tokenizer=TOKENIZER)
    span = Companion("span", "embedding", 1025)
    for spec, expected in (("glm", (span,)), ("glm(longest=8)", (Companion("span", "embedding", 9),)),
                           ("glm(places=one)", ()), ("next-token + glm", (span,))):
        config, _ = resolved(TrainConfig(objective=spec), prepared)
        assert config.model.companions == expected


def test_a_span_longer_than_the_numbers_is_refused_by_the_option_s_name():
    with pytest.raises(BothwaysError, match="a span of 9 tokens has more places than longest 8: raise it"):
        make("glm(longest=8)", PLAIN).blank(IDS, np.isin(np.arange(12), range(1, 10)))
    assert len(make("glm(longest=10)", PLAIN).blank(IDS, np.isin(np.arange(12), range(1, 10))).asks[0].where) == 9
