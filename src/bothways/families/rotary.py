"""Rotary positions in a published config: the base, and how angles are slowed down, both ways."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from bothways.errors import BothwaysError
from bothways.families.base import demand
from bothways.model.config import Position, Scaling

TURNS = {"llama3": ("low_freq_factor", "high_freq_factor"), "yarn": ("beta_slow", "beta_fast")}
"""What the two counts of turns are called in each kind of scaling."""
_USUAL = {"llama3": (1.0, 4.0), "yarn": (1.0, 32.0)}


def entries(stored: Mapping[str, Any]) -> dict[str, Any]:
    """All that a config says of rotary positions, newer entries before older ones, kinds by their newer name."""
    found = {**(stored.get("rope_scaling") or {}), **(stored.get("rope_parameters") or {})}
    kind = found.pop("type", "default")
    return {"rope_type": kind, "rope_theta": stored.get("rope_theta"), **found}


def read_position(stored: Mapping[str, Any], where: str, base: float = 10000.0) -> Position:
    """The rotary positions of a published config.

    Args:
        base: the one that the family takes where its config says none.
    Raises:
        BothwaysError: a kind of scaling we do not have, or an entry of it that is missing.
    """
    said = entries(stored)
    kind, length = said["rope_type"], int(stored.get("max_position_embeddings", 2048))
    share = float(said.get("partial_rotary_factor") or stored.get("partial_rotary_factor") or 1.0)
    known = ("default", "linear", *TURNS)
    if kind not in known:
        raise BothwaysError(f"{where} turns positions by rope_type '{kind}', but {', '.join(known)} are read here")
    scaling = None if kind == "default" else _scaling(said, stored, length, where)
    return Position("rotary", float(said["rope_theta"] or base), length, share=share, scaling=scaling)


def written_position(position: Position, spread: float = 1.0) -> dict[str, Any]:
    """The entries of a published config for rotary positions, all but the share of a head that is turned.

    Args:
        spread: what scores are multiplied with beside 1 / sqrt(head size), written as "mscale_all_dim".
    """
    scaling = position.scaling
    said: dict[str, Any] = {"rope_type": "default", "rope_theta": float(position.base)}
    if scaling is not None:
        said |= {"rope_type": scaling.kind, "factor": scaling.factor}
        if scaling.kind != "linear":
            slow, fast = TURNS[scaling.kind]
            said |= {"original_max_position_embeddings": scaling.length, slow: scaling.slow, fast: scaling.fast}
        if scaling.kind == "yarn":
            said |= {"truncate": scaling.whole, "attention_factor": scaling.magnitude}
            if spread != 1 and scaling.factor > 1:
                root = math.sqrt(spread)
                said |= {"mscale": _slope(scaling.magnitude * root, scaling.factor),
                         "mscale_all_dim": _slope(root, scaling.factor)}
    older = None if scaling is None else {**said, "type": said["rope_type"]}
    return {"rope_theta": said["rope_theta"], "rope_parameters": said, "rope_scaling": older,
            "max_position_embeddings": position.length}


def spread_of(stored: Mapping[str, Any]) -> float:
    """What DeepSeek multiplies its scores with where "yarn" has a "mscale_all_dim"; 1 elsewhere."""
    said = entries(stored)
    if said["rope_type"] == "default" or not said.get("mscale_all_dim"):
        return 1.0
    return _gain(float(said["factor"]), float(said["mscale_all_dim"])) ** 2


def _scaling(said: Mapping[str, Any], stored: Mapping[str, Any], length: int, where: str) -> Scaling:
    """The scaling that these entries describe."""
    kind = str(said["rope_type"])
    first = said.get("original_max_position_embeddings") or stored.get("original_max_position_embeddings") or length
    factor = said.get("factor")
    if kind != "yarn" or (factor is None and first == length):
        demand(said, ("factor",), f"{where} in its rope_parameters")
    factor = length / int(first) if factor is None else float(factor)
    if kind == "linear":
        return Scaling("linear", factor)
    if kind == "llama3":
        demand(said, TURNS["llama3"], f"{where} in its rope_parameters")
    slow, fast = (float(said.get(name) or usual) for name, usual in zip(TURNS[kind], _USUAL[kind], strict=True))
    if kind == "llama3":
        return Scaling("llama3", factor, int(first), slow, fast)
    magnitude = said.get("attention_factor")
    if magnitude is None:
        one, all_of_it = said.get("mscale"), said.get("mscale_all_dim")
        magnitude = _gain(factor, one) / _gain(factor, all_of_it) if one and all_of_it else _gain(factor, 1.0)
    return Scaling("yarn", factor, int(first), slow, fast, float(magnitude), bool(said.get("truncate", True)))


def _gain(factor: float, slope: float) -> float:
    """YaRN's magnitude, 1 + slope ln(factor) / 10 (arXiv 2309.00071, eq. 22)."""
    return 1.0 if factor <= 1 else 0.1 * slope * math.log(factor) + 1.0


def _slope(gain: float, factor: float) -> float:
    """The slope of that gain, without the noise of the way there."""
    return round((gain - 1) / (0.1 * math.log(factor)), 10)
