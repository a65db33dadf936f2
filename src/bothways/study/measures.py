"""What is measured, as data: the common currencies on which every paradigm can be compared.

Each measure belongs to a use, so that the report can answer "which one for what". How a contender is called when
several modes are possible is decided here, before any number is seen (`prefers`), never by the better result.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Source = Literal["known", "text"]


@dataclass(frozen=True)
class Measure:
    """One currency.

    use: what a user would do with a model that is good at it; none for contrasts that answer no such question.
    prefers: the visibility in which a contender that has several stands for itself.
    controls: what it has to beat, besides the untrained network.
    pseudo: whether pseudo-likelihoods may be ranked (a choice between two texts can be, a likelihood cannot).
    """

    key: str
    title: str
    plain: str
    unit: str
    higher_is_better: bool
    use: str | None = None
    prefers: Literal["causal", "bidirectional"] = "causal"
    pseudo: bool = True
    percent: bool = False
    digits: int = 3
    shown: bool = True
    """Whether the report draws a leaderboard of it; the JSON has every number."""


MEASURES: dict[str, Measure] = {measure.key: measure for measure in (
    Measure("suffix-truth", "Distance from the truth, the rest of a text given its beginning",
            "How well the model knows what comes next, and where the text ends. The true probabilities of this source "
            "can be computed; 0 is a model that knows all that can be known.",
            "nats per token above the truth", False, "writing on, left to right", pseudo=False),
    Measure("suffix-nats", "Nats per token of the second half, given the first",
            "What one measure above is made from; tokenizers differ, so it says little across studies.",
            "nats per token", False, None, pseudo=False, shown=False),
    Measure("suffix-bits", "Bits per byte of the second half, given the first",
            "How well the model knows what comes next: the bits it needs for each byte of held-out text.",
            "bits per byte", False, "writing on, left to right", pseudo=False),
    Measure("fill", "Hidden tokens guessed right",
            "The share of hidden tokens that the model's first guess restores, from everything it may see.",
            "of hidden tokens", True, "filling gaps", prefers="bidirectional", percent=True),
    Measure("pairs-near", "Right sentence of two: agreement with the word beside it",
            "One of two sentences breaks the grammar; the model gives the right one the higher score.",
            "of pairs", True, None, percent=True),
    Measure("pairs-across", "Right sentence of two: agreement across a modifier",
            "The same, when the word that decides stands further back, with a misleading one in between.",
            "of pairs", True, "telling right from wrong sentences", percent=True),
    Measure("pairs", "Right sentence of two: two words exchanged",
            "One of two held-out passages has had two words exchanged; the model gives the right one the higher score.",
            "of pairs", True, "telling right from wrong sentences", percent=True),
    Measure("classify-tuned", "Classification after fine-tuning",
            "The network goes on training on labelled texts; accuracy on others.",
            "accuracy", True, "sorting texts into classes", prefers="bidirectional", percent=True),
    Measure("classify-frozen", "Classification from frozen features",
            "The network is left as it is and a linear classifier reads its mean-pooled states; accuracy.",
            "accuracy", True, None, prefers="bidirectional", percent=True),
    Measure("tag", "Labelling every token",
            "A linear classifier reads each token's state and names its role, which often hangs on what follows.",
            "accuracy", True, "labelling words in a text", prefers="bidirectional", percent=True),
    Measure("rewrite", "Body of a function to the first line of its docstring",
            "Fine-tuned to write a line about a piece of code; overlap with the characters of the true line.",
            "chrF", True, "rewriting one text as another", digits=1),
    Measure("write-speed", "Writing speed", "New tokens a second, one text at a time.", "tokens/s", True, digits=0,
            shown=False),
    Measure("read-speed", "Reading speed", "Held-out passages turned into features, a second.", "documents/s", True,
            digits=0, shown=False),
)}

SCORE_NAMES: dict[str, str] = {
    "suffix NLL above the truth": "suffix-truth", "suffix NLL": "suffix-nats", "suffix bits per byte": "suffix-bits",
}
"""The names that `evaluation` gives its suffix scores -> the measure they are."""

LIKELIHOODS = ("suffix-truth", "suffix-nats", "suffix-bits")
"""Measures whose estimators differ in kind (exact, bound, pseudo): never ranked without saying so."""


def kind_of(estimator: str) -> Literal["exact", "bound", "pseudo", "other"]:
    """Which of the three kinds an estimator's name says; "other" for accuracies and speeds."""
    name = estimator.lower()
    if "pseudo" in name:
        return "pseudo"
    if "bound" in name:
        return "bound"
    return "exact" if "exact" in name else "other"
