"""Objectives: what is hidden, what is asked, how it is scored. One file each; this one knows their names."""

from __future__ import annotations

from collections.abc import Mapping

from bothways.batch import Vocabulary
from bothways.errors import BothwaysError, nearest
from bothways.objectives import specs
from bothways.objectives.adversarial import Adversarial
from bothways.objectives.base import Mode, Objective, Part, Profile
from bothways.objectives.block_diffusion import BlockDiffusion
from bothways.objectives.denoising import Denoising
from bothways.objectives.diffusion import Diffusion
from bothways.objectives.fim import FillInTheMiddle
from bothways.objectives.glm import GLM
from bothways.objectives.loss import cross_entropy
from bothways.objectives.instruct import Instruct
from bothways.objectives.masked import Masked
from bothways.objectives.masked_next import MaskedNext
from bothways.objectives.mixture import Member, Mixture, described_members
from bothways.objectives.next_token import NextToken
from bothways.objectives.pairs import Pairs
from bothways.objectives.permuted import Permuted
from bothways.objectives.prefix import Prefix
from bothways.objectives.replaced_token import ReplacedToken
from bothways.objectives.sentence_pairs import SentencePairs
from bothways.objectives.span_corruption import SpanCorruption
from bothways.objectives.spans import Spans
from bothways.objectives.text_to_text import TextToText
from bothways.objectives.ul2 import UL2
from bothways.objectives.variational import Variational

__all__ = ["Member", "Mixture", "Mode", "Objective", "Part", "Profile", "cross_entropy", "known", "make"]

_KNOWN: tuple[type[Objective], ...] = (NextToken, Masked, MaskedNext, SpanCorruption, Denoising, Diffusion,
                                       BlockDiffusion, Prefix,
                                       UL2, GLM, FillInTheMiddle, Permuted, TextToText, ReplacedToken, Spans, Variational, Adversarial,
                                       SentencePairs, Pairs, Instruct, Mixture)


def known() -> dict[str, type[Objective]]:
    """Every objective of the house by its name, in the order they are explained."""
    return {kind.name: kind for kind in _KNOWN}


def make(spec: str | Mapping[str, object], vocabulary: Vocabulary) -> Objective:
    """The objective a spec describes.

    Args:
        spec: a name ("masked"), a name with options ("masked(rate=0.3)"), a sum ("0.25 next-token + 0.75 masked-next",
            or with "then" for phases), a mapping ({"name": "masked", "rate": 0.3}), a YAML file with such a mapping,
            or a class in a file of your own ("mine.py:Mine").
        vocabulary: of the tokenizer it will work with.
    Raises:
        BothwaysError: an unknown name or option (with the nearest one), a value out of range, a tokenizer without a
            token it needs.
    """
    options = specs.read(spec)
    name = str(options.pop("name"))
    kind = specs.load(name) if specs.is_file(name) else known().get(name)
    if kind is None:
        raise BothwaysError(f"unknown objective '{name}' {nearest(name, known())}")
    specs.check_options(kind, name, options)
    if kind is Mixture:
        options["members"] = [_member(described, vocabulary) for described in described_members(options.get("members"))]
    return specs.build(kind, vocabulary, {option: specs.frozen(value) for option, value in options.items()})


def _member(described: Mapping[str, object], vocabulary: Vocabulary) -> Member:
    """A mixture's member from its mapping: an objective's own spec, and a share."""
    options = specs.read(described)
    share = options.pop("share", 1.0)
    return Member(make(options, vocabulary), share)  # type: ignore[arg-type]
