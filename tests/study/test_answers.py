"""The plain words of a report: who, how sure, and what no contender has beaten."""

from __future__ import annotations

from bothways.study import answers, results


def found(folder, source="text"):
    loaded = results.load(folder)
    return loaded, {one.board.measure.key: one for one in answers.answers(loaded, source)}


def test_a_clear_winner_is_sure(synthetic, tmp_path):
    synthetic.study(tmp_path)
    _, by_measure = found(tmp_path)
    one = by_measure["suffix-bits"]
    assert one.winner.contender == "causal"
    assert one.sureness == "sure"
    assert "N-gram model, has 2.000" in one.sentence


def test_bounds_carry_their_sign(synthetic, tmp_path):
    synthetic.study(tmp_path)
    _, by_measure = found(tmp_path)
    lines = {line.contender: line for line in by_measure["suffix-bits"].board.headlines}
    assert answers.value(by_measure["suffix-bits"].board.measure, 2.2, lines["diffusion"].estimator) == "≤ 2.200"
    assert results.likelihood_note(by_measure["suffix-bits"].board) is not None


def test_equal_contenders_are_too_close_to_call(synthetic, tmp_path):
    synthetic.study(tmp_path, spread=0.02)
    _, by_measure = found(tmp_path)
    assert by_measure["tag"].sureness == "open"
    assert "Too close to call" in by_measure["tag"].sentence


def test_a_control_in_front_is_said_first_with_the_budget_needed(synthetic, tmp_path):
    synthetic.study(tmp_path, ngram=1.66)
    loaded, by_measure = found(tmp_path)
    one = by_measure["suffix-bits"]
    assert one.sureness == "control"
    assert one.sentence.startswith("No contender has beaten the control N-gram model (1.660)")
    assert one.needed is not None
    # the curve of the made-up causal decoder: 1.7 + 0.05 * (60 / t - 1) reaches 1.66 at t = 300 seconds
    assert one.needed.known
    assert 150 < one.needed.seconds < 600
    lead = answers.lead(loaded, {"text": list(by_measure.values())})
    assert any("no contender has beaten the control" in line for line in lead)


def test_one_seed_gives_no_verdict(synthetic, tmp_path):
    synthetic.study(tmp_path, seeds=1)
    loaded, by_measure = found(tmp_path)
    assert {one.sureness for one in by_measure.values()} <= {"one seed", "control"}
    assert any("no verdict" in line for line in answers.lead(loaded, {"text": list(by_measure.values())}))


def test_a_mode_nobody_was_trained_in_never_stands_for_a_contender(synthetic, tmp_path):
    synthetic.study(tmp_path)
    loaded = results.load(tmp_path)
    for board in loaded.boards("text"):
        for line in board.headlines:
            assert "off-mode" not in line.mode
    hybrid = next(line for line in loaded.board("text", "tag").headlines if line.contender == "hybrid")
    assert hybrid.mode == "bidirectional"


def test_controls_of_one_run_are_compared_with_every_seed(synthetic, tmp_path):
    synthetic.study(tmp_path)
    versus = results.load(tmp_path).board("text", "suffix-bits").against("ngram")
    assert versus is not None
    assert versus.difference.n == 3
    assert versus.sure
