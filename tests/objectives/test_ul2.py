"""UL2: span corruption's spans, relaid; each denoiser its share, its token and the paper's numbers."""

from __future__ import annotations

import collections

import numpy as np
import pytest

from bothways.batch import RESERVED_TOKENS, SENTINELS, Key, Vocabulary, Window
from bothways.errors import BothwaysError
from bothways.objectives import make
from bothways.objectives.ul2 import PAPER
from bothways.visibility import bidirectional, causal, prefix

RESERVED = len(RESERVED_TOKENS)
PLAIN = Vocabulary.plain(RESERVED + 400)
R, S, X = (PLAIN.ids[f"<{kind}>"] for kind in "RSX")
FIRST, SECOND = PLAIN.sentinels[:2]
IDS = np.array([PLAIN.bos, *range(RESERVED, RESERVED + 10), PLAIN.eos])


def one(kind, mean, rate, **options):
    return make({"name": "ul2", "denoisers": [[kind, mean, rate]], **options}, PLAIN)


def text(length: int, index: int = 0) -> Window:
    return Window(np.random.default_rng((7, index)).integers(RESERVED, PLAIN.size, length), index=index)


def test_the_suffix_denoiser_by_hand():
    example = one("S", None, 0.25).corrupt(Window(IDS), Key(0, 0, 0))
    a = IDS.tolist()
    # round(11 * 0.25) = 3 tokens, always the last ones, behind one sentinel
    assert example.inputs.tolist() == [S, *a[:8], FIRST, PLAIN.eos, FIRST, *a[8:11]]
    assert example.fields["prefix"].tolist() == [1] * 11 + [0] * 4
    assert example.asks[0].where.tolist() == [10, 11, 12, 13, 14]
    assert example.asks[0].targets.tolist() == [FIRST, *a[8:11], PLAIN.eos]
    assert (example.visibility, example.raw, example.source) == (prefix, 12, None)


def test_two_towers_read_the_same_text_and_write_the_same_target():
    for index in range(40):
        window = text(60, index)
        single, double = (make({"name": "ul2", "towers": towers}, PLAIN).corrupt(window, Key(0, 0, index))
                          for towers in (1, 2))
        source = double.source.inputs.tolist()
        assert single.inputs.tolist() == source + double.inputs.tolist()[1:]
        assert single.asks[0].targets.tolist() == double.asks[0].targets.tolist()
        assert (single.asks[0].where - (len(source) - 1)).tolist() == double.asks[0].where.tolist()
        assert double.source.visibility == double.cross == bidirectional and double.visibility == causal
        assert single.fields["prefix"].tolist() == [1] * len(source) + [0] * (len(single) - len(source))


@pytest.mark.parametrize(("mean", "rate"), [(3, 0.15), (8, 0.5)])
def test_the_spans_are_those_of_span_corruption(mean, rate):
    """To the bit: the same noise cuts the same spans."""
    spans = make(f"span-corruption(rate={rate}, mean_span={mean})", PLAIN)
    for index in range(20):
        window, key = text(100, index), Key(2, 1, index)
        ours, theirs = one("X", mean, rate, towers=2).corrupt(window, key), spans.corrupt(window, key)
        assert ours.source.inputs.tolist() == [X, *theirs.source.inputs.tolist()]
        assert ours.asks[0].targets.tolist() == theirs.asks[0].targets.tolist()


@pytest.mark.parametrize(("kind", "mean", "rate"), PAPER)
def test_each_denoiser_hides_its_share_in_spans_of_its_length(kind, mean, rate):
    length, windows = 120, 60
    hidden, spans = 0, 0
    for index in range(windows):
        targets = one(kind, mean, rate).corrupt(text(length, index), Key(0, 0, index)).asks[0].targets.numpy()
        spans += int(np.isin(targets, PLAIN.sentinels).sum())
        hidden += int((targets >= RESERVED).sum())
    assert hidden / (windows * length) == pytest.approx(rate, abs=0.005)
    # the released code rounds the number of spans of each window, and makes at least one
    assert spans / windows == max(1, round(round(length * rate) / (mean or length)))


@pytest.mark.parametrize("roll", [False, True])
def test_text_and_target_rebuild_the_window(roll):
    objective = make({"name": "ul2", "roll": roll}, PLAIN)
    for index in range(140):
        window = text(64, index)
        example = objective.corrupt(window, Key(0, 0, index))
        told = example.inputs[example.fields["prefix"] == 1].tolist()
        spans: dict[int, list[int]] = {}
        for token in example.asks[0].targets.tolist()[:-1]:
            if token in PLAIN.sentinels:
                current = spans.setdefault(token, [])
            else:
                current.append(token)
        assert [t for token in told[1:-1] for t in spans.get(token, [token])] == window.ids.tolist()
        # teacher forcing behind the prefix, without a gap
        assert example.asks[0].where.tolist() == list(range(len(told) - 1, len(example)))
        assert example.inputs.tolist()[len(told):] == example.asks[0].targets.tolist()[:-1]


def test_all_seven_get_the_same_share_of_an_epoch_and_their_own_token():
    objective = make("ul2", PLAIN)
    chosen = [objective.chosen(Key(1, 0, index)) for index in range(7000)]
    counts = collections.Counter(chosen)
    assert set(counts) == set(PAPER)
    assert max(abs(count - 1000) for count in counts.values()) <= 3  # independent draws would miss by about 29
    assert chosen[:20] != [objective.chosen(Key(1, 1, index)) for index in range(20)]
    for index in range(21):
        first = objective.corrupt(text(60, index), Key(1, 0, index)).inputs[0]
        assert first == {"R": R, "S": S, "X": X}[chosen[index][0]]


def test_a_mixture_s_choice_and_ours_are_independent():
    mixture = make("0.5 ul2 + 0.5 next-token", PLAIN)
    ul2 = mixture.members[0].objective
    pairs = collections.Counter((mixture.chosen(Key(0, 0, i)), ul2.chosen(Key(0, 0, i))) for i in range(14_000))
    assert len(pairs) == 14 and max(abs(count - 1000) for count in pairs.values()) < 60


def test_without_mode_tokens_nothing_else_changes():
    window = text(60)
    with_, without = (make({"name": "ul2", "mode_tokens": flag}, PLAIN).corrupt(window, Key(0, 0, 3))
                      for flag in (True, False))
    assert with_.inputs.tolist()[1:] == without.inputs.tolist()


@pytest.mark.parametrize("towers", [1, 2])
def test_the_profile_is_what_examples_measure(towers):
    objective = make({"name": "ul2", "towers": towers}, PLAIN)
    read = told = asked = raw = 0
    for index in range(280):
        example = objective.corrupt(text(128, index), Key(0, 0, index))
        raw, read = raw + example.raw, read + len(example)
        asked += len(example.asks[0].where)
        told += 0 if example.source is None else len(example.source)
    profile = objective.profile
    for measured, said in ((read, profile.inputs), (asked, profile.asked), (told, profile.source_inputs)):
        assert measured / raw == pytest.approx(said, abs=0.03)  # the mode token and two closings in 128


# --- questions and writing -----------------------------------------------------------------------------------

@pytest.mark.parametrize(("places", "kind"), [([3, 4, 8], R), ([7, 8, 9, 10, 11], S), ([1, 2, 3, 5, 6, 8], X)])
@pytest.mark.parametrize("towers", [1, 2])
def test_a_question_is_asked_in_the_mode_that_hides_as_much(places, kind, towers):
    hidden = np.isin(np.arange(12), places)
    question = make({"name": "ul2", "towers": towers}, PLAIN).blank(IDS, hidden)
    told = question.inputs[question.fields["prefix"] == 1] if towers == 1 else question.source.inputs
    assert told[0] == kind
    assert question.asks[0].targets.tolist() == IDS[hidden].tolist()
    assert not set(told.tolist()) & set(IDS[hidden].tolist()) - {PLAIN.eos}


def test_a_question_by_hand():
    a = IDS.tolist()
    question = make("ul2", PLAIN).blank(IDS, np.isin(np.arange(12), [3, 4, 8]))
    assert question.inputs.tolist() == [R, *a[:3], FIRST, *a[5:8], SECOND, *a[9:], FIRST, a[3], a[4], SECOND, a[8]]
    # the states of the first sentinel, of the span's first token and of the second sentinel
    assert question.asks[0].where.tolist() == [12, 13, 15]


def test_writing_on_and_filling():
    objective, a = make("ul2", PLAIN), IDS.tolist()
    example = objective.continuation(IDS[1:4])
    assert example.inputs.tolist() == [S, *a[:4], FIRST, PLAIN.eos, FIRST]
    assert example.fields["prefix"].tolist() == [1] * 7 + [0]
    assert objective.stops == {PLAIN.eos, SECOND}
    blanks = np.array([a[1], PLAIN.mask, a[2], PLAIN.mask])
    example = objective.infilling(blanks)
    assert example.inputs.tolist() == [R, PLAIN.bos, a[1], FIRST, a[2], SECOND, PLAIN.eos]
    assert example.fields["prefix"].tolist() == [1] * 7
    assert objective.read_infilling(blanks, [FIRST, 60, 61, SECOND, 62, PLAIN.eos]) == [a[1], 60, 61, a[2], 62]


# --- refusals ------------------------------------------------------------------------------------------------

def test_more_spans_than_sentinels_are_refused_by_the_option_s_name():
    with pytest.raises(BothwaysError, match=rf"'ul2': among its denoisers \('X', 3.0, 0.5\).*50 spans.*{SENTINELS} "
                                            "sentinels: use shorter windows"):
        one("X", 3, 0.5).corrupt(text(300), Key(0, 0, 0))


@pytest.mark.parametrize(("options", "words"), [
    ({"denoisers": []}, "denoisers is a list"),
    ({"denoisers": "R"}, "denoisers is a list"),
    ({"denoisers": [["R", 3]]}, "must be \\(kind, mean span, rate\\)"),
    ({"denoisers": [["Q", 3, 0.15]]}, "a denoiser's kind is 'Q'"),
    ({"denoisers": [["R", 3, 1.5]]}, "rate of .* is 1.5"),
    ({"denoisers": [["R", None, 0.15]]}, "mean span of .* is None"),
    ({"denoisers": [["S", 8, 0.25]]}, "write none \\(null\\)"),
    ({"towers": 3}, "towers is 3"),
    ({"towers": True}, "towers is True"),
    ({"mode_tokens": "yes"}, "mode_tokens is 'yes'"),
    ({"roll": 1}, "roll is 1"),
])
def test_bad_options_are_refused(options, words):
    with pytest.raises(BothwaysError, match=words):
        make({"name": "ul2", **options}, PLAIN)


def test_a_text_too_short_is_refused():
    with pytest.raises(BothwaysError, match="at least 2 tokens"):
        make("ul2", PLAIN).corrupt(Window(np.array([50])), Key(0, 0, 0))
