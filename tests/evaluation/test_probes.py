"""Features and probes: packed as alone, better than controls where there is something to read, and only there."""

from __future__ import annotations

import numpy as np
import pytest
from tests.evaluation.small import PARADIGMS, small

from bothways.errors import BothwaysError
from bothways.evaluation import probes
from bothways.evaluation.features import Tagged, span_features, tagged_spans, tagged_tokens, text_features
from bothways.text.tokenizer import Tokenizer


def labelled(n: int, informative: bool, seed: int = 0) -> list[tuple[str, str]]:
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(n):
        label = int(rng.integers(2))
        marker = ("cat" if label else "dog") if informative else "sees"
        others = [f"w{i}" for i in rng.integers(0, 20, rng.integers(2, 6))]
        rows.append((" ".join(["the", marker, *others]), str(label)))
    return rows


@pytest.mark.parametrize("paradigm", PARADIGMS)
@pytest.mark.parametrize("layer", [-1, 0, 1])
def test_features_packed_equal_features_one_by_one_in_order(paradigm, layer):
    trained = small(paradigm)
    rows = [text for text, _ in labelled(9, True)]
    together = text_features(trained, rows, layer=layer, tokens=25)
    alone = np.concatenate([text_features(trained, [text], layer=layer) for text in rows])
    assert together == pytest.approx(alone, abs=2e-5) and together.shape == (9, 32)


def test_layer_zero_is_the_mean_embedding_without_begin():
    trained = small("causal")
    ids = trained.tokenizer.encode("the dog barks")
    mean = trained.network.embedding.weight[ids].mean(0).detach().numpy()
    assert text_features(trained, ["the dog barks"], layer=0)[0] == pytest.approx(mean, abs=1e-5)
    with pytest.raises(BothwaysError, match="layer 7 does not exist"):
        text_features(trained, ["the dog"], layer=7)


def test_visibility_changes_features_of_one_tower():
    trained = small("causal")
    native, causal, both = (text_features(trained, ["the dog barks often"], visibility=name)
                            for name in ("native", "causal", "bidirectional"))
    assert (native == causal).all() and not np.allclose(native, both, atol=1e-3)


def test_a_text_probe_beats_its_control_where_there_is_something_to_read_and_not_elsewhere():
    trained = small("masked")
    accuracy, f1, control = probes.probe_texts(trained, labelled(150, True), labelled(100, True, 1))
    assert accuracy.value > 0.9 and accuracy.value > control.value + 0.2 and f1.value > 0.9
    accuracy, _, control = probes.probe_texts(trained, labelled(150, False), labelled(100, False, 1))
    assert abs(accuracy.value - control.value) < 0.2 and accuracy.value < 0.68
    assert control.estimator == accuracy.estimator and control.name != accuracy.name


def tagged(n: int, trained, rightward: bool, seed: int = 0) -> list[Tagged]:
    """The first token's tag hangs on itself, or (rightward) on the token behind it."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(n):
        ids = np.concatenate([[trained.vocabulary.bos], rng.integers(44, 52, 2)])
        found.append(tagged_tokens(ids, [None, "odd" if ids[2 if rightward else 1] % 2 else "even", None]))
    return found


def test_a_tag_that_hangs_on_the_right_is_read_only_with_both_sides():
    trained = small("causal", sharp=6.0, width=64)
    scores = {name: probes.probe_tags(trained, tagged(300, trained, True), tagged(200, trained, True, 1),
                                      visibility=name, control=False)[0].value for name in ("causal", "bidirectional")}
    assert scores["bidirectional"] > 0.85 and scores["causal"] < 0.65
    accuracy, _, control, selectivity = probes.probe_tags(trained, tagged(300, trained, False),
                                                          tagged(200, trained, False, 1))
    assert accuracy.value > 0.9
    assert selectivity.value == pytest.approx(accuracy.value - control.value)


def test_spans_of_characters_become_spans_of_tokens():
    tokenizer = Tokenizer.train(["the unbelievable dogs bark"] * 5, kind="bpe", size=320)
    text = "the zebra barks"
    found = tagged_spans(tokenizer, text, [(4, 9, "noun"), (10, 15, "verb")])
    pieces = ["".join(tokenizer.pieces(found.ids[start:end])) for start, end, _ in found.spans]
    assert [piece.strip() for piece in pieces] == ["zebra", "barks"]
    cut = tagged_spans(tokenizer, text, [(4, 9, "noun"), (10, 15, "verb")], longest=4)
    assert len(cut.ids) == 4 and all(end <= 4 for _, end, _ in cut.spans)


def test_span_features_are_means_of_states():
    trained = small("masked")
    ids = np.array([1, 50, 51, 52])
    both, one, other = (span_features(trained, [Tagged(ids, spans)])[0] for spans in (
        ((1, 3, "x"),), ((1, 2, "x"),), ((2, 3, "x"),)))
    assert both == pytest.approx((one + other) / 2, abs=1e-5)


def test_macro_f1_by_hand():
    # class a: precision 2/3, recall 1 -> 0.8; class b: precision 1, recall 1/2 -> 2/3
    assert probes.macro_f1(["a", "a", "b", "b"], ["a", "a", "a", "b"]) == pytest.approx((0.8 + 2 / 3) / 2)


def test_split_keeps_equal_texts_on_one_side():
    rows = [("a", "x"), ("a", "x"), ("b", "y"), ("c", "x"), ("d", "y")]
    train, test = probes.split(rows, test_share=0.5)
    assert len(train) + len(test) == 4 and not {text for text, _ in train} & {text for text, _ in test}
