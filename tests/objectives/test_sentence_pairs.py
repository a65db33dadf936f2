"""Sentence pairs: BERT's next-sentence and ALBERT's sentence-order question, beside masked tokens."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.objectives.shaken import shaken
from tests.objectives.test_leaks import check
from tests.training.small import prepare_small, small_config

from bothways import objectives
from bothways.batch import RESERVED_TOKENS, Companion, Key, Vocabulary, Window, pack
from bothways.errors import BothwaysError
from bothways.model import LanguageModel, ModelConfig, Shape
from bothways.objectives import make
from bothways.text.prepare import Prepared, prepare
from bothways.text.tokenizer import TokenizerConfig
from bothways.training.data import Batches, Place, another, corrupted
from bothways.training.held_out import HeldOut
from bothways.training.job import resolved

FIRST = len(RESERVED_TOKENS)
SIZE = FIRST + 800
STOP = FIRST
"""The one id that ends sentences."""
PLAIN = Vocabulary.plain(SIZE)
TEXT = replace(PLAIN, ends_sentence=np.arange(SIZE) == STOP)
BOS, EOS, CLS, SEP = PLAIN.bos, PLAIN.eos, PLAIN.cls, PLAIN.sep
NEXT, ORDER = make("sentence-pairs", TEXT), make("sentence-pairs(asks=sentence-order)", TEXT)


def sentences(*lengths: int, first: int = FIRST + 1) -> list[int]:
    """Sentences of distinct tokens, each closed by STOP."""
    places = itertools.count(first)
    return [token for length in lengths for token in (*(next(places) for _ in range(length - 1)), STOP)]


def document(index: int, rng: np.random.Generator, size: int = 128) -> Window:
    """A window cut out of the middle of a long text of document `index`: sentences of 3 to 20 tokens."""
    ids = rng.integers(FIRST + 1, SIZE, 3 * size)
    ids[np.cumsum(rng.integers(3, 21, 3 * size))[:size // 2] % len(ids)] = STOP
    begin = int(rng.integers(0, size))
    return Window(ids[begin:begin + size], index, begin, index)


def pairs(objective, count: int = 1500):
    rng = np.random.default_rng(5)
    windows = [document(i, rng) for i in range(count)]
    return [(window, objective.pair(window, np.random.default_rng((9, i))))
            for i, window in enumerate(one._replace(other=windows[i - 1]) for i, one in enumerate(windows))]


# --- by hand ---

def test_the_form_of_a_right_and_of_a_wrong_pair():
    a, b = sentences(3), sentences(4, first=FIRST + 10)
    window = Window(np.array([BOS, *a, *b, EOS]))
    other = Window(np.array([BOS, *sentences(2, 5, first=FIRST + 30), EOS]), document=1)
    seen = set()
    for index in range(40):
        for objective, given in ((NEXT, window._replace(other=other)), (ORDER, window)):
            example = objective.corrupt(given, Key(0, 0, index))
            masked, question = example.asks
            assert (masked.part, masked.head) == ("masked", "tokens")
            assert (question.part, question.head) == (objective.asks, objective.asks)
            assert question.where.tolist() == [0] and question.count == 1 and example.raw == len(window.ids)
            ids = example.inputs.clone()
            ids[masked.where] = masked.targets
            wrong = bool(question.targets[0])
            if objective is ORDER:
                expected = [CLS, *b, SEP, *a, SEP] if wrong else [CLS, *a, SEP, *b, SEP]
            else:  # the second sentence of the other text is the only one with room for b, and is cut to its length
                expected = [CLS, *a, SEP, *(other.ids[3:7].tolist() if wrong else b), SEP]
            assert ids.tolist() == expected
            break_ = expected.index(SEP)
            assert example.fields["segment"].tolist() == [0] * (break_ + 1) + [1] * (len(expected) - break_ - 1)
            seen.add((objective.asks, wrong))
    assert len(seen) == 4


def test_half_sentences_at_the_ends_of_a_window_do_not_tell_the_order():
    """... x x. | a a a. b b b b. | y y ...: only whole sentences are ordered, unless too few are left."""
    a, b = sentences(3), sentences(4, first=FIRST + 10)
    middle = Window(np.array([FIRST + 50, FIRST + 51, STOP, *a, *b, FIRST + 60, FIRST + 61]), start=40)
    for index in range(20):
        first, second, wrong = ORDER.pair(middle, np.random.default_rng(index))
        assert [first.tolist(), second.tolist()] == ([b, a] if wrong else [a, b])
    # where windows are cut at sentence ends, nothing is left out
    whole = Window(np.array([*a, *b]), start=40, whole=True)
    assert sorted(map(len, ORDER.pair(whole, np.random.default_rng(0))[:2])) == [3, 4]


def test_a_single_sentence_is_cut_at_the_word_nearest_its_middle():
    words = replace(TEXT, starts_word=np.isin(np.arange(SIZE), [FIRST + 1, FIRST + 4, FIRST + 9]))
    window = Window(np.array([BOS, *range(FIRST + 1, FIRST + 11), EOS]), other=document(1, np.random.default_rng(0)))
    for asks in ("sentence-order", "next-sentence"):
        objective = make({"name": "sentence-pairs", "asks": asks}, words)
        for index in range(10):
            first, second, wrong = objective.pair(window, np.random.default_rng(index))
            if not wrong:
                assert first.tolist() == list(range(FIRST + 1, FIRST + 4)) and second[0] == FIRST + 4
    # nothing to cut: no second segment, no question
    short = ORDER.corrupt(Window(np.array([BOS, FIRST + 1, EOS])), Key(0, 0, 0))
    assert len(short) == 3 and [ask.part for ask in short.asks] == ["masked"]


def test_a_question_is_one_segment_in_the_trained_form():
    ids = np.array([BOS, *range(FIRST + 1, FIRST + 7), EOS])
    question = NEXT.blank(ids, np.isin(np.arange(8), [2, 3]))
    assert question.inputs.tolist() == [CLS, FIRST + 1, PLAIN.mask, PLAIN.mask, *range(FIRST + 4, FIRST + 7), SEP]
    assert question.asks[0].where.tolist() == [2, 3] and question.asks[0].targets.tolist() == [FIRST + 2, FIRST + 3]
    assert not question.fields["segment"].any()
    ends = NEXT.blank(ids, np.isin(np.arange(8), [0, 7]))
    assert ends.asks[0].targets.tolist() == [BOS, EOS] and ends.inputs[ends.asks[0].where].tolist() == [PLAIN.mask] * 2


# --- the papers' numbers ---

@pytest.mark.parametrize("objective", [NEXT, ORDER], ids=["next-sentence", "sentence-order"])
def test_half_of_the_pairs_are_wrong_and_fifteen_in_a_hundred_tokens_are_hidden(objective):
    rng = np.random.default_rng(1)
    windows = [document(i, rng) for i in range(1500)]
    examples = [objective.corrupt(one._replace(other=windows[i - 1]), Key(0, 0, i)) for i, one in enumerate(windows)]
    wrong = [int(example.asks[1].targets[0]) for example in examples]
    assert np.mean(wrong) == pytest.approx(0.5, abs=0.035)
    hidden, shown = sum(len(example.asks[0].where) for example in examples), sum(len(one) - 3 for one in examples)
    assert hidden / shown == pytest.approx(0.15, abs=0.002)
    marked = sum(int((example.inputs[example.asks[0].where] == PLAIN.mask).sum()) for example in examples)
    assert marked / hidden == pytest.approx(0.8, abs=0.01)
    assert all((example.inputs[-1] == SEP) and 0 not in example.asks[0].where for example in examples)


def test_every_sentence_end_is_as_likely_a_place_to_cut():
    window = Window(np.array(sentences(4, 4, 4, 4, 4)), whole=True)
    places = [len(pair[0]) if not pair[2] else len(pair[1])
              for pair in (ORDER.pair(window, np.random.default_rng(i)) for i in range(4000))]
    found = np.bincount(places)
    assert found[[4, 8, 12, 16]] == pytest.approx(1000, abs=110) and found.sum() == found[[4, 8, 12, 16]].sum()


@pytest.mark.parametrize("objective", [NEXT, ORDER], ids=["next-sentence", "sentence-order"])
def test_neither_lengths_nor_ends_tell_a_wrong_pair(objective):
    """A question that lengths, or a sentence broken off, would answer teaches nothing about sentences."""
    facts = np.array([[len(one), len(two), len(one) + len(two), one[-1] == STOP, two[-1] == STOP, two[0] == STOP, wrong]
                      for _, (one, two, wrong) in pairs(objective)], dtype=float)
    if objective is ORDER:  # swapping exchanges the two lengths, and they are spread alike
        facts = facts[:, [0, 1, 2, 3, 4, 6]]
    wrong = facts[:, -1].astype(bool)
    for column in facts[:, :-1].T:
        spread = column.std() * np.sqrt(1 / wrong.sum() + 1 / (~wrong).sum())
        assert abs(column[wrong].mean() - column[~wrong].mean()) < 3.5 * spread + 1e-9


def test_a_wrong_second_segment_begins_a_sentence_of_the_other_document():
    for window, (_, second, wrong) in pairs(NEXT, 300):
        text = window.other.ids if wrong else window.ids
        starts = [i for i in range(len(text) - len(second) + 1) if (text[i:i + len(second)] == second).all()]
        assert any(i == 0 or text[i - 1] == STOP for i in starts)


# --- the other document ---

@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return prepare_small(tmp_path_factory.mktemp("small"))


def test_the_other_window_is_of_another_document_and_a_function_of_the_key(prepared: Prepared):
    windows, bos = prepared.train, prepared.tokenizer.vocabulary.bos
    found = [another(windows, windows[i], Key(3, 1, i), bos) for i in range(300)]
    assert all(one.document != windows[i].document for i, one in enumerate(found))
    assert [one.index for one in found] == [another(windows, windows[i], Key(3, 1, i), bos).index for i in range(300)]
    assert [one.index for one in found] != [another(windows, windows[i], Key(3, 2, i), bos).index for i in range(300)]
    assert len({one.index for one in found}) > 0.6 * min(300, len(windows))


def test_a_window_that_goes_on_into_the_next_document_is_not_beside_that_one():
    class Three:
        """Window 0 holds the end of document 0 and the whole of document 1."""

        made = (Window(np.array([50, EOS, BOS, 51, EOS]), 0, 9, 0), Window(np.array([BOS, 51, 52]), 1, 0, 1),
                Window(np.array([BOS, 53, 54]), 2, 0, 2))

        def __len__(self) -> int:
            return len(self.made)

        def __getitem__(self, index: int) -> Window:
            return self.made[index]

        def order(self, seed: int, epoch: int) -> np.ndarray:
            return np.arange(3)

    assert {another(Three(), Three.made[0], Key(0, 0, i), BOS).index for i in range(40)} == {2}
    assert {another(Three(), Three.made[2], Key(0, 0, i), BOS).index for i in range(40)} == {0, 1}
    alone = Three()
    alone.made = Three.made[:2]
    with pytest.raises(BothwaysError, match="needs a second document"):
        another(alone, alone.made[0], Key(0, 0, 0), BOS)


@pytest.mark.parametrize("asks", ["next-sentence", "sentence-order"])
def test_four_processes_make_what_one_makes(prepared: Prepared, asks):
    """Every process reads the batch of its own steps: what they make of the text is what one makes alone."""
    objective = make({"name": "sentence-pairs", "asks": asks}, prepared.tokenizer.vocabulary)

    def batches():
        return Batches(prepared.train, objective, seed=4, tokens=256, steps=8)

    alone, places = [], [Place()]
    reader = batches()
    for step in range(1, 9):
        alone.append(reader.read(step, places[-1]))
        places.append(alone[-1].after)
    for rank in range(4):
        own = batches()
        for step in range(rank + 1, 9, 4):
            row, other = own.read(step, places[step - 1]).rows[0], alone[step - 1].rows[0]
            assert torch.equal(row.inputs, other.inputs)
            assert all(torch.equal(a.targets, b.targets) for a, b in zip(row.asks, other.asks, strict=True))


def test_a_text_without_sentences_is_refused_before_training(tmp_path):
    (tmp_path / "corpus.txt").write_text("\n\n".join(f"some words {i} and no end of them" * 9 for i in range(30)))
    plain = prepare(tmp_path / "corpus.txt", tmp_path / "text", tokenizer=TokenizerConfig("bytes"), window=64)
    for spec in ("sentence-pairs", "glm(levels=sentence)", "denoising(noises=sentence-permutation)"):
        with pytest.raises(BothwaysError, match=r"works on sentences, and none ends .* in this text: give it text"):
            resolved(small_config(objective=spec), plain)
    assert resolved(small_config(objective="denoising"), plain)[1].name == "denoising"


def test_held_out_text_is_asked_in_pairs_too(prepared: Prepared):
    objective = make("sentence-pairs", prepared.tokenizer.vocabulary)
    held = HeldOut(prepared.valid, objective, tokens=500)
    network = LanguageModel(ModelConfig(Shape(prepared.tokenizer.size, 16, 2, heads=2),
                                        companions=objective.companions))
    measured = held.measure(network, torch.device("cpu"))
    assert set(measured["parts"]) == {"masked", "next-sentence"}
    assert measured["parts"]["next-sentence"] == pytest.approx(np.log(2), abs=0.2)


# --- through a network ---

def network(objective) -> LanguageModel:
    return shaken(ModelConfig(Shape(SIZE, 16, 2, heads=2), companions=objective.companions))


@pytest.mark.parametrize("objective", [NEXT, ORDER], ids=["next-sentence", "sentence-order"])
def test_packed_pairs_see_themselves_and_nothing_else(objective):
    rng = np.random.default_rng(2)
    windows = [document(i, rng, 14) for i in range(3)]
    row, = pack(objective.corrupt(one._replace(other=windows[i - 1]), Key(0, 0, i)) for i, one in enumerate(windows))
    model = network(objective)
    check(model, row)
    # the question too is answered from the own pair alone
    question = row.asks[1]
    before = model.logits(model(row).states[question.where], objective.asks)
    changed = row.inputs.clone()
    changed[-2] = FIRST + 5 if changed[-2] != FIRST + 5 else FIRST + 6
    after = model.logits(model(replace(row, inputs=changed)).states[question.where], objective.asks)
    assert torch.equal(before[:2], after[:2]) and not torch.equal(before[2], after[2])


def test_the_order_of_two_sentences_is_learned():
    """Sentences that count upwards, in order or swapped: a small network tells them apart in a few steps."""
    objective = ORDER
    torch.manual_seed(0)
    model = LanguageModel(ModelConfig(Shape(SIZE, 32, 2, heads=2), companions=objective.companions))
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.normal_(0, 0.2)
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    window = Window(np.array([BOS, *sentences(4, 4), EOS]))
    for step in range(80):
        row, = pack(objective.corrupt(window, Key(0, step, i)) for i in range(16))
        parts = {part.name: part.sum / part.count for part in objective.parts(model, row)}
        optimiser.zero_grad()
        sum(parts.values()).backward()
        optimiser.step()
    assert float(parts["sentence-order"].detach()) < 0.1


# --- refusals and names ---

def test_what_it_needs_beside_the_trunk():
    assert NEXT.companions == (Companion("segment", "embedding", 2), Companion("next-sentence", "classes", 2))
    assert NEXT.reads_another and not ORDER.reads_another
    assert make("sentence-pairs + masked", TEXT).reads_another
    assert objectives.make(ORDER.describe(), TEXT) == ORDER


@pytest.mark.parametrize("spec, vocabulary, says", [
    ("sentence-pairs", PLAIN, "no token that ends one"),
    ("sentence-pairs(asks=both)", TEXT, "asks is 'both'"),
    ("sentence-pairs(rate=0)", TEXT, "rate is 0"),
    ("sentence-pairs(replace=90-20-0)", TEXT, "add up to 100"),
])
def test_refusals(spec, vocabulary, says):
    with pytest.raises(BothwaysError, match=says):
        make(spec, vocabulary)


def test_next_sentence_without_another_document_says_how_it_is_read():
    with pytest.raises(BothwaysError, match="came without one"):
        NEXT.corrupt(Window(np.array([BOS, *sentences(3, 3), EOS])), Key(0, 0, 0))


def test_others_are_given_no_other_window(prepared: Prepared):
    objective = make("masked", prepared.tokenizer.vocabulary)
    window = prepared.train[0]
    one = corrupted(objective, prepared.train, window, Key(0, 0, 0))
    assert torch.equal(one.inputs, objective.corrupt(window, Key(0, 0, 0)).inputs)
