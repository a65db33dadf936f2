"""What `bothways see --attention` draws: where trained networks looked, and what a word hangs on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from bothways.errors import BothwaysError

if TYPE_CHECKING:
    import numpy as np
    from rich.console import Console

    from bothways.evaluation.attention_maps import Attribution, Looks

MOST = 48
"""Tokens of a text that are drawn."""


def draw(folders: Sequence[str], text: str, explain: str | None, console: Console) -> str:
    """One SVG over all models, and the strongest links of each on the console.

    Raises:
        BothwaysError: a folder that cannot be read, a model without attention, a text that is too long to draw, or a
            word that is not in it.
    """
    import numpy as np

    from bothways.evaluation.attention_maps import attribution, looks
    from bothways.families.folder import load
    from bothways.pictures.heat import Square, Strip, attention, attributions

    rows, strips = [], []
    for folder in folders:
        trained = load(folder)
        ids = np.array([trained.vocabulary.bos, *trained.tokenizer.encode(text, reserved=False)], dtype=np.int64)
        if not 1 < len(ids) <= MOST:
            raise BothwaysError(f"the text has {len(ids) - 1} tokens for '{folder}', and 1 to {MOST - 1} can be drawn")
        if explain is None:
            found = looks(trained, ids)
            labels = _labels(trained.tokenizer.pieces(ids))
            _print_looks(console, folder, found, labels)
            rows.append((f"{folder}: {found.mode}", labels, [
                Square(f"layer {layer + 1}, mean of {len(weights)} heads", weights.mean(0), found.seen)
                for layer, weights in enumerate(found.weights)]))
        else:
            told = attribution(trained, ids, _place(trained.tokenizer.pieces(ids), explain))
            labels = _labels(trained.tokenizer.pieces(told.ids))
            _print_told(console, folder, told, labels)
            strips.append(Strip(f"{folder}: {told.mode}", labels, told.scores, f"log p({explain}) {told.log_prob:.2f}"))
    return attributions(strips) if strips else attention(rows)


def _place(pieces: Sequence[str], word: str) -> int:
    """The first place after the beginning whose piece is the word, or the word's beginning."""
    plain = _labels(pieces)
    for fits in (lambda label: label == word, lambda label: bool(label) and word.startswith(label)):
        for place, label in enumerate(plain):
            if place and fits(label):
                return place
    raise BothwaysError(f"the word '{word}' is not in the text: choose one of {', '.join(plain[1:])}")


def _labels(pieces: Sequence[str]) -> list[str]:
    return [piece.strip() or repr(piece) for piece in pieces]


def _print_looks(console: Console, folder: str, found: Looks, labels: Sequence[str]) -> None:
    """For each layer, whom each token looks at most, but for itself and the beginning."""
    console.print(f"{folder}: {found.mode}", style="bold")
    for layer, weights in enumerate(found.weights):
        mean = weights.mean(0).copy()
        mean[range(len(mean)), range(len(mean))] = 0
        mean[:, 0] = 0
        links = [f"{labels[row]}→{labels[int(mean[row].argmax())]} {mean[row].max():.2f}" for row in _strongest(mean)]
        console.print(f"  layer {layer + 1}: {', '.join(links)}", markup=False)


def _strongest(mean: np.ndarray) -> list[int]:
    """The five rows that look hardest at another token."""
    return [int(row) for row in mean.max(1).argsort()[::-1][:5] if mean[row].max() > 0]


def _print_told(console: Console, folder: str, told: Attribution, labels: Sequence[str]) -> None:
    """The tokens that count most."""
    console.print(f"{folder}: {told.mode}, log p {told.log_prob:.3f}, {told.missing:+.3f} unexplained", style="bold")
    order = abs(told.scores).argsort()[::-1][:6]
    console.print("  " + ", ".join(f"{labels[int(place)]} {told.scores[place]:+.2f}" for place in order), markup=False)
