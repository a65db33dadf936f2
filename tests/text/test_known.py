import itertools

import numpy as np
import pytest

from bothways.errors import BothwaysError
from bothways.text.known import LONGEST, SENTENCES, KnownSource


def brute_force(known, words):
    """P(these words begin a document), by adding up every path of states."""
    grammar = known.grammar
    says = [grammar.says[:, grammar.words.index(word)] for word in words]
    total = 0.0
    for path in itertools.product(*(np.flatnonzero(column) for column in says)):
        probability = grammar.starts[path[0]] * says[0][path[0]]
        for place in range(1, len(path)):
            probability *= grammar.moves[path[place - 1], path[place]] * says[place][path[place]]
        total += probability
    return total


@pytest.mark.parametrize("sentence", ["the light cats", "the sheep near a", "the sheep sleep .", "this cat is"])
def test_the_forward_algorithm_adds_up_every_path(known, sentence):
    words = sentence.split()
    nll = known.true_nll([known.tokenizer.vocabulary.bos, *known.tokenizer.encode(sentence)])
    assert np.exp(-nll.sum()) == pytest.approx(brute_force(known, words), rel=1e-9)
    assert nll[0] == 0


def test_the_end_of_a_document_is_counted(known):
    v, sentence = known.tokenizer.vocabulary, known.tokenizer.encode("the cats sleep .")
    two = known.true_nll([v.bos, *sentence * 2, v.eos])
    assert np.exp(-two[-1]) == pytest.approx(SENTENCES[2])
    four = known.true_nll([v.bos, *sentence * 4, v.eos])
    assert four[-1] == pytest.approx(0)
    assert np.isinf(known.true_nll([v.bos, *sentence, v.eos])[-1])
    assert np.isinf(known.true_nll([v.bos, *sentence * 2, v.eos, v.eos])[-1])
    assert np.isinf(known.true_nll([v.bos, *sentence * 5])[17:]).all()


def test_probabilities_of_every_next_token_sum_to_one(known, rng):
    for ids in known.sample(2, rng):
        for place in range(1, len(ids), 3):
            rows = np.tile(ids, (known.tokenizer.size, 1))
            rows[:, place] = np.arange(known.tokenizer.size)
            assert np.exp(-known.true_nll(rows)[:, place]).sum() == pytest.approx(1)


def test_batches_equal_single_documents(known, rng):
    documents = known.sample(20, rng)
    for row, ids in zip(known.true_nll(known.padded(documents)), documents, strict=True):
        assert row[:len(ids)] == pytest.approx(known.true_nll(ids))
        assert not row[len(ids):].any()


def test_drawn_documents_have_the_probabilities_of_the_grammar(known, rng):
    """Empirical and true probabilities of the first two words agree: sampling and scoring are one distribution."""
    documents = known.sample(40_000, rng)
    firsts = np.array([ids[1:3] for ids in documents])
    codes, counts = np.unique(firsts[:, 0] * 1000 + firsts[:, 1], return_counts=True)
    for code, count in zip(codes, counts, strict=True):
        truth = np.exp(-known.true_nll([1, code // 1000, code % 1000]).sum())
        assert abs(count / 40_000 - truth) < 5 * np.sqrt(truth / 40_000) + 1e-5
    lengths = np.bincount([int(known._stops[ids].sum()) for ids in documents]) / 40_000
    assert lengths[2:] == pytest.approx(list(SENTENCES.values()), abs=0.01)
    assert max(map(len, documents)) <= LONGEST


def test_drawn_documents_reach_the_entropy_rate(known):
    documents = known.sample(4_000, np.random.default_rng(7))
    nll = known.true_nll(known.padded(documents))
    assert np.isfinite(nll).all()
    assert nll.sum() / sum(len(ids) - 1 for ids in documents) == pytest.approx(known.entropy_rate, abs=0.02)
    assert 1.9 < known.entropy_rate < 2.3


def test_the_conditional_given_both_sides(known):
    v, encode = known.tokenizer.vocabulary, known.tokenizer.encode
    ids = np.array([v.bos, *encode("the sheep near a cat sleep . the cats sleep ."), v.eos])
    conditional = known.true_conditional(ids, 1)
    assert conditional.sum() == pytest.approx(1)
    assert conditional[encode("the")[0]] > 0 and conditional[encode("these")[0]] > 0
    assert conditional[encode("a")[0]] == 0  # the plural verb on the right says so
    # the chain rule: p(x | both sides) / p(y | both sides) is the ratio of the whole documents
    other = ids.copy()
    other[1] = encode("these")[0]
    ratio = np.exp(known.true_nll(other).sum() - known.true_nll(ids).sum())
    assert conditional[ids[1]] / conditional[other[1]] == pytest.approx(ratio)
    with pytest.raises(BothwaysError, match="place 0"):
        known.true_conditional(ids, 0)
    with pytest.raises(BothwaysError, match="possible"):
        known.true_conditional([v.bos, *encode("sleep sleep the the")], 2)


def test_rows_must_be_whole_documents(known):
    with pytest.raises(BothwaysError, match="<bos>"):
        known.true_nll(known.tokenizer.encode("the cat"))


def test_pairs_differ_in_the_number_of_the_verb_alone(known, rng):
    pairs = known.pairs(101, rng)
    v = known.tokenizer.vocabulary
    assert [sum(pair.kind == kind for pair in pairs) for kind in ("near", "across a modifier")] == [51, 50]
    for pair in pairs:
        good, bad = pair.good.split(), pair.bad.split()
        changed = [place for place in range(len(good)) if good[place] != bad[place]]
        assert len(changed) == 1
        assert (changed[0] > 4) or pair.kind == "near"
        scores = [known.true_nll([v.bos, *known.tokenizer.encode(text)]).sum() for text in (pair.good, pair.bad)]
        assert np.isfinite(scores[0]) and np.isinf(scores[1])


def test_tags_of_ambiguous_words_need_the_right_context(known, rng):
    tags = {}
    for text, spans in known.tagged(3_000, rng):
        words = [text[start:end] for start, end, _ in spans]
        assert " ".join(words) == text
        for place, (word, (_, _, tag)) in enumerate(zip(words, spans, strict=True)):
            tags.setdefault(word, {}).setdefault(words[max(place - 1, 0)], set()).add(tag)
    for word, contexts in tags.items():
        assert (len(contexts.get("the", set())) > 1) == (word in known.ambiguous), word


def test_topics_are_told_by_words(known, rng):
    rows = known.labelled(400, rng)
    assert len(rows.names) == 4 and set(rows.labels) == {0, 1, 2, 3}
    sea = [label for text, label in zip(rows.texts, rows.labels, strict=True) if "sailor" in text]
    assert sea.count(rows.names.index("sea")) > len(sea) / 2


def test_prepared_is_the_source(known, known_prepared, tmp_path):
    train = known_prepared.train
    assert known_prepared.report["train_documents"] == train.documents == len(train) == 380
    ids = known_prepared.train[5].ids
    assert np.isfinite(known.true_nll(ids)).all() and ids[-1] == known.tokenizer.vocabulary.eos
    assert known_prepared.tokenizer.fingerprint == known.tokenizer.fingerprint
    again = known.prepare(known_prepared.folder, documents=400)
    assert (again.train[5].ids == ids).all()
    other = known.prepare(tmp_path / "other", documents=400, seed=1)
    assert other.train[5].ids.tolist() != ids.tolist()
    with pytest.raises(BothwaysError, match="up to 54"):
        known.prepare(tmp_path / "short", documents=10, window=32)


def test_another_seed_is_another_source_of_the_same_grammar(known):
    other = KnownSource(seed=1)
    assert other.tokenizer.fingerprint == known.tokenizer.fingerprint
    assert ((other.grammar.says > 0) == (known.grammar.says > 0)).all()
    assert not np.allclose(other.grammar.says, known.grammar.says)
