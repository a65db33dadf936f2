"""A Picture as SVG: one self-contained string with its own paper, legible on light and dark pages alike."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from html import escape

from bothways.pictures.console import asked_words
from bothways.pictures.visibility import Picture, Side

CELL, GAP, PAD, LETTER = 20, 18, 18, 7.1
"""Pixels: of a cell, between sides and documents, around the picture, and the width of a letter of a label."""
SMALLEST = 4
LABELLED = 64
"""More tokens than this on one axis are drawn small and without labels."""
DOCUMENT_GAP = 5
NARROWEST = 300
"""Room for the legend; longer words above the grids are broken into lines."""
STYLE = """
.bw-picture { font: 12px ui-monospace, SFMono-Regular, Menlo, Consolas, monospace }
.bw-picture .paper { fill: #ffffff; stroke: #d8dee6 }
.bw-picture text { fill: #334155 }
.bw-picture .title { fill: #0f172a; font: 600 14px system-ui, sans-serif }
.bw-picture .note { fill: #64748b; font: 12px system-ui, sans-serif }
.bw-picture .no { fill: #eef1f5 }
.bw-picture .own { fill: #2a78b8 }
.bw-picture .across { fill: #8a5cc2 }
.bw-picture .hidden { fill: #b45309; font-weight: 700 }
.bw-picture .asked { fill: #15803d; font-weight: 700 }
@media (prefers-color-scheme: dark) {
.bw-picture .paper { fill: #131a24; stroke: #2a3646 }
.bw-picture text { fill: #cbd5e1 }
.bw-picture .title { fill: #f1f5f9 }
.bw-picture .note { fill: #94a3b8 }
.bw-picture .no { fill: #212b3a }
.bw-picture .own { fill: #4aa3e0 }
.bw-picture .across { fill: #a98be0 }
.bw-picture .hidden { fill: #f5b14c }
.bw-picture .asked { fill: #5fd08a }
}
"""


def draw(picture: Picture) -> str:
    """The whole picture, title first: rows look, columns are looked at, a filled cell means *may see*."""
    layout = _Layout(picture)
    parts = [*_title(layout)]
    for row, column in sorted(picture.seen):
        parts += _grid(picture, layout, row, column)
    if layout.labelled:
        for number in range(len(picture.sides)):
            parts += _row_labels(picture, layout, number)
            parts += _column_labels(picture, layout, number)
    parts += _legend(picture, layout)
    width, height = round(layout.width), round(layout.height)
    return (f'<svg xmlns="http://www.w3.org/2000/svg" class="bw-picture" viewBox="0 0 {width} {height}" '
            f'width="{width}" height="{height}" role="img" aria-label="{escape(picture.title, quote=True)}">'
            f"<style>{STYLE}</style>"
            f'<rect class="paper" x="0.5" y="0.5" width="{width - 1}" height="{height - 1}" rx="8"/>'
            + "".join(parts) + "</svg>")


def beside(pictures: Sequence[Picture], gap: int = 12) -> str:
    """Several pictures in one SVG, from left to right."""
    drawings = [draw(picture) for picture in pictures]
    layouts = [_Layout(picture) for picture in pictures]
    parts, x = [], 0
    for drawing, layout in zip(drawings, layouts, strict=True):
        parts.append(drawing.replace("<svg ", f'<svg x="{x}" y="0" ', 1))
        x += round(layout.width) + gap
    width, height = x - gap, max(round(layout.height) for layout in layouts)
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">'
            + "".join(parts) + "</svg>")


class _Layout:
    """Where everything stands, in pixels."""

    def __init__(self, picture: Picture) -> None:
        sides = picture.sides
        longest = max(len(side.labels) for side in sides)
        self.labelled = longest <= LABELLED
        self.cell = CELL if self.labelled else max(SMALLEST, CELL * LABELLED // (2 * longest))
        # 1. room for labels: at the left, above the columns (slanted), and at the right for what is asked
        letters = max((len(label) for side in sides for label in side.labels), default=0) if self.labelled else 0
        asked = [", ".join(map(asked_words, words)) for side in sides for words in side.asked.values()]
        answers = max(map(len, asked), default=0) if self.labelled else 0
        self.left = PAD + (letters * LETTER + 10 if letters else 0)
        slant = letters * LETTER * 0.72
        self.above = (slant + 12 if letters else 6) + (16 if len(sides) > 1 else 0)
        # 2. the width: of the grids, of what is asked beside them, and of the words above
        self.lefts = [self.left + sum(self.extent(side) + GAP for side in sides[:number])
                      for number in range(len(sides))]
        self.answers = self.lefts[-1] + self.extent(sides[-1]) + 10
        drawn = self.answers + max(slant, answers * LETTER + 22 if answers else 0)
        self.width = max(drawn, PAD + NARROWEST) + PAD
        self.title = textwrap.wrap(picture.title, int((self.width - 2 * PAD) / 8.4))
        self.sentences = [line for sentence in picture.sentences
                          for line in textwrap.wrap(sentence, int((self.width - 2 * PAD) / 6.5))]
        # 3. the height
        self.top = PAD + 2 + 18 * (len(self.title) + len(self.sentences)) + 6
        self.tops: list[float] = []
        y = float(self.top)
        for side in sides:
            self.tops.append(y + self.above)
            y += self.above + self.extent(side)
        self.height = y + 34 + PAD / 2

    def extent(self, side: Side) -> float:
        """Pixels a side takes along an axis."""
        return len(side.labels) * self.cell + len(side.boundaries()) * DOCUMENT_GAP

    def along(self, side: Side, place: int) -> float:
        """Where a token begins on its axis."""
        return place * self.cell + sum(boundary <= place for boundary in side.boundaries()) * DOCUMENT_GAP


def _title(layout: _Layout) -> Iterator[str]:
    lines = [("title", line) for line in layout.title] + [("note", line) for line in layout.sentences]
    for number, (kind, line) in enumerate(lines):
        yield f'<text class="{kind}" x="{PAD}" y="{PAD + 12 + 18 * number}">{escape(line)}</text>'


def _grid(picture: Picture, layout: _Layout, row: int, column: int) -> Iterator[str]:
    """The cells; neighbours of one kind in a row are one rectangle when cells are small."""
    rows, columns, seen = picture.sides[row], picture.sides[column], picture.seen[row, column]
    inset = 1 if layout.cell >= 8 else 0
    for query in range(len(rows.labels)):
        y = layout.tops[row] + layout.along(rows, query)
        for first, last, value in _stretches(seen[query].tolist(), columns.boundaries(), split=inset > 0):
            x = layout.lefts[column] + layout.along(columns, first)
            width = layout.along(columns, last) - layout.along(columns, first) + layout.cell - inset
            kind = ("own" if row == column else "across") if value else "no"
            hint = f"<title>{escape(rows.labels[query])} {'sees' if value else 'does not see'} " \
                   f"{escape(columns.labels[first])}</title>" if first == last and layout.labelled else ""
            shape = (f'<rect class="{kind}" x="{x:g}" y="{y:g}" width="{width:g}" height="{layout.cell - inset}"'
                     f'{" rx=" + chr(34) + "3" + chr(34) if inset else ""}')
            yield f"{shape}>{hint}</rect>" if hint else f"{shape}/>"


def _stretches(values: list[bool], boundaries: list[int], split: bool) -> Iterator[tuple[int, int, bool]]:
    """(first, last, value) of runs of equal cells, cut at document boundaries; single cells when `split`."""
    first = 0
    for place in range(1, len(values) + 1):
        if place == len(values) or split or values[place] != values[first] or place in boundaries:
            yield first, place - 1, values[first]
            first = place


def _row_labels(picture: Picture, layout: _Layout, number: int) -> Iterator[str]:
    """The tokens that look, at the left; what is asked of them, at the right."""
    side = picture.sides[number]
    for place, label in enumerate(side.labels):
        y = layout.tops[number] + layout.along(side, place) + layout.cell * 0.7
        yield (f'<text class="{"hidden" if place in side.hidden else "token"}" x="{layout.left - 8:g}" y="{y:g}" '
               f'text-anchor="end">{escape(label)}</text>')
        if place in side.asked:
            words = ", ".join(map(asked_words, side.asked[place]))
            yield f'<text class="asked" x="{layout.answers:g}" y="{y:g}">→ {escape(words)}</text>'


def _column_labels(picture: Picture, layout: _Layout, number: int) -> Iterator[str]:
    """The tokens that are looked at, slanted above the topmost grid of their column."""
    side = picture.sides[number]
    top = layout.tops[min(row for row, column in picture.seen if column == number)]
    if len(picture.sides) > 1:
        rows = {row for row, column in picture.seen if column == number}
        for row in sorted(rows):
            y = layout.tops[row] - (layout.above - 10 if row == min(rows) else 6)
            words = side.name if row == number else f"across at the {side.name}"
            yield f'<text class="note" x="{layout.lefts[number]:g}" y="{y:g}">{escape(words)}</text>'
    for place, label in enumerate(side.labels):
        x = layout.lefts[number] + layout.along(side, place) + layout.cell * 0.6
        yield (f'<text class="{"hidden" if place in side.hidden else "token"}" '
               f'transform="translate({x:g} {top - 5:g}) rotate(-45)">{escape(label)}</text>')


def _legend(picture: Picture, layout: _Layout) -> Iterator[str]:
    """What a colour means; rows look, columns are looked at."""
    y = layout.height - PAD - 6
    entries = [("own", "may see"), ("no", "may not")]
    if len(picture.sides) > 1:
        entries.insert(1, ("across", "may see across"))
    x = float(PAD)
    for kind, words in entries:
        yield f'<rect class="{kind}" x="{x:g}" y="{y - 10:g}" width="12" height="12" rx="3"/>'
        yield f'<text class="note" x="{x + 18:g}" y="{y:g}">{words}</text>'
        x += 18 + len(words) * 6.4 + 16
    asks = any(side.asked for side in picture.sides)
    words = "→ is asked of the row" if asks else "rows look at columns"
    yield f'<text class="note" x="{x:g}" y="{y:g}">{words}</text>'
