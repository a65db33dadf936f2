"""Written texts against references, variety, memory: numbers by hand, and of the packages where they are installed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.evaluation.small import small, texts

from bothways.errors import BothwaysError
from bothways.evaluation import generated, memory, text_metrics


def test_bleu_and_chrf_are_the_packages_own():
    sacrebleu = pytest.importorskip("sacrebleu")
    written = ["the cat sat", "a dog barks at night"]
    references = [["the cat sat down"], ["a dog barked", "a dog barks"]]
    score = text_metrics.bleu(written, references, resamples=5)
    expected = sacrebleu.corpus_bleu(written, [["the cat sat down", "a dog barked"], [None, "a dog barks"]])
    assert score.value == pytest.approx(expected.score) and "version:" in score.estimator
    low, high = score.interval()
    assert low <= high
    one = text_metrics.chrf(["the cat"], ["the cat"], resamples=2)
    assert one.value == pytest.approx(100.0) and text_metrics.sentence_chrf("the cat", "the cat") == pytest.approx(100)
    with pytest.raises(BothwaysError, match="1 texts and 2 references"):
        text_metrics.bleu(["a"], ["a", "b"])


def test_the_chrf_of_one_text_by_hand_and_by_the_package():
    # one common letter of 2 and 3, no common pair of 1 and 2: precision 1/4, recall 1/6
    assert text_metrics.sentence_chrf("ax", "abc") == pytest.approx(100 * 5 / 24 / (1 + 1 / 6))
    assert text_metrics.sentence_chrf("", "abc") == 0.0 and text_metrics.sentence_chrf("", "") == 0.0
    chrf = pytest.importorskip("sacrebleu").CHRF()
    rng = np.random.default_rng(0)
    for _ in range(200):
        one, other = ("".join(rng.choice(list("abc é"), rng.integers(0, 12))) for _ in range(2))
        assert text_metrics.sentence_chrf(one, other) == pytest.approx(chrf.sentence_score(one, [other]).score)


def test_rouge_takes_the_best_reference():
    pytest.importorskip("rouge_score")
    found = {score.name: score for score in text_metrics.rouge(["the cat sat", "dogs"], [["no", "the cat"], ["dog"]])}
    assert found["ROUGE-1"].items == pytest.approx([0.8, 1.0])      # stems agree
    assert found["ROUGE-2"].items[0] == pytest.approx(2 * 0.5 * 1 / 1.5)


def test_spans_count_whole():
    pytest.importorskip("seqeval")
    true = [["B-PER", "I-PER", "O", "B-LOC"], ["O", "B-LOC"]]
    guessed = [["B-PER", "O", "O", "B-LOC"], ["O", "B-LOC"]]
    found = {score.name: score.value for score in text_metrics.span_f1(true, guessed, resamples=3)}
    assert found == pytest.approx({"span f1": 2 / 3, "span precision": 2 / 3, "span recall": 2 / 3})
    with pytest.raises(BothwaysError, match="text 1 has 2 true tags and 1"):
        text_metrics.span_f1(true, [guessed[0], ["O"]])


def test_squads_rules():
    assert text_metrics.normalised("The  U.S.A., an Army!") == "usa army"
    assert text_metrics.exact_match("the Army", "army.") == 1.0
    assert text_metrics.answer_f1("the red army", "army of red men") == pytest.approx(2 * 2 / (2 + 4))
    assert text_metrics.answer_f1("", "") == 1.0 and text_metrics.answer_f1("x", "") == 0.0
    scores = {score.name: score for score in text_metrics.answers(["red", "", "blue"], [["green", "a red"], [], []])}
    assert scores["exact match"].items == [1.0, 1.0, 0.0]
    assert scores["exact match, without an answer"].items == [1.0, 0.0]
    assert scores["answer F1, with an answer"].value == 1.0


def test_the_no_answer_threshold_is_the_best_of_all():
    surplus, right, answerable = [3.0, 2.0, 2.0, 1.0, -1.0], [1.0, 0.0, 1.0, 0.5, 0.0], [True, False, True, True, False]
    at, best = text_metrics.threshold(surplus, right, answerable)
    tried = {cut: np.mean([(gain if known else 0.0) if one > cut else float(not known)
                           for one, gain, known in zip(surplus, right, answerable)])
             for cut in (np.inf, 3.0, 2.0, 1.0, -1.0, -np.inf)}
    assert best == pytest.approx(max(tried.values())) and tried[at] == pytest.approx(best)


def test_variety_by_hand():
    assert generated.distinct(["aba", "b"], 1) == pytest.approx(2 / 4)
    assert generated.repetition("ababa", 2) == pytest.approx(1 - 2 / 4)
    assert generated.self_bleu(["abcde"] * 2) == pytest.approx([1.0, 1.0])
    same, other = (np.mean(generated.self_bleu(rows)) for rows in (["abcd", "abcx"], ["abcd", "efgh"]))
    assert other < same < 1
    scores = {score.name: score for score in generated.diversity(["abab", "cdef"])}
    assert scores["rep-2"].items == pytest.approx([1 / 3, 0.0]) and scores["distinct-1"].value == pytest.approx(6 / 8)
    assert scores["diversity"].items[1] == 1.0 and "self-BLEU" in scores


def overfitted(windows):
    trained = small("causal", sharp=1.0, width=48)
    optimiser = torch.optim.Adam(trained.network.parameters(), 6e-3)
    from bothways.batch import Key, pack

    for _ in range(100):
        (row,) = pack([trained.objective.corrupt(window, Key(0, 0, 0)) for window in windows])
        (part,) = trained.objective.parts(trained.network, row)
        optimiser.zero_grad()
        (part.sum / part.count).backward()
        optimiser.step()
    return trained


def test_what_was_learned_by_heart_comes_out_and_other_text_does_not():
    windows = texts(small("causal"), 6, 20)
    trained = overfitted(windows)
    own, *_ = memory.extraction(trained, windows, prompt=8, lengths=(4, 8))
    other, *_ = memory.extraction(trained, texts(trained, 6, 20, seed=9), name="held-out text", prompt=8, lengths=(4,))
    assert own.value == 1.0 and other.value == 0.0 and own.n == 6
    # the definition itself: written out greedily
    from bothways.decoding import GenerateConfig, generate

    (one,) = generate(trained, [windows[0].ids[:8].tolist()], GenerateConfig(max_new_tokens=4, temperature=0.0),
                      trained.objective.modes[0])
    assert list(one.ids)[-4:] == windows[0].ids[8:12].tolist()
    assert memory.extraction(small("masked"), windows, prompt=8) == []


def test_facts_learned_one_way_round_are_known_that_way():
    trained = small("causal")
    names = [(f"w{number}", f"w{number + 10}") for number in range(5)]
    windows = []
    for number, (a, b) in enumerate(names):
        ids = trained.tokenizer.encode(f"{a} sees {b}", reserved=False)
        windows.append(type(texts(trained, 1, 16)[0])(np.array([trained.vocabulary.bos, *ids]), number, 0, number))
    learned = overfitted(windows)
    scores = {score.name: score for score in memory.reversal(learned, names, forward=("{a} sees ", "{b}"),
                                                              backward=("{b} sees ", "{a}"))}
    assert scores["reversal, forward"].value == 1.0 and scores["reversal, backward"].value < 0.8
    assert scores["reversal gap"].value == pytest.approx(1 - scores["reversal, backward"].value)


def test_a_fact_is_split_where_its_answer_begins():
    assert memory.template("{a} wrote {b}.", "b") == ("{a} wrote ", "{b}.")
    assert memory.template("{b} was written by {a}", "a") == ("{b} was written by ", "{a}")
    for wrong in ("{b} wrote {a}", "{a} wrote", "{a} and {a} wrote {b}"):
        with pytest.raises(BothwaysError, match="once and, behind it,"):
            memory.template(wrong, "b")
