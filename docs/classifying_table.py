"""The table of docs/classifying.md: every way of classifying the same labelled texts.

    python docs/classifying_table.py --train sentence_polarity_train.jsonl.gz --test sentence_polarity_dev.jsonl.gz \
        --encoder MiniLM/ --texts 1000 --tested 500

Ways that need a network take the published encoder where one is given and it can do what they ask, and a small network
from scratch (2 layers, 128 wide) that has seen nothing but the training texts. Prints Markdown.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace

import numpy as np
import torch

from bothways.families.folder import load
from bothways.families.trained import Trained
from bothways.model import LanguageModel, ModelConfig, Shape
from bothways.objectives import make
from bothways.tasks.classify import Options, Row, Task
from bothways.tasks.comparison import Contender, compare, markdown
from bothways.tasks.rows import overlap, read
from bothways.tasks.tuning import TuneConfig
from bothways.tasks.ways import WITHOUT_NETWORK
from bothways.text.tokenizer import Tokenizer


def scratch(objective: str, tokenizer: Tokenizer) -> Trained:
    """A small network that has read nothing."""
    torch.manual_seed(0)
    made = make(objective, tokenizer.vocabulary)
    two = {"source_layers": 1} if made.stack == "two towers" else {}
    shape = Shape(vocabulary=tokenizer.size, width=128, layers=2 - len(two), heads=4, **two)
    return Trained(LanguageModel(ModelConfig(shape, dropout=0.1)), made, tokenizer)


def contenders(train: list[Row], encoder: str | None, words: tuple[str, ...], epochs: float) -> list[Contender]:
    """Every way, with what it begins with."""
    tokenizer = Tokenizer.train([row.text for row in train], "bpe", 2048)
    small = TuneConfig(epochs=epochs, batch=16, learning_rate=1e-3, head_rate=2e-3, longest=64, by_length=True)
    told = {"words": words, "template": "{text} It was {label}."}
    found = [Contender(f"{way}, TF-IDF", None, Options(way=way), small) for way in WITHOUT_NETWORK]
    if encoder is not None:
        known = load(encoder, dtype=torch.float32)
        config = TuneConfig(epochs=3, learning_rate=1e-4, head_rate=5e-3, longest=64, by_length=True)
        found.append(Contender("nearest neighbours, encoder", known, Options(way="neighbours"), config))
        found.append(Contender("head, frozen encoder", known, Options(), replace(config, moves="head", epochs=4)))
        found += [Contender(f"head, encoder, {pooling} pooling", known, Options(pooling=pooling), config)
                  for pooling in ("mean", "first")]
    nets = {name: scratch(objective, tokenizer) for name, objective in (
        ("causal", "next-token"), ("masked", "masked"), ("encoder-decoder", "span-corruption"),
        ("diffusion", "diffusion"))}
    for name, pooling, sees in (("masked", "mean", None), ("causal", "last", None), ("causal", "mean", None),
                                ("causal", "mean", "bidirectional")):
        opened = ", opened both ways" if sees else ""
        found.append(Contender(f"head, {name} from scratch{opened}, {pooling} pooling", nets[name],
                               Options(pooling=pooling, visibility=sees), small))
    for way, name in (("text-to-text", "encoder-decoder"), ("text-to-text", "causal"), ("prompt", "masked"),
                      ("prompt", "causal"), ("generative", "causal"), ("generative", "diffusion"),
                      ("channel", "causal")):
        found.append(Contender(f"{way}, {name} from scratch", nets[name], Options(way=way, **told), small))
    return found


def main() -> None:
    """Read, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", required=True)
    parser.add_argument("--test", required=True)
    parser.add_argument("--encoder")
    parser.add_argument("--texts", type=int, default=1000)
    parser.add_argument("--tested", type=int, default=500)
    parser.add_argument("--epochs", type=float, default=4.0)
    parser.add_argument("--words", nargs="*", default=["0=bad", "1=good"])
    given = parser.parse_args()
    train, test = (read(path, Task.roles, Task.row) for path in (given.train, given.test))
    twice = {place for place, _ in overlap(train, test, Task.key)}
    rng = np.random.default_rng(0)
    learned = [train.items[place] for place in rng.permutation(len(train))[:given.texts]]
    asked = [test.items[place] for place in rng.permutation(len(test)) if place not in twice][:given.tested]
    outcomes = compare(contenders(learned, given.encoder, tuple(given.words), given.epochs), learned, [], asked,
                       lambda sentence: print(sentence, file=sys.stderr, flush=True))
    print(f"{len(learned)} texts to learn from, {len(asked)} to test on; {torch.get_num_threads()} threads.\n")
    print(markdown(outcomes, len(asked)))


if __name__ == "__main__":
    main()
