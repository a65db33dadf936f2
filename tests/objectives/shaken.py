"""A network that leaves nothing out: double precision and large random weights, so that whatever may matter does."""

from __future__ import annotations

import torch

from bothways.model import LanguageModel, ModelConfig


def shaken(config: ModelConfig, spread: float = 0.4, but: str | None = None) -> LanguageModel:
    """The network of a config, its matrices drawn anew with this standard deviation; vectors stay as they begin.

    Args:
        but: the end of the name of what stays as it begins, too.
    """
    torch.manual_seed(0)
    model = LanguageModel(config).double().eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() > 1 and (but is None or not name.endswith(but)):
                weight.normal_(0, spread)
    return model
