"""Many texts through a network: packed into rows under a token budget, never padded, answered in order.

Texts may come as a stream: only so many are held at a time as fill a few rows, and within those the ones of like length
lie in one row, where they share attention calls. What a pass costs is bounded by its tokens, so that one long text
cannot blow up what others share: a text longer than the budget goes alone.

    def read():
        for numbers, texts, row in rows(all_texts, as_example, device):
            yield numbers, [answer for each of texts]
    for answer in in_order(read()): ...
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

import torch

from bothways.batch import Example, groups, kind, pack
from bothways.errors import BothwaysError

if TYPE_CHECKING:
    from bothways.text.tokenizer import Tokenizer

TOKENS = 2048
"""Tokens (of both towers) in one packed row."""
AHEAD = 16
"""Rows' worth of texts that are held at a time, so that those of like length can be put together."""
TEXTS, CHARACTERS = 256, 1 << 20
"""A stream of strings is made into tokens so many at a time, or so many characters."""

Item = TypeVar("Item")
Answer = TypeVar("Answer")


def rows(items: Iterable[Item], example_of: Callable[[Item], Example], device: torch.device, tokens: int = TOKENS,
         ahead: int = AHEAD, places: int | None = None) -> Iterator[tuple[list[int], list[Item], Example]]:
    """Lay Examples in rows as they come.

    Args:
        items: what to read; a stream is taken up only as far as rows are asked for.
        example_of: the Example of an item, whatever is asked of it.
        device: where rows are read.
        tokens: the most in a row (of both towers), unless one Example alone has more.
        ahead: how many rows' worth of items are held, so that like lengths meet; 1 holds the fewest answers back.
        places: the most tokens that either tower may read of one text; any number when none.
    Yields:
        the numbers of some items (counted from 0), the items, and the row they make, each a document of it.
    Raises:
        BothwaysError: a text of more tokens than there are places, or no budget.
    """
    if tokens < 1:
        raise BothwaysError(f"the budget of a pass is {tokens} tokens, but at least 1 is read: raise it")
    held: list[tuple[int, Item, Example]] = []
    filled = 0
    for number, item in enumerate(items):
        example = example_of(item)
        longest = max(len(example), 0 if example.source is None else len(example.source))
        if places is not None and longest > places:
            raise BothwaysError(f"text {number + 1} has {longest} tokens, but this network has places for {places}: "
                                "shorten it, or truncate it (on the left or on the right)")
        if held and filled + size(example) > tokens * ahead:
            yield from _laid(held, device, tokens)
            held, filled = [], 0
        held.append((number, item, example))
        filled += size(example)
    yield from _laid(held, device, tokens)


def in_order(answered: Iterable[tuple[Sequence[int], Iterable[Answer]]]) -> Iterator[Answer]:
    """Answers that come with their numbers, one after the other by number; those that come early wait."""
    waiting: dict[int, Answer] = {}
    due = 0
    for numbers, answers in answered:
        waiting.update(zip(numbers, answers, strict=True))
        while due in waiting:
            yield waiting.pop(due)
            due += 1


def packed(examples: Sequence[Example], places: Sequence[int], device: torch.device) -> Example:
    """The Examples at `places` (all of one kind) as one row on `device`, in that order."""
    (row,) = pack([examples[place] for place in places])
    return row.to(device)


def size(example: Example) -> int:
    """Tokens that are read for an Example, by both towers."""
    return len(example) + (0 if example.source is None else len(example.source))


@contextmanager
def reading(network: torch.nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; the training flag is put back afterwards."""
    was_training = network.training
    network.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        network.train(was_training)


def encoded(tokenizer: Tokenizer, texts: Iterable[str], reserved: bool = True) -> Iterator[list[int]]:
    """The ids of each text of a stream, which is taken up a few hundred texts at a time."""
    some: list[str] = []
    characters = 0
    for text in texts:
        some.append(text)
        characters += len(text)
        if len(some) >= TEXTS or characters >= CHARACTERS:
            yield from tokenizer.encode_batch(some, reserved)
            some, characters = [], 0
    if some:
        yield from tokenizer.encode_batch(some, reserved)


def _laid(held: Sequence[tuple[int, Item, Example]], device: torch.device, tokens: int
          ) -> Iterator[tuple[list[int], list[Item], Example]]:
    """What is held, in rows: Examples of one kind together, the shortest first."""
    kinds: dict[object, list[tuple[int, Item, Example]]] = {}
    for one in sorted(held, key=lambda one: size(one[2])):
        kinds.setdefault(kind(one[2]), []).append(one)
    for alike in kinds.values():
        for group in groups([size(example) for _, _, example in alike], tokens):
            (row,) = pack([alike[i][2] for i in group])
            yield [alike[i][0] for i in group], [alike[i][1] for i in group], row.to(device)
