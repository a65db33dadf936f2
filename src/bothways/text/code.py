"""What the interpreter's own parser and tokenizer know of a piece of code: docstrings, functions, token classes."""

from __future__ import annotations

import ast
import io
import keyword
import textwrap
import tokenize
import warnings
from collections.abc import Iterator
from typing import NamedTuple

from bothways.text.labels import Tagged

TAGS = ("keyword", "function name", "class name", "parameter", "call", "attribute", "import", "argument name",
        "assigned", "variable", "constant", "string", "operator", "comment")
"""The classes of code tokens. `call`, `argument name` and `assigned` are told by what follows the name."""

_Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
_Function = ast.FunctionDef | ast.AsyncFunctionDef


class Function(NamedTuple):
    """A function's whole source, the same without its docstring, and the docstring's first line (or none)."""

    source: str
    bare: str
    summary: str | None


class Anatomy(NamedTuple):
    """What a module consists of, found in one reading of it."""

    docstrings: tuple[str, ...]
    bare: str
    functions: tuple[Function, ...]


def anatomy(source: str) -> Anatomy | None:
    """Docstrings in order of place, the source without them, and the functions that are not inside another one.

    None where the source does not parse.
    """
    tree = _parse(source)
    if tree is None:
        return None
    lines = source.splitlines(keepends=True)
    definitions = list(_definitions(tree))
    described = [(node, text) for node in definitions if (text := ast.get_docstring(node))]
    cuts = [cut for node, _ in described for cut in _cut(node, lines)]
    summary = {id(node): text.strip().splitlines()[0].strip() for node, text in described if text.strip()}
    functions, end = [], 0
    for node in definitions:
        if isinstance(node, _Function) and node.lineno > end:
            end = node.end_lineno or node.lineno
            whole = textwrap.dedent("".join(lines[node.lineno - 1:end])).strip("\n")
            if not whole[:1].isspace():  # a string that reaches to the left edge cannot be moved there
                bare = textwrap.dedent(_without(lines, cuts, node.lineno - 1, end)).strip("\n")
                functions.append(Function(whole, bare, summary.get(id(node))))
    return Anatomy(tuple(text for _, text in described), _without(lines, cuts, 0, len(lines)).strip("\n") + "\n",
                   tuple(functions))


def without_docstring(source: str) -> str:
    """A piece of code without any docstring; unchanged where it does not parse."""
    found = anatomy(source)
    return source if found is None else found.bare


def _parse(source: str) -> ast.Module | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in old code
            return ast.parse(source)
    except (SyntaxError, ValueError):
        return None


def _definitions(node: ast.AST) -> Iterator[_Documented]:
    """The module, and every class and function in it, in order of place; expressions are not searched."""
    if isinstance(node, _Documented):
        yield node
    for name in ("body", "handlers", "orelse", "finalbody", "cases"):
        for child in getattr(node, name, ()):
            if isinstance(child, (ast.stmt, ast.excepthandler, ast.match_case)):
                yield from _definitions(child)


def _cut(node: _Documented, lines: list[str]) -> list[tuple[int, int, str]]:
    """The lines [first, last) of a node's docstring and what replaces them: `...` where the body was nothing else."""
    expression = node.body[0]
    first, last = expression.lineno - 1, expression.end_lineno or expression.lineno
    indent = lines[first].encode()[:expression.col_offset].decode(errors="replace")
    tail = lines[last - 1].encode()[expression.end_col_offset or 0:].decode(errors="replace").strip()
    if indent.strip() or tail:
        return []  # it shares its lines with something else
    return [(first, last, "" if len(node.body) > 1 or isinstance(node, ast.Module) else indent + "...\n")]


def _without(lines: list[str], cuts: list[tuple[int, int, str]], first: int, last: int) -> str:
    """Lines [first, last) with the cuts made."""
    kept, place = [], first
    for begin, end, instead in cuts:
        if first <= begin and end <= last:
            kept += [*lines[place:begin], instead]
            place = end
    return "".join([*kept, *lines[place:last]])


def tagged(source: str) -> Tagged | None:
    """Every token of a source that parses, with its class; none where it does not parse or is not plain ASCII."""
    tree = _parse(source) if source.isascii() else None
    if tree is None:
        return None
    # 1. what only the parser knows: which names are parameters, assigned, ...
    known: dict[tuple[int, int], str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.arg):
            known[node.lineno, node.col_offset] = "parameter"
        elif isinstance(node, ast.keyword) and node.arg is not None:
            known[node.lineno, node.col_offset] = "argument name"
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            known[node.lineno, node.col_offset] = "assigned"
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            known[node.func.lineno, node.func.col_offset] = "call"
    # 2. the tokens in order, each with its class
    starts = [0]
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    spans = []
    before, importing = "", False
    try:
        tokens = list(tokenize.generate_tokens(io.StringIO(source).readline))
    except (tokenize.TokenError, IndentationError):
        return None
    for token, following in zip(tokens, [*tokens[1:], tokens[-1]], strict=True):
        if token.type in (tokenize.NEWLINE, tokenize.ENDMARKER) or token.string == ";":
            importing = False
        if token.string in ("import", "from") and before in ("", "\n", ";", ":"):
            importing = True
        tag = _class_of(token, before, following.string, importing, known)
        if tag:
            begin, end = (starts[line - 1] + column for line, column in (token.start, token.end))
            spans.append((begin, end, tag))
        if token.type not in (tokenize.NL, tokenize.COMMENT, tokenize.INDENT, tokenize.DEDENT):
            before = token.string
    return Tagged(source, tuple(spans))


def _class_of(token: tokenize.TokenInfo, before: str, after: str, importing: bool,
              known: dict[tuple[int, int], str]) -> str | None:
    """The class of one token; none for layout."""
    if token.type == tokenize.COMMENT:
        return "comment"
    if token.type == tokenize.STRING or tokenize.tok_name[token.type].startswith("FSTRING"):
        return "string"
    if token.type == tokenize.NUMBER or token.string in ("True", "False", "None"):
        return "constant"
    if token.type == tokenize.OP:
        return "operator"
    if token.type != tokenize.NAME:
        return None
    if keyword.iskeyword(token.string):
        return "keyword"
    if before in ("def", "class"):
        return "function name" if before == "def" else "class name"
    if importing:
        return "import"
    if before == ".":
        return "call" if after == "(" else "attribute"
    return known.get(token.start, "variable")
