"""Frozen features: a vector for each text, or for each span of tokens, read from a network as it is."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor

from bothways.batch import Example
from bothways.errors import BothwaysError, nearest
from bothways.evaluation.rows import TOKENS, encoded, in_order, reading, rows
from bothways.objectives import base
from bothways.visibility import Visibility, bidirectional, causal

if TYPE_CHECKING:
    from bothways.families.trained import Trained
    from bothways.model import LanguageModel
    from bothways.text.tokenizer import Tokenizer

Pooling = Literal["mean", "first", "pooled"]
"""How the states of a text become one vector."""
POOLINGS = ("mean", "first", "pooled")


@dataclass(frozen=True)
class Tagged:
    """A text whose spans of tokens carry tags: spans are (first token, token after the last, tag)."""

    ids: np.ndarray
    spans: tuple[tuple[int, int, str], ...]


def text_ids(tokenizer: Tokenizer, texts: Iterable[str], longest: int = 256) -> list[np.ndarray]:
    """`<bos>` and at most `longest - 1` tokens of each text: the form in which every task reads texts."""
    return list(ids_of_each(tokenizer, texts, longest))


def ids_of_each(tokenizer: Tokenizer, texts: Iterable[str], longest: int) -> Iterator[np.ndarray]:
    """As `text_ids`, for a stream."""
    begin = tokenizer.vocabulary.bos
    for ids in encoded(tokenizer, texts, reserved=False):
        yield np.array([begin, *ids[:longest - 1]], dtype=np.int64)


def tagged_spans(tokenizer: Tokenizer, text: str, spans: Sequence[tuple[int, int, str]], longest: int = 256) -> Tagged:
    """Tags on spans of characters (start, end, tag) as tags on the tokens they overlap, `<bos>` counted in.

    A `bothways.text.labels.Tagged` fits as it is: `tagged_spans(tokenizer, *tagged)`. Spans beyond the first
    `longest` tokens are left out, and so is a span that overlaps no token.
    """
    ids = np.array([tokenizer.vocabulary.bos, *tokenizer.encode(text)], dtype=np.int64)[:longest]
    offsets = np.array(tokenizer.offsets(text), dtype=np.int64).reshape(-1, 2)[:longest - 1]
    found = []
    for start, end, tag in spans:
        overlap = np.flatnonzero((offsets[:, 0] < end) & (offsets[:, 1] > start))
        # the last span may have lost its end to the cut
        if len(overlap) and (len(ids) < longest or offsets[-1, 1] >= end):
            found.append((int(overlap[0]) + 1, int(overlap[-1]) + 2, tag))
    return Tagged(ids, tuple(found))


def tagged_tokens(ids: np.ndarray, tags: Sequence[str | None]) -> Tagged:
    """One tag (or none) for each token, as spans of one token."""
    return Tagged(np.asarray(ids, dtype=np.int64),
                  tuple((place, place + 1, tag) for place, tag in enumerate(tags) if tag is not None))


def native(trained: Trained, mode: str | None = None) -> Visibility:
    """The visibility a text is read with: the mode's own; a two-tower network reads with its encoder, both ways."""
    if trained.objective.stack == "two towers":
        return bidirectional
    modes = trained.objective.modes
    return (modes[0] if mode is None else trained.objective.mode(mode)).visibility


def visibility_named(trained: Trained, name: str | None) -> Visibility:
    """"native" (or none), "bidirectional", "causal", or the name of one of the model's modes.

    Raises:
        BothwaysError: any other name.
    """
    if name in (None, "native"):
        return native(trained)
    if name in ("bidirectional", "causal") and trained.objective.stack == "one tower":
        return bidirectional if name == "bidirectional" else causal
    return native(trained, name)


def reading_example(ids: np.ndarray, visibility: Visibility) -> Example:
    """A text as it is read, nothing asked."""
    return base.reading(ids, visibility)


def states_of(network: LanguageModel, row: Example, layer: int = -1) -> Tensor:
    """The states (N, D) of a packed row: the last ones, or those of `layer` (0 is the embedding).

    Two towers read with their encoder. With gradients when they are on.
    """
    output = network.encode(row, hidden=layer != -1)
    if output.hidden is None:
        return output.states
    layers = output.hidden
    if not -len(layers) <= layer < len(layers):
        raise BothwaysError(f"layer {layer} does not exist: this network has the embedding (0) and layers 1 to "
                            f"{len(layers) - 1}")
    return layers[layer]


def pool(states: Tensor, row: Example, counted: Tensor) -> Tensor:
    """Mean over the counted tokens of each document, or over all where none count.

    Args:
        states: (N, D). counted: (N,) bool.
    Returns:
        (documents, D) float32 whatever the network computes in: a sum in bfloat16 would lose what it adds last.
    """
    document = row.fields["document"].to(states.device)
    documents = int(row.fields["document"].max()) + 1
    weights = counted.float()
    counts = weights.new_zeros(documents).index_add(0, document, weights)
    weights = torch.where(counts[document] > 0, weights, 1.0)
    sums = weights.new_zeros(documents, states.shape[-1]).index_add(0, document, states.float() * weights[:, None])
    return sums / weights.new_zeros(documents).index_add(0, document, weights)[:, None]


def vectors(trained: Trained, texts: Iterable[np.ndarray], visibility: Visibility, *, layer: int = -1,
            pooling: Pooling = "mean", tokens: int = TOKENS) -> Iterator[np.ndarray]:
    """One vector for each text of a stream, in order: (D,) float32 each.

    Args:
        texts: (L,) ids of each, one at least.
        layer: -1 the last (after the final norm), 0 the embedding.
        pooling: "mean" of the states over the text's own tokens, or over all where it has none; "first", the state of
            its first token; "pooled", what a trained pooler makes of that one (BERT, ALBERT).
        tokens: in one pass, see `rows`.
    Raises:
        BothwaysError: a layer or a pooling there is not.
    """
    if pooling not in POOLINGS:
        raise BothwaysError(f"pooling is '{pooling}' {nearest(str(pooling), POOLINGS)}")
    special = torch.from_numpy(trained.vocabulary.special).to(trained.device)

    def row_by_row() -> Iterator[tuple[list[int], np.ndarray]]:
        as_read = functools.partial(reading_example, visibility=visibility)
        for numbers, some, row in rows(texts, as_read, trained.device, tokens, places=trained.config.position.length):
            with reading(trained.network):
                states = states_of(trained.network, row, layer)
                if pooling == "mean":
                    pooled = pool(states, row, ~special[row.inputs])
                else:
                    firsts = np.cumsum([0, *map(len, some[:-1])])
                    pooled = states[torch.from_numpy(firsts).to(states.device)]
                    pooled = trained.network.pooled(pooled) if pooling == "pooled" else pooled
                pooled = pooled.float().cpu()
            yield numbers, pooled.numpy()

    return in_order(row_by_row())


def text_features(trained: Trained, texts: Sequence[str] | Sequence[np.ndarray], *, layer: int = -1,
                  visibility: str | None = None, longest: int = 256, tokens: int = TOKENS) -> np.ndarray:
    """Mean-pooled states of each text, reserved tokens left out.

    Args:
        texts: strings, or (L,) ids beginning with `<bos>`.
        layer: -1 the last (after the final norm), 0 the embedding.
        visibility: see `visibility_named`; the model's own by default.
        longest: tokens of a text that are read.
    Returns:
        (n, D) float32 in the order of `texts`.
    """
    ids = _ids(trained, texts, longest)
    found = vectors(trained, ids, visibility_named(trained, visibility), layer=layer, tokens=tokens)
    return np.stack(list(found)) if ids else np.zeros((0, trained.config.shape.width), np.float32)


def span_features(trained: Trained, tagged: Sequence[Tagged], *, layer: int = -1, visibility: str | None = None,
                  tokens: int = TOKENS) -> np.ndarray:
    """The mean state of each tagged span, all spans of all texts in order: (spans, D) float32."""
    seen = visibility_named(trained, visibility)

    def row_by_row() -> Iterator[tuple[list[int], list[np.ndarray]]]:
        for numbers, some, row in rows(tagged, lambda text: reading_example(text.ids, seen), trained.device, tokens,
                                       places=trained.config.position.length):
            with reading(trained.network):
                means = mean_of_spans(states_of(trained.network, row, layer), bounds_of(some)).float().cpu().numpy()
            yield numbers, np.split(means, np.cumsum([len(text.spans) for text in some])[:-1])

    return np.concatenate([np.zeros((0, trained.config.shape.width), np.float32), *in_order(row_by_row())])


def bounds_of(texts: Sequence[Tagged]) -> list[tuple[int, int]]:
    """Where the spans of texts lie once those are packed end to end."""
    firsts = np.cumsum([0, *(len(text.ids) for text in texts)])
    return [(int(first) + start, int(first) + end) for text, first in zip(texts, firsts)
            for start, end, _ in text.spans]


def mean_of_spans(states: Tensor, bounds: Sequence[tuple[int, int]]) -> Tensor:
    """The mean of states[start:end] for each (start, end): (N, D) to (spans, D) float32."""
    lengths = np.array([end - start for start, end in bounds], dtype=np.int64)
    owner = np.repeat(np.arange(len(bounds)), lengths)
    token = np.concatenate([np.arange(start, end) for start, end in bounds]) if len(bounds) else owner
    chosen = states[torch.from_numpy(token).to(states.device)].float()
    sums = chosen.new_zeros(len(bounds), states.shape[-1]).index_add(
        0, torch.from_numpy(owner).to(states.device), chosen)
    return sums / torch.from_numpy(lengths).to(sums)[:, None].clamp(min=1)


def _ids(trained: Trained, texts: Sequence[str] | Sequence[np.ndarray], longest: int) -> list[np.ndarray]:
    longest = min(longest, trained.config.position.length)
    strings = [text for text in texts if isinstance(text, str)]
    made = iter(text_ids(trained.tokenizer, strings, longest) if strings else [])
    return [next(made) if isinstance(text, str) else np.asarray(text, dtype=np.int64)[:longest] for text in texts]
