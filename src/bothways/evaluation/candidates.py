"""Scoring what may stand in a blank: the candidates of one text, by the best likelihood that the model has.

What a log probability speaks of depends on the model, and its estimator's name says it:

- "exact, both sides given": written by a model that infills, with its end;
- "exact, the whole text written again": the same, by one that writes all of the text (BART);
- "exact, with all that follows": log p(candidate and the text behind it | the text before it), the chain rule of a
  model that looks left; it orders candidates as well, since the text before is the same for all;
- "one place, both sides given": what a network that names hidden tokens says there, for candidates of one token;
- "pseudo, place by place from left to right": for longer ones the chain rule over their places, later ones hidden. It
  is a distribution over candidates of as many tokens, and the model has none over how many: those of different lengths
  are ranked by their mean per token, and have no share;
- "chain rule from left to right, with all that follows": the same by blocks, which do not see what is behind them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from bothways.batch import Example
from bothways.decoding.common import decoding_for
from bothways.decoding.reading import extended
from bothways.decoding.sampling import GenerateConfig
from bothways.errors import BothwaysError
from bothways.evaluation.answers import TOKENS, answers
from bothways.families.trained import Trained
from bothways.objectives.base import Mode, ask

Candidate = Sequence[Sequence[int]]
"""Token ids for each blank of the text."""
WHOLE, BOTH_SIDES = "exact, the whole text written again", "exact, both sides given"
FOLLOWING, BLOCKS = "exact, with all that follows", "chain rule from left to right, with all that follows"
ONE, PSEUDO = "one place, both sides given", "pseudo, place by place from left to right"


@dataclass(frozen=True)
class FillScore:
    """What a candidate is worth.

    number: of the candidate in the call. log_prob: natural. tokens: how many of them were scored. share: of the
    candidate among all of the call, if exactly one of them is true; none where log probabilities cannot be compared.
    """

    number: int
    candidate: str
    log_prob: float
    tokens: int
    share: float | None
    estimator: str


def score_fills(trained: Trained, text: Sequence[int], candidates: Sequence[Candidate], names: Sequence[str],
                mode: Mode | None = None, tokens: int = TOKENS) -> list[FillScore]:
    """The candidates for the `<mask>`s of a text, the best first.

    Args:
        text: token ids without `<bos>`, or with.
        names: of the candidates, for the answer.
        mode: of the model; the first that fills, or else the first, when none.
        tokens: read in one pass.
    Raises:
        BothwaysError: no blank, an empty candidate, or one of another number of blanks.
    """
    objective, vocabulary = trained.objective, trained.vocabulary
    fillers = [one for one in objective.modes if objective.decoding_of(one) != "left_to_right"]
    mode = mode or (fillers or objective.modes)[0]
    blanks = list(text).count(vocabulary.ids.get("<mask>", -1))
    if not blanks:
        raise BothwaysError("the text has no <mask>: write one where the candidates are to stand")
    for candidate, name in zip(candidates, names, strict=True):
        if len(candidate) != blanks or not all(len(words) for words in candidate):
            raise BothwaysError(f"the candidate '{name}' has words for {sum(map(bool, candidate))} blanks, but the "
                                f"text has {blanks}: give each blank one token at least")
    # 1. the questions of each candidate, and which answers count
    whole = [1] * (not len(text) or int(text[0]) != vocabulary.bos)
    ids = np.array([*[vocabulary.bos for _ in whole], *text,
                    *([vocabulary.eos] if int(text[-1]) != vocabulary.eos else [])], dtype=np.int64)
    decoding = "left_to_right" if mode not in fillers else decoding_for(trained, mode, "fill", GenerateConfig())
    posed = [_posed(trained, ids, candidate, mode, decoding) for candidate in candidates]
    # 2. one call for all of them
    answered = iter(answers(trained, [question for questions in posed for question, _ in questions], tokens))
    sums, counts = [], []
    for questions in posed:
        chosen = [next(answered).log_probs[which] for _, which in questions]
        sums.append(float(sum(part.sum() for part in chosen)))
        counts.append(sum(len(part) for part in chosen))
    # 3. the best first
    estimator = _estimator(trained, decoding, posed, ids)
    comparable = estimator != PSEUDO or len(set(counts)) == 1
    values = np.array(sums) if comparable else np.array(sums) / np.array(counts)
    shares = np.exp(np.array(sums) - np.logaddexp.reduce(sums)) if comparable else [None] * len(sums)
    return [FillScore(int(i), names[i], sums[i], counts[i], None if shares[i] is None else float(shares[i]), estimator)
            for i in np.argsort(-values, kind="stable")]


def _posed(trained: Trained, ids: np.ndarray, candidate: Candidate, mode: Mode,
           decoding: str) -> list[tuple[Example, slice]]:
    """Questions whose answers, each cut to its slice, add up to the candidate's log probability."""
    objective, mark = trained.objective, trained.vocabulary.mask
    if decoding == "infill":
        return [(question, slice(None)) for question in _written(trained, ids, candidate, mode)]
    # 1. the text with the candidate in it
    left = iter(candidate)
    parts = [(list(next(left)), True) if token == mark else ([int(token)], False) for token in ids]
    text = np.array([token for part, _ in parts for token in part], dtype=np.int64)
    inside = np.array([is_candidate for part, is_candidate in parts for _ in part])
    if decoding == "left_to_right":
        return [(objective.blank(text, np.arange(len(text)) >= int(np.argmax(inside)), mode), slice(None))]
    # 2. place by place, the later ones hidden
    asked = np.flatnonzero(inside)
    if decoding == "block_diffusion":
        asked = np.arange(asked[0], len(text))
    return [(objective.blank(text, np.isin(np.arange(len(text)), asked[number:]), mode), slice(0, 1))
            for number in range(len(asked))]


def _written(trained: Trained, ids: np.ndarray, candidate: Candidate, mode: Mode) -> list[Example]:
    """What a model that infills would write, asked token by token in one pass: a question for each of its turns."""
    objective, mark, left = trained.objective, trained.vocabulary.mask, list(candidate)
    questions = []
    while mark in ids:
        begun = objective.infilling(ids, mode)
        stream = objective.written_fills(ids, left)
        question = extended(begun, stream[:-1])
        where = len(begun) - 1 + np.arange(len(stream))
        questions.append(replace(question, asks=(ask(where, np.array(stream)),)))
        after = np.array(objective.read_infilling(ids, stream), dtype=np.int64)
        left = left[int((ids == mark).sum() - (after == mark).sum()):]
        ids = after
    return questions


def _estimator(trained: Trained, decoding: str, posed: Sequence[Sequence[object]], ids: np.ndarray) -> str:
    """The name of what was added up."""
    if decoding == "infill":
        mark = trained.vocabulary.mask
        dots = [[int(trained.vocabulary.eos)]] * int((ids == mark).sum())
        return WHOLE if len(trained.objective.written_fills(ids, dots)) >= len(ids) - 1 else BOTH_SIDES
    if decoding in ("left_to_right", "block_diffusion"):
        return FOLLOWING if decoding == "left_to_right" else BLOCKS
    return ONE if all(len(questions) == 1 for questions in posed) else PSEUDO
