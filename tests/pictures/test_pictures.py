"""Pictures show the object that ran: what they draw is read back and compared with it."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import numpy as np
import pytest
from rich.console import Console

from bothways.batch import RESERVED_TOKENS, Key, Vocabulary, Window, pack
from bothways.errors import BothwaysError
from bothways.objectives import make
from bothways.pictures import console, example, svg
from bothways.pictures.expression import read
from bothways.pictures.visibility import demo_fields, of_example, of_visibility, sentence
from bothways.sparse import global_tokens, random_links, strided
from bothways.visibility import (
    NAMED,
    bidirectional,
    block_causal,
    by_blocks,
    causal,
    chunked,
    order,
    prefix,
    same_block,
    same_document,
    valid,
    window,
)

RESERVED = len(RESERVED_TOKENS)
PLAIN = Vocabulary.plain(RESERVED + 60)
NAMES = [*RESERVED_TOKENS, *(f" w{i}" for i in range(60))]


def pieces(ids):
    return [NAMES[i] for i in ids]


def text_of(renderable) -> str:
    screen = Console(width=200, highlight=False, color_system=None)
    with screen.capture() as captured:
        screen.print(renderable)
    return captured.get()


def drawn_rows(text: str) -> list[str]:
    """The cells of each labelled row, one character a cell: # sees, . does not, a space between grids."""
    rows = [match[1] for line in text.splitlines() if (match := re.match(r"^ *\d+ \S+ +((?:██| ·| )+)", line))]
    return [row.replace("██", "#").replace(" ·", ".") for row in rows]


EVERY = [*NAMED.values(), global_tokens(), global_tokens(0, 5), chunked(4), block_causal(3), strided(2),
         window(1, 1) | random_links(1), window(2, 1), causal & window(3, 0), prefix & same_document,
         (causal & same_document) | prefix, same_document & valid & order("query")]


@pytest.mark.parametrize("visibility", EVERY, ids=repr)
def test_the_console_draws_exactly_what_is_allowed(visibility):
    fields = demo_fields(9)
    seen = visibility.allows(fields, fields).numpy()
    rows = drawn_rows(text_of(console.draw(of_visibility(visibility, fields))))
    found = [[cell == "#" for cell in row if cell != " "] for row in rows]
    assert found == seen.tolist()


@pytest.mark.parametrize("visibility", EVERY, ids=repr)
def test_the_svg_draws_exactly_what_is_allowed_and_is_well_formed(visibility):
    fields = demo_fields(9)
    drawing = svg.draw(of_visibility(visibility, fields, [f"<{i}&>" for i in range(9)]))
    root = ElementTree.fromstring(drawing)
    space = "{http://www.w3.org/2000/svg}"
    cells = [element.get("class") == "own" for element in root.iter(f"{space}rect")
             if element.get("class") in ("own", "no") and element.get("height") == str(svg.CELL - 1)]
    assert cells == visibility.allows(fields, fields).numpy().flatten().tolist()
    words = [element.text for element in root.iter(f"{space}text")]
    assert " ".join(words).startswith(repr(visibility)) and sum(word == "<3&>" for word in words) == 2
    assert "http" not in drawing.replace("http://www.w3.org/2000/svg", "")


def test_demo_fields_make_every_named_visibility_differ():
    fields = demo_fields(10)
    grids = {name: tuple(value.allows(fields, fields).flatten().tolist()) for name, value in NAMED.items()}
    assert len(set(grids.values())) == len(grids)


@pytest.mark.parametrize("spec", ["next-token", "masked", "masked-next", "diffusion", "span-corruption", "denoising"])
@pytest.mark.parametrize("packed", [False, True])
def test_an_example_is_shown_whole(spec, packed):
    objective = make(spec, PLAIN)
    windows = [Window(np.array([PLAIN.bos, *range(RESERVED + 9 * i, RESERVED + 9 * i + 8), PLAIN.eos]), i, 0, i)
               for i in range(1 + packed)]
    ran = pack([objective.corrupt(one, Key(0, 0, one.index)) for one in windows])[0] if packed else \
        objective.corrupt(windows[0], Key(0, 0, 0))
    text = text_of(example.console(ran, pieces, objective))
    # 1. every token that goes in, in order
    line = next(line for line in text.splitlines() if line.startswith(("goes in (target)", "goes in  ")))
    assert line.split()[-len(ran):] == [piece.strip() for piece in pieces(ran.inputs.tolist())]
    if ran.source is not None:
        source = next(line for line in text.splitlines() if line.startswith("goes in (source)"))
        assert source.split()[-len(ran.source):] == [piece.strip() for piece in pieces(ran.source.inputs.tolist())]
    # 2. every ask, beside the row it belongs to
    asked = [(int(match[1]), match[2]) for line in text.splitlines()
             if (match := re.match(r"^ *(\d+) .*→ (\S+)", line))]
    assert asked == list(zip(ran.asks[0].where.tolist(),
                             [piece.strip() for piece in pieces(ran.asks[0].targets.tolist())], strict=True))
    # 3. the grid of the row's own tokens
    rows = drawn_rows(text)[-len(ran):]
    own = [[cell == "#" for cell in row.replace(" ", "")][-len(ran):] for row in rows]
    assert own == ran.visibility.allows(ran.fields, ran.fields).tolist()
    # and the same facts as HTML
    page = example.html(ran, pieces, objective)
    ElementTree.fromstring(page)
    assert page.count("bw-asked\"") == len({int(place) for place in ran.asks[0].where})
    assert objective.summary.split(",")[0] in page


def test_two_towers_are_drawn_as_three_grids():
    ran = make("span-corruption", PLAIN).corrupt(Window(np.arange(RESERVED, RESERVED + 10)), Key(0, 0, 0))
    picture = of_example(ran, pieces)
    assert [side.name for side in picture.sides] == ["source", "target"]
    assert {key: grid.shape for key, grid in picture.seen.items()} == {
        (0, 0): (len(ran.source), len(ran.source)), (1, 1): (len(ran), len(ran)), (1, 0): (len(ran), len(ran.source))}
    assert picture.sides[0].hidden == {i for i, token in enumerate(ran.source.inputs.tolist())
                                       if token in PLAIN.sentinels}


def test_a_token_that_stands_in_for_an_answer_is_marked_whatever_it_is():
    objective = make("masked(rate=0.9, replace=0-50-50)", PLAIN)
    ran = objective.corrupt(Window(np.arange(RESERVED, RESERVED + 20)), Key(0, 0, 0))
    picture = of_example(ran, pieces, objective=objective)
    assert picture.sides[0].hidden == set(ran.asks[0].where.tolist())


@pytest.mark.parametrize("length", [1, 41, 300])
def test_any_length_can_be_drawn(length):
    fields = demo_fields(length)
    picture = of_visibility(same_document, fields)
    text = text_of(console.draw(picture))
    assert len(text.splitlines()) >= length // 2
    ElementTree.fromstring(svg.draw(picture))
    if length == 300:
        assert "do not fit into 80 columns" in console.draw(picture, 80).plain
        assert len(svg.draw(picture)) < 200_000


def test_small_drawings_have_two_rows_a_line():
    picture = of_visibility(causal, demo_fields(50))
    lines = text_of(console.draw(picture)).splitlines()
    assert lines[0][:4] == "█▄··" and lines[1][:5] == "███▄·" and len(lines) == 26


@pytest.mark.parametrize("visibility, words", [
    (bidirectional, "a token sees every token"),
    (causal, "a token sees itself and what stands before it"),
    (prefix & same_document,
     "a token sees itself and what stands before it, or the prefix, but only inside its own document"),
    (window(4, 0) & valid, "a token sees every token, but only within 4 tokens to the left and 0 tokens to the right, "
                           "never padding"),
])
def test_sentences(visibility, words):
    assert sentence(visibility) == words


# --- reading a visibility ------------------------------------------------------------------------------------

@pytest.mark.parametrize("text, value", [
    ("causal", causal), (" prefix&same_document ", prefix & same_document), ("same-document", same_document),
    ("causal & window(4, 0)", causal & window(4, 0)), ("window(left=3)", window(3)),
    ("window(none, 2)", window(None, 2)),
    ("(causal | same_document) & valid", (causal | same_document) & valid), ("order", order()),
    ("order-query", order("query")), ("order(query)", order("query")),
    ("causal and valid or prefix", (causal & valid) | prefix),
    ("bidirectional & causal", causal),
    ("chunked(4) & causal", causal & chunked(4)), ("block-causal(4)", block_causal(4)), ("same-block", same_block),
    ("block-causal", by_blocks), ("global(0, 5)", global_tokens(0, 5)), ("global", global_tokens()),
    ("random(2, seed=3)", random_links(2, 3)),
    ("causal & (window(2, 0) | strided(3))", causal & (window(2, 0) | strided(3))),
])
def test_expressions(text, value):
    assert read(text) == value


@pytest.mark.parametrize("text, says", [
    ("causl", "did you mean 'causal'"), ("", "cannot read the visibility"), ("causal &", "cannot read the visibility"),
    ("causal + prefix", "only names, window"), ("window", "needs its sizes"), ("window(x)", "whole numbers"),
    ("window(-1)", "0 or more"), ("window(1, 2, 3)", "cannot read 'window\\(1, 2, 3\\)'"),
    ("chunked", "needs its sizes, as in chunked\\(4\\)"), ("chunked(0)", "whole number of at least 1, not 0"),
    ("random", "as in random\\(2, seed=0\\)"), ("random(2, seed=x)", "a seed is a whole number"),
    ("global(-1)", "named by their indexes"), ("block-causal(none)", "needs a size"), ("strided(1.5)", "a stride is"),
    ("chunked(True)", "not True"), ("globl(1)", "unknown visibility"),
    ("windw(1)", "unknown visibility 'windw"),
    ("__import__('os').system('x')", "only names"), ("[causal]", "only names"), ("order(up)", "'content' and 'query'"),
    ("window(True)", "whole numbers"), ("(" * 300 + "causal" + ")" * 300, "cannot read"), ("causal\x00", "cannot read"),
    ("window(*[1])", "cannot read"), ("~causal", "only names"), ("window(**{})", "cannot read"),
])
def test_mistakes_in_expressions_are_one_sentence(text, says):
    with pytest.raises(BothwaysError, match=says) as error:
        read(text)
    assert "\n" not in str(error.value)
