"""Write on from a prompt, with any trained model; text appears as it is written.

    bothways generate run/model "Once upon a time" --max-new-tokens 40

A prompt of - is read from standard input. Which decoding writes is up to the model's objective: left to right where it
looks left, by filling blanks (--steps, --block) where it looks both ways. A model trained both ways is asked for one:

    bothways generate run/model "Once upon a time" --visibility causal --temperature 0.8 --top-p 0.9

A model trained on questions and answers (instruct, pairs) answers the prompt; what it thinks first can be limited and
left out:

    bothways generate run/model "What is 2 + 2?" --think-tokens 50 --hide-thought

A model with a chat template is told who speaks:

    bothways generate models/smollm2 "What is the capital of France?" --chat

The likeliest text that a search finds, or one of a given form (pip install 'bothways[structured]'):

    bothways generate run/model "Once upon a time" --beams 4 --samples 2
    bothways generate run/model "Yes or no?" --choices yes no
    bothways generate run/model "The year" --regex "[0-9]{4}"

Faster, and the same text: tokens that stood before are proposed again, or a smaller model proposes them:

    bothways generate run/model "Once upon a time" --lookup 3
    bothways generate run/model "Once upon a time" --draft small/model

Faster on the CPU, and approximately the same text: weights of fewer bits:

    bothways generate run/model "Once upon a time" --weights int8

How the text came to be, one line a step:

    bothways generate run/model "Once upon a time" --show-steps
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro


@dataclass(frozen=True)
class Options:
    """Which model writes, after what, and how."""

    folder: tyro.conf.Positional[Path]
    """The model folder, or a run's folder."""
    prompt: tyro.conf.Positional[str] = ""
    """The text to continue; nothing begins a text, - reads standard input."""
    max_new_tokens: int = 64
    """The most tokens to write."""
    temperature: float = 0.0
    """0 takes the likeliest token each time; 1 draws from the model's own distribution."""
    top_k: int | None = None
    """Draw from the k likeliest tokens only."""
    top_p: float | None = None
    """Draw from the likeliest tokens that together reach this probability."""
    min_p: float | None = None
    """Draw from tokens at least this share as likely as the likeliest."""
    typical_p: float | None = None
    """Draw from the tokens of the most typical surprise that together reach this probability."""
    repetition_penalty: float = 1.0
    """Above 1 makes tokens that stand in the text already less likely."""
    frequency_penalty: float = 0.0
    """Taken from a token's score for each time it was written."""
    presence_penalty: float = 0.0
    """Taken from a token's score once it was written."""
    no_repeat_ngram: int | None = None
    """No sequence of so many tokens is written twice."""
    logit_bias: tuple[str, ...] = ()
    """ID=VALUE: what is added to the score of a token, -inf for never."""
    stop: tuple[str, ...] = ()
    """Strings that end the text."""
    seed: int = 0
    """Another seed draws another text."""
    samples: int = 1
    """How many texts, with seeds one after the other; with beams the best so many."""
    beams: int = 1
    """Above 1 searches with so many beginnings for the likeliest text."""
    beam_groups: int = 1
    """Groups of beams that avoid each other's tokens."""
    diversity: float = 0.0
    """How much groups avoid each other."""
    length_penalty: float = 1.0
    """Texts are compared by log probability / length ** this."""
    early_stopping: Literal["yes", "no", "never"] = "no"
    """When a search ends: with its first texts, when no better one is likely, or when none can come."""
    force: tuple[str, ...] = ()
    """Strings that must stand in the text (with beams); A|B for one of several."""
    contrast: float = 0.0
    """Above 0, with --top-k, takes a likely token that is unlike the text so far (contrastive search)."""
    draft: Path | None = None
    """The folder of a smaller model with the same tokenizer, which proposes tokens."""
    draft_tokens: int = 4
    """Tokens that are proposed at a time."""
    lookup: int | None = None
    """Propose what followed the last tokens, at most so many, where they stood before."""
    regex: str | None = None
    """The text matches this regular expression."""
    json_schema: str | None = None
    """The text is JSON of this schema: a file, or the schema itself."""
    choices: tuple[str, ...] = ()
    """The text is one of these."""
    grammar: Path | None = None
    """The text belongs to the grammar in this file, in Lark's notation."""
    cache_numbers: Literal["exact", "int8"] = "exact"
    """int8 keeps keys and values in a quarter of the memory, not exactly."""
    truncate: Literal["left", "right"] | None = None
    """Which side of a prompt is cut that is longer than the network's places; refused when none."""
    visibility: str | None = None
    """The name of a trained mode, for a model with several."""
    steps: int | None = None
    """Passes over a block, for models that fill many places at once."""
    block: int | None = None
    """Places filled at once; all of them when none."""
    order: str | None = None
    """Which places such a model writes first: confidence, entropy, margin, random or left_to_right."""
    decoding: Literal["mask_predict", "diffusion", "gibbs"] | None = None
    """Another way to fill than such a model's own."""
    guidance: float = 0.0
    """Above 0 such a model leans harder on the prompt, at two passes a step."""
    prefix_cache: bool = False
    """Let such a model read the text before a block once, which is faster and not exact."""
    show_steps: bool = False
    """Play how the text came to be."""
    think_tokens: int | None = None
    """The most tokens of a thought, for a model that thinks before it answers; 0 lets it answer at once."""
    hide_thought: bool = False
    """Show the answer alone."""
    chat: bool = False
    """The prompt is what a user says, told as the folder's chat template says; the answer is shown."""
    weights: Literal["float32", "bfloat16", "int8", "int4"] | None = None
    """How the weights are read: int8 and int4 are faster on the CPU, and approximate; the file's own when none."""
    device: str | None = None
    """cpu, cuda, cuda:1."""
    verbose: bool = False
    """Also print how long it took, to standard error."""


def run(options: Options) -> int:
    """Load, write, print."""
    import itertools
    import sys
    import time

    import bothways
    from bothways.cli.steps import read_order, show
    from bothways.decoding import GenerateConfig
    from bothways.errors import BothwaysError

    if options.samples < 1:
        raise BothwaysError(f"--samples {options.samples}: at least 1 text is written")
    if options.chat and (options.beams > 1 or options.show_steps or options.draft or options.visibility):
        raise BothwaysError("an answer to --chat is streamed: leave --beams, --show-steps, --draft and "
                            "--visibility out")
    prompt = sys.stdin.read() if options.prompt == "-" else options.prompt
    model = bothways.from_pretrained(options.folder, device=options.device, weights=options.weights)
    how = {name: getattr(options, name) for name in (
        "temperature", "top_k", "top_p", "min_p", "typical_p", "stop", "repetition_penalty", "frequency_penalty",
        "presence_penalty", "no_repeat_ngram", "beams", "beam_groups", "diversity", "length_penalty", "early_stopping",
        "contrast", "draft_tokens", "lookup", "regex", "choices", "cache_numbers", "truncate", "decoding", "steps",
        "block", "guidance", "prefix_cache", "think_tokens", "hide_thought")}
    how["order"] = read_order(options.order)
    how |= _read(options)
    draft = None if options.draft is None else bothways.from_pretrained(
        options.draft, device=options.device, weights=options.weights)
    if options.beams > 1:
        texts = model.write([prompt], GenerateConfig(options.max_new_tokens, samples=options.samples, **how),
                            options.visibility)
        for number, new in enumerate(texts):
            if options.samples > 1:
                print(f"--- {number + 1} (score {new.score:.3f})")
            if options.show_steps:
                show(model, new, model.tokenizer.encode(prompt))
            else:
                print(prompt + ("\n" if model.objective.replies else "") + (new.text or ""))
        return 0
    for number in range(options.samples):
        begun, pieces, how["seed"] = time.perf_counter(), 0, options.seed + number
        if options.samples > 1:
            print(f"--- {number + 1} (seed {how['seed']})")
        if options.show_steps:
            (new,) = model.write([prompt], GenerateConfig(options.max_new_tokens, **how), options.visibility, draft)
            show(model, new, model.tokenizer.encode(prompt))
            continue
        text = (model.chat(prompt, options.max_new_tokens, stream=True, **how) if options.chat else
                model.generate(prompt, options.max_new_tokens, stream=True, visibility=options.visibility,
                               draft=draft, **how))
        # what cannot be done is refused with the first piece, before the prompt is repeated
        first = next(text, "")
        print(prompt, end="\n" if model.objective.replies or options.chat else "", flush=True)
        for piece in itertools.chain((first,), text):
            pieces += len(piece)
            print(piece, end="", flush=True)
        print()
        if options.verbose:
            seconds = time.perf_counter() - begun
            print(f"{pieces} characters in {seconds:.2f} s, {pieces / seconds:.0f} a second", file=sys.stderr)
    return 0


def _read(options: Options) -> dict[str, object]:
    """What is written in a shorter way than the library wants it."""
    from bothways.errors import BothwaysError

    bias = {}
    for pair in options.logit_bias:
        token, _, value = pair.partition("=")
        try:
            bias[int(token)] = float(value)
        except ValueError:
            raise BothwaysError(f"--logit-bias '{pair}' is not ID=VALUE, such as 50=-inf") from None
    schema = options.json_schema
    try:
        if schema is not None and not schema.lstrip().startswith(("{", "true", "false")):
            schema = Path(schema).read_text(encoding="utf-8")
        grammar = None if options.grammar is None else options.grammar.read_text(encoding="utf-8")
    except OSError as error:
        raise BothwaysError(f"cannot read '{error.filename}': {error.strerror}") from None
    force = tuple(tuple(one.split("|")) for one in options.force)
    return {"logit_bias": bias, "json_schema": schema, "grammar": grammar, "force": force}
