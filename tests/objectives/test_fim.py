"""Fill in the middle: the two orders, uniform cuts, and a text that can always be put together again."""

from __future__ import annotations

import collections
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from bothways.batch import RESERVED_TOKENS, Key, Vocabulary, Window
from bothways.errors import BothwaysError
from bothways.objectives import make
from bothways.visibility import causal

RESERVED = len(RESERVED_TOKENS)
PLAIN = Vocabulary.plain(RESERVED + 400)
PRE, SUF, MID = PLAIN.sentinels[:3]
BOS, EOS = PLAIN.bos, PLAIN.eos
IDS = np.array([BOS, *range(RESERVED, RESERVED + 9), EOS])


def text(length: int, index: int = 0, begin: bool = True, end: bool = True) -> Window:
    """Distinct tokens, so that every part of the text can be recognised."""
    body = np.random.default_rng((7, index)).permutation(np.arange(RESERVED, PLAIN.size))[:length]
    return Window(np.array([*[BOS] * begin, *body, *[EOS] * end]), index=index)


def parts(ids: list[int]) -> tuple[str, list[int], list[int], list[int]]:
    """The form of an example, and the three parts that it says it has."""
    ids = ids[1:] if ids[0] == BOS else ids
    if ids[0] != PRE:
        return "text", [], [], []
    assert [token for token in ids if token in (PRE, SUF, MID)] == [PRE, SUF, MID] and ids[-1] == EOS
    suffix, middle = ids.index(SUF), ids.index(MID)
    if suffix == 1:
        return "spm", [], ids[middle + 1:-1], ids[2:middle]
    return "psm", ids[1:suffix], ids[middle + 1:-1], ids[suffix + 1:middle]


def test_both_orders_by_hand():
    a, key = IDS.tolist(), Key(0, 0, 1)
    for spm, order in ((0, "psm"), (1, "spm")):
        objective = make({"name": "fim", "rate": 1, "spm": spm}, PLAIN)
        left, right = objective.split(IDS[1:-1], key.rng())
        prefix, middle, suffix = a[1:1 + left], a[1 + left:1 + right], a[1 + right:-1]
        told = [PRE, *prefix, SUF, *suffix, MID, *middle, EOS] if order == "psm" else \
            [PRE, SUF, *suffix, MID, *prefix, *middle, EOS]
        example = objective.corrupt(Window(IDS), key)
        assert example.inputs.tolist() == [BOS, *told]
        # every token is asked for, the sentinels too
        assert example.asks[0].targets.tolist() == told
        assert example.asks[0].where.tolist() == list(range(len(told)))
        assert example.visibility == causal and example.raw == 11


def window_body(window: Window) -> list[int]:
    return [token for token in window.ids.tolist() if token not in (BOS, EOS)]


@pytest.mark.parametrize("begin", [True, False])
@pytest.mark.parametrize("end", [True, False])
@pytest.mark.parametrize("cuts", ["bytes", "tokens"])
def test_the_parts_are_the_text(begin, end, cuts):
    objective, seen = make({"name": "fim", "cuts": cuts}, PLAIN), collections.Counter()
    for index in range(200):
        window = text(20, index, begin, end)
        example = objective.corrupt(window, Key(0, 0, index))
        form, prefix, middle, suffix = parts(example.inputs.tolist())
        seen[form] += 1
        # with nothing before the middle both orders are the same text
        assert form == objective.form(Key(0, 0, index)) or (form == "spm" and middle + suffix == window_body(window))
        body = window_body(window)
        if form == "text":
            assert example.inputs.tolist() == window.ids.tolist()
        else:
            assert prefix + middle + suffix == body
            assert (example.inputs[0] == BOS) == begin
    assert set(seen) == {"text", "psm", "spm"}


@pytest.mark.parametrize(("rate", "spm"), [(0.5, 0.5), (0.9, 0.25), (0, 0.5), (1, 1)])
def test_the_shares_are_exact_over_an_epoch(rate, spm):
    objective = make({"name": "fim", "rate": rate, "spm": spm}, PLAIN)
    counts = collections.Counter(objective.form(Key(5, 0, index)) for index in range(4000))
    for form, share in (("text", 1 - rate), ("spm", rate * spm), ("psm", rate * (1 - spm))):
        assert abs(counts[form] - 4000 * share) <= 4  # independent draws would miss by about 30


@pytest.mark.parametrize("cuts", ["bytes", "tokens"])
def test_both_cuts_are_uniform_and_independent(cuts):
    objective, rng = make({"name": "fim", "cuts": cuts}, PLAIN), np.random.default_rng(0)
    counts = collections.Counter(objective.split(IDS[1:5], rng) for _ in range(15_000))
    # places 0..4 for each: equal ones once in 25, others twice
    assert set(counts) == {(a, b) for a in range(5) for b in range(a, 5)}
    expected = [15_000 * (1 if a == b else 2) / 25 for a, b in counts]
    assert stats.chisquare(list(counts.values()), expected).pvalue > 1e-3


def test_cuts_in_bytes_fall_into_long_tokens_and_move_back_to_their_beginning():
    n_bytes = np.where(PLAIN.special, 0, 1)
    n_bytes[RESERVED + 1] = 6
    uneven = replace(PLAIN, n_bytes=n_bytes)
    ids = np.array([RESERVED, RESERVED + 1, RESERVED + 2])  # 1, 6 and 1 bytes
    rng = np.random.default_rng(0)
    cuts = np.array([make("fim", uneven).split(ids, rng) for _ in range(20_000)]).ravel()
    # 9 places between bytes: 0 | 1..6 | 7 | 8
    counts = np.bincount(cuts, minlength=4)
    assert stats.chisquare(counts, 40_000 * np.array([1, 6, 1, 1]) / 9).pvalue > 1e-3
    even = np.array([make("fim(cuts=tokens)", uneven).split(ids, rng) for _ in range(20_000)]).ravel()
    assert stats.chisquare(np.bincount(even, minlength=4)).pvalue > 1e-3


def test_a_rate_of_zero_is_next_token():
    window = text(20)
    one, other = (make(spec, PLAIN).corrupt(window, Key(0, 0, 3)) for spec in ("fim(rate=0)", "next-token"))
    assert one.inputs.tolist() == other.inputs.tolist() and one.visibility == other.visibility
    assert one.asks[0].where.tolist() == other.asks[0].where.tolist()
    assert one.asks[0].targets.tolist() == other.asks[0].targets.tolist() and one.asks[0].count == other.asks[0].count


def test_another_key_cuts_elsewhere_and_the_same_one_does_not():
    objective, window = make("fim(rate=1)", PLAIN), text(60)
    drawn = [objective.corrupt(window, Key(seed, 0, 0)).inputs.tolist() for seed in (0, 0, 1, 2)]
    assert drawn[0] == drawn[1] and len({tuple(ids) for ids in drawn}) == 3


@pytest.mark.parametrize("ids", [[BOS], [BOS, EOS], [EOS], [50], [BOS, 50]])
def test_short_texts(ids):
    example = make("fim(rate=1)", PLAIN).corrupt(Window(np.array(ids)), Key(0, 0, 0))
    form, prefix, middle, suffix = parts(example.inputs.tolist())
    assert form != "text" and prefix + middle + suffix == [token for token in ids if token == 50]


# --- questions and writing -----------------------------------------------------------------------------------

def test_a_question_is_left_to_right():
    hidden = np.isin(np.arange(len(IDS)), [3, 4, 8])
    question = make("fim", PLAIN).blank(IDS, hidden)
    assert question.inputs.tolist() == IDS.tolist() and question.asks[0].where.tolist() == [2, 3, 7]
    assert question.asks[0].targets.tolist() == IDS[hidden].tolist()


def test_one_blank_is_written_behind_its_surroundings():
    objective, (a, b, c) = make("fim", PLAIN), (int(token) for token in IDS[1:4])
    for ids, told in (([a, PLAIN.mask, b, c], [BOS, PRE, a, SUF, b, c, MID]),
                      ([BOS, a, PLAIN.mask, EOS], [BOS, PRE, a, SUF, MID]),
                      ([PLAIN.mask, c], [BOS, PRE, SUF, c, MID])):
        example = objective.infilling(np.array(ids))
        assert example.inputs.tolist() == told and example.visibility == causal and not example.asks
    assert objective.read_infilling(np.array([a, PLAIN.mask, b]), [60, 61, EOS, 62]) == [a, 60, 61, b]
    assert objective.read_infilling(np.array([a, PLAIN.mask, b]), []) == [a, b]
    assert objective.continuation(IDS[1:3]).inputs.tolist() == IDS[:3].tolist()


def test_the_format_of_a_blank_is_the_format_of_training():
    """What infilling begins, the middle and its end continue to exactly one training text."""
    objective = make("fim(rate=1, spm=0)", PLAIN)
    window = text(20)
    example = objective.corrupt(window, Key(0, 0, 0))
    _, prefix, middle, suffix = parts(example.inputs.tolist())
    begun = objective.infilling(np.array([*prefix, PLAIN.mask, *suffix]))
    assert [*begun.inputs.tolist(), *middle, EOS] == example.inputs.tolist()


@pytest.mark.parametrize("ids", [[50, 51], [PLAIN.mask, 50, PLAIN.mask]])
def test_other_than_one_blank_is_refused(ids):
    with pytest.raises(BothwaysError, match=rf"one <mask> of any length, and this text has {ids.count(PLAIN.mask)}"):
        make("fim", PLAIN).infilling(np.array(ids))


@pytest.mark.parametrize(("options", "words"), [
    ({"rate": 1.5}, "rate is 1.5, but must be a number from 0 to 1"), ({"spm": True}, "spm is True"),
    ({"cuts": "words"}, "cuts is 'words'"),
])
def test_bad_options_are_refused(options, words):
    with pytest.raises(BothwaysError, match=words):
        make({"name": "fim", **options}, PLAIN)
