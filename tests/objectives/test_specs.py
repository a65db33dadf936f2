"""Naming an objective: strings, mappings, files of one's own; and every mistake as one sentence."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from bothways.batch import RESERVED_TOKENS, Key, Vocabulary, Window, pack
from bothways.errors import BothwaysError
from bothways.model import LanguageModel, ModelConfig, Shape
from bothways.objectives import known, make
from bothways.objectives.options import need_sentences
from bothways.training.data import corrupted

PLAIN = Vocabulary.plain(100)
RESERVED = len(RESERVED_TOKENS)
STATIC = {"phrases": False, "copies": None}


@pytest.mark.parametrize("spec, described", [
    ("next-token", {"name": "next-token"}),
    ("masked(rate=0.3)",
     {"name": "masked", "rate": 0.3, "replace": "80-10-10", "whole_words": False, "asked": 1.0, **STATIC}),
    (" masked( rate = 0.3, replace=all, whole_words=true ) ",
     {"name": "masked", "rate": 0.3, "replace": "all", "whole_words": True, "asked": 1.0, **STATIC}),
    ("masked(replace=80-10-10)",
     {"name": "masked", "rate": 0.15, "replace": "80-10-10", "whole_words": False, "asked": 1.0, **STATIC}),
    ({"name": "masked-next", "rate": [0.3, 0.15]},
     {"name": "masked-next", "rate": (0.3, 0.15), "whole_words": False, "asked": 1.0, **STATIC}),
    ({"name": "span-corruption(rate=0.5)", "mean_span": 8},
     {"name": "span-corruption", "rate": 0.5, "mean_span": 8, "roll": False}),
    ("diffusion()", {"name": "diffusion", "smallest_time": 0.001, "schedule": "linear", "subs": False, "cut": 0.0}),
])
def test_a_spec_and_its_description(spec, described):
    assert make(spec, PLAIN).describe() == described


@pytest.mark.parametrize("spec", [*(name for name in known() if name != "mixture"), "next-token + masked-next",
                                  "0.25 next-token then 0.75 masked(rate=(0.3, 0.15), replace=all)"])
def test_a_description_gives_the_objective_back_through_json(spec):
    vocabulary = replace(PLAIN, ends_sentence=~PLAIN.special)
    objective = make(spec, vocabulary)
    assert make(objective.describe(), vocabulary) == objective
    assert make(json.loads(json.dumps(objective.describe())), vocabulary) == objective
    assert hash(objective) == hash(make(spec, vocabulary))


@pytest.mark.parametrize("name", known())
def test_every_objective_says_what_it_is_and_where_it_comes_from(name):
    kind = known()[name]
    assert kind.name == name and kind.summary and ("arXiv" in kind.source or name == "next-token")
    assert kind.__doc__ and len(kind.__doc__) > 100


@pytest.mark.parametrize("spec, says", [
    ("maskd", "unknown objective 'maskd' \\(did you mean 'masked'\\?"),
    ("masked(rat=0.3)", "no option 'rat' \\(did you mean 'rate'\\?"),
    ({"name": "masked", "rat": 1, "repl": 2}, "no option 'rat'.*no option 'repl'"),
    ("next-token(rate=0.3)", "'next-token' has no options"),
    ("masked(rate=1.5)", "rate is 1.5, but must be a number between 0 and 1"),
    ("masked(rate=0)", "rate is 0, but must be"),
    ("masked(rate=lots)", "rate is 'lots'"),
    ("masked(rate=(0.3, 0.2, 0.1))", "a schedule is two rates"),
    ("masked(rate=(0.3, 2))", "rate is 2"),
    ("masked(replace=some)", "replace is 'some', but must be 'all' or three percentages"),
    ("masked(replace=80-10-20)", "add up to 100"),
    ("masked(whole_words=3)", "whole_words is 3, but must be true or false"),
    ("masked(0.3)", "need names"),
    ("masked(rate=)", "cannot read the options"),
    ("masked(rate=0.1, asked=0.5, rate=0.2)", "name rate twice: leave one out"),
    ("masked(rate=0.3", "cannot read the objective"),
    ("span-corruption(mean_span=0.5)", "mean_span is 0.5, but must be a number of at least 1"),
    ("diffusion(smallest_time=0)", "smallest_time is 0"), ("diffusion(schedule=cosin)", "did you mean 'cosine'"),
    ("diffusion(subs=1)", "subs is 1"), ("diffusion(cut=1)", "cut is 1"), ("diffusion(cut=-0.1)", "cut is -0.1"),
    ("", "an objective is a name"),
    (3, "an objective is a name"),
    ({"rate": 0.3}, "a mapping with a name"),
    ("mine.py", "there is no file mine.py"),
    ("nowhere/mine.py:Mine", "there is no file nowhere/mine.py"),
])
def test_mistakes_are_one_sentence(spec, says):
    with pytest.raises(BothwaysError, match=says) as error:
        make(spec, PLAIN)
    assert "\n" not in str(error.value) and error.value.exit_code == 2


@pytest.mark.parametrize("name", [name for name in known() if name != "mixture"])
def test_every_token_that_an_objective_needs_is_asked_for(name):
    wordy = replace(PLAIN, ends_sentence=np.arange(PLAIN.size) == 99)
    make(name, wordy)
    for token in known()[name].tokens:
        poor = replace(wordy, ids={other: i for other, i in wordy.ids.items() if other != token})
        with pytest.raises(BothwaysError, match=f"'{name}' writes {token}, which this tokenizer does not have: add it"):
            make(name, poor)


def test_a_mixture_works_on_sentences_where_a_member_does():
    wordy = replace(PLAIN, ends_sentence=np.arange(PLAIN.size) == 99)
    for spec, needs in (("masked + glm(levels=('sentence', 'token'))", True), ("next-token + masked", False),
                        ("denoising", False), ("denoising(noises='masking | sentence-permutation')", True)):
        assert make(spec, wordy).needs_sentences == needs
    # the last token ends the text, and no sentence inside it
    with pytest.raises(BothwaysError, match="'glm' works on sentences, and none ends"):
        need_sentences("glm", wordy, [np.array([50, 51, 99])])
    need_sentences("glm", wordy, [np.array([50, 51]), np.array([50, 99, 51])])


def test_a_tokenizer_without_a_needed_token_is_refused():
    poor = replace(PLAIN, ids={name: i for name, i in PLAIN.ids.items() if name != "<mask>"})
    with pytest.raises(BothwaysError, match="'masked' writes <mask>, which this tokenizer does not have"):
        make("masked", poor)
    make("next-token", poor)
    with pytest.raises(BothwaysError, match="only reserved ones"):
        make("masked", Vocabulary.plain(len(RESERVED_TOKENS)))


@pytest.mark.parametrize("name, options", [
    ("masked", {"rate": 0.15, "replace": "80-10-10"}),
    ("sentence-pairs", {"rate": 0.15, "replace": "80-10-10", "asks": "next-sentence"}),
    ("spans", {"rate": 0.15, "ends": 0.2, "longest": 10, "replace": "80-10-10", "boundary": 1}),
    ("replaced-token", {"rate": 0.15, "weight": 50}),
    ("span-corruption", {"rate": 0.15, "mean_span": 3}),
    ("text-to-text", {"form": "iid", "rate": 0.15}),
    ("denoising", {"noises": "sentence-permutation, infilling", "rate": 0.3, "mean_span": 3}),
    ("prefix", {"share": "uniform"}),
    ("ul2", {"denoisers": (("R", 3, 0.15), ("R", 8, 0.15), ("S", None, 0.25), ("X", 3, 0.5), ("X", 8, 0.5),
                           ("X", 64, 0.15), ("X", 64, 0.5))}),
    ("glm", {"levels": ("token", "document"), "rate": 0.15, "mean_span": 3, "places": "two"}),
    ("fim", {"rate": 0.5, "spm": 0.5}),
    ("permuted", {"k": 6}),
    ("diffusion", {"schedule": "linear"}),
])
def test_the_numbers_it_begins_with_are_the_paper_s(name, options):
    made = make(name, replace(PLAIN, ends_sentence=np.arange(PLAIN.size) == 99)).describe()
    assert {option: made[option] for option in options} == options


RECIPES = sorted((Path(__file__).parents[2] / "recipes" / "objectives").glob("*.yaml"))


@pytest.mark.parametrize("path", RECIPES, ids=[path.stem for path in RECIPES])
def test_every_recipe_is_an_objective(path):
    wordy = replace(PLAIN, ends_sentence=np.arange(PLAIN.size) == 99)
    objective = make(str(path), wordy)
    assert make(objective.describe(), wordy) == objective
    assert str(path.relative_to(path.parents[2])) in path.read_text()


@pytest.mark.parametrize("path", RECIPES, ids=[path.stem for path in RECIPES])
def test_every_recipe_learns(path):
    """A smoke run: ten steps on one batch, of a network too small for more, lower its loss."""
    wordy = replace(PLAIN, ends_sentence=np.arange(PLAIN.size) % 9 == 0)
    objective, rng = make(str(path), wordy), np.random.default_rng(0)
    text = [Window(np.concatenate(([wordy.bos], rng.integers(RESERVED, wordy.size, 40), [wordy.eos])), i, 0, i)
            for i in range(8)]
    rows = pack(corrupted(objective, text, window, Key(0, 0, window.index, 0.5)) for window in text)
    torch.manual_seed(0)
    towers = 1 if objective.stack == "two towers" else 0
    network = LanguageModel(ModelConfig(Shape(wordy.size, 16, layers=1, source_layers=towers, heads=2),
                                        companions=objective.companions))
    optimiser, losses = torch.optim.Adam(network.parameters(), 0.02), []
    for _ in range(10):
        loss = sum(part.coefficient * part.sum / part.count for row in rows for part in objective.parts(network, row))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.1


@pytest.mark.parametrize("content, says", [("a: [", "line 1 is not YAML"), ("- masked", "must hold a mapping"),
                                           ("name: maskd", "did you mean 'masked'"), (None, "No such file")])
def test_mistakes_in_a_recipe(tmp_path, content, says):
    file = tmp_path / "mine.yaml"
    if content is not None:
        file.write_text(content)
    with pytest.raises(BothwaysError, match=says):
        make(str(file), PLAIN)


MINE = '''
from dataclasses import dataclass
import numpy as np
from bothways.batch import Vocabulary
from bothways.objectives import Mode, Objective, Profile
from bothways.objectives.base import ask, example
from bothways.visibility import causal

@dataclass(frozen=True)
class EveryOther(Objective):
    """Next token, but only every `step`-th is asked for."""
    vocabulary: Vocabulary
    step: int = 2
    name = "every-other"
    summary = "ask for every other token"
    source = "this test"
    decoding = "left_to_right"

    @property
    def modes(self):
        return (Mode("causal", causal, "next", "exact"),)

    @property
    def profile(self):
        return Profile(causal, asked=1 / self.step)

    def corrupt(self, window, key):
        where = np.arange(0, len(window.ids) - 1, self.step)
        return example(window.ids, causal, [ask(where, window.ids[where + 1])])

    def blank(self, ids, hidden, mode=None):
        places = np.flatnonzero(hidden[1:])
        return example(ids, causal, [ask(places, ids[places + 1])])

@dataclass(frozen=True)
class Half(Objective):
    vocabulary: Vocabulary
    name = "half"

class Other:
    pass
'''


def test_an_objective_in_a_file_of_ones_own(tmp_path, monkeypatch):
    file = tmp_path / "mine.py"
    file.write_text(MINE)
    objective = make(f"{file}:EveryOther(step=3)", PLAIN)
    assert objective.describe() == {"name": f"{file}:EveryOther", "step": 3}
    assert make(objective.describe(), PLAIN) == objective
    example = objective.corrupt(Window(np.arange(44, 54)), Key(0, 0, 0))
    assert example.asks[0].targets.tolist() == [45, 48, 51]
    # a path relative to where the training was started is found again from elsewhere
    monkeypatch.chdir(tmp_path)
    assert make("mine.py:EveryOther(step=3)", PLAIN).describe() == objective.describe()
    mixture = make(f"{file}:EveryOther + masked-next", PLAIN)
    assert mixture.names == ("every-other", "masked-next")
    assert make(mixture.describe(), PLAIN) == mixture


@pytest.mark.parametrize("ending, says", [
    ("", "say which class"), (":Evry", "no class 'Evry'.*'EveryOther'|known: EveryOther"),
    (":Other", "not a subclass"), (":Half", "does not define blank, corrupt, modes, profile"),
    (":EveryOther(stp=1)", "no option 'stp' \\(did you mean 'step'"),
])
def test_mistakes_in_ones_own_file(tmp_path, ending, says):
    file = tmp_path / "mine.py"
    file.write_text(MINE)
    with pytest.raises(BothwaysError, match=says):
        make(f"{file}{ending}", PLAIN)


@pytest.mark.parametrize("content, says", [("def (", "line 1 fails when imported: SyntaxError"),
                                           ("import nothing_like_this", "ModuleNotFoundError")])
def test_a_file_that_cannot_be_imported(tmp_path, content, says):
    file = tmp_path / "broken.py"
    file.write_text(content)
    with pytest.raises(BothwaysError, match=says):
        make(f"{file}:Mine", PLAIN)
