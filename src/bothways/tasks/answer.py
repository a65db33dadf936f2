"""Extractive question answering: the span of a context that answers a question, or none (arXiv 1810.04805, 4.3).

Question and context are read as two parts, a long context in windows that overlap. A linear head gives every token of
the context a score as the answer's first and as its last; the token that closes the window stands for "not here". The
answer is the span whose summed scores exceed those of "not here" in its window by most, over all windows; with one
window that is BERT's rule. The closing token, unlike BERT's first one, has seen the window in every visibility.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from bothways.batch import Example
from bothways.errors import BothwaysError
from bothways.evaluation import text_metrics
from bothways.evaluation.features import states_of, visibility_named
from bothways.evaluation.rows import TOKENS, in_order, packed, reading, rows
from bothways.evaluation.score import Score, Stopwatch
from bothways.objectives import base as objectives
from bothways.tasks import base
from bothways.tasks import rows as values_of
from bothways.tasks.pieces import Pieces, check_room, pieces, windows
from bothways.tasks.rows import BadRow, Role
from bothways.tasks.tuning import TuneConfig, tune

if TYPE_CHECKING:
    from bothways.families.trained import Trained


@dataclass(frozen=True)
class Options:
    """How questions are answered."""

    answer_tokens: int = 30
    """The longest answer, in tokens."""
    question_tokens: int = 64
    """Tokens of a question that are read."""
    overlap: int = 96
    """Tokens that neighbouring windows of a long context share."""
    visibility: str | None = None
    """native, bidirectional, causal, or a mode's name."""

    def __post_init__(self) -> None:
        for name, least in (("answer_tokens", 1), ("question_tokens", 1), ("overlap", 0)):
            if getattr(self, name) < least:
                raise BothwaysError(f"{name} is {getattr(self, name)}, but must be {least} or more")


class Row(NamedTuple):
    """A question on a context; its answers as (first character, text), none at all where it has no answer, or None
    where that is not known."""

    question: str
    context: str
    answers: tuple[tuple[int, str], ...] | None = None
    id: str = ""


class Found(NamedTuple):
    """An answer: its text, its first character, and by how much it beats "not here"."""

    text: str
    start: int
    score: float


class _Part(NamedTuple):
    """A window of a context as it is read: the row's number, the first token of the context in it, how many of them,
    and where they lie."""

    row: int
    first: int
    size: int
    at: int
    example: Example


_Options = Options
"""What annotations in the class call them, whose attribute has the same name."""


class Task(base.Task):
    """A tuned reader: a network and a head of two scores for each token."""

    kind = "answer"
    Options = Options
    recipe = {"epochs": 3.0, "batch": 12, "longest": 320}
    roles = (Role("question", ("question", "query")), Role("context", ("context", "passage", "paragraph", "document")),
             Role("answers", ("answers", "answer"), answer=True), Role("id", ("id", "qid"), optional=True))
    trained: Trained

    def __init__(self, trained: Trained, options: _Options, longest: int, segments: bool,
                 threshold: float | None = None, head: nn.Linear | None = None) -> None:
        self.trained, self.options, self.longest, self.segments = trained, options, longest, segments
        self.threshold = threshold
        """Answers that do not beat "not here" by more are not given; none where every question has an answer."""
        self.sees = visibility_named(trained, options.visibility)
        weight = next(trained.network.parameters())
        if head is None:
            head = nn.Linear(trained.config.shape.width, 2)
            nn.init.zeros_(head.weight)
            nn.init.zeros_(head.bias)
        self.head = head.to(weight.device)
        check_room(longest, trained.config.position.length, 3 + options.question_tokens)

    # --- 1. rows ---

    @classmethod
    def row(cls, values: Mapping[str, Any]) -> Row:
        context = values_of.text(values.get("context"), "context")
        found, number = values.get("answers"), values.get("id")
        return Row(values_of.text(values.get("question"), "question"), context,
                   None if found is None else _located(found, context), "" if number is None else str(number))

    @classmethod
    def key(cls, row: Row) -> str:
        return f"{row.question}\n{row.context}"

    @classmethod
    def group(cls, row: Row) -> str:
        return "answer" if row.answers else "none"

    # --- 2. tuning ---

    @classmethod
    def fit(cls, trained: Trained, train: Sequence[Row], dev: Sequence[Row], options: Any, config: TuneConfig,
            watch: base.Watch | None = None) -> Self:
        # 1. what can be learned from
        if trained is None:
            raise BothwaysError("the task 'answer' tunes a network: say which (--from)")
        if not any(row.answers for row in train):
            raise BothwaysError("answering needs questions with answers to learn from: none of the "
                                f"{len(train)} rows has one")
        if unknown := [row for row in train if row.answers is None]:
            raise BothwaysError(f"the question '{unknown[0].question[:40]}' has no answers, not even an empty list")
        none = any(not row.answers for row in train)
        known = any(one.name == "segment" for one in trained.network.config.companions)
        found = cls(replace(trained, network=copy.deepcopy(trained.network)), options,
                    min(config.longest, trained.config.position.length), known, 0.0 if none else None)
        # 2. windows, and the places of the answer in each, or of the token that says that it is not there
        texts = [pieces(trained.tokenizer, row.context) for row in train]
        parts = found._parts(train, texts)
        device = trained.device
        examples = [part.example for part in parts]
        targets = torch.tensor([_target(part, train[part.row], texts[part.row]) for part in parts], device=device)

        def loss_of(places: list[int], step: int) -> Tensor:
            places = sorted(places, key=lambda place: len(examples[place]))
            scores = found._scores(packed(examples, places, device), [parts[place] for place in places])
            # (windows, tokens, 2): what is no token of a window has no share in its softmax
            table = pad_sequence([*scores], batch_first=True, padding_value=-torch.inf)
            wanted = targets[places]
            wanted = torch.where(wanted < 0, torch.tensor([parts[place].size for place in places],
                                                          device=device)[:, None], wanted)
            return F.cross_entropy(table, wanted)

        # 3. the loop, then the threshold
        tune(found.trained.network, found.head, len(parts), loss_of, config, watch,
             lengths=[len(one) for one in examples], judge=(lambda: found._f1(dev)) if dev else None)
        if none and dev:
            found._choose_threshold(dev)
        return found

    def _parts(self, some: Sequence[Row], texts: Sequence[Pieces]) -> list[_Part]:
        """Every context as windows: `<bos> question <sep> context <eos>`."""
        known = self.trained.vocabulary
        between = known.ids.get("<sep>", known.eos)
        found = []
        for number, (row, text) in enumerate(zip(some, texts, strict=True)):
            question = self.trained.tokenizer.encode(row.question, reserved=False)[:self.options.question_tokens]
            room = check_room(self.longest, self.trained.config.position.length, 3 + len(question))
            left = [known.bos, *question, between]
            for window in windows(len(text), room, min(self.options.overlap, room // 2)):
                ids = np.concatenate([left, text.ids[window.start:window.end], [known.eos]]).astype(np.int64)
                parts = np.repeat([0, 1], [len(left), len(ids) - len(left)])
                told: dict[str, Any] = {"segment": parts} if self.segments else {}
                found.append(_Part(number, window.start, window.end - window.start, len(left),
                                   objectives.reading(ids, self.sees, **told)))
        return found

    def _scores(self, row: Example, parts: Sequence[_Part]) -> list[Tensor]:
        """For each window of a packed row (its context's tokens and the closing one, 2) float32."""
        states = states_of(self.trained.network, row)
        every = self.head(states.to(self.head.weight.dtype)).float().split([len(part.example) for part in parts])
        return [scores[part.at:part.at + part.size + 1] for part, scores in zip(parts, every, strict=True)]

    # --- 3. to 5. answers, scores ---

    def spans(self, some: Sequence[Row], tokens: int = TOKENS) -> list[Found]:
        """The best span of each row, whether or not it would be given; no text where a context has no token."""
        texts = [pieces(self.trained.tokenizer, row.context) for row in some]
        parts = self._parts(some, texts)

        def row_by_row() -> Iterator[tuple[list[int], list[np.ndarray]]]:
            for numbers, group, row in rows(parts, lambda part: part.example, self.trained.device, tokens):
                with reading(self.trained.network):
                    yield numbers, [scores.cpu().numpy() for scores in self._scores(row, group)]

        found = [Found("", 0, -np.inf)] * len(some)
        for part, scores in zip(parts, in_order(row_by_row()), strict=True):
            if not part.size:
                continue
            start, end, score = best_span(scores[:-1], self.options.answer_tokens)
            score -= float(scores[-1].sum())
            if score > found[part.row].score:
                text = texts[part.row]
                place, last = int(text.starts[part.first + start]), int(text.ends[part.first + end])
                raw = some[part.row].context[place:last]
                found[part.row] = Found(raw.strip(), place + len(raw) - len(raw.lstrip()), score)
        return found

    def predict(self, rows: Sequence[Row]) -> list[Any]:
        """The answer to each question: a text of its context, or "" for none."""
        return [self._given(found) for found in self.spans(rows)]

    def _given(self, found: Found) -> str:
        return "" if self.threshold is not None and found.score <= self.threshold else found.text

    def outputs(self, rows: Sequence[Row]) -> list[dict[str, Any]]:
        """The answer, its first character, and by how much its score beats that of no answer."""
        return [{**({"id": row.id} if row.id else {}), "answer": given, "start": found.start if given else None,
                 "score": round(found.score, 4)}
                for row, found in zip(rows, self.spans(rows), strict=True) for given in [self._given(found)]]

    def scores(self, rows: Sequence[Row]) -> list[Score]:
        """"answer F1" and "exact match" by SQuAD's rules, items are questions; then those of the questions with and
        without an answer, where there are both.

        Raises:
            BothwaysError: rows whose answers are not known.
        """
        watch = Stopwatch()
        if missing := sum(row.answers is None for row in rows):
            raise BothwaysError(f"{missing} of {len(rows)} rows have no answers, so they cannot be scored")
        exact, f1, *parts = text_metrics.answers(self.predict(rows), [_truths(row) for row in rows],
                                                 mode=repr(self.sees))
        return [replace(score, estimator=self.how, seconds=watch.seconds) for score in (f1, exact, *parts)]

    def _marks(self, some: Sequence[Row], found: Sequence[Found]) -> list[float]:
        """F1 of each span, given or not; 0 where there is no answer."""
        return [max((text_metrics.answer_f1(one.text, truth) for truth in _truths(row)), default=0.0)
                for row, one in zip(some, found, strict=True)]

    def _f1(self, some: Sequence[Row]) -> float:
        """Mean F1 over questions with an answer, none held back: what does not hang on the threshold."""
        known = [row for row in some if row.answers]
        return float(np.mean(self._marks(known, self.spans(known)))) if known else 0.0

    def _choose_threshold(self, dev: Sequence[Row]) -> None:
        """The threshold that gives the highest F1 on `dev`."""
        found = self.spans(dev)
        surplus = [one.score for one in found]
        chosen, _ = text_metrics.threshold(surplus, self._marks(dev, found), [bool(row.answers) for row in dev])
        self.threshold = float(np.clip(chosen, min(surplus) - 1, max(surplus) + 1))

    @property
    def how(self) -> str:
        """The way in a few words, for the estimator of its scores."""
        return f"SQuAD's rules, spans of at most {self.options.answer_tokens} tokens" + (
            "" if self.threshold is None else ", or none")

    def limits(self) -> str:
        return ("Its answers are words of the context that it is given, no longer than "
                f"{self.options.answer_tokens} tokens; it joins no two places and does not reckon. " + (
                    "It answers every question, also where the context holds no answer." if self.threshold is None else
                    f"It answers nothing where no span beats 'not here' by {self.threshold:.3g}."))

    # --- 6. what is stored ---

    def settings(self) -> dict[str, Any]:
        return {"options": asdict(self.options), "longest": self.longest, "segments": self.segments,
                "threshold": self.threshold, "visibility": self.options.visibility}

    def weights(self) -> dict[str, Tensor]:
        return self.head.state_dict()

    @classmethod
    def restored(cls, trained: Trained | None, settings: Mapping[str, Any], weights: Mapping[str, Tensor]) -> Self:
        assert trained is not None
        head = nn.Linear(trained.config.shape.width, 2)
        try:
            head.load_state_dict(dict(weights))
        except RuntimeError as error:
            raise KeyError(str(error).splitlines()[-1].strip()) from None
        return cls(trained, Options(**settings["options"]), settings["longest"], settings["segments"],
                   settings["threshold"], head)


def _truths(row: Row) -> list[str]:
    return [text for _, text in row.answers or ()]


def best_span(scores: np.ndarray, longest: int) -> tuple[int, int, float]:
    """(first, last, score) of the span of at most `longest` tokens with the highest sum.

    Args:
        scores: (L, 2), of each token as the first and as the last; L at least 1.
    """
    best = (0, 0, -np.inf)
    for more in range(min(longest, len(scores))):
        sums = scores[:len(scores) - more, 0] + scores[more:, 1]
        first = int(sums.argmax())
        if sums[first] > best[2]:
            best = (first, first + more, float(sums[first]))
    return best


def _target(part: _Part, row: Row, text: Pieces) -> tuple[int, int]:
    """(first, last) token of the answer in a window, or -1 twice where it does not lie in it wholly."""
    for start, answer in (row.answers or ())[:1]:
        at = text.over(start, start + len(answer))
        if at is not None and part.first <= at[0] and at[1] <= part.first + part.size:
            return at[0] - part.first, at[1] - 1 - part.first
    return -1, -1


def _located(found: Any, context: str) -> tuple[tuple[int, str], ...]:
    """Answers in SQuAD's layouts, with the first character of each: {text: [...], answer_start: [...]}, a list of
    {text, answer_start}, texts, or one text. A place that is wrong or missing is sought, the nearest first.

    Raises:
        BadRow: another layout, or no answer that stands in the context.
    """
    # 1. (text, place or none) of each
    if isinstance(found, str):
        found = [found]
    if isinstance(found, Mapping):
        texts, starts = found.get("text"), found.get("answer_start")
        texts = [texts] if isinstance(texts, str) else texts
        starts = [starts] if isinstance(starts, int) else starts
        if not isinstance(texts, list):
            raise BadRow("the answers have no list 'text'")
        given = list(zip(texts, starts if isinstance(starts, list) and len(starts) == len(texts) else
                         [None] * len(texts)))
    elif isinstance(found, list):
        given = [(one.get("text"), one.get("answer_start")) if isinstance(one, Mapping) else (one, None)
                 for one in found]
    else:
        raise BadRow(f"the answers are {type(found).__name__}, and a list of texts is wanted")
    # 2. where each stands
    places: list[tuple[int, str]] = []
    for text, start in given:
        if not isinstance(text, str) or not text.strip():
            raise BadRow("an answer is empty: a question without an answer has an empty list of answers")
        near = start if isinstance(start, int) else 0
        if context[near:near + len(text)] != text or near < 0:
            all_places = [at for at in range(len(context)) if context.startswith(text, at)]
            if not all_places:
                continue
            near = min(all_places, key=lambda at: abs(at - near))
        places.append((near, text))
    if given and not places:
        raise BadRow(f"the answer '{given[0][0][:40]}' is not in its context")
    return tuple(places)
