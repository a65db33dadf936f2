"""EuroBERT (arXiv 2503.05500) as `transformers.EuroBertForMaskedLM`: the LLaMA block, looking both ways."""

from __future__ import annotations

from typing import ClassVar

from bothways.families.base import Direction
from bothways.families.llama import Llama


class EuroBert(Llama):
    """An encoder of LLaMA blocks. Its `mlp_bias` would give the head a bias too, so biases do not fit."""

    model_type: ClassVar[str] = "eurobert"
    architecture: ClassVar[str] = "EuroBertForMaskedLM"
    direction: ClassVar[Direction] = "bidirectional"
    objective: ClassVar[str] = "masked"
    biases: ClassVar[tuple[str, ...]] = ()
