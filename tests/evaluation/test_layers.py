"""Probes layer by layer, code lengths, and similarity of representations: laws and numbers by hand."""

from __future__ import annotations

import numpy as np
import pytest
from tests.evaluation.small import small

from bothways.evaluation import layers, similarity
from bothways.evaluation.features import Tagged, span_features, tagged_tokens
from bothways.text.known import KnownSource
from bothways.text.known_relations import related

RNG = np.random.default_rng(0)


def brute_hsic(x, y):
    """Song et al. 2012, equation 5, with the kernels written out."""
    n = len(x)
    k, m = x @ x.T, y @ y.T
    np.fill_diagonal(k, 0)
    np.fill_diagonal(m, 0)
    one = np.ones(n)
    return (np.trace(k @ m) + (one @ k @ one) * (one @ m @ one) / ((n - 1) * (n - 2))
            - 2 / (n - 2) * (one @ k @ m @ one)) / (n * (n - 3))


def test_hsic_equals_the_written_out_kernels():
    x, y = RNG.normal(size=(30, 5)) + 3, RNG.normal(size=(30, 7))
    assert similarity.hsic(x, y) == pytest.approx(brute_hsic(x - x.mean(0), y - y.mean(0)), rel=1e-9)
    assert similarity.hsic(x, y) == pytest.approx(brute_hsic(x, y), rel=1e-9)     # a mean changes nothing


def test_cka_is_one_for_turned_states_and_about_nought_for_unrelated_ones():
    x = RNG.normal(size=(400, 20))
    turn, _ = np.linalg.qr(RNG.normal(size=(20, 20)))
    assert similarity.cka(x, 3 * x @ turn + 5) == pytest.approx(1.0)
    others = [similarity.cka(RNG.normal(size=(60, 30)), RNG.normal(size=(60, 30))) for _ in range(20)]
    assert abs(np.mean(others)) < 0.03      # a biased estimate gives about 0.3 here
    assert similarity.svcca(x, x @ RNG.normal(size=(20, 20)) + 1) == pytest.approx(1.0, abs=0.02)
    assert similarity.svcca(x, RNG.normal(size=(400, 20))) < 0.35
    assert similarity.svcca(x[:, :3], x[:, 3:6]) < 0.3


def test_neighbours_and_anisotropy():
    x = RNG.normal(size=(200, 10))
    near = similarity.neighbours(x, 5)
    assert similarity.neighbour_overlap(near, similarity.neighbours(2 * x + 7, 5)) == pytest.approx(1.0)
    chance = similarity.neighbour_overlap(near, similarity.neighbours(RNG.normal(size=(200, 10)), 5))
    assert chance == pytest.approx(5 / 199, abs=0.02)
    assert similarity.anisotropy(x + 10, centred=False) > 0.9 and abs(similarity.anisotropy(x + 10)) < 0.05
    assert similarity.iso_score(RNG.normal(size=(20_000, 8))) > 0.98
    assert similarity.iso_score(RNG.normal(size=(2000, 1)) * np.ones(8)) == pytest.approx(0.0, abs=1e-6)


def test_information_and_token_identity():
    a = np.repeat([0, 1], 50)
    assert similarity.information(a, a) == pytest.approx(np.log(2))
    assert similarity.information(a, np.tile([0, 1], 50)) == pytest.approx(0.0, abs=1e-9)
    tokens = RNG.integers(0, 8, 800)
    states = np.eye(8)[tokens] * 5 + RNG.normal(size=(800, 8)) * 0.1
    assert similarity.token_identity(states, tokens, 20) > 0.95
    assert similarity.token_identity(RNG.normal(size=(800, 8)), tokens, 20) < 0.2


def test_the_ceiling_is_another_seed():
    base = RNG.normal(size=(300, 6))
    groups = [[base + RNG.normal(size=base.shape) * 0.1 for _ in range(2)],
              [RNG.normal(size=base.shape) for _ in range(2)], [RNG.normal(size=base.shape)]]
    found = similarity.similarities(groups)
    assert found[0, 0] > 0.9 and abs(found[0, 1]) < 0.1 and np.isnan(found[2, 2]) and np.isfinite(found[0, 2])


def test_one_reading_gives_what_layer_by_layer_gives():
    trained = small("causal", layers=3)
    texts = [Tagged(np.array([1, 50, 51, 52, 53]), ((1, 3, "a"), (3, 4, "b"))),
             Tagged(np.array([1, 60]), ((1, 2, "a"),))]
    every = layers.span_layers(trained, texts)
    assert every.shape == (4, 3, 32)
    for layer in range(4):
        assert every[layer] == pytest.approx(span_features(trained, texts, layer=layer), abs=1e-5)


def tagged(n, seed):
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(n):
        ids = np.concatenate([[1], rng.integers(44, 52, 2)])
        found.append(tagged_tokens(ids, [None, "odd" if ids[2] % 2 else "even", None]))
    return found


def test_a_tag_that_hangs_on_the_next_word_appears_above_the_embedding():
    trained = small("masked", sharp=6.0, width=64)
    scores = layers.probe_layers(trained, tagged(250, 0), tagged(150, 1))
    accuracy = {score.details["layer"]: score for score in scores if score.name == "tag probe accuracy"}
    assert accuracy[0.0].value < 0.65 and accuracy[2.0].value > 0.85
    code = {score.details["layer"]: score for score in scores if score.name == "tag code length"}
    assert code[2.0].value < 0.8 * code[0.0].value and code[2.0].details["compression"] > 1.2
    for layer in accuracy:
        control, chosen = (next(score for score in scores if score.name == name and score.details["layer"] == layer)
                           for name in ("tag probe accuracy, control task", "tag probe selectivity"))
        assert chosen.value == pytest.approx(accuracy[layer].value - control.value)


def test_a_code_of_noise_saves_nothing_and_of_what_is_told_nearly_all():
    labels = [str(label) for label in RNG.integers(0, 4, 400)]
    noise = layers.online_code(RNG.normal(size=(400, 6)), labels)
    assert noise.value > 1.9 and noise.details["compression"] < 1.06
    told = layers.online_code(np.eye(4)[[int(label) for label in labels]] * 4, labels)
    assert told.value < 0.9 and told.items[:25] == [2.0] * 25 and told.n == 400


def test_relations_of_the_known_source_and_edges_on_tokens():
    source = KnownSource(seed=0)
    rows = related(source, 200, np.random.default_rng(0))
    for text, pairs in rows:
        words = text.split()
        for (a, b), (c, d), _ in pairs:
            assert text[a:b] in words and text[c:d] in words
        # a main verb has one subject, and it stands before it
        verbs = {span for span, _, _ in pairs}
        assert all(sum(one == verb and name == "subject" for one, _, name in pairs) == 1 for verb in verbs)
    names = [name for row in rows for *_, name in row.pairs]
    assert set(names) == {"subject", "object", "none"}
    trained = small("masked", source.tokenizer, sharp=6.0, width=64)
    spans = layers.edges(source.tokenizer, rows)
    assert len(spans[0].spans) == 2 * len(rows[0].pairs)
    scores = layers.probe_layers(trained, spans[:120], spans[120:], what="relation", pairs=True, code=False)
    assert len(scores) == 9 and all(score.n == sum(len(row.pairs) for row in rows[120:]) for score in scores)
