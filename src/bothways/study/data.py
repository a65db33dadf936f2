"""The text of a source and the questions asked on it, made once for a study and the same for every contender.

    data/<source>/corpus/         tokenizer and windows (`bothways.text.prepare`)
    data/<source>/questions.json  minimal pairs, labelled and tagged texts, prompts
    data/<source>/prepared.json   a report, written last: it says that all is there
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bothways.errors import BothwaysError
from bothways.study.efforts import EFFORTS, Effort
from bothways.study.plan import EMBEDDED, Source, write_json
from bothways.study.sizes import Size

OBVIOUS = frozenset({"operator", "keyword", "comment", "string"})
"""Tags of code that the token alone gives away: what is asked is what a *name* is at its place."""
SEED = 20_260
"""Of every choice of questions: all contenders, seeds and studies are asked the same."""
Texts = list[tuple[str, str]]
"""(text, label)."""
Tagged = tuple[str, list[tuple[int, int, str]]]
"""A text, and (first character, character after the last, tag) of each span."""


@dataclass(frozen=True)
class Questions:
    """What is asked. Empty lists mean that a source does not offer the task.

    pairs: (good, bad, measure key); tagged: (tokens or text, spans of characters with tags).
    """

    pairs: list[tuple[str, str, str]]
    train_texts: Texts
    test_texts: Texts
    train_tagged: list[Tagged]
    test_tagged: list[Tagged]
    train_functions: list[tuple[str, str]]
    test_functions: list[tuple[str, str]]
    prompts: list[str]
    labels_from: str = ""


def prepare(source: Source, size: Size, folder: Path) -> dict[str, Any]:
    """Make everything below `folder`; returns the report.

    Raises:
        BothwaysError: a corpus, label or pair file that cannot be used, in one sentence.
    """
    effort = EFFORTS[source.effort]
    if source.kind == "known":
        report, questions = _known(folder, size, effort)
    else:
        report, questions = _text(source, folder, size, effort)
    write_json(folder / "questions.json", questions.__dict__)
    report = {**report, "questions": {name: len(value) for name, value in questions.__dict__.items()
                                      if isinstance(value, list)}, "labels_from": questions.labels_from}
    write_json(folder / "prepared.json", report)
    return report


def load(folder: Path) -> tuple[Any, Questions]:
    """(Prepared, Questions) of a source that has been prepared."""
    from bothways.text.prepare import Prepared

    data = json.loads((folder / "questions.json").read_text(encoding="utf-8"))
    spans = {name: [(text, [(int(a), int(b), str(tag)) for a, b, tag in found]) for text, found in data.pop(name)]
             for name in ("train_tagged", "test_tagged")}
    pairs = {name: [tuple(entry) for entry in value] for name, value in data.items()
             if isinstance(value, list) and name != "prompts"}
    return Prepared.load(folder / "corpus"), Questions(**{**data, **pairs, **spans})


# ------------------------------------------------------------------------------------------- the known source

def _known(folder: Path, size: Size, effort: Effort) -> tuple[dict[str, Any], Questions]:
    from bothways.text.known import KnownSource

    source = KnownSource(seed=0)
    prepared = source.prepare(folder / "corpus", documents=effort.documents, window=size.window, seed=0)
    rng = np.random.default_rng(SEED)
    pairs = _known_pairs(source, effort.pairs, rng)
    found = source.labelled(sum(effort.labelled), rng)
    texts = [(text, found.names[label]) for text, label in zip(found.texts, found.labels)]
    tagged = _ambiguous(source, sum(effort.tagged), rng)
    first, second = effort.labelled[0], effort.tagged[0]
    report = {**prepared.report, "entropy_rate": float(source.entropy_rate)}
    return report, Questions(pairs, texts[:first], texts[first:], tagged[:second], tagged[second:], [], [],
                             _prompts(prepared, effort.prompts, 12), "the topic of a sentence of the grammar")


def _ambiguous(source: Any, n: int, rng: np.random.Generator) -> list[Tagged]:
    """`n` sentences with an ambiguous word each; only such words keep their tag, which what follows them tells."""
    found: list[Tagged] = []
    while len(found) < n:
        for text, spans in source.tagged(2 * n, rng):
            kept = [(start, end, tag) for start, end, tag in spans if text[start:end] in source.ambiguous]
            if kept:
                found.append((text, kept))
    return found[:n]


def _known_pairs(source: Any, n: int, rng: np.random.Generator) -> list[tuple[str, str, str]]:
    """`n` of each kind: agreement with the word beside it, and across a modifier."""
    kinds = {"near": "pairs-near", "across a modifier": "pairs-across"}
    return [(pair.good, pair.bad, kinds[pair.kind]) for pair in source.pairs(2 * n, rng)]


# ---------------------------------------------------------------------------------------------------- real text

def _text(source: Source, folder: Path, size: Size, effort: Effort) -> tuple[dict[str, Any], Questions]:
    from bothways.text.prepare import prepare as prepare_text
    from bothways.text.tokenizer import TokenizerConfig

    # files of the user are read first: their mistakes shall show before the long work
    labelled, labels_from = _labelled(source, effort)
    given = _given_pairs(source, effort)
    prepared = prepare_text(source.corpus, folder / "corpus", tokenizer=TokenizerConfig(size=size.vocabulary),
                            window=size.window, field=source.field, limit_bytes=source.limit_bytes, seed=0)
    rng = np.random.default_rng(SEED)
    pairs = given or _swapped(prepared, effort.pairs, rng)
    tagged, functions = _code(source, effort, rng)
    return dict(prepared.report), Questions(pairs, labelled[0], labelled[1], tagged[0], tagged[1], functions[0],
                                            functions[1], _prompts(prepared, effort.prompts, 24), labels_from)


def _labelled(source: Source, effort: Effort) -> tuple[tuple[Texts, Texts], str]:
    """Labelled texts, split by class: the user's own, else the areas of the library that docstrings document."""
    from bothways.text import labels, library

    if source.labels is not None:
        found = labels.read_labelled(source.labels)
        where = Path(source.labels).name
        train, test = found.split(effort.labelled[1] / sum(effort.labelled), SEED)
        if len(test) < 2:
            raise BothwaysError(f"'{source.labels}' holds {len(found)} labelled texts, too few to set some aside for a "
                                "test: give every class at least two different texts")
    elif source.corpus == EMBEDDED:
        split = library.areas()
        train, test = split.train, split.test
        where = "which area of the library a docstring documents"
    else:
        return ([], []), ""
    return (_some(train, effort.labelled[0]), _some(test, effort.labelled[1])), where


def _some(labelled: Any, n: int) -> Texts:
    """At most `n` texts with their labels, drawn evenly over the whole."""
    places = np.random.default_rng(SEED).permutation(len(labelled))[:n]
    chosen = labelled.take(np.sort(places))
    return [(text, chosen.names[label]) for text, label in zip(chosen.texts, chosen.labels)]


def _given_pairs(source: Source, effort: Effort) -> list[tuple[str, str, str]]:
    """The user's minimal pairs, drawn evenly over the file."""
    if source.pairs is None:
        return []
    from bothways.text.pairs import read_pairs

    found = read_pairs(source.pairs)
    places = np.linspace(0, len(found) - 1, min(len(found), 2 * effort.pairs)).round().astype(int)
    return [(found[place].good, found[place].bad, "pairs") for place in places]


def _swapped(prepared: Any, n: int, rng: np.random.Generator) -> list[tuple[str, str, str]]:
    """Pairs from held-out passages of about 24 tokens, two neighbouring words exchanged in the bad one."""
    from bothways.text.pairs import swapped

    return [(pair.good, pair.bad, "pairs") for pair in swapped(_passages(prepared, 2 * n, 24), rng)][:n]


def _passages(prepared: Any, n: int, tokens: int) -> list[str]:
    """Held-out passages of whole words, evenly spread."""
    windows = prepared.valid
    found = []
    for place in np.linspace(0, len(windows) - 1, min(n, len(windows))).round().astype(int):
        window = windows[int(place)]
        ids = [int(token) for token in window.ids if not prepared.tokenizer.vocabulary.special[token]]
        text = prepared.tokenizer.decode(ids[:tokens]).strip()
        # a window may begin, as the passage may end, inside a word
        text = text.split(None, 1)[-1] if window.start else text
        whole = text.rsplit(None, 1)[0] if " " in text else text
        if len(whole.split()) >= 4:
            found.append(whole)
    return found


def _prompts(prepared: Any, n: int, tokens: int) -> list[str]:
    """Beginnings of held-out windows, which every contender is asked to write on from."""
    passages = _passages(prepared, 8 * n, tokens)
    return [passages[place] for place in np.linspace(0, len(passages) - 1, n).round().astype(int)] if passages else []


def _code(source: Source, effort: Effort, rng: np.random.Generator) -> tuple[Any, Any]:
    """Code whose words the interpreter's own parser has tagged, and functions with their docstrings' first lines."""
    if source.corpus != EMBEDDED:
        return ([], []), ([], [])
    from bothways.text import library

    # test questions come from modules that are set aside: no contender has read them
    tagged = tuple([(text, [span for span in spans if span[2] not in OBVIOUS])
                    for text, spans in _drawn(library.tagged_code(aside), n, rng)]
                   for aside, n in zip((False, True), effort.tagged))
    functions = tuple(_drawn(library.functions(aside), n, rng) if n else []
                      for aside, n in zip((False, True), effort.functions))
    return tagged, functions


def _drawn(found: Sequence[Any], n: int, rng: np.random.Generator) -> list[Any]:
    return [found[int(place)] for place in rng.permutation(len(found))[:n]]
