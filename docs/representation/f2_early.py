"""F2: is causal training ahead early, and does masked training catch up and pass?

Frozen states of both networks at equal steps: on the known source with three training seeds, on real text with one.
What is asked of real text: kinds of entities of words, polarity of sentences, and entailment of pairs of sentences.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from kept import Kept, said, shown, spread, table, written
from known_layers import LEARNT, SENTENCES
from networks import CAUSAL, MASKED, Groups, at_step, entities, kept_steps, lines, polarity, run_of

from bothways.evaluation.features import span_features, tagged_spans, text_features
from bothways.evaluation.few_labels import crossing
from bothways.evaluation.probes import regress, tags_of
from bothways.evaluation.score import Score
from bothways.families.trained import Trained
from bothways.pictures.panels import Line, Panel, panels
from bothways.text.known import KnownSource

PATTERNS = {CAUSAL: "next-token", MASKED: "masked-rate=0.3*"}
SPLITS, SHARE = 5, 0.25
"""Random splits of the texts of a probe, and the share of each that is tested."""
TASKS = {"entities": "kinds of entities (WNUT-17), by word", "polarity": "polarity of a sentence",
         "pairs": "entailment of a pair (SICK)"}
KNOWN = {"tag": "part of speech, by word", "topic": "topic of a document"}
MESSAGES, SENTENCES_READ, PAIRS = 1200, 1600, 1200


def measure(kept: Kept, groups: Groups, source: KnownSource, study: Path, runs: Path, data: Path) -> None:
    """Every kept step of both, on both kinds of text."""
    makes: dict[str, Callable[[], Any]] = {}
    for name, pattern in PATTERNS.items():
        for seed, trained in enumerate(groups[name]):
            (folder,) = (study / "runs/known").glob(f"{pattern}-seed{seed}/training")
            for step in kept_steps(folder):
                if step & (step - 1) == 0:
                    makes[f"known {name} seed={seed} step={step}"] = (
                        lambda trained=trained, folder=folder, step=step:  # type: ignore[misc]
                        on_known(at_step(trained, folder, step), source))
    for name in ("causal", "masked"):
        if (runs / name / "model").is_dir():
            trained = run_of(runs, name)
            for step in kept_steps(runs / name):
                makes[f"text {name} step={step}"] = lambda trained=trained, name=name, step=step: on_text(  # type: ignore[misc]
                    at_step(trained, runs / name, step), data)
    kept.fill(makes)


def on_known(trained: Trained, source: KnownSource) -> dict[str, float]:
    """Parts of speech from the states of words, topics from mean states of documents."""
    tags = [tagged_spans(source.tokenizer, *one) for one in source.tagged(SENTENCES, np.random.default_rng(21))]
    features = span_features(trained, tags)
    labels = tags_of(tags)
    cut = len(tags_of(tags[:LEARNT]))
    rows = source.labelled(800, np.random.default_rng(22))
    vectors, topics = text_features(trained, rows.texts), [rows.names[label] for label in rows.labels]
    return {"tag": right(features[:cut], labels[:cut], features[cut:], labels[cut:]),
            "topic": right(vectors[:400], topics[:400], vectors[400:], topics[400:])}


def on_text(trained: Trained, data: Path) -> dict[str, list[float]]:
    """Accuracy of linear probes of last states, for each of the same splits of three tasks."""
    # 1. words: whole messages go to one side of a split
    tagged = entities(trained, data / "ner/wnut17_train.jsonl.gz", MESSAGES)
    owner = np.repeat(np.arange(len(tagged)), [len(one.spans) for one in tagged])
    found = {"entities": over_splits(span_features(trained, tagged), tags_of(tagged), owner)}
    # 2. sentences
    some = polarity(data, "train")
    some = [some[place] for place in np.random.default_rng(23).permutation(len(some))[:SENTENCES_READ]]
    found["polarity"] = over_splits(text_features(trained, [text for text, _ in some], longest=64),
                                    [label for _, label in some])
    # 3. pairs: both mean states, how far apart they are, and their product
    pairs = lines(data / "pairs/sick_train.jsonl.gz")[:PAIRS]
    first, second = (text_features(trained, [one[side] for one in pairs], longest=64)
                     for side in ("sentence_a", "sentence_b"))
    found["pairs"] = over_splits(np.concatenate([np.abs(first - second), first * second], axis=1),
                                 [one["entailment"] for one in pairs])
    return found


def over_splits(features: np.ndarray, labels: Sequence[str], owner: np.ndarray | None = None) -> list[float]:
    """Accuracy on the tested share of each random split; items of one owner stay on one side."""
    owner = np.arange(len(labels)) if owner is None else owner
    found = []
    for split in range(SPLITS):
        owners = np.random.default_rng((24, split)).permutation(int(owner.max()) + 1)
        tested = np.isin(owner, owners[:round(len(owners) * SHARE)])
        names = np.array(labels)
        found.append(right(features[~tested], names[~tested].tolist(), features[tested], names[tested].tolist()))
    return found


def right(train: np.ndarray, labels: Sequence[str], test: np.ndarray, truth: Sequence[str]) -> float:
    """The share of `truth` that a logistic regression finds."""
    return float(np.mean([one == other for one, other in zip(regress(train, list(labels), test), truth, strict=True)]))


# ---------------------------------------------------------------------------------------------------------- the page

def series(found: dict[str, Any], kind: str, names: tuple[str, str], task: str) -> dict[str, dict[int, list[float]]]:
    """Network -> step -> values over seeds (known source) or splits (text), for the steps that both have."""
    values: dict[str, dict[int, list[float]]] = {name: {} for name in names}
    for key, one in found.items():
        for name in names:
            if key.startswith(f"{kind} {name} ") and task in one:
                step = int(key.rpartition("step=")[2])
                values[name].setdefault(step, []).extend(one[task] if isinstance(one[task], list) else [one[task]])
    steps = sorted(set(values[names[0]]) & set(values[names[1]]))
    return {name: {step: values[name][step] for step in steps} for name in names}


def compared(values: dict[str, dict[int, list[float]]], shared: float) -> dict[str, Any]:
    """Who is ahead first and last, and where masked passes causal."""
    causal, masked = values.values()
    steps = list(causal)
    gaps = {step: np.array(causal[step]) - np.array(masked[step]) for step in steps}
    early = spread(np.mean([gaps[step] for step in early_of(steps)], axis=0), shared)
    # with one step nothing is learned: who reads to both sides already differs from who reads to one
    gained = spread(np.mean([gaps[step] - gaps[steps[0]] for step in early_of(steps)], axis=0), shared)
    late = spread(-gaps[steps[-1]], shared)
    curves = [[Score(name, "all", f"step {step}", float(np.mean(side[step])), len(side[step]), items=side[step],
                     details={"step": float(step)}) for step in steps] for name, side in zip(values, (causal, masked))]
    return {"steps": steps, "gaps": gaps, "early": early, "gained": gained, "late": late,
            "crossing": crossing(*curves, along="step", names=("causal", "masked"), unit="steps")}


def early_of(steps: Sequence[int]) -> list[int]:
    """The first eighth of the training, where both have moved: from step 16 on."""
    found = [step for step in steps if 16 <= step <= steps[-1] / 8]
    return found or list(steps[:1])


def page(kept: Kept, pictures: Path) -> tuple[str, list[list[str]]]:
    """The section, and its lines of the page's first table."""
    found = kept.all()
    parts, summary, frames = [], [], []
    sources = (("text", ("causal", "masked"), TASKS, SHARE / (1 - SHARE), "OpenStax prose"),
               ("known", (CAUSAL, MASKED), KNOWN, 0.0, "known source"))
    for kind, names, tasks, shared, where in sources:
        rows, verdicts, n = [], [], 0
        for task, what in tasks.items():
            values = series(found, kind, names, task)
            if len(next(iter(values.values()))) < 3:
                continue
            one = compared(values, shared)
            n = len(next(iter(one["gaps"].values())))
            verdicts.append([what, written(one["early"], 100, 1), said(one["early"]), written(one["gained"], 100, 1),
                             written(one["late"], 100, 1), said(one["late"]), one["crossing"].sentence])
            unit = f"{n} splits, 1 training seed" if kind == "text" else f"{n} training seeds"
            summary.append([f"F2, {where}, {what}", "causal ahead early, masked late",
                            f"early causal minus masked {written(one['early'], 100, 1)} points, late masked minus "
                            f"causal {written(one['late'], 100, 1)} ({unit})",
                            f"early: {said(one['early'])}; late: {said(one['late'])}"])
            frames.append(Panel(f"{what}, {where}" if kind == "known" else what, [
                Line(name.split("(")[0].replace("next-token", "causal"), [
                    (math.log2(step), float(np.mean(side[step]))) for step in side],
                    [spread(side[step], shared)[1:] for step in side], colour)
                for (name, side), colour in zip(values.items(), ("blue", "orange"))], "step", doubling=True))
            rows.append((what, values, one))
        if rows:
            parts.append(section(kind, rows, shared) + "\n\n" + table(
                ("what is asked", "early: causal minus masked, points", "early sign",
                 "early, less what it was at step 1", "late: masked minus causal, points", "late sign", "crossing"),
                verdicts))
    if not parts:
        return "", []
    (pictures / "representation_early.svg").write_text(panels(frames, 3), "utf-8")
    body = "\n\n".join(parts)
    return f"""### F2: causal training is ahead early, masked training catches up and passes

Published: BERT, figure 5 (110M parameters; MNLI after 30,000 steps: left-to-right 79.4, masked 78.6; after 1,000,000:
82.2 and 84.4; they cross between 50,000 and 100,000). Gisserot-Boukhlef et al. (0.2 to 1B parameters, arXiv
2507.00994): causal leads early on sentences, and on tokens it leads or ties throughout. Both after fine-tuning; here
are linear probes of frozen last states, so "ahead" is of what can be read at once.

![Accuracy by step](pictures/representation_early.svg)

*Early* is the mean of the kept steps from 16 to an eighth of the training, *late* the last step. Weights between are
not cooled down. At step 1 nothing is learned, and what the two read differs already, since one looks to both sides.

{body}
""", summary


def section(kind: str, rows: list[tuple[str, dict[str, dict[int, list[float]]], dict[str, Any]]], shared: float) -> str:
    """The table of one kind of text."""
    head = (f"OpenStax prose, steps of 4,096 tokens. One training seed of each: brackets are over {SPLITS} splits of a "
            "probe's texts (with the correction for splits that overlap, Nadeau & Bengio 2003), and say nothing of "
            "another training run." if kind == "text" else
            "Known source, steps of about 2,040 tokens; brackets are over training seeds. A tag that hangs on what "
            "follows cannot be read from the left, which favours masked training from the start; a topic can.")
    steps = rows[0][2]["steps"]
    cells = []
    for step in steps:
        line = [str(step)]
        for _, values, one in rows:
            causal, masked = values.values()
            line += [f"{100 * float(np.mean(causal[step])):.1f}", f"{100 * float(np.mean(masked[step])):.1f}",
                     shown(one["gaps"][step], 100, 1, shared)]
        cells.append(line)
    names = [part for what, *_ in rows for part in (f"{what}: causal, %", "masked, %", "difference, points")]
    return f"{head}\n\n{table(('step', *names), cells)}"
