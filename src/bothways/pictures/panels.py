"""Standing pictures of measured numbers as SVG: panels of lines with bands, and matrices of similarity."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from bothways.pictures.curves import PALETTE

STYLE = ("font:12px system-ui,sans-serif", "#7c848c")
LEFT, TOP, BOTTOM, GAP = 46, 34, 34, 26


@dataclass(frozen=True)
class Line:
    """A named line: (x, y) points, with the range of each point where it is known."""

    name: str
    points: Sequence[tuple[float, float]]
    band: Sequence[tuple[float, float]] = ()
    colour: str = "blue"
    dashed: bool = False


@dataclass(frozen=True)
class Panel:
    """One frame: lines over x, between `low` and `high`; `diagonal` draws y = x."""

    title: str
    lines: Sequence[Line]
    x_title: str
    low: float | None = None
    high: float | None = None
    diagonal: bool = False
    doubling: bool = False
    """Whether x is a power of two, and ticks say the number itself."""


def panels(frames: Sequence[Panel], across: int = 3, width: int = 250, height: int = 190) -> str:
    """Frames in rows, with one legend below for all names: an SVG readable on light and dark pages."""
    rows = -(-len(frames) // across)
    names = {line.name: line for frame in frames for line in frame.lines}
    full = min(across, len(frames)) * (width + LEFT + GAP)
    legend, taken = _legend(list(names.values()), rows * (height + TOP + BOTTOM) + 16, full)
    tall = rows * (height + TOP + BOTTOM) + 16 + taken
    parts = []
    for number, frame in enumerate(frames):
        x, y = number % across * (width + LEFT + GAP) + LEFT, number // across * (height + TOP + BOTTOM) + TOP
        parts.append(f'<g transform="translate({x} {y})">{_frame(frame, width, height)}</g>')
    return _page(full, tall, "".join(parts) + legend)


def matrix(labels: Sequence[str], values: Sequence[Sequence[float]], title: str, cell: int = 34,
           digits: int = 2) -> str:
    """A square of numbers between 0 and 1, darker where larger, as an SVG."""
    room = 8 + max(map(len, labels)) * 7
    size = len(labels) * cell
    parts = [f'<text x="0" y="16" style="font-weight:600">{escape(title)}</text>']
    for row, name in enumerate(labels):
        y = TOP + room + row * cell
        parts.append(f'<text x="{room - 6}" y="{y + cell / 2 + 4}" text-anchor="end">{escape(name)}</text>')
        parts.append(f'<text transform="translate({room + row * cell + cell / 2 + 4} {TOP + room - 6}) rotate(-60)">'
                     f'{escape(name)}</text>')
        for column, value in enumerate(values[row]):
            x = room + column * cell
            known = math.isfinite(value)
            parts.append(f'<rect x="{x}" y="{y}" width="{cell - 1}" height="{cell - 1}" fill="{PALETTE["blue"][0]}" '
                         f'opacity="{0.08 + 0.85 * min(max(value, 0.0), 1.0) if known else 0:.2f}"/>')
            if known:
                parts.append(f'<text x="{x + cell / 2}" y="{y + cell / 2 + 4}" text-anchor="middle" style="font-size:'
                             f'10px;fill:{"#fff" if value > 0.55 else STYLE[1]}">{value:.{digits}f}</text>')
    return _page(max(room + size + 60, 7.2 * len(title)), TOP + room + size + 8, "".join(parts))


def _frame(frame: Panel, width: int, height: int) -> str:
    """Axes, grid and lines of one panel, its corner at (0, 0)."""
    points = [point for line in frame.lines for point in line.points if math.isfinite(point[1])]
    xs = [x for x, _ in points] or [0.0, 1.0]
    ys = [y for _, y in points] + [end for line in frame.lines for pair in line.band for end in pair
                                   if math.isfinite(end)] or [0.0, 1.0]
    low, high = min(ys) if frame.low is None else frame.low, max(ys) if frame.high is None else frame.high
    high = high if high > low else low + 1.0
    first, last = min(xs), max(xs) if max(xs) > min(xs) else min(xs) + 1

    def at(x: float, y: float) -> tuple[float, float]:
        return (width * (x - first) / (last - first), height * (1 - (min(max(y, low), high) - low) / (high - low)))

    parts = [f'<text x="0" y="-12" style="font-weight:600">{escape(frame.title)}</text>',
             f'<text x="{width / 2}" y="{height + 30}" text-anchor="middle">{escape(frame.x_title)}</text>']
    for value in round_values(low, high):
        _, y = at(first, value)
        parts.append(f'<line x1="0" x2="{width}" y1="{y:.1f}" y2="{y:.1f}" stroke="{STYLE[1]}" opacity="0.22"/>'
                     f'<text x="-6" y="{y + 4:.1f}" text-anchor="end">{value:.4g}</text>')
    ticks = sorted(set(xs)) if len(set(xs)) <= 9 else [first + (last - first) * step / 4 for step in range(5)]
    if frame.doubling:
        # whole powers, at most seven of them
        ticks = [float(power) for power in range(math.ceil(first), math.floor(last) + 1,
                                                 max(1, math.ceil((last - first) / 6)))]
    named = [(x, 2 ** x if frame.doubling else x) for x in ticks]
    parts += [f'<text x="{at(x, low)[0]:.1f}" y="{height + 15}" text-anchor="middle">{value:.4g}</text>'
              for x, value in named]
    if frame.diagonal:
        (x, y), (u, v) = at(max(first, low), max(first, low)), at(min(last, high), min(last, high))
        parts.append(f'<line x1="{x:.1f}" y1="{y:.1f}" x2="{u:.1f}" y2="{v:.1f}" stroke="{STYLE[1]}" '
                     'stroke-dasharray="4 4"/>')
    for line in frame.lines:
        colour = PALETTE[line.colour][0]
        known = [point for point in line.points if math.isfinite(point[1])]
        placed = [at(*point) for point in known]
        if line.band and len(line.band) == len(placed):
            upper = [at(x, end) for (x, _), (_, end) in zip(line.points, line.band)]
            lower = [at(x, end) for (x, _), (end, _) in zip(line.points, line.band)]
            parts.append(f'<polygon points="{_path([*upper, *reversed(lower)])}" fill="{colour}" opacity="0.13"/>')
        dash = ' stroke-dasharray="5 4"' if line.dashed else ""
        parts.append(f'<polyline points="{_path(placed)}" fill="none" stroke="{colour}" stroke-width="1.9"{dash}/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.4" fill="{colour}"><title>{escape(line.name)}: '
                  f'{point[1]:.3g}</title></circle>' for (x, y), point in zip(placed, known)]
    return "".join(parts)


def round_values(low: float, high: float, most: int = 6) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten from `low` to `high`, at least two and at most `most`."""
    power = math.floor(math.log10((high - low) / most))
    step = next(step for times in (1, 2, 5, 10, 20) if math.floor(high / (step := times * 10.0 ** power) + 1e-9)
                - math.ceil(low / step - 1e-9) < most)
    return [round(number * step, 12) for number in range(math.ceil(low / step - 1e-9),
                                                         math.floor(high / step + 1e-9) + 1)]


def _legend(lines: Sequence[Line], y: float, width: float) -> tuple[str, int]:
    """Names beside their colours, in as many rows as they need, and the height of those."""
    parts, x, row = [], 8.0, 0
    for line in lines:
        room = 40 + 7.0 * len(line.name)
        if x + room > width and x > 8:
            x, row = 8.0, row + 1
        dash = ' stroke-dasharray="5 4"' if line.dashed else ""
        parts.append(f'<line x1="{x}" x2="{x + 18}" y1="{y + 18 * row}" y2="{y + 18 * row}" stroke-width="2.4" '
                     f'stroke="{PALETTE[line.colour][0]}"{dash}/>'
                     f'<text x="{x + 24}" y="{y + 18 * row + 4}">{escape(line.name)}</text>')
        x += room
    return "".join(parts), 18 * (row + 1)


def _path(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


def _page(width: float, height: float, inside: str) -> str:
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{width:g}" '
            f'height="{height:g}" role="img" style="{STYLE[0]};fill:{STYLE[1]}">{inside}</svg>\n')


def reliability_picture(bins: Mapping[str, Sequence[tuple[float, float]]], title: str = "reliability") -> str:
    """(confidence, accuracy) of each classifier's bins against the diagonal, on which confidence is deserved."""
    lines = [Line(name, points, colour=colour) for (name, points), colour in zip(bins.items(), PALETTE, strict=False)]
    return panels([Panel(title, lines, "confidence", 0.0, 1.0, diagonal=True)], 1, 320, 300)
