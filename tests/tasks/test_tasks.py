"""Fine-tuning: it learns what there is to learn, for every paradigm, and leaves the pretrained network alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.evaluation.small import PARADIGMS, small

from bothways.errors import BothwaysError
from bothways.tasks import asking, classify, rewrite
from bothways.tasks.tuning import TuneConfig, batches, schedule

QUICK = TuneConfig(steps=40, batch=16, learning_rate=2e-3, head_rate=1e-2)


def labelled(n: int, seed: int = 0) -> list[tuple[str, str]]:
    """The class is whether the first word comes back: nothing a bag of words of random states gives away."""
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(n):
        marker = ("cat", "dog", "sees")[int(rng.integers(3))]
        rows.append((" ".join([f"w{i}" for i in rng.integers(0, 8, 4)] + [marker, "."]), marker))
    return rows


@pytest.mark.parametrize("paradigm", PARADIGMS)
def test_every_paradigm_learns_to_classify_and_its_network_is_left_alone(paradigm):
    trained = small(paradigm, sharp=1.0)
    before = {name: weight.clone() for name, weight in trained.network.state_dict().items()}
    accuracy, f1 = classify.classification(trained, labelled(160), labelled(60, 1), QUICK)
    assert accuracy.value > 0.9 and f1.value > 0.9
    assert accuracy.name == "classification accuracy" and accuracy.estimator.startswith("fine-tuned, 40 steps")
    assert accuracy.mode == ("causal" if paradigm in ("causal", "hybrid") else "bidirectional")
    assert all(torch.equal(weight, before[name]) for name, weight in trained.network.state_dict().items())


def test_shuffled_labels_are_not_learned_beyond_chance():
    rows = labelled(160)
    labels = np.random.default_rng(3).permutation([label for _, label in rows])
    shuffled = [(text, str(label)) for (text, _), label in zip(rows, labels)]
    accuracy, _ = classify.classification(small("masked", sharp=1.0), shuffled, labelled(90, 1), QUICK)
    assert accuracy.value < 0.55


def test_predictions_do_not_depend_on_batch_mates_and_repeat():
    trained = small("causal", sharp=1.0)
    rows = classify.as_rows(labelled(30, 2))
    model = classify.fine_tune(trained, labelled(60), QUICK, visibility="bidirectional").way
    together, alone = model.log_probabilities(rows, tokens=40), np.concatenate(
        [model.log_probabilities([row]) for row in rows])
    assert together == pytest.approx(alone, abs=1e-5)
    again = classify.fine_tune(trained, labelled(60), QUICK, visibility="bidirectional").way
    assert (again.log_probabilities(rows, tokens=40) == together).all()


def test_a_classifier_of_one_class_is_refused():
    with pytest.raises(BothwaysError, match="at least two labels"):
        classify.classification(small("causal"), [("a", "x"), ("b", "x")], [("c", "x")], QUICK)
    with pytest.raises(BothwaysError, match="'steps' is 0"):
        TuneConfig(steps=0)


def sentences(n: int, seed: int = 0) -> list[tuple[str, str]]:
    """The target repeats the source's second word."""
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(n):
        one, two = rng.integers(0, 4, 2)
        rows.append((f"w{one} w{two} the", f"dog w{two}" if two else "cat"))
    return rows


FORM = rewrite.Format(source=8, target=4)


@pytest.mark.parametrize("paradigm", ["causal", "spans", "denoising", "hybrid", "diffusion"])
def test_who_can_write_learns_to_rewrite(paradigm):
    trained = small(paradigm, sharp=1.0)
    config = TuneConfig(steps=250, batch=16, learning_rate=4e-3)
    nll, f1, chrf = rewrite.rewriting(trained, sentences(100), sentences(20, 1), config, FORM, written=10)
    assert nll.estimator == ("upper bound, 16 samples" if paradigm == "diffusion" else "exact")
    assert nll.value < 0.25 and f1.value > 0.9 and chrf.value > 90


def test_a_masked_encoder_does_not_write():
    trained = small("masked")
    assert rewrite.rewriting(trained, sentences(4), sentences(4), QUICK, FORM) == []
    with pytest.raises(BothwaysError, match="does not write"):
        rewrite.fine_tune(trained, sentences(4), QUICK, FORM)


def test_the_questions_of_diffusion_are_filled_up_and_others_are_not():
    for paradigm, filled in (("causal", 2), ("diffusion", 4)):
        trained = small(paradigm)
        ids, hidden = rewrite.question(trained, "w1 w2", "dog", rewrite.writing_way(trained), FORM)
        assert hidden.sum() == filled and ids[~hidden][-1] == trained.vocabulary.sep
        assert (ids[hidden][1:] == trained.vocabulary.eos).all()


def test_text_metrics_by_hand():
    assert rewrite.token_f1("The dog runs", "the dog") == pytest.approx(0.8)
    assert rewrite.token_f1("", "the") == 0.0 and rewrite.token_f1("a b", "a b") == 1.0


def test_schedule_and_batches():
    shares = [schedule(step, 20, 0.2) for step in range(20)]
    assert max(shares) <= 1 and shares[:4] == [0.25, 0.5, 0.75, 1.0] and 0 < shares[-1] < 0.1
    order = batches(7, 3, np.random.default_rng(0))
    seen = [place for _ in range(7) for place in next(order)]
    assert sorted(seen) == sorted(list(range(7)) * 3)


def test_diffusion_is_tuned_on_the_exact_k_bound():
    trained = small("diffusion")
    way = rewrite.writing_way(trained)
    ids, hidden = rewrite.question(trained, "w1 w2", "dog", way, FORM)
    seen = set()
    for seed in range(30):
        (ask,) = asking.hidden_part(way, ids, hidden, np.random.default_rng(seed)).asks
        assert ask.count == 4 and ask.weights.tolist() == pytest.approx([4 / len(ask.targets)] * len(ask.targets))
        seen.add(len(ask.targets))
    assert seen == {1, 2, 3, 4}


def test_the_rate_is_chosen_on_training_texts_alone_and_the_best_one_wins():
    trained, rows = small("masked", sharp=1.0), labelled(160)
    chosen = classify.searched(trained, rows, replace(QUICK, steps=120), (1e-7, 2e-3))
    assert chosen.learning_rate == 2e-3
    assert chosen.head_rate == pytest.approx(QUICK.head_rate)
    assert classify.searched(trained, rows, QUICK, ()) == QUICK
    tied = classify.searched(trained, rows, QUICK, (1e-9, 2e-9))
    assert tied.learning_rate == 1e-9
    score, _ = classify.classification(trained, rows, labelled(60, 1), QUICK, rates=(1e-7, 2e-3))
    assert score.details["learning rate"] in (1e-7, 2e-3)


def test_dropout_while_tuning_is_the_one_that_is_asked_for_and_goes_again():
    from bothways.tasks.tuning import dropping

    trained = small("masked", sharp=1.0)
    network = trained.network.train()
    row = trained.objective.blank(np.array([1, 40, 41, 42]), np.arange(4) == 2)
    same = [network(row).states for _ in range(2)]
    with dropping([network, None], 0.5):
        other = [network(row).states for _ in range(2)]
    assert torch.equal(*same) and not torch.equal(*other) and torch.equal(network(row).states, same[0])
    quick = replace(QUICK, steps=3)
    plain, dropped = (classify.fine_tune(trained, labelled(30), config).way.log_probabilities(
        classify.as_rows(labelled(5, 1))) for config in (quick, replace(quick, dropout=0.5)))
    assert not (plain == dropped).all() and trained.network.config.dropout == 0
    with pytest.raises(BothwaysError, match=r"'dropout' is 1\.0, but lies between 0 and 1"):
        replace(quick, dropout=1.0)
