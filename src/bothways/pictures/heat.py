"""Attention and attributions as SVG: squares of weights for each layer, and a sentence coloured by what counted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from bothways.pictures.curves import PALETTE

GREY, CELL, LETTER = "#7c848c", 15, 6.7


@dataclass(frozen=True)
class Square:
    """One square: weights (L, L) whose rows look, and who may see whom (L, L)."""

    title: str
    weights: np.ndarray
    seen: np.ndarray


@dataclass(frozen=True)
class Strip:
    """A sentence whose words count by `scores` (L,); `note` stands behind the title."""

    title: str
    labels: Sequence[str]
    scores: np.ndarray
    note: str = ""


def attention(models: Sequence[tuple[str, Sequence[str], Sequence[Square]]]) -> str:
    """For each model (name, labels of its tokens, squares of its layers) a row of squares; what may not be seen is
    left open."""
    parts, y, wide = [], 8.0, 0.0
    for name, labels, squares in models:
        room = 10 + LETTER * max(map(len, labels))
        side = CELL * len(labels)
        parts.append(f'<text x="8" y="{y + 14}" style="font-weight:600">{escape(name)}</text>')
        top = y + 40 + room * 0.75
        for row, label in enumerate(labels):
            parts.append(f'<text x="{8 + room - 6:g}" y="{top + CELL * row + 11:g}" text-anchor="end">'
                         f"{escape(label)}</text>")
        for number, square in enumerate(squares):
            x = 8 + room + number * (side + 16)
            parts.append(f'<g transform="translate({x:g} {top:g})">{_square(square, labels)}</g>')
        wide = max(wide, 8 + room + len(squares) * (side + 16) + room * 0.6)
        y = top + side + 18
    return _page(wide, y, "".join(parts))


def attributions(strips: Sequence[Strip]) -> str:
    """Sentences, one a row: blue for what makes the answer likelier, orange for what makes it less likely."""
    parts, y, wide = [], 8.0, 0.0
    for strip in strips:
        parts.append(f'<text x="8" y="{y + 14}"><tspan style="font-weight:600">{escape(strip.title)}</tspan> '
                     f"{escape(strip.note)}</text>")
        most, x = float(np.abs(strip.scores).max(initial=0.0)) or 1.0, 8.0
        for label, score in zip(strip.labels, strip.scores, strict=True):
            room = 10 + LETTER * len(label)
            colour = PALETTE["blue" if score >= 0 else "orange"][0]
            parts.append(f'<rect x="{x:g}" y="{y + 22:g}" width="{room:g}" height="22" rx="3" fill="{colour}" '
                         f'opacity="{0.45 * abs(float(score)) / most:.2f}"><title>{float(score):+.3f}</title></rect>'
                         f'<text x="{x + room / 2:g}" y="{y + 37:g}" text-anchor="middle">{escape(label)}</text>')
            x += room + 2
        wide, y = max(wide, x, 8 + LETTER * (len(strip.title) + len(strip.note) + 2)), y + 58
    return _page(wide + 8, y, "".join(parts))


def _square(square: Square, labels: Sequence[str]) -> str:
    """Title, the words looked at, and the cells, which are as dark as the root of their weight."""
    size = len(labels)
    parts = [f'<text x="0" y="{-14 - LETTER * 0.72 * max(map(len, labels)):g}">{escape(square.title)}</text>']
    parts += [f'<text transform="translate({CELL * place + 11:g} -4) rotate(-50)">{escape(label)}</text>'
              for place, label in enumerate(labels)]
    for row in range(size):
        for column in range(size):
            at = f'x="{CELL * column}" y="{CELL * row}" width="{CELL - 1}" height="{CELL - 1}"'
            if not square.seen[row, column]:
                continue
            weight = float(square.weights[row, column])
            parts.append(f'<rect {at} fill="none" stroke="{GREY}" stroke-opacity="0.25"/>'
                         f'<rect {at} fill="{PALETTE["blue"][0]}" opacity="{math.sqrt(max(weight, 0.0)):.2f}">'
                         f"<title>{escape(labels[row])} looks at {escape(labels[column])}: {weight:.3f}</title></rect>")
    return "".join(parts)


def _page(width: float, height: float, inside: str) -> str:
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{width:g}" '
            f'height="{height:g}" role="img" style="font:11px ui-monospace,Menlo,monospace;fill:{GREY}">{inside}'
            "</svg>\n")
