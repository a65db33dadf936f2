"""The known source, layer by layer: probes, what is kept of a token, and how alike objectives are.

Three training seeds each, so that the same objective from another seed can be set beside: the ceiling.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from kept import Kept, said, shown, spread, table, written
from networks import CAUSAL, DRAWN, MASKED, Groups

from bothways.evaluation import layers, similarity
from bothways.evaluation.features import Tagged, tagged_spans
from bothways.evaluation.score import Score
from bothways.families.trained import Trained
from bothways.pictures.curves import PALETTE
from bothways.pictures.panels import Line, Panel, matrix, panels
from bothways.text.known import KnownSource
from bothways.text.known_relations import related

COLOURS = list(PALETTE)
SENTENCES, LEARNT = 240, 120
"""Sentences of a probe, and how many of them it learns from."""


def measure(kept: Kept, groups: Groups, source: KnownSource) -> None:
    """Every measure of every layer of the drawn objectives, and the likeness of all."""
    tokenizer = source.tokenizer
    tags = [tagged_spans(tokenizer, *one) for one in source.tagged(SENTENCES, np.random.default_rng(11))]
    links = layers.edges(tokenizer, related(source, SENTENCES, np.random.default_rng(12)))
    texts = every_token(source.sample(90, np.random.default_rng(13)))
    makes: dict[str, Callable[[], Any]] = {}
    for name in DRAWN:
        for seed, one in enumerate(groups[name]):
            makes[f"{name} seed={seed}"] = lambda one=one: one_network(one, tags, links, texts)  # type: ignore[misc]
    makes["alike"] = lambda: alike(groups, texts)
    kept.fill(makes)


def every_token(some: Sequence[np.ndarray]) -> list[Tagged]:
    """Texts whose every token but the first and the last is a span."""
    return [Tagged(ids, tuple((place, place + 1, "") for place in range(1, len(ids) - 1))) for ids in some]


def of_layers(scores: Sequence[Score], name: str) -> list[float]:
    """The values of one measure, layer by layer."""
    return [score.value for score in scores if score.name == name]


def identity_of(states: np.ndarray, tokens: np.ndarray) -> list[float]:
    """What each layer (layers, n, D) keeps of its tokens (n,)."""
    return [similarity.token_identity(layer, tokens) for layer in states]


def shape_of(states: np.ndarray) -> dict[str, list[float]]:
    """How the states of each layer (layers, n, D) are spread."""
    return {"cosine": [similarity.anisotropy(layer, False) for layer in states],
            "centred": [similarity.anisotropy(layer) for layer in states],
            "iso": [similarity.iso_score(layer) for layer in states]}


def one_network(one: Trained, tags: Sequence[Tagged], links: Sequence[Tagged], texts: Sequence[Tagged]
                ) -> dict[str, list[float]]:
    """Every measure of every layer of one network."""
    states = layers.span_layers(one, texts)
    tag = layers.probe_layers(one, tags[:LEARNT], tags[LEARNT:], what="tag")
    link = layers.probe_layers(one, links[:LEARNT], links[LEARNT:], what="relation", pairs=True, code=False)
    return {"tag": of_layers(tag, "tag probe accuracy"), "tag selectivity": of_layers(tag, "tag probe selectivity"),
            "code": of_layers(tag, "tag code length"), "relation": of_layers(link, "relation probe accuracy"),
            "relation selectivity": of_layers(link, "relation probe selectivity"),
            "identity": identity_of(states, np.concatenate([text.ids[1:-1] for text in texts])), **shape_of(states)}


def alike(groups: Groups, texts: Sequence[Tagged]) -> dict[str, Any]:
    """Similarity of the last layers of every two objectives, over pairs of different seeds."""
    last = {name: [layers.span_layers(one, texts)[-1] for one in seeds] for name, seeds in groups.items()}
    names = [*(name for name in groups if name != "untrained"), "untrained"]
    near = [[similarity.neighbours(one[:1000]) for one in last[name]] for name in names]
    return {"names": names, "cka": similarity.similarities([last[name] for name in names]),
            "svcca": similarity.similarities([last[name] for name in names], "svcca"),
            "neighbours": similarity.similarities(near, "neighbours")}


# ---------------------------------------------------------------------------------------------------------- the page

def panel(title: str, curves: dict[str, np.ndarray], low: float | None = None, high: float | None = None,
          x_title: str = "layer") -> Panel:
    """(repeats, layers) of each name as a line with the range of its repeats."""
    drawn = []
    for (name, rows), colour in zip(curves.items(), COLOURS):
        points = [(float(layer), float(value)) for layer, value in enumerate(rows.mean(0))]
        drawn.append(Line(name, points, list(zip(rows.min(0), rows.max(0))) if len(rows) > 1 else [], colour,
                          name == "untrained"))
    return Panel(title, drawn, x_title, low, high)


def likeness(found: dict[str, Any], title: str) -> str:
    """The picture of debiased linear CKA."""
    return matrix([name.split("(")[0] for name in found["names"]],
                  [[float("nan") if value is None else value for value in row] for row in found["cka"]], title)


def page(kept: Kept, pictures: Path) -> tuple[str, list[list[str]]]:
    """The section, and its lines of the page's first table."""
    found = kept.all()
    values = {name: [found[key] for seed in range(9) if (key := f"{name} seed={seed}") in found] for name in DRAWN}
    values = {name: some for name, some in values.items() if some}
    if not values or "alike" not in found:
        return "", []
    curves = {measure: {name: np.array([one[measure] for one in some]) for name, some in values.items()}
              for measure in next(iter(values.values()))[0]}
    (pictures / "representation_layers.svg").write_text(panels([
        panel("part of speech", curves["tag"], 0.6, 1.0), panel("subject, object or neither", curves["relation"]),
        panel("bits to send a tag", curves["code"], 0.0),
        panel("what is kept of the token", curves["identity"], None, 1.0),
        panel("cosine of random pairs", curves["cosine"], 0.0, 1.0), panel("IsoScore", curves["iso"], 0.0)]), "utf-8")
    (pictures / "representation_similarity.svg").write_text(
        likeness(found["alike"], "debiased linear CKA, last layers; on the diagonal another seed of the same"), "utf-8")
    rows = [[f"`{name}`", *(shown(curves[measure][name][:, -1], scale, digits) for measure, scale, digits in (
        ("tag", 100, 1), ("tag selectivity", 100, 1), ("code", 1, 2), ("relation", 100, 1), ("identity", 1, 2),
        ("cosine", 1, 2), ("centred", 1, 3), ("iso", 1, 2)))] for name in values]
    names, ceiling = found["alike"]["names"], []
    for place, name in enumerate(names):
        measures = [found["alike"][measure] for measure in ("cka", "svcca", "neighbours")]
        ceiling.append([name, *(f"{one[place][place]:.2f}" for one in measures),
                        *(f"{measures[which][place][names.index(other)]:.2f}" for other in (CAUSAL, MASKED)
                          for which in (0, 2))])
    seeds = min(map(len, values.values()))
    lines, text = identity(curves["identity"])
    return f"""## The known source, layer by layer

![Probes, identity and shape by layer](pictures/representation_layers.svg)

{seeds} training seeds each; bands are their range. The last layer:

{table(("objective", "part of speech, %", "selectivity, points", "bits a tag", "verb and noun related, %",
        "token identity kept", "cosine of random pairs", "mean removed", "IsoScore"), rows)}

*Part of speech* and *related* are linear probes on {LEARNT} sentences, tested on as many; *selectivity* is accuracy
minus that of a random label for each word (arXiv 1909.03368); *bits a tag* an online code (arXiv 2003.12298);
*identity* the mutual information of clusters and tokens over the tokens' entropy (arXiv 1909.01380).

![Similarity of objectives](pictures/representation_similarity.svg)

{table(("objective", "CKA, other seed", "SVCCA, other seed", "neighbours shared, other seed", "CKA to causal",
        "neighbours shared with causal", "CKA to masked", "neighbours shared with masked"), ceiling)}

The same objective from another seed is the ceiling of what can be alike.

{text}
""", lines


def identity(curves: dict[str, np.ndarray]) -> tuple[list[list[str]], str]:
    """Voita's curves, in words."""
    text = ["What a layer keeps of its own token:", ""]
    for name, expected in ((CAUSAL, "loses it steadily"), (MASKED, "loses it, then restores it in the top layer")):
        rows = curves[name]
        top, inside = rows[:, -1] - rows[:, -2], rows[:, -2] - rows[:, 1]
        text.append(f"- `{name}`, published: {expected}. From layer 1 to the last but one {shown(inside)}, in the last "
                    f"{shown(top)}.")
    gap = spread(curves[MASKED][:, -1] - curves[MASKED][:, -2])
    return [["Token identity (arXiv 1909.01380), known source", "masked restores it in the top layer",
             f"{written(gap)} of the entropy from the last but one layer to the last ({len(curves[MASKED])} seeds)",
             said(gap)]], "\n".join(text)
