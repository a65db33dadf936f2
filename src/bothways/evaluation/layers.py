"""What each layer knows: token and edge probes with control tasks and description lengths, layer by layer."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from bothways.evaluation.features import (
    Tagged,
    bounds_of,
    mean_of_spans,
    reading_example,
    tagged_spans,
    visibility_named,
)
from bothways.evaluation.probes import check_labelled, control_labels, hits, tags_of
from bothways.evaluation.rows import TOKENS, in_order, reading, rows
from bothways.evaluation.score import Score, mean_score, timed

if TYPE_CHECKING:
    from bothways.families.trained import Trained
    from bothways.text.known_relations import Related
    from bothways.text.tokenizer import Tokenizer

FRACTIONS = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)
"""Where the online code fits its probe anew (Voita & Titov 2020, section 2.2)."""


def span_layers(trained: Trained, tagged: Sequence[Tagged], *, visibility: str | None = None,
                tokens: int = TOKENS) -> np.ndarray:
    """The mean state of each tagged span at every layer, in one reading: (layers + 1, spans, D) float32.

    Layer 0 is the embedding; spans are those of all texts in order. Two towers read with their encoder.
    """
    seen = visibility_named(trained, visibility)

    def row_by_row() -> Iterator[tuple[list[int], list[np.ndarray]]]:
        for numbers, some, row in rows(tagged, lambda text: reading_example(text.ids, seen), trained.device, tokens,
                                       places=trained.config.position.length):
            with reading(trained.network):
                layers = trained.network.encode(row, hidden=True).hidden or ()
                means = np.stack([mean_of_spans(states, bounds_of(some)).float().cpu().numpy() for states in layers])
            yield numbers, np.split(means, np.cumsum([len(text.spans) for text in some])[:-1], axis=1)

    return np.concatenate(list(in_order(row_by_row())), axis=1)


def edges(tokenizer: Tokenizer, related: Sequence[Related], longest: int = 256) -> list[Tagged]:
    """Related words as spans of tokens, two for each pair (they follow each other), both tagged with the relation."""
    return [tagged_spans(tokenizer, one.text, [(*span, name) for first, second, name in one.pairs
                                               for span in (first, second)], longest) for one in related]


def probe_layers(trained: Trained, train: Sequence[Tagged], test: Sequence[Tagged], *, what: str = "tag",
                 pairs: bool = False, visibility: str | None = None, code: bool = True, seed: int = 0,
                 tokens: int = TOKENS) -> list[Score]:
    """Linear probes of every layer, each with its control task, selectivity and description length.

    Args:
        what: the name of the task in the Scores.
        pairs: an edge probe (Tenney et al. 2019, arXiv 1905.06316): spans come in twos, and a probe reads both
            states and their product.
        code: also the online code, five more fits a layer.
    Returns:
        for each layer "WHAT probe accuracy", "WHAT probe accuracy, control task" and "WHAT probe selectivity"
        (Hewitt & Liang 2019, arXiv 1909.03368; items are spans or pairs), and with `code` "WHAT code length" in bits a
        label (items are training labels; `details["compression"]`). `details["layer"]` says which layer.
    """
    step = 2 if pairs else 1
    every = span_layers(trained, [*train, *test], visibility=visibility, tokens=tokens)
    labels, truth = tags_of(train)[::step], tags_of(test)[::step]
    check_labelled([("", tag) for tag in labels], [("", tag) for tag in truth])
    cut, name = len(labels), repr(visibility_named(trained, visibility))
    merged = _in_twos([*train, *test]) if pairs else [*train, *test]
    types = control_labels(merged, labels, seed)
    how = ("both states and their product" if pairs else "mean span states") + ", logistic regression"
    scores: list[Score] = []
    for layer, states in enumerate(every):
        features = _both(states) if pairs else states
        with timed(scores):
            at = {"layer": float(layer)}
            right = np.array(hits(truth, _labels(features[:cut], labels, features[cut:], seed)))
            other = np.array(hits(types[cut:], _labels(features[:cut], types[:cut], features[cut:], seed)))
            for kind, items in (("accuracy", right), ("accuracy, control task", other), ("selectivity", right - other)):
                scores.append(mean_score(f"{what} probe {kind}", name, how, items, unit="accuracy", details=dict(at)))
            if code:
                scores.append(online_code(features[:cut], labels, name=f"{what} code length", mode=name, seed=seed,
                                          details=at))
    return scores


def online_code(features: np.ndarray, labels: Sequence[str], *, name: str = "code length", mode: str = "all",
                seed: int = 0, details: dict[str, float] | None = None) -> Score:
    """Bits that send the labels to who has the features: each block by a probe of all before it, the first evenly.

    Voita & Titov 2020, arXiv 2003.12298, eq. 3. A label that the probe has not seen costs as one of an even choice
    at a thousandth of the mass.

    Returns:
        mean bits a label over the labels in a random order; `details["compression"]` is how many times fewer these
        are than an even code's.
    """
    order = np.random.default_rng(seed).permutation(len(labels))
    known, features = [labels[place] for place in order], features[order]
    classes = sorted(set(known))
    even = math.log2(len(classes))
    ends = sorted({max(1, round(share * len(known))) for share in FRACTIONS})
    bits = [np.full(ends[0], even)]
    for start, end in itertools.pairwise(ends):
        shares = _shares(features[:start], known[:start], features[start:end], classes, seed)
        true = shares[np.arange(end - start), [classes.index(label) for label in known[start:end]]]
        bits.append(-np.log2(0.999 * true + 0.001 / len(classes)))
    items = np.concatenate(bits)
    compression = even / max(float(items.mean()), 1e-9)
    return mean_score(name, mode, "online code, logistic regression", items, unit="bits a label",
                      higher_is_better=False, details={**(details or {}), "compression": compression})


def _labels(train: np.ndarray, labels: Sequence[str], test: np.ndarray, seed: int) -> list[str]:
    """The likeliest label of each row of `test`."""
    classes = sorted(set(labels))
    return [classes[int(place)] for place in _shares(train, labels, test, classes, seed).argmax(1)]


def _shares(train: np.ndarray, labels: Sequence[str], test: np.ndarray, classes: Sequence[str],
            seed: int) -> np.ndarray:
    """(m, C) probabilities of the classes by logistic regression on standardised features."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    found = np.zeros((len(test), len(classes)))
    seen = sorted(set(labels))
    if len(seen) < 2:
        found[:, classes.index(seen[0])] = 1.0
        return found
    mean, scale = train.mean(0), train.std(0) + 1e-6
    model: Any = LogisticRegression(C=0.1, max_iter=60, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # as in `probes.regress`
        model.fit((train - mean) / scale, list(labels))
    found[:, [classes.index(str(label)) for label in model.classes_]] = model.predict_proba((test - mean) / scale)
    return found


def _both(states: np.ndarray) -> np.ndarray:
    """(2 m, D) states of pairs as (m, 3 D): first, second, product."""
    first, second = states[::2], states[1::2]
    return np.concatenate([first, second, first * second], axis=1)


def _in_twos(tagged: Sequence[Tagged]) -> list[Tagged]:
    """For the control task: each pair of spans as one whose tokens are the second's behind the first's."""
    found = []
    for text in tagged:
        ids: list[int] = []
        spans = []
        for (a, b, tag), (c, d, _) in zip(text.spans[::2], text.spans[1::2]):
            start = len(ids)
            ids += [*text.ids[a:b].tolist(), *text.ids[c:d].tolist()]
            spans.append((start, len(ids), tag))
        found.append(Tagged(np.array(ids, dtype=np.int64), tuple(spans)))
    return found
