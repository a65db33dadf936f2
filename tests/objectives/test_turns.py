"""Pairs and instruct: answers are asked for and nothing else, in one tower, two, and conversations with thoughts."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.objectives import test_leaks

from bothways import decoding
from bothways.batch import RESERVED_TOKENS, Example, Key, Vocabulary, Window, pack
from bothways.decoding import GenerateConfig
from bothways.errors import BothwaysError
from bothways.families.trained import Trained
from bothways.model import LanguageModel, ModelConfig, Position, Shape
from bothways.objectives import make
from bothways.text.prepare import Prepared, prepare
from bothways.text.tokenizer import Tokenizer, TokenizerConfig
from bothways.training import Record, TrainConfig, train
from bothways.visibility import bidirectional, causal, prefix

A = len(RESERVED_TOKENS)
PLAIN = Vocabulary.plain(A + 40)
BOS, EOS, SEP = PLAIN.bos, PLAIN.eos, PLAIN.sep
THINK, THOUGHT = PLAIN.ids["<think>"], PLAIN.ids["</think>"]
PAIR = np.array([BOS, A, A + 1, A + 2, SEP, A + 3, A + 4, EOS])
TALK = np.array([BOS, A, SEP, A + 1, SEP, A + 2, A + 3, EOS, A + 4, SEP, THINK, A + 5, THOUGHT, A + 6, EOS])
"""A system's and a user's turn, an answer, another question, and an answer with a thought."""
TWO, ONE, TALKS = make("pairs", PLAIN), make("pairs(towers=1)", PLAIN), make("instruct", PLAIN)
ALL = {"two towers": TWO, "prefix": ONE, "instruct": TALKS}


def asked(example: Example) -> list[tuple[int, int]]:
    (ask,) = example.asks
    assert ask.count == len(ask.targets) and ask.weights is None
    return list(zip(ask.where.tolist(), ask.targets.tolist(), strict=True))


# --- by hand ---

def test_a_pair_for_two_towers():
    example = TWO.corrupt(Window(PAIR), Key(0, 0, 0))
    assert example.source.inputs.tolist() == [BOS, A, A + 1, A + 2, EOS]
    assert example.inputs.tolist() == [BOS, A + 3, A + 4]
    assert asked(example) == [(0, A + 3), (1, A + 4), (2, EOS)]
    assert (example.visibility, example.source.visibility, example.cross) == (causal, bidirectional, bidirectional)
    assert example.raw == len(PAIR) and TWO.stack == "two towers" and ONE.stack == "one tower"


def test_a_pair_for_one_tower():
    example = ONE.corrupt(Window(PAIR), Key(0, 0, 0))
    assert example.inputs.tolist() == PAIR.tolist() and example.visibility == prefix
    assert example.fields["prefix"].tolist() == [1, 1, 1, 1, 1, 0, 0, 0]
    assert asked(example) == [(4, A + 3), (5, A + 4), (6, EOS)]


def test_the_last_answer_of_a_conversation_is_the_target_of_a_pair():
    example = TWO.corrupt(Window(TALK), Key(0, 0, 0))
    assert example.source.inputs.tolist() == [*TALK[:9].tolist(), EOS]
    assert [target for _, target in asked(example)] == [THINK, A + 5, THOUGHT, A + 6, EOS]


def test_every_answer_of_a_conversation_is_learned_and_no_question():
    example = TALKS.corrupt(Window(TALK), Key(0, 0, 0))
    assert example.inputs.tolist() == TALK.tolist() and example.visibility == causal
    assert asked(example) == [(4, A + 2), (5, A + 3), (6, EOS), (9, THINK), (10, A + 5), (11, THOUGHT), (12, A + 6),
                              (13, EOS)]


def test_thoughts_may_be_read_only():
    example = make("instruct(thoughts=false)", PLAIN).corrupt(Window(TALK), Key(0, 0, 0))
    assert asked(example) == [(4, A + 2), (5, A + 3), (6, EOS), (12, A + 6), (13, EOS)]


def test_prompts_become_questions():
    words = np.array([A, A + 1])
    assert TALKS.continuation(words).inputs.tolist() == [BOS, A, A + 1, SEP]
    # closed already, in the middle of a conversation, or with a thought begun for the model
    assert TALKS.continuation(PAIR[:5]).inputs.tolist() == PAIR[:5].tolist()
    assert TALKS.continuation(TALK[:9]).inputs.tolist() == [*TALK[:9].tolist(), SEP]
    assert TALKS.continuation(TALK[:11]).inputs.tolist() == TALK[:11].tolist()
    assert TALKS.continuation(np.array([], dtype=int)).inputs.tolist() == [BOS, SEP]
    begun = ONE.continuation(words)
    assert begun.inputs.tolist() == [BOS, A, A + 1, SEP] and begun.fields["prefix"].tolist() == [1] * 4
    for prompt in (words, PAIR[:4], PAIR[:5]):
        begun = TWO.continuation(prompt)
        assert begun.inputs.tolist() == [BOS]
        assert begun.source.inputs.tolist() == [BOS, *prompt[prompt >= A].tolist(), EOS]
    assert {one.decoding for one in ALL.values()} == {"left_to_right"} and all(one.replies for one in ALL.values())


@pytest.mark.parametrize("objective", ALL.values(), ids=ALL)
@pytest.mark.parametrize("places", [[5], [6, 7], [2, 3], [1], list(range(1, 8)), [7], [3, 6]])
def test_a_question_asks_for_the_hidden_tokens_and_shows_none(objective, places):
    hidden = np.isin(np.arange(len(PAIR)), places)
    question = objective.blank(PAIR, hidden)
    (ask,) = question.asks
    assert ask.targets.tolist() == PAIR[hidden].tolist()
    seen = question.visibility.allows(question.fields, question.fields).numpy()
    for place, target in zip(ask.where.tolist(), ask.targets.tolist(), strict=True):
        assert target not in question.inputs.numpy()[seen[place]]
        if question.source is not None and target != EOS:
            assert target not in question.source.inputs.tolist()


@pytest.mark.parametrize("objective", ALL.values(), ids=ALL)
def test_a_question_about_plain_text_is_exact_too(objective):
    """Nothing is asked there; scoring still gives each hidden token once, from those before it."""
    ids = np.array([BOS, *range(A, A + 6), EOS])
    question = objective.blank(ids, np.arange(8) >= 4)
    assert question.asks[0].targets.tolist() == ids[4:].tolist()
    first = objective.blank(ids, np.arange(8) == 0)
    assert len(first.asks[0].targets) == 0


# --- leaks, packing, replay ---

@pytest.mark.parametrize("objective", ALL.values(), ids=ALL)
def test_packed_conversations_leak_nothing(objective):
    model = test_leaks.network(objective, "rotary")
    rows = pack([objective.corrupt(Window(ids, index=i), Key(0, 0, i)) for i, ids in enumerate((PAIR, TALK, PAIR))])
    assert len(rows) == 1
    test_leaks.check(model, rows[0])
    test_leaks.check(model, objective.blank(TALK, np.isin(np.arange(len(TALK)), [5, 6, 13])))


@pytest.mark.parametrize("objective", ALL.values(), ids=ALL)
def test_nothing_is_drawn(objective):
    one, two = (objective.corrupt(Window(TALK), Key(seed, seed, seed)) for seed in (0, 7))
    assert torch.equal(one.inputs, two.inputs) and make(objective.describe(), PLAIN) == objective


def test_one_tower_with_an_empty_source_is_causal():
    """`<bos> <sep> y` through the prefix gives what `instruct` gives."""
    ids = np.array([BOS, SEP, A, A + 1, A + 2, EOS])
    model = test_leaks.network(TALKS, "rotary")
    own, causally = (test_leaks.predictions(model, one.corrupt(Window(ids), Key(0, 0, 0))) for one in (ONE, TALKS))
    assert own.shape == causally.shape
    # <bos> sees <sep> in the prefix, and <sep> is otherwise as it was
    one_layer = ONE.corrupt(Window(ids[1:]), Key(0, 0, 0))
    assert torch.allclose(test_leaks.predictions(model, one_layer),
                          test_leaks.predictions(model, TALKS.corrupt(Window(ids[1:]), Key(0, 0, 0))))


# --- refusals ---

@pytest.mark.parametrize("spec, says", [("pairs(towers=3)", "towers is 3"), ("pairs(towers=true)", "towers is True"),
                                        ("instruct(thoughts=2)", "thoughts is 2")])
def test_refusals(spec, says):
    with pytest.raises(BothwaysError, match=says):
        make(spec, PLAIN)


@pytest.mark.parametrize("objective", ALL.values(), ids=ALL)
def test_a_text_without_a_question_is_refused(objective):
    with pytest.raises(BothwaysError, match="found a text without a question"):
        objective.corrupt(Window(np.array([BOS, A, EOS])), Key(0, 0, 0))


# --- from a file to an answer ---

QUESTIONS = {"red": "apple", "green": "leaf", "blue": "sky", "black": "night", "white": "snow"}


@pytest.fixture(scope="module")
def talks(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    folder = tmp_path_factory.mktemp("talks")
    rows = [{"instruction": f"What is {colour}?", "thought": f"{colour} {thing}", "response": f"A {thing} {mark}."}
            for mark in "abcdefgh" for colour, thing in QUESTIONS.items()]
    (folder / "talks.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return prepare(folder / "talks.jsonl", folder / "text", tokenizer=TokenizerConfig("bpe", 400), window=64,
                   held_out=0.1, cut="turns")


@pytest.mark.parametrize("spec", ["pairs", "pairs(towers=1)", "instruct", "instruct(thoughts=false)",
                                  "0.5 instruct + 0.5 pairs(towers=1)"])
def test_a_run_on_conversations(spec, talks: Prepared, tmp_path: Path):
    config = TrainConfig(model=ModelConfig(Shape(width=16, layers=2, heads=2)), objective=spec, budget="3 steps",
                         batch_tokens=128, record=Record(held_out_tokens=64), device="cpu")
    assert train(config, talks, tmp_path / "run", show=True).steps == 3


def test_a_text_that_was_cut_is_refused_before_training(tmp_path: Path):
    (tmp_path / "corpus.txt").write_text("Some words here. " * 600)
    plain = prepare(tmp_path / "corpus.txt", tmp_path / "text", tokenizer=TokenizerConfig("bytes"), window=64)
    for spec in ("instruct", "pairs"):
        with pytest.raises(BothwaysError, match="was cut by 'tokens'"):
            train(TrainConfig(objective=spec, budget="3 steps"), plain, tmp_path / spec, show=False)


def learned(spec: str, tokenizer: Tokenizer, texts: list[str], steps: int = 50) -> Trained:
    """A small model that knows these conversations by heart."""
    objective = make(spec, tokenizer.vocabulary)
    torch.manual_seed(0)
    towers = 1 if objective.stack == "two towers" else 0
    network = LanguageModel(ModelConfig(Shape(tokenizer.size, 32, 2, towers, 2), position=Position(length=64)))
    windows = [Window(np.array([tokenizer.vocabulary.bos, *tokenizer.encode(text), tokenizer.vocabulary.eos]))
               for text in texts]
    with torch.no_grad():  # large enough to tell sources apart from the first step
        for weight in network.parameters():
            if weight.dim() > 1:
                weight.normal_(0, 0.2)
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-2)
    rows = pack([objective.corrupt(window, Key(0, 0, 0)) for window in windows])
    for _ in range(steps):
        loss = sum(part.sum / part.count for row in rows for part in objective.parts(network, row))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert float(loss.detach()) < 0.05
    return Trained(network.eval(), objective, tokenizer)


@pytest.mark.parametrize("spec", ["pairs", "pairs(towers=1)", "instruct"])
def test_what_was_learned_is_answered(spec):
    texts = [f"{colour} ? <sep> the {thing}" for colour, thing in QUESTIONS.items()]
    tokenizer = Tokenizer.words(" ".join(texts))
    trained = learned(spec, tokenizer, texts)
    prompts = [tokenizer.encode(f"{colour} ?") for colour in QUESTIONS]
    for cached in (True, False):
        written = decoding.generate(trained, prompts, GenerateConfig(max_new_tokens=8, cached=cached))
        assert [one.text for one in written] == [f"the {thing}" for thing in QUESTIONS.values()]
        assert {one.stopped_by for one in written} == {"end"}


# --- thoughts in what is written ---

@pytest.fixture(scope="module")
def thinker() -> Trained:
    texts = [f"{colour} ? <sep> <think> I see {colour} and {thing} </think> the {thing}"
             for colour, thing in QUESTIONS.items()]
    return learned("instruct", Tokenizer.words(" ".join(texts)), texts)


def write(trained: Trained, text: str, **options: object):
    return decoding.generate(trained, [trained.tokenizer.encode(text)], GenerateConfig(max_new_tokens=20, **options))[0]


def test_a_thought_is_shown_hidden_or_given_apart(thinker: Trained):
    shown, hidden = (write(thinker, "blue ?", hide_thought=hide) for hide in (False, True))
    assert shown.ids == hidden.ids and shown.stopped_by == "end"
    assert shown.text == "<think> I see blue and sky </think> the sky"
    assert hidden.text == "the sky"
    assert shown.thought == hidden.thought == "I see blue and sky"
    pieces = "".join(decoding.stream(thinker, thinker.tokenizer.encode("blue ?"),
                                     GenerateConfig(max_new_tokens=20, hide_thought=True)))
    assert pieces == "the sky"


@pytest.mark.parametrize("budget", [1, 2, 3, 4])
@pytest.mark.parametrize("cached", [True, False])
def test_a_thought_ends_when_its_tokens_are_spent(thinker: Trained, budget, cached):
    opened, closed = thinker.objective.thought
    written = write(thinker, "blue ?", think_tokens=budget, cached=cached)
    assert written.ids[0] == opened and written.ids[budget + 1] == closed
    assert written.ids.count(opened) == written.ids.count(closed) == 1
    free = write(thinker, "blue ?")
    assert written.ids[:budget + 1] == free.ids[:budget + 1]
    assert write(thinker, "blue ?", think_tokens=5).ids == write(thinker, "blue ?", think_tokens=50).ids == free.ids


def test_no_thought_at_all(thinker: Trained):
    written = write(thinker, "blue ?", think_tokens=0)
    assert written.thought is None and not set(written.ids) & set(thinker.objective.thought)
    # one that the prompt began is closed at once
    opened = write(thinker, "blue ? <sep> <think> I", think_tokens=0)
    assert opened.ids[0] == thinker.objective.thought[1]


def test_a_thought_that_the_prompt_began_goes_on(thinker: Trained):
    written = write(thinker, "blue ? <sep> <think>")
    assert written.text == "I see blue and sky </think> the sky"
    assert write(thinker, "blue ? <sep> <think>", hide_thought=True).text == "the sky"
    assert write(thinker, "blue ? <sep> <think>", think_tokens=2).ids[2] == thinker.objective.thought[1]


def test_budgets_are_each_text_s_own(thinker: Trained):
    prompts = [thinker.tokenizer.encode(text) for text in ("blue ?", "red ? <sep> <think> I see", "green ?")]
    config = GenerateConfig(max_new_tokens=20, think_tokens=3)
    together = decoding.generate(thinker, prompts, config)
    alone = [decoding.generate(thinker, [prompt], config)[0] for prompt in prompts]
    assert [one.ids for one in together] == [one.ids for one in alone]


def test_marks_cannot_come_where_they_mean_nothing(thinker: Trained):
    """At a temperature at which anything comes, thoughts still open before they close, one at a time."""
    opened, closed = thinker.objective.thought
    for seed in range(12):
        ids = write(thinker, "blue ?", temperature=30.0, seed=seed, think_tokens=4).ids
        marks = [token for token in ids if token in (opened, closed)]
        assert marks == ([opened, closed] * 10)[:len(marks)]
        for place in (i for i, token in enumerate(ids) if token == opened):
            assert closed in ids[place:place + 6] or len(ids) < place + 6


@pytest.mark.parametrize("options", [{"think_tokens": 3}, {"hide_thought": True}])
def test_models_that_never_think_say_so(options):
    tokenizer = Tokenizer.words("a b c")
    network = LanguageModel(ModelConfig(Shape(tokenizer.size, 16, 2, heads=2)))
    trained = Trained(network.eval(), make("next-token", tokenizer.vocabulary), tokenizer)
    with pytest.raises(BothwaysError, match=f"writes no thoughts: leave {next(iter(options))} out"):
        write(trained, "a", **options)
    with pytest.raises(BothwaysError, match="think_tokens is -1"):
        GenerateConfig(think_tokens=-1)
