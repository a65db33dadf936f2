"""Numbers with intervals as dots on a line, and learning curves: what a study's report is drawn with.

Dots are plain SVG whose colours are the page's own variables (`--blue`, ...), so they follow light and dark. Curves
are plotly figures as data; the page switches their x axis between tokens, FLOPs and seconds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

PALETTE: dict[str, tuple[str, str]] = {
    "blue": ("#2f6bb3", "#7cb0ee"), "orange": ("#c8690f", "#f0a55a"), "green": ("#3c8a4e", "#83cf95"),
    "red": ("#b8404f", "#ef8c98"), "purple": ("#7a55b0", "#b99bea"), "grey": ("#80868c", "#8f969d"),
    "teal": ("#16808a", "#62c4cc"), "brown": ("#8a5a33", "#c99b72"), "pink": ("#b8488e", "#ee92c9"),
    "olive": ("#74781a", "#bcc05a"),
}
"""Colour -> (on light, on dark): chosen to be told apart also by readers who see few colours."""

WIDTH, HEIGHT, MARGIN = 320, 22, 8


@dataclass(frozen=True)
class Dot:
    """One number: its value, the range it is trusted in (NaN for none), and the values it is the mean of."""

    value: float
    low: float = math.nan
    high: float = math.nan
    singles: Sequence[float] = ()
    colour: str = "blue"
    hollow: bool = False
    title: str = ""


def domain(dots: Sequence[Dot], within: tuple[float, float] = (-math.inf, math.inf)) -> tuple[float, float]:
    """A range that holds every dot and its interval, with a little air, no further than `within`.

    An interval three times wider than the dots' own range is cut, so that one unsure number does not press all
    others into a corner.
    """
    values = [dot.value for dot in dots if math.isfinite(dot.value)]
    if not values:
        return 0.0, 1.0
    low, high = min(values), max(values)
    air = 0.08 * (high - low) or 0.05 * abs(high) or 1.0
    room = 0.6 * (high - low) + air
    ends = [end for dot in dots for end in (dot.low, dot.high) if math.isfinite(end)]
    low, high = (min([low, *(max(end, low - room) for end in ends)]),
                 max([high, *(min(end, high + room) for end in ends)]))
    return max(within[0], low - air), min(within[1], high + air)


def strip(dot: Dot, ends: tuple[float, float], reference: float | None = None) -> str:
    """One row of a dot plot as SVG: the range as a line, single runs as ticks, the value as a dot.

    Args:
        ends: the values at the left and right edge, the same for all rows of a plot.
        reference: a value marked by a thin line through all rows, such as the best control.
    """
    def x(value: float) -> float:
        share = (value - ends[0]) / ((ends[1] - ends[0]) or 1.0)
        return MARGIN + (WIDTH - 2 * MARGIN) * min(1.0, max(0.0, share))

    colour, middle = f"var(--{dot.colour})", HEIGHT / 2
    parts = [f'<line class="rail" x1="{MARGIN}" x2="{WIDTH - MARGIN}" y1="{middle}" y2="{middle}"/>']
    if reference is not None and math.isfinite(reference):
        parts.append(f'<line class="mark" x1="{x(reference):.1f}" x2="{x(reference):.1f}" y1="0" y2="{HEIGHT}"/>')
    if math.isfinite(dot.low) and math.isfinite(dot.high):
        parts.append(f'<line x1="{x(dot.low):.1f}" x2="{x(dot.high):.1f}" y1="{middle}" y2="{middle}" '
                     f'stroke="{colour}" stroke-width="3" stroke-linecap="round" opacity="0.45"/>')
    parts += [f'<line x1="{x(single):.1f}" x2="{x(single):.1f}" y1="{middle - 5}" y2="{middle + 5}" '
              f'stroke="{colour}" stroke-width="1.2" opacity="0.8"/>' for single in dot.singles]
    if math.isfinite(dot.value):
        fill = "var(--page)" if dot.hollow else colour
        parts.append(f'<circle cx="{x(dot.value):.1f}" cy="{middle}" r="4.6" fill="{fill}" stroke="{colour}" '
                     'stroke-width="2"/>')
    title = f"<title>{escape(dot.title)}</title>" if dot.title else ""
    return (f'<svg class="strip" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" role="img">'
            f'{title}{"".join(parts)}</svg>')


def visibility_grid(grid: Sequence[str], cell: int = 4, colour: str = "blue") -> str:
    """Who may see whom as SVG: one row a query, one column a key, filled where it may see ("1")."""
    height, width = len(grid) * cell, max((len(row) for row in grid), default=0) * cell
    # runs of ones are one rectangle each: a page with ten grids stays small
    parts = []
    for y, row in enumerate(grid):
        start = 0
        while (start := row.find("1", start)) >= 0:
            end = row.find("0", start)
            end = len(row) if end < 0 else end
            parts.append(f'<rect x="{start * cell}" y="{y * cell}" width="{(end - start) * cell}" height="{cell}"/>')
            start = end
    return (f'<svg class="grid" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" '
            f'style="fill:var(--{colour})"><g>{"".join(parts)}</g></svg>')


@dataclass(frozen=True)
class Series:
    """The learning curves of one contender: for every seed its points, each {"tokens", "flops", "seconds", "value"}."""

    name: str
    colour: str
    runs: Sequence[Sequence[Mapping[str, float]]]
    dash: str = "solid"
    notes: Mapping[str, Any] = field(default_factory=dict)


X_AXES: dict[str, str] = {"tokens": "training tokens", "flops": "training FLOPs", "seconds": "seconds of training"}


def learning_curves(series: Sequence[Series], y_title: str, levels: Mapping[str, float] | None = None,
                    percent: bool = False) -> dict[str, Any]:
    """A plotly figure of curves over training, with what the page needs to switch its x axis.

    One thin line for each run, and the mean over runs, thick, where all of them have the same number of points.

    Args:
        levels: name -> value of horizontal lines, such as controls.
    Returns:
        {"figure": plotly JSON, "x": {axis: list of x values for each trace}, "titles": X_AXES, "colours": for each
        trace the name in `PALETTE`, "ticks": {axis: plotly's choice of ticks}}.
    """
    traces: list[dict[str, Any]] = []
    xs: dict[str, list[list[float]]] = {axis: [] for axis in X_AXES}
    colours: list[str] = []

    def add(points: Sequence[Mapping[str, float]], one: Series, **how: Any) -> None:
        for axis in X_AXES:
            xs[axis].append([float(point[axis]) for point in points])
        colours.append(one.colour)
        traces.append({"type": "scatter", "x": xs["tokens"][-1], "y": [float(point["value"]) for point in points],
                       "name": one.name, "legendgroup": one.name, **how})

    for one in series:
        several = len(one.runs) > 1
        for run in one.runs:
            add(run, one, mode="lines" if several else "lines+markers", showlegend=not several, hoverinfo="skip" if
                several else "all", opacity=0.3 if several else 1.0,
                line={"width": 1 if several else 2.4, "color": PALETTE[one.colour][0], "dash": one.dash},
                marker={"size": 5})
        if several:
            add(mean_curve(one.runs), one, mode="lines+markers", showlegend=True,
                line={"width": 2.6, "color": PALETTE[one.colour][0], "dash": one.dash}, marker={"size": 5})
    layout = _layout(y_title, percent)
    layout["shapes"] = [{"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": value, "y1": value,
                         "line": {"width": 1, "dash": "dot", "color": PALETTE["grey"][0]}}
                        for value in (levels or {}).values()]
    layout["annotations"] = [{"xref": "paper", "x": 1, "xanchor": "right", "y": value, "yanchor": "bottom",
                              "text": escape(name), "showarrow": False, "font": {"size": 11}}
                             for name, value in (levels or {}).items()]
    ticks = {axis: _ticks([x for line in lines for x in line]) for axis, lines in xs.items()}
    layout["xaxis"] |= ticks["tokens"]
    return {"figure": {"data": traces, "layout": layout}, "x": xs, "titles": X_AXES, "colours": colours, "ticks": ticks}


def _ticks(places: Sequence[float]) -> dict[str, Any]:
    """Ticks at 1, 2 and 5 times the powers of ten within the range, or at the powers alone where that were many."""
    known = [x for x in places if x > 0]
    if not known:
        return {}
    low, high = math.floor(math.log10(min(known))), math.ceil(math.log10(max(known)))
    steps = (1, 2, 5) if math.log10(max(known) / min(known)) < 2.5 else (1,)
    values = [step * 10.0 ** power for power in range(low, high + 1) for step in steps]
    values = [value for value in values if 0.7 * min(known) <= value <= 1.4 * max(known)]
    return {"tickmode": "array", "tickvals": values, "ticktext": [short(value) for value in values]}


def short(number: float) -> str:
    """A number as an axis says it: 20k, 1M, 5e12."""
    if number >= 1e12:
        mantissa, exponent = f"{number:.0e}".split("e")
        return f"{mantissa}e{int(exponent)}"
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:g}{letter}"
    return f"{number:g}"


def mean_curve(runs: Sequence[Sequence[Mapping[str, float]]]) -> list[dict[str, float]]:
    """The mean of several curves, point by point (runs of one contender have their checkpoints at the same steps)."""
    length = min(len(run) for run in runs)
    return [{name: sum(float(run[place][name]) for run in runs) / len(runs) for name in (*X_AXES, "value")}
            for place in range(length)]


def _layout(y_title: str, percent: bool) -> dict[str, Any]:
    """Calm: no box, faint lines, colours left to the page."""
    axis = {"zeroline": False, "showline": False, "ticks": "outside", "ticklen": 3, "automargin": True}
    return {"paper_bgcolor": "rgba(0,0,0,0)", "plot_bgcolor": "rgba(0,0,0,0)", "height": 380,
            "margin": {"l": 60, "r": 16, "t": 12, "b": 48}, "hovermode": "closest",
            "legend": {"orientation": "h", "y": 1.12, "x": 0, "itemclick": "toggle"},
            "font": {"family": "inherit", "size": 13},
            "xaxis": {**axis, "type": "log", "title": {"text": X_AXES["tokens"]}, "exponentformat": "SI"},
            "yaxis": {**axis, "title": {"text": escape(y_title)}, **({"tickformat": ".0%"} if percent else {})}}


def line_chart(lines: Mapping[str, Sequence[tuple[float, float]]], x_title: str, y_title: str, width: int = 640,
               height: int = 320) -> str:
    """A small standing picture as SVG, from zero: for each name its (x, y) points; readable on light and dark pages."""
    left, right, top, bottom = 62, 12, 16, 46
    x_most, y_most = (max(point[axis] for points in lines.values() for point in points) for axis in (0, 1))
    x_ticks, y_ticks = _even(x_most), _even(y_most)
    x_most, y_most = max(x_most, x_ticks[-1]), max(y_most, y_ticks[-1])
    grey = "#80868c"

    def place(x: float, y: float) -> tuple[float, float]:
        return left + (width - left - right) * x / x_most, top + (height - top - bottom) * (1 - y / y_most)

    parts = [f'<text x="{(left + width - right) / 2}" y="{height - 8}" text-anchor="middle">{escape(x_title)}</text>',
             f'<text x="14" y="{(top + height - bottom) / 2}" text-anchor="middle" transform="rotate(-90 14 '
             f'{(top + height - bottom) / 2})">{escape(y_title)}</text>']
    for tick in x_ticks:
        x, y = place(tick, 0)
        parts.append(f'<text x="{x:.1f}" y="{y + 18:.1f}" text-anchor="middle">{short(tick)}</text>')
    for tick in y_ticks:
        x, y = place(0, tick)
        parts += [f'<line x1="{left}" x2="{width - right}" y1="{y:.1f}" y2="{y:.1f}" stroke="{grey}" opacity="0.25"/>',
                  f'<text x="{left - 8}" y="{y + 4:.1f}" text-anchor="end">{short(tick)}</text>']
    for (name, points), colour in zip(lines.items(), PALETTE.values(), strict=False):
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*point) for point in points))
        x, y = place(*points[-1])
        parts += [f'<polyline points="{path}" fill="none" stroke="{colour[0]}" stroke-width="2.2"/>',
                  f'<text x="{x - 4:.1f}" y="{max(y - 8, 12):.1f}" text-anchor="end" style="fill:{colour[0]}">'
                  f"{escape(name)}</text>"]
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
            f'height="{height}" role="img" style="font:13px sans-serif;fill:{grey}">{"".join(parts)}</svg>\n')


def _even(most: float) -> list[float]:
    """Round numbers from 0 up to about `most`, four to eight of them."""
    rough = most / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * unit for unit in (1, 2, 5, 10) if power * unit >= rough)
    return [round(step * number, 10) for number in range(math.floor(most / step) + 1)]
