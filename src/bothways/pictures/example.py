"""One Example as a story: what goes in, what is asked and where, and what each token may see."""

from __future__ import annotations

from html import escape

from rich.console import Group, RenderableType
from rich.text import Text

from bothways.batch import Example
from bothways.objectives.base import Objective
from bothways.pictures import svg
from bothways.pictures.console import ASKED, HIDDEN, LABELLED, QUIET, asked_words, draw
from bothways.pictures.visibility import Pieces, Side, of_example

SHOWN = 200
"""Tokens printed of a long text."""
STYLE = """
.bw-example { font: 15px/1.5 system-ui, sans-serif; margin: 0 0 1.5em }
.bw-example .bw-line { display: flex; gap: .8em; margin: .35em 0 }
.bw-example .bw-name { flex: 0 0 7.5em; opacity: .7 }
.bw-example .bw-tokens { display: flex; flex-wrap: wrap; gap: 3px; font: 13px/1.5 ui-monospace, Menlo, monospace }
.bw-example .bw-tokens span { padding: 0 5px; border-radius: 4px; background: rgba(127, 140, 160, .16) }
.bw-example .bw-tokens .bw-hidden { background: #b45309; color: #fff }
.bw-example .bw-tokens .bw-asked { background: #15803d; color: #fff }
.bw-example .bw-note { opacity: .7 }
.bw-example svg { max-width: 100%; height: auto }
"""


def console(example: Example, pieces: Pieces, objective: Objective | None = None) -> RenderableType:
    """The story for the console; print it with rich. Long texts are cut, and grids of many tokens drawn small."""
    picture = of_example(example, pieces, objective=objective)
    parts: list[RenderableType] = []
    if objective is not None:
        parts.append(Text.assemble((objective.name, "bold"), f": {objective.summary}"))
        parts.append(Text(f"  {objective.source}\n", style=QUIET))
    width = max(len(name) for name, _ in _lines(picture.sides))
    for name, line in _lines(picture.sides):
        parts.append(Text.assemble((name.ljust(width + 2), "bold"), line))
    parts.append(Text(""))
    for sentence in picture.sentences:
        parts.append(Text(sentence))
    parts.append(Text("a row looks, a column is looked at; → is what the row is asked for\n", style=QUIET))
    if max(len(side.labels) for side in picture.sides) <= 2 * LABELLED:
        parts.append(draw(picture))
    return Group(*parts)


def html(example: Example, pieces: Pieces, objective: Objective | None = None) -> str:
    """The story as a fragment of HTML with its own style, the grid as SVG inside."""
    picture = of_example(example, pieces, objective=objective)
    parts = [f"<style>{STYLE}</style>"]
    if objective is not None:
        parts.append(f"<div><b>{escape(objective.name)}</b>: {escape(objective.summary)} "
                     f'<span class="bw-note">{escape(objective.source)}</span></div>')
    for side in picture.sides:
        parts.append(_html_line(f"goes in ({side.name})" if len(picture.sides) > 1 else "goes in",
                                [("bw-hidden" if i in side.hidden else "", label)
                                 for i, label in enumerate(side.labels)]))
    for side in picture.sides:
        if side.asked:
            parts.append(_html_line("is asked", [("bw-asked", ", ".join(map(asked_words, side.asked[place])))
                                                 for place in sorted(side.asked)]))
    return f'<div class="bw-example">{"".join(parts)}{svg.draw(picture)}</div>'


def _lines(sides: tuple[Side, ...]) -> list[tuple[str, Text]]:
    """Named lines: the tokens of each side, then what is asked of the side that predicts."""
    lines = []
    for side in sides:
        line = Text()
        for place, label in enumerate(side.labels[:SHOWN]):
            line.append(label, style=HIDDEN if place in side.hidden else "")
            line.append(" ")
        if len(side.labels) > SHOWN:
            line.append(f"… {len(side.labels) - SHOWN} more", style=QUIET)
        lines.append((f"goes in ({side.name})" if len(sides) > 1 else "goes in", line))
    for side in sides:
        if side.asked:
            lines.append(("is asked", _asked_line(side)))
    if not any(side.asked for side in sides):
        lines.append(("is asked", Text("nothing", style=QUIET)))
    return lines


def _asked_line(side: Side) -> Text:
    """What is asked, in order of place; with the place of each when not all are asked."""
    line = Text()
    everywhere = len(side.asked) >= len(side.labels) - 1
    for place in sorted(side.asked)[:SHOWN]:
        if not everywhere:
            line.append(f"at {place} ", style=QUIET)
        line.append(", ".join(map(asked_words, side.asked[place])), style=ASKED)
        line.append(" " if everywhere else "  ")
    if len(side.asked) > SHOWN:
        line.append(f"… {len(side.asked) - SHOWN} more", style=QUIET)
    return line


def _html_line(name: str, tokens: list[tuple[str, str]]) -> str:
    chips = "".join(f'<span class="{kind}">{escape(token)}</span>' if kind else f"<span>{escape(token)}</span>"
                    for kind, token in tokens[:SHOWN])
    more = f'<span class="bw-note">… {len(tokens) - SHOWN} more</span>' if len(tokens) > SHOWN else ""
    return (f'<div class="bw-line"><div class="bw-name">{escape(name)}</div>'
            f'<div class="bw-tokens">{chips}{more}</div></div>')
