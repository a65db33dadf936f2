"""The half of a model that reads: scores of tokens, and a vector for each text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from bothways.api.held import Held, Ids, Texts
from bothways.batch import pack
from bothways.errors import BothwaysError, nearest
from bothways.objectives.base import ask, example, reading
from bothways.visibility import Visibility, bidirectional

POOLINGS = ("mean", "first", "pooled")
"""How the states of a text become one vector."""
ROW = 8192
"""Tokens read in one pass when many texts are embedded."""


class Reads(Held):
    """A model as one reads with it."""

    @torch.no_grad()
    def logits(self, ids: Ids, source: Ids | None = None, visibility: str | Visibility | None = None,
               segments: Ids | None = None) -> Tensor:
        """Scores over the vocabulary at every place.

        Args:
            ids: (L,) or (B, L) token ids as the network reads them: no `<bos>` is added.
            source: (M,) or (B, M) what the other of two towers reads.
            visibility: the name of a trained mode, or any visibility value; none stands for the only trained one.
            segments: (L,) or (B, L) which segment each token is of (BERT's token types); all of the first when none.
        Returns:
            (B, L, V) float, B = 1 for a single text. What a place speaks of (itself or the next token) the mode says.
        Raises:
            BothwaysError: several trained visibilities and none named; a source for one tower or none for two; ids
                outside the vocabulary, or more of them than the network has places; segments for a network that knows
                none, or not one for each token; a network that gives states only.
        """
        rows = self._rows(ids, "ids")
        sources = None if source is None else self._rows(source, "source")
        facts = None if segments is None else self._segments(rows, segments)
        # texts of one length keep their order, so their passes stand one behind the other
        passes = [logits for _, logits in self._passes(rows, sources, visibility, ROW, facts)]
        return (passes[0] if len(passes) == 1 else torch.cat(passes)).unflatten(0, (len(rows), -1))

    @torch.no_grad()
    def logits_of_each(self, ids: Sequence[Ids], source: Sequence[Ids] | None = None,
                       visibility: str | Visibility | None = None, batch_tokens: int = ROW) -> list[Tensor]:
        """As `logits`, for texts of different lengths, which travel packed and are never padded.

        Args:
            ids: (L_i,) token ids of each text. source: of each, for two towers.
            batch_tokens: how many tokens (of both towers) are read in one pass; one text alone may have more.
        Returns:
            for each text, in order, (L_i, V).
        """
        sources = None if source is None else [self._rows(one, "source")[0] for one in source]
        rows = [self._rows(one, "ids")[0] for one in ids]
        found: list[Tensor] = [torch.empty(0)] * len(rows)
        for group, logits in self._passes(rows, sources, visibility, batch_tokens):
            for i, part in zip(group, logits.split([len(rows[i]) for i in group]), strict=True):
                found[i] = part
        return found

    def _passes(self, rows: Sequence[np.ndarray], sources: Sequence[np.ndarray] | None,
                visibility: str | Visibility | None, budget: int,
                facts: Sequence[Mapping[str, np.ndarray]] | None = None) -> Iterator[tuple[list[int], Tensor]]:
        """Texts of like length read together: which, and the scores (N, V) of all their tokens."""
        sees, two = self._visibility(visibility), self.config.stack == "two towers"
        if (sources is not None) != two:
            raise BothwaysError("this network has two towers: give what the other one reads as `source`" if two else
                                "this network has one tower and reads no source: leave `source` out")
        if sources is not None and len(sources) != len(rows):
            raise BothwaysError(f"ids hold {len(rows)} texts and source {len(sources)}: give one source for each text")
        others = [None] * len(rows) if sources is None else sources
        network, head = self.trained.network, self.objective.modes[0].head
        lengths = [len(row) + (0 if other is None else len(other)) for row, other in zip(rows, others, strict=True)]
        for group in _groups(lengths, budget):
            # 1. every text a document of one row
            (packed,) = pack([reading(rows[i], sees, False, **(facts[i] if facts else {}))
                              if (other := others[i]) is None else
                              example(rows[i], sees, source=example(other, bidirectional), cross=bidirectional)
                              for i in group])
            # 2. one pass, by whoever names tokens
            packed = replace(packed, asks=(ask(np.arange(len(packed)), packed.inputs.numpy(), head=head),))
            yield group, self.objective.logits(network, network(packed.to(self.device)).states, head)

    @torch.no_grad()
    def embed(self, texts: Texts, layer: int = -1, visibility: str | Visibility | None = None,
              batch_tokens: int = ROW, pooling: Literal["mean", "first", "pooled"] = "mean") -> Tensor:
        """One vector for each text: by default the mean of a layer's states over the text's own tokens.

        Two towers are read by the one that reads. Texts longer than the network has places are cut.

        Args:
            layer: -1 for the last states behind the norm, 0 for the embedding, k for what layer k gives.
            visibility: the name of a trained mode, or a value; needed where several were trained.
            batch_tokens: how many tokens are packed into one pass.
            pooling: "mean" over the text's own tokens; "first", the state of its first token; "pooled", what a trained
                pooler makes of that state (BERT, ALBERT).
        Returns:
            (n, D) float32 on the CPU, in the order of the texts.
        Raises:
            BothwaysError: a layer or a pooling there is not, or a network without a pooler.
        """
        if pooling not in POOLINGS:
            raise BothwaysError(f"pooling is '{pooling}' {nearest(str(pooling), POOLINGS)}")
        texts = [texts] if isinstance(texts, str) else list(texts)
        two = self.config.stack == "two towers"
        sees = bidirectional if two and visibility is None else self._visibility(visibility)
        layers = self.config.shape.source_layers if two else self.config.shape.layers
        if not -layers - 1 <= layer <= layers:
            raise BothwaysError(f"layer is {layer}, but this network has the layers 0 (embedding) to {layers}, or -1")
        vocabulary, most = self.vocabulary, self.config.position.length
        rows = [np.array([vocabulary.bos, *ids, vocabulary.eos][:most], dtype=np.int64)
                for ids in self.tokenizer.encode_batch(texts)]
        pooled = torch.zeros(len(rows), self.config.shape.width)
        # 1. texts of like length together, as many as fit
        for group in _groups([len(row) for row in rows], batch_tokens):
            (packed,) = pack([reading(rows[i], sees) for i in group])
            output = self.trained.network.encode(packed.to(self.device), hidden=layer != -1)
            states = output.states if layer == -1 else (output.hidden or ())[layer]
            lengths = [len(rows[i]) for i in group]
            # 2. the mean over ordinary tokens, or over all where there are none; or what the first one says
            if pooling != "mean":
                first = states[torch.tensor([0, *np.cumsum(lengths)[:-1].tolist()], device=states.device)]
                first = self.trained.network.pooled(first) if pooling == "pooled" else first
                pooled[torch.tensor(group)] = first.float().cpu()
                continue
            for i, part in zip(group, states.float().cpu().split(lengths), strict=True):
                own = torch.from_numpy(~vocabulary.special[rows[i]])
                pooled[i] = part[own].mean(0) if bool(own.any()) else part.mean(0)
        return pooled

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


def _groups(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Indices in order of length, cut where the next text would not fit into `budget` tokens."""
    groups: list[list[int]] = []
    filled = budget + 1
    for i in sorted(range(len(lengths)), key=lambda i: lengths[i]):
        if filled + lengths[i] > budget:
            groups.append([])
            filled = 0
        groups[-1].append(i)
        filled += lengths[i]
    return groups
