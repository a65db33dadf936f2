"""How a text came to be: blanks and spaces where they belong, what is new marked, long lines cut around it."""

from __future__ import annotations

import functools
import io

from rich.console import Console

from bothways.pictures.steps import frames, line, play
from bothways.text.tokenizer import Tokenizer

PIECES = Tokenizer.train(["the cat sat on the mat. a dog ran to the house, déjà 😀 "] * 5, size=330)
WORDS = Tokenizer.words("the cat sat on the mat")


def drawn(tokenizer: Tokenizer, canvases, **how):  # type: ignore[no-untyped-def]
    decode = functools.partial(tokenizer.decode, skip_reserved=False)
    return list(frames(canvases, decode, tokenizer.vocabulary.mask, **how))


def test_spaces_around_blanks_for_pieces_and_for_words():
    for tokenizer in (PIECES, WORDS):
        the, cat, sat = (tokenizer.encode("the cat sat")[i] for i in range(3))
        one, two, three = drawn(tokenizer, [[the, -1, -1], [the, -1, sat], [the, cat, sat]])
        assert (one.text, two.text, three.text) == ("the ▁▁ ▁▁", "the ▁▁ sat", "the cat sat")
        assert [two.text[a:b] for a, b in two.blanks] == ["▁▁"]
        assert [three.text[a:b].strip() for a, b in three.new] == ["cat"]


def test_a_text_that_grows_has_one_blank_where_it_grows_and_none_at_its_end():
    the, cat, sat = WORDS.encode("the cat sat")
    assert [frame.text for frame in drawn(WORDS, [[-1, -1], [cat, -1], [cat, sat]], before=[the], grows=True)] == [
        "the", "the cat", "the cat sat"]
    assert [frame.text for frame in drawn(WORDS, [[the, -1, -1, sat], [the, cat, -1, sat]], grows=True)] == [
        "the ▁▁ sat", "the cat ▁▁ sat"]


def test_half_a_character_waits():
    byte = Tokenizer.train(["x"], kind="bytes", size=300)
    ids = byte.encode("é!")
    assert [frame.text for frame in drawn(byte, [[-1] * 3, [ids[0], -1, -1], [*ids[:2], -1], ids], grows=True)] == [
        "", "", "é", "é!"]


def test_a_long_line_is_cut_around_what_is_new():
    ids = WORDS.encode("the cat sat on the mat") * 20
    *_, last = drawn(WORDS, [[*ids[:60], -1, *ids[61:]], ids])
    shown = line(last, 1, 40)
    assert len(shown) <= 40 and shown.plain.count("…") == 2
    assert any("green" in str(span.style) for span in shown.spans)


def test_a_pipe_gets_a_line_a_step():
    out = io.StringIO()
    the, cat = WORDS.encode("the cat")
    play(drawn(WORDS, [[-1, -1], [the, -1], [the, cat]]), Console(file=out, width=60))
    assert [row.strip() for row in out.getvalue().splitlines()] == ["0  ▁▁ ▁▁", "1  the ▁▁", "2  the cat"]


def test_a_line_chart_is_a_whole_picture():
    import xml.etree.ElementTree as tree

    from bothways.pictures.curves import line_chart

    drawn = line_chart({"with <a> cache": [(0, 1.0), (100, 1.5)], "without": [(0, 1.0), (100, 42.0)]}, "place", "ms")
    root = tree.fromstring(drawn)
    lines = [part for part in root if part.tag.endswith("polyline")]
    ends = [tuple(map(float, line.attrib["points"].split()[-1].split(","))) for line in lines]
    assert ends[0][0] == ends[1][0] and ends[0][1] > ends[1][1]
    assert "with <a> cache" in [part.text for part in root]
    assert all(0 <= float(part.attrib["x"]) <= 640 for part in root if part.tag.endswith("text"))
