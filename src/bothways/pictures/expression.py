"""Reading a visibility that a user wrote: `prefix & same_document`, `causal & window(4, 0)`."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable

from bothways.errors import BothwaysError, nearest
from bothways.visibility import NAMED, Visibility, from_part, into_part, order, window

FUNCTIONS: dict[str, Callable[..., Visibility]] = {"window": window, "order": order, "into_part": into_part,
                                              "from_part": from_part}
_NAMES = {name.replace("-", "_"): value for name, value in NAMED.items()}


def read(text: str) -> Visibility:
    """The value of an expression of names, `window(left, right)`, `&`, `|` (or `and`, `or`) and parentheses.

    Nothing is executed: the expression is parsed, and only these forms are understood.

    Raises:
        BothwaysError: an unknown name, with the nearest one, or anything else.
    """
    # `order-query` and `same-document` are names too, and the parser would subtract
    source = re.sub(r"(?<=[A-Za-z])-(?=[A-Za-z])", "_", text).strip()
    try:
        tree = ast.parse(source, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise BothwaysError(f"cannot read the visibility '{text}': write names joined by & and |, such as "
                            "'prefix & same_document' or 'causal & window(4, 0)'") from None
    return _value(tree, text)


def _value(node: ast.expr, text: str) -> Visibility:
    """One node of the expression."""
    if isinstance(node, ast.Name):
        return _named(node.id, text)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitAnd):
        return _value(node.left, text) & _value(node.right, text)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return _value(node.left, text) | _value(node.right, text)
    if isinstance(node, ast.BoolOp):
        first, *rest = (_value(part, text) for part in node.values)
        for part in rest:
            first = first & part if isinstance(node.op, ast.And) else first | part
        return first
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        return _called(node, node.func.id, text)
    raise BothwaysError(f"cannot read '{ast.unparse(node)}' in the visibility '{text}': only names, "
                        "window(left, right), &, | and parentheses are understood")


def _named(name: str, text: str) -> Visibility:
    if name in _NAMES:
        return _NAMES[name]
    if name in FUNCTIONS:
        raise BothwaysError(f"'{name}' in the visibility '{text}' needs its sizes, as in window(4, 0)")
    raise BothwaysError(f"unknown visibility '{name}' {nearest(name, [*NAMED, 'window(left, right)'])}")


def _called(node: ast.Call, name: str, text: str) -> Visibility:
    if name not in FUNCTIONS:
        raise BothwaysError(f"unknown visibility '{name}(...)' {nearest(name, [*NAMED, 'window(left, right)'])}")
    try:
        values = [_literal(value) for value in node.args]
        words = {str(word.arg): _literal(word.value) for word in node.keywords}
        if name == "window" and not all(value is None or type(value) is int for value in [*values, *words.values()]):
            raise ValueError("a window's sizes are whole numbers or none")
        return FUNCTIONS[name](*values, **words)
    except (ValueError, TypeError) as error:
        reason = str(error).replace("window() ", "window(left, right) ")
        raise BothwaysError(f"cannot read '{ast.unparse(node)}' in the visibility '{text}': {reason}") from None


def _literal(node: ast.expr) -> object:
    """A number, a string, or `none`."""
    if isinstance(node, ast.Name):
        return None if node.id in ("none", "any") else node.id
    return ast.literal_eval(node)  # type: ignore[no-any-return]
