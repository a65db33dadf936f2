"""What trained networks know, layer by layer, and how alike they are: writes docs/representation.md and its pictures.

    bothways compare --recipe recipes/studies/objectives.yaml --out study
    python docs/representation_study.py study --arms arms --entities wnut17_train.jsonl.gz

Reads the models of a study's folder and nothing else of it, but for the arms of finding F4, which it trains into
`--arms` (some minutes; they are kept and read the second time). `--entities` is WNUT-17 as JSON lines.
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import stats

from bothways.evaluation import layers, similarity
from bothways.evaluation.features import Tagged, tagged_spans, text_features
from bothways.evaluation.few_labels import crossing, curve
from bothways.evaluation.fill import fill
from bothways.evaluation.pairs import minimal_pairs
from bothways.evaluation.score import Score
from bothways.families.folder import load
from bothways.families.trained import Trained
from bothways.model import LanguageModel
from bothways.pictures.curves import PALETTE
from bothways.pictures.panels import Line, Panel, matrix, panels
from bothways.text.known import KnownSource
from bothways.text.known_relations import related
from bothways.text.pairs import Pair, swapped

PICTURES = Path(__file__).parent / "pictures"
COLOURS = list(PALETTE)
CAUSAL, MASKED, HYBRID = "next-token", "masked(rate=0.3)", "masked-next(rate=0.3)"
DRAWN = (CAUSAL, MASKED, "diffusion", "denoising", "glm", "untrained")
"""The objectives whose curves are drawn; tables have all."""
SENTENCES, LEARNT = 240, 120
"""Sentences of a probe, and how many of them it learns from."""
Groups = dict[str, list[Trained]]


def spread(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean and its 95% t interval over seeds."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return mean, math.nan, math.nan
    half = float(stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / math.sqrt(len(values)))
    return mean, mean - half, mean + half


def shown(values: Sequence[float], scale: float = 1.0, digits: int = 3) -> str:
    """A mean and its interval for a table."""
    mean, low, high = (scale * value for value in spread(values))
    return f"{mean:.{digits}f}" + (f" ({low:.{digits}f} to {high:.{digits}f})" if math.isfinite(low) else "")


def verdict(gaps: Sequence[float], expected: int = 1) -> str:
    """What a paired difference over seeds says of an expected sign."""
    mean, low, high = spread(gaps)
    if not math.isfinite(low) or low <= 0 <= high:
        return "cannot be said"
    return "reproduced" if mean * expected > 0 else "not reproduced: the other sign"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(row) + " |" for row in (header, ["---"] * len(header), *rows))


def models(study: Path, source: str) -> Groups:
    """Objective -> its networks, in the order of their seeds; and untrained ones of the causal network's shape."""
    found: dict[str, dict[int, Trained]] = {}
    for file in sorted((study / "runs" / source).glob("*/result.json")):
        run = json.loads(file.read_text(encoding="utf-8"))["run"]
        if (file.parent / "training/model").is_dir():
            found.setdefault(run["contender"], {})[run["seed"]] = load(file.parent / "training/model")
    groups = {name: [seeds[seed] for seed in sorted(seeds)] for name, seeds in found.items()}
    untrained = []
    for seed, trained in enumerate(groups[CAUSAL]):
        torch.manual_seed(seed)
        untrained.append(replace(trained, network=LanguageModel(trained.config)))
    return {**groups, "untrained": untrained}


def by_layer(groups: Groups, measure: Callable[[Trained], Sequence[float]]) -> dict[str, np.ndarray]:
    """Objective -> (seeds, layers) of a measure."""
    return {name: np.array([measure(trained) for trained in seeds]) for name, seeds in groups.items()}


def panel(title: str, values: dict[str, np.ndarray], low: float | None = None, high: float | None = None) -> Panel:
    """The curves of DRAWN over layers, with the range of their seeds."""
    lines = []
    for name, colour in zip(DRAWN, COLOURS):
        if name in values:
            rows = values[name]
            points = [(float(layer), float(value)) for layer, value in enumerate(rows.mean(0))]
            lines.append(Line(name, points, list(zip(rows.min(0), rows.max(0))) if len(rows) > 1 else [], colour,
                              name == "untrained"))
    return Panel(title, lines, "layer", low, high)


def of_layers(scores: Sequence[Score], name: str) -> list[float]:
    return [score.value for score in scores if score.name == name]


# ----------------------------------------------------------------------------------- the known source, layer by layer

def one_network(one: Trained, tags: Sequence[Tagged], links: Sequence[Tagged], states: np.ndarray,
                tokens: np.ndarray) -> dict[str, list[float]]:
    """Every measure of every layer of one network."""
    tag = layers.probe_layers(one, tags[:LEARNT], tags[LEARNT:], what="tag")
    link = layers.probe_layers(one, links[:LEARNT], links[LEARNT:], what="relation", pairs=True, code=False)
    return {"tag": of_layers(tag, "tag probe accuracy"), "tag selectivity": of_layers(tag, "tag probe selectivity"),
            "code": of_layers(tag, "tag code length"), "relation": of_layers(link, "relation probe accuracy"),
            "relation selectivity": of_layers(link, "relation probe selectivity"),
            "identity": [similarity.token_identity(layer, tokens) for layer in states],
            "cosine": [similarity.anisotropy(layer, False) for layer in states],
            "centred": [similarity.anisotropy(layer) for layer in states],
            "iso": [similarity.iso_score(layer) for layer in states]}


def known(groups: Groups, source: KnownSource, arms: Path, probed: Sequence[str] = DRAWN) -> str:
    """Probes, code lengths, identity and shape of every layer of some objectives; likeness of all."""
    tokenizer = source.tokenizer
    tags = [tagged_spans(tokenizer, *one) for one in source.tagged(SENTENCES, np.random.default_rng(11))]
    links = layers.edges(tokenizer, related(source, SENTENCES, np.random.default_rng(12)))
    texts = [Tagged(ids, tuple((place, place + 1, "") for place in range(1, len(ids) - 1)))
             for ids in source.sample(90, np.random.default_rng(13))]
    tokens = np.concatenate([text.ids[1:-1] for text in texts])
    states = {name: [layers.span_layers(one, texts) for one in seeds] for name, seeds in groups.items()}
    found: dict[str, dict[str, np.ndarray]] = {}
    for name, seeds in ((name, groups[name]) for name in probed):
        for seed, one in enumerate(seeds):
            # a network that was measured is read the second time
            kept = arms / f"layers-{name.split('(')[0]}-seed{seed}.json"
            if not kept.is_file():
                kept.write_text(json.dumps(one_network(one, tags, links, states[name][seed], tokens)), encoding="utf-8")
            for key, values in json.loads(kept.read_text(encoding="utf-8")).items():
                rows = found.setdefault(key, {})
                rows[name] = np.array([*rows.get(name, []), values])
    (PICTURES / "representation_layers.svg").write_text(panels([
        panel("part of speech", found["tag"], 0.6, 1.0), panel("subject, object or neither", found["relation"]),
        panel("bits to send a tag", found["code"], 0.0),
        panel("what is kept of the token", found["identity"], None, 1.0),
        panel("cosine of random pairs", found["cosine"], 0.0, 1.0), panel("IsoScore", found["iso"], 0.0)]), "utf-8")
    # how alike the last layers are
    last = {name: [one[-1] for one in seeds] for name, seeds in states.items()}
    names = [name for name in groups if name != "untrained"] + ["untrained"]
    alike = {measure: similarity.similarities([last[name] for name in names], measure) for measure in ("cka", "svcca")}
    near = [[similarity.neighbours(one[:1000]) for one in last[name]] for name in names]
    alike["neighbours"] = similarity.similarities(near, "neighbours")
    (PICTURES / "representation_similarity.svg").write_text(
        matrix([name.split("(")[0] for name in names], alike["cka"].tolist(),
               "debiased linear CKA, last layers; on the diagonal another seed of the same"), "utf-8")
    ceiling = [[name, *(f"{alike[m][i, i]:.2f}" for m in alike),
                *(f"{alike[m][i, names.index(CAUSAL)]:.2f}" for m in ("cka", "neighbours")),
                *(f"{alike[m][i, names.index(MASKED)]:.2f}" for m in ("cka", "neighbours"))]
               for i, name in enumerate(names)]
    rows = [[f"`{name}`", shown(found["tag"][name][:, -1], 100, 1),
             shown(found["tag selectivity"][name][:, -1], 100, 1), shown(found["code"][name][:, -1], 1, 2),
             shown(found["relation"][name][:, -1], 100, 1), shown(found["identity"][name][:, -1], 1, 2),
             shown(found["cosine"][name][:, -1], 1, 2), shown(found["centred"][name][:, -1], 1, 3),
             shown(found["iso"][name][:, -1], 1, 2)] for name in probed]
    return f"""## On the known source, layer by layer

![Probes, identity and shape by layer](pictures/representation_layers.svg)

Bands are the range of the seeds. The last layer (mean, 95 % t interval over seeds; `--all` probes every objective):

{table(("objective", "part of speech, %", "selectivity, points", "bits a tag", "verb and noun related, %",
        "token identity kept", "cosine of random pairs", "mean removed", "IsoScore"), rows)}

*Part of speech* and *related* are linear probes on {LEARNT} sentences, tested on as many; *selectivity* is accuracy
minus that of a random label for each word (arXiv 1909.03368); *bits a tag* an online code (arXiv 2003.12298);
*identity* the mutual information of clusters and tokens over the tokens' entropy (arXiv 1909.01380).

![Similarity of objectives](pictures/representation_similarity.svg)

{table(("objective", "CKA, other seed", "SVCCA, other seed", "neighbours shared, other seed", "CKA to causal",
        "neighbours shared with causal", "CKA to masked", "neighbours shared with masked"), ceiling)}

The same objective from another seed is the ceiling of what can be alike.

### What a layer keeps of its own token

{identity(found)}
"""


def identity(found: dict[str, dict[str, np.ndarray]]) -> str:
    """Voita's curves, in words."""
    lines = []
    for name, expected in ((CAUSAL, "loses it steadily"), (MASKED, "loses it, then restores it in the top layer")):
        rows = found["identity"][name]
        top, inside = rows[:, -1] - rows[:, -2], rows[:, -2] - rows[:, 1]
        lines.append(f"- `{name}`, published: {expected}. From layer 1 to the last but one {shown(inside, 1, 3)}, in "
                     f"the last {shown(top, 1, 3)}.")
    return "\n".join(lines)


# --------------------------------------------------------------------------------------------------- the findings

def f2(study: Path, groups: Groups, source: KnownSource) -> str:
    """Causal and masked networks at equal steps: frozen features for topics, and for parts of speech."""
    tags = [tagged_spans(source.tokenizer, *one) for one in source.tagged(SENTENCES, np.random.default_rng(21))]
    names = {CAUSAL: "next-token", MASKED: "masked-rate=0.3*"}
    values: dict[str, dict[int, list[float]]] = {name: {} for name in names}
    for name, pattern in names.items():
        for seed, trained in enumerate(groups[name]):
            (folder,) = (study / "runs/known").glob(f"{pattern}-seed{seed}/training/checkpoints")
            for point in sorted(folder.iterdir()):
                step = int(point.name.split("-")[1])
                if step < 8 or step & (step - 1):
                    continue
                network = LanguageModel(trained.config)
                from safetensors.torch import load_file

                weights = load_file(point / "weights.safetensors")
                network.load_state_dict({key: weights[key] for key in network.state_dict() if key in weights},
                                        strict=False)
                scores = layers.probe_layers(replace(trained, network=network), tags[:LEARNT], tags[LEARNT:],
                                             code=False)
                values[name].setdefault(step, []).append(of_layers(scores, "tag probe accuracy")[-1])
    steps = sorted(set(values[CAUSAL]) & set(values[MASKED]))
    gaps = {step: np.array(values[CAUSAL][step]) - np.array(values[MASKED][step]) for step in steps}
    early, late = steps[:2], steps[-1]
    rows = [[str(step), shown(values[CAUSAL][step], 100, 1), shown(values[MASKED][step], 100, 1),
             shown(gaps[step], 100, 1)] for step in steps]
    first = verdict(np.mean([gaps[step] for step in early], axis=0))
    later = verdict(gaps[late], -1)
    crossed = next((step for step in steps if all(gaps[other].mean() < 0 for other in steps if other >= step)), None)
    where = (f"masked is ahead from step {crossed} on" if crossed is not None else "no crossing seen")
    return f"""### F2: causal training is ahead early, masked training catches up and passes

{table(("step", f"`{CAUSAL}`, %", f"`{MASKED}`, %", "causal minus masked, points"), rows)}

Parts of speech from frozen last states, checkpoints at equal steps (about 2,040 tokens each), without cooling down.
Early sign: {first}. Late sign (masked ahead): {later}.
Crossing: {where}. A tag that hangs on what follows cannot be read from the left, so this task
favours masked training from the start.
"""


def f4(groups: Groups, source: KnownSource, arms: Path, study: Path, steps: int = 100) -> str:
    """One corruption, loss on a quarter and on all of it; and replaced tokens against masked ones."""
    from bothways.text.prepare import Prepared
    from bothways.training.config import TrainConfig
    from bothways.training.run import train

    prepared = Prepared.load(study / "data/known/corpus") if (study / "data/known/corpus/prepared.json").is_file() \
        else Prepared.load(study / "data/known")
    config = groups[MASKED][0].config
    values: dict[float, list[float]] = {}
    for share in (0.25, 1.0):
        for seed in range(3):
            objective: dict[str, Any] = {"name": "masked", "rate": 0.4, **({"asked": share} if share < 1 else {})}
            run = train(TrainConfig(model=config, objective=objective, budget=f"{steps} steps", seed=seed), prepared,
                        arms / f"asked-{share}-seed{seed}", show=False)
            scores = fill(run.load(), prepared.valid, blanks=400, spans=(1,))
            values.setdefault(share, []).append(next(s.value for s in scores if s.name == "fill NLL, single token"))
    more = np.array(values[0.25]) - np.array(values[1.0])
    tags = [tagged_spans(source.tokenizer, *one) for one in source.tagged(SENTENCES, np.random.default_rng(11))]
    rtd = [of_layers(layers.probe_layers(one, tags[:LEARNT], tags[LEARNT:], code=False), "tag probe accuracy")[-1]
           for one in groups["replaced-token"]]
    masked = [of_layers(layers.probe_layers(one, tags[:LEARNT], tags[LEARNT:], code=False), "tag probe accuracy")[-1]
              for one in groups[MASKED]]
    gap = np.array(rtd) - np.array(masked)
    rows = [[f"{share:g}", shown(values[share])] for share in sorted(values)]
    return f"""### F4: loss on more positions learns more from the same corrupted input

{table(("share of the hidden tokens that is asked for", "nats for a single hidden token"), rows)}

40 % hidden in both, {steps} steps, 3 seeds. A quarter minus all: {shown(more)} nats: {verdict(more)}.
Replaced-token detection against masked, equal time, parts of speech from frozen states: {shown(gap, 100, 1)} points:
{verdict(gap)}. (Published for fine-tuning, at 14M parameters and more.)
"""


def f8(groups: Groups, source: KnownSource) -> str:
    """Naive Bayes against logistic regression, on words and on the features of trained networks."""
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.naive_bayes import GaussianNB, MultinomialNB

    rows = source.labelled(2600, np.random.default_rng(31))
    some = [(text, rows.names[label]) for text, label in zip(rows.texts, rows.labels)]
    some = list(dict(some).items())
    train, test = some[:-600], some[-600:]
    texts = [text for text, _ in some]
    counts = CountVectorizer(token_pattern=r"\S+").fit_transform(texts).toarray().astype(float)
    sizes, seeds = (2, 4, 8, 16, 64, 256), range(8)
    lines, out, points = [], [], {}
    for name, features in (("words, no pretraining", counts),
                           *((f"features of `{group}`", text_features(groups[group][0], texts))
                             for group in (CAUSAL, MASKED))):
        place = {text: number for number, text in enumerate(texts)}

        def fit(make: Callable[[], Any], features: np.ndarray = features, place: dict[str, int] = place) -> Any:
            def fitted(labelled: Sequence[tuple[str, str]], seed: int) -> Any:
                model = make().fit(features[[place[text] for text, _ in labelled]], [label for _, label in labelled])
                return lambda asked: model.predict(features[[place[text] for text in asked]])
            return fitted

        pretrained = features is not counts
        generative = curve("naive Bayes", fit(GaussianNB if pretrained else MultinomialNB), train, test, sizes, seeds)
        other = curve("logistic regression", fit(lambda: LogisticRegression(max_iter=300)), train, test, sizes, seeds)
        gap = np.array(generative[0].items) - np.array(other[0].items)
        end = np.array(other[-1].items) - np.array(generative[-1].items)
        out.append([name, shown(gap, 100, 1), verdict(gap), shown(end, 100, 1), verdict(end),
                    crossing(generative, other).sentence])
        points[name] = (generative, other)
    for name, (generative, other) in points.items():
        drawn = [Line(title, [(math.log2(s.details["labels"]), s.value) for s in side], colour=colour)
                 for title, side, colour in (("naive Bayes", generative, "orange"),
                                             ("logistic regression", other, "blue"))]
        lines.append(Panel(name.replace("`", ""), drawn, "labels of each class, powers of two"))
    (PICTURES / "representation_few_labels.svg").write_text(panels(lines), "utf-8")
    return f"""### F8: generative classifiers win with few labels, discriminative with many; pretraining shrinks it

![Accuracy by labels](pictures/representation_few_labels.svg)

{table(("features", "generative minus discriminative at 2 labels, points", "early sign",
        "discriminative minus generative at 256, points", "late sign", "crossing"), out)}

Topics of the known source, naive Bayes (multinomial on words, Gaussian on features) against logistic regression, 8
draws of the labels. Gaussian naive Bayes has to find a variance for each number of a state, in each class, from two
texts at first.
"""


def f10(groups: Groups, texts: Groups, source: KnownSource, documents: Sequence[str]) -> str:
    """Minimal pairs by rule and by way of calling."""
    made = [pair for pair in source.pairs(600, np.random.default_rng(41)) if pair.kind == "across a modifier"]
    found: dict[str, list[Score]] = {}
    for name in (CAUSAL, MASKED, HYBRID):
        for trained in groups[name]:
            for score in minimal_pairs(trained, made):
                found.setdefault(f"`{name}`, called {score.mode}, {score.estimator}", []).append(score)
    rows = [[name, shown([score.value for score in scores], 100, 1)] for name, scores in found.items()]
    sides = {name: [score.value for score in scores] for name, scores in found.items()}
    causal = next(values for name, values in sides.items() if name.startswith(f"`{CAUSAL}`"))
    masked = next(values for name, values in sides.items() if name.startswith(f"`{MASKED}`"))
    gap = np.array(masked) - np.array(causal)
    text = f"""### F10: both sides win minimal pairs, under the right scoring rule

{table(("known source, agreement across a modifier", "right, %"), rows)}

Masked minus causal: {shown(gap, 100, 1)} points: {verdict(gap)}.
"""
    if MASKED in texts:
        some: list[Pair] = swapped(documents, np.random.default_rng(42))[:240]
        (trained, *_) = texts[MASKED]
        rules = ("pll", "pll-word", "pll-word-l2r", "difference")
        parts = []
        for score in minimal_pairs(trained, some, rules=rules, parts=True):
            low, high = score.interval()
            parts.append([score.estimator, score.name.partition(", ")[2] or "all", str(score.n),
                          f"{100 * score.value:.1f} ({100 * low:.1f} to {100 * high:.1f})"])
        (left, *_) = texts[CAUSAL]
        for score in minimal_pairs(left, some, parts=True):
            low, high = score.interval()
            parts.append([f"{score.estimator}, `{CAUSAL}`", score.name.partition(", ")[2] or "all", str(score.n),
                          f"{100 * score.value:.1f} ({100 * low:.1f} to {100 * high:.1f})"])
        text += f"""
On Python's standard library (two words exchanged in a passage, one seed, intervals over pairs), `{MASKED}` by rule:

{table(("rule", "pairs", "n", "right, %"), parts)}
"""
    return text


def entities(texts: Groups, file: Path) -> str:
    """WNUT-17's entities from frozen states of networks that were trained on real text."""
    opened = gzip.open if file.suffix == ".gz" else open
    with opened(file, "rt", encoding="utf-8") as lines:  # type: ignore[operator]
        records = [json.loads(line) for line in lines][:700]
    rows = []
    for name, (trained, *_) in texts.items():
        if name not in DRAWN:
            continue
        tagged = []
        for record in records:
            starts = np.cumsum([0, *(len(token) + 1 for token in record["tokens"])])
            spans = [(int(start), int(start) + len(token), tag.partition("-")[2] or "none") for start, token, tag in
                     zip(starts, record["tokens"], record["tags"])]
            # one word in six that is no entity, so that these do not make up nearly all
            spans = [one for number, one in enumerate(spans) if one[2] != "none" or number % 6 == 0]
            if spans:
                tagged.append(tagged_spans(trained.tokenizer, " ".join(record["tokens"]), spans, 96))
        scores = layers.probe_layers(trained, tagged[:450], tagged[450:], what="entity", code=False)
        best = max(of_layers(scores, "entity probe accuracy"))
        first, last = (of_layers(scores, "entity probe accuracy")[place] for place in (0, -1))
        low, high = [score for score in scores if score.name == "entity probe accuracy"][-1].interval()
        selective = of_layers(scores, "entity probe selectivity")[-1]
        rows.append([f"`{name}`", f"{100 * first:.1f}", f"{100 * best:.1f}",
                     f"{100 * last:.1f} ({100 * low:.1f} to {100 * high:.1f})", f"{100 * selective:.1f}"])
    return f"""## Entities, from networks that read Python

{table(("objective", "embedding, %", "best layer, %", "last layer, % (test words)", "selectivity, points"), rows)}

WNUT-17's six kinds of entities and one ordinary word in six, linear probes on 450 messages, the rest of 700 for the
test. The networks were trained on the source of Python's standard library, one seed: this says what they carry over,
not what they could learn.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path)
    parser.add_argument("--arms", type=Path, default=Path("arms"))
    parser.add_argument("--entities", type=Path)
    parser.add_argument("--only", help="measure these parts only: layers, f2, f4, f8, f10, entities")
    parser.add_argument("--all", action="store_true", help="probe the layers of every objective, not of six")
    parser.add_argument("--page", type=Path, default=Path(__file__).parent / "representation.md")
    options = parser.parse_args()
    begin, source = time.perf_counter(), KnownSource(seed=0)
    groups, texts = models(options.study, "known"), models(options.study, "text")
    held = json.loads((options.study / "data/text/questions.json").read_text(encoding="utf-8"))
    passages = [good for good, _, _ in held["pairs"]]
    parts: dict[str, Callable[[], str]] = {
        "layers": lambda: known(groups, source, options.arms, list(groups) if options.all else DRAWN),
        "f2": lambda: f2(options.study, groups, source),
        "f8": lambda: f8(groups, source), "f10": lambda: f10(groups, texts, source, passages),
        "f4": lambda: f4(groups, source, options.arms, options.study)}
    if options.entities is not None:
        parts["entities"] = lambda: entities(texts, options.entities)
    # what is done stays done: a part that was measured is read the second time
    options.arms.mkdir(parents=True, exist_ok=True)
    for name in options.only.split(",") if options.only else parts:
        kept = options.arms / f"{name}.md"
        if not kept.is_file():
            kept.write_text(parts[name](), encoding="utf-8")
            print(f"{time.perf_counter() - begin:6.1f} s  {name}", flush=True)
    sections = {name: (options.arms / f"{name}.md").read_text(encoding="utf-8") for name in parts
                if (options.arms / f"{name}.md").is_file()}
    shape = groups[CAUSAL][0].config.shape
    findings = "\n".join(sections[name] for name in ("f2", "f4", "f8", "f10") if name in sections)
    options.page.write_text(PAGE.format(layers=shape.layers, width=shape.width, known=sections.get("layers", ""),
                                        findings=findings, entities=sections.get("entities", "")), encoding="utf-8")
    print(f"{time.perf_counter() - begin:6.1f} s  {options.page}")


PAGE = """# What trained networks know

Twelve objectives, networks of one size on one source ([objectives.md](objectives.md)), 3 seeds each: what can be read
from their states, layer by layer, how alike they are, and which published findings show at this size. Written by

```bash
bothways compare --recipe recipes/studies/objectives.yaml --out study
python docs/representation_study.py study --arms arms --entities wnut17_train.jsonl.gz
```

Networks have {layers} layers of width {width}; intervals are 95 % t intervals over seeds. "Cannot be said" is a
difference whose interval holds 0.

{known}
## Published findings

{findings}
{entities}"""


if __name__ == "__main__":
    main()
