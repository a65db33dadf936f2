"""Networks that read OpenStax prose, layer by layer: entities, what is kept of a token, shape, and likeness.

One training seed of each paradigm. Repeats are splits of a probe's texts; no ceiling of likeness can be measured here,
because that takes the same objective from another seed: the known source has it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from f2_early import SHARE, over_splits
from kept import Kept, said, shown, spread, table, written
from known_layers import every_token, identity_of, likeness, panel, shape_of
from networks import PARADIGMS, entities, polarity, prose, run_of, there, untrained

from bothways.evaluation import layers, similarity
from bothways.evaluation.features import Tagged, text_ids
from bothways.evaluation.probes import control_labels, tags_of
from bothways.families.trained import Trained
from bothways.pictures.panels import panels

NAMES = (*PARADIGMS, "untrained")
MESSAGES, SENTENCES = 1200, 1600
PASSAGES, COMMONEST, TOKENS = 90, 300, 4000
"""Paragraphs whose tokens are compared between networks, how many kinds of token, and how many tokens."""
IDENTIFIED = 60
"""Kinds of token whose identity is looked for: fewer than the clusters that look for them."""


def measure(kept: Kept, runs: Path, data: Path) -> None:
    """Every layer of every run that is done, and the likeness of every two of them."""
    ready = there(runs)
    makes: dict[str, Callable[[], Any]] = {}
    names = [*ready, "untrained"] if ready else []
    for place, one in enumerate(names):
        makes[one] = lambda one=one: one_network(network(runs, one), data)  # type: ignore[misc]
        makes[f"shape {one}"] = lambda one=one: shape(network(runs, one), data)  # type: ignore[misc]
        for other in names[place + 1:]:
            makes[f"alike {one} {other}"] = lambda one=one, other=other: alike(  # type: ignore[misc]
                network(runs, one), network(runs, other), data)
    kept.fill(makes)


def network(runs: Path, name: str) -> Trained:
    """A run, or the first weights of the causal one's shape."""
    return untrained(run_of(runs, there(runs)[0])) if name == "untrained" else run_of(runs, name)


def passages(trained: Trained, data: Path, kinds_read: int = COMMONEST) -> list[Tagged]:
    """Held-out paragraphs of the same books, of which every commonest token is a span: the same for all networks, whose
    tokenizer is one and the same."""
    texts = prose(data / "lm/openstax_valid.txt.gz", PASSAGES)
    some = every_token(text_ids(trained.tokenizer, texts, 96))
    kinds, counts = np.unique(np.concatenate([text.ids[1:-1] for text in some]), return_counts=True)
    common = set(kinds[np.argsort(-counts, kind="stable")[:kinds_read]].tolist())
    return [Tagged(one.ids, tuple(span for span in one.spans if int(one.ids[span[0]]) in common)) for one in some]


def one_network(trained: Trained, data: Path) -> dict[str, list[Any]]:
    """Probes of every layer over splits."""
    # 1. words with entities, and the control: a label drawn for each kind of word
    tagged = entities(trained, data / "ner/wnut17_train.jsonl.gz", MESSAGES)
    owner = np.repeat(np.arange(len(tagged)), [len(one.spans) for one in tagged])
    labels = tags_of(tagged)
    control = control_labels(tagged, labels)
    states = layers.span_layers(trained, tagged)
    found: dict[str, list[Any]] = {"entities": [over_splits(layer, labels, owner) for layer in states],
                                   "control": [over_splits(layer, control, owner) for layer in states]}
    # 2. sentences
    some = polarity(data, "train")
    some = [some[place] for place in np.random.default_rng(23).permutation(len(some))[:SENTENCES]]
    whole = [Tagged(ids, ((1, len(ids), label),)) for ids, (_, label) in
             zip(text_ids(trained.tokenizer, [text for text, _ in some], 64), some)]
    found["polarity"] = [over_splits(layer, tags_of(whole)) for layer in layers.span_layers(trained, whole)]
    return found


def shape(trained: Trained, data: Path) -> dict[str, list[float]]:
    """What every layer keeps of the commonest tokens of prose, and how its states lie."""
    few = passages(trained, data, IDENTIFIED)
    tokens = np.concatenate([[int(one.ids[span[0]]) for span in one.spans] for one in few])[:TOKENS]
    return {"identity": identity_of(layers.span_layers(trained, few)[:, :TOKENS], tokens),
            **shape_of(layers.span_layers(trained, passages(trained, data))[:, :TOKENS])}


def alike(one: Trained, other: Trained, data: Path) -> dict[str, list[float]]:
    """Likeness of two networks, from the embedding to the last layer that both have."""
    states = [layers.span_layers(trained, passages(trained, data))[:, :TOKENS] for trained in (one, other)]
    # an encoder-decoder reads with fewer layers: first with first, last with last
    depth = min(len(side) for side in states)
    first, second = ([*side[:depth - 1], side[-1]] for side in states)
    return {"cka": [similarity.cka(a, b) for a, b in zip(first, second)],
            "neighbours": [similarity.neighbour_overlap(*(similarity.neighbours(side[:1000]) for side in two))
                           for two in zip(first, second)]}


# ---------------------------------------------------------------------------------------------------------- the page

def page(kept: Kept, pictures: Path) -> tuple[str, list[list[str]]]:
    """The section, and its lines of the page's first table."""
    found = kept.all()
    names = [name for name in NAMES if name in found and f"shape {name}" in found]
    if len(names) < 2:
        return "", []
    shared = SHARE / (1 - SHARE)
    found.update({name: {**found[name], **found[f"shape {name}"]} for name in names})
    curves = {measure: {name: np.array(found[name][measure]).T if measure in ("entities", "polarity", "control") else
                        np.array([found[name][measure]]) for name in names}
              for measure in found[names[0]]}
    (pictures / "representation_text_layers.svg").write_text(panels([
        panel("kinds of entities (WNUT-17)", curves["entities"]), panel("polarity of a sentence", curves["polarity"]),
        panel("what is kept of the token", curves["identity"], None, 1.0),
        panel("cosine of random pairs", curves["cosine"], 0.0, 1.0), panel("the same, mean removed", curves["centred"]),
        panel("IsoScore", curves["iso"], 0.0)]), "utf-8")
    rows = []
    for name in names:
        entity, control, sentence = (curves[measure][name] for measure in ("entities", "control", "polarity"))
        best, where = float(entity.mean(0).max()), int(entity.mean(0).argmax())
        rows.append([name, f"{100 * entity[:, 0].mean():.1f}",
                     f"{100 * best:.1f} (layer {where} of {entity.shape[1] - 1})",
                     shown(entity[:, -1], 100, 1, shared), shown(entity[:, -1] - control[:, -1], 100, 1, shared),
                     shown(sentence[:, -1], 100, 1, shared),
                     *(f"{curves[measure][name][0, -1]:.{digits}f}" for measure, digits in
                       (("identity", 2), ("cosine", 2), ("centred", 3), ("iso", 2)))])
    last = {measure: square(found, names, measure) for measure in ("cka", "neighbours")}
    (pictures / "representation_text_similarity.svg").write_text(likeness(
        {"names": names, "cka": last["cka"]}, "debiased linear CKA, last layers"), "utf-8")
    near = table(("", *names), ([name, *("" if value is None else f"{value:.2f}" for value in row)]
                                for name, row in zip(names, last["neighbours"])))
    gaps, summary = against_causal(curves, names, shared)
    return f"""## OpenStax prose, layer by layer

Width 256, 6M tokens, one training seed of each; bands are the range of five splits of a probe's texts.

![Probes, identity and shape by layer](pictures/representation_text_layers.svg)

{table(("paradigm", "entities from the embedding, %", "best layer, %", "last layer, %", "selectivity, points",
        "polarity, last layer, %", "token identity kept", "cosine of random pairs", "mean removed", "IsoScore"), rows)}

Entities: the kinds of WNUT-17 and one ordinary word in six, {MESSAGES} messages; polarity: {SENTENCES} sentences;
linear probes, brackets over splits (corrected for their overlap). Identity: tokens of the {IDENTIFIED} commonest kinds,
shape and likeness: {TOKENS:,} tokens of the {COMMONEST} commonest, in held-out paragraphs of the same books. An
encoder-decoder is read with its encoder, which has half of the layers. {gaps}

![Similarity of paradigms](pictures/representation_text_similarity.svg)

Neighbours shared, last layers (10 nearest of 1,000):

{near}

One seed each: the ceiling, the same objective from another seed, is missing here. The known source, below, has it on
its diagonal.
""", summary


def square(found: dict[str, Any], names: Sequence[str], measure: str) -> list[list[float | None]]:
    """The last layers' likeness as a square, nothing on the diagonal."""
    return [[next((found[key][measure][-1] for key in (f"alike {one} {other}", f"alike {other} {one}") if key in found),
                  None) for other in names] for one in names]


def against_causal(curves: dict[str, dict[str, np.ndarray]], names: Sequence[str], shared: float
                   ) -> tuple[str, list[list[str]]]:
    """Who reads entities better than the causal network, and whether the masked one restores its tokens."""
    if "causal" not in names or "masked" not in names:
        return "", []
    entity = curves["entities"]
    sentences = [f"{name} {written(spread(entity[name][:, -1] - entity['causal'][:, -1], shared), 100, 1)}"
                 for name in names if name not in ("causal", "untrained")]
    gap = spread(entity["masked"][:, -1] - entity["causal"][:, -1], shared)
    tops = {name: float(one[-1] - one[-2]) for name in ("causal", "masked") for one in curves["identity"][name]}
    holds = "same sign, one seed" if tops["masked"] > 0 else "other sign, one seed"
    return ("Entities, last layer, minus the causal network's, points: " + "; ".join(sentences) + ".",
            [["Entities from frozen states, OpenStax prose", "both directions help words (F1)",
              f"masked minus causal {written(gap, 100, 1)} points (5 splits, 1 training seed)", said(gap)],
             ["Token identity (arXiv 1909.01380), OpenStax prose", "masked restores it in the top layer",
              f"last layer minus the one below: masked {tops['masked']:+.3f}, causal {tops['causal']:+.3f} of the "
              "entropy", holds]])
