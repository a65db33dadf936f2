"""Draw who may look at whom, what one objective makes of a text, or where trained networks looked.

    bothways see causal
    bothways see "prefix & same_document" --length 12
    bothways see --objective span-corruption "The cat sat on the mat"
    bothways see --attention runs/causal/model,runs/masked/model "The cat sat on the mat" --out looks.svg
    bothways see --attention runs/masked/model "The cat sat on the mat" --explain cat
    bothways see --list
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from bothways.aside import replacing
from bothways.errors import BothwaysError

if TYPE_CHECKING:
    from bothways.objectives.base import Objective
    from bothways.text.tokenizer import Tokenizer

WORDS = "The old cat sat down . It was warm in there . Soon it slept ."
OTHER = "Rain fell all night. The river rose."
"""A second document, for objectives that want one."""
QUESTION = "What happened?"
"""What a text without a question answers, for objectives that learn answers."""
TEXT = "The cat sat on the mat. It was warm. Soon it slept."


@dataclass(frozen=True)
class Options:
    """What to draw."""

    what: Annotated[tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="VISIBILITY or TEXT")] = ()
    """A visibility, such as "causal & window(4, 0)"; with --objective, a text."""
    objective: str | None = None
    """Draw what this objective makes of a text: masked, "masked(rate=0.3)", "next-token + masked-next", mine.py:My."""
    length: int | None = None
    """How many tokens a visibility is drawn over (12)."""
    seed: int = 0
    """Another seed draws other noise."""
    progress: float = 0.0
    """How far training is, from 0 to 1, for schedules and phases."""
    model: Path | None = None
    """Use the tokenizer of this model folder; words, when none is given."""
    attention: str | None = None
    """Draw the attention of trained models (folders, with commas between them) while they read the text."""
    explain: str | None = None
    """With --attention: draw instead which tokens this word of the text hangs on, by integrated gradients."""
    out: Path | None = None
    """Also write the picture here, as .svg or .html."""
    show_list: Annotated[bool, tyro.conf.arg(name="list")] = False
    """List every objective and visibility, one a line."""


def run(options: Options) -> int:
    """Draw on the console, and into a file where one is named."""
    from rich.console import Console

    # 1. check the call
    console = Console(highlight=False, soft_wrap=True)
    if options.show_list:
        _print_list(console)
        return 0
    if options.out is not None and options.out.suffix not in (".svg", ".html"):
        raise BothwaysError(f"--out {options.out}: a picture is written as .svg or .html")
    if options.out is not None and not options.out.absolute().parent.is_dir():
        raise BothwaysError(f"--out {options.out}: there is no folder {options.out.parent}")
    if options.length is not None and not 1 <= options.length <= 512:
        raise BothwaysError(f"--length {options.length}: a picture has 1 to 512 tokens")
    if options.explain is not None and options.attention is None:
        raise BothwaysError("--explain needs a trained model: name its folder with --attention")
    # 2. draw
    if options.attention is not None:
        from bothways.cli.looking import draw

        drawn = draw([part for part in options.attention.split(",") if part], " ".join(options.what) or TEXT,
                     options.explain, console)
        pictures = [(drawn, drawn)]
    elif options.objective is not None:
        pictures = _examples(options, console)
    elif options.what:
        pictures = _visibility(options, console)
    else:
        raise BothwaysError("say what to draw: a visibility, such as `bothways see causal`, or --objective and a text; "
                            "`bothways see --list` shows them all")
    # 3. write
    if options.out is not None:
        _write(options.out, pictures)
        console.print(f"written to {options.out}", style="bright_black")
    return 0


def _visibility(options: Options, console: Console) -> list[tuple[str, str]]:
    """A visibility over fields made up to show it; returns its (SVG, HTML)."""
    from bothways.pictures import console as text
    from bothways.pictures import svg
    from bothways.pictures.expression import read
    from bothways.pictures.visibility import demo_fields, of_visibility

    if len(options.what) > 2:
        raise BothwaysError(f"a visibility is one argument, so put it in quotes: \"{' '.join(options.what)}\"")
    visibility = read(options.what[0])
    labels = _labels(options)
    fields = demo_fields(len(labels))
    picture = of_visibility(visibility, fields, labels)
    console.print(picture.title, style="bold")
    for field, words in _FIELD_WORDS.items():
        if field in visibility.needs:
            console.print(f"  {words}: {_told(field, fields[field].tolist(), labels)}", style="bright_black")
    console.print("a row looks, a column is looked at\n", style="bright_black")
    console.print(text.draw(picture, console.width if console.is_terminal else None), end="")
    share = float(picture.seen[0, 0].mean())
    console.print(f"\n{share:.0%} of all pairs are seen", style="bright_black")
    drawn = svg.draw(picture)
    return [(drawn, drawn)]


_FIELD_WORDS = {"prefix": "the prefix", "document": "the documents", "rank": "the order", "part": "part 1",
                "block": "the blocks", "global": "global", "valid": "padding"}


def _told(field: str, values: list[int], labels: list[str]) -> str:
    """The demo value of a field in terms of the tokens."""
    if field in ("prefix", "part", "global"):
        return " ".join(label for label, value in zip(labels, values, strict=True) if value)
    if field == "valid":
        return " ".join(label for label, value in zip(labels, values, strict=True) if not value)
    if field == "rank":
        return " ".join(labels[place] for place in sorted(range(len(labels)), key=values.__getitem__))
    return " | ".join(" ".join(label for label, value in zip(labels, values, strict=True) if value == document)
                      for document in sorted(set(values)))


def _labels(options: Options) -> list[str]:
    """The tokens a visibility is drawn over: the given text's, or words of ours."""
    if len(options.what) > 1:
        tokenizer = _tokenizer(options, options.what[1])
        labels = list(tokenizer.pieces(tokenizer.encode(options.what[1])))[:options.length]
        if not labels:
            raise BothwaysError("the text has no tokens: give at least one word")
        return labels
    words, length = WORDS.split(), options.length or 12
    return [words[i] if i < len(words) else str(i) for i in range(length)]


def _examples(options: Options, console: Console) -> list[tuple[str, str]]:
    """One Example of the objective; of a mixture, one of each member. Returns each one's (SVG, HTML)."""
    import numpy as np

    from bothways.objectives import Mixture, make
    from bothways.objectives.options import need_sentences
    from bothways.pictures import example as story
    from bothways.pictures import svg
    from bothways.pictures.visibility import of_example

    text = " ".join(options.what) if options.what else TEXT
    tokenizer = _tokenizer(options, text)
    if len(tokenizer.encode(text)) < 2:
        raise BothwaysError("the text has fewer than 2 tokens: give a few words, such as \"The cat sat on the mat\"")
    # the words of what stands beside the text are there only where something does
    objective = make(str(options.objective), _tokenizer(options, f"{text} {OTHER} {QUESTION}").vocabulary)
    if objective.reads_turns and "<sep>" not in text:
        text = f"{QUESTION} <sep> {text}"
    tokenizer = _tokenizer(options, f"{text} {OTHER}" if objective.reads_another else text)
    objective = make(str(options.objective), tokenizer.vocabulary)
    if objective.needs_sentences:
        need_sentences(objective.name, tokenizer.vocabulary, [np.array([*tokenizer.encode(text), 0])])
    if isinstance(objective, Mixture) and len(objective.members) > 1 and options.out and options.out.suffix == ".svg":
        raise BothwaysError(f"--out {options.out}: a mixture has one picture a member and an .svg holds one, so write "
                            ".html")
    pictures = []
    for heading, shown, example in _drawn(objective, tokenizer, text, options):
        if heading:
            console.print(heading, style="bold")
        console.print(story.console(example, tokenizer.pieces, shown))
        title = f"{shown.name}: {shown.summary}"
        pictures.append((svg.draw(of_example(example, tokenizer.pieces, title, shown)),
                         story.html(example, tokenizer.pieces, shown)))
    return pictures


def _drawn(objective: Objective, tokenizer: Tokenizer, text: str, options: Options):  # type: ignore[no-untyped-def]
    """(heading, objective, Example) of each member of a mixture, or of the objective itself."""
    import numpy as np

    from bothways.batch import Key, Window
    from bothways.objectives import Mixture

    vocabulary = tokenizer.vocabulary
    ids = np.array([vocabulary.bos, *tokenizer.encode(text)[:510], vocabulary.eos], dtype=np.int64)
    other = np.array([vocabulary.bos, *tokenizer.encode(OTHER), vocabulary.eos], dtype=np.int64)
    window = Window(ids, other=Window(other, document=1) if objective.reads_another else None)
    key = Key(options.seed, 0, 0, options.progress)
    if not isinstance(objective, Mixture):
        yield "", objective, objective.corrupt(window, key)
        return
    for name, share, member in zip(objective.names, objective.shares, objective.members, strict=True):
        words = "of the windows" if objective.by == "proportion" else "of training"
        yield f"{name}, {share:.0%} {words}", member.objective, member.objective.corrupt(window, key)


def _tokenizer(options: Options, text: str) -> Tokenizer:
    """The model's tokenizer, or one of the text's own words."""
    from bothways.text.tokenizer import Tokenizer

    return Tokenizer.words(text) if options.model is None else Tokenizer.load(options.model)


def _print_list(console: Console) -> None:
    """Objectives and visibilities, one a line."""
    from bothways.objectives import known
    from bothways.pictures.expression import FORMS
    from bothways.pictures.visibility import sentence
    from bothways.visibility import NAMED

    console.print("objectives, oldest first (bothways see --objective NAME)", style="bold")
    for name, kind in known().items():
        options = ", ".join(kind.option_names())
        console.print(f"  {name:<18} {kind.summary}" + (f" [{options}]" if options else ""), markup=False)
    console.print("\nvisibilities (bothways see NAME; join them with & and |)", style="bold")
    for name, value in NAMED.items():
        console.print(f"  {name:<18} {sentence(value)}", markup=False)
    for form, words in FORMS.items():
        console.print(f"  {form:<18} {words}", markup=False)


def _write(path: Path, pictures: list[tuple[str, str]]) -> None:
    """All pictures in one file, written aside and then renamed."""
    content = pictures[0][0] if path.suffix == ".svg" else (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="color-scheme" content="light dark">'
        "<title>bothways see</title><style>body { margin: 2em; max-width: 70em }</style></head><body>"
        + "\n".join(html for _, html in pictures) + "</body></html>\n")
    with replacing(path) as aside:
        aside.write_text(content, encoding="utf-8")


if TYPE_CHECKING:
    from rich.console import Console
