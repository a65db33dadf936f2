"""Mixtures: exact shares, one loss part a member, one mode a way of calling."""

from __future__ import annotations

import numpy as np
import pytest

from bothways.batch import RESERVED_TOKENS, Key, Vocabulary, Window, pack
from bothways.errors import BothwaysError
from bothways.objectives import make
from bothways.training.held_out import HeldOut
from bothways.visibility import bidirectional, causal, same_document

RESERVED = len(RESERVED_TOKENS)
PLAIN = Vocabulary.plain(RESERVED + 200)


def window(index, length=40):
    ids = np.random.default_rng(index).integers(RESERVED, PLAIN.size, size=length)
    ids[0] = PLAIN.bos
    return Window(ids, index=index)


@pytest.mark.parametrize("shares", [(0.5, 0.5), (1, 15), (0.2, 0.3, 0.5)])
def test_shares_are_met_within_three_windows_in_any_run_of_an_epoch(shares):
    names = ["next-token", "masked-next", "diffusion"]
    mixture = make({"name": "mixture", "members": [{"name": name, "share": share}
                                                   for name, share in zip(names, shares, strict=False)]}, PLAIN)
    for seed, first, n in ((0, 0, 1000), (1, 317, 400), (2, 5000, 96)):
        chosen = np.array([mixture.chosen(Key(seed, 3, i)) for i in range(first, first + n)])
        for member, share in enumerate(mixture.shares):
            assert abs((chosen == member).sum() - share * n) <= 3
    assert mixture.shares == pytest.approx(np.array(shares) / sum(shares))


def test_a_member_sees_every_diffusion_time():
    """The sequence that picks members and the one that spreads times must not move together."""
    mixture = make("next-token + diffusion", PLAIN)
    diffusion = mixture.members[1].objective
    times = [diffusion.time(key) for key in (Key(0, 0, i) for i in range(2000)) if mixture.chosen(key) == 1]
    assert np.histogram(times, bins=10, range=(0, 1))[0] == pytest.approx(100, abs=6)


def test_another_epoch_gives_a_window_to_another_member():
    mixture = make("next-token + masked-next", PLAIN)
    chosen = np.array([[mixture.chosen(Key(0, epoch, i)) for i in range(50)] for epoch in range(40)])
    assert (chosen.mean(axis=0) > 0.2).all() and (chosen.mean(axis=0) < 0.8).all()


def test_phases_follow_progress():
    mixture = make("0.25 next-token then 0.75 masked", PLAIN)
    chosen = [mixture.chosen(Key(0, 0, i, progress)) for i, progress in enumerate((0, .1, .2499, .25, .6, 1.0))]
    assert chosen == [0, 0, 0, 1, 1, 1]
    example = mixture.corrupt(window(0), Key(0, 0, 0, 0.9))
    assert (example.asks[0].part, example.asks[0].coefficient) == ("masked", 1.0)


def by_epoch(*members):
    return make({"name": "mixture", "by": "epoch", "members": [{"name": name, "share": share}
                                                               for name, share in members]}, PLAIN)


def test_epochs_go_to_members_in_turn_and_again():
    """AntLM's 4 + 16 + 4 epochs, and then again from the first."""
    mixture = by_epoch(("next-token", 4), ("masked-next", 16), ("next-token", 4))
    for index, progress in ((0, 0.0), (7, 0.3), (31, 1.0)):
        chosen = [mixture.chosen(Key(0, epoch, index, progress)) for epoch in range(48)]
        assert chosen == ([0] * 4 + [1] * 16 + [2] * 4) * 2
    example = mixture.corrupt(window(0), Key(0, 5, 0))
    assert (example.asks[0].part, example.asks[0].coefficient) == ("masked-next", 1.0)
    assert mixture.shares == pytest.approx((1 / 6, 2 / 3, 1 / 6)) and mixture.cycle == 24
    assert make(mixture.describe(), PLAIN) == mixture and make("masked + next-token", PLAIN).cycle == 1


def test_held_out_text_is_asked_by_every_member_of_a_cycle():
    class Held(list):
        def order(self, seed, epoch):
            return np.arange(len(self))

    held = HeldOut(Held(window(i) for i in range(40)), by_epoch(("next-token", 1), ("masked-next", 3)), tokens=1600)
    assert set(held.counts) >= {"next-token", "masked-next"}
    assert held.counts["next-token"] == 10 * 39
    alone = HeldOut(Held(window(i) for i in range(40)), make("next-token", PLAIN), tokens=1600)
    assert alone.counts["next-token" if "next-token" in alone.counts else "loss"] == 40 * 39


def test_parts_carry_names_and_shares():
    mixture = make("0.25 next-token + 0.75 masked-next", PLAIN)
    rows = pack([mixture.corrupt(window(i), Key(0, 0, i)) for i in range(40)])
    found = {ask.part: (ask.coefficient, ask.count, row.visibility) for row in rows for ask in row.asks}
    assert found["next-token"][0] == 0.25 and found["next-token"][2] == causal & same_document
    assert found["masked-next"][0] == 0.75 and found["masked-next"][2] == same_document
    assert found["next-token"][1] == pytest.approx(10 * 39, abs=39)


@pytest.mark.parametrize("member", ["next-token", "masked(rate=0.4)", "span-corruption", "denoising", "diffusion"])
def test_a_mixture_of_one_is_that_one(member):
    alone = make(member, PLAIN)
    mixture = make({"name": "mixture", "members": [member]}, PLAIN)
    assert (mixture.modes, mixture.profile, mixture.stack, mixture.decoding, mixture.stops) == \
        (alone.modes, alone.profile, alone.stack, alone.decoding, alone.stops)
    for i in range(10):
        one, other = (objective.corrupt(window(i), Key(0, 0, i)) for objective in (alone, mixture))
        assert one.inputs.tolist() == other.inputs.tolist()
        assert [(a.part, a.coefficient, a.count, a.targets.tolist()) for a in one.asks] == \
            [(a.part, a.coefficient, a.count, a.targets.tolist()) for a in other.asks]


def test_modes_are_the_members_and_have_unique_names():
    hybrid = make("next-token + masked-next", PLAIN)
    assert [(mode.name, mode.visibility, mode.predicts) for mode in hybrid.modes] == \
        [("causal", causal, "next"), ("bidirectional", bidirectional, "next")]
    assert [hybrid.decoding_of(mode) for mode in hybrid.modes] == ["left_to_right", "mask_predict"]
    with pytest.raises(BothwaysError, match="'causal' and 'bidirectional': say which"):
        hybrid.mode(None)
    # the same mode twice is one; the same name for another mode is told apart, and dispatched apart
    twice = make("masked(rate=0.15) + masked(rate=0.4)", PLAIN)
    assert len(twice.modes) == 1 and twice.names == ("masked", "masked-2")
    three = make("masked + masked-next + diffusion", PLAIN)
    assert [mode.name for mode in three.modes] == \
        ["bidirectional", "bidirectional (masked-next)", "bidirectional (diffusion)"]
    hidden = np.arange(40) == 7
    where = [three.blank(window(0).ids, hidden, mode).asks[0].where.tolist() for mode in three.modes]
    assert where == [[7], [6], [7]]
    assert [three.decoding_of(mode) for mode in three.modes] == ["mask_predict", "mask_predict", "diffusion"]


def test_a_profile_averages_its_members():
    profile = make("0.25 next-token + 0.75 masked(rate=0.4)", PLAIN).profile
    assert profile.asked == pytest.approx(0.25 + 0.75 * 0.4) and profile.visibility == bidirectional
    assert [share for share, _ in profile.mixed] == [0.25, 0.75]


@pytest.mark.parametrize("spec, says", [
    ("next-token + span-corruption", "'next-token' is for one tower and 'span-corruption' for two towers"),
    ("mixture", "members is a list"),
    ({"name": "mixture", "members": []}, "members is a list"),
    ({"name": "mixture", "members": [3]}, "a member is 3"),
    ({"name": "mixture", "members": ["masked"], "by": "turns"}, "by is 'turns'"),
    ({"name": "mixture", "members": [{"name": "masked", "share": 0.5}], "by": "epoch"}, "whole number of epochs"),
    ("0 masked + 1 next-token", "share of 'masked' is 0.0"),
    ({"name": "mixture", "members": [{"name": "mixture", "members": ["masked"]}]}, "another mixture"),
])
def test_refusals(spec, says):
    with pytest.raises(BothwaysError, match=says):
        make(spec, PLAIN)
