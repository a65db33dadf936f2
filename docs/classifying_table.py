"""The tables of docs/classifying.md: every way of classifying the same labelled texts, from every network that can.

    python docs/classifying_table.py --train sentence_polarity_train.jsonl.gz --test sentence_polarity_dev.jsonl.gz \
        --out polarity.jsonl --words 0=bad 1=good --masked FOLDER --causal FOLDER --encoder MiniLM/

Networks are named by what they were trained to do; whatever is not given is left out. Every row tries three settings on
rows kept back, and learns with the best (`bothways.tasks.comparison`). Rows are written to --out as they come: the
same command goes on where it stopped, and with --last-first a second process works from the other end of the list
(what both have begun in the middle is done twice, and the later one counts). --print only draws the table.
"""

from __future__ import annotations

import argparse
import fnmatch
import functools
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from bothways.families.folder import load
from bothways.families.trained import Trained
from bothways.model import LanguageModel, ModelConfig, Shape
from bothways.objectives import make
from bothways.tasks.classify import Options, Row, Task
from bothways.tasks.comparison import Contender, Setting, compare, markdown, read, without_network
from bothways.tasks.rows import overlap
from bothways.tasks.rows import read as read_rows
from bothways.tasks.tuning import TuneConfig
from bothways.text.tokenizer import Tokenizer

BASES = ("encoder", "masked", "causal", "hybrid", "diffusion", "denoising", "prefix", "permuted")
RATES = (3e-5, 1e-4, 3e-4)
"""Of a published encoder."""
SMALL_RATES = (3e-4, 1e-3, 3e-3)
"""Of networks of a few million numbers, whether they have read something or not (docs/log.md)."""
HEADS = {"masked": (("mean", None),), "causal": (("last", None), ("mean", None), ("mean", "bidirectional")),
         "hybrid": (("mean", "bidirectional"),), "diffusion": (("mean", None),), "denoising": (("mean", None),),
         "prefix": (("mean", "bidirectional"),), "permuted": (("mean", None),)}
"""Pooling and visibility of the heads."""
WRITTEN = {"causal": ("text-to-text", "prompt", "generative", "channel", "channel and direct"), "masked": ("prompt",),
           "hybrid": ("prompt", "generative"), "diffusion": ("prompt", "generative"), "denoising": ("text-to-text",),
           "prefix": ("text-to-text",)}
"""The ways by likelihood that suit a network."""
SLOW = ("masked", "diffusion")
"""Networks that answer by a bound, some passes for each label and text."""


@functools.lru_cache(maxsize=1)
def loaded(folder: str) -> Trained:
    """The network in a folder; rows of one network lie together."""
    return load(folder, dtype=torch.float32)


def scratch(objective: str, texts: tuple[str, ...]) -> Trained:
    """A network of the size of the pretrained ones that has read nothing: 4 layers, 256 wide."""
    torch.manual_seed(0)
    tokenizer = Tokenizer.train(texts, "bpe", 4096)
    shape = Shape(vocabulary=tokenizer.size, width=256, layers=4, heads=4)
    return Trained(LanguageModel(ModelConfig(shape, dropout=0.1)), make(objective, tokenizer.vocabulary), tokenizer)


def rates(options: Options, config: TuneConfig, of: tuple[float, ...] = SMALL_RATES) -> tuple[Setting, ...]:
    """The same setting with each rate; a frozen network moves its head alone."""
    if config.moves == "head":
        return tuple(Setting(f"head rate {30 * rate:g}", options, replace(config, head_rate=30 * rate)) for rate in of)
    return tuple(Setting(f"rate {rate:g}", options, replace(config, learning_rate=rate)) for rate in of)


def contenders(given: argparse.Namespace, texts: tuple[str, ...]) -> list[Contender]:
    """Every way, with what it begins with, in the order of their bases."""
    config = TuneConfig(epochs=given.epochs, batch=16, head_rate=5e-3, longest=64, by_length=True, precision="auto",
                        dropout=0.1)
    told = {"words": tuple(given.words), "template": given.template}
    found = without_network()

    def neighbours(name: str, folder: str) -> Contender:
        return Contender(f"neighbours, {name}", functools.partial(loaded, folder), tuple(
            Setting(f"{k} nearest", Options(way="neighbours", neighbours=k), config) for k in (5, 15, 50)))

    if given.encoder:
        start = functools.partial(loaded, given.encoder)
        found += [neighbours("encoder", given.encoder),
                  Contender("head, frozen encoder, mean", start,
                            rates(Options(), replace(config, moves="head"), RATES)),
                  Contender("head, encoder, mean", start,
                            rates(Options(), replace(config, epochs=min(given.epochs, 3.0)), RATES))]
    for name in BASES[1:]:
        if not (folder := getattr(given, name)):
            continue
        start = functools.partial(loaded, folder)
        if name in ("masked", "causal"):
            found.append(neighbours(name, folder))
        for pooling, sees in HEADS[name]:
            opened = " opened both ways" if name == "causal" and sees else ""
            found.append(Contender(f"head, {name}{opened}, {pooling}", start,
                                   rates(Options(pooling=pooling, visibility=sees), config)))  # type: ignore[arg-type]
        for way in WRITTEN.get(name, ()):
            options = Options(way=way.split()[0], direct="direct" in way, **told)  # type: ignore[arg-type]
            found.append(Contender(f"{way}, {name}", start, rates(options, config),
                                   given.slow_tested if name in SLOW else None))
    for name, objective, way in (("masked", "masked", "head"), ("causal", "next-token", "head"),
                                 ("causal", "next-token", "generative")):
        options = Options(way=way, **told)  # type: ignore[arg-type]
        found.append(Contender(f"{way}, {name} from scratch" + (", mean" if way == "head" else ""),
                               functools.partial(scratch, objective, texts), rates(options, config)))
    return found


def main() -> None:
    """Read, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", required=True)
    parser.add_argument("--test", required=True)
    parser.add_argument("--out", type=Path, required=True, help="JSON lines, one a row of the table")
    for base in BASES:
        parser.add_argument(f"--{base}", metavar="FOLDER")
    parser.add_argument("--texts", type=int, default=2000, help="to learn from, and a tenth to choose by")
    parser.add_argument("--tested", type=int, default=1000)
    parser.add_argument("--slow-tested", type=int, default=None, help="for ways that answer by a bound")
    parser.add_argument("--epochs", type=float, default=3.0)
    parser.add_argument("--template", default="{text} It was {label}.")
    parser.add_argument("--words", nargs="*", default=[])
    parser.add_argument("--only", nargs="*", default=["*"], help="patterns of the names of rows")
    parser.add_argument("--last-first", action="store_true", help="from the end of the list")
    parser.add_argument("--print", action="store_true", help="run nothing")
    parser.add_argument("--list", action="store_true", help="only say the names of the rows")
    given = parser.parse_args()
    # 1. rows: test rows that stand in the training data are left out
    train, test = (read_rows(path, Task.roles, Task.row) for path in (given.train, given.test))
    twice = {place for place, _ in overlap(train, test, Task.key)}
    rng = np.random.default_rng(0)
    some: list[Row] = [train.items[place] for place in rng.permutation(len(train))[:given.texts]]
    kept, learned = some[:len(some) // 10], some[len(some) // 10:]
    asked = [test.items[place] for place in rng.permutation(len(test)) if place not in twice][:given.tested]
    # 2. the ways
    chosen = [one for one in contenders(given, tuple(row.text for row in learned))
              if any(fnmatch.fnmatch(one.name, pattern) for pattern in given.only)]
    if given.list:
        print("\n".join(one.name for one in chosen))
        return
    if not given.print:
        compare(chosen[::-1] if given.last_first else chosen, learned, kept, asked, given.out,
                lambda sentence: print(sentence, file=sys.stderr, flush=True))
    # 3. the table
    outcomes = read(given.out, len(learned))
    fewer = sorted({one.tested for one in outcomes if one.tested < len(asked)})
    (label, _), = Counter(row.labels for row in learned).most_common(1)
    print(f"{len(learned)} texts to learn from, {len(kept)} to choose by, {len(asked)} to test on"
          + (f" ({', '.join(map(str, fewer))} for ways that answer by a bound)" if fewer else "")
          + f"; {torch.get_num_threads()} threads.\n")
    print(markdown(outcomes, float(np.mean([row.labels == label for row in asked]))))


if __name__ == "__main__":
    main()
