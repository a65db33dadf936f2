"""Mamba and Mamba-2 against the published classes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.families.reference import SCANS, check, shaken

from bothways.errors import BothwaysError
from bothways.visibility import bidirectional

transformers = pytest.importorskip("transformers")
PLAIN = {"vocab_size": 101, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 8, "bos_token_id": 1,
         "eos_token_id": 2, "pad_token_id": 0, "residual_in_fp32": False}
CASES = {
    "mamba": ("Mamba", {}),
    "mamba, biased, untied, odd sizes": ("Mamba", {"use_bias": True, "tie_word_embeddings": False, "conv_kernel": 3,
                                                   "time_step_rank": 5, "state_size": 5, "vocab_size": 77}),
    "mamba, no bias anywhere": ("Mamba", {"use_conv_bias": False, "expand": 3, "layer_norm_epsilon": 1e-3}),
    "mamba2": ("Mamba2", {"num_heads": 8, "head_dim": 8, "n_groups": 1}),
    "mamba2, groups, tied": ("Mamba2", {"num_heads": 16, "head_dim": 4, "n_groups": 4, "tie_word_embeddings": True}),
    "mamba2, biased, odd sizes": ("Mamba2", {"num_heads": 2, "head_dim": 48, "expand": 3, "n_groups": 2,
                                             "use_bias": True, "use_conv_bias": False, "conv_kernel": 2}),
}


@pytest.mark.parametrize("name", CASES)
def test_theirs_is_ours(name: str, tmp_path: Path) -> None:
    stem, options = CASES[name]
    config = getattr(transformers, f"{stem}Config")(**{**PLAIN, **options})
    ours = check(shaken(getattr(transformers, f"{stem}ForCausalLM")(config)), tmp_path, tolerance=SCANS,
                 embedding_first=False)
    with pytest.raises(BothwaysError, match="reads causally inside each document, not by 'bidirectional'"):
        ours.logits(torch.tensor([[1, 2, 3]]), visibility=bidirectional)
