"""Every way of classifying: what it asks, by hand; that it learns; and that its folder gives the same answers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.evaluation.small import WORDS, small
from tests.tasks.test_tasks import labelled

from bothways.errors import BothwaysError
from bothways.evaluation.answers import answers
from bothways.evaluation.controls import tfidf
from bothways.tasks import folder
from bothways.tasks.classify import Options, Row, Task, as_rows
from bothways.tasks.tuning import TuneConfig
from bothways.tasks.ways import WAYS, WITHOUT_NETWORK, Choices
from bothways.tasks.ways.likelihood import WEIGHTS, Generative
from bothways.tasks.ways.scaling import best_scale, logits_of, nats_by_scale
from bothways.tasks.ways.wording import Alternative, Form, words_of
from bothways.text.tokenizer import Tokenizer

CONFIG = TuneConfig(steps=80, batch=16, learning_rate=4e-3, head_rate=1e-2)


def options(way, **more):
    return Options(way=way, **{"template": "{text} by {label} .", **more})


def short(n, seed=0):
    """Two words, of which the first tells the class."""
    rng = np.random.default_rng(seed)
    markers = ("cat", "dog", "sees")
    return [(f"{markers[kind]} w{word}", markers[kind]) for kind, word in rng.integers(0, (3, 8), (n, 2))]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return tmp_path_factory.mktemp("folders")


@pytest.mark.parametrize(("way", "paradigm"), [
    ("head", "causal"), ("text-to-text", "causal"), ("text-to-text", "spans"), ("prompt", "masked"),
    ("generative", "causal"), ("generative", "diffusion"), ("channel", "causal"), ("neighbours", "masked"),
    ("logistic", None), ("svm", None), ("bayes", None)])
def test_every_way_learns_and_its_folder_answers_alike(way, paradigm, folders):
    trained = None if paradigm is None else small(paradigm, sharp=1.0)
    train, test = as_rows(short(160)), as_rows(short(40, 1))
    task = Task.fit(trained, train, [], options(way), CONFIG)
    assert task.scores(test)[0].value > 0.9
    probabilities = task.predict_proba(test)
    assert probabilities.sum(1) == pytest.approx(1, abs=1e-5) and probabilities.shape == (40, 3)
    again = folder.load(folder.save(task, folders / f"{way}-{paradigm}"))
    assert (again.predict_proba(test) == probabilities).all()
    assert (again.trained is None) == (way in WITHOUT_NETWORK)


def test_what_each_form_asks_by_hand():
    trained = small("causal", Tokenizer.words(WORDS + " yes no"))
    known = trained.vocabulary.ids

    def said(way, template="{text} by {label} .", longest=20, pair=("the dog",), answer=None):
        ids, hidden = Form(way, longest, template, {"c": "cat"}).asked(trained, Row(*pair), Alternative("c", answer))
        pieces = zip(trained.tokenizer.pieces(ids), hidden, strict=True)
        return " ".join(f"[{piece}]" if asked else piece for piece, asked in pieces)

    assert "<sep>" in known
    assert said("text-to-text") == "<bos> the dog <sep> [cat] [<eos>]"
    assert said("generative") == "<bos> cat <sep> [the] [dog] [<eos>]"
    assert said("prompt") == "<bos> the dog by [cat] ."
    assert said("channel") == "<bos> by cat . [the] [dog]"
    assert said("prompt", "near {text} by {label}") == "<bos> near the dog by [cat]"
    assert said("text-to-text", longest=6) == "<bos> the dog <sep> [cat] [<eos>]"
    assert said("text-to-text", longest=5) == "<bos> the <sep> [cat] [<eos>]", "the text is cut, the label never"
    assert said("generative", pair=("the", "dog")) == "<bos> cat <sep> [the] [dog] [<eos>]"
    # one of several labels is known when it is asked for, and its answer is hidden where labels are
    assert said("text-to-text", answer=1) == "<bos> the dog <sep> cat [yes]"
    assert said("prompt", answer=0) == "<bos> the dog by cat [no] ."
    assert said("generative", answer=0) == "<bos> cat no <sep> [the] [dog] [<eos>]"
    assert said("channel", answer=1) == "<bos> by cat yes . [the] [dog]"


@pytest.mark.parametrize(("way", "paradigm"), [("prompt", "masked"), ("text-to-text", "diffusion")])
def test_a_network_that_fills_places_does_not_tell_labels_by_how_many_there_are(way, paradigm):
    trained = small(paradigm, sharp=1.0)
    train, test = as_rows(short(160)), as_rows(short(40, 1))
    words = ("cat=near by", "sees=often")
    task = Task.fit(trained, train, [], options(way, words=words), replace(CONFIG, steps=200))
    asked = [task.way.form.asked(trained, test[0], Alternative(label)) for label in task.labels]
    eos, ends = trained.vocabulary.eos, int(way == "text-to-text")
    said = [trained.tokenizer.pieces(ids[hidden]) for ids, hidden in asked]
    assert [len(pieces) for pieces in said] == [2 + ends] * 3
    assert said[1][1:] == trained.tokenizer.pieces([eos] * (1 + ends)) and (asked[0][1] == asked[1][1]).all()
    assert task.scores(test)[0].value > 0.9
    # untuned, nothing is filled with what the network has never seen there
    task = Task.fit(trained, train, [], options(way, words=words, untuned=True), CONFIG)
    assert [int(task.way.form.asked(trained, test[0], Alternative(label))[1].sum()) for label in task.labels] == [
        2 + ends, 1 + ends, 1 + ends]


def test_bayes_rule_by_hand():
    trained = small("causal")
    rows = as_rows([("w1 w2", "cat"), ("w3", "cat"), ("w4", "dog"), ("w5 w6", "cat")])
    task = Task.fit(trained, rows, [], options("generative", untuned=True), CONFIG)
    found = []
    for label, share in (("cat", 0.75), ("dog", 0.25)):
        ids, hidden = task.way.form.asked(trained, rows[0], Alternative(label))
        (one,) = answers(trained, [task.way.asking.pose(ids, hidden)])
        found.append(np.exp(-one.nats) * share)
    assert task.predict_proba(rows[:1])[0] == pytest.approx(np.array(found) / sum(found), abs=1e-5)
    assert task.way.how == "untuned, the text given the label, exact, times its share"
    plain = Task.fit(trained, rows, [], options("channel", untuned=True), CONFIG)
    assert plain.way.how == "untuned, the text given the label, exact"


def test_bounds_use_the_same_draws_for_every_label():
    trained = small("diffusion")
    choices = Choices(("cat", "dog"), False, options("generative"))
    # the two labels are written with the same tokens, so whatever differs would be the noise of the draws
    same = Generative(trained, choices, Form("generative", 20, "", {"cat": "w9", "dog": "w9"}), (0.5, 0.5))
    assert same.log_probabilities([Row("w1 w2 w3 w4 w5")])[0] == pytest.approx(np.log([0.5, 0.5]), abs=1e-6)


def test_classical_models_are_those_of_scikit_learn():
    from sklearn.linear_model import LogisticRegression
    from sklearn.naive_bayes import MultinomialNB

    train, test = as_rows(labelled(100)), as_rows(labelled(30, 1))
    features = tfidf()
    read, asked = features.fit_transform([row.text for row in train]), [row.text for row in test]
    labels = [row.labels[0] for row in train]
    model = LogisticRegression(C=10.0, solver="saga", max_iter=600, tol=1e-3, random_state=0).fit(read, labels)
    found = Task.fit(None, train, [], Options(way="logistic"), CONFIG).predict_proba(test)
    assert found == pytest.approx(model.predict_proba(features.transform(asked)), abs=1e-5)
    model = MultinomialNB(alpha=0.1).fit(read, labels)
    found = Task.fit(None, train, [], Options(way="bayes"), CONFIG).predict_proba(test)
    assert found == pytest.approx(model.predict_proba(features.transform(asked)), abs=1e-5)
    two = [row._replace(labels=("cat" if row.labels == ("cat",) else "other",)) for row in train]
    for way in WITHOUT_NETWORK:
        assert Task.fit(None, two, [], Options(way=way), CONFIG).scores(two)[0].value > 0.95
        several = [row._replace(labels=("x", *row.labels)) for row in train]
        task = Task.fit(None, several, [], Options(way=way, several=True), CONFIG)
        assert task.scores(several)[0].value > 0.9, way


@pytest.mark.parametrize(("way", "paradigm"), [
    ("head", "causal"), ("text-to-text", "spans"), ("prompt", "masked"), ("generative", "causal"),
    ("channel", "causal"), ("neighbours", "masked"), ("svm", None)])
def test_several_labels_or_none_in_every_way(way, paradigm, folders):
    """Whether each of two words stands in a text: sets that are judged label by label."""
    rng = np.random.default_rng(0)
    markers = np.array(["cat", "dog"])
    sets = rng.random((340, 2)) < 0.5
    rows = [Row(" ".join([*markers[has], f"w{word}"]), None, tuple(markers[has]))
            for has, word in zip(sets, rng.integers(0, 8, 340))]
    trained = None if paradigm is None else small(paradigm, Tokenizer.words(WORDS + " yes no"), sharp=1.0)
    config = replace(CONFIG, steps=200, batch=32, learning_rate=3e-3 if paradigm in ("spans", "masked") else 6e-3)
    task = Task.fit(trained, rows[:300], [], options(way, several=True), config)
    assert task.scores(rows[300:])[0].value > (0.6 if way == "neighbours" else 0.9)
    probabilities = task.predict_proba(rows[300:])
    assert probabilities.shape == (40, 2) and ((probabilities >= 0) & (probabilities <= 1)).all()
    assert np.ptp(probabilities.sum(1)) > 0.8, "labels are judged by themselves"
    again = folder.load(folder.save(task, folders / f"several-{way}-{paradigm}"))
    assert (again.predict_proba(rows[300:]) == probabilities).all()


def test_bayes_rule_for_each_of_several_labels_by_hand():
    trained = small("causal", Tokenizer.words(WORDS + " yes no"))
    rows = [Row(text, None, labels) for text, labels in (("w1 w2", ("cat", "dog")), ("w3", ("cat",)), ("w4", ()),
                                                         ("w5", ("cat",)))]
    task = Task.fit(trained, rows, [], options("generative", several=True, untuned=True), CONFIG)
    for place, (label, share) in enumerate((("cat", 0.75), ("dog", 0.25))):
        found = []
        for answer in (0, 1):
            ids, hidden = task.way.form.asked(trained, rows[0], Alternative(label, answer))
            (one,) = answers(trained, [task.way.asking.pose(ids, hidden)])
            found.append(np.exp(-one.nats) * (share if answer else 1 - share))
        assert task.predict_proba(rows[:1])[0, place] == pytest.approx(found[1] / sum(found), abs=1e-5)


def noisy(n, seed):
    """Labels that are wrong one time in five: whoever is sure is wrong."""
    rng = np.random.default_rng(seed)
    markers = rng.integers(0, 4, n)
    said = np.where(rng.random(n) < 0.8, markers, rng.integers(0, 4, n))
    return [Row(" ".join(f"w{word}" for word in (one, *others)), None, (f"label {label}",))
            for one, others, label in zip(markers, rng.integers(4, 20, (n, 3)), said, strict=True)]


def test_the_margins_of_an_svm_are_scaled_to_probabilities():
    train, test = noisy(600, 0), noisy(600, 1)
    task = Task.fit(None, train, [], Options(way="svm", strength=0.01), CONFIG)  # margins as they are: far too small
    assert task.scores(test)[0].value > 0.75
    logits = np.log(task.predict_proba(test))
    nats = nats_by_scale(torch.from_numpy(logits), torch.from_numpy(task.choices.table(test)), False)
    assert 0.5 <= best_scale(nats) <= 2.0
    # classes of one text, and two classes, are no obstacle
    Task.fit(None, [*as_rows([("x", "once"), ("y", "one")]), *train[:9]], [], Options(way="svm"), CONFIG)
    Task.fit(None, as_rows([("x", "once"), ("y", "one")]), [], Options(way="svm"), CONFIG)


@pytest.mark.parametrize("several", [False, True])
def test_the_factor_undoes_what_made_logits_too_sure(several):
    rng = np.random.default_rng(0)
    logits = torch.from_numpy(rng.normal(size=(4000, 3)) * 2)
    if several:
        table = torch.from_numpy(rng.random((4000, 3))) < logits.sigmoid()
    else:
        drawn = torch.distributions.Categorical(logits=logits)
        torch.manual_seed(0)
        table = torch.nn.functional.one_hot(drawn.sample(), 3)
    for made in (0.5, 1.0, 4.0):
        given = made * logits
        logs = torch.nn.functional.logsigmoid(given) if several else given.log_softmax(-1)
        assert best_scale(nats_by_scale(logits_of(logs.numpy(), several), table, several)) == 1 / made


@pytest.mark.parametrize("several", [False, True])
def test_texts_that_are_all_told_right_make_nobody_certain(several):
    truth = torch.eye(3)[torch.arange(60) % 3]
    logits = 8 * truth - 4
    scale = best_scale(nats_by_scale(logits, truth, several))
    sure = (scale * logits).sigmoid()[0, 0] if several else (scale * logits).softmax(-1)[0, 0]
    assert 0.95 < float(sure) < 0.999


def nll(task, rows):
    return next(score.value for score in task.scores(rows) if score.name == "classification NLL")


def test_a_head_is_as_sure_as_rows_kept_back_allow(folders):
    train, dev, test = (noisy(200, seed) for seed in range(3))
    config = replace(CONFIG, steps=300, evaluations=1)
    plain, scaled = (Task.fit(small("masked", sharp=1.0), train, rows, options("head"), config)
                     for rows in (dev[:40], dev))
    assert plain.way.scale == 1.0 and "times" not in plain.way.how, "forty rows are too few"
    assert scaled.way.scale < 0.6 and f"logits times {scaled.way.scale:.3g}" in scaled.way.how
    assert scaled.predict(test) == plain.predict(test) and nll(scaled, test) < nll(plain, test) - 0.05
    again = folder.load(folder.save(scaled, folders / "scaled"))
    assert again.way.how == scaled.way.how and (again.predict_proba(test) == scaled.predict_proba(test)).all()


def test_the_nearest_neighbour_of_a_training_text_is_itself():
    rows = as_rows(dict(labelled(40)).items())
    task = Task.fit(small("masked"), rows, [], options("neighbours", neighbours=1), CONFIG)
    assert task.scores(rows)[0].value == 1.0
    with pytest.raises(BothwaysError, match="neighbours is 99"):
        Task.fit(small("masked"), rows, [], options("neighbours", neighbours=99), CONFIG)


@pytest.mark.parametrize(("way", "more", "words"), [
    ("heads", {}, r"way is 'heads' \(did you mean 'head'"),
    ("head", {"pooling": "max"}, "pooling is 'max'"),
    ("prompt", {"template": "{label} {text}"}, "must hold {text} once and, behind it"),
    ("prompt", {"words": ("cat=x", "dog=x")}, "the same words"),
    ("prompt", {"words": ("bird=x",)}, "with one of the labels cat, dog, sees"),
    ("generative", {"several": True}, "yes or no, which are the same tokens to this network: take the way head"),
    ("prompt", {"words": ("cat=unheard", "dog=unseen")}, "'cat' and 'dog' are the same tokens to this network"),
    ("head", {"visibility": "sideways"}, "sideways"),
])
def test_options_that_contradict_are_refused(way, more, words):
    with pytest.raises(BothwaysError, match=words):
        Task.fit(small("masked"), as_rows(labelled(20)), [], options(way, **more), CONFIG)


def test_what_cannot_be_learned_is_refused():
    rows = as_rows(labelled(20))
    for way in WAYS:
        if way not in WITHOUT_NETWORK:
            with pytest.raises(BothwaysError, match="--from"):
                Task.fit(None, rows, [], options(way), CONFIG)
    with pytest.raises(BothwaysError, match="at least two labels"):
        Task.fit(None, [rows[0]] * 3, [], options("bayes"), CONFIG)
    with pytest.raises(BothwaysError, match="has no label"):
        Task.fit(None, [Row("x")], [], options("bayes"), CONFIG)
    with pytest.raises(BothwaysError, match="no training text has: bird"):
        Task.fit(None, rows, [Row("x", None, ("bird",))], options("bayes"), CONFIG)
    task = Task.fit(None, rows, [], options("bayes"), CONFIG)
    assert task.scores([*rows, Row("x", None, ("bird",))])[0].n == 21, "an unseen label of the test is wrong, no fault"
    with pytest.raises(BothwaysError, match="1 of 1 rows have no label"):
        task.scores([Row("x")])


def test_words_are_the_labels_with_spaces_unless_given():
    choices = Choices(("card_lost", "pin"), False, options("prompt", words=("pin=secret number",)))
    assert words_of(choices) == {"card_lost": "card lost", "pin": "secret number"}
    assert replace(choices.options, words=["pin=x"]).words == ("pin=x",)


@pytest.mark.parametrize(("way", "paradigm"), [
    ("text-to-text", "causal"), ("text-to-text", "spans"), ("text-to-text", "denoising"), ("text-to-text", "prefix"),
    ("text-to-text", "diffusion"), ("prompt", "causal"), ("prompt", "masked"), ("generative", "causal"),
    ("generative", "spans"), ("channel", "hybrid"), ("channel", "prefix")])
def test_what_labels_and_texts_share_is_read_once_with_the_same_answers(way, paradigm):
    trained = small(paradigm)
    words = [f"w{one} w{two}" if two < 5 else f"w{one}" for one in range(4) for two in range(6)]
    rng = np.random.default_rng(0)
    rows = as_rows([(" ".join(f"w{i}" for i in rng.integers(0, 5, 1 + n % 5)), words[n % len(words)])
                    for n in range(24)])
    task = Task.fit(trained, rows, [], options(way, untuned=True), CONFIG).way
    plain, shared = task.log_probabilities(rows[:6], shared=False), task.log_probabilities(rows[:6])
    assert len(task.choices.labels) == 24 and np.ptp(plain) > 0.3
    assert shared == pytest.approx(plain, abs=1e-5)


def test_the_noisy_channel_by_hand():
    """The direct model's log-probabilities and a weight times the channel's: the weight is the best on rows kept."""
    trained = small("causal")
    rows = as_rows(short(40))
    way = Task.fit(trained, rows, [], options("channel", direct=True, untuned=True), CONFIG).way
    direct, channel = (Task.fit(trained, rows, [], options(name, untuned=True), CONFIG).way.log_probabilities(rows)
                       for name in ("prompt", "channel"))
    found = direct + way.weight * channel
    found = found - np.log(np.exp(found).sum(1, keepdims=True))
    assert way.log_probabilities(rows) == pytest.approx(found, abs=1e-4)
    kept = rows[9::10]
    numbers = way.choices.numbers(kept)

    def nll(weight):
        some = direct[9::10] + weight * channel[9::10]
        return -(some - np.log(np.exp(some).sum(1, keepdims=True)))[np.arange(len(kept)), numbers].mean()

    assert way.weight == min(WEIGHTS, key=nll) and f"+ {way.weight:g} x the text" in way.how


def test_the_noisy_channel_learns_both_ways_and_its_folder_knows_the_weight(folders):
    task = Task.fit(small("causal", sharp=1.0), as_rows(short(160)), [], options("channel", direct=True), CONFIG)
    test = as_rows(short(30, 1))
    assert task.scores(test)[0].value > 0.9
    again = folder.load(folder.save(task, folders / "noisy"))
    assert (again.predict_proba(test) == task.predict_proba(test)).all() and again.way.weight == task.way.weight
    with pytest.raises(BothwaysError, match="direct is for the way 'channel', but the way is 'prompt'"):
        options("prompt", direct=True)
