"""T5's forms, each against its definition: exact on small texts, by their laws on many, and asked as trained."""

from __future__ import annotations

import collections
import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from bothways.batch import RESERVED_TOKENS, Key, Vocabulary, Window
from bothways.errors import BothwaysError
from bothways.objectives import make
from bothways.text.tokenizer import Tokenizer

RESERVED = len(RESERVED_TOKENS)
SIZE = RESERVED + 300
PLAIN = Vocabulary.plain(SIZE)
MASK, BOS, EOS, MARKS = PLAIN.mask, PLAIN.bos, PLAIN.eos, PLAIN.sentinels
HIDING = ["iid", "drop-tokens", "mass", "bert"]
FORMS = [*HIDING, "deshuffling", "prefix"]
BODY = np.arange(RESERVED, RESERVED + 100)
TEXT = np.concatenate(([BOS], BODY, [EOS]))


def of(form: str, **options: object):
    return make({"name": "text-to-text", "form": form, **options}, PLAIN)


def told(objective, ids: np.ndarray = TEXT, draws: int = 1, seed: int = 0):
    """(source, target, Example) of one text under many keys; the decoder's inputs are the target moved by one."""
    for index in range(draws):
        example = objective.corrupt(Window(ids, index=index), Key(seed, 0, index))
        source, target = example.source.inputs.numpy(), example.asks[0].targets.numpy()
        assert source[-1] == target[-1] == EOS and EOS not in [*source[:-1], *target[:-1]]
        assert example.inputs.tolist() == [BOS, *target[:-1].tolist()]
        assert example.asks[0].where.tolist() == list(range(len(target)))
        assert example.asks[0].count == len(target) and example.raw == len(ids)
        yield source[:-1], target[:-1], example


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("ids", [TEXT, TEXT[:-1], BODY], ids=["whole", "no end", "middle"])
def test_bos_stays_in_front_and_source_and_target_hold_the_whole_text(form, ids):
    for source, target, _ in told(of(form), ids, 30):
        assert (source[0] == BOS) == (ids[0] == BOS) and BOS not in [*source[1:], *target]
        if form != "bert":  # whose random tokens are of other texts
            assert {*source, *target} - {BOS, MASK, *MARKS} == set(BODY)
        if form in ("mass", "bert", "deshuffling"):
            assert target.tolist() == BODY.tolist()


def test_iid_puts_each_run_behind_one_sentinel():
    for source, target, _ in told(of("iid", rate=0.3), TEXT[:81], 100):
        spans, rebuilt = {}, []
        for token in target:
            if token in MARKS:
                current = spans.setdefault(int(token), [])
            else:
                current.append(int(token))
        assert list(spans) == list(MARKS[:len(spans)]) and all(spans.values())
        places = np.flatnonzero(np.isin(source, MARKS))
        assert source[places].tolist() == list(spans) and not (np.diff(places) == 1).any()  # merged where they touch
        for token in source[1:]:
            rebuilt += spans.get(int(token), [int(token)])
        assert rebuilt == BODY[:80].tolist()


def test_iid_hides_each_token_independently():
    """The number hidden is binomial and so is its spread; a span of exactly `rate` would have none."""
    hidden = np.array([[not token for token in np.isin(BODY, source)]
                       for source, _, _ in told(of("iid"), TEXT, 2000)])
    counts = hidden.sum(1)
    assert counts.mean() == pytest.approx(15, abs=0.35) and counts.var() == pytest.approx(100 * 0.15 * 0.85, rel=0.1)
    assert np.abs(hidden.mean(0) - 0.15).max() < 0.035
    both = (hidden[:, :-1] & hidden[:, 1:]).mean()
    assert both == pytest.approx(0.15 ** 2, abs=0.002)


def test_iid_spans_have_geometric_lengths_of_mean_about_one():
    """Table 7's "i.i.d." row: runs of Bernoulli tokens, mean 1 / (1 - rate)."""
    lengths = []
    for _, target, _ in told(of("iid", rate=0.3), TEXT[:81], 800):
        lengths += [int(length) for length in np.diff([*np.flatnonzero(np.isin(target, MARKS)), len(target)]) - 1]
    assert np.mean(lengths) == pytest.approx(1 / 0.7, abs=0.02)
    assert np.mean(np.array(lengths) == 1) == pytest.approx(0.7, abs=0.01)


def test_drop_tokens_leaves_no_trace_and_asks_for_what_it_dropped_in_order():
    total = 0
    for source, target, _ in told(of("drop-tokens"), TEXT, 300):
        assert sorted([*source[1:], *target]) == BODY.tolist()
        assert (np.diff(source[1:]) > 0).all() and (np.diff(target) > 0).all()
        total += len(target)
    assert total / 30_000 == pytest.approx(0.15, abs=0.007)


def test_mass_puts_a_mask_at_every_hidden_token():
    masks = 0
    for source, _, _ in told(of("mass"), TEXT, 300):
        assert len(source) == 101 and ((source[1:] == BODY) | (source[1:] == MASK)).all()
        masks += (source == MASK).sum()
    assert masks / 30_000 == pytest.approx(0.15, abs=0.007)


@pytest.mark.parametrize("replaced, shares", [(None, (0.9, 0.1)), ("80-10-10", (0.8, 0.1))])
def test_bert_replaces_some_by_random_tokens(replaced, shares):
    masks = others = 0
    for source, _, _ in told(of("bert", **({} if replaced is None else {"replace": replaced})), TEXT, 1500):
        masks += (source[1:] == MASK).sum()
        others += ((source[1:] != BODY) & (source[1:] != MASK)).sum()
        assert not PLAIN.special[source[1:][source[1:] != MASK]].any()
    assert masks / 150_000 == pytest.approx(0.15 * shares[0], abs=0.003)
    assert others / 150_000 == pytest.approx(0.15 * shares[1], abs=0.0015)


def test_deshuffling_shows_every_order_equally():
    ids = np.array([BOS, RESERVED, RESERVED + 1, RESERVED + 2, EOS])
    counts = collections.Counter(tuple(source[1:].tolist()) for source, _, _ in told(of("deshuffling"), ids, 3000))
    assert set(counts) == set(itertools.permutations(ids[1:-1].tolist()))
    assert stats.chisquare(list(counts.values())).pvalue > 1e-3


def test_a_prefix_ends_at_every_place_but_the_ends_equally():
    ids, cuts = TEXT[:11], collections.Counter()
    for source, target, _ in told(of("prefix"), ids, 3600):
        assert [*source, *target] == ids.tolist() and len(source) > 1 and len(target) > 0
        cuts[len(target)] += 1
    assert set(cuts) == set(range(1, 10)) and stats.chisquare(list(cuts.values())).pvalue > 1e-3


@pytest.mark.parametrize("form", FORMS)
def test_the_same_key_gives_the_same_example_and_another_does_not(form):
    objective = of(form)
    again = make(objective.describe(), PLAIN)
    assert again == objective
    one, two, other = ([(source.tolist(), target.tolist()) for source, target, _ in told(made, TEXT, 10, seed)]
                       for made, seed in ((objective, 0), (again, 0), (objective, 1)))
    assert one == two != other


def test_the_table_of_forms_in_the_documentation_is_what_they_make():
    page = (Path(__file__).parents[2] / "docs" / "objectives.md").read_text(encoding="utf-8")
    text = "The cat sat on the mat and looked out of the window at the rain"
    tokenizer = Tokenizer.words(text)
    vocabulary = tokenizer.vocabulary
    ids = np.array([vocabulary.bos, *tokenizer.encode(text), vocabulary.eos])
    assert f'"{text}" with `--seed 43`' in page
    for form in FORMS:
        example = make({"name": "text-to-text", "form": form}, vocabulary).corrupt(Window(ids), Key(43, 0, 0))
        source, target = (" ".join(tokenizer.pieces(side)).removeprefix("<bos> ").removesuffix(" <eos>")
                          for side in (example.source.inputs.tolist(), example.asks[0].targets.tolist()))
        assert f"| `{form}` | {source} | {target} |" in page.replace("`<", "<").replace(">`", ">")


# --- questions -----------------------------------------------------------------------------------------------

def test_the_form_of_each_question():
    ids = np.array([BOS, *BODY[:6], EOS])
    a = ids.tolist()
    hidden = np.isin(np.arange(8), [2, 3, 5])
    expected = {
        "iid": ([BOS, a[1], MARKS[0], a[4], MARKS[1], a[6], EOS], [BOS, MARKS[0], a[2], a[3], MARKS[1], a[5]],
                [1, 2, 4]),
        "drop-tokens": ([BOS, a[1], a[4], a[6], EOS], [BOS, a[2], a[3]], [0, 1, 2]),
        "mass": ([BOS, a[1], MASK, MASK, a[4], MASK, a[6], EOS], a[:-1], [1, 2, 4]),
        "bert": ([BOS, a[1], MASK, MASK, a[4], MASK, a[6], EOS], a[:-1], [1, 2, 4]),
        "prefix": ([BOS, a[1], EOS], [BOS, *a[2:-1]], [0, 1, 3]),
    }
    for form, (source, inputs, where) in expected.items():
        question = of(form).blank(ids, hidden)
        assert question.source.inputs.tolist() == source, form
        assert question.inputs.tolist() == inputs and question.asks[0].where.tolist() == where, form
        assert question.asks[0].targets.tolist() == ids[hidden].tolist()
    question = of("deshuffling").blank(ids, hidden)
    assert sorted(question.source.inputs.tolist()) == sorted([BOS, a[1], a[4], a[6], EOS])
    assert question.source.inputs[0] == BOS and question.source.inputs[-1] == EOS
    assert question.inputs.tolist() == a[:-1] and question.asks[0].where.tolist() == [1, 2, 4]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("places", [[9], [4, 5, 6], [1, 3, 7, 8, 20], range(12, 22), [], range(1, 22), [21]],
                         ids=["single", "run", "scattered", "suffix", "nothing", "all", "end"])
def test_a_question_asks_for_the_hidden_tokens_and_shows_none_of_them(form, places):
    ids = np.concatenate(([BOS], BODY[:20], [EOS]))
    hidden = np.isin(np.arange(22), list(places))
    question = of(form).blank(ids, hidden)
    (ask,) = question.asks
    assert ask.targets.tolist() == ids[hidden].tolist() and ask.count == len(places)
    for place, target in zip(ask.where.tolist(), ask.targets.tolist(), strict=True):
        assert target not in question.inputs[:place + 1].tolist()
        assert target == EOS or target not in question.source.inputs.tolist()
    told = question.inputs.tolist()
    for place, target in zip(ask.where.tolist(), ask.targets.tolist(), strict=True):
        assert place + 1 == len(told) or told[place + 1] == target  # teacher forcing


@pytest.mark.parametrize("form", ["iid", "drop-tokens", "deshuffling", "prefix"])
def test_writing_on_is_the_question_with_a_hidden_end(form):
    """So a likelihood of an end, and a network tuned on such questions, speak of what it would write."""
    objective = of(form)
    ids = np.concatenate(([BOS], BODY[:20], [EOS]))
    question = objective.blank(ids, np.arange(22) >= 15)
    written = objective.continuation(ids[1:15])
    assert written.source.inputs.tolist() == question.source.inputs.tolist()
    assert written.inputs.tolist() == question.inputs.tolist()[:int(question.asks[0].where[0]) + 1]
    assert objective.stops == ({EOS, MARKS[1]} if form == "iid" else {EOS})


def test_filling_blanks():
    a, b, c = (int(token) for token in BODY[:3])
    ids = np.array([a, MASK, b, MASK, c])
    first, second = MARKS[:2]
    assert of("iid").infilling(ids).source.inputs.tolist() == [BOS, a, first, b, second, c, EOS]
    assert of("iid").read_infilling(ids, [first, 90, second, 91, 92, EOS]) == [a, 90, b, 91, 92, c]
    for form in ("mass", "bert"):
        assert of(form).infilling(ids).source.inputs.tolist() == [BOS, *ids.tolist(), EOS]
        assert of(form).read_infilling(ids, [a, 90, b, 91, c, EOS, 7]) == [a, 90, b, 91, c]
    assert of("drop-tokens").infilling(ids[:3]).source.inputs.tolist() == [BOS, a, b, EOS]
    assert of("drop-tokens").read_infilling(ids[:3], [90, 91, EOS]) == [a, 90, 91, b]
    with pytest.raises(BothwaysError, match="has 2 blanks, but"):
        of("drop-tokens").infilling(ids)
    for form in ("deshuffling", "prefix"):
        assert of(form).decoding == "left_to_right"
        with pytest.raises(BothwaysError, match=f"form '{form}' never read a blank"):
            of(form).infilling(ids)


@pytest.mark.parametrize("form", FORMS)
def test_the_profile_is_what_examples_measure(form):
    objective = of(form)
    ids = np.random.default_rng(0).integers(RESERVED, SIZE, 130)
    examples = [objective.corrupt(Window(ids, index=i), Key(0, 0, i)) for i in range(2000)]
    assert np.mean([len(one) for one in examples]) / 130 == pytest.approx(objective.profile.inputs, abs=0.02)
    assert np.mean([len(one.asks[0].targets) for one in examples]) / 130 == \
        pytest.approx(objective.profile.asked, abs=0.02)
    assert np.mean([len(one.source) for one in examples]) / 130 == \
        pytest.approx(objective.profile.source_inputs, abs=0.02)


# --- refusals ------------------------------------------------------------------------------------------------

def test_iid_never_has_more_spans_than_sentinels(monkeypatch):
    """Where that is rare the draw is repeated, elsewhere the text is refused at once, not in the middle of a run."""
    few = replace(PLAIN, ids={name: i for name, i in PLAIN.ids.items() if i not in MARKS[9:]})
    assert len(few.sentinels) == 9
    objective = make("text-to-text(rate=0.5)", few)
    with monkeypatch.context() as patch:  # texts of 36 that exceed 9 in one draw of three
        patch.setattr("bothways.objectives.text_to_text.RARE", -1.0)
        spans = [sum(int(token) in few.sentinels for token in source)
                 for source, _, _ in told(objective, BODY[:36], 300)]
    assert max(spans) == 9 and min(spans) < 7
    with pytest.raises(BothwaysError, match="may have 15\\.6 spans in the form 'iid', but the tokenizer has only 9"):
        objective.corrupt(Window(BODY[:37]), Key(0, 0, 0))
    assert len(of("iid").corrupt(Window(TEXT), Key(0, 0, 0)))
    with pytest.raises(BothwaysError, match="another rate \\(now 0\\.15\\), or span-corruption"):
        of("iid").corrupt(Window(np.resize(BODY, 256)), Key(0, 0, 0))


@pytest.mark.parametrize("options, says", [
    ({"form": "shuffling"}, "form is 'shuffling' \\(did you mean 'deshuffling'"),
    ({"form": "prefix", "rate": 0.3}, "rate is 0.3, but the form 'prefix' does not use it: leave rate out"),
    ({"form": "mass", "replace": "80-10-10"}, "replace is '80-10-10', but the form 'mass' .* choose the form bert"),
    ({"form": "bert", "replace": "90-10"}, "three percentages"),
    ({"rate": 0}, "rate is 0, but must be a number between 0 and 1"),
])
def test_mistakes_are_one_sentence(options, says):
    with pytest.raises(BothwaysError, match=says) as error:
        make({"name": "text-to-text", **options}, PLAIN)
    assert "\n" not in str(error.value)


def test_a_text_that_cannot_be_cut_is_refused():
    with pytest.raises(BothwaysError, match="needs one of at least 2 tokens, not 1: use longer texts"):
        of("prefix").corrupt(Window(np.array([BOS, RESERVED, EOS])), Key(0, 0, 0))
