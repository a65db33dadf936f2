"""The grammar of the known source, as a hidden Markov model: states that say words, and moves between them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

NOUNS = {
    "home": (("cat", "cats"), ("chair", "chairs"), ("child", "children")),
    "road": (("car", "cars"), ("bridge", "bridges"), ("driver", "drivers")),
    "field": (("horse", "horses"), ("tree", "trees"), ("farmer", "farmers")),
    "sea": (("boat", "boats"), ("wave", "waves"), ("sailor", "sailors")),
}
VERBS = {
    "home": (("sleeps", "sleep"), ("loves", "love"), ("cleans", "clean")),
    "road": (("turns", "turn"), ("follows", "follow"), ("stops", "stop")),
    "field": (("grows", "grow"), ("feeds", "feed"), ("calls", "call")),
    "sea": (("swims", "swim"), ("carries", "carry"), ("sinks", "sink")),
}
SAME_IN_BOTH_NUMBERS = ("sheep", "fish")
ADJECTIVE_OR_NOUN = ("light", "cold", "round", "square")
ADJECTIVES = ("old", "small", "red", "new", "quiet")
STOPS = (".", "!")
AMBIGUOUS = frozenset((*SAME_IN_BOTH_NUMBERS, *ADJECTIVE_OR_NOUN))

OWN_TOPIC = 0.6
"""The share of nouns and verbs that come from the document's topic; the others come from all topics alike."""


class Role(NamedTuple):
    """What a state stands for: `noun` and `verb` are the subject and the main verb, the rest begins otherwise."""

    topic: str
    part: str
    subject: str
    number: str
    tag: str


@dataclass(frozen=True)
class Grammar:
    """A hidden Markov model over S states and W words.

    starts: (S,) in which state a sentence of a new document begins.
    moves: (S, S) row to column; from a stop it leads to the start of the next sentence of the same topic.
    says: (S, W) which word a state says.
    roles: what each state stands for; other_number: the other form of every verb.
    """

    words: tuple[str, ...]
    roles: tuple[Role, ...]
    starts: np.ndarray
    moves: np.ndarray
    says: np.ndarray
    other_number: Mapping[str, str]

    @property
    def topics(self) -> tuple[str, ...]:
        """The names of the topics."""
        return tuple(NOUNS)

    @classmethod
    def make(cls, seed: int = 0) -> Grammar:
        """The grammar, with the probabilities of words drawn from the seed."""
        rng = np.random.default_rng((seed, 0))
        words = _all_words()
        roles = [role for topic in NOUNS for role in _roles(topic)]
        place = {(role.topic, role.part, role.subject, role.number): i for i, role in enumerate(roles)}
        moves = np.zeros((len(roles), len(roles)))
        says = np.zeros((len(roles), len(words)))
        starts = np.zeros(len(roles))
        weights = {part: _weights(rng, part) for part in ("det", "adj", "sg", "pl", "verb-sg", "verb-pl", "prep", "adv",
                                                          "stop", "be-sg", "be-pl", "that")}
        for i, role in enumerate(roles):
            for (part, subject, number), probability in _next(role).items():
                moves[i, place[role.topic, part, subject, number]] += probability
            for word, probability in _lexicon(role, weights).items():
                says[i, words.index(word)] += probability
            if role.part == "det":
                starts[i] = 1 / len(NOUNS) / 2
        forms = [pair for pairs in VERBS.values() for pair in pairs] + [("is", "are")]
        other = {**dict(forms), **{plural: singular for singular, plural in forms}}
        return cls(words, tuple(roles), starts, moves, says, other)


def _all_words() -> tuple[str, ...]:
    nouns = [form for pairs in NOUNS.values() for pair in pairs for form in pair]
    verbs = [form for pairs in VERBS.values() for pair in pairs for form in pair]
    return ("the", "a", "this", "these", *ADJECTIVES, *ADJECTIVE_OR_NOUN, *nouns, *SAME_IN_BOTH_NUMBERS, *verbs, "is",
            "are", "near", "behind", "that", "today", "again", *STOPS)


_TAGS = {"det": "determiner", "adj": "adjective", "prep": "preposition", "that": "relative", "adv": "adverb",
         "stop": "stop"}
_NUMBERED = ("det", "adj", "noun")
"""Parts of a noun phrase; `mod-`, `rel-` and `obj-` ones stand in a modifier, a relative clause and an object."""


def _roles(topic: str) -> list[Role]:
    """The states of one topic: (part of the sentence, number of the subject, own number)."""
    found = [(part, n, n) for n in ("sg", "pl") for part in (*_NUMBERED, "verb", "be")]
    for n in ("sg", "pl"):
        found += [("prep", n, ""), ("that", n, ""), ("rel-verb", n, n)]
        found += [(f"{side}-{part}", n, m) for side in ("mod", "rel") for part in ("det", "noun") for m in ("sg", "pl")]
    found += [(f"obj-{part}", "", m) for part in _NUMBERED for m in ("sg", "pl")]
    found += [("predicate", "", ""), ("adv", "", ""), ("stop", "", "")]
    return [Role(topic, part, subject, number, _tag(part, number)) for part, subject, number in found]


def _tag(part: str, number: str) -> str:
    kind = part.rpartition("-")[2]
    if kind in ("noun", "verb", "be"):
        return ("noun " if kind == "noun" else "verb ") + {"sg": "singular", "pl": "plural"}[number]
    return _TAGS["adj" if kind == "predicate" else kind]


def _next(role: Role) -> dict[tuple[str, str, str], float]:
    """Where a state leads: {(part, subject, number): probability}."""
    part, subject, number = role.part, role.subject, role.number
    either = ("sg", "pl")
    side, _, kind = part.rpartition("-")
    own = f"{side}-" if side else ""
    if part in ("det", "obj-det"):
        return {(f"{own}adj", subject, number): 0.4, (f"{own}noun", subject, number): 0.6}
    if part in ("adj", "obj-adj"):
        return {(f"{own}noun", subject, number): 1.0}
    if part == "noun":
        return {("verb", subject, subject): 0.4, ("be", subject, subject): 0.15, ("prep", subject, ""): 0.25,
                ("that", subject, ""): 0.2}
    if part == "prep":
        return {("mod-det", subject, m): 0.5 for m in either}
    if part == "that":
        return {("rel-verb", subject, subject): 1.0}
    if part == "rel-verb":
        return {("rel-det", subject, m): 0.5 for m in either}
    if kind == "det":
        return {(f"{own}noun", subject, number): 1.0}
    if part in ("mod-noun", "rel-noun"):
        return {("verb", subject, subject): 0.7, ("be", subject, subject): 0.3}
    if part == "be":
        return {("predicate", "", ""): 1.0}
    if part == "verb":
        return {**{("obj-det", "", m): 0.25 for m in either}, ("adv", "", ""): 0.25, ("stop", "", ""): 0.25}
    if part in ("obj-noun", "predicate"):
        return {("adv", "", ""): 0.3, ("stop", "", ""): 0.7}
    if part == "adv":
        return {("stop", "", ""): 1.0}
    return {("det", n, n): 0.5 for n in either}


def _lexicon(role: Role, weights: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """What a state says: {word: probability}."""
    kind = role.part.rpartition("-")[2]
    if kind == "noun":
        return _coloured(weights[role.number], {form for pair in NOUNS[role.topic] for form in pair})
    if kind == "verb":
        return _coloured(weights[f"verb-{role.number}"], {form for pair in VERBS[role.topic] for form in pair})
    if kind == "det":
        fitting = ("the", "a", "this") if role.number == "sg" else ("the", "these")
        return _normal({word: weights["det"][word] for word in fitting})
    if kind == "be":
        return dict(weights[f"be-{role.number}"])
    return dict(weights["adj" if kind == "predicate" else kind])


def _weights(rng: np.random.Generator, part: str) -> dict[str, float]:
    """How likely each word of a part of speech is, before topics: uneven, and never rare."""
    column = 1 if part.endswith("pl") else 0
    words: tuple[str, ...] = {
        "det": ("the", "a", "this", "these"), "adj": (*ADJECTIVES, *ADJECTIVE_OR_NOUN),
        "sg": (*(pair[0] for pairs in NOUNS.values() for pair in pairs), *SAME_IN_BOTH_NUMBERS, *ADJECTIVE_OR_NOUN),
        "pl": (*(pair[1] for pairs in NOUNS.values() for pair in pairs), *SAME_IN_BOTH_NUMBERS),
        "prep": ("near", "behind"), "adv": ("today", "again"), "stop": STOPS, "that": ("that",),
    }.get(part, ())
    if part.startswith("verb"):
        words = tuple(pair[column] for pairs in VERBS.values() for pair in pairs)
    if part.startswith("be"):
        words = (("is", "are")[column],)
    drawn = rng.uniform(0.6, 1.4, len(words))
    if part == "det":
        drawn *= np.array([2.0, 1.0, 0.8, 0.8])  # `the` fits both numbers, and does not give the subject's away
    if part == "sg":
        drawn[-len(ADJECTIVE_OR_NOUN):] *= 3.0  # about as often a noun as an adjective after a determiner
    return _normal(dict(zip(words, drawn.tolist(), strict=True)))


def _coloured(weights: Mapping[str, float], own: set[str]) -> dict[str, float]:
    """Words of the topic take OWN_TOPIC of the whole; the others keep their proportions in what is left."""
    mine = _normal({word: weight for word, weight in weights.items() if word in own})
    return {word: (1 - OWN_TOPIC) * weight + OWN_TOPIC * mine.get(word, 0.0) for word, weight in weights.items()}


def _normal(weights: Mapping[str, float]) -> dict[str, float]:
    total = sum(weights.values())
    return {word: weight / total for word, weight in weights.items()}
