"""Turns: text in which somebody asks and somebody answers, as one sequence of tokens.

    <bos> question <sep> answer <eos> question <sep> answer <eos>

An answer is closed by `<eos>`; everything else (an instruction, what a system is told, a source to be rewritten) by
`<sep>`. So objectives find the answers without being told, a pair is a conversation of one question, and the `<eos>`
that ends an answer is the one that a model writes. A thought stands in its answer, between `<think>` and `</think>`.
These marks are reserved tokens: the same letters in a question are plain text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from bothways.batch import Vocabulary
from bothways.errors import BothwaysError

QUESTIONS = ("instruction", "prompt", "question", "source", "input")
"""The fields of a record that hold what is asked, the first there is; `input` beside an instruction goes below it."""
ANSWERS = ("response", "answer", "completion", "target", "output")
"""The fields that hold what is answered."""
THOUGHTS = ("thought", "reasoning")
"""The fields that hold a thought, which goes before the answer."""
ASSISTANT = ("assistant", "model", "gpt", "bot")
"""The roles of `messages` that answer; every other one asks."""
OPEN, CLOSE = "<think>", "</think>"
_THOUGHT = re.compile(r"<think>(.*?)</think>", re.DOTALL)


class Turn(NamedTuple):
    """What one side says, and whether it is an answer."""

    text: str
    answers: bool


def turns_of(record: Mapping[str, object], where: str) -> tuple[Turn, ...]:
    """The turns of a record of JSON lines, CSV or a data set.

    Taken are `messages` (or `conversations`), a list of {role, content} (or {from, value}), and one question and one
    answer in two fields, such as instruction and response, source and target, or prompt and completion.

    Raises:
        BothwaysError: neither is there, a turn is no text, or the last turn is no answer; each names the place.
    """
    listed = record.get("messages", record.get("conversations"))
    if listed is not None:
        turns = tuple(_message(one, where) for one in listed) if isinstance(listed, Sequence) else ()
        if not turns or not turns[-1].answers:
            raise BothwaysError(f"{where}: the last of the messages must be the assistant's, since answers are what is "
                                "learned: complete the conversation or leave it out")
        return turns
    question = next((name for name in QUESTIONS if name in record), None)
    answer = next((name for name in ANSWERS if name in record), None)
    if question is None or answer is None:
        raise BothwaysError(f"{where}: no messages, and no question and answer (such as instruction and response, or "
                            f"source and target); there are: {', '.join(record)}")
    asked = _text(record, question, where)
    if question != "input" and isinstance(record.get("input"), str) and str(record["input"]).strip():
        asked = f"{asked}\n\n{record['input']}"
    thought = next((_text(record, name, where) for name in THOUGHTS if record.get(name)), None)
    said = _text(record, answer, where)
    return Turn(asked, False), Turn(said if thought is None else f"{OPEN}{thought}{CLOSE}{said}", True)


def pieces(turns: Sequence[Turn], vocabulary: Vocabulary) -> list[str | int]:
    """Texts to be encoded, and ids of reserved tokens, in the order of the sequence.

    Spaces around texts go; in an answer, and only there, `<think> ... </think>` is a thought.
    """
    found: list[str | int] = [vocabulary.bos]
    for turn in turns:
        if turn.answers:
            for place, part in enumerate(_THOUGHT.split(turn.text)):
                thinks, said = place % 2 == 1, [part.strip()] if part.strip() else []
                found += [vocabulary.ids[OPEN], *said, vocabulary.ids[CLOSE]] if thinks else said
        else:
            found.append(turn.text.strip())
        found.append(vocabulary.eos if turn.answers else vocabulary.sep)
    return found


def _message(message: object, where: str) -> Turn:
    if not isinstance(message, Mapping):
        raise BothwaysError(f"{where}: a message is a mapping of role and content, not {type(message).__name__}")
    role = message.get("role", message.get("from"))
    text = message.get("content", message.get("value"))
    if not isinstance(role, str) or not isinstance(text, str):
        raise BothwaysError(f"{where}: a message needs a role and a content that is text, but has: "
                            f"{', '.join(map(str, message))}")
    return Turn(text, role.lower() in ASSISTANT)


def _text(record: Mapping[str, object], field: str, where: str) -> str:
    value = record[field]
    if not isinstance(value, str):
        raise BothwaysError(f"{where}: field '{field}' holds {type(value).__name__}, and text is wanted")
    return value
