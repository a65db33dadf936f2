"""The language model inside a published model that also sees pictures: its text is read, its eyes are passed over."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bothways.errors import BothwaysError
from bothways.families.weights import Weights

TEXT = {"llama4": "llama4_text", "gemma3": "gemma3_text"}
"""The `model_type` of such a model, and that of its `text_config`."""
_INSIDE = "language_model."
_EYES = ("vision_model.", "vision_tower.", "multi_modal_projector.")


def text_part(stored: Mapping[str, Any], where: str) -> tuple[dict[str, Any], bool]:
    """The config of the language model, and whether it stood inside another.

    Raises:
        BothwaysError: a model that sees pictures, without a `text_config`.
    """
    kind = str(stored.get("model_type"))
    if kind not in TEXT:
        return dict(stored), False
    inside = stored.get("text_config")
    if not isinstance(inside, Mapping):
        raise BothwaysError(f"{where} is of the model_type '{kind}', whose language model is described by a "
                            "text_config, but has none")
    around = {name: value for name, value in stored.items() if not name.endswith("_config")}
    return {**around, **inside, "model_type": TEXT[kind]}, True


def text_weights(weights: Weights) -> Weights:
    """The language model's entries by its own names; those of the eyes are left out, any other stays to be refused."""
    return Weights({name.removeprefix(_INSIDE): entry for name, entry in weights.stored.items()
                    if not name.startswith(_EYES)}, weights.where)
