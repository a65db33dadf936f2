"""How likely a continuation is, given a context: in every paradigm's own way; for two towers as source and target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bothways.batch import Example
from bothways.errors import BothwaysError
from bothways.evaluation.answers import TOKENS, answers
from bothways.evaluation.likelihood import bound, estimator
from bothways.evaluation.pseudo import RULES, pseudo_nats
from bothways.evaluation.questions import Way, ways
from bothways.evaluation.score import Score, mean_score, timed
from bothways.objectives.two_towers import taught

if TYPE_CHECKING:
    from bothways.families.trained import Trained


Ids = Sequence[int] | np.ndarray


@dataclass(frozen=True)
class Continued:
    """log p of one continuation in nats, whether every token of it was the likeliest, tokens, and how it was found.

    `greedy` is none where no single pass says so (bounds and pseudo-likelihoods).
    """

    log_prob: float
    greedy: bool | None
    tokens: int
    estimator: str


def continuations(trained: Trained, asked: Sequence[tuple[Ids, Ids]], *, way: Way | None = None,
                  samples: int = 16, rule: str | None = None, seed: int = 0,
                  tokens: int = TOKENS) -> list[Continued]:
    """log p(continuation | context) of each (context ids, continuation ids), by one way of calling the model.

    A context too long loses its beginning, as in lm-eval; `<bos>` stays in front.

    Args:
        way: the principal one when none: exact where the model has such a mode, else its bound.
        rule: a pseudo-likelihood of `pseudo.RULES` instead of the bound.
    Raises:
        BothwaysError: an empty continuation, or one longer than the model.
    """
    way = way or next((one for one in ways(trained, False) if one.kind == "exact"), ways(trained, False)[0])
    limit, begin = trained.config.position.length, trained.vocabulary.bos
    questions = []
    for number, (context, target) in enumerate(asked):
        room = limit - len(target)
        if not len(target) or room < 1:
            raise BothwaysError(f"continuation {number} has {len(target)} tokens, but must have 1 to {limit - 1} for "
                                "this model: cut it")
        before = [int(token) for token in context][int(len(context) > 0 and int(context[0]) == begin):]
        ids = np.array([begin, *before[max(0, len(before) - room + 1):], *target], dtype=np.int64)
        questions.append((ids, np.arange(len(ids)) >= len(ids) - len(target)))
    sizes = [int(hidden.sum()) for _, hidden in questions]
    if way.kind == "exact":
        found = answers(trained, [way.pose(*one) for one in questions], tokens)
        return [Continued(-one.nats, bool(one.correct.all()), size, estimator(way, samples))
                for one, size in zip(found, sizes)]
    nats = pseudo_nats(trained, way, questions, rule, tokens) if rule else \
        bound(trained, way, questions, samples, seed, tokens)
    how = RULES[rule] if rule else estimator(way, samples, "given")
    return [Continued(-float(one), None, size, how) for one, size in zip(nats, sizes)]


def translations(trained: Trained, asked: Sequence[tuple[Ids, Ids]],
                 tokens: int = TOKENS) -> list[Score]:
    """-log p(target | source) of each (source ids, target ids): the encoder reads one, the decoder writes the other.

    Both sides are taken as they are: close them with `<eos>` where the model was trained so.

    Returns:
        "target NLL" in nats per token; items are pairs, weights their tokens.
    Raises:
        BothwaysError: a network of one tower.
    """
    if trained.objective.stack != "two towers":
        raise BothwaysError("source and target need an encoder and a decoder, and this network is one tower: score "
                            "continuations instead")
    scores: list[Score] = []
    with timed(scores):
        nats = [one.nats for one in answers(trained, [question(trained, *pair) for pair in asked], tokens)]
        sizes = np.array([len(target) for _, target in asked], dtype=float)
        scores.append(mean_score("target NLL", "encoder-decoder", "exact", np.array(nats) / sizes, sizes,
                                 unit="nats per token", higher_is_better=False, details={"tokens": float(sizes.sum())}))
    return scores


def question(trained: Trained, source: Ids, target: Ids) -> Example:
    """A source and the target that is asked for, behind the token that the decoder begins with."""
    ids = np.array(target, dtype=np.int64)
    begin = trained.vocabulary.ids.get("<begin>", trained.vocabulary.bos)
    return taught(np.array(source, dtype=np.int64), ids, np.ones(len(ids), bool), begin, len(ids))
