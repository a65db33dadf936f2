"""`blank` and writing: each objective's question hides what it says it hides, and asks for exactly that."""

from __future__ import annotations

import numpy as np
import pytest

from bothways.batch import RESERVED_TOKENS, Key, Vocabulary, Window
from bothways.errors import BothwaysError
from bothways.objectives import make
from bothways.visibility import bidirectional, causal

RESERVED = len(RESERVED_TOKENS)
PLAIN = Vocabulary.plain(RESERVED + 400)
IDS = np.concatenate(([PLAIN.bos], np.arange(RESERVED, RESERVED + 30), [PLAIN.eos]))
SINGLE = ["next-token", "masked", "masked-next", "span-corruption", "denoising", "diffusion",
          "block-diffusion(block=4)", "block-diffusion(block=1)"]
HIDDEN = {
    "single": [9], "run": [4, 5, 6], "scattered": [1, 3, 7, 8, 20], "neighbours of both ends": [1, 30],
    "suffix with eos": list(range(20, 32)), "nothing": [], "all but bos": list(range(1, 32)),
}


def hide(places):
    hidden = np.zeros(len(IDS), bool)
    hidden[places] = True
    return hidden


@pytest.mark.parametrize("places", HIDDEN.values(), ids=HIDDEN)
@pytest.mark.parametrize("spec", [*SINGLE, "next-token + masked-next", "denoising + span-corruption"])
def test_a_question_asks_for_the_hidden_tokens_in_order(spec, places):
    objective, hidden = make(spec, PLAIN), hide(places)
    for mode in objective.modes:
        question = objective.blank(IDS, hidden, mode)
        (ask,) = question.asks
        assert ask.targets.tolist() == IDS[hidden].tolist()
        assert ask.count == len(places) and ask.weights is None
        assert question.visibility == mode.visibility
        if mode.predicts == "next" and mode.visibility == causal:
            # teacher forcing: the token asked for at a place is what stands one place later
            told = [*question.inputs.tolist(), PLAIN.eos]
            assert [told[place + 1] for place in ask.where.tolist() if place + 1 < len(question)] == \
                [target for place, target in zip(ask.where.tolist(), ask.targets.tolist(), strict=True)
                 if place + 1 < len(question)]


@pytest.mark.parametrize("places", [v for k, v in HIDDEN.items() if k != "nothing"],
                         ids=[k for k in HIDDEN if k != "nothing"])
@pytest.mark.parametrize("spec", SINGLE)
def test_no_hidden_token_may_be_seen_from_where_it_is_asked(spec, places):
    """All tokens of the text are distinct, so seeing the answer anywhere would be seeing it."""
    objective = make(spec, PLAIN)
    question = objective.blank(IDS, hide(places))
    seen = question.visibility.allows(question.fields, question.fields).numpy()
    for place, target in zip(question.asks[0].where.tolist(), question.asks[0].targets.tolist(), strict=True):
        visible = question.inputs.numpy()[seen[place]]
        assert target not in visible
        if question.source is not None and target != PLAIN.eos:
            assert target not in question.source.inputs.tolist()
        if question.visibility == bidirectional:
            shown = np.setdiff1d(IDS, IDS[places])
            assert set(visible.tolist()) == {*shown.tolist(), PLAIN.mask}


@pytest.mark.parametrize("spec", SINGLE)
@pytest.mark.parametrize("index", range(8))
def test_no_answer_of_a_corrupted_window_may_be_seen(spec, index):
    options = "(replace=all)" if spec == "masked" else ""
    example = make(spec + options, PLAIN).corrupt(Window(IDS, index=index), Key(0, 0, index))
    seen = example.visibility.allows(example.fields, example.fields).numpy()
    for place, target in zip(example.asks[0].where.tolist(), example.asks[0].targets.tolist(), strict=True):
        assert target not in example.inputs.numpy()[seen[place]] or target in PLAIN.sentinels
        if spec == "span-corruption" and not PLAIN.special[target]:
            assert target not in example.source.inputs.tolist()


def test_the_form_of_each_question():
    hidden = hide([3, 4, 8])
    a = IDS.tolist()
    mask, (first, second) = PLAIN.mask, PLAIN.sentinels[:2]

    causal_question = make("next-token", PLAIN).blank(IDS, hidden)
    assert causal_question.inputs.tolist() == a and causal_question.asks[0].where.tolist() == [2, 3, 7]
    for spec, where in (("masked", [3, 4, 8]), ("diffusion", [3, 4, 8]), ("masked-next", [2, 3, 7])):
        question = make(spec, PLAIN).blank(IDS, hidden)
        assert question.inputs.tolist() == [*a[:3], mask, mask, *a[5:8], mask, *a[9:]]
        assert question.asks[0].where.tolist() == where
    spans = make("span-corruption", PLAIN).blank(IDS, hidden)
    assert spans.source.inputs.tolist() == [*a[:3], first, *a[5:8], second, *a[9:]]
    assert spans.inputs.tolist() == [PLAIN.bos, first, a[3], a[4], second, a[8]]
    assert spans.asks[0].where.tolist() == [1, 2, 4]
    whole = make("denoising", PLAIN).blank(IDS, hidden)
    assert whole.source.inputs.tolist() == [*a[:3], mask, *a[5:8], mask, *a[9:]]
    assert whole.inputs.tolist() == a[:-1] and whole.asks[0].where.tolist() == [2, 3, 7]


def test_texts_without_begin_and_end():
    ids, hidden = IDS[1:6], np.array([True, False, True, False, False])
    # a mode that predicts the next token has nothing to predict the first from
    assert make("next-token", PLAIN).blank(ids, hidden).asks[0].targets.tolist() == [ids[2]]
    assert make("masked-next", PLAIN).blank(ids, hidden).asks[0].targets.tolist() == [ids[2]]
    assert make("masked-next", PLAIN).blank(ids, hidden).inputs[0] == PLAIN.mask
    assert make("masked", PLAIN).blank(ids, hidden).asks[0].targets.tolist() == [ids[0], ids[2]]
    # a decoder begins with a token of its own
    whole = make("denoising", PLAIN).blank(ids, hidden)
    assert whole.asks[0].targets.tolist() == [ids[0], ids[2]] and whole.inputs.tolist() == [PLAIN.bos, *ids[:-1]]
    spans = make("span-corruption", PLAIN).blank(ids, hidden)
    assert spans.source.inputs[-1] == PLAIN.eos


def test_more_blanks_than_sentinels_are_refused():
    ids = np.arange(RESERVED, RESERVED + 80)
    with pytest.raises(BothwaysError, match="40 spans, but the tokenizer has only 32 sentinels"):
        make("span-corruption", PLAIN).blank(ids, np.arange(80) % 2 == 0)


# --- writing -------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("spec", ["next-token", "0.25 masked-next + 0.75 next-token"])
def test_a_causal_continuation_is_the_prompt_behind_bos(spec):
    objective = make(spec, PLAIN)
    for prompt in (IDS[:5], IDS[1:5]):
        example = objective.continuation(prompt)
        assert example.inputs.tolist() == IDS[:5].tolist() and example.visibility == causal and not example.asks
    assert objective.stops == {PLAIN.eos}


def test_a_continuation_by_denoising():
    example = make("denoising", PLAIN).continuation(IDS[1:5])
    assert example.inputs.tolist() == IDS[:5].tolist()
    assert example.source.inputs.tolist() == [*IDS[:5].tolist(), PLAIN.mask]
    assert example.cross == bidirectional


def test_a_continuation_by_span_corruption():
    objective = make("span-corruption", PLAIN)
    example = objective.continuation(IDS[1:5])
    first, second = PLAIN.sentinels[:2]
    assert example.inputs.tolist() == [PLAIN.bos, first]
    assert example.source.inputs.tolist() == [*IDS[:5].tolist(), first, PLAIN.eos]
    assert objective.stops == {PLAIN.eos, second}


def test_infilling_by_span_corruption_puts_what_was_written_into_the_blanks():
    objective = make("span-corruption", PLAIN)
    a, b, c = (int(token) for token in IDS[1:4])
    ids = np.array([a, PLAIN.mask, b, PLAIN.mask, c])
    first, second = PLAIN.sentinels[:2]
    example = objective.infilling(ids)
    assert example.source.inputs.tolist() == [PLAIN.bos, a, first, b, second, c, PLAIN.eos]
    assert objective.read_infilling(ids, [first, 50, 51, second, 52, PLAIN.eos, 99]) == [a, 50, 51, b, 52, c]
    assert objective.read_infilling(ids, [second, 52]) == [a, b, 52, c]
    assert objective.read_infilling(ids, []) == [a, b, c]


def test_infilling_by_denoising_reads_the_whole_text():
    objective = make("denoising", PLAIN)
    ids = np.array([60, PLAIN.mask, 61])
    assert objective.infilling(ids).source.inputs.tolist() == [PLAIN.bos, 60, PLAIN.mask, 61, PLAIN.eos]
    assert objective.read_infilling(ids, [60, 70, 61, PLAIN.eos, 5]) == [60, 70, 61]


@pytest.mark.parametrize("spec", SINGLE)
def test_writing_what_was_asked_rebuilds_the_text(spec):
    """Answering an infilling with the question's own targets gives the text back."""
    objective = make(spec, PLAIN)
    if objective.stack == "one tower":
        with pytest.raises(BothwaysError, match="blanks of unknown length"):
            objective.infilling(IDS)
        return
    hidden = hide([3, 4, 8])
    blanks = np.delete(np.where(hidden, PLAIN.mask, IDS), 4)[1:-1]
    assert objective.infilling(blanks).source.inputs.tolist() == objective.blank(IDS, hidden).source.inputs.tolist()
    question = objective.blank(IDS, hidden)
    written = [*question.inputs.tolist()[1:], PLAIN.eos]
    assert objective.read_infilling(blanks, written) == IDS.tolist()[1:-1]


@pytest.mark.parametrize("spec", ["masked", "masked-next", "diffusion"])
def test_those_that_do_not_write_left_to_right_say_so(spec):
    with pytest.raises(BothwaysError, match="does not write from left to right"):
        make(spec, PLAIN).continuation(IDS)


@pytest.mark.parametrize("spec", ["next-token", "masked", "masked-next", "span-corruption", "denoising", "diffusion",
                                  "next-token + diffusion"])
def test_the_profile_is_what_examples_measure(spec):
    """Tokens read and asked for per raw token, as the cost model is told, against 300 real examples."""
    objective = make(spec, PLAIN)
    rng = np.random.default_rng(0)
    raw = read = read_source = asked = 0
    for i in range(300):
        ids = np.concatenate(([PLAIN.bos], rng.integers(RESERVED, PLAIN.size, 254), [PLAIN.eos]))
        example = objective.corrupt(Window(ids, index=i), Key(0, 0, i))
        raw, read, asked = raw + example.raw, read + len(example), asked + sum(len(a.where) for a in example.asks)
        read_source += 0 if example.source is None else len(example.source)
    profile = objective.profile
    assert read / raw == pytest.approx(profile.inputs, abs=0.02)
    assert asked / raw == pytest.approx(profile.asked, abs=0.02)
    assert read_source / raw == pytest.approx(profile.source_inputs, abs=0.02)
