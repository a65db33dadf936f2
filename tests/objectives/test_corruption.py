"""The numbers of the papers, on enough tokens to fail when they are wrong."""

from __future__ import annotations

import collections
import itertools
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from bothways.batch import RESERVED_TOKENS, Key, Vocabulary, Window
from bothways.errors import BothwaysError
from bothways.objectives import make
from bothways.objectives.noise import collapse, composition, permuted_sentences, place_spans, poisson_lengths, runs

RESERVED = len(RESERVED_TOKENS)
SIZE = 2000
PLAIN = Vocabulary.plain(SIZE)
WORDY = replace(PLAIN, starts_word=~PLAIN.special & (np.arange(SIZE) % 3 != 0),
                ends_sentence=~PLAIN.special & (np.arange(SIZE) % 10 == 0))


def text(length: int, index: int = 0, begin: bool = True, end: bool = True, vocabulary: Vocabulary = PLAIN) -> Window:
    """A window of ordinary tokens, with `<bos>` and `<eos>` unless told otherwise."""
    ids = np.random.default_rng((7, index)).integers(RESERVED, vocabulary.size, size=length)
    if begin:
        ids[0] = vocabulary.bos
    if end:
        ids[-1] = vocabulary.eos
    return Window(ids, document=index, index=index)


def corrupted(spec: str, windows: list[Window], vocabulary: Vocabulary = PLAIN, progress: float = 0.0):
    objective = make(spec, vocabulary)
    return [(window, objective.corrupt(window, Key(1, 0, window.index, progress))) for window in windows]


WINDOWS = [text(130, i) for i in range(1600)]
ORDINARY = 128 * len(WINDOWS)


@pytest.mark.parametrize("rate", [0.15, 0.4])
@pytest.mark.parametrize("spec", ["masked(rate={}, replace=all)", "masked-next(rate={})",
                                  "masked(rate={}, whole_words=True)", "masked-next(rate={}, whole_words=True)"])
def test_the_rate_is_the_share_of_ordinary_tokens_asked_for(spec, rate):
    asked = sum(len(example.asks[0].targets) for _, example in corrupted(spec.format(rate), WINDOWS, WORDY))
    assert asked / ORDINARY == pytest.approx(rate, abs=0.002)


def test_eighty_ten_ten():
    counts = collections.Counter()
    for window, example in corrupted("masked", WINDOWS * 4):
        where = example.asks[0].where.numpy()
        now, then = example.inputs.numpy()[where], window.ids[where]
        counts["masked"] += int((now == PLAIN.mask).sum())
        counts["kept"] += int((now == then).sum())
        counts["random"] += int(((now != then) & (now != PLAIN.mask)).sum())
        untouched = np.delete(np.arange(len(window.ids)), where)
        assert (example.inputs.numpy()[untouched] == window.ids[untouched]).all()
    total = sum(counts.values())
    assert total > 100_000
    assert counts["masked"] / total == pytest.approx(0.8, abs=0.004)
    assert counts["random"] / total == pytest.approx(0.1, abs=0.003)
    assert counts["kept"] / total == pytest.approx(0.1, abs=0.003)


def test_random_replacements_are_ordinary_and_uniform():
    small = Vocabulary.plain(RESERVED + 10)
    windows = [text(130, i, vocabulary=small) for i in range(400)]
    drawn = np.concatenate([example.inputs.numpy()[example.asks[0].where.numpy()] for _, example in
                            corrupted("masked(rate=0.9, replace=0-100-0)", windows, small)])
    assert (drawn >= RESERVED).all()
    assert stats.chisquare(np.bincount(drawn - RESERVED, minlength=10)).pvalue > 1e-3


@pytest.mark.parametrize("replace_by, shares", [("100-0-0", (1, 0, 0)), ("0-20-80", (0, .2, .8))])
def test_other_shares(replace_by, shares):
    masked, same, total = 0, 0, 0
    for window, example in corrupted(f"masked(replace='{replace_by}')", WINDOWS):
        now, then = example.inputs.numpy()[example.asks[0].where], window.ids[example.asks[0].where]
        masked, same, total = masked + (now == PLAIN.mask).sum(), same + (now == then).sum(), total + len(now)
    assert masked / total == pytest.approx(shares[0], abs=0.01)
    assert same / total == pytest.approx(shares[2], abs=0.01)


@pytest.mark.parametrize("spec", ["masked", "masked-next"])
def test_reserved_tokens_stay_and_every_window_asks_something(spec):
    for _, example in corrupted(f"{spec}(rate=0.01)", [text(8, i) for i in range(300)]):
        assert len(example.asks[0].targets) >= 1
        assert not PLAIN.special[example.asks[0].targets.numpy()].any()
        assert example.inputs[0] == PLAIN.bos and example.inputs[-1] == PLAIN.eos
        assert example.asks[0].count == len(example.asks[0].targets)


def test_each_place_is_selected_as_often_as_any_other():
    counts = np.zeros(130)
    for _, example in corrupted("masked(rate=0.5)", WINDOWS):
        counts[example.asks[0].where.numpy()] += 1
    assert counts[0] == counts[-1] == 0
    assert np.abs(counts[1:-1] / len(WINDOWS) - 0.5).max() < 0.06


def test_whole_words_are_hidden_whole():
    for window, example in corrupted("masked(whole_words=True, replace=all)", WINDOWS[:300], WORDY):
        hidden = example.inputs.numpy() == WORDY.mask
        for place in range(2, 129):
            if not WORDY.starts_word[window.ids[place]]:
                assert hidden[place] == hidden[place - 1]


def test_a_rate_schedule_moves_with_progress():
    for progress, rate in ((0.0, 0.3), (0.5, 0.225), (1.0, 0.15), (2.0, 0.15)):
        asked = sum(len(example.asks[0].targets) for _, example in
                    corrupted("masked-next(rate=(0.3, 0.15))", WINDOWS, progress=progress))
        assert asked / ORDINARY == pytest.approx(rate, abs=0.002)


# --- spans ---------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("raw, inputs, targets", [(568, 512, 114), (284, 256, 58), (141, 128, 29)])
def test_t5_lengths(raw, inputs, targets):
    """The lengths the released code computes for density 0.15 and mean span 3."""
    example = make("span-corruption", PLAIN).corrupt(text(raw, begin=False, end=False), Key(0, 0, 0))
    assert (len(example.source), len(example.asks[0].targets)) == (inputs, targets)


def test_compositions_are_uniform_over_all_ways_to_cut():
    rng = np.random.default_rng(0)
    counts = collections.Counter(tuple(composition(7, 3, rng).tolist()) for _ in range(15_000))
    ways = [cut for cut in itertools.product(range(1, 6), repeat=3) if sum(cut) == 7]
    assert set(counts) == set(ways)
    assert stats.chisquare([counts[cut] for cut in ways]).pvalue > 1e-3
    assert composition(5, 1, rng).tolist() == [5]


def test_span_corruption_hides_its_rate_in_spans_that_begin_after_a_kept_one():
    lengths, hidden = [], 0
    for i in range(400):
        window = text(141, i, begin=False, end=False)
        example = make("span-corruption", PLAIN).corrupt(window, Key(0, 0, i))
        source = example.source.inputs.numpy()
        sentinels = np.flatnonzero(np.isin(source, PLAIN.sentinels))
        # a kept token first, spans never touch, noise last, and one closing <eos>
        assert sentinels[0] > 0 and (np.diff(sentinels) > 1).all() and sentinels[-1] == len(source) - 2
        assert source[sentinels].tolist() == list(PLAIN.sentinels[:len(sentinels)])
        assert source[-1] == PLAIN.eos
        target = example.asks[0].targets.numpy()
        marks = np.flatnonzero(np.isin(target, PLAIN.sentinels))
        lengths += np.diff([*marks, len(target) - 1]).tolist()
        hidden += int((~np.isin(target, PLAIN.sentinels)).sum()) - 1
    assert hidden / (400 * 141) == pytest.approx(0.15, abs=0.002)
    # every window has round(21 / 3) = 7 spans; in a uniform composition of 21 a part exceeds k with the chance that
    # none of the 6 cuts among the 20 gaps is one of the next k
    lengths = np.array(lengths) - 1
    beyond = np.array([stats.hypergeom.pmf(0, 20, 6, k) for k in range(8)])
    assert lengths.mean() == pytest.approx(3, abs=1e-9)
    assert np.abs(np.bincount(lengths, minlength=8)[1:8] / len(lengths) + np.diff(beyond)).max() < 0.02


def test_rolled_spans_hide_every_place_but_bos_equally():
    counts, windows = np.zeros(22), 3000
    for i in range(windows):
        ids = np.array([PLAIN.bos, *range(RESERVED, RESERVED + 20), PLAIN.eos])
        source = make("span-corruption(roll=true)", PLAIN).corrupt(Window(ids, index=i), Key(0, 0, i)).source.inputs
        counts += ~np.isin(ids, source.numpy())
    assert counts[0] == counts[-1] == 0  # <bos> stays, <eos> closes
    assert np.abs(counts[1:-1] / windows - 0.15).max() < 0.03


@pytest.mark.parametrize("spec", ["span-corruption(rate=0.3)", "span-corruption(rate=0.3, roll=true)"])
def test_text_and_target_of_span_corruption_rebuild_the_window(spec):
    objective = make(spec, PLAIN)
    for i in range(100):
        window = text(60, i, begin=i % 2 == 0, end=i % 3 == 0)
        example = objective.corrupt(window, Key(0, 0, i))
        rebuilt, spans = [], {}
        for token in example.asks[0].targets.tolist()[:-1]:
            if token in PLAIN.sentinels:
                current = spans.setdefault(token, [])
            else:
                current.append(token)
        for token in example.source.inputs.tolist()[:-1]:
            rebuilt += spans.get(token, [token])
        assert rebuilt == [token for token in window.ids.tolist() if token != PLAIN.eos]
        assert example.inputs.tolist() == [PLAIN.bos, *example.asks[0].targets.tolist()[:-1]]
        assert example.asks[0].targets[-1] == PLAIN.eos
        assert example.raw == 60


def test_poisson_lengths_are_poisson():
    rng = np.random.default_rng(1)
    draws = [poisson_lengths(3000, 3.0, rng) for _ in range(60)]
    assert all(lengths.sum() == 3000 for lengths in draws)
    lengths = np.concatenate([lengths[:-1] for lengths in draws])  # the last one is cut to fit
    assert lengths.mean() == pytest.approx(3.0, abs=0.03)
    counts = np.bincount(np.minimum(lengths, 9), minlength=10)
    expected = np.append(stats.poisson.pmf(np.arange(9), 3), stats.poisson.sf(8, 3)) * len(lengths)
    assert stats.chisquare(counts, expected).pvalue > 1e-3


def test_infilling_hides_its_rate_and_inserts_masks_where_nothing_is_missing():
    objective = make("denoising(noises=infilling)", PLAIN)
    kept, masks, windows = 0, 0, 400
    for i in range(windows):
        ids = np.random.default_rng(i).permutation(np.arange(RESERVED, SIZE))[:130]
        ids[0], ids[-1] = PLAIN.bos, PLAIN.eos
        source = objective.corrupt(Window(ids, index=i), Key(0, 0, i)).source.inputs.numpy()
        assert source[0] == PLAIN.bos and source[-1] == PLAIN.eos
        hidden = source == PLAIN.mask
        kept, masks = kept + int((~hidden).sum()) - 2, masks + int(hidden.sum())
        # spans do not touch, and what is left is the text in its order
        assert not (hidden[1:] & hidden[:-1]).any()
        places = [ids.tolist().index(token) for token in source[~hidden].tolist()]
        assert places == sorted(places)
    assert 1 - kept / (128 * windows) == pytest.approx(0.3, abs=0.002)
    # 38.4 tokens in spans of mean 3: about one more span than the quotient, for the one that is cut, and zeros
    assert masks / windows == pytest.approx(38.4 / 3 + 0.65, abs=0.35)


def test_places_of_spans_are_uniform():
    rng = np.random.default_rng(2)
    lengths = np.array([2, 0, 1])
    counts = collections.Counter()
    for _ in range(12_000):
        starts, kept = place_spans(4, lengths, rng)
        assert kept.tolist() == [2, 0, 1]
        counts[tuple((starts - [0, 2, 2]).tolist())] += 1
    assert set(counts) == set(itertools.combinations(range(5), 3))
    assert stats.chisquare(list(counts.values())).pvalue > 1e-3


def test_collapse_inserts_replaces_and_keeps_order():
    ids = np.arange(100, 106)
    out = collapse(ids, np.array([0, 2, 4, 6]), np.array([0, 2, 1, 0]), np.array([1, 2, 3, 4]))
    assert out.tolist() == [1, 100, 101, 2, 3, 105, 4]


def test_runs():
    starts, ends = runs(np.array([1, 1, 0, 0, 1, 0, 1], bool))
    assert (starts.tolist(), ends.tolist()) == ([0, 4, 6], [2, 5, 7])
    assert [part.tolist() for part in runs(np.zeros(3, bool))] == [[], []]


def test_all_sentences_are_permuted_uniformly():
    """Three sentences: each of the six orders equally often, and no token lost."""
    ends = [RESERVED + (-RESERVED) % 10]  # an id divisible by 10
    one, two, three = ([RESERVED + 1, ends[0]], [RESERVED + 2, RESERVED + 3, ends[0]], [RESERVED + 5, RESERVED + 7])
    rng = np.random.default_rng(0)
    text_ids = np.array(one + two + three)
    counts = collections.Counter(tuple(permuted_sentences(text_ids, WORDY.ends_sentence, rng).tolist())
                                 for _ in range(6000))
    assert set(counts) == {(*a, *b, *c) for a, b, c in itertools.permutations([one, two, three])}
    assert stats.chisquare(list(counts.values())).pvalue > 1e-3


def test_denoising_asks_for_the_whole_original_text():
    objective = make("denoising", WORDY)
    for i in range(60):
        window = text(64, i, begin=i % 2 == 0, end=i % 3 == 0)
        example = objective.corrupt(window, Key(0, 0, i))
        told = window.ids.tolist()[1:] if i % 2 == 0 else window.ids.tolist()
        assert example.asks[0].targets.tolist() == told
        assert example.inputs.tolist() == [WORDY.bos, *told[:-1]]
        assert example.asks[0].where.tolist() == list(range(len(told)))
        left = [token for token in example.source.inputs.tolist() if token != WORDY.mask]
        assert not collections.Counter(left) - collections.Counter(window.ids.tolist())


# --- diffusion -----------------------------------------------------------------------------------------------

def test_diffusion_times_are_spread_evenly_and_differ_between_epochs():
    objective = make("diffusion", PLAIN)
    times = np.sort([objective.time(Key(3, 0, i)) for i in range(1000)])
    assert np.abs(times - (np.arange(1000) + 0.5) / 1000).max() < 0.004  # independent draws would miss by about 0.03
    assert np.diff(times).max() < 0.003
    assert objective.time(Key(3, 1, 0)) != objective.time(Key(3, 0, 0)) != objective.time(Key(4, 0, 0))
    assert times[0] >= 0.001 and times[-1] <= 1


def test_each_time_alone_is_uniform_over_seeds():
    times = [make("diffusion(smallest_time=0.000001)", PLAIN).time(Key(seed, 0, 5)) for seed in range(600)]
    assert stats.kstest(times, "uniform").pvalue > 1e-3


def test_diffusion_hides_with_probability_t_and_weighs_by_its_inverse():
    objective = make("diffusion", PLAIN)
    weighted = []
    for i in range(1500):
        window, key = text(65, i), Key(0, 0, i)
        example, time = objective.corrupt(window, key), objective.time(key)
        ask = example.asks[0]
        assert ask.count == 64  # every token but <bos>, <eos> too
        assert ask.weights.numpy() == pytest.approx(1 / time)
        assert (example.inputs.numpy()[ask.where] == PLAIN.mask).all() and example.inputs[0] == PLAIN.bos
        weighted.append(ask.weights.sum().item() / ask.count)
        assert abs(len(ask.where) - 64 * time) < 5 * np.sqrt(64 * time * (1 - time)) + 1
    # E[(1/t) * hidden] is the number of tokens: the bound weighs every token once
    assert np.mean(weighted) == pytest.approx(1, abs=0.05)


def test_a_window_where_nothing_was_hidden_asks_nothing_and_still_counts():
    example = make("diffusion", PLAIN).noised(text(8).ids, 1e-9, np.random.default_rng(0))
    assert len(example.asks[0].where) == 0 and example.asks[0].count == 7


# --- what depends on what ------------------------------------------------------------------------------------

ALL = ["next-token", "masked", "masked(whole_words=True)", "masked-next", "span-corruption", "denoising", "diffusion",
       "next-token + masked-next", "0.25 next-token then 0.75 masked", "prefix", "ul2", "ul2(towers=2, roll=true)",
       "glm", "glm(levels=('token', 'sentence', 'document'), places=one)", "fim", "permuted", "permuted(k=1)",
       "block-diffusion(block=8)", "diffusion(schedule=cosine, cut=0.5)",
       "text-to-text", "text-to-text(form=bert)", "text-to-text(form=deshuffling)", "text-to-text(form=prefix)"]


def same(one, other):
    """Two Examples are equal to the last bit."""
    if (one is None) or (other is None):
        return one is other
    return (one.inputs.tolist() == other.inputs.tolist() and one.visibility == other.visibility
            and one.raw == other.raw and same(one.source, other.source)
            and {k: v.tolist() for k, v in one.fields.items()} == {k: v.tolist() for k, v in other.fields.items()}
            and [(a.where.tolist(), a.targets.tolist(), None if a.weights is None else a.weights.tolist(), a.count,
                  a.part, a.coefficient) for a in one.asks]
            == [(a.where.tolist(), a.targets.tolist(), None if a.weights is None else a.weights.tolist(), a.count,
                 a.part, a.coefficient) for a in other.asks])


@pytest.mark.parametrize("spec", ALL)
def test_the_same_key_gives_the_same_example_in_any_order(spec):
    objective, windows = make(spec, WORDY), [text(40, i) for i in range(12)]
    forward = [objective.corrupt(window, Key(5, 2, window.index, 0.5)) for window in windows]
    again = make(objective.describe(), WORDY)
    backward = [again.corrupt(window, Key(5, 2, window.index, 0.5)) for window in reversed(windows)]
    assert all(same(one, other) for one, other in zip(forward, reversed(backward), strict=True))


@pytest.mark.parametrize("spec", [spec for spec in ALL if spec != "next-token"])
def test_another_seed_epoch_or_index_gives_another_example(spec):
    objective, window = make(spec, WORDY), text(100)
    base = [objective.corrupt(window, Key(5, 2, index, 0.9)) for index in range(20)]
    for seed, epoch, shift in ((6, 2, 0), (5, 3, 0), (5, 2, 100)):
        other = [objective.corrupt(window, Key(seed, epoch, index + shift, 0.9)) for index in range(20)]
        assert not all(same(one, two) for one, two in zip(base, other, strict=True))


@pytest.mark.parametrize("spec", ["next-token", "masked", "masked(replace=all, whole_words=true)", "masked-next",
                                  "masked-next(whole_words=true)", "diffusion"])
def test_what_is_asked_is_the_token_of_the_window_that_the_mode_speaks_of(spec):
    """A state at place k is asked for token k where the mode predicts here, and for k + 1 where it predicts next."""
    objective = make(spec, WORDY)
    (mode,) = objective.modes
    for i in range(40):
        window = text(40, i, begin=i % 2 == 0)
        example = objective.corrupt(window, Key(0, 0, i))
        assert (example.asks[0].where >= 0).all()
        spoken_of = example.asks[0].where.numpy() + (mode.predicts == "next")
        assert example.asks[0].targets.tolist() == window.ids[spoken_of].tolist()
        assert len(example) == example.raw == 40 and example.visibility == mode.visibility
        changed = np.flatnonzero(example.inputs.numpy() != window.ids)
        assert set(changed.tolist()) <= set(spoken_of.tolist())
        if spec not in ("next-token", "masked"):
            assert set(changed.tolist()) == set(spoken_of.tolist())


@pytest.mark.parametrize("spec", ALL)
def test_the_window_itself_is_not_changed(spec):
    window = text(50)
    before = window.ids.copy()
    make(spec, WORDY).corrupt(window, Key(0, 0, 1, 0.9))
    assert (window.ids == before).all()


def test_too_many_spans_for_the_sentinels_are_refused():
    with pytest.raises(BothwaysError, match="32 sentinels: use shorter windows, a lower rate"):
        make("span-corruption", PLAIN).corrupt(text(1000), Key(0, 0, 0))
