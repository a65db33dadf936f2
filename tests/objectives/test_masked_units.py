"""Static corruption, and phrases as words: which noise a window gets, and what is hidden together."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from bothways.batch import RESERVED_TOKENS, Key, Vocabulary, Window
from bothways.errors import BothwaysError
from bothways.objectives import make
from bothways.text.tokenizer import Tokenizer

A = len(RESERVED_TOKENS)
PLAIN = Vocabulary.plain(A + 300)
IDS = np.array([PLAIN.bos, *range(A, A + 100), PLAIN.eos])


@pytest.mark.parametrize("name", ["masked", "masked-next"])
def test_static_corruption_has_so_many_copies_and_dynamic_one_an_epoch(name):
    def inputs(spec, epochs, seed=0, index=3):
        objective = make(spec, PLAIN)
        return [objective.corrupt(Window(IDS, index=index), Key(seed, epoch, index)) for epoch in range(epochs)]

    static = inputs(f"{name}(copies=10)", 30)
    kinds = {tuple(one.inputs.tolist()) for one in static}
    assert len(kinds) == 10
    for epoch in range(20):
        one, again = static[epoch], static[epoch + 10]
        assert torch.equal(one.inputs, again.inputs) and torch.equal(one.asks[0].where, again.asks[0].where)
    assert len({tuple(one.inputs.tolist()) for one in inputs(name, 30)}) == 30
    # the first copies are the first epochs of the dynamic kind, and another window or seed has others
    assert all(torch.equal(one.inputs, other.inputs)
               for one, other in zip(static[:10], inputs(name, 10), strict=True))
    assert not torch.equal(static[0].inputs, inputs(f"{name}(copies=10)", 1, seed=1)[0].inputs)
    assert not torch.equal(static[0].inputs, inputs(f"{name}(copies=10)", 1, index=4)[0].inputs)
    once = inputs(f"{name}(copies=1)", 5)
    assert len({tuple(one.inputs.tolist()) for one in once}) == 1


def test_static_copies_also_fix_which_hidden_tokens_are_asked_for():
    objective = make("masked(copies=2, asked=0.5)", PLAIN)
    first, third = (objective.corrupt(Window(IDS), Key(0, epoch, 0)) for epoch in (0, 2))
    assert torch.equal(first.asks[0].where, third.asks[0].where)


TEXT = "The old man met Ada King of Ovingham and Lord Byron. Ada King wrote. In Rome it rained."
TOKENIZER = Tokenizer.words(TEXT)
WORDS = TOKENIZER.vocabulary
GIVEN = np.array([WORDS.bos, *TOKENIZER.encode(TEXT), WORDS.eos])


def together(spec: str, draws: int = 3000) -> set[tuple[str, ...]]:
    """Neighbouring words that are always hidden both or neither, as the longest such runs."""
    objective = make(spec, WORDS)
    hidden = np.zeros((draws, len(GIVEN)), bool)
    for index in range(draws):
        asked = objective.corrupt(Window(GIVEN, index=index), Key(0, 0, index)).asks[0].where.numpy()
        hidden[index, asked + (objective.name == "masked-next")] = True
    tied = (hidden[:, 1:] == hidden[:, :-1]).all(0)
    runs, run = set(), [0]
    for place in range(1, len(GIVEN)):
        if tied[place - 1]:
            run.append(place)
        else:
            runs.add(tuple(run))
            run = [place]
    return {tuple(TOKENIZER.pieces(GIVEN[list(one)])) for one in runs if len(one) > 1}


def test_a_run_of_capitals_inside_a_sentence_is_hidden_as_one():
    # "The" begins its sentence; "Ada King" does once too, and is then no run; "Ovingham" stands alone
    assert together("masked(whole_words=true, phrases=true, rate=0.2)") == {("Ada", "King"), ("Lord", "Byron")}
    assert together("masked-next(whole_words=true, phrases=true, rate=0.2)") == {("Ada", "King"), ("Lord", "Byron")}
    assert together("masked(whole_words=true, rate=0.2)") == set()


def test_phrases_leave_the_rate_as_it_is():
    objective = make("masked(whole_words=true, phrases=true, rate=0.25)", WORDS)
    hidden = [len(objective.corrupt(Window(GIVEN), Key(0, 0, i)).asks[0].where) for i in range(4000)]
    assert np.mean(hidden) / (len(GIVEN) - 2) == pytest.approx(0.25, abs=0.006)


def test_pieces_of_words_go_with_their_words():
    """Two words of two pieces each: | Ad a | Ki ng | is one phrase of four tokens."""
    begins = np.isin(np.arange(PLAIN.size), [A, A + 2, A + 4, A + 6])
    vocabulary = replace(PLAIN, starts_word=begins, capital=np.isin(np.arange(PLAIN.size), [A + 2, A + 4]))
    objective = make("masked(whole_words=true, phrases=true, rate=0.3)", vocabulary)
    ids = np.array([PLAIN.bos, *range(A, A + 8), PLAIN.eos])
    seen = {tuple(objective.corrupt(Window(ids), Key(0, 0, i)).asks[0].where.tolist()) for i in range(300)}
    assert all({3, 4, 5, 6} <= set(places) or not {3, 4, 5, 6} & set(places) for places in seen)
    assert any({3, 4, 5, 6} <= set(places) for places in seen) and (1, 2) in seen and (7, 8) in seen


def test_tokenizers_know_capitals():
    shown = {piece.strip() for piece in TOKENIZER.pieces(np.flatnonzero(WORDS.capital))}
    assert shown == {"The", "Ada", "King", "Ovingham", "Lord", "Byron", "In", "Rome"}
    pieces = Tokenizer.train(["The Cat sat in Rome. The cat sat in Paris."] * 30, "bpe", 420)
    assert {" Rome", " Cat"} <= set(pieces.pieces(np.flatnonzero(pieces.vocabulary.capital)))
    assert not any(piece.strip()[:1].islower() for piece in pieces.pieces(np.flatnonzero(pieces.vocabulary.capital)))


@pytest.mark.parametrize("spec, says", [
    ("masked(phrases=true)", "phrases joins whole words, and whole_words is false"),
    ("masked(phrases=2)", "phrases is 2"),
    ("masked(copies=0)", "copies is 0"), ("masked(copies=1.5)", "copies is 1.5"), ("masked(copies=true)", "copies is"),
    ("masked(copies=10, rate=(0.3, 0.15))", "copies 10 are made once, and rate"),
])
def test_refusals(spec, says):
    with pytest.raises(BothwaysError, match=says):
        make(spec, WORDS)


def test_a_tokenizer_that_knows_no_capitals_is_refused():
    with pytest.raises(BothwaysError, match="words with capital letters"):
        make("masked(whole_words=true, phrases=true)", PLAIN)
