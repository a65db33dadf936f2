"""Answering instructions and conversations: only answers are learned, told as the folder tells them.

A folder with a chat template is tuned with it; any other learns our own format, that of the objective `instruct` (one
tower) or `pairs` (two), and answers in `bothways chat` afterwards. Each answer of a conversation is learned given all
that was said before, exactly as it will be asked for (InstructGPT, arXiv 2203.02155, section 3.5).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np
from torch import Tensor

from bothways import objectives
from bothways.errors import BothwaysError
from bothways.evaluation.questions import Way
from bothways.evaluation.rows import TOKENS
from bothways.evaluation.score import Score, Stopwatch, mean_score
from bothways.families.conversation import answer_tokens, conversation, has_template
from bothways.families.extend import extend_vocabulary
from bothways.model.fitted import fitted
from bothways.objectives.answers import MARKS, THOUGHT
from bothways.tasks import base, rows
from bothways.tasks.asking import Asked, loss, nats, questions
from bothways.tasks.rewrite import LOOKED_AT, TOGETHER, writing_way
from bothways.tasks.rows import BadRow, Role
from bothways.tasks.tuning import TuneConfig, tune
from bothways.text.turns import ASSISTANT

if TYPE_CHECKING:
    from bothways.families.trained import Trained

Message = dict[str, str]
"""{"role": "user", "content": "..."}; the other roles are "system" and "assistant"."""


class Row(NamedTuple):
    """What was said, ending with a question, and the answer to it, or none where it is not known."""

    messages: tuple[Message, ...]
    answer: str | None = None


@dataclass(frozen=True)
class Options:
    """How questions are answered."""

    answer: int = 128
    """Tokens of an answer, its end counted; longer ones are cut. What was said before is read up to --longest, the
    oldest tokens left out first."""

    def __post_init__(self) -> None:
        if self.answer < 1:
            raise BothwaysError(f"answer is {self.answer}, but must be at least 1")


class Task(base.Task):
    """A network that answers, and how long what it reads and writes may be."""

    kind = "instruct"
    Options = Options
    roles = (Role("instruction", ("instruction", "prompt", "question"), optional=True),
             Role("input", ("input", "context"), optional=True),
             Role("system", ("system",), optional=True),
             Role("messages", ("messages", "conversations", "turns"), optional=True),
             Role("instances", ("instances",), optional=True),
             Role("output", ("output", "response", "answer", "completion"), answer=True, optional=True))
    trained: Trained

    def __init__(self, trained: Trained, options: Any, longest: int) -> None:
        way = writing_way(trained)
        if way is None or way.kind != "exact":
            raise BothwaysError(f"a model trained by '{trained.objective.name}' does not write from left to right: "
                                "tune a causal, prefix or encoder-decoder model to answer")
        self.trained, self.options, self.longest, self.way = trained, options, longest, way

    # --- 1. rows ---

    @classmethod
    def row(cls, values: Mapping[str, Any]) -> Row:
        system = [] if not values.get("system") else [
            {"role": "system", "content": rows.text(values["system"], "system prompt")}]
        if values.get("messages") is not None:
            return _of_messages(values["messages"], system)
        below, answer = values.get("input"), values.get("output")
        if values.get("instances"):
            below, answer = _of_instances(values["instances"])
        if values.get("instruction") is None:
            raise BadRow("no messages, and no instruction")
        asked = rows.text(values["instruction"], "instruction")
        if isinstance(below, str) and below.strip():
            asked = f"{asked}\n\n{below}"
        return Row((*system, {"role": "user", "content": asked}),
                   None if answer is None else rows.text(answer, "output"))

    @classmethod
    def key(cls, row: Row) -> str:
        return "\n".join(one["content"] for one in row.messages)

    # --- 2. to 5. tuning, answers, scores ---

    @classmethod
    def fit(cls, trained: Trained | None, train: Sequence[Row], dev: Sequence[Row], options: Any, config: TuneConfig,
            watch: base.Watch | None = None) -> Self:
        # 1. a copy of the network, in a format in which it can be asked
        found = cls.untuned(trained, options, config)
        # 2. every answer given what was said before
        asked = found.asked_of(train)
        if not asked:
            raise BothwaysError("answering needs questions with answers to learn from: give some")
        kept = found.asked_of(dev[:LOOKED_AT])

        def loss_of(places: list[int], step: int) -> Tensor:
            return loss(found.trained, questions(found.way, [asked[place] for place in places], step, config.seed,
                                                 places))

        # 3. the loop
        tune(found.trained.network, None, len(asked), loss_of, config, watch, lengths=[len(ids) for ids, _ in asked],
             judge=(lambda: -found._nll(kept).value) if kept else None)
        return found

    @classmethod
    def untuned(cls, trained: Trained | None, options: Any, config: TuneConfig) -> Self:
        if trained is None:
            raise BothwaysError("answering tunes a network: say which (--from)")
        known = _answering(replace(trained, network=copy.deepcopy(trained.network)))
        room = known.config.position.length - options.answer
        if room < 3:
            raise BothwaysError(f"an answer of {options.answer} tokens leaves no room for a question in the "
                                f"{known.config.position.length} places of this network: lower --answer")
        return cls(known, options, min(config.longest, room))

    def asked_of(self, some: Sequence[Row]) -> list[Asked]:
        """Of every answer the tokens up to its end, and which of them are the answer's."""
        found = []
        for row in some:
            said = [*row.messages, *([] if row.answer is None else [{"role": "assistant", "content": row.answer}])]
            for place, one in enumerate(said):
                if one["role"] == "assistant" and place:
                    answer = answer_tokens(self.trained, one["content"])
                    # a cut answer keeps its end
                    answer = [*answer[:-1][:self.options.answer - 1], answer[-1]]
                    prompt = self.prompt(said[:place])
                    ids = np.array([*prompt, *answer], dtype=np.int64)
                    found.append((ids, np.arange(len(ids)) >= len(prompt)))
        return found

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        """What was said as tokens: the first, and the last ones that there is room for."""
        ids = conversation(self.trained, messages)
        return ids if len(ids) <= self.longest else [ids[0], *ids[len(ids) - self.longest + 1:]]

    def predict(self, rows: Sequence[Row]) -> list[Any]:
        """The likeliest answer to each row, token after token."""
        from bothways.decoding import GenerateConfig, generate

        config = GenerateConfig(max_new_tokens=self.options.answer, temperature=0.0, begin=False)
        prompts = [self.prompt(row.messages) for row in rows]
        written = [one for start in range(0, len(prompts), TOGETHER)
                   for one in generate(self.trained, prompts[start:start + TOGETHER], config, self.way.mode)]
        return [(one.text or "").strip() for one in written]

    def outputs(self, rows: Sequence[Row]) -> list[dict[str, Any]]:
        return [{"answer": text} for text in self.predict(rows)]

    def scores(self, rows: Sequence[Row]) -> list[Score]:
        """"answer NLL": nats per token of the true answers and their ends, given what was said before; items are
        answers."""
        asked = self.asked_of(rows)
        if not asked:
            raise BothwaysError("no row has an answer, so nothing can be scored")
        return [self._nll(asked)]

    def _nll(self, asked: Sequence[Asked]) -> Score:
        watch = Stopwatch()
        lengths = [int(hidden.sum()) for _, hidden in asked]
        found = nats(self.trained, self.way, asked, 1, 0, TOKENS)
        return replace(mean_score("answer NLL", self.way.name, "exact", found / np.array(lengths), lengths,
                                  unit="nats per token", higher_is_better=False), seconds=watch.seconds)

    def limits(self) -> str:
        return (f"It reads {self.longest} tokens of a conversation at most and writes {self.options.answer} at most. "
                "What it answers is a likely text and may be wrong: nothing that it says was checked, and nothing "
                "keeps it from harmful answers.")

    # --- 6. what is stored ---

    def settings(self) -> dict[str, Any]:
        return {"options": asdict(self.options), "longest": self.longest,
                "format": "chat template" if has_template(self.trained) else self.trained.objective.name}

    @classmethod
    def restored(cls, trained: Trained | None, settings: Mapping[str, Any], weights: Mapping[str, Tensor]) -> Self:
        assert trained is not None
        return cls(trained, Options(**settings["options"]), settings["longest"])


def _answering(trained: Trained) -> Trained:
    """The model as it is where it has a template or answers already, else with the objective of our own format."""
    if has_template(trained) or trained.objective.replies:
        return trained
    way: Way | None = writing_way(trained)
    if way is None or way.kind != "exact":
        raise BothwaysError(f"a model trained by '{trained.objective.name}' does not write from left to right: "
                            "tune a causal, prefix or encoder-decoder model to answer")
    known = extend_vocabulary(trained, [*MARKS, *THOUGHT])
    objective = objectives.make("pairs" if known.config.stack == "two towers" else "instruct", known.vocabulary)
    return replace(known, network=fitted(known.network, objective.companions), objective=objective)


def _of_messages(listed: Any, system: list[Message]) -> Row:
    """{role, content}, {from, value} or {speaker, text} turns, of which the last may be the answer. Raises: BadRow."""
    if not isinstance(listed, (list, tuple)) or not listed:
        raise BadRow("the messages are no list of turns")
    said = list(system)
    for one in listed:
        if not isinstance(one, Mapping):
            raise BadRow(f"a message is {type(one).__name__}, and a role and a content are wanted")
        role = next((one[name] for name in ("role", "from", "speaker") if name in one), None)
        content = next((one[name] for name in ("content", "value", "text") if name in one), None)
        if not isinstance(role, str) or not isinstance(content, str):
            raise BadRow(f"a message needs a role and a content, but has: {', '.join(map(str, one))}")
        # of two speakers of a service dialogue, the system is the one that answers
        answers = role.lower() in ASSISTANT or ("speaker" in one and role.lower() != "user")
        said.append({"role": "assistant" if answers else "system" if role.lower() == "system" else "user",
                     "content": rows.text(content, "message")})
    if said[-1]["role"] == "assistant":
        if len(said) == 1:
            raise BadRow("the messages have an answer and no question")
        return Row(tuple(said[:-1]), said[-1]["content"])
    return Row(tuple(said))


def _of_instances(listed: Any) -> tuple[Any, Any]:
    """The first input and output of an instruction with several (self-instruct, arXiv 2212.10560). Raises: BadRow."""
    if not isinstance(listed, (list, tuple)) or not isinstance(listed[0], Mapping):
        raise BadRow("the instances are no list of inputs and outputs")
    return listed[0].get("input"), listed[0].get("output")
