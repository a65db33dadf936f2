"""How a text came to be, on the console: one line a step, blanks shown, what is new in colour."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.live import Live
from rich.text import Text

BLANK = "▁▁"
NEW, OPEN, QUIET = "bold green", "yellow", "bright_black"
SHOWN, PACE = 4.0, 0.15
"""Seconds that a play takes at most, and between two steps at most."""


@dataclass(frozen=True)
class Frame:
    """The text after a step, and where in it the new tokens and the blanks are: (start, end) of characters."""

    text: str
    new: tuple[tuple[int, int], ...] = ()
    blanks: tuple[tuple[int, int], ...] = ()


def frames(canvases: Iterable[Sequence[int]], decode: Callable[[list[int]], str], blank: int,
           before: Sequence[int] = (), grows: bool = False) -> Iterator[Frame]:
    """The frames of a play.

    Args:
        canvases: token ids before the first step and after each, below 0 where nothing stands.
        decode: ids to text, reserved ones included.
        blank: the id of a blank, so that the spaces around one come right.
        before: ids that stand in front of every canvas, such as a prompt.
        grows: the text grows where it is written: places that are not written yet are one blank, and none at the end.
    """
    last: Sequence[int] = ()
    for canvas in canvases:
        if last and list(last) == list(canvas):
            continue
        fresh = {place for place, token in enumerate(canvas) if token >= 0 and last and last[place] != token}
        end = len(canvas)
        while grows and end and canvas[end - 1] < 0:
            end -= 1
        shown = [(place, token) for place, token in enumerate(canvas[:end])
                 if not (grows and token < 0 and place and canvas[place - 1] < 0)]
        yield _frame(shown, fresh, decode, blank, list(before))
        last = canvas


def _frame(shown: Sequence[tuple[int, int]], fresh: set[int], decode: Callable[[list[int]], str], blank: int,
           before: list[int]) -> Frame:
    """Places and their tokens as text. Each is decoded behind all that stands before it, so that spaces come right."""
    text, new, blanks = decode(before), [], []
    known, said = before, len(text)
    for place, token in shown:
        known = [*known, token if token >= 0 else blank]
        words = decode(known)
        if words.endswith("\ufffd"):
            continue  # half a character: the next token completes it
        start, piece, said = len(text), words[said:], len(words)
        if token < 0:
            text += "" if not text or text.endswith((" ", "\n")) else " "
            blanks.append((len(text), len(text) + len(BLANK)))
            piece = BLANK
        elif place in fresh:
            new.append((start, start + len(piece)))
        text += piece
    return Frame(text, tuple(new), tuple(blanks))


def line(frame: Frame, number: int, width: int) -> Text:
    """A step as one line of at most `width` columns, cut so that what is new is seen."""
    shown = Text(frame.text.replace("\n", "⏎"), no_wrap=True, overflow="crop")
    for start, end in frame.blanks:
        shown.stylize(OPEN, start, end)
    for start, end in frame.new:
        shown.stylize(NEW, start, end)
    room = max(8, width - 6)
    if len(shown) > room:
        middle = frame.new[-1][1] if frame.new else room
        first = max(0, min(middle - room * 2 // 3, len(shown) - room + 1))
        left, right = first > 0, first + room < len(shown)
        shown = Text.assemble(("…" if left else "", QUIET), shown[first + left:first + room - right],
                              ("…" if right else "", QUIET))
    return Text.assemble((f"{number:>4}  ", QUIET), shown, no_wrap=True, overflow="crop")


def play(all_frames: Sequence[Frame], console: Console) -> None:
    """Print every step on a line of its own; in a terminal slowly, and redrawn in place where they are many."""
    width = console.width
    if not console.is_terminal:
        for number, frame in enumerate(all_frames):
            console.print(line(frame, number, width))
        return
    pause = min(PACE, SHOWN / max(1, len(all_frames)))
    if len(all_frames) + 3 < console.height:
        for number, frame in enumerate(all_frames):
            console.print(line(frame, number, width))
            time.sleep(pause)
        return
    with Live(console=console, auto_refresh=False) as live:
        for number, frame in enumerate(all_frames):
            live.update(_page(frame, number, len(all_frames) - 1), refresh=True)
            time.sleep(pause)


def _page(frame: Frame, number: int, of: int) -> Text:
    """A whole text, wrapped, under the number of the step."""
    shown = Text(frame.text)
    for start, end in frame.blanks:
        shown.stylize(OPEN, start, end)
    for start, end in frame.new:
        shown.stylize(NEW, start, end)
    return Text.assemble((f"step {number} of {of}\n", QUIET), shown)
