"""How alike two texts are, or whether they belong together: by a bi-encoder or by a cross-encoder.

A bi-encoder (arXiv 1908.10084) makes a vector of each text, and their cosine is the score: vectors can be stored and
searched (`tasks.retrieve`). A cross-encoder reads both texts at once, which is slower and mostly better. Both learn
from pairs with a score, or from pairs that belong together, with or without texts that do not: then the other texts of
an update are the wrong answers too (InfoNCE, arXiv 1807.03748 equation 4; hard negatives as in arXiv 2004.04906).
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self, get_args

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from bothways.batch import Example
from bothways.errors import BothwaysError, nearest
from bothways.evaluation import ranking
from bothways.evaluation.features import states_of, visibility_named
from bothways.evaluation.rows import TOKENS, in_order, packed, reading, rows
from bothways.evaluation.score import Score, mean_score, statistic_score
from bothways.tasks import base, ways
from bothways.tasks import rows as values_of
from bothways.tasks.rows import BadRow, Role
from bothways.tasks.tuning import TuneConfig, tune
from bothways.tasks.ways.head import Form, Head, Pooling, pooled

if TYPE_CHECKING:
    from bothways.families.trained import Trained

Way = Literal["bi", "cross"]
Learn = Literal["score", "positives"]
BESIDE = 3
"""Texts of other rows that a cross-encoder is shown as wrong ones for a row."""
AMONG = 20
"""Texts that a cross-encoder ranks for each query when it is scored."""


@dataclass(frozen=True)
class Options:
    """How pairs are compared."""

    way: Way = "bi"
    """bi: a vector for each text, and their cosine; cross: both texts read together."""
    learn: Learn = "score"
    """From the score of each pair; or from positives: each pair belongs together, with or without negatives."""
    pooling: Pooling = "mean-all"
    """Which states of a text are read: of all its tokens, as sentence encoders do, its own, the first or the last."""
    temperature: float = 0.05
    """What cosines are divided by where positives are learned from."""
    visibility: str | None = None
    """native, bidirectional, causal, or a mode's name."""

    def __post_init__(self) -> None:
        for name, known in (("way", get_args(Way)), ("learn", get_args(Learn)), ("pooling", get_args(Pooling))):
            if getattr(self, name) not in known:
                raise BothwaysError(f"{name} is '{getattr(self, name)}' {nearest(str(getattr(self, name)), known)}")
        if not self.temperature > 0:
            raise BothwaysError(f"temperature is {self.temperature}, but must be above 0")


class Row(NamedTuple):
    """Two texts, their score or none, and texts that do not belong to the first."""

    text: str
    other: str
    score: float | None = None
    negatives: tuple[str, ...] = ()


_Options = Options
"""What annotations in the class call them, whose attribute has the same name."""


class Task(base.Task):
    """A tuned bi-encoder or cross-encoder; untuned, a bi-encoder by the network's own states."""

    kind = "similarity"
    Options = Options
    recipe = {"epochs": 4.0}
    roles = (Role("text", ("text_a", "sentence_a", "sentence1", "query", "question", "anchor", "first", "text")),
             Role("other", ("text_b", "sentence_b", "sentence2", "positive", "passage", "document", "second", "other")),
             Role("score", ("score", "relatedness", "similarity", "relatedness_score"), answer=True, optional=True),
             Role("negatives", ("negatives", "negative", "hard_negative"), answer=True, optional=True))
    trained: Trained

    def __init__(self, trained: Trained, options: _Options, longest: int = 256, span: tuple[float, float] | None = None,
                 segments: bool = False, head: Head | None = None) -> None:
        self.trained, self.options = trained, options
        self.form = Form(min(longest, trained.config.position.length), True, segments)
        self.span = span
        """The lowest and highest score of the training data; none where positives were learned from."""
        self.sees = visibility_named(trained, options.visibility)
        weight = next(trained.network.parameters())
        if options.way == "cross" and head is None:
            head = Head(trained.config.shape.width, 1)
        self.head = None if head is None else head.to(weight.device)
        self.special = torch.from_numpy(trained.vocabulary.special).to(weight.device)

    # --- 1. rows ---

    @classmethod
    def row(cls, values: Mapping[str, Any]) -> Row:
        return Row(values_of.text(values.get("text"), "first text"), values_of.text(values.get("other"), "other text"),
                   _number(values.get("score")), _negatives(values.get("negatives")))

    @classmethod
    def key(cls, row: Row) -> str:
        return f"{row.text}\n{row.other}"

    # --- 2. tuning ---

    @classmethod
    def fit(cls, trained: Trained, train: Sequence[Row], dev: Sequence[Row], options: Any, config: TuneConfig,
            watch: base.Watch | None = None) -> Self:
        # 1. a copy of the network; for a cross-encoder a head that knows nothing
        if trained is None:
            raise BothwaysError("the task 'similarity' tunes a network: say which (--from)")
        span = _span(train, options.learn)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            segments = options.way == "cross" and any(one.name == "segment" for one in
                                                      trained.network.config.companions)
            found = cls(replace(trained, network=copy.deepcopy(trained.network)), options, config.longest, span,
                        segments)
        # 2. what an update costs
        loss_of = found._cross_loss(train, config.seed) if options.way == "cross" else found._bi_loss(train)
        lengths = [len(row.text) + len(row.other) for row in train]
        # 3. the loop
        tune(found.trained.network, found.head, len(train), loss_of, config, watch, lengths=lengths,
             judge=(lambda: found.scores(dev, resamples=0)[0].value) if dev else None)
        return found

    def _bi_loss(self, train: Sequence[Row]) -> Any:
        """(places, step) -> the loss of cosines."""
        firsts, others = (self._examples([ways.Row(text) for text in texts]) for texts in (
            [row.text for row in train], [row.other for row in train]))
        negatives = [self._examples([ways.Row(text) for text in row.negatives]) for row in train]
        device = self.trained.device

        def loss_of(places: list[int], step: int) -> Tensor:
            left = self._vectors([firsts[place] for place in places])
            extra = [one for place in places for one in negatives[place]] if self.span is None else []
            right = self._vectors([*(others[place] for place in places), *extra])
            if self.span is not None:
                wanted = torch.tensor([self._share(train[place]) for place in places], device=device)
                return F.mse_loss((left * right).sum(-1), wanted)
            texts = [*(train[place].other for place in places),
                     *(text for place in places for text in train[place].negatives)]
            scores = left @ right.T / self.options.temperature
            # what is the same text, or the answer to the same question, is no wrong answer
            same = torch.tensor([[column != line and (text == train[place].other or (
                column < len(places) and train[places[column]].text == train[place].text))
                for column, text in enumerate(texts)] for line, place in enumerate(places)], device=device)
            return F.cross_entropy(scores.masked_fill(same, -torch.inf), torch.arange(len(places), device=device))

        return loss_of

    def _cross_loss(self, train: Sequence[Row], seed: int) -> Any:
        """(places, step) -> the loss of scores of pairs read together."""
        device = self.trained.device

        def loss_of(places: list[int], step: int) -> Tensor:
            if self.span is not None:
                scores = self._together(self._examples([ways.Row(train[i].text, train[i].other) for i in places]))
                wanted = torch.tensor([self._share(train[place]) for place in places], device=device)
                return F.binary_cross_entropy_with_logits(scores, wanted)
            # each row's own text first, then wrong ones: its negatives, and texts of other rows of the update
            rng = np.random.default_rng((seed, step))
            lists = []
            for place in places:
                row = train[place]
                others = [train[i] for i in places]
                strangers = [one.other for one in others if one.text != row.text and one.other != row.other]
                taken = rng.permutation(len(strangers))[:BESIDE]
                lists.append([row.other, *row.negatives, *(strangers[i] for i in taken)])
            pairs = [ways.Row(train[place].text, text) for place, some in zip(places, lists) for text in some]
            scores = self._together(self._examples(pairs)).split([len(some) for some in lists])
            table = torch.nn.utils.rnn.pad_sequence(list(scores), True, -torch.inf)
            return F.cross_entropy(table, torch.zeros(len(places), dtype=torch.long, device=device))

        return loss_of

    def _examples(self, texts: Sequence[ways.Row]) -> list[Example]:
        return self.form.examples(self.trained, texts, self.sees)

    def _pooled(self, row: Example) -> Tensor:
        return pooled(states_of(self.trained.network, row), row, self.options.pooling, self.special)

    def _vectors(self, examples: Sequence[Example]) -> Tensor:
        """(texts, D) of length 1, in the order given."""
        order = sorted(range(len(examples)), key=lambda place: len(examples[place]))
        found = F.normalize(self._pooled(packed(examples, order, self.trained.device)).float(), dim=-1)
        return found[torch.tensor(np.argsort(order), device=found.device)]

    def _together(self, examples: Sequence[Example]) -> Tensor:
        """(pairs,) float32 scores of pairs read together, in the order given."""
        assert self.head is not None
        order = sorted(range(len(examples)), key=lambda place: len(examples[place]))
        states = self._pooled(packed(examples, order, self.trained.device))
        found = self.head(states.to(self.head.out.weight.dtype))[:, 0].float()
        return found[torch.tensor(np.argsort(order), device=found.device)]

    def _share(self, row: Row) -> float:
        """Where a score lies between the lowest (0) and the highest (1) of the training data."""
        assert self.span is not None and row.score is not None
        return (row.score - self.span[0]) / (self.span[1] - self.span[0])

    # --- 3. to 5. answers, scores ---

    def vectors(self, texts: Sequence[str], tokens: int = TOKENS) -> np.ndarray:
        """(n, D) float32 of length 1: what is stored and searched.

        Raises:
            BothwaysError: a cross-encoder, which has no vector for one text.
        """
        if self.options.way == "cross":
            raise BothwaysError("a cross-encoder reads two texts together and has no vector for one: tune with "
                                "--way bi")

        def row_by_row() -> Iterator[tuple[list[int], np.ndarray]]:
            examples = self._examples([ways.Row(text) for text in texts])
            for numbers, _, row in rows(examples, lambda example: example, self.trained.device, tokens):
                with reading(self.trained.network):
                    yield numbers, F.normalize(self._pooled(row).float(), dim=-1).cpu().numpy()

        return np.stack([np.zeros(self.trained.config.shape.width, np.float32), *in_order(row_by_row())])[1:]

    def compare(self, pairs: Sequence[tuple[str, str]], tokens: int = TOKENS) -> np.ndarray:
        """(n,) float32 the raw score of each pair: a cosine, or the logit of a cross-encoder."""
        if self.options.way == "bi":
            texts = list(dict.fromkeys(text for pair in pairs for text in pair))
            place = {text: number for number, text in enumerate(texts)}
            table = self.vectors(texts, tokens)
            cosines: np.ndarray = (table[[place[one] for one, _ in pairs]] * table[[place[two] for _, two in pairs]])
            return cosines.sum(-1)
        assert self.head is not None
        head = self.head

        def row_by_row() -> Iterator[tuple[list[int], np.ndarray]]:
            examples = self._examples([ways.Row(*pair) for pair in pairs])
            for numbers, _, row in rows(examples, lambda example: example, self.trained.device, tokens):
                with reading(self.trained.network), reading(head):
                    scores = head(self._pooled(row).to(head.out.weight.dtype))[:, 0]
                    yield numbers, scores.float().cpu().numpy()

        return np.array([0.0, *in_order(row_by_row())], dtype=np.float32)[1:]

    def predict(self, rows: Sequence[Row]) -> list[Any]:
        """The score of each pair: on the scale of the training data, or without one a cosine (bi) or the chance that
        both belong together (cross)."""
        raw = self.compare([(row.text, row.other) for row in rows]).astype(np.float64)
        shares = raw if self.options.way == "bi" else 1 / (1 + np.exp(-raw))
        low, high = self.span or (0.0, 1.0)
        return [round(float(low + share * (high - low)), 4) for share in shares]

    def outputs(self, rows: Sequence[Row]) -> list[dict[str, Any]]:
        """The score of each pair."""
        return [{"score": found} for found in self.predict(rows)]

    def scores(self, rows: Sequence[Row], resamples: int = 200) -> list[Score]:
        """Of pairs with scores "similarity Spearman" and "similarity Pearson"; of others how well each first text finds
        its own among those of all rows: "retrieval MRR@10", "retrieval recall@1", "@10" and "retrieval nDCG@10"."""
        mode = repr(self.sees)
        if any(row.score is None for row in rows):
            return self._retrieval(rows, mode)
        found = self.compare([(row.text, row.other) for row in rows]).astype(np.float64)
        truth = np.array([row.score for row in rows], dtype=np.float64)

        return pair_scores(found, truth, mode, self.how, resamples)

    def _retrieval(self, rows: Sequence[Row], mode: str) -> list[Score]:
        """Ranks among all other texts, or for a cross-encoder among some of them."""
        texts = list(dict.fromkeys(text for row in rows for text in (row.other, *row.negatives)))
        place = {text: number for number, text in enumerate(texts)}
        right: dict[str, set[int]] = {}
        for row in rows:
            right.setdefault(row.text, set()).add(place[row.other])
        queries = list(right)
        if self.options.way == "bi":
            table = self.vectors(queries) @ self.vectors(texts).T
            orders = [np.argsort(-line, kind="stable").tolist() for line in table]
            how = f"{self.how}, among {len(texts)} texts"
        else:
            rng = np.random.default_rng(0)
            lists = [[*right[query], *(int(i) for i in rng.permutation(len(texts)) if i not in right[query])][:AMONG]
                     for query in queries]
            raw = self.compare([(query, texts[i]) for query, some in zip(queries, lists) for i in some])
            parts = np.split(raw, np.cumsum([len(some) for some in lists])[:-1])
            # of equal scores the wrong texts come first: no credit for a model that cannot tell
            orders = [[some[i] for i in np.lexsort((np.isin(some, list(right[query])), -part))]
                      for some, part, query in zip(lists, parts, queries)]
            how = f"{self.how}, among {min(AMONG, len(texts))} texts"

        def score(name: str, rule: Any, *k: int) -> Score:
            items = [rule(order, right[query], *k) for order, query in zip(orders, queries)]
            return mean_score(f"retrieval {name}", mode, how, items, unit="share")

        return [score("MRR@10", ranking.reciprocal_rank), score("recall@1", ranking.recall, 1),
                score("recall@10", ranking.recall, 10), score("nDCG@10", ranking.ndcg)]

    @property
    def how(self) -> str:
        """The way in a few words, for the estimator of its scores."""
        return f"{self.options.way}-encoder, {self.options.pooling} states"

    def limits(self) -> str:
        learned = "scores of pairs" if self.span else "pairs that belong together"
        return (f"It has learned from {learned}; alike means what it means there. "
                + ("Its scores are no probabilities." if self.options.way == "bi" else
                   "It reads two texts at a time, so it cannot search among many."))

    # --- 6. what is stored ---

    def settings(self) -> dict[str, Any]:
        return {"options": asdict(self.options), "longest": self.form.longest, "segments": self.form.segments,
                "span": None if self.span is None else list(self.span), "way": self.options.way,
                "pooling": self.options.pooling, "visibility": self.options.visibility}

    def weights(self) -> dict[str, Tensor]:
        return {} if self.head is None else self.head.state_dict()

    @classmethod
    def restored(cls, trained: Trained | None, settings: Mapping[str, Any], weights: Mapping[str, Tensor]) -> Self:
        assert trained is not None
        options = Options(**settings["options"])
        head = None
        if options.way == "cross":
            head = Head(trained.config.shape.width, 1)
            try:
                head.load_state_dict(dict(weights))
            except RuntimeError as error:
                raise KeyError(str(error).splitlines()[-1].strip()) from None
            head.eval()
        span = settings["span"]
        return cls(trained, options, settings["longest"], None if span is None else (span[0], span[1]),
                   settings["segments"], head)


def pair_scores(found: np.ndarray, truth: np.ndarray, mode: str, how: str, resamples: int = 200) -> list[Score]:
    """"similarity Spearman" and "similarity Pearson" of the scores found with the true ones, both (n,) float."""

    def score(name: str, rule: Any) -> Score:
        return statistic_score(f"similarity {name}", mode, how, lambda some: rule(found[some], truth[some]),
                               len(truth), resamples=resamples, unit="correlation")

    return [score("Spearman", ranking.spearman), score("Pearson", ranking.pearson)]


def _span(train: Sequence[Row], learn: Learn) -> tuple[float, float] | None:
    """The lowest and highest score, or none where scores are not learned from. Raises: BothwaysError."""
    if not train:
        raise BothwaysError("comparing texts needs pairs to learn from: give some")
    if learn == "positives":
        if len({row.other for row in train}) < 2 and not any(row.negatives for row in train):
            raise BothwaysError("learning from pairs that belong together needs at least two different other texts, or "
                                "negatives")
        return None
    scores = [row.score for row in train if row.score is not None]
    if len(scores) < len(train):
        raise BothwaysError(f"{len(train) - len(scores)} of {len(train)} pairs have no score: name its column "
                            "(--columns score=...), or say --learn positives if all pairs belong together")
    if min(scores) == max(scores):
        raise BothwaysError(f"all {len(train)} pairs have the score {scores[0]:g}, so nothing can be learned from it")
    return min(scores), max(scores)


def _number(value: Any) -> float | None:
    """A finite number, or none where there is none. Raises: BadRow."""
    if value is None:
        return None
    if isinstance(value, str) and not value.strip():
        raise BadRow("no score")
    try:
        found = float(value)
    except (TypeError, ValueError):
        raise BadRow(f"the score is {value!r}, and a number is wanted") from None
    if not np.isfinite(found):
        raise BadRow(f"the score is {value!r}, and a finite number is wanted")
    return found


def _negatives(value: Any) -> tuple[str, ...]:
    """One text or a list of texts. Raises: BadRow."""
    parts = [] if value is None else value if isinstance(value, (list, tuple)) else [value]
    return tuple(values_of.text(part, "negative") for part in parts)
