"""DeBERTa v2 and v3 (arXiv 2006.03654, 2111.09543) and v1 as `transformers` has them: disentangled attention."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any, ClassVar

from torch import Tensor

from bothways.batch import Companion
from bothways.errors import BothwaysError, nearest
from bothways.families.base import Change, Names, Table
from bothways.families.bert import Bert, trunk
from bothways.families.encoder import SEGMENT
from bothways.families.weights import Weights
from bothways.model.config import Convolution, ModelConfig, Shape

_ACTIVATIONS = {"tanh": "tanh", "gelu": "gelu", "gelu_tanh": "gelu_new", "relu": "relu", "silu": "silu"}
"""Our name of a convolution's activation and the published one."""
_NEWER = "lm_predictions.lm_head."
"""Where newer files keep the head, whose layers they name otherwise."""
_HEADS = {f"{_NEWER}bias": "cls.predictions.bias", f"{_NEWER}dense.": "cls.predictions.transform.dense.",
          f"{_NEWER}LayerNorm.": "cls.predictions.transform.LayerNorm."}
POOLED = Companion("pooled", "gelu pooler")
"""What a class that was tuned on pairs of texts makes of a text's first state."""
_LAYER = "deberta.encoder.layer.{i}.attention.self."


def _body() -> dict[str, Any]:
    """The names that both versions share."""
    return {
        **trunk("deberta."),
        "tower.entry": "deberta.embeddings.embed_proj",
        "tower.distances": "deberta.encoder.rel_embeddings",
        "head_transform.dense": "cls.predictions.transform.dense",
        "head_transform.norm": "cls.predictions.transform.LayerNorm",
        "head": "cls.predictions.decoder", "head_bias": "cls.predictions.bias",
        "companions.pooled.dense": "pooler.dense"}


class DebertaV2(Bert):
    """Contents and distances meet in the scores, distances in log buckets (DeBERTa v2 and v3, arXiv 2111.09543).

    The head may lie in a file under its older names ("legacy") or its newer ones; it is the same head and is written
    under the older. The dot products of positions with positions that "p2p" names are in no released class.
    """

    model_type: ClassVar[str] = "deberta-v2"
    architecture: ClassVar[str] = "DebertaV2ForMaskedLM"
    body: ClassVar[str] = "deberta."
    classes: ClassVar[Mapping[tuple[bool, str], tuple[str, str]]] = {
        (True, ""): ("DebertaV2ForMaskedLM", "AutoModelForMaskedLM"), (False, ""): ("DebertaV2Model", "AutoModel")}
    beside: ClassVar[Mapping[Companion, str]] = {POOLED: "companions.pooled.dense"}
    names: ClassVar[Table] = {
        **_body(),
        "tower.blocks.{i}.attention.qkv": tuple(f"{_LAYER}{part}_proj" for part in ("query", "key", "value")),
        "tower.blocks.{i}.attention.placed.key": f"{_LAYER}pos_key_proj",
        "tower.blocks.{i}.attention.placed.query": f"{_LAYER}pos_query_proj",
        "tower.distances.norm": "deberta.encoder.LayerNorm",
        "tower.convolution": "deberta.encoder.conv.conv", "tower.convolution.norm": "deberta.encoder.conv.LayerNorm"}
    ignorable: ClassVar[tuple[str, ...]] = (*Bert.ignorable, r"mask_predictions\..*")
    """What else files of v3 hold: a head for replaced tokens."""
    typed: ClassVar[bool] = False
    counted: ClassVar[tuple[str, ...]] = ("c2p", "p2c")
    """The terms that widen the scale, whether they are added or not."""

    def to_config(self, config: ModelConfig) -> dict[str, Any]:
        position, width = config.position, config.embedding_width
        placed = position.kind == "disentangled"
        terms = [*position.terms] if placed else []
        beside = {"conv_kernel_size": config.convolution.kernel, "conv_groups": config.convolution.groups,
                  "conv_act": _ACTIVATIONS[config.convolution.activation]} if config.convolution.kernel else {}
        return {
            **super().to_config(config), **({"embedding_size": width} if width != config.shape.width else {}),
            "relative_attention": placed, "pos_att_type": [*terms, *self._uncounted(config, len(terms))],
            "position_biased_input": position.kind == "learned" or position.absolute,
            "max_relative_positions": position.distance if placed else -1, **beside,
            "legacy": True, "pad_token_id": 0, "pooler_hidden_size": config.shape.width, **self._apart(config),
        }

    def from_config(self, stored: Mapping[str, Any], where: str) -> ModelConfig:
        config = super().from_config({"layer_norm_eps": 1e-7, **stored}, where)
        if (types := int(stored.get("type_vocab_size") or 0)) > 0:
            config = replace(config, companions=(Companion(SEGMENT, "embedding", types),))
        # 1. a table of places is there only where the input is biased by it
        terms, scale = self._terms(stored), 1 + self._widths(stored)
        placed = bool(stored.get("relative_attention"))
        absolute = bool(stored.get("position_biased_input", True))
        position = replace(config.position, kind="learned" if absolute else "none")
        if placed:
            if not terms:
                raise BothwaysError(f"{where} sets relative_attention, but pos_att_type names neither c2p nor p2c")
            end = int(stored.get("max_relative_positions", -1))
            position = replace(position, kind="disentangled", terms=terms, absolute=absolute,
                               distance=end if end > 0 else config.position.length, **self._shared(stored))
        # 2. the scale, where it is not the one that follows from the terms
        config = replace(config, position=position, norm=replace(config.norm, widened=True))
        usual, own = config.score_scale, (config.head_size * scale) ** -0.5
        return replace(config, scale=None if abs(usual - own) <= 1e-12 else own, **self._beside(stored, where))

    def shape(self, stored: Mapping[str, Any]) -> Shape:
        shape, width = super().shape(stored), int(stored.get("embedding_size") or stored["hidden_size"])
        return shape if width == shape.width else replace(shape, embedding=width)

    def gather(self, published: Mapping[str, Tensor], stored: Mapping[str, Any], config: ModelConfig, where: str
               ) -> Mapping[str, Tensor]:
        """As every encoder; the head may have its newer names."""
        if POOLED in config.companions and (bent := stored.get("pooler_hidden_act", "gelu")) != "gelu":
            raise BothwaysError(f"{where} holds a pooler, and the config sets pooler_hidden_act '{bent}', but only "
                                "'gelu' is read here")
        return super().gather(Weights.of(published).renamed(_older), stored, config, where)

    def settled(self, config: ModelConfig, names: Collection[str]) -> ModelConfig:
        return super().settled(config, [_older(name) for name in names])

    def repeats(self, name: str, config: ModelConfig) -> bool:
        """Also tables of places that the input is not biased by: they are there for pretraining alone."""
        spare = config.position.kind != "learned" and not config.position.absolute
        return (spare and name.endswith("embeddings.position_embeddings.weight")) or super().repeats(name, config)

    # --- what the versions have of their own ---

    def _terms(self, stored: Mapping[str, Any]) -> tuple[str, ...]:
        """The terms that are added, in our order."""
        named = _named(stored)
        return tuple(term for term in ("c2p", "p2c") if term in named)

    def _widths(self, stored: Mapping[str, Any]) -> int:
        """How many terms widen the scale."""
        return sum(term in self.counted for term in dict.fromkeys(_named(stored)))

    def _uncounted(self, config: ModelConfig, terms: int) -> list[str]:
        """Terms that are named for the scale alone: none are with distances."""
        wide = round(1 / (config.head_size * config.score_scale ** 2)) - 1 - terms
        spare = [term for term in self.counted if config.position.kind != "disentangled"
                 or term not in config.position.terms]
        spare = spare if config.position.kind != "disentangled" else [term for term in spare if term == "p2p"]
        return spare[:max(wide, 0)]

    def _shared(self, stored: Mapping[str, Any]) -> dict[str, Any]:
        """How distances are laid out."""
        return {"buckets": max(int(stored.get("position_buckets", -1)), 0),
                "shared": bool(stored.get("share_att_key", False)),
                "normed": "layer_norm" in str(stored.get("norm_rel_ebd", "none")).lower()}

    def _beside(self, stored: Mapping[str, Any], where: str) -> dict[str, Any]:
        """The convolution."""
        kernel, known = int(stored.get("conv_kernel_size", 0)), {name: ours for ours, name in _ACTIVATIONS.items()}
        if kernel < 1:
            return {}
        activation = str(stored.get("conv_act", "tanh"))
        if activation not in known:
            raise BothwaysError(f"{where} has the unknown conv_act '{activation}' {nearest(activation, known)}")
        return {"convolution": Convolution(kernel, int(stored.get("conv_groups", 1)),
                                           known[activation])}  # type: ignore[arg-type]

    def _apart(self, config: ModelConfig) -> dict[str, Any]:
        """The entries that this version alone has."""
        position = config.position
        return {"position_buckets": position.buckets or -1, "share_att_key": position.shared,
                "norm_rel_ebd": "layer_norm" if position.normed else "none"} if position.kind == "disentangled" else {}


def _interleaved(rows: Tensor, config: ModelConfig, ours: bool) -> Tensor:
    """Rows by part, head and number as rows by head, part and number, or the other way round (`ours`)."""
    heads = config.shape.heads
    split = rows.unflatten(0, (heads, 3, -1) if ours else (3, heads, -1))
    return split.transpose(0, 1).flatten(0, 2).contiguous()


class Deberta(DebertaV2):
    """Contents and distances meet in the scores; keys have no bias (DeBERTa, arXiv 2006.03654)."""

    model_type: ClassVar[str] = "deberta"
    architecture: ClassVar[str] = "DebertaForMaskedLM"
    classes: ClassVar[Mapping[tuple[bool, str], tuple[str, str]]] = {
        (True, ""): ("DebertaForMaskedLM", "AutoModelForMaskedLM"), (False, ""): ("DebertaModel", "AutoModel")}
    names: ClassVar[Table] = {
        **_body(),
        "tower.blocks.{i}.attention.qkv": Names((f"{_LAYER}in_proj",), (Change(
            lambda theirs, config: _interleaved(theirs, config, True),
            lambda ours, config: _interleaved(ours, config, False)),)),
        "tower.blocks.{i}.attention.query_bias": f"{_LAYER}q_bias",
        "tower.blocks.{i}.attention.value_bias": f"{_LAYER}v_bias",
        "tower.blocks.{i}.attention.placed.key": f"{_LAYER}pos_proj",
        "tower.blocks.{i}.attention.placed.query": f"{_LAYER}pos_q_proj"}
    counted: ClassVar[tuple[str, ...]] = ("c2p", "p2c", "p2p")

    def from_config(self, stored: Mapping[str, Any], where: str) -> ModelConfig:
        if stored.get("talking_head"):
            raise BothwaysError(f"{where} sets talking_head, which this network does not have")
        return replace(super().from_config(stored, where), qkv_bias="qv")

    def _shared(self, stored: Mapping[str, Any]) -> dict[str, Any]:
        return {"buckets": 0}

    def _beside(self, stored: Mapping[str, Any], where: str) -> dict[str, Any]:
        return {}

    def _apart(self, config: ModelConfig) -> dict[str, Any]:
        return {}


def _named(stored: Mapping[str, Any]) -> list[str]:
    """The terms of a published config, a list or one string."""
    named = stored.get("pos_att_type") or []
    return [term.strip() for term in named.lower().split("|")] if isinstance(named, str) else list(named)


def _older(name: str) -> str:
    """A name of the head in newer files as older ones have it."""
    found = next((newer for newer in _HEADS if name.startswith(newer)), None)
    return name if found is None else _HEADS[found] + name.removeprefix(found)
