"""The ways a model can be asked for tokens: every mode it was trained in, and those it was not.

A `Way` poses a question, `pose(ids, hidden) -> Example`. For trained modes that is the objective's own `blank`. A
one-tower network can also be called in the direction it was never trained in: what happens then is finding F3(i),
the collapse that a small share of the other objective repairs (GPT-BERT, arXiv 2410.24159, figure 2).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from torch import Tensor

from bothways.batch import Example, Vocabulary, Window
from bothways.objectives import base
from bothways.visibility import Fields, Visibility, bidirectional, causal

if TYPE_CHECKING:
    from bothways.families.trained import Trained
    from bothways.text.tokenizer import Tokenizer

Pose = Callable[[np.ndarray, np.ndarray], Example]
OFF = " (off-mode)"


@dataclass(frozen=True)
class Way:
    """One way of calling a model for scoring.

    `kind` is what the chain of its answers is: "exact" (left to right, the chain rule of one distribution) or
    "both sides" (answers given everything that is not hidden: bounds and pseudo-likelihoods). `mode` is none where
    the model was not trained so; `two_towers` says that the hidden text is written by a decoder.
    """

    name: str
    kind: Literal["exact", "both sides"]
    pose: Pose
    mode: base.Mode | None = None
    two_towers: bool = False

    @property
    def trained(self) -> bool:
        """Whether the network was trained to be called so."""
        return self.mode is not None


def ways(trained: Trained, off_mode: bool = True) -> list[Way]:
    """Every way `trained` can be called: its own modes first, then (one tower only) the direction it never saw.

    A trunk that never learnt to name tokens, since a companion answers for it, has no other direction either.
    """
    objective = trained.objective
    found = [_own(objective, mode) for mode in objective.modes]
    if objective.stack == "two towers" or not off_mode or objective.modes[0].head != "tokens":
        return found
    kinds = {way.kind for way in found}
    mask_token, predicts = objective.vocabulary.mask, objective.modes[0].predicts
    if "exact" not in kinds:
        found.append(Way("causal" + OFF, "exact", _causal_poser(mask_token, predicts)))
    if "both sides" not in kinds:
        found.append(Way("bidirectional" + OFF, "both sides", _bidirectional_poser(mask_token, predicts)))
    return found


def principal(trained: Trained, kind: Literal["exact", "both sides"] | None = None) -> Way | None:
    """The first trained way (of that kind), or none."""
    return next((way for way in ways(trained, off_mode=False) if kind in (None, way.kind)), None)


def halves(windows: Sequence[Window] | Sequence[np.ndarray], vocabulary: Vocabulary, limit: int,
           minimum: int = 16) -> list[tuple[np.ndarray, np.ndarray]]:
    """At most `limit` windows spread evenly over `windows`, each with its second half hidden.

    No reserved token is ever hidden, so that every paradigm is asked for the same plain tokens, also those that
    never predict an end. Windows out of the middle of a text are taken as long as there are any: where a window
    ends with the text, its `<eos>` tells whoever sees both sides how long the text is.

    Returns:
        list of (ids (L,) int64, hidden (L,) bool); windows shorter than `minimum` are passed over.
    """
    middles: list[tuple[np.ndarray, np.ndarray]] = []
    ends: list[tuple[np.ndarray, np.ndarray]] = []
    for place in spread(len(windows), 4 * limit):
        window = windows[place]
        ids = np.asarray(window.ids if isinstance(window, Window) else window, dtype=np.int64)
        if len(ids) >= minimum:
            last = int(np.flatnonzero(~vocabulary.special[ids]).max(initial=-1)) + 1
            asked = (ids, (np.arange(len(ids)) >= last // 2) & ~vocabulary.special[ids])
            (ends if with_end(ids, vocabulary) else middles).append(asked)
    some = [middles[place] for place in spread(len(middles), limit)]
    return some + [ends[place] for place in spread(len(ends), limit - len(some))]


def rests(windows: Sequence[Window] | Sequence[np.ndarray], vocabulary: Vocabulary,
          limit: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """At most `limit` whole texts spread evenly over `windows`, each with all behind its beginning hidden, the end too.

    What is asked for is one event, "these tokens and then the end", whose probabilities add up to one over all that
    could follow; so nobody who has to say where a text ends can come out better than the truth. That holds only if
    the cut tells nothing about what is behind it: it lies at one place in all texts, half their median length. A cut
    in the middle of each text would tell its length to whoever learned that hidden ends are as long as beginnings.

    Returns:
        list of (ids (L,) int64, hidden (L,) bool), `<eos>` among the hidden; texts that end before the cut, and
        windows that are no whole text, are passed over.
    """
    found = [np.asarray(window.ids if isinstance(window, Window) else window, dtype=np.int64)
             for window in (windows[place] for place in spread(len(windows), 4 * limit))]
    whole = [ids for ids in found if len(ids) > 2 and ids[0] == vocabulary.bos and with_end(ids, vocabulary)]
    if not whole:
        return []
    cut = max(1, int(np.median([len(ids) for ids in whole])) // 2)
    long = [ids for ids in whole if len(ids) > cut]
    return [(ids, np.arange(len(ids)) >= cut) for ids in (long[place] for place in spread(len(long), limit))]


def tells_length(way: Way, vocabulary: Vocabulary) -> bool:
    """Whether a question tells how many tokens are hidden, found by posing two: who sees both sides counts the places,
    and so does a decoder whose encoder reads one `<mask>` for each hidden token."""
    if way.kind == "both sides":
        return True
    ordinary = np.flatnonzero(~vocabulary.special)
    ids = np.concatenate(([vocabulary.bos], np.resize(ordinary, 8), [vocabulary.eos]))
    one, two = (way.pose(text, np.arange(len(text)) >= 3) for text in (ids, np.delete(ids, 6)))
    return one.source is not None and two.source is not None and not (
        len(one.source) == len(two.source) and bool(one.source.inputs.equal(two.source.inputs)))


def with_end(ids: np.ndarray, vocabulary: Vocabulary) -> bool:
    """Whether these ids (L,) end with the end of their text."""
    return len(ids) > 0 and bool(ids[-1] == vocabulary.eos)


def from_texts(tokenizer: Tokenizer, texts: Iterable[str], length: int, limit: int) -> list[Window]:
    """At most `limit` windows of `length` tokens, in the tokens of a model.

    Texts are read one by one until four times as many windows were seen, of which an even spread is kept.
    """
    vocabulary = tokenizer.vocabulary
    found: list[Window] = []
    for number, text in enumerate(texts):
        ids = np.array([vocabulary.bos, *tokenizer.encode(text, reserved=False), vocabulary.eos], dtype=np.int64)
        found += [Window(ids[start:start + length], number, start, len(found) + place)
                  for place, start in enumerate(range(0, len(ids), length)) if len(ids) - start >= 16]
        if len(found) >= 4 * limit:
            break
    return [found[place] for place in spread(len(found), limit)]


def spread(n: int, limit: int) -> list[int]:
    """At most `limit` of the places 0..n-1, evenly spread and always the same."""
    return [int(place) for place in np.linspace(0, n - 1, min(n, limit)).round()] if n and limit > 0 else []


@dataclass(frozen=True, repr=False)
class BeforeItsPlace(Visibility):
    """For blanks laid beside their text: tokens with `prefix` 1 are the text, the others are blanks.

    Everybody sees the text of a lower (or its own) `rank`, and itself; nobody sees another's blank. With text at
    rank 2i and the blank of place k at rank 2k - 1, one pass asks every place given only what stands before it.
    """

    needs = frozenset({"rank", "prefix"})

    def allows(self, queries: Fields, keys: Fields) -> Tensor:
        query, key = queries["rank"].unsqueeze(-1), keys["rank"].unsqueeze(-2)
        return ((keys["prefix"].unsqueeze(-2) == 1) & (key <= query)) | (key == query)

    def __repr__(self) -> str:
        return "into the text before its place"


def _own(objective: base.Objective, mode: base.Mode) -> Way:
    """A trained mode, asked in the objective's own format."""
    return Way(mode.name, "exact" if mode.likelihood == "exact" else "both sides",
               lambda ids, hidden: objective.blank(ids, hidden, mode), mode, objective.stack == "two towers")


def _causal_poser(mask_token: int, predicts: str) -> Pose:
    """A network trained on both sides, called left to right.

    One that names the token `here` needs a blank at the very place it is asked for, which would hide that token from
    the places after it: so the blanks are laid beside the text, at their places, and see only what stands before.
    """
    def pose(ids: np.ndarray, hidden: np.ndarray) -> Example:
        asked = np.flatnonzero(hidden)
        if predicts == "next":
            asked = asked[asked > 0]
            return base.example(ids, causal, [base.ask(asked - 1, ids[asked])])
        place = np.concatenate([np.arange(len(ids)), asked])
        text = np.arange(len(place)) < len(ids)
        return base.example(np.concatenate([ids, np.full(len(asked), mask_token)]), BeforeItsPlace(),
                            [base.ask(len(ids) + np.arange(len(asked)), ids[asked])], raw=len(ids),
                            index=place, position=place, prefix=text, rank=2 * place - np.where(text, 0, 1))
    return pose


def _bidirectional_poser(mask_token: int, predicts: str) -> Pose:
    """A network trained left to right, called with both sides visible and `<mask>` where tokens are hidden."""
    def pose(ids: np.ndarray, hidden: np.ndarray) -> Example:
        asked = np.flatnonzero(hidden)
        where = asked
        if predicts == "next":
            asked = asked[asked > 0]
            where = asked - 1
        return base.example(np.where(hidden, mask_token, ids), bidirectional, [base.ask(where, ids[asked])])
    return pose
