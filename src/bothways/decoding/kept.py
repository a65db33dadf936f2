"""Reading only what changes while blanks are filled: what stands before a block is kept.

Two cases, and only the first is exact:

- Block diffusion: nobody before a block may look into it, so kept keys and values are what a new reading would give.
- A network that reads both ways, with `prefix_cache`: what stands before a block is read once, when the block begins,
  and then kept although the block goes on changing under its eyes (the prefix cache of Fast-dLLM, arXiv 2505.22618,
  section 3.1). An approximation: the kept states have seen the block with nothing in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from bothways.batch import Example
from bothways.decoding.blanks import Blanks, Reader
from bothways.errors import BothwaysError
from bothways.families.trained import Trained
from bothways.visibility import IntoPrefix, bidirectional, same_block, same_document

STALE = IntoPrefix() | same_block
"""Who looks at whom once a prefix is kept: the block (part of no prefix) at both; nothing kept looks any more."""


class KeptReader(Reader):
    """Reads each text's question but for the rows that are kept: those before the block.

    Args:
        count: texts of the call, numbered from 0.
        capacity: tokens for which there is room in each; it grows where that is not enough.
    """

    def __init__(self, trained: Trained, count: int, capacity: int) -> None:
        super().__init__(trained)
        self.cache = trained.network.cache(count, capacity)
        self.slots = {row: row for row in range(count)}
        self.bytes = 0

    @torch.inference_mode()
    def states(self, texts: Sequence[Blanks], questions: Sequence[Example]) -> list[Tensor]:
        """Of each question the states (T, D) that its Ask points at; one pass over the rows that are not kept."""
        before = self.cache.lengths.clone()
        # 1. of each question, the rows to keep from now on, and those to read this time only
        rows, after, wheres, first = [], before.clone(), [], 0
        for text, question in sorted(zip(texts, questions, strict=True), key=lambda pair: self.slots[pair[0].row]):
            slot = self.slots[text.row]
            steady, passing = self._parts(text, question, int(before[slot]))
            after[slot] = before[slot] + len(steady)
            order = torch.cat((steady, passing))
            rows.append(_numbered(_some(question, order), slot))
            back = torch.zeros(len(question), dtype=torch.long)
            back[order] = torch.arange(len(order))
            wheres.append((text.row, back[question.asks[0].where] + first))
            first += len(order)
        # 2. one pass; then the passing rows are forgotten
        states = self.trained.network(_laid(rows).to(self.trained.device), cache=self.cache).states
        self.cache.shorten(after)
        self.bytes = max(self.bytes, self.cache.bytes)
        found = {row: states[where.to(states.device)] for row, where in wheres}
        return [found[text.row] for text in texts]

    @torch.inference_mode()
    def only(self, texts: Sequence[Blanks]) -> None:
        rows = sorted((text.row for text in texts), key=lambda row: self.slots[row])
        if len(rows) < len(self.slots):
            self.cache.keep([self.slots[row] for row in rows])
            self.slots = {row: slot for slot, row in enumerate(rows)}

    def _parts(self, text: Blanks, question: Example, kept: int) -> tuple[Tensor, Tensor]:
        """Rows of a question that are new and will be kept, and rows for this time: clean ones, and the open block."""
        clean = question.fields["prefix"] == 1
        here = question.fields["block"] == question.fields["block"][question.asks[0].where].max()
        return (clean & (question.fields["index"] >= kept)).nonzero().flatten(), here.nonzero().flatten()


class StaleReader(KeptReader):
    """The approximation. A text is read whole when a block begins; then only the block is."""

    def __init__(self, trained: Trained, count: int, capacity: int) -> None:
        super().__init__(trained, count, capacity)
        self.starts: dict[int, tuple[Tensor, int]] = {}

    def states(self, texts: Sequence[Blanks], questions: Sequence[Example]) -> list[Tensor]:
        """The states each question asks for, from the kept beginning of its text and its block."""
        # 1. a text whose block is another than last time is read from its beginning
        for text, question in zip(texts, questions, strict=True):
            places = torch.from_numpy(text.places)
            known = self.starts.get(text.row)
            if known is None or not torch.equal(known[0], places):
                self.starts[text.row] = places, int(question.asks[0].where.min())
                left = self.cache.lengths.clone()
                left[self.slots[text.row]] = 0
                self.cache.shorten(left)
        # 2. those, and the others, each in one pass
        marked = [self._marked(text, question) for text, question in zip(texts, questions, strict=True)]
        found: dict[int, Tensor] = {}
        for visibility in (bidirectional, STALE):
            some = [i for i, question in enumerate(marked) if question.visibility == visibility]
            if some:
                read = super().states([texts[i] for i in some], [marked[i] for i in some])
                found |= dict(zip(some, read, strict=True))
        return [found[i] for i in range(len(texts))]

    def _marked(self, text: Blanks, question: Example) -> Example:
        """The question with its prefix marked; it looks both ways when it is read whole."""
        if question.visibility != bidirectional:
            raise BothwaysError(f"prefix_cache is for a network that reads both ways, and this one reads "
                                f"'{question.visibility!r}': leave it out")
        inside = (question.fields["index"] < self.starts[text.row][1]).long()
        whole = int(self.cache.lengths[self.slots[text.row]]) == 0
        return replace(question, visibility=bidirectional if whole else STALE,
                       fields={**question.fields, "prefix": inside, "block": 1 - inside})

    def _parts(self, text: Blanks, question: Example, kept: int) -> tuple[Tensor, Tensor]:
        steady = question.fields["prefix"] == 1
        return (steady & (question.fields["index"] >= kept)).nonzero().flatten(), (~steady).nonzero().flatten()


def _some(example: Example, rows: Tensor) -> Example:
    """Some of its tokens, without what is asked."""
    return Example(example.inputs[rows], example.visibility, {name: fact[rows] for name, fact in
                                                              example.fields.items()})


def _numbered(example: Example, document: int) -> Example:
    return replace(example, fields={**example.fields, "document": torch.full((len(example),), document)})


def _laid(parts: Sequence[Example]) -> Example:
    """Numbered documents in one row."""
    return Example(torch.cat([part.inputs for part in parts]), parts[0].visibility & same_document,
                   {name: torch.cat([part.fields[name] for part in parts]) for name in parts[0].fields})
