"""Tagging: a tag for every word of a text, such as the names in it, by a linear head and, if wanted, a CRF.

A word is read at one of its pieces; the other pieces carry no tag. Tags of entities come in BIO, IOB1, BIOES or BILOU,
and are learned and given as BIO: what is answered is always valid, since the best sequence is sought among the valid
ones. Tags of another form (parts of speech) are taken as they are.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self, get_args

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bothways.batch import Example
from bothways.errors import BothwaysError, nearest
from bothways.evaluation import spans
from bothways.evaluation.features import reading_example, states_of, visibility_named
from bothways.evaluation.probes import accuracy_scores
from bothways.evaluation.rows import TOKENS, in_order, packed, reading, rows
from bothways.evaluation.score import Score, Stopwatch, statistic_score
from bothways.tasks import base
from bothways.tasks import rows as values_of
from bothways.tasks.crf import CRF, NEVER, viterbi
from bothways.tasks.pieces import check_room, chosen, joined, pieces, windows
from bothways.tasks.rows import BadRow, Role
from bothways.tasks.tuning import TuneConfig, class_weights, tune
from bothways.tasks.words import cut, from_spans, listed
from bothways.text.corpora import TEXT_FIELDS

if TYPE_CHECKING:
    from bothways.families.trained import Trained

Piece = Literal["first", "last"]


@dataclass(frozen=True)
class Options:
    """How words are tagged."""

    crf: bool = False
    """Whether neighbouring tags have scores too: a conditional random field."""
    piece: Piece = "first"
    """The piece at which a word is read; the last has seen the whole word also where a model sees to the left alone."""
    visibility: str | None = None
    """native, bidirectional, causal, or a mode's name."""
    overlap: int = 32
    """Tokens that neighbouring windows of a long text share."""

    def __post_init__(self) -> None:
        if self.piece not in get_args(Piece):
            raise BothwaysError(f"piece is '{self.piece}' {nearest(str(self.piece), get_args(Piece))}")
        if self.overlap < 0:
            raise BothwaysError(f"overlap is {self.overlap}, but must be 0 or more")


class Row(NamedTuple):
    """A text, the characters [start, end) of its words, and the tag of each, or none where they are not known."""

    text: str
    words: tuple[tuple[int, int], ...]
    tags: tuple[str, ...] | None = None


class _Part(NamedTuple):
    """A window of a text as it is read: the row's number, the words it answers for and the places of those."""

    row: int
    words: np.ndarray
    places: np.ndarray
    example: Example


class Head(nn.Module):
    """States (n, D) to scores of tags (n, T), and the scores of neighbouring tags; it starts from zero."""

    def __init__(self, width: int, tags: Sequence[str], crf: bool) -> None:
        super().__init__()
        self.out = nn.Linear(width, len(tags))
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)
        self.crf = CRF(*allowed(tags)) if crf else None


_Options = Options
"""What annotations in the class call them, whose attribute has the same name."""


class Task(base.Task):
    """A tuned tagger: a network, a head, and the tags."""

    kind = "tag"
    Options = Options
    recipe = {"epochs": 4.0, "batch": 16}
    roles = (Role("text", ("tokens", "words", *TEXT_FIELDS)),
             Role("tags", ("tags", "ner_tags", "labels", "pos_tags", "spans", "entities"), answer=True))
    trained: Trained

    def __init__(self, trained: Trained, tags: Sequence[str], options: _Options, longest: int,
                 head: Head | None = None) -> None:
        self.trained, self.tags, self.options, self.longest = trained, tuple(tags), options, longest
        self.sees = visibility_named(trained, options.visibility)
        weight = next(trained.network.parameters())
        self.head = (head or Head(trained.config.shape.width, self.tags, options.crf)).to(weight.device)
        self.room = check_room(longest, trained.config.position.length, 1)

    @cached_property
    def entities(self) -> bool:
        """Whether the tags are those of entities."""
        return any(tag.startswith("B-") for tag in self.tags)

    # --- 1. rows ---

    @classmethod
    def row(cls, values: Mapping[str, Any]) -> Row:
        text, tags = values.get("text"), values.get("tags")
        in_words = isinstance(tags, str) or (isinstance(tags, (list, tuple)) and len(tags) > 0
                                             and all(isinstance(tag, str) for tag in tags))
        # 1. the words: as given, parted by spaces where the tags are, or cut here
        if isinstance(text, (list, tuple)) or (in_words and isinstance(text, str)):
            text, words = joined(listed(text, "words"))
        else:
            text = values_of.text(text)
            words = cut(text)
        # 2. their tags
        if tags is None:
            return Row(text, tuple(words))
        found = listed(tags, "tags") if in_words else from_spans(text, words, tags)
        if len(found) != len(words):
            raise BadRow(f"{len(words)} words and {len(found)} tags")
        return Row(text, tuple(words), tuple(found))

    @classmethod
    def asked(cls, item: Any) -> Row:
        """As for every task; a list of strings is one text in words."""
        in_words = isinstance(item, (list, tuple)) and all(isinstance(word, str) for word in item)
        found: Row = super().asked({"text": list(item)} if in_words else item)
        return found

    @classmethod
    def key(cls, row: Row) -> str:
        return row.text

    @classmethod
    def group(cls, row: Row) -> str:
        return "entities" if any(tag != "O" for tag in row.tags or ()) else "none"

    # --- 2. tuning ---

    @classmethod
    def fit(cls, trained: Trained, train: Sequence[Row], dev: Sequence[Row], options: Any, config: TuneConfig,
            watch: base.Watch | None = None) -> Self:
        # 1. a copy of the network, and a head that knows nothing
        if trained is None:
            raise BothwaysError("the task 'tag' tunes a network: say which (--from)")
        tags = tags_of(train)
        longest = min(config.longest, trained.config.position.length)
        found = cls(replace(trained, network=copy.deepcopy(trained.network)), tags, options, longest)
        # 2. windows of texts that hold a word, and the tags of their words
        parts = [part for part in found._parts(train) if len(part.words)]
        number = {tag: place for place, tag in enumerate(tags)}
        truth = [learned(row, found.entities) for row in train]
        targets = [torch.tensor([number[truth[part.row][word]] for word in part.words]) for part in parts]
        device = trained.device
        weights = class_weights(torch.cat(targets).tolist(), len(tags)).to(device) if config.balanced else None
        examples = [part.example for part in parts]

        def loss_of(places: list[int], step: int) -> Tensor:
            places = sorted(places, key=lambda place: len(examples[place]))
            scores = found._scores(packed(examples, places, device), [parts[place] for place in places])
            wanted = [targets[place].to(device) for place in places]
            if found.head.crf is None:
                return F.cross_entropy(torch.cat(scores), torch.cat(wanted), weight=weights)
            total: Tensor = found.head.crf(scores, wanted).sum() / sum(map(len, wanted))
            return total

        # 3. the loop
        tune(found.trained.network, found.head, len(parts), loss_of, config, watch,
             lengths=[len(one) for one in examples],
             judge=(lambda: found.scores(dev, resamples=0)[0].value) if dev else None)
        found.head.eval()
        return found

    def _parts(self, some: Sequence[Row]) -> list[_Part]:
        """Every text as windows, with the words that each answers for."""
        found = []
        for number, row in enumerate(some):
            text = pieces(self.trained.tokenizer, row.text)
            at = [text.over(*word) for word in row.words]
            place = np.array([-1 if one is None else one[0] if self.options.piece == "first" else one[1] - 1
                              for one in at], dtype=np.int64)
            for window in windows(len(text), self.room, min(self.options.overlap, self.room // 2)):
                words = np.flatnonzero((place >= window.first) & (place < window.last))
                ids = np.concatenate([[self.trained.vocabulary.bos], text.ids[window.start:window.end]])
                found.append(_Part(number, words, place[words] - window.start + 1, reading_example(ids, self.sees)))
        return found

    def _scores(self, row: Example, parts: Sequence[_Part]) -> list[Tensor]:
        """The scores of tags (words, T) float32 of each window of a packed row."""
        places = chosen([len(part.example) for part in parts], [part.places for part in parts])
        states = states_of(self.trained.network, row)
        states = states[torch.from_numpy(places).to(states.device)]
        scores = self.head.out(states.to(self.head.out.weight.dtype)).float()
        return list(scores.split([len(part.words) for part in parts]))

    # --- 3. to 5. answers, scores ---

    def each_score(self, some: Sequence[Row], tokens: int = TOKENS) -> list[np.ndarray]:
        """(words, T) float32 scores of tags of each text, windows put together; a word without a piece has zeros."""
        parts = self._parts(some)

        def row_by_row() -> Iterator[tuple[list[int], list[np.ndarray]]]:
            for numbers, group, row in rows(parts, lambda part: part.example, self.trained.device, tokens):
                with reading(self.trained.network):
                    yield numbers, [scores.cpu().numpy() for scores in self._scores(row, group)]

        found = [np.zeros((len(row.words), len(self.tags)), np.float32) for row in some]
        for part, scores in zip(parts, in_order(row_by_row()), strict=True):
            found[part.row][part.words] = scores
        return found

    def best_tags(self, some: Sequence[Row]) -> list[tuple[str, ...]]:
        """The tags of each text: the best sequence among the valid ones."""
        return [tuple(self.tags[i] for i in self._best(scores)) for scores in self.each_score(some)]

    def _best(self, scores: np.ndarray) -> list[int]:
        if self.head.crf is not None:
            return self.head.crf.best(scores)
        if not self.entities:
            return [int(i) for i in scores.argmax(-1)]
        first, follows = (np.where(part, 0.0, NEVER) for part in allowed(self.tags))
        logs = torch.from_numpy(scores).log_softmax(-1).numpy()
        return viterbi(logs, first, follows, np.zeros(len(self.tags)))

    def predict(self, rows: Sequence[Row]) -> list[Any]:
        """For each text its entities, or its words where tags are of another form: dicts of type, text, start and end
        (characters), and the probability of the least certain of its tags."""
        found = []
        for row, scores in zip(rows, self.each_score(rows), strict=True):
            best = self._best(scores)
            tags = [self.tags[i] for i in best]
            likely = self._probabilities(scores)[np.arange(len(best)), best]
            parts = spans.entities(tags) if self.entities else [
                spans.Entity(place, place + 1, tag) for place, tag in enumerate(tags)]
            found.append([{"type": part.type, "text": row.text[row.words[part.start][0]:row.words[part.end - 1][1]],
                           "start": row.words[part.start][0], "end": row.words[part.end - 1][1],
                           "probability": round(float(likely[part.start:part.end].min()), 4)} for part in parts])
        return found

    def _probabilities(self, scores: np.ndarray) -> np.ndarray:
        """(words, T) the probability of each tag of each word by itself."""
        table = torch.from_numpy(scores)
        if self.head.crf is None or not len(scores):
            return table.softmax(-1).numpy()
        return self.head.crf.marginals(table.to(self.trained.device)).cpu().numpy()

    def outputs(self, rows: Sequence[Row]) -> list[dict[str, Any]]:
        """The entities of each text."""
        return [{"entities" if self.entities else "tags": found} for found in self.predict(rows)]

    def scores(self, rows: Sequence[Row], resamples: int = 200) -> list[Score]:
        """Of entities "span F1" (micro, as seqeval; in its details precision, recall and F1 by type), "span macro-F1"
        over types; always "tag accuracy" over words and "tag macro-F1" over tags.

        Raises:
            BothwaysError: rows without tags.
        """
        watch = Stopwatch()
        if missing := sum(row.tags is None for row in rows):
            raise BothwaysError(f"{missing} of {len(rows)} rows have no tags, so they cannot be scored")
        truth = [learned(row, self.entities) for row in rows]
        guessed = self.best_tags(rows)
        scores = tag_scores(truth, guessed, repr(self.sees), self.how, self.entities, resamples)
        return [replace(score, seconds=watch.seconds / len(scores)) for score in scores]

    @property
    def how(self) -> str:
        """The way in a few words, for the estimator of its scores."""
        last = "CRF" if self.head.crf is not None else "valid BIO" if self.entities else "each by itself"
        return f"head on the {self.options.piece} piece of a word, {last}"

    def limits(self) -> str:
        kinds = sorted({spans.split_tag(tag)[1] for tag in self.tags if tag != "O"})
        return (f"It knows {len(kinds)} types ({', '.join(kinds[:20])}) and no other. Entities do not overlap and none "
                "lies within another. Words are cut as in its training data where they are given, else at spaces and "
                "punctuation marks." if self.entities else f"It gives one of {len(kinds)} tags to every word.")

    # --- 6. what is stored ---

    def settings(self) -> dict[str, Any]:
        return {"options": asdict(self.options), "tags": list(self.tags), "longest": self.longest,
                "visibility": self.options.visibility, "piece": self.options.piece, "crf": self.options.crf}

    def weights(self) -> dict[str, Tensor]:
        return self.head.state_dict()

    @classmethod
    def restored(cls, trained: Trained | None, settings: Mapping[str, Any], weights: Mapping[str, Tensor]) -> Self:
        assert trained is not None
        options, tags = Options(**settings["options"]), settings["tags"]
        head = Head(trained.config.shape.width, tags, options.crf)
        try:
            head.load_state_dict(dict(weights))
        except RuntimeError as error:
            raise KeyError(str(error).splitlines()[-1].strip()) from None
        return cls(trained, tags, options, settings["longest"], head.eval())


def allowed(tags: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """((T,), (T, T)) bool: the tags a sequence may begin with, and [i, j]: whether j may stand behind i.

    I-x stands behind B-x or I-x alone (where B-x is a tag); all else is free.
    """
    def may(before: str, tag: str) -> bool:
        return not tag.startswith("I-") or f"B-{tag[2:]}" not in tags or before in (f"B-{tag[2:]}", tag)

    return (np.array([may("", tag) for tag in tags]),
            np.array([[may(before, tag) for tag in tags] for before in tags]))


def tag_scores(truth: Sequence[Sequence[str]], guessed: Sequence[Sequence[str]], mode: str, how: str, entities: bool,
               resamples: int = 200) -> list[Score]:
    """What `Task.scores` says, of tags that are given: those of each text, equally many on both sides."""
    words = accuracy_scores("tag", mode, how, [tag for tags in truth for tag in tags],
                            [tag for tags in guessed for tag in tags])
    if not entities:
        return words
    tables = spans.counts(truth, guessed)
    every = np.sum([np.zeros((len(truth), 3), np.int64), *tables.values()], axis=0)
    right, there, said = every.sum(0).tolist()
    by_type = {f"{name} F1": spans.f1(*table.sum(0).tolist()) for name, table in tables.items()}
    details = {"precision": right / said if said else 0.0, "recall": right / there if there else 0.0, **by_type}
    micro = statistic_score("span F1", mode, how, lambda some: spans.f1(*every[some].sum(0).tolist()),
                            len(truth), resamples=resamples, unit="F1", details=details)
    macro = Score("span macro-F1", mode, how, float(np.mean(list(by_type.values()))) if by_type else 0.0,
                  len(truth), "F1")
    return [micro, macro, *words]


def tags_of(train: Sequence[Row]) -> tuple[str, ...]:
    """Every tag to be learned, O first.

    Raises:
        BothwaysError: rows without tags, one tag alone, or tags of entities and others mixed.
    """
    if not train:
        raise BothwaysError("tagging needs tagged texts to learn from: give some")
    if missing := [row for row in train if row.tags is None]:
        raise BothwaysError(f"{len(missing)} texts have no tags, such as '{missing[0].text[:40]}': name the column of "
                            "the tags (--columns tags=...)")
    seen = {tag for row in train for tag in row.tags or ()}
    others = sorted(tag for tag in seen - {"O"} if not spans.split_tag(tag)[0])
    entities = len(others) < len(seen - {"O"})
    if entities and others:
        raise BothwaysError(f"some tags are of entities, with B- or I- before a type, and others such as "
                            f"'{others[0]}' are not: write B-{others[0]} and I-{others[0]}")
    if len(seen) < 2:
        raise BothwaysError(f"tagging needs at least two tags, but all words carry '{next(iter(seen), '')}'")
    if not entities:
        return tuple(sorted(seen))
    return ("O", *sorted(f"{letter}-{kind}" for kind in {spans.split_tag(tag)[1] for tag in seen - {"O"}}
                         for letter in "BI"))


def learned(row: Row, entities: bool) -> tuple[str, ...]:
    """The tags of a row as they are learned and scored."""
    return spans.as_bio(row.tags or ()) if entities else row.tags or ()
