"""BART's five noises, alone and together: exact on small texts, and their laws on many draws."""

from __future__ import annotations

import collections
import itertools
import json
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from bothways.batch import RESERVED_TOKENS, Key, Vocabulary, Window, pack
from bothways.errors import BothwaysError
from bothways.objectives import make

RESERVED = len(RESERVED_TOKENS)
SIZE = RESERVED + 200
PLAIN = Vocabulary.plain(SIZE)
STOP = RESERVED + 199
WORDY = replace(PLAIN, ends_sentence=np.arange(SIZE) == STOP)
MASK, BOS, EOS = PLAIN.mask, PLAIN.bos, PLAIN.eos
NOISES = ["masking", "deletion", "infilling", "sentence-permutation", "rotation"]
BODY = np.arange(RESERVED, RESERVED + 100)
TEXT = np.concatenate(([BOS], BODY, [EOS]))


def sources(spec: str, draws: int, ids: np.ndarray = TEXT, vocabulary: Vocabulary = WORDY):
    """The source of the same text under many keys, its <bos> and <eos> taken off."""
    objective = make(spec, vocabulary)
    for index in range(draws):
        source = objective.corrupt(Window(ids, index=index), Key(0, 0, index)).source.inputs.numpy()
        assert source[0] == BOS and source[-1] == EOS
        yield source[1:-1]


def sentences(*lengths: int) -> list[list[int]]:
    """Sentences of distinct words, each closed by a full stop."""
    words = iter(range(RESERVED, STOP))
    return [[*itertools.islice(words, length), STOP] for length in lengths]


def test_masking_hides_each_place_equally_behind_a_mask_of_its_own():
    counts = np.zeros(100)
    for source in sources("denoising(noises=masking)", 1000):
        assert len(source) == 100 and (source == MASK).sum() == 30
        assert (source[source != MASK] == BODY[source != MASK]).all()
        counts += source == MASK
    assert np.abs(counts / 1000 - 0.3).max() < 0.06
    assert stats.chisquare(counts).pvalue > 1e-3


def test_deletion_leaves_no_trace_and_takes_each_place_equally():
    counts = np.zeros(100)
    for source in sources("denoising(noises=deletion, rate=0.2)", 1000):
        assert len(source) == 80 and (np.diff(source) > 0).all() and np.isin(source, BODY).all()
        counts += ~np.isin(BODY, source)
    assert np.abs(counts / 1000 - 0.2).max() < 0.06


def test_a_share_that_is_no_whole_number_is_right_on_average():
    taken = [7 - len(source) for source in sources("denoising(noises=deletion)", 4000, np.append(TEXT[:8], EOS))]
    assert set(taken) == {2, 3} and np.mean(taken) == pytest.approx(2.1, abs=0.03)


def test_rotation_begins_with_every_token_equally_and_keeps_the_order():
    counts = collections.Counter()
    for source in sources("denoising(noises=rotation)", 4000, np.append(TEXT[:9], EOS)):
        first = int(source[0]) - RESERVED
        assert source.tolist() == [*range(RESERVED + first, RESERVED + 8), *range(RESERVED, RESERVED + first)]
        counts[first] += 1
    assert set(counts) == set(range(8)) and stats.chisquare(list(counts.values())).pvalue > 1e-3


def test_every_order_of_the_sentences_is_as_likely_and_each_stays_whole():
    three = sentences(1, 3, 2)
    ids = np.array([BOS, *itertools.chain(*three), EOS])
    counts = collections.Counter(tuple(source.tolist())
                                 for source in sources("denoising(noises=sentence-permutation)", 3000, ids))
    assert set(counts) == {(*itertools.chain(*order),) for order in itertools.permutations(three)}
    assert stats.chisquare(list(counts.values())).pvalue > 1e-3


def test_a_window_of_one_sentence_stays_as_it_is():
    (one,) = sentences(6)
    for text in (one, one[:-1]):
        ids = np.array([BOS, *text, EOS])
        assert all(source.tolist() == text for source in sources("denoising(noises=sentence-permutation)", 20, ids))


def test_two_lists_of_noises_come_in_their_order():
    """Rotating first moves whole sentences apart; permuting first does not."""
    ids = np.array([BOS, *itertools.chain(*sentences(2, 2)), EOS])
    first = {tuple(source) for source in sources("denoising(noises='rotation, sentence-permutation')", 400, ids)}
    last = {tuple(source) for source in sources("denoising(noises='sentence-permutation, rotation')", 400, ids)}
    one, two = sentences(2, 2)
    broken = (*two[1:], *one, two[0])  # a rotation: <word stop> <sentence> <word>
    assert broken in last and len(last) == 6  # 6 rotations of one cycle of two sentences
    # after rotating into "b. | one | a" the rest behind the last stop is a sentence of its own: any order of the three
    assert (*two[1:], two[0], *one) in first - last


def test_masking_and_deletion_hide_no_mask_again():
    for source in sources("denoising(noises='masking, deletion', rate=0.5)", 50):
        assert (source == MASK).sum() == 50 and len(source) == 75
    for source in sources("denoising(noises='infilling, masking', rate=0.5, mean_span=50)", 50):
        assert 25 <= (source == MASK).sum() <= 35 and (source != MASK).sum() == 25


def test_one_of_several_noises_is_taken_for_each_window_in_equal_shares():
    kinds = collections.Counter()
    for source in sources("denoising(noises='masking | deletion | infilling', rate=0.35, mean_span=3.5)", 300):
        masks = (source == MASK).sum()
        kinds["masking" if len(source) == 100 else "deletion" if masks == 0 else "infilling"] += 1
        assert (source != MASK).sum() == 65
    assert set(kinds) == {"masking", "deletion", "infilling"}
    assert all(abs(count - 100) <= 3 for count in kinds.values())  # spread evenly, not by lot


def test_which_noise_is_taken_does_not_hang_on_the_mixture_that_picked_the_window():
    mixture = make("denoising(noises='masking | deletion') + span-corruption", WORDY)
    lengths = collections.Counter()
    for index in range(400):
        example = mixture.corrupt(Window(TEXT, index=index), Key(0, 0, index))
        if example.asks[0].part == "denoising":
            lengths[len(example.source)] += 1
    assert set(lengths) == {102, 72} and abs(lengths[102] - 100) < 12


def test_the_default_is_barts_large_model():
    default = make("denoising", WORDY)
    assert default.describe() == {"name": "denoising", "noises": "sentence-permutation, infilling", "rate": 0.3,
                                  "mean_span": 3.0, "languages": ()}
    assert make({"name": "denoising", "noises": ["sentence-permutation", "infilling"]}, WORDY) == default


@pytest.mark.parametrize("noises", NOISES + ["deletion, rotation", "masking | infilling"])
def test_the_whole_text_is_asked_for_and_the_same_key_gives_the_same_noise(noises):
    objective = make({"name": "denoising", "noises": noises}, WORDY)
    again = make(objective.describe(), WORDY)
    assert again == objective
    for index in range(20):
        one, two = (made.corrupt(Window(TEXT, index=index), Key(1, 0, index)) for made in (objective, again))
        assert one.source.inputs.tolist() == two.source.inputs.tolist()
        assert one.asks[0].targets.tolist() == TEXT[1:].tolist() and one.inputs.tolist() == TEXT[:-1].tolist()
        assert one.raw == len(TEXT)


@pytest.mark.parametrize("noises, source", [
    ("infilling", [0, 1, 2, MASK, 5, MASK]), ("masking", [0, 1, 2, MASK, MASK, 5, MASK]),
    ("deletion", [0, 1, 2, 5]), ("rotation", [0, 1, 2, 5]), ("sentence-permutation", [0, 1, 2, 5]),
])
def test_a_question_hides_as_the_noises_do(noises, source):
    objective = make({"name": "denoising", "noises": noises}, WORDY)
    ids = np.arange(RESERVED, RESERVED + 7)
    question = objective.blank(ids, np.isin(np.arange(7), [3, 4, 6]))
    assert question.source.inputs.tolist() == [token if token == MASK else RESERVED + token for token in source]
    assert question.inputs.tolist() == [BOS, *ids[:-1]]
    assert question.asks[0].targets.tolist() == ids[[3, 4, 6]].tolist()


@pytest.mark.parametrize("noises, decoding", [("masking", "infill"), ("infilling, rotation", "infill"),
                                              ("deletion", "left_to_right"), ("rotation", "left_to_right")])
def test_blanks_are_filled_only_by_those_that_read_blanks(noises, decoding):
    objective = make({"name": "denoising", "noises": noises}, WORDY)
    assert objective.decoding == decoding
    if decoding == "infill":
        assert objective.infilling(TEXT).source.inputs.tolist() == TEXT.tolist()
        assert objective.continuation(TEXT[:4]).source.inputs.tolist() == [*TEXT[:4], MASK]
    else:
        with pytest.raises(BothwaysError, match="never read a <mask>"):
            objective.infilling(TEXT)
        assert objective.continuation(TEXT[:4]).source.inputs.tolist() == TEXT[:4].tolist()


@pytest.mark.parametrize("noises", [*NOISES, "masking, deletion, infilling", "masking | deletion"])
def test_the_profile_is_what_examples_measure(noises):
    objective = make({"name": "denoising", "noises": noises}, WORDY)
    ids = np.concatenate(([BOS], np.random.default_rng(0).integers(RESERVED, SIZE, 254), [EOS]))
    read = np.mean([len(objective.corrupt(Window(ids, index=i), Key(0, 0, i)).source) for i in range(200)])
    assert read / 256 == pytest.approx(objective.profile.source_inputs, abs=0.02)


@pytest.mark.parametrize("spec, says", [
    ("denoising(noises=permutation)", "'permutation' \\(.*known: deletion, infilling, .*sentence-permutation"),
    ("denoising(noises='rotation, rotation')", "has one twice"),
    ("denoising(noises=rotation, rate=0.3)", "rate is 0.3, but the noises 'rotation' do not use it: leave rate out"),
    ("denoising(noises=masking, mean_span=3)", "mean_span is 3, but .* add infilling to noises"),
    ("denoising(noises=masking, rate=2)", "rate is 2, but must be a number between 0 and 1"),
    ("denoising(mean_span=0.5)", "at least 1"),
    ("denoising(noises='')", "a noise in noises is ''"),
])
def test_mistakes_are_one_sentence(spec, says):
    with pytest.raises(BothwaysError, match=says) as error:
        make(spec, WORDY)
    assert "\n" not in str(error.value)


def test_only_a_permutation_that_could_never_move_anything_is_refused():
    with pytest.raises(BothwaysError, match="no token that ends a sentence"):
        make("denoising(noises=sentence-permutation)", PLAIN)
    assert make("denoising", PLAIN).noises == "sentence-permutation, infilling"


# --- languages (PLBART) --------------------------------------------------------------------------------------

TAGGED = {"name": "denoising", "noises": "masking | deletion | infilling", "rate": 0.35, "mean_span": 3.5,
          "languages": ["text", "python", "java"]}
TAGS = dict(zip(TAGGED["languages"], PLAIN.sentinels[:-4:-1], strict=True))


def test_a_source_ends_with_its_tag_and_the_decoder_begins_with_it():
    objective, plain = make(TAGGED, WORDY), make({**TAGGED, "languages": []}, WORDY)
    for language, tag in {**TAGS, "": TAGS["text"]}.items():
        for index in range(10):
            for ids in (TEXT, TEXT[1:-1]):
                window, key = Window(ids, index=index, language=language), Key(0, 0, index)
                tagged, untagged = objective.corrupt(window, key), plain.corrupt(window, key)
                assert tagged.source.inputs.tolist() == [*untagged.source.inputs.tolist(), tag]
                assert tagged.inputs.tolist() == [tag, *untagged.inputs.tolist()[1:]]
                assert tagged.asks[0].targets.tolist() == untagged.asks[0].targets.tolist()
                assert tagged.asks[0].where.tolist() == untagged.asks[0].where.tolist() and tagged.raw == len(ids)


def test_each_language_is_a_mode_that_asks_and_writes_with_its_tag():
    objective = make(TAGGED, WORDY)
    assert [mode.name for mode in objective.modes] == list(TAGS)
    assert {mode.likelihood for mode in objective.modes} == {"exact"}
    hidden = np.isin(np.arange(len(TEXT)), [3, 4])
    for mode in objective.modes:
        tag = TAGS[mode.name]
        question = objective.blank(TEXT, hidden, mode)
        assert question.source.inputs[-1] == tag and question.inputs.tolist() == [tag, *TEXT[1:-1]]
        assert question.asks[0].targets.tolist() == TEXT[[3, 4]].tolist()
        begun = objective.continuation(TEXT[:4], mode)
        assert begun.source.inputs.tolist() == [*TEXT[:4], MASK, tag] and begun.inputs.tolist() == [tag, *TEXT[1:4]]
        blanks = objective.infilling(np.array([RESERVED, MASK]), mode)
        assert blanks.source.inputs.tolist() == [BOS, RESERVED, MASK, EOS, tag] and blanks.inputs.tolist() == [tag]
    assert objective.blank(TEXT, hidden).source.inputs[-1] == TAGS["text"]
    with pytest.raises(BothwaysError, match="'text' and 'python' and 'java': say which one"):
        objective.mode(None)


def test_a_tagged_objective_is_given_back_by_its_description_and_many_packed_stay_apart():
    objective = make(TAGGED, WORDY)
    assert make(json.loads(json.dumps(objective.describe())), WORDY) == objective
    examples = [objective.corrupt(Window(TEXT, i, 0, i, language), Key(0, 0, i)) for i, language in enumerate(TAGS)]
    (row,) = pack(examples)
    firsts = [int(np.flatnonzero(row.fields["document"].numpy() == i)[0]) for i in range(3)]
    assert row.inputs[firsts].tolist() == list(TAGS.values())


def test_a_mixture_writes_in_the_language_it_is_called_in():
    mixture = make({"name": "mixture", "members": ["span-corruption", TAGGED]}, WORDY)
    python = mixture.mode("python")
    assert mixture.continuation(TEXT[:4], python).inputs[0] == TAGS["python"]
    assert mixture.infilling(np.array([RESERVED, MASK]), python).source.inputs[-1] == TAGS["python"]
    assert mixture.blank(TEXT, TEXT == RESERVED, python).inputs[0] == TAGS["python"]


@pytest.mark.parametrize("languages, says", [
    (["text", "text"], "must be different names"), (["text", 3], "must be different names"),
    ([f"language {i}" for i in range(33)], "names 33, but the tokenizer has only 32 sentinels"),
])
def test_languages_that_cannot_be_told_apart_are_refused(languages, says):
    with pytest.raises(BothwaysError, match=says):
        make({**TAGGED, "languages": languages}, WORDY)


def test_a_text_in_another_language_is_refused():
    with pytest.raises(BothwaysError, match="written in 'go', but languages names only text, python, java: add it"):
        make(TAGGED, WORDY).corrupt(Window(TEXT, language="go"), Key(0, 0, 0))
