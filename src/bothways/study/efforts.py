"""How many items are measured: the one table behind "smoke", "quick" and "full".

Binomial noise decides the sizes: 100 pairs are good to 5 points (one standard deviation at 50%), 1,000 to 1.6.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Effort:
    """Numbers of test items, and of passes over labelled texts."""

    windows: int
    """Held-out windows whose second half is scored."""
    samples: int
    """Draws of each diffusion bound."""
    blanks: int
    pairs: int
    """Minimal pairs of each kind."""
    labelled: tuple[int, int]
    """Labelled texts to train and to test a classifier."""
    longest: int
    """Tokens of a labelled text that are read."""
    tagged: tuple[int, int]
    steps: int
    """Updates in fine-tuning, 32 texts each."""
    points: int
    """Points of the learning curve that are measured on the common currencies."""
    curve_windows: int
    curve_samples: int
    curve_labelled: tuple[int, int]
    written: int
    """Tokens of a written sample."""
    prompts: int
    functions: tuple[int, int]
    """Functions to train and to test rewriting; (0, 0) leaves it out."""
    documents: int
    """Documents of the known source."""


EFFORTS: dict[str, Effort] = {
    "smoke": Effort(windows=4, samples=2, blanks=8, pairs=6, labelled=(40, 24), longest=32, tagged=(16, 8), steps=3,
                    points=3, curve_windows=2, curve_samples=2, curve_labelled=(24, 16), written=6, prompts=1,
                    functions=(0, 0), documents=300),
    "quick": Effort(windows=48, samples=8, blanks=256, pairs=150, labelled=(800, 400), longest=64, tagged=(200, 100),
                    steps=60, points=8, curve_windows=16, curve_samples=4, curve_labelled=(300, 200), written=32,
                    prompts=2, functions=(0, 0), documents=40_000),
    "full": Effort(windows=128, samples=16, blanks=512, pairs=300, labelled=(2000, 1000), longest=128,
                   tagged=(600, 300), steps=200, points=7, curve_windows=24, curve_samples=4,
                   curve_labelled=(300, 200), written=48, prompts=3, functions=(400, 60), documents=60_000),
}
