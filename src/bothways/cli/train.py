"""Train one model on your text, for a budget of time, tokens, FLOPs or steps.

    bothways train --corpus python-library --objective masked --budget 30s --out run

Called again with the same options it goes on where it was stopped. A recipe (YAML) holds any choice; options given
here come before it, and --set reaches every key:

    bothways train --recipe recipes/masked.yaml --budget 30s --set model.dropout=0.1 --out run

A model that is there goes on, on text of another kind or by another objective (causal to masked and back):

    bothways train --from run/model --corpus python-library --objective masked --budget 30s --out other

It then learns at lower rates than a new one, which are printed, and can be set: --set matrix_rate=0.02 other_rate=8e-3
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

if TYPE_CHECKING:
    from bothways.training import Run
    from bothways.training.recipe import Recipe


GOING_ON = {"matrix_rate": 0.01, "other_rate": 2e-3}
"""Learning rates of a model that is there already, at most: those of a new one learned another text no further, and
forgot more of what it knew (docs/log.md, `benchmarks/going_on.py`)."""


@dataclass(frozen=True)
class Options:
    """What `bothways train` takes; what is left out comes from the recipe, then from a size that fits the budget."""

    corpus: str | None = None
    """The text: a file, folder or glob (.txt, .md, .jsonl, .csv, .parquet, .gz), - for standard input, python-library,
    or hf:NAME."""
    objective: str | None = None
    """next-token, masked, masked-next, span-corruption, denoising, diffusion, a mixture such as
    '0.5 next-token + 0.5 masked-next', with options as in 'masked(rate=0.3)', or mine.py:Mine."""
    budget: str | None = None
    """For instance 10min, 2M tokens, 1e14 flops, 500 steps."""
    out: str = "run"
    """The run's folder; the trained model is written to its model/."""
    start: Annotated[str | None, tyro.conf.arg(name="from", metavar="FOLDER")] = None
    """Go on from the model in this folder (ours, or of any known family) with its tokenizer, which gets the reserved
    tokens that the objective needs; at lower learning rates than a new one, if none are chosen."""
    recipe: str | None = None
    """A YAML file of choices."""
    set: Annotated[tuple[str, ...], tyro.conf.arg(metavar="KEY=VALUE ...")] = ()
    """Any key of a recipe."""
    field: str | None = None
    """The field of JSON lines, CSV or Parquet that holds the text."""
    tokenizer: str | None = None
    """bpe, wordpiece, unigram or bytes, or a folder that holds a tokenizer."""
    vocabulary: int | None = None
    """Tokens of a tokenizer that is trained."""
    window: int | None = None
    """Tokens of a window."""
    limit_bytes: int | None = None
    """Read no more text than this."""
    width: int | None = None
    """Width of the network."""
    layers: int | None = None
    """Layers of the network, of both towers together if there are two."""
    heads: int | None = None
    """Attention heads."""
    batch_tokens: int | None = None
    """Tokens of text a step reads."""
    optimizer: Literal["muon", "adamw"] | None = None
    """Muon for the matrices and AdamW for the rest, or AdamW for all."""
    precision: Literal["auto", "float32", "bfloat16"] | None = None
    """auto is bfloat16 where the processor has it."""
    device: str | None = None
    """auto, cpu, cuda."""
    seed: int | None = None
    """Of first weights, order, noise and dropout."""
    threads: int | None = None
    """Of the processor; a run repeats to the bit with the same number."""
    tensorboard: bool = False
    """Also write event files, to OUT/tensorboard."""


def run(options: Options) -> int:
    """Prepare the text, train, and say what came of it."""
    import sys

    from bothways.errors import BothwaysError

    # 1. what is asked for, all mistakes at once, before anything is read or written
    recipe = _recipe(options)
    if recipe.text.corpus is None:
        raise BothwaysError("no text to train on: name it with --corpus (a file, folder, python-library, ...)")
    from bothways import objectives
    from bothways.batch import RESERVED_TOKENS, Vocabulary

    any_text = Vocabulary.plain(len(RESERVED_TOKENS) + 1)
    objectives.make(recipe.objective, replace(any_text, ends_sentence=~any_text.special, capital=~any_text.special))
    # 2. text
    from bothways.training import TensorBoard, begin, train, vacant

    out = Path(options.out)
    vacant(out)
    begun = None if recipe.start is None else begin(recipe.start, recipe.objective)
    if begun is not None:
        recipe = replace(recipe, model=begun.config)
        muon = f"{recipe.matrix_rate:g} for matrices, " if recipe.optimizer == "muon" else ""
        print(f"going on   from {recipe.start}, learning rates {muon}{recipe.other_rate:g} for the rest",
              file=sys.stderr, flush=True)
    prepared = _prepare(recipe, out, begun)
    # 3. train
    watchers = [TensorBoard(out / "tensorboard")] if options.tensorboard else []
    result = train(recipe.training, prepared, out, watchers=watchers, threads=options.threads, show=True)
    # 4. what came of it
    print(_summary(result, prepared))
    return 0


def _recipe(options: Options) -> Recipe:
    """The recipe file with the options over it, and under it a size that fits the budget."""
    from bothways.training import recipe as recipes

    groups: dict[str, dict[str, Any]] = {
        "": {name: getattr(options, name) for name in ("objective", "budget", "batch_tokens", "optimizer", "precision",
                                                       "device", "seed", "start")},
        "text": {name: getattr(options, name) for name in ("corpus", "field", "tokenizer", "vocabulary", "window",
                                                           "limit_bytes")},
        "shape": {name: getattr(options, name) for name in ("width", "layers", "heads")}}
    given = {group: {name: value for name, value in values.items() if value is not None}
             for group, values in groups.items()}
    layer = {**given[""], "text": given["text"], "model": {"shape": given["shape"]}}
    # the budget decides the size, so it is read first; mistakes anywhere are reported by this reading
    first = recipes.compose(options.recipe, layer, settings=options.set)
    if first.start is not None:
        _only_from(first)
    under = _size(first, options.threads)
    if first.start is not None:
        under |= {name: min(rate, under[name]) for name, rate in GOING_ON.items()}
    return recipes.compose(options.recipe, layer, settings=options.set, under=under)


def _only_from(recipe: Recipe) -> None:
    """Refuse choices of a network or a tokenizer beside a model that brings both."""
    from bothways.errors import BothwaysError
    from bothways.model import ModelConfig
    from bothways.training.recipe import Text

    chosen = (["model"] * (recipe.model != ModelConfig())
              + ["text.tokenizer"] * (recipe.text.tokenizer != Text.tokenizer))
    if chosen:
        raise BothwaysError(f"--from {recipe.start} brings its own network and tokenizer, but {' and '.join(chosen)} "
                            f"{'is' if len(chosen) == 1 else 'are'} chosen too: leave one of them out")


def _size(recipe: Recipe, threads: int | None) -> dict[str, Any]:
    """A network, vocabulary and batch for this budget, as the study of sizes has them."""
    import torch

    from bothways.study import plan, sizes
    from bothways.training import find

    device = find("auto", recipe.device).device.type
    amount = plan.flops_of(recipe.allowance, threads or torch.get_num_threads(), device)
    size = sizes.choose("text", amount)
    return {"model": {"shape": {"width": size.width, "layers": size.layers, "heads": size.heads},
                      "position": {"length": max(1024, 2 * recipe.text.window)}},
            "text": {"vocabulary": size.vocabulary, "window": size.window}, "batch_tokens": size.batch_tokens,
            "matrix_rate": size.matrix_rate, "other_rate": size.other_rate, "weight_decay": size.weight_decay,
            "keep_memory": True}


def _prepare(recipe: Recipe, out: Path, begun: Any = None) -> Any:
    """The corpus as windows, in the run's folder; made before, it is used again."""
    import sys

    from bothways.text.prepare import prepare
    from bothways.text.tokenizer import Tokenizer, TokenizerConfig
    from bothways.training.budget import count

    text = recipe.text
    kinds = ("bpe", "wordpiece", "unigram", "bytes")
    if begun is not None:
        tokenizer: Any = begun.tokenizer
    elif text.tokenizer in kinds:
        tokenizer = TokenizerConfig(text.tokenizer, text.vocabulary)  # type: ignore[arg-type]
    else:
        tokenizer = Tokenizer.load(text.tokenizer)
    assert text.corpus is not None
    with _waiting(f"text       reading {text.corpus}"):
        prepared = prepare(text.corpus, out / "text", tokenizer=tokenizer, window=text.window, held_out=text.held_out,
                           field=text.field, limit_bytes=text.limit_bytes, smoothing=text.smoothing, cut=text.cut)
    train, valid = prepared.train, prepared.valid
    print(f"text       {count(train.tokens)} tokens in {len(train):,} windows of {text.window}, "
          f"{train.bytes / max(1, train.tokens):.2f} bytes a token; {count(valid.tokens)} tokens held out",
          file=sys.stderr, flush=True)
    return prepared


@contextlib.contextmanager
def _waiting(words: str) -> Iterator[None]:
    """Say what goes on; on a terminal with the seconds it has taken, until it is done."""
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    screen = Console(stderr=True)
    if not screen.is_terminal:
        screen.print(words, markup=False, soft_wrap=True)
        yield
        return
    with Progress(TextColumn("{task.description}"), SpinnerColumn(), TimeElapsedColumn(), console=screen,
                  transient=True) as progress:
        progress.add_task(words)
        yield


def _summary(result: Run, prepared: Any) -> str:
    from bothways.training import Cost

    held = "" if result.held_out is None else f", held-out loss {result.held_out['loss']:.3f} nats"
    cost = Cost(result.steps, result.tokens, result.flops, result.seconds)
    return f"done       {cost}: loss {result.loss:.3f}{held}\nmodel      {result.model}"
