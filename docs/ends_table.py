"""How far trained networks are from the truth of the known source when texts are asked for their ends.

    bothways compare --recipe recipes/studies/objectives.yaml --out study
    python docs/ends_table.py study

Last comes what UL2 makes of halves, ends included, under the denoiser that hides halves in training.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from bothways.batch import Key, Window
from bothways.evaluation.answers import answers
from bothways.evaluation.likelihood import suffix
from bothways.evaluation.questions import rests
from bothways.families.folder import load
from bothways.text.known import KnownSource


def main(study: Path, texts: int = 100) -> None:
    source = KnownSource(seed=0)
    drawn = source.sample(4 * texts, np.random.default_rng(77))
    (_, hidden), *_ = rests(drawn, source.tokenizer.vocabulary, texts)
    print(f"{texts} texts, cut at token {int(hidden.argmax())}: nats a token above the truth, seed 0")
    for folder in sorted((study / "runs/known").glob("*-seed0/training/model")):
        trained = load(folder)
        for score in suffix(trained, drawn, limit=texts, samples=16, off_mode=False, truth=source):
            if score.name.endswith("truth"):
                low, high = score.interval()
                print(f"{folder.parts[-3]:40} {score.mode:16} {score.value:+.3f} ({low:+.3f} to {high:+.3f}) "
                      f"{score.estimator}")
        if trained.objective.name == "ul2":
            ul2 = trained
    halved = replace(ul2.objective, denoisers=(("X", 64.0, 0.5),))  # type: ignore[type-var]
    questions = [halved.corrupt(Window(ids), Key(0, 0, number)) for number, ids in enumerate(drawn[:texts])]
    nats = sum(one.nats for one in answers(ul2, questions))
    # each question asks for a sentinel, the second half and its end
    sizes = [len(question.asks[0].targets) - 1 for question in questions]
    true = sum(float(source.true_nll(ids)[-size:].sum()) for ids, size in zip(drawn, sizes))
    print(f"ul2, halves and their ends under its <X>: {nats / sum(sizes):.3f}; the truth: {true / sum(sizes):.3f}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("give the folder of a study: python docs/ends_table.py study")
    main(Path(sys.argv[1]))
