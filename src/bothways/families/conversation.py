"""A conversation as the tokens that a model reads, ready for its answer: by its chat template, or in our own format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bothways.errors import BothwaysError
from bothways.families.foreign import ForeignTokenizer
from bothways.families.trained import Trained
from bothways.text.turns import ASSISTANT, Turn, pieces


def has_template(trained: Trained) -> bool:
    """Whether the folder says in a template how conversations are told."""
    return isinstance(trained.tokenizer, ForeignTokenizer) and isinstance(
        trained.tokenizer.settings.get("chat_template"), str)


def conversation(trained: Trained, messages: Sequence[Mapping[str, str]]) -> list[int]:
    """The tokens of {"role": ..., "content": ...} turns, up to where the next answer begins.

    Raises:
        BothwaysError: neither a template nor an objective that answers, a template that refuses the turns, or turns
            that end with an answer.
    """
    if isinstance(trained.tokenizer, ForeignTokenizer) and has_template(trained):
        # the template holds what begins a text
        return trained.tokenizer.encode(trained.tokenizer.chat(messages))
    if not trained.objective.replies:
        raise BothwaysError("this model has no chat template and was not trained to answer: call `generate`, or tune "
                            "it (`bothways tune --task instruct`)")
    turns = [Turn(one["content"], one["role"].lower() in ASSISTANT) for one in messages]
    if not turns or turns[-1].answers:
        raise BothwaysError("the last turn of a conversation must be a question, since its answer is to be written")
    return encoded(trained, pieces(turns, trained.vocabulary))


def answer_tokens(trained: Trained, answer: str) -> list[int]:
    """The tokens of an answer and its `<eos>`; in our own format `<think> ... </think>` is a thought."""
    if has_template(trained):
        return [*trained.tokenizer.encode(answer), trained.vocabulary.eos]
    return encoded(trained, pieces([Turn(answer, True)], trained.vocabulary)[1:])


def encoded(trained: Trained, parts: Sequence[str | int]) -> list[int]:
    """Texts as plain tokens, and ids as they are."""
    return [token for part in parts for token in (
        [part] if isinstance(part, int) else trained.tokenizer.encode(part, reserved=False))]
