"""A Picture on the console: rows look, columns are looked at, a block means *may see*."""

from __future__ import annotations

import numpy as np
from rich.text import Text

from bothways.pictures.visibility import Asked, Picture, Side

SELF, ACROSS = "cyan", "magenta"
HIDDEN, ASKED, QUIET = "bold yellow", "bold green", "bright_black"
LABELLED = 40
"""More columns than this are drawn without labels, two rows to a line of half blocks."""


def draw(picture: Picture, columns: int | None = None) -> Text:
    """The grids with the tokens beside them and, at the right, what each row is asked for.

    Many tokens are drawn small; and where not even that fits into so many `columns`, a line says so.
    """
    labels = [label for side in picture.sides for label in side.labels]
    width = min(14, max((len(label) for label in labels), default=0))
    if columns is not None and picture.widest > columns:
        return Text(f"{picture.widest} tokens do not fit into {columns} columns: write the picture into a file\n",
                    style=QUIET)
    if picture.widest > LABELLED or (columns is not None and 2 * picture.widest + width + 9 > columns):
        return _small(picture)
    out = Text(no_wrap=True, overflow="crop")
    for number, side in enumerate(picture.sides):
        if number:
            out.append("\n")
        out.append_text(_header(picture, number, width))
        for place in range(len(side.labels)):
            if place in side.boundaries():
                out.append("\n")
            out.append_text(_row(picture, number, place, width))
    return out


def _columns(picture: Picture, row: int) -> list[int]:
    """The sides that this side's rows have columns for; a source keeps to itself."""
    return [column for column in range(len(picture.sides)) if (row, column) in picture.seen]


def _header(picture: Picture, row: int, width: int) -> Text:
    """Column numbers, the names of the sides above them when there are two."""
    out = Text()
    margin = " " * (width + 5)
    if len(picture.sides) > 1:
        names = [_cut(picture.sides[column].name, 2 * len(picture.sides[column].labels))
                 .ljust(_span(picture.sides[column])) for column in _columns(picture, row)]
        out.append(margin + "  ".join(names).rstrip() + "\n", style="bold")
    numbers = []
    for column in _columns(picture, row):
        side = picture.sides[column]
        numbers.append("".join((" " if place in side.boundaries() else "") + f" {place % 10}"
                               for place in range(len(side.labels))))
    return out.append(margin + "  ".join(numbers) + "\n", style=QUIET)


def _span(side: Side) -> int:
    """Characters a side's columns take."""
    return 2 * len(side.labels) + len(side.boundaries())


def _row(picture: Picture, row: int, place: int, width: int) -> Text:
    """One token: its number and name, whom it sees, what it is asked for."""
    side = picture.sides[row]
    out = Text()
    out.append(f"{place:>3} ", style=QUIET)
    out.append(_cut(side.labels[place], width).ljust(width) + " ", style=HIDDEN if place in side.hidden else "")
    for first, column in enumerate(_columns(picture, row)):
        if first:
            out.append("  ")
        seen = picture.seen[row, column][place]
        for key in range(len(seen)):
            if key in picture.sides[column].boundaries():
                out.append(" ")
            out.append("██" if seen[key] else " ·", style=(SELF if row == column else ACROSS) if seen[key] else QUIET)
    if place in side.asked:
        out.append("  → ", style=QUIET)
        out.append(", ".join(map(asked_words, side.asked[place])), style=ASKED)
    return out.append("\n")


def asked_words(asked: Asked) -> str:
    """The token a row must predict, with its weight where that is not 1."""
    return asked.token if asked.weight == 1 else f"{asked.token} ×{asked.weight:.3g}"


def _small(picture: Picture) -> Text:
    """Grids of many tokens: two rows to a line, one character a column."""
    out = Text(no_wrap=True, overflow="crop")
    blocks = {(False, False): "·", (True, False): "▀", (False, True): "▄", (True, True): "█"}
    for row in range(len(picture.sides)):
        grids = [picture.seen[row, column] for column in _columns(picture, row)]
        if len(picture.sides) > 1:
            out.append(f"{picture.sides[row].name} ({len(picture.sides[row].labels)} tokens)\n", style="bold")
        for first in range(0, len(grids[0]), 2):
            for number, (column, seen) in enumerate(zip(_columns(picture, row), grids, strict=True)):
                upper = seen[first]
                lower = seen[first + 1] if first + 1 < len(seen) else np.zeros_like(upper)
                line = "".join(blocks[bool(a), bool(b)] for a, b in zip(upper, lower, strict=True))
                out.append(("  " if number else "") + line, style=SELF if row == column else ACROSS)
            out.append("\n")
    return out


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[:max(0, width - 1)] + "…"
