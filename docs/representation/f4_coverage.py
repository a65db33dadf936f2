"""F4: does loss on more positions learn more from the same corrupted input?

One corruption (40 % of the tokens hidden), three shares of the hidden tokens that carry loss, equal steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from kept import Kept, listed, paired_items, said, shown, spread, table, written
from known_layers import LEARNT, SENTENCES, of_layers
from networks import MASKED, Groups, at_step, kept_steps

from bothways.evaluation import layers
from bothways.evaluation.features import tagged_spans
from bothways.evaluation.fill import fill
from bothways.families.trained import Trained
from bothways.model import ModelConfig, Shape
from bothways.pictures.panels import Line, Panel, panels
from bothways.text.known import KnownSource
from bothways.text.prepare import Prepared
from bothways.training.config import Record, TrainConfig
from bothways.training.run import train

SHARES, SEEDS, STEPS, FROM = (0.25, 0.5, 1.0), 3, 1000, 64
TEXT_STEPS = 300
BLANKS = 600


def measure(kept: Kept, groups: Groups, source: KnownSource, study: Path, runs: Path, folder: Path) -> None:
    """Train the arms into `folder`, and keep what each step of them costs for single hidden tokens."""
    config = groups[MASKED][0].config
    makes: dict[str, Callable[[], Any]] = {}
    for seed in range(SEEDS):
        for share in SHARES:
            makes[f"known share={share:g} seed={seed}"] = lambda share=share, seed=seed: known_arm(  # type: ignore[misc]
                config, source, study, share, seed, folder / f"known-{share:g}-{seed}")
        for name in (MASKED, "replaced-token"):
            makes[f"tags {name} seed={seed}"] = lambda name=name, seed=seed: tags_of(  # type: ignore[misc]
                groups[name][seed], source)
    for share in SHARES if (runs / "masked" / "text" / "prepared.json").is_file() else ():
        makes[f"text share={share:g}"] = lambda share=share: text_arm(runs, share, folder / f"text-{share:g}")  # type: ignore[misc]
    kept.fill(makes)


def objective(share: float) -> dict[str, Any]:
    """40 % hidden, and that share of it asked for."""
    return {"name": "masked", "rate": 0.4, **({"asked": share} if share < 1 else {})}


def nll(trained: Trained, prepared: Prepared) -> list[float]:
    """Nats for each of the same single hidden tokens of held-out text."""
    scores = fill(trained, prepared.valid, blanks=BLANKS, spans=(1,))
    return next(score.items or [] for score in scores if score.name == "fill NLL, single token")


def tags_of(trained: Trained, source: KnownSource) -> float:
    """Parts of speech from frozen last states."""
    tags = [tagged_spans(source.tokenizer, *one) for one in source.tagged(SENTENCES, np.random.default_rng(11))]
    return of_layers(layers.probe_layers(trained, tags[:LEARNT], tags[LEARNT:], code=False), "tag probe accuracy")[-1]


def known_arm(config: ModelConfig, source: KnownSource, study: Path, share: float, seed: int, out: Path) -> Any:
    """One run on the known source: nats at each kept step, and parts of speech at the end."""
    folder = study / "data/known/corpus"
    prepared = Prepared.load(folder if (folder / "prepared.json").is_file() else study / "data/known")
    run = train(TrainConfig(model=config, objective=objective(share), budget=f"{STEPS} steps", seed=seed,
                            batch_tokens=2048), prepared, out, show=False)
    trained = run.load()
    curve = {step: float(np.mean(nll(at_step(trained, out, step), prepared)))
             for step in kept_steps(out) if FROM <= step < STEPS}
    return {"nats": {**curve, STEPS: float(np.mean(nll(trained, prepared)))}, "tags": tags_of(trained, source)}


def text_arm(runs: Path, share: float, out: Path) -> Any:
    """One short run on OpenStax prose: nats of each hidden token."""
    prepared = Prepared.load(runs / "masked" / "text")
    model = ModelConfig(Shape(vocabulary=prepared.tokenizer.size, width=128, layers=4, heads=4))
    run = train(TrainConfig(model=model, objective=objective(share), budget=f"{TEXT_STEPS} steps", batch_tokens=4096,
                            matrix_rate=0.02, other_rate=5e-3, record=Record(keep="last")), prepared, out, show=False)
    return nll(run.load(), prepared)


# ---------------------------------------------------------------------------------------------------------- the page

def page(kept: Kept, pictures: Path) -> tuple[str, list[list[str]]]:
    """The section, and its lines of the page's first table."""
    found = kept.all()
    arms = {share: [found[key] for seed in range(SEEDS) if (key := f"known share={share:g} seed={seed}") in found]
            for share in SHARES}
    if not min(map(len, arms.values())):
        return "", []
    seeds = min(map(len, arms.values()))
    steps = sorted(map(int, arms[1.0][0]["nats"]))
    nats = {share: {step: [arm["nats"][str(step)] for arm in some[:seeds]] for step in steps}
            for share, some in arms.items()}
    gap = {(share, step): np.array(nats[share][step]) - np.array(nats[1.0][step]) for share in SHARES[:2]
           for step in steps}
    rows = [[str(step), *(shown(nats[share][step]) for share in SHARES), shown(gap[0.25, step]), shown(gap[0.5, step])]
            for step in steps]
    (pictures / "representation_coverage.svg").write_text(panels([Panel("nats for a hidden token, known source", [
        Line(f"share {share:g}", [(math.log2(step), float(np.mean(nats[share][step]))) for step in steps],
             [spread(nats[share][step])[1:] for step in steps], colour)
        for share, colour in zip(SHARES, ("orange", "green", "blue"))], "step", doubling=True)], 1, 360, 260), "utf-8")
    last = steps[-1]
    order = {f"{share:g}": spread(gap[share, last]) for share in SHARES[:2]}
    ends_tags = {share: np.array([arm["tags"] for arm in some[:seeds]]) for share, some in arms.items()}
    tags = [ends_tags[1.0] - ends_tags[share] for share in SHARES[:2]]
    ends = listed([f"asking for {share} costs {written(value)} nats more than asking for all ({said(value)})"
                   for share, value in order.items()])
    text = f"""### F4: loss on more positions learns more from the same corrupted input

Published: ELECTRA, table 5 (14M parameters and up, GLUE after fine-tuning): loss on 15 % of the positions 82.4, on all
of them 84.3; replaced-token detection 85.0 (arXiv 2003.10555). Wettig et al. tell the share hidden from the share asked
for: the second only helps (arXiv 2202.08005).

Ours, known source: 40 % hidden in all arms, {last} steps of about 2,040 tokens, training seeds: {seeds}. Nats for a
single hidden token by the share of the hidden tokens that carries loss (bands: 95 % t intervals over seeds):

![Nats by step](pictures/representation_coverage.svg)

{table(("step", *(f"share {share:g}" for share in SHARES), "0.25 minus 1", "0.5 minus 1"), rows)}

At the end {ends}. Parts of speech from frozen states, all minus a quarter
{shown(tags[0], 100, 1)} points, all minus a half {shown(tags[1], 100, 1)}.
"""
    summary = [["F4, share with loss, known source", "more loss positions, lower loss",
                f"a quarter minus all {written(order['0.25'])} nats, a half minus all {written(order['0.5'])} "
                f"(training seeds: {seeds}; {last} steps)", said(order["0.25"])]]
    real = {share: np.array(found[f"text share={share:g}"]) for share in SHARES if f"text share={share:g}" in found}
    if len(real) == len(SHARES):
        quarter, half = (paired_items(real[share] - real[1.0]) for share in SHARES[:2])
        text += f"""
On OpenStax prose ({TEXT_STEPS} steps of 4,096 tokens, 4 layers of width 128, one training seed, intervals over
{len(real[1.0])} hidden tokens): {", ".join(f"share {share:g} {values.mean():.3f}" for share, values in real.items())}
nats; a quarter minus all {written(quarter)}, a half minus all {written(half)}.
"""
        summary.append(["F4, OpenStax prose", "the same", f"a quarter minus all {written(quarter)} nats, a half minus "
                        f"all {written(half)} (1 seed, {len(real[1.0])} hidden tokens)", said(quarter)])
    pairs = [(found[f"tags replaced-token seed={seed}"], found[f"tags {MASKED} seed={seed}"]) for seed in range(SEEDS)
             if f"tags replaced-token seed={seed}" in found and f"tags {MASKED} seed={seed}" in found]
    if len(pairs) > 1:
        gaps = spread([100 * (one - other) for one, other in pairs])
        text += f"""
Replaced-token detection against masked at equal time (the study's networks, two minutes each, {len(pairs)} seeds),
parts of speech from frozen last states: {written(gaps, 1, 1)} points. Published for fine-tuning, and at 14M parameters
and more; frozen states of 0.16M parameters are another question.
"""
        summary.append(["F4, replaced-token against masked", "replaced-token ahead", f"{written(gaps, 1, 1)} points of "
                        f"parts of speech, frozen states ({len(pairs)} seeds)", said(gaps)])
    return text, summary
