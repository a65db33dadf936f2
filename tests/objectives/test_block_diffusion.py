"""Block diffusion: by hand, against diffusion and the chain rule that it lies between, and as a bound."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats
from tests.evaluation.small import places, small, texts
from tests.objectives.test_diffusion import ENTROPY, FIRST, JOINT, PLAIN, mean_over_times

from bothways.batch import Key, Window, pack
from bothways.decoding import GenerateConfig, fill, generate
from bothways.errors import BothwaysError
from bothways.evaluation import likelihood
from bothways.evaluation.answers import answers
from bothways.evaluation.questions import ways
from bothways.model.cost import allowed
from bothways.objectives import make
from bothways.objectives.base import example
from bothways.objectives.schedules import SCHEDULES
from bothways.visibility import causal

IDS = np.array([PLAIN.bos, *range(FIRST, FIRST + 11), PLAIN.eos])


def as_objective(trained, spec):
    """The same network, trained by something else."""
    return replace(trained, objective=make(spec, trained.vocabulary))


def loss_of(trained, one):
    with torch.no_grad():
        (part,) = trained.objective.loss(trained.network, trained.network(one), one)
    return float(part.sum)


# --- by hand -------------------------------------------------------------------------------------------------

def test_the_layout_of_a_question():
    objective = make("block-diffusion(block=2)", PLAIN)
    one = objective.blank(IDS[:5], places(5, 1, 2, 4))
    mask = PLAIN.mask
    assert one.inputs.tolist() == [IDS[0], mask, mask, IDS[3], mask, *IDS[:4]]
    for name in ("index", "position"):
        assert one.fields[name].tolist() == [0, 1, 2, 3, 4, 0, 1, 2, 3]
    assert one.fields["block"].tolist() == [0, 0, 2, 2, 4, 1, 1, 3, 3]
    assert one.fields["prefix"].tolist() == [0] * 5 + [1] * 4
    assert one.fields["document"].tolist() == [0] * 9 and one.raw == 5
    assert one.asks[0].where.tolist() == [1, 2, 4] and one.asks[0].targets.tolist() == IDS[[1, 2, 4]].tolist()
    seen = one.visibility.allows(one.fields, one.fields)
    drawn = ["".join("x" if cell else "." for cell in row) for row in seen.tolist()]
    assert drawn == ["xx.......", "xx.......", "..xx.xx..", "..xx.xx..", "....xxxxx",  # noised: own block, clean before
                     ".....xx..", ".....xx..", ".....xxxx", ".....xxxx"]  # clean: block-causal


@pytest.mark.parametrize("block", [1, 2, 3, 5, 13, 40])
@pytest.mark.parametrize("begin", [0, 1])
def test_examples_hide_ask_and_weigh_what_they_should(block, begin):
    objective = make(f"block-diffusion(block={block})", PLAIN)
    for i in range(20):
        ids = IDS[begin:]
        one = objective.corrupt(Window(ids, index=i), Key(0, 0, i))
        where = one.asks[0].where.numpy()
        noised, clean = one.inputs.numpy()[:len(ids)], one.inputs.numpy()[len(ids):]
        assert (noised[where] == PLAIN.mask).all() and (np.delete(noised, where) == np.delete(ids, where)).all()
        assert (clean == ids[:len(clean)]).all() and len(clean) == (len(ids) - 1) // block * block
        assert one.asks[0].targets.tolist() == ids[where].tolist()
        assert one.asks[0].count == len(ids) - (begin == 0)
        times = objective.times(Key(0, 0, i), -(-len(ids) // block))
        assert one.asks[0].weights.numpy() == pytest.approx(1 / times[where // block])


# --- what it lies between ------------------------------------------------------------------------------------

@pytest.mark.parametrize("options", ["", ", schedule=cosine", ", subs=True"])
def test_one_block_is_diffusion(options):
    """A block as long as the window: the same inputs, asks and weights, and every token sees every token."""
    whole = make(f"block-diffusion(block=13{options})", PLAIN)
    plain = make(f"diffusion({options[2:]})", PLAIN)
    trained = small("diffusion")
    for i in range(12):
        one, two = (objective.corrupt(Window(IDS, index=i), Key(2, 1, i)) for objective in (whole, plain))
        assert one.inputs.tolist() == two.inputs.tolist() and one.raw == two.raw
        for name in ("where", "targets", "weights"):
            assert getattr(one.asks[0], name).tolist() == getattr(two.asks[0], name).tolist()
        assert one.asks[0].count == two.asks[0].count
        assert bool(one.visibility.allows(one.fields, one.fields).all())
    ids = texts(trained, 1, 12)[0].ids
    questions = [as_objective(trained, spec).objective.blank(ids, places(len(ids), 2, 5))
                 for spec in ("block-diffusion(block=12)", "diffusion")]
    one, two = (answers(trained, [question])[0] for question in questions)
    assert one.log_probs == pytest.approx(two.log_probs, abs=1e-6)


@pytest.mark.parametrize("subs", [False, True])
def test_blocks_of_one_are_next_token_prediction_at_a_mask(subs):
    """Everything is hidden and weighs 1; each loss is -log p of a token at a `<mask>` that sees what stands before."""
    trained = as_objective(small("diffusion"), f"block-diffusion(block=1, subs={subs})")
    ids, mask = texts(trained, 1, 9)[0].ids, trained.vocabulary.mask
    one = trained.objective.corrupt(Window(ids, index=3), Key(0, 0, 3))
    assert one.asks[0].where.tolist() == list(range(1, len(ids)))
    assert one.asks[0].weights.tolist() == [1] * (len(ids) - 1)
    total = 0.0
    for k in range(1, len(ids)):
        with torch.no_grad():
            state = trained.network(example(np.array([*ids[:k], mask]), causal)).states[-1:]
            logits = trained.network.logits(state)
        if subs:
            logits[:, mask] = float("-inf")
        total -= float(logits.log_softmax(-1)[0, ids[k]])
    assert loss_of(trained, one) == pytest.approx(total, abs=1e-3)
    # scoring by the chain rule says the same, exactly, as does calling a diffusion network from left to right
    (way,) = ways(trained, off_mode=False)
    hidden = np.arange(len(ids)) > 0
    assert way.kind == "exact"
    assert likelihood.exact(trained, way, [(ids, hidden)])[0] == pytest.approx(total, abs=1e-3)
    if not subs:
        off = next(way for way in ways(as_objective(trained, "diffusion")) if way.kind == "exact")
        assert likelihood.exact(as_objective(trained, "diffusion"), off, [(ids, hidden)])[0] == \
            pytest.approx(total, abs=1e-3)


# --- the bound -----------------------------------------------------------------------------------------------

@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("block", [1, 2, 3, 4])
def test_the_bound_of_the_true_distribution_is_its_entropy_for_every_block(block, schedule):
    """All texts and all sets of hidden places of each block, by the weights of the objective."""
    objective = make(f"block-diffusion(block={block}, schedule={schedule}, smallest_time=0.000000001)", PLAIN)
    path, total = SCHEDULES[schedule], 0.0
    for first in range(0, 4, block):
        inside = np.arange(first, min(first + block, 4))
        joint = JOINT.sum(axis=tuple(range(inside[-1] + 1, 4)))  # later blocks are not seen
        for chosen in itertools.product([False, True], repeat=len(inside)):
            hidden, k = inside[list(chosen)], sum(chosen)
            if not k:
                continue
            loss = 0.0
            for place in hidden:
                others = tuple(int(other) for other in hidden if other != place)
                marginal = joint.sum(axis=others, keepdims=True)
                given = marginal.sum(axis=int(place), keepdims=True)
                loss -= float((joint * np.log(marginal / given)).sum())
            if block == 1:
                total += loss
                continue

            def weight(time, k=k, inside=inside):
                n, share = len(inside), path.hidden(time)
                return path.weight(time, objective.smallest_time) * share ** k * (1 - share) ** (n - k)
            total += loss * mean_over_times(weight)
    assert total == pytest.approx(ENTROPY, rel=1e-6)


def test_scoring_bounds_each_block_given_the_clean_ones_before():
    """The exact-k bound over all hidden tokens is the sum of those of the blocks, each alone."""
    trained = as_objective(small("diffusion", sharp=4.0), "block-diffusion(block=3)")
    ids = texts(trained, 1, 9)[0].ids
    way, hidden = ways(trained)[0], places(9, 2, 3, 4, 7)
    assert way.kind == "both sides"
    parts = [likelihood.bound_in_full(trained, way, (ids, hidden & (np.arange(9) // 3 == b))) for b in range(3)]
    assert likelihood.bound_in_full(trained, way, (ids, hidden)) == pytest.approx(sum(parts), abs=1e-3)
    assert min(parts) > 0.1


def test_times_of_blocks_are_even_in_a_window_and_uniform_alone():
    objective = make("block-diffusion(block=4, smallest_time=0.000001)", PLAIN)
    for i in range(20):
        times = np.sort(objective.times(Key(0, 0, i), 10))
        assert np.diff(times) == pytest.approx(0.1, abs=1e-5)
    for block in (0, 7):
        alone = [objective.times(Key(seed, 0, 5), 10)[block] for seed in range(500)]
        assert stats.kstest(alone, "uniform").pvalue > 1e-3
    assert make("block-diffusion(block=4, smallest_time=0.5)", PLAIN).times(Key(0, 0, 1), 50).min() >= 0.5
    assert objective.times(Key(0, 0, 1), 10).tolist() != objective.times(Key(0, 1, 1), 10).tolist()


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_every_token_weighs_one_on_average(schedule):
    objective = make(f"block-diffusion(block=8, schedule={schedule}, smallest_time=0.01)", PLAIN)
    ids = np.concatenate(([PLAIN.bos], np.full(63, FIRST)))
    weights, asked = np.zeros(64), 0
    for i in range(3000):
        (one,) = objective.corrupt(Window(ids, index=i), Key(0, 0, i)).asks
        weights[one.where.numpy()] += one.weights.numpy()
        asked += len(one.where)
    assert weights[0] == 0 and weights[1:].mean() / 3000 == pytest.approx(1, abs=0.02)
    by_block = weights.reshape(8, 8).sum(1) / 3000 / np.array([7, *[8] * 7])
    assert by_block == pytest.approx(1, abs=0.15)
    assert asked / (3000 * 63) == pytest.approx(objective.profile.asked, abs=0.01)


@pytest.mark.parametrize("block", [1, 4, 16])
def test_costs_are_counted_with_the_pairs_and_tokens_there_are(block):
    objective = make(f"block-diffusion(block={block})", PLAIN)
    one = objective.corrupt(Window(np.full(128, FIRST)), Key(0, 0, 0))
    assert len(one) / one.raw == pytest.approx(objective.profile.inputs, abs=2 * block / 128)
    pairs = float(one.visibility.allows(one.fields, one.fields).sum()) / (2 * one.raw) ** 2
    assert allowed(objective.profile.visibility, 256) == pytest.approx(pairs, rel=0.02)


# --- leaks ---------------------------------------------------------------------------------------------------

@torch.no_grad()
def test_what_a_block_is_told_and_what_not():
    """Through a packed row: a prediction changes with clean tokens of earlier blocks and its own noised block only."""
    trained = as_objective(small("diffusion", sharp=4.0), "block-diffusion(block=4)")
    ids = texts(trained, 1, 12)[0].ids
    hidden = places(12, 1, 5, 6, 10)

    def logits(text, blanks=hidden):
        (row,) = pack([trained.objective.blank(text, blanks), trained.objective.blank(ids, hidden)])
        return trained.network.logits(trained.network(row).states[row.asks[0].where])[:4]
    before = logits(ids)
    expected = {0: [0, 1, 2, 3], 1: [1, 2, 3], 3: [0, 1, 2, 3], 4: [1, 2, 3], 5: [3], 7: [1, 2, 3], 8: [3], 10: [],
                11: [3]}
    for place, changing in expected.items():
        other = ids.copy()
        other[place] = 44 + (ids[place] - 44 + 3) % 20
        changed = (logits(other) - before).abs().amax(-1) > 1e-6
        assert changed.nonzero().flatten().tolist() == changing, f"token {place}"


# --- decoding ------------------------------------------------------------------------------------------------

def test_blocks_of_one_write_greedily_from_left_to_right():
    trained = as_objective(small("diffusion", sharp=4.0), "block-diffusion(block=1)")
    prompt = texts(trained, 1, 6)[0].ids.tolist()
    (written,) = generate(trained, [prompt], GenerateConfig(max_new_tokens=5))
    ids, special = list(prompt), torch.from_numpy(trained.vocabulary.special.copy())
    special[trained.vocabulary.eos] = False
    for _ in range(len(written.ids)):
        with torch.no_grad():
            state = trained.network(example(np.array([*ids, trained.vocabulary.mask]), causal)).states[-1:]
            logits = trained.network.logits(state)[0]
        logits[special] = -1e9
        ids.append(int(logits.argmax()))
    assert written.ids == ids[len(prompt):] and len(written.ids) > 0


def test_one_block_is_decoded_as_diffusion():
    plain = small("diffusion", sharp=4.0)
    whole = as_objective(plain, "block-diffusion(block=64)")
    ids = np.where(places(14, 2, 3, 7, 8, 12), plain.vocabulary.mask, texts(plain, 1, 14)[0].ids).tolist()
    one, two = (fill(trained, [ids], GenerateConfig(steps=3)) for trained in (plain, whole))
    assert one[0].ids == two[0].ids and one[0].logprobs == pytest.approx(two[0].logprobs, abs=1e-4)


def test_a_block_is_written_without_what_follows_and_read_by_what_follows():
    trained = as_objective(small("diffusion", sharp=4.0), "block-diffusion(block=4)")
    ids = texts(trained, 1, 16)[0].ids
    blanks = np.where(places(16, 5, 6, 9), trained.vocabulary.mask, ids)
    config = GenerateConfig(begin=False)

    def filled(text):
        return np.array(fill(trained, [text.tolist()], config)[0].ids)
    before = filled(blanks)
    assert (before[blanks != trained.vocabulary.mask] == blanks[blanks != trained.vocabulary.mask]).all()
    later = blanks.copy()
    later[[10, 13]] = 44 + (blanks[[10, 13]] - 43) % 20
    assert (filled(later)[[5, 6]] == before[[5, 6]]).all()
    # the second block is asked with the first one as it was written
    first = np.where(places(16, 9), trained.vocabulary.mask, before)
    assert filled(first)[9] == before[9]
    # in steps: a pass for each of the two blanks of the first block, one for the second's
    assert fill(trained, [blanks.tolist()], config)[0].network_evaluations == 3
    assert fill(trained, [blanks.tolist()], replace(config, steps=1))[0].network_evaluations == 2


def test_texts_of_different_lengths_are_written_together_as_alone():
    trained = as_objective(small("diffusion", sharp=4.0), "block-diffusion(block=3)")
    prompts = [text.ids.tolist() for text in texts(trained, 3, 9)]
    config = GenerateConfig(max_new_tokens=7)
    together = generate(trained, prompts, config)
    assert [one.ids for one in together] == [generate(trained, [prompt], config)[0].ids for prompt in prompts]


def test_an_end_closes_the_text_without_more_passes(monkeypatch):
    trained = as_objective(small("diffusion"), "block-diffusion(block=2)")

    def ending(states, head="tokens"):
        """A network that always says <eos>."""
        always = torch.full((len(states),), trained.vocabulary.eos)
        return torch.nn.functional.one_hot(always, trained.vocabulary.size) * 20.0
    monkeypatch.setattr(trained.network, "logits", ending)
    (written,) = generate(trained, [texts(trained, 1, 6)[0].ids.tolist()], GenerateConfig(max_new_tokens=20))
    assert written.ids == [] and written.stopped_by == "end" and written.network_evaluations <= 2


# --- refusals ------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("spec", "says"), [
    ("block-diffusion(block=0)", "block is 0"), ("block-diffusion(block=2.5)", "must be a whole number"),
    ("block-diffusion(block=True)", "block is True"), ("block-diffusion(schedule=cosin)", "did you mean 'cosine'"),
    ("block-diffusion(smallest_time=1)", "smallest_time is 1"), ("block-diffusion(subs=no)", "subs is 'no'"),
    ("block-diffusion(blocks=2)", "did you mean 'block'"),
])
def test_wrong_options_are_refused(spec, says):
    with pytest.raises(BothwaysError, match=says):
        make(spec, PLAIN)


def test_what_it_does_not_write_is_refused():
    objective = make("block-diffusion", PLAIN)
    with pytest.raises(BothwaysError, match="does not write from left to right"):
        objective.continuation(IDS)
    with pytest.raises(BothwaysError, match="blanks of unknown length"):
        objective.infilling(IDS)
