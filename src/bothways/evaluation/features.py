"""Frozen features: a vector for each text, or for each span of tokens, read from a network as it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from bothways.batch import Example
from bothways.errors import BothwaysError
from bothways.evaluation.answers import TOKENS, batches, packed, reading
from bothways.objectives import base
from bothways.visibility import Visibility, bidirectional, causal

if TYPE_CHECKING:
    from bothways.families.trained import Trained
    from bothways.model import LanguageModel
    from bothways.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class Tagged:
    """A text whose spans of tokens carry tags: spans are (first token, token after the last, tag)."""

    ids: np.ndarray
    spans: tuple[tuple[int, int, str], ...]


def text_ids(tokenizer: Tokenizer, texts: Sequence[str], longest: int = 256) -> list[np.ndarray]:
    """`<bos>` and at most `longest - 1` tokens of each text: the form in which every task reads texts."""
    begin = tokenizer.vocabulary.bos
    encoded = tokenizer.encode_batch(list(texts), reserved=False)
    return [np.array([begin, *ids[:longest - 1]], dtype=np.int64) for ids in encoded]


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
    """Mean over the counted tokens of each document: (N, D) and (N,) bool to (documents, D)."""
    document = row.fields["document"].to(states.device)
    weights = counted.to(states.dtype)
    documents = int(row.fields["document"].max()) + 1
    sums = states.new_zeros(documents, states.shape[-1]).index_add(0, document, states * weights[:, None])
    counts = weights.new_zeros(documents).index_add(0, document, weights)
    return sums / counts.clamp(min=1)[:, None]


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
    seen = visibility_named(trained, visibility)
    examples = [reading_example(ids, seen) for ids in _ids(trained, texts, longest)]
    special = torch.from_numpy(trained.vocabulary.special)
    found = np.zeros((len(examples), trained.network.config.shape.width), dtype=np.float32)
    with reading(trained.network):
        for places in batches_by_length(examples, tokens):
            row = packed(examples, places, _device(trained))
            states = states_of(trained.network, row, layer)
            counted = ~special.to(row.inputs.device)[row.inputs]
            found[places] = pool(states, row, counted).float().cpu().numpy()
    return found


def span_features(trained: Trained, tagged: Sequence[Tagged], *, layer: int = -1, visibility: str | None = None,
                  tokens: int = TOKENS) -> np.ndarray:
    """The mean state of each tagged span, all spans of all texts in order: (spans, D) float32."""
    seen = visibility_named(trained, visibility)
    examples = [reading_example(text.ids, seen) for text in tagged]
    parts: list[np.ndarray] = [np.zeros((0, trained.network.config.shape.width), np.float32)] * len(tagged)
    with reading(trained.network):
        for places in batches_by_length(examples, tokens):
            row = packed(examples, places, _device(trained))
            states = states_of(trained.network, row, layer)
            firsts = np.cumsum([0, *(len(examples[place]) for place in places)])
            bounds = [(int(first) + start, int(first) + end) for place, first in zip(places, firsts)
                      for start, end, _ in tagged[place].spans]
            means = mean_of_spans(states, bounds).float().cpu().numpy()
            counts = [len(tagged[place].spans) for place in places]
            for place, part in zip(places, np.split(means, np.cumsum(counts)[:-1])):
                parts[place] = part
    return np.concatenate(parts) if parts else np.zeros((0, trained.network.config.shape.width), np.float32)


def mean_of_spans(states: Tensor, bounds: Sequence[tuple[int, int]]) -> Tensor:
    """The mean of states[start:end] for each (start, end): (N, D) to (spans, D)."""
    lengths = np.array([end - start for start, end in bounds], dtype=np.int64)
    owner = np.repeat(np.arange(len(bounds)), lengths)
    token = np.concatenate([np.arange(start, end) for start, end in bounds]) if len(bounds) else owner
    sums = states.new_zeros(len(bounds), states.shape[-1]).index_add(
        0, torch.from_numpy(owner).to(states.device), states[torch.from_numpy(token).to(states.device)])
    return sums / torch.from_numpy(lengths).to(states)[:, None].clamp(min=1)


def batches_by_length(examples: Sequence[Example], tokens: int) -> list[list[int]]:
    """Places of Examples in rows of at most `tokens`, texts of like length together (equal lengths share a call)."""
    order = sorted(range(len(examples)), key=lambda place: len(examples[place]))
    return [[order[place] for place in row] for row in batches([examples[place] for place in order], tokens)]


def _ids(trained: Trained, texts: Sequence[str] | Sequence[np.ndarray], longest: int) -> list[np.ndarray]:
    strings = [text for text in texts if isinstance(text, str)]
    encoded = iter(text_ids(trained.tokenizer, strings, longest) if strings else [])
    return [next(encoded) if isinstance(text, str) else np.asarray(text, dtype=np.int64)[:longest] for text in texts]


def _device(trained: Trained) -> torch.device:
    return next(trained.network.parameters()).device
