"""Reading a visibility that a user wrote: `prefix & same_document`, `causal & window(4, 0)`."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable

from bothways.errors import BothwaysError, nearest
from bothways.sparse import global_tokens, random_links, strided
from bothways.visibility import NAMED, Visibility, block_causal, chunked, from_part, into_part, order, window

FUNCTIONS: dict[str, Callable[..., Visibility]] = {
    "window": window, "order": order, "into_part": into_part, "from_part": from_part, "chunked": chunked,
    "block_causal": block_causal, "strided": strided, "global_tokens": global_tokens, "random": random_links,
}
FORMS: dict[str, str] = {
    "window(4, 0)": "as many tokens to the left and to the right; none is no limit",
    "chunked(4)": "only inside one chunk of 4 tokens; beside causal a chunked layer of Llama 4",
    "block-causal(4)": "its own block of 4 tokens and all earlier ones",
    "strided(4)": "every fourth token away; causal & (window(4, 0) | strided(4)) is the Sparse Transformer",
    "global": "the global tokens see all and are seen by all; a row says which they are",
    "global(0, 5)": "the tokens at 0 and 5 see all and are seen by all (Longformer)",
    "random(2, seed=0)": "2 random earlier tokens, and whoever is linked to it so (BigBird)",
    "order(query)": "another stream of a shuffled order: content or query",
    "into_part(0)": "only tokens of part 0 are seen",
    "from_part(1)": "only tokens of part 1 look",
}
"""What is written with sizes, one example each and its meaning in a line."""
_NAMES = {**{name.replace("-", "_"): value for name, value in NAMED.items()}, "global_tokens": global_tokens()}
_KNOWN = [*NAMED, *(form.replace("(4, 0)", "(left, right)") for form in FORMS)]


def read(text: str) -> Visibility:
    """The value of an expression of names, `window(left, right)`, `&`, `|` (or `and`, `or`) and parentheses.

    Nothing is executed: the expression is parsed, and only these forms are understood.

    Raises:
        BothwaysError: an unknown name, with the nearest one, or anything else.
    """
    # `order-query` and `same-document` are names too, and the parser would subtract
    source = re.sub(r"(?<=[A-Za-z])-(?=[A-Za-z])", "_", text).strip()
    # and the parser has a meaning of its own for `global`
    source = re.sub(r"\bglobal\b", "global_tokens", source)
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
    raise BothwaysError(f"cannot read '{_written(node)}' in the visibility '{text}': only names, "
                        "window(left, right), &, | and parentheses are understood")


def _named(name: str, text: str) -> Visibility:
    if name in _NAMES:
        return _NAMES[name]
    if name in FUNCTIONS:
        form = next((form for form in FORMS if form.replace("-", "_").startswith(f"{name}(")), "window(4, 0)")
        raise BothwaysError(f"'{name}' in the visibility '{text}' needs its sizes, as in {form}")
    raise BothwaysError(f"unknown visibility '{name}' {nearest(name, _KNOWN)}")


def _called(node: ast.Call, name: str, text: str) -> Visibility:
    if name not in FUNCTIONS:
        raise BothwaysError(f"unknown visibility '{name}(...)' {nearest(name, _KNOWN)}")
    try:
        values = [_literal(value) for value in node.args]
        words = {str(word.arg): _literal(word.value) for word in node.keywords}
        if name == "window" and not all(value is None or type(value) is int for value in [*values, *words.values()]):
            raise ValueError("a window's sizes are whole numbers or none")
        return FUNCTIONS[name](*values, **words)
    except (ValueError, TypeError) as error:
        reason = re.sub(r"^\w+\(\) ", f"{_FULL.get(name, name)} ", str(error))
        raise BothwaysError(f"cannot read '{_written(node)}' in the visibility '{text}': {reason}") from None


_FULL = {"window": "window(left, right)", "chunked": "chunked(size)", "block_causal": "block-causal(size)",
         "strided": "strided(step)", "random": "random(links, seed)"}


def _written(node: ast.expr) -> str:
    """A node as its user wrote it."""
    return ast.unparse(node).replace("global_tokens", "global")


def _literal(node: ast.expr) -> object:
    """A number, a string, or `none`."""
    if isinstance(node, ast.Name):
        return None if node.id in ("none", "any") else node.id
    return ast.literal_eval(node)  # type: ignore[no-any-return]
