"""Hidden thoughts: within their budget, told apart from the answer, and never in what is shown or streamed."""

from __future__ import annotations

import pytest
from tests.evaluation.small import small

from bothways.api import Model
from bothways.decoding import GenerateConfig, generate


def thinker() -> Model:
    return Model(small("instruct", sharp=2.0))


@pytest.mark.parametrize("budget", [0, 1, 5])
@pytest.mark.parametrize("seed", range(6))
def test_a_thought_keeps_its_budget_and_stays_out_of_the_answer(budget: int, seed: int) -> None:
    model = thinker()
    opens, closes = model.vocabulary.ids["<think>"], model.vocabulary.ids["</think>"]
    options = {"temperature": 1.0, "seed": seed, "think_tokens": budget, "logit_bias": ((opens, 8.0), (closes, -2.0))}
    asked = model.tokenizer.encode("cat sees w1")
    whole, hidden = (generate(model.trained, [asked], GenerateConfig(24, hide_thought=hide, **options))[0]
                     for hide in (False, True))
    # 1. the same is written, whatever is shown of it
    assert whole.ids == hidden.ids and whole.thought == hidden.thought
    marks = [number for number, token in enumerate(whole.ids) if token in (opens, closes)]
    assert [whole.ids[number] for number in marks] == [opens, closes] * (len(marks) // 2) + [opens] * (len(marks) % 2)
    assert all(close - open_ - 1 <= budget for open_, close in zip(marks[::2], marks[1::2]))
    assert bool(marks) == (budget > 0), "the bias opens a thought wherever one may begin"
    # 2. what is shown holds no word of it, marks included
    inside, answer = False, []
    for token in hidden.ids:
        inside = (inside or token == opens) and token != closes
        answer += [token] * (not inside and token not in (opens, closes))
    assert (hidden.text or "").split() == model.tokenizer.decode(answer).split()
    assert "think" not in (hidden.text or "") and ("<think>" in (whole.text or "")) == (budget > 0)
    # 3. nor does what is streamed
    pieces = list(model.generate("cat sees w1", 24, stream=True, hide_thought=True, **options))
    assert "".join(pieces) == hidden.text
