"""How a text and a label become a question of likelihood: what is read, and what is hidden.

With one label a text, a label is its words. With several, each label is a question by itself with two answers, which
stand behind its words: "sports: yes" and "sports: no". Ways that hide the label hide only the answer then; ways that
hide the text read both.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple, Self

import numpy as np

from bothways.errors import BothwaysError
from bothways.tasks.asking import Asked
from bothways.tasks.ways import Choices, Row

if TYPE_CHECKING:
    from bothways.families.trained import Trained
    from bothways.text.tokenizer import Tokenizer

TEMPLATE = "{text} It is about {label}."
"""How a prompt is written where the user says nothing."""
POSTERIOR = ("text-to-text", "prompt")
"""The forms in which the label is hidden; in the others the text is."""
ANSWERS = ("no", "yes")
"""What stands behind a label's words where a text may have several labels."""


class Alternative(NamedTuple):
    """A label; with several labels a text, one of them with the number of an answer: 0 for no, 1 for yes."""

    label: str
    answer: int | None = None


@dataclass(frozen=True)
class Form:
    """How a text and a label become tokens. `longest` counts them all; the text is cut, the label never.

    `filled` is the number of tokens that every hidden label has, with end tokens behind shorter ones. A network that
    fills places sees how many there are: without it, one that is tuned would tell labels by their lengths and read
    nothing else. 0 leaves them as they are.
    """

    name: str
    longest: int
    template: str
    words: Mapping[str, str]
    filled: int = 0

    def asked(self, trained: Trained, text: Row, alternative: Alternative) -> Asked:
        """The tokens, and which of them are hidden."""
        vocabulary = trained.vocabulary
        sep = [vocabulary.ids["<sep>"]] if "<sep>" in vocabulary.ids else self._ids(trained, "\n")
        read = text.text if text.other is None else f"{text.text} {text.other}"
        topic, answer = self._said(trained, alternative)
        words = [*topic, *answer]
        room = self.longest - max(len(words), len(topic) + self.filled)
        if self.name in ("text-to-text", "generative"):
            x, end = self._ids(trained, read)[:room - len(sep) - 2], [vocabulary.eos]
            if self.name == "text-to-text":
                # a label may be the beginning of another, so its end is asked for too; an answer is not
                said = answer if topic else [*answer, *end]
                return _hidden(trained, [*x, *sep, *topic], self._full(trained, said), [])
            return _hidden(trained, [*words, *sep], [*x, *end], [])
        # templates: what stands before the text, between and behind
        before, between, behind = self._parts()
        fixed = [self._ids(trained, part) for part in (before, between, behind)]
        room -= 1 + sum(map(len, fixed))
        x = self._ids(trained, self._spaced(trained, read) if before else read)[:room]
        if self.name == "prompt":
            return _hidden(trained, [*fixed[0], *x, *fixed[1], *topic], self._full(trained, answer),
                           fixed[2])
        # the channel: what the template says behind the text comes first
        return _hidden(trained, [*self._ids(trained, between.lstrip()), *words, *fixed[2]],
                       self._ids(trained, self._spaced(trained, read))[:room], [])

    def _said(self, trained: Trained, alternative: Alternative) -> tuple[list[int], list[int]]:
        """What of a label is known when it is asked for, and the answer: all of its words where it is alone."""
        words = self._spaced(trained, self.words.get(alternative.label, alternative.label))
        if alternative.answer is None:
            return [], self._ids(trained, words)
        # a tokenizer of whole words would take the colon for a part of the word
        topic = words if getattr(trained.tokenizer, "kind", "") == "words" else f"{words}:"
        return self._ids(trained, topic), self._ids(trained, self._spaced(trained, ANSWERS[alternative.answer]))

    def _full(self, trained: Trained, answer: Sequence[int]) -> list[int]:
        return [*answer, *[trained.vocabulary.eos] * (self.filled - len(answer))]

    def checked(self, trained: Trained, choices: Choices, filled: bool) -> Self:
        """This form, with `filled` as long as the longest label if that is wanted.

        Raises:
            BothwaysError: two alternatives are the same tokens to this network.
        """
        known: dict[tuple[int, ...], Alternative] = {}
        for one in alternatives(choices):
            topic, answer = self._said(trained, one)
            other = known.setdefault((*topic, *answer), one)
            if other.label != one.label:
                raise BothwaysError(f"the labels '{other.label}' and '{one.label}' are the same tokens to this "
                                    "network: give them other words with --words label=words, or take the way head")
            if other.answer != one.answer:
                raise BothwaysError(f"with several labels a text the way '{self.name}' asks for yes or no, which are "
                                    "the same tokens to this network: take the way head")
        longest = max(len(self._said(trained, one)[1]) for one in alternatives(choices))
        ends = self.name == "text-to-text" and not choices.several
        return replace(self, filled=longest + ends if filled else 0)

    def _parts(self) -> tuple[str, str, str]:
        before, _, rest = self.template.partition("{text}")
        between, _, behind = rest.partition("{label}")
        # the space before a word belongs to its first token
        return before.rstrip(), between.rstrip(), behind

    @staticmethod
    def _ids(trained: Trained, words: str) -> list[int]:
        return list(_encoded(trained.tokenizer, words)) if words else []

    @staticmethod
    def _spaced(trained: Trained, words: str) -> str:
        """With the space that stands before a word inside a text, where pieces have it in them."""
        return words if getattr(trained.tokenizer, "kind", "") in ("words", "bytes") else " " + words


@functools.lru_cache(maxsize=4096)
def _encoded(tokenizer: Tokenizer, words: str) -> tuple[int, ...]:
    """The same labels come with every text, and the same texts with every label."""
    return tuple(tokenizer.encode(words, reserved=False))


def _hidden(trained: Trained, before: Sequence[int], asked: Sequence[int], behind: Sequence[int]) -> Asked:
    ids = np.array([trained.vocabulary.bos, *before, *asked, *behind], dtype=np.int64)
    places = np.arange(len(ids))
    return ids, (places > len(before)) & (places <= len(before) + len(asked))


def alternatives(choices: Choices) -> list[Alternative]:
    """What the likelihoods of a text are compared over: the labels, or of each label its two answers in a row."""
    if choices.several:
        return [Alternative(label, answer) for label in choices.labels for answer in range(len(ANSWERS))]
    return [Alternative(label) for label in choices.labels]


def true_alternatives(row: Row, choices: Choices) -> list[Alternative]:
    """Those of a labelled text that are so: one, or an answer for each label."""
    if choices.several:
        return [Alternative(label, int(label in (row.labels or ()))) for label in choices.labels]
    return [Alternative((row.labels or ("",))[0])]


def checked_template(template: str | None) -> str:
    """A template with one {text} and, behind it, one {label}. Raises: BothwaysError."""
    template = template or TEMPLATE
    if template.count("{text}") != 1 or template.count("{label}") != 1 or \
            template.index("{text}") > template.index("{label}"):
        raise BothwaysError(f"the template '{template}' must hold {{text}} once and, behind it, {{label}} once")
    return template


def words_of(choices: Choices) -> dict[str, str]:
    """The words of each label: those given as label=words, else its name with spaces.

    Raises:
        BothwaysError: words for a label there is not, or the same words for two.
    """
    found = {label: label.replace("_", " ").replace("-", " ").strip() or label for label in choices.labels}
    for one in choices.options.words:
        label, equals, words = one.partition("=")
        if not equals or label not in found or not words.strip():
            raise BothwaysError(f"words '{one}': write label=words, with one of the labels {', '.join(choices.labels)}")
        found[label] = words
    if len(set(found.values())) < len(found):
        raise BothwaysError("two labels have the same words: give them others with --words label=words")
    return found
