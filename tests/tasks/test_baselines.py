"""Baselines without a network, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from bothways.tasks import answer, classify, rewrite, similarity, tag
from bothways.tasks.baselines import baselines, common_words, first_words, lexicon, nearest_sentence


def values(found):
    return {one.name: {score.name: score.value for score in one.scores} for one in found}


def rows(*pairs):
    return [classify.Row(text, None, tuple(label.split("|")) if label else ()) for text, label in pairs]


def test_classifying_by_the_most_frequent_label_and_by_words():
    train = rows(("a good film", "good"), ("good fun", "good"), ("a bad film", "bad"), ("very good", "good"),
                 ("bad acting", "bad"))
    test = rows(("so good", "good"), ("bad", "bad"), ("so bad", "bad"))
    found = values(baselines("classify", train, test))
    assert found["the most frequent label"]["classification accuracy"] == pytest.approx(1 / 3)
    assert found["the most frequent label"]["classification NLL"] == pytest.approx(-np.log([0.6, 0.4, 0.4]).mean())
    assert found["TF-IDF, naive Bayes"]["classification accuracy"] == 1.0
    assert list(found)[1:] == ["TF-IDF, logistic regression", "TF-IDF, linear SVM", "TF-IDF, naive Bayes"]


def test_with_several_labels_a_rare_one_is_never_given():
    train = rows(("one two", "x"), ("one two three", "x|y"), ("two", "x"), ("four", ""))
    test = rows(("one", "x"), ("two", "x|y"), ("five", ""))
    found = values(baselines("classify", train, test, classify.Options(several=True)))
    assert found["the most frequent label"]["classification accuracy"] == pytest.approx(1 / 3)
    assert found["the most frequent label"]["classification macro-F1"] == pytest.approx(0.8 / 2)


def words(text: str, tags: str) -> tag.Row:
    return tag.Task.row({"text": text.split(), "tags": tags.split()})


def test_the_most_frequent_tag_of_each_word():
    train = [words("Ann lives in Rome", "B-PER O O B-LOC"), words("in New Rome", "O B-LOC I-LOC"),
             words("Rome , New York", "B-LOC O B-LOC I-LOC")]
    assert lexicon(train) == {"Ann": "B-PER", "lives": "O", "in": "O", "Rome": "B-LOC", "New": "B-LOC", ",": "O",
                              "York": "I-LOC"}
    test = [words("Ann in York", "B-PER O B-LOC"), words("Bob in Rome", "B-PER O B-LOC")]
    found = values(baselines("tag", train, test))["the most frequent tag of each word"]
    # York begins an entity where nothing is open; Bob is unknown, so O
    assert found["span F1"] == pytest.approx(2 * 3 / (3 + 4)) and found["tag accuracy"] == pytest.approx(5 / 6)


def test_tags_of_another_form_fall_back_on_the_commonest():
    train = [words("a dog sees", "D N V"), words("a cat", "D N")]
    found = values(baselines("tag", train, [words("a bird sees", "D N V")]))["the most frequent tag of each word"]
    assert found["tag accuracy"] == 1.0 and "span F1" not in found


def question(asked: str, context: str, *answers: str) -> answer.Row:
    return answer.Task.row({"question": asked, "context": context, "answers": list(answers)})


def test_answers_from_the_beginning_and_from_the_nearest_sentence():
    row = question("Where does the dog live?", "A cat sleeps. The dog lives here. A dog may live in Rome!", "Rome")
    assert first_words(row, 2) == "A cat" and nearest_sentence(row) == "A dog may live in Rome!"
    found = values(baselines("answer", [question("q", "one two three", "two three")], [row]))
    assert found["the first 2 words"]["answer F1"] == 0
    # "dog may live in Rome": one word of five is right, and it is all of the answer
    assert found["the sentence that shares most with the question"]["answer F1"] == pytest.approx(2 / 6)


def test_likeness_by_words():
    assert common_words("A dog runs.", "the dog sleeps") == pytest.approx(1 / 3) and common_words("", "the") == 0
    pairs = [similarity.Row("a dog runs", "a dog runs", 5.0), similarity.Row("a dog runs", "a dog sleeps", 3.0),
             similarity.Row("a dog runs", "birds sing", 1.0)]
    found = values(baselines("similarity", pairs, pairs))
    assert found["TF-IDF, cosine"]["similarity Spearman"] == pytest.approx(1.0)
    assert found["common words"]["similarity Pearson"] == pytest.approx(2 / np.sqrt(8 * (1 + 1 / 9 - 16 / 27)))
    assert baselines("similarity", pairs, [similarity.Row("a", "b")]) == []


def test_copying_the_source():
    pairs = [rewrite.Row("the same", "the same"), rewrite.Row("one", "two"), rewrite.Row("not looked at", "x")]
    found = values(baselines("rewrite", [], pairs, rewrite.Options(scored=2)))["the source as it is"]
    assert found["exact match"] == 0.5 and found["ROUGE-L"] == 0.5


def test_a_kind_without_baselines_has_none():
    assert baselines("instruct", [], []) == []
