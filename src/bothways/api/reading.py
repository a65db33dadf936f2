"""The half of a model that reads: scores of tokens, and a vector for each text.

Texts travel packed under a token budget and are never padded (`evaluation.rows`). A list gives all its answers at once;
an iterator, however long, gives an iterator of answers, and is taken up only as far as those are asked for.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, TypeVar, overload

import numpy as np
import torch
from torch import Tensor

from bothways.api.held import Held, Ids, Texts
from bothways.batch import Example
from bothways.errors import BothwaysError
from bothways.evaluation.features import Pooling, vectors
from bothways.evaluation.rows import AHEAD, TOKENS, encoded, in_order, rows
from bothways.objectives.base import ask, example, reading
from bothways.visibility import Visibility, bidirectional

Source = TypeVar("Source")


@dataclass(frozen=True)
class _Text:
    """Ids to be scored (L,), what the other tower reads with them (M,), and what else is known of each id."""

    ids: np.ndarray
    source: np.ndarray | None
    facts: Mapping[str, np.ndarray] = field(default_factory=dict)


class Reads(Held):
    """A model as one reads with it."""

    def logits(self, ids: Ids, source: Ids | None = None, visibility: str | Visibility | None = None,
               segments: Ids | None = None, batch_tokens: int = TOKENS) -> Tensor:
        """Scores over the vocabulary at every place.

        Args:
            ids: (L,) or (B, L) token ids as the network reads them: no `<bos>` is added.
            source: (M,) or (B, M) what the other of two towers reads.
            visibility: the name of a trained mode, or any visibility value; none stands for the only trained one.
            segments: (L,) or (B, L) which segment each token is of (BERT's token types); all of the first when none.
            batch_tokens: how many tokens (of both towers) are read in one pass; one text alone may have more.
        Returns:
            (B, L, V) float, B = 1 for a single text. What a place speaks of (itself or the next token) the mode says.
        Raises:
            BothwaysError: several trained visibilities and none named; a source for one tower or none for two; ids
                outside the vocabulary, or more of them than the network has places; segments for a network that knows
                none, or not one for each token; a network that gives states only.
        """
        read = self._rows(ids, "ids")
        others = self._others(None if source is None else self._rows(source, "source"), len(read))
        facts = [{}] * len(read) if segments is None else self._segments(read, segments)
        texts = [_Text(*one) for one in zip(read, others, facts, strict=False)]
        # texts of one length keep their order, so their passes stand one behind the other
        passes = [logits for _, _, logits in self._passes(texts, visibility, batch_tokens)]
        return (passes[0] if len(passes) == 1 else torch.cat(passes)).unflatten(0, (len(read), -1))

    @overload
    def logits_of_each(self, ids: Sequence[Ids], source: Sequence[Ids] | None = ...,
                       visibility: str | Visibility | None = ..., batch_tokens: int = ...) -> list[Tensor]: ...
    @overload
    def logits_of_each(self, ids: Iterator[Ids], source: Iterator[Ids] | None = ...,
                       visibility: str | Visibility | None = ..., batch_tokens: int = ...) -> Iterator[Tensor]: ...

    def logits_of_each(self, ids: Iterable[Ids], source: Iterable[Ids] | None = None,
                       visibility: str | Visibility | None = None, batch_tokens: int = TOKENS
                       ) -> list[Tensor] | Iterator[Tensor]:
        """As `logits`, for texts of different lengths.

        Args:
            ids: (L_i,) token ids of each text. source: of each, for two towers.
            batch_tokens: as for `logits`.
        Returns:
            for each text, in order, (L_i, V): a list, or an iterator for an iterator, which holds one pass at a time.
        """
        whole = isinstance(ids, Sequence)
        others = self._others(source, len(ids) if isinstance(ids, Sequence) else None)
        texts = (_Text(self._rows(one, "ids")[0], None if other is None else self._rows(other, "source")[0])
                 for one, other in zip(ids, others, strict=source is not None))

        def row_by_row() -> Iterator[tuple[list[int], tuple[Tensor, ...]]]:
            for numbers, some, logits in self._passes(texts, visibility, batch_tokens, AHEAD if whole else 1):
                yield numbers, logits.split([len(text.ids) for text in some])

        return list(in_order(row_by_row())) if whole else in_order(row_by_row())

    @overload
    def embed(self, texts: Texts, layer: int = ..., visibility: str | Visibility | None = ..., batch_tokens: int = ...,
              pooling: Pooling = ..., truncate: Literal["left", "right"] | None = ...) -> Tensor: ...
    @overload
    def embed(self, texts: Iterator[str], layer: int = ..., visibility: str | Visibility | None = ...,
              batch_tokens: int = ..., pooling: Pooling = ..., truncate: Literal["left", "right"] | None = ...
              ) -> Iterator[Tensor]: ...

    def embed(self, texts: Iterable[str], layer: int = -1, visibility: str | Visibility | None = None,
              batch_tokens: int = TOKENS, pooling: Pooling = "mean", truncate: Literal["left", "right"] | None = None
              ) -> Tensor | Iterator[Tensor]:
        """One vector for each text: by default the mean of a layer's states over the text's own tokens.

        Two towers are read by the one that reads.

        Args:
            texts: a text, several, or an iterator of them.
            layer: -1 for the last states behind the norm, 0 for the embedding, k for what layer k gives.
            visibility: the name of a trained mode, or a value; needed where several were trained.
            batch_tokens: how many tokens are packed into one pass; one text alone may have more.
            pooling: "mean" over the text's own tokens; "first", the state of its first token; "pooled", what a trained
                pooler makes of that state (BERT, ALBERT).
            truncate: which side of a text is cut that has more tokens than the network has places; refused when none.
        Returns:
            (n, D) float32 on the CPU, in the order of the texts; for an iterator an iterator of (D,).
        Raises:
            BothwaysError: a layer or a pooling there is not, a network without a pooler, a text that is too long.
        """
        if truncate not in (None, "left", "right"):
            raise BothwaysError(f"truncate is '{truncate}', but a text is cut on the 'left' or on the 'right'")
        two = self.config.stack == "two towers"
        sees = bidirectional if two and visibility is None else self._visibility(visibility)
        layers = self.config.shape.source_layers if two else self.config.shape.layers
        if not -layers - 1 <= layer <= layers:
            raise BothwaysError(f"layer is {layer}, but this network has the layers 0 (embedding) to {layers}, or -1")
        first, last, most = self.vocabulary.bos, self.vocabulary.eos, self.config.position.length - 2

        def as_read(ids: list[int]) -> np.ndarray:
            if truncate is not None and len(ids) > most:
                ids = ids[-most:] if truncate == "left" else ids[:most]
            return np.array([first, *ids, last], dtype=np.int64)

        several = [texts] if isinstance(texts, str) else texts
        found = vectors(self.trained, map(as_read, encoded(self.tokenizer, several)), sees, layer=layer,
                        pooling=pooling, tokens=batch_tokens)
        if not isinstance(several, Sequence):
            return map(torch.from_numpy, found)
        made = list(found)
        return torch.from_numpy(np.stack(made)) if made else torch.zeros(0, self.config.shape.width)

    # --- what calls share ---

    def _passes(self, texts: Iterable[_Text], visibility: str | Visibility | None, budget: int, ahead: int = AHEAD
                ) -> Iterator[tuple[list[int], list[_Text], Tensor]]:
        """Texts of like length read together: their numbers, themselves, and the scores (N, V) of all their tokens."""
        sees = self._visibility(visibility)
        network, head = self.trained.network, self.objective.modes[0].head

        def as_read(text: _Text) -> Example:
            if text.source is None:
                return reading(text.ids, sees, False, **text.facts)
            return example(text.ids, sees, source=example(text.source, bidirectional), cross=bidirectional)

        for numbers, some, row in rows(texts, as_read, self.device, budget, ahead):
            # whoever names tokens reads
            row = replace(row, asks=(ask(np.arange(len(row)), row.inputs.cpu().numpy(), head=head),))
            with torch.no_grad():
                logits = self.objective.logits(network, network(row.to(self.device)).states, head)
            yield numbers, some, logits

    def _others(self, sources: Iterable[Source] | None, count: int | None) -> Iterable[Source | None]:
        """What the other tower reads of each text: nothing of any where there is none.

        Raises:
            BothwaysError: sources for one tower or none for two, or not as many as there are texts.
        """
        two = self.config.stack == "two towers"
        if (sources is not None) != two:
            raise BothwaysError("this network has two towers: give what the other one reads as `source`" if two else
                                "this network has one tower and reads no source: leave `source` out")
        if sources is None:
            return itertools.repeat(None)
        if count is not None and isinstance(sources, Sequence) and len(sources) != count:
            raise BothwaysError(f"ids hold {count} texts and source {len(sources)}: give one source for each text")
        return sources

    def _segments(self, rows: Sequence[np.ndarray], segments: Ids) -> list[dict[str, np.ndarray]]:
        """Which segment each token of each text is of, as a fact to tell the network."""
        if not any(one.kind == "embedding" and one.name == "segment" for one in self.config.companions):
            raise BothwaysError("this network knows no segments: leave `segments` out")
        table = np.asarray(segments)
        table = table[None] if table.ndim == 1 else table
        if table.shape != (len(rows), len(rows[0])):
            raise BothwaysError(f"segments have the shape {table.shape}, but there are {len(rows)} texts of "
                                f"{len(rows[0])} tokens: give one for each token")
        return [{"segment": row} for row in table]
