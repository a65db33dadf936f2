"""No prediction changes with a token that may not be seen, and every one does with a token that may.

For every objective and every stack, through real networks: the visibility says who may look at whom in one layer,
so what a prediction may depend on is that relation followed through all layers. Each input token is replaced in
turn, and the predictions that change are compared with that set exactly, to the bit.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.objectives.shaken import shaken

from bothways.batch import Companion, Example, Key, Vocabulary, Window, pack
from bothways.model import LanguageModel, ModelConfig, Position, Shape
from bothways.objectives import make

PLAIN = Vocabulary.plain(80)
ONE = ["next-token", "masked", "masked-next", "diffusion", "next-token + masked-next", "0.5 next-token then 0.5 masked",
       "prefix", "ul2(roll=true)", "glm", "glm(levels=('token',), places=one, rate=0.4)", "fim", "permuted(k=3)",
       "permuted(k=1, ordered_context=true)", "permuted(k=2, longest=3)", "block-diffusion(block=4)",
       "block-diffusion(block=1)"]
TWO = ["span-corruption(rate=0.3)", "denoising", "ul2(towers=2)", "denoising(noises='rotation, deletion')",
       "text-to-text(rate=0.3)", "text-to-text(form=drop-tokens, rate=0.4)", "text-to-text(form=deshuffling)",
       "text-to-text(form=prefix)", "denoising(languages=('text', 'python'))"]
STACKS = {
    "rotary": {}, "learned": {"position": Position("learned", length=64)},
    "relative": {"position": Position("relative")},
    "disentangled": {"position": Position("disentangled")},
    "near and far layers": {"reach": "LG", "local": 2},
    "near layers": {"reach": "L", "local": 1}, "chunks and all": {"reach": "CG", "chunk": 4},
    "numbers in spans": {"companions": (Companion("span", "embedding", 16),)},
}


def network(objective, stack) -> LanguageModel:
    towers = 2 if objective.stack == "two towers" else 0
    return shaken(ModelConfig(Shape(PLAIN.size, 16, layers=2, source_layers=towers, heads=2), **STACKS[stack]))


def windows(n: int, length: int = 12) -> list[Window]:
    rng = np.random.default_rng(3)
    return [Window(np.concatenate(([PLAIN.bos], rng.integers(44, 80, length - 2 + i), [PLAIN.eos])), i, 0, i)
            for i in range(n)]


def depends(model: LanguageModel, example: Example) -> tuple[torch.Tensor, torch.Tensor | None]:
    """What the visibilities say: (N, N) and (N, M) bool, may state k depend on input j and on source token j?"""
    config = model.config

    def through(visibility, fields, layers):
        """One relation a layer, each including the token itself (the residual stream)."""
        own = torch.eye(len(fields["index"]), dtype=torch.bool)
        return [(visibility & config.reach_of(layer)).allows(fields, fields) | own for layer in range(layers)]

    def chain(relations):
        total = relations[0]
        for relation in relations[1:]:
            total = (relation.double() @ total.double()) > 0
        return total

    layers = through(example.visibility, example.fields, config.shape.layers)
    if example.source is None:
        return chain(layers), None
    source = chain(through(example.source.visibility, example.source.fields, config.shape.source_layers))
    cross = example.cross.allows(example.fields, example.source.fields)
    # a state looks across in every layer, itself or through those it sees in the layers above
    total = torch.zeros_like(cross)
    for layer in range(len(layers)):
        seen = cross
        for relation in layers[layer + 1:]:
            seen = (relation.double() @ seen.double()) > 0
        total |= seen
    return chain(layers), (total.double() @ source.double()) > 0


@torch.no_grad()
def predictions(model: LanguageModel, example: Example) -> torch.Tensor:
    where = torch.cat([ask.where for ask in example.asks])
    return model.logits(model(example).states[where])


def changed(inputs: torch.Tensor, place: int) -> torch.Tensor:
    other = inputs.clone()
    other[place] = 45 if inputs[place] != 45 else 46
    return other


def check(model: LanguageModel, example: Example) -> None:
    """Replace every token in turn; exactly the predictions that may depend on it change."""
    where = torch.cat([ask.where for ask in example.asks])
    before = predictions(model, example)
    own, across = depends(model, example)
    for place in range(len(example)):
        after = predictions(model, replace(example, inputs=changed(example.inputs, place)))
        assert torch.equal((after != before).any(-1), own[where, place]), f"input {place}"
    if example.source is not None:
        for place in range(len(example.source)):
            source = replace(example.source, inputs=changed(example.source.inputs, place))
            after = predictions(model, replace(example, source=source))
            assert torch.equal((after != before).any(-1), across[where, place]), f"source {place}"


@pytest.mark.parametrize("stack", STACKS)
@pytest.mark.parametrize("spec", [*ONE, *TWO])
def test_packed_training_examples_leak_nothing(spec, stack):
    objective = make(spec, PLAIN)
    rows = pack([objective.corrupt(window, Key(0, 0, window.index, window.index / 3)) for window in windows(3)])
    model = network(objective, stack)
    for row in rows:
        check(model, row)


@pytest.mark.parametrize("spec", ["spans(rate=0.3)", "adversarial", "replaced-token(rate=0.3)"])
def test_those_with_a_loss_of_their_own_leak_nothing_either(spec):
    """What their companions see is tested beside them; this is the trunk."""
    objective = make(spec, PLAIN)
    model = network(objective, "near and far layers")
    (row,) = pack([objective.corrupt(window, Key(0, 0, window.index, 0.9)) for window in windows(3)])
    check(model, row)
    for mode in objective.modes:
        check(model, objective.blank(windows(1)[0].ids, np.isin(np.arange(12), [3, 4, 8]), mode))


@pytest.mark.parametrize("stack", ["rotary", "near and far layers"])
@pytest.mark.parametrize("spec", [*ONE, *TWO])
def test_questions_leak_nothing(spec, stack):
    objective, (window,) = make(spec, PLAIN), windows(1)
    model = network(objective, stack)
    hidden = np.isin(np.arange(len(window.ids)), [3, 4, 8])
    for mode in objective.modes:
        check(model, objective.blank(window.ids, hidden, mode))


@pytest.mark.parametrize("spec", [*ONE, *TWO])
def test_the_answers_of_a_question_do_not_change_its_predictions(spec):
    """Other hidden tokens in the *text*: by the chain rule what is asked first stays, otherwise every prediction."""
    objective, (window,) = make(spec, PLAIN), windows(1)
    model = network(objective, "rotary")
    hidden = np.isin(np.arange(len(window.ids)), [3, 4, 8])
    other = np.where(hidden, 44 + (window.ids - 44 + 7) % 36, window.ids)
    for mode in objective.modes:
        one, two = (predictions(model, objective.blank(ids, hidden, mode)) for ids in (window.ids, other))
        chained = mode.likelihood == "exact" or mode.name == "block-causal"
        unchanged = 1 if chained else 3
        assert torch.equal(one[:unchanged], two[:unchanged])
        assert not chained or not torch.equal(one[1], two[1])


@pytest.mark.parametrize("spec", [*ONE, *TWO])
def test_packed_equals_alone(spec):
    objective = make(spec, PLAIN)
    model = network(objective, "rotary")
    examples = [objective.corrupt(window, Key(0, 0, window.index)) for window in windows(4)]
    for row in pack(examples):
        part = row.asks[0].part
        alone = torch.cat([predictions(model, example) for example in examples if example.asks[0].part == part])
        assert torch.allclose(predictions(model, row), alone, atol=1e-10)
